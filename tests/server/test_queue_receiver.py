"""The receiver that queues: 250 only when durable, and never 5xx for local errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from tests.dkim_verifier import keys
from tests.names import FULL, QueueError, QueueFull, QueueReceiver
from tests.server.conftest import Client, Net
from tests.server.scripted_queue import MemorySpool
from twisted_sendmail import (
    DKIMDomain,
    DKIMKey,
    Extension,
    ExtensionParameter,
    Recipient,
    ServerSettings,
    SigningUnavailable,
)
from twisted_sendmail.message import Rewriting
from twisted_sendmail.queue import CleanupPolicy
from twisted_sendmail.smtp.server_settings import EXTENSIONS

WHOLE = b"From: a@x.example\r\nDate: x\r\nMessage-ID: <i@x>\r\n"
ENVELOPE = "EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"
OPEN = ServerSettings(require_tls=False, extensions=(*EXTENSIONS, "REQUIRETLS"))


class Relay:
    """A server before a spool in memory."""

    def __init__(self, net: Net, *, local: bool = False, **options: Any) -> None:
        self.net = net
        self.spool = MemorySpool()
        policy = {"name": "relay.example.net", "route_of": lambda *_: "default"}
        policy.update(options.pop("policy", {}))
        self.policy = CleanupPolicy(**policy)  # type: ignore[arg-type]
        options.setdefault("settings", OPEN)
        net.server(
            lambda connection: QueueReceiver(
                connection, self.spool, self.policy, net.clock, local=local
            ),
            **options,
        )

    def client(self, envelope: str = ENVELOPE) -> Client:
        client = self.net.client()
        client.send(envelope)
        return client

    @property
    def contents(self) -> list[bytes]:
        return [content for _, content in self.spool.kept]


def test_a_message_is_kept_and_told_by_its_name(net: Net) -> None:
    relay = Relay(net)
    client = relay.client()
    assert client.code("DATA") == "354 End"
    said = client.send(WHOLE + b"\r\n..dot\r\n.\r\n")
    assert said == ["250 2.0.0 Ok: queued as ID1"]
    ((info, content),) = relay.spool.kept
    assert (
        content,
        info.id,
        info.route,
        info.message_id,
        info.arrived,
    ) == (WHOLE + b"\r\n.dot\r\n", "ID1", "default", "<i@x>", 0.0)
    assert info.origin == "c.example[192.0.2.2] ESMTP"


@pytest.mark.parametrize("body", [b"x\r\n", b"x\r\n" * 100_000], ids=["small", "large"])
def test_a_key_that_cannot_be_read_is_451(net: Net, body: bytes) -> None:
    errors: list[Exception] = [SigningUnavailable("no key", detail="disk gone", remedy="look")]

    def key() -> DKIMKey:
        if errors:
            raise errors.pop()
        return keys("x.example")[1]

    relay = Relay(net, local=True, policy={"dkim": (DKIMDomain("x.example", [key], users=None),)})
    client = relay.client()
    content = WHOLE + b"\r\n" + body + b".\r\n"
    client.send("DATA\r\n")
    with capturedLogs() as logged:
        assert client.send(content)[-1] == "451 4.3.0 Local error in processing"
    assert [] == relay.spool.kept
    assert "not queued: no key: disk gone; look" in formatEvent(logged[-1])
    # The same client may try again.
    client.send("MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    assert client.send(content)[-1] == "250 2.0.0 Ok: queued as ID2"
    assert ["x.example"] == [info.dkim for info, _ in relay.spool.kept]


def test_250_is_said_only_after_the_commit(net: Net) -> None:
    relay = Relay(net)
    committing: Deferred[None] = Deferred()
    relay.spool.committing = committing
    client = relay.client()
    client.send("DATA\r\n")
    assert client.send(WHOLE + b"\r\n.\r\nNOOP\r\n") == []
    committing.callback(None)
    net.pump.run()
    assert client.take() == ["250 2.0.0 Ok: queued as ID1", "250 2.0.0 Ok"]


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (QueueFull("no room"), "452 4.3.1"),
        (QueueError("the disk is gone"), "451 4.3.0"),
        (OSError("that too"), "451 4.3.0"),
    ],
)
@pytest.mark.parametrize("where", ["writing", "committing"])
def test_our_trouble_is_transient(net: Net, where: str, trouble: Exception, code: str) -> None:
    relay = Relay(net)
    setattr(relay.spool, where, trouble)
    client = relay.client()
    client.send("DATA\r\n")
    with capturedLogs() as events:
        (said,) = client.send(WHOLE + b"\r\n.\r\n")
    assert code == said[:9]
    assert any("ID1" in event.get("id", "") for event in events)
    assert relay.spool.kept == []
    assert relay.spool.intakes[0].aborted == (1 if where == "writing" else 0)
    # The next one on the same connection starts clean.
    relay.spool.committing = None
    client.send(ENVELOPE + "DATA\r\n")
    assert client.send(WHOLE + b"\r\n.\r\n") == ["250 2.0.0 Ok: queued as ID2"]


@pytest.mark.parametrize("trouble", [QueueFull("no room"), QueueError("gone")])
def test_trouble_with_what_was_held_back_is_told_too(net: Net, trouble: Exception) -> None:
    relay = Relay(net)
    client = relay.client()
    client.send("DATA\r\n")
    relay.spool.writing = trouble
    # There is no body: all of it is written at the end.
    (said,) = client.send(b"Subject: s\r\n.\r\n")
    assert said[:3] in {"451", "452"}
    assert (relay.spool.kept, relay.spool.intakes[0].aborted) == ([], 1)


def test_content_that_was_held_back_is_waited_for_before_the_commit(net: Net) -> None:
    relay = Relay(net)
    client = relay.client()
    client.send("DATA\r\n")
    writing: Deferred[None] = Deferred()
    relay.spool.writing = writing
    assert client.send(WHOLE + b".\r\n") == []
    assert relay.spool.intakes[0].committed is None
    writing.callback(None)
    net.pump.run()
    assert client.take() == ["250 2.0.0 Ok: queued as ID1"]
    assert relay.contents == [WHOLE]


def test_an_empty_message_is_made_one(net: Net) -> None:
    relay = Relay(net)
    client = relay.client()
    client.send("DATA\r\n")
    assert client.send(b".\r\n") == ["250 2.0.0 Ok: queued as ID1"]
    assert relay.contents[0].startswith(b"From: a@x.example\r\nDate: ")


def test_an_empty_message_that_is_not_completed_is_kept(net: Net) -> None:
    relay = Relay(net, policy={"complete": False})
    client = relay.client()
    client.send("DATA\r\n")
    assert client.send(b".\r\n") == ["250 2.0.0 Ok: queued as ID1"]
    assert relay.contents == [b""]


def test_our_received_field_stays_in_front_of_what_is_added(net: Net) -> None:
    relay = Relay(net, trace=True)
    client = relay.client()
    client.send("DATA\r\n")
    client.send(b"Subject: s\r\n\r\nhi\r\n.\r\n")
    (content,) = relay.contents
    names = [line.split(b":")[0] for line in content.split(b"\r\n") if b": " in line]
    assert names == [b"Received", b"Subject", b"From", b"Date", b"Message-ID"]
    assert b"id ID1" in content.split(b"Subject")[0]
    assert content.endswith(b"\r\n\r\nhi\r\n")


# -- losses -----------------------------------------------------------------------------


def test_a_connection_lost_in_the_content_keeps_nothing(net: Net) -> None:
    relay = Relay(net)
    client = relay.client()
    client.send("DATA\r\n")
    client.send(WHOLE + b"\r\nhalf a mess")
    client.raw.transport.abortConnection()  # type: ignore[union-attr]
    net.pump.run()
    (intake,) = relay.spool.intakes
    assert (intake.aborted, intake.committed, relay.spool.kept) == (1, None, [])


def test_a_connection_lost_while_a_write_waits_keeps_nothing(net: Net) -> None:
    relay = Relay(net)
    client = relay.client()
    client.send("DATA\r\n")
    relay.spool.writing = Deferred()
    client.send(WHOLE + b"\r\nall of it\r\n.\r\n")
    client.raw.transport.abortConnection()  # type: ignore[union-attr]
    net.pump.run()
    (intake,) = relay.spool.intakes
    assert (intake.aborted, intake.committed, relay.spool.kept) == (1, None, [])


def test_a_connection_lost_while_committing_keeps_the_message(net: Net) -> None:
    relay = Relay(net)
    committing: Deferred[None] = Deferred()
    relay.spool.committing = committing
    client = relay.client()
    client.send("DATA\r\n")
    client.send(WHOLE + b"\r\n.\r\n")
    client.raw.transport.abortConnection()  # type: ignore[union-attr]
    net.pump.run()
    assert relay.spool.intakes[0].aborted == 0
    committing.callback(None)
    assert relay.contents == [WHOLE + b"\r\n"]


def test_rset_in_the_middle_of_chunks_keeps_nothing(net: Net) -> None:
    relay = Relay(net)
    client = relay.client()
    client.send(b"BDAT %d\r\n" % (len(WHOLE) + 2) + WHOLE + b"\r\n")
    assert client.code("RSET") == "250 2.0.0"
    assert (relay.spool.intakes[0].aborted, relay.spool.kept) == (1, [])


def test_a_write_that_waits_pauses_reading(net: Net) -> None:
    relay = Relay(net)
    client = relay.client()
    client.send("DATA\r\n")
    writing: Deferred[None] = Deferred()
    relay.spool.writing = writing
    client.send(WHOLE + b"\r\nx\r\n")
    body = b"x" * 70 + b"\r\n"
    many = body * (4 * FULL // len(body))
    client.send(many + b".\r\n")
    (intake,) = relay.spool.intakes
    assert intake.content == WHOLE + b"\r\nx"
    assert client.link is not None
    assert client.link.server.reading is False
    writing.callback(None)
    net.pump.run()
    assert client.take() == ["250 2.0.0 Ok: queued as ID1"]
    assert relay.contents == [WHOLE + b"\r\nx\r\n" + many]


# -- what is kept -----------------------------------------------------------------------


def test_what_the_sender_asked_for_is_kept(net: Net) -> None:
    relay = Relay(net)
    client = relay.client("EHLO c.example\r\n")
    client.send(
        "MAIL FROM:<a@x.example> RET=HDRS ENVID=E+2B1 BODY=8BITMIME\r\n"
        "RCPT TO:<b@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first@z.example\r\n"
        "RCPT TO:<c@y.example> NOTIFY=NEVER\r\nDATA\r\n"
    )
    client.send(WHOLE + b"\r\n\xc3\xa9\r\n.\r\n")
    ((info, _),) = relay.spool.kept
    assert (
        Recipient("b@y.example", ["SUCCESS", "DELAY"], "rfc822;first@z.example"),
        Recipient("c@y.example", "NEVER"),
    ) == info.envelope.recipients
    assert (
        info.envelope.ret,
        info.envelope.envid,
        info.envelope.require_tls,
        info.eight_bit,
        info.binary,
        info.smtputf8,
    ) == ("HDRS", "E+1", False, True, False, False)


def test_requiretls_is_kept(net: Net) -> None:
    relay = Relay(
        net, tls=net.certificate, settings=ServerSettings(starttls=True, extensions=OPEN.extensions)
    )
    client = net.client()
    client.starttls()
    client.send("MAIL FROM:<a@x.example> REQUIRETLS\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    client.send(WHOLE + b"\r\n.\r\n")
    ((info, _),) = relay.spool.kept
    assert (info.envelope.require_tls, info.origin[0]) == (True, "c")
    assert info.origin.endswith(" ESMTPS")


def test_binary_content_is_kept_untouched(net: Net) -> None:
    relay = Relay(net)
    client = relay.client("EHLO c.example\r\n")
    client.send("MAIL FROM:<a@x.example> BODY=BINARYMIME\r\nRCPT TO:<b@y.example>\r\n")
    body = b"\0\r\n.\r\n\n\r\r\xff"
    content = b"Subject: s\r\n\r\n" + body
    said = client.send(b"BDAT %d LAST\r\n" % len(content) + content)
    assert said == ["250 2.0.0 Ok: queued as ID1"]
    ((info, kept),) = relay.spool.kept
    assert (info.binary, info.eight_bit) == (True, True)
    assert kept.startswith(b"Subject: s\r\nFrom: a@x.example\r\n")
    assert kept.endswith(b"\r\n\r\n" + body)


def test_a_rewritten_recipient_keeps_the_original_for_reports(net: Net) -> None:
    rewriting = Rewriting(admin="admin@example.org", senders={"*": "app@example.org"})
    relay = Relay(net, policy={"rewriting": rewriting})
    client = relay.client("EHLO c.example\r\n")
    client.send(
        "MAIL FROM:<root@h>\r\nRCPT TO:<root@localhost>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n"
    )
    client.send(b"From: root@h\r\n\r\n.\r\n")
    ((info, content),) = relay.spool.kept
    assert content.startswith(b"From: app@example.org\r\n")
    assert str(info.envelope.sender) == "app@example.org"
    assert (
        Recipient("admin@example.org", orcpt="rfc822;root@localhost"),
    ) == info.envelope.recipients


def test_parameters_of_an_extension_are_queued(net: Net) -> None:
    label = Extension(
        "XLABEL",
        mail=(ExtensionParameter("XLABEL"),),
        rcpt=(ExtensionParameter("XFOLDER"),),
    )
    relay = Relay(net, settings=replace(OPEN, extensions=(label,)))
    client = relay.client(
        "EHLO c.example\r\nMAIL FROM:<a@x.example> XLABEL=a+20b\r\n"
        "RCPT TO:<b@y.example> XFOLDER=c\r\n"
    )
    client.send("DATA\r\n")
    client.send(WHOLE + b"\r\n.\r\n")
    ((info, _),) = relay.spool.kept
    assert info.envelope.others == {"XLABEL": "a b"}
    assert [each.others for each in info.envelope.recipients] == [{"XFOLDER": "c"}]


def test_a_received_field_of_the_client_that_names_our_id_is_a_hop(net: Net) -> None:
    relay = Relay(net, policy={"max_hops": 0}, trace=False)
    client = relay.client()
    client.send("DATA\r\n")
    (reply,) = client.send(b"Received: by relay with ESMTP id ID1\r\n" + WHOLE + b"\r\n.\r\n")
    assert (reply[:9], relay.spool.kept) == ("554 5.4.6", [])


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("settings", [OPEN, replace(OPEN, max_hops=3)])
def test_our_own_received_field_is_no_hop(net: Net, settings: Any, trace: bool) -> None:
    relay = Relay(net, policy={"max_hops": 3}, settings=settings, trace=trace)
    client = relay.client()
    client.send("DATA\r\n")
    said = client.send(b"Received: x\r\n" * 3 + WHOLE + b"\r\n.\r\n")
    assert said == ["250 2.0.0 Ok: queued as ID1"]
    assert relay.contents[0].count(b"Received: ") == 3 + trace
    client.send(ENVELOPE + "DATA\r\n")
    said = client.send(b"Received: x\r\n" * 4 + WHOLE + b"\r\n.\r\n")
    assert said == ["554 5.4.6 Too many hops"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_message_that_goes_in_circles_is_refused_for_good(net: Net, ended: bool) -> None:
    relay = Relay(net, policy={"max_hops": 3})
    client = relay.client()
    client.send("DATA\r\n")
    said = client.send(b"Received: x\r\n" * 4 + b"\r\n" * ended + b".\r\n")
    assert said == ["554 5.4.6 Too many hops"]
    assert relay.spool.kept == []
    assert all(intake.aborted == 1 for intake in relay.spool.intakes)
