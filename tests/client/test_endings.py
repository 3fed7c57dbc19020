"""The connection ends at every octet of the session."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.conftest import Net
from tests.client.scripted_server import CLOSE, RESET, SILENT, Act, ScriptedServer
from tests.deferreds import Result
from twisted_sendmail.client import TLSPolicy
from twisted_sendmail.smtp import (
    AllRecipientsRefused,
    ConnectFailed,
    ConnectionClosed,
    DeliveryInDoubt,
    ProtocolBreach,
    SendmailError,
    SendTimeout,
)
from twisted_sendmail.smtp.errors import ServiceClosing

CLEAR = {"tls": TLSPolicy.NONE, "credentials": None}
CHUNKS = {
    "clear": ("PIPELINING", "CHUNKING", "STARTTLS"),
    "secure": ("PIPELINING", "CHUNKING", "AUTH PLAIN"),
}


def judged(net: Net, server: ScriptedServer, result: Result, verdict: int) -> None:
    """What a session that ended early may have come to; *verdict* is where its reply ends."""
    assert result.fired == 1
    assert net.link.over
    assert len(server.messages) <= 1
    if server.quota is None or server.quota >= verdict:
        assert len(result.get().accepted) == 1
        return
    assert isinstance(result.error, SendmailError)
    report = result.error.report
    doubtful = bool(report and report.in_doubt)
    assert doubtful == result.error.in_doubt == isinstance(result.error, DeliveryInDoubt)
    assert result.error.transient != doubtful, "never permanent"
    # What the server has is in doubt; what is not in doubt the server does not have.
    assert doubtful or not server.messages
    assert not report or () == report.accepted == report.refused


@pytest.mark.parametrize(
    ("end", "settings", "way"),
    # Every pair of two values.
    [
        (CLOSE, {}, {}),
        (CLOSE, CLEAR, CHUNKS),
        (RESET, {}, CHUNKS),
        (RESET, CLEAR, {}),
        (SILENT, {}, {}),
        (SILENT, CLEAR, CHUNKS),
    ],
)
def test_the_end_at_every_octet_the_server_says(
    net: Net, end: Act, settings: Any, way: Any
) -> None:
    """FIN, RST and silence: failed or in doubt, at most one copy, one result."""
    whole = net.server(**way)
    net.send(whole, **settings).get()
    verdict = whole.marks["BDAT_LAST" if way else "."][1]
    assert verdict > 100
    for octets in range(1, whole.said):
        server = net.server(**way)
        server.quota, server.at_quota = octets, end
        result = net.send(server, **settings)
        if end is SILENT:
            net.pump.advance(601)
        judged(net, server, result, verdict)


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_the_end_at_every_octet_of_ciphertext(net: Net, end: Act) -> None:
    """In the handshake, within a record, without close_notify."""
    whole = net.server()
    result = net.start(whole)
    counted = [0]
    write = net.link.server.write

    def counting(data: bytes) -> None:
        counted.append(len(data))
        write(data)

    net.link.server.write = counting
    net.pump.run()
    result.get()
    total = sum(counted)
    assert total > 1000
    for octets in range(1, total, 7):
        server = net.server()
        result = net.start(server)
        _cut(net.link.server, octets, end)
        net.pump.run()
        assert (result.fired, net.link.over) == (1, True)
        if result.error is not None:
            report = result.error.report
            assert bool(server.messages) <= bool(report and report.in_doubt)


def _cut(transport: Any, octets: int, end: Act) -> None:
    write, left = transport.write, [octets]

    def limited(data: bytes) -> None:
        write(data[: left[0]])
        left[0] -= len(data)
        if left[0] <= 0:
            left[0] = 0
            (transport.loseConnection if end is CLOSE else transport.reset)()

    transport.write = limited


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize(
    "key",
    [
        "GREETING",
        "EHLO",
        "STARTTLS",
        "EHLO/TLS",
        "AUTH",
        "MAIL",
        "RCPT",
        "DATA",
        "CONTENT",
        ".",
        "BDAT_LAST",
    ],
)
def test_421_at_any_command(net: Net, key: str, close: bool) -> None:
    """With or without close: failed, or the message refused for now where its end was sent."""
    way = CHUNKS if key == "BDAT_LAST" else {}
    server = net.server({key: ("421 4.3.2 bye", CLOSE) if close else "421 4.3.2 bye"}, **way)
    result = net.send(server)
    assert (result.fired, net.clock.seconds()) == (1, 0)
    # A small content is on its way, dot and all, before the 421 is read.
    refused = key in {".", "BDAT_LAST", "CONTENT"}
    assert isinstance(result.error, ServiceClosing)
    assert refused == isinstance(result.error, AllRecipientsRefused)
    assert not refused or ["refused"] == [o.status.value for o in result.report.outcomes]
    assert (
        result.error.transient,
        result.error.in_doubt,
        result.error.connection_usable,
    ) == (True, False, False)
    assert net.link.over


@pytest.mark.parametrize(
    "answer",
    [
        "354 go",
        ("250-queued\r\n", CLOSE),
        "220 hi",
        "221 bye",
        "235 ok",
        "334 x",
        "garbage",
        ("250-q\r\n251 r", CLOSE),
        "100 x",
    ],
)
def test_what_is_no_verdict_leaves_doubt(net: Net, answer: Any) -> None:
    """Behind the final dot: a reply that is lost, truncated or of another command."""
    server = net.server({".": answer, "QUIT": CLOSE})
    error = net.send(server).error
    assert (DeliveryInDoubt, True, False) == (type(error), error.in_doubt, error.transient)
    assert (len(error.report.in_doubt), len(server.messages)) == (1, 1)
    assert "may have been delivered" in str(error)


def test_a_verdict_that_comes_late_counts_until_the_deadline(net: Net) -> None:
    def late(server: Any, line: str) -> None:
        net.clock.callLater(599, server.act, "250 queued")

    result = net.send(net.server({".": late, "QUIT": SILENT}))
    net.pump.advance(610)
    assert len(result.get().accepted) == 1


@pytest.mark.parametrize(
    "quit_", [CLOSE, RESET, "500 what?", "554 no", "garbage", b"", "421 bye", "354 x"]
)
@pytest.mark.parametrize("pipelining", [True, False])
def test_accepted_stays_accepted(net: Net, quit_: Any, pipelining: bool) -> None:
    secure = ("PIPELINING", "AUTH PLAIN") if pipelining else ("AUTH PLAIN",)
    result = net.send(net.server({"QUIT": quit_}, secure=secure))
    net.pump.advance(3.1)
    assert len(result.get().accepted) == 1


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_the_end_right_behind_the_verdict_changes_nothing(net: Net, end: Act) -> None:
    result = net.send(net.server({".": (b"250 queued\r\n", end), "QUIT": SILENT}))
    assert len(result.get().accepted) == 1
    assert net.link.over


@pytest.mark.parametrize("code", [500, 550, 552, 554, 450, 451, 452])
def test_a_whole_refusal_of_the_content_leaves_no_doubt(net: Net, code: int) -> None:
    server = net.server({".": (f"{code} no", CLOSE)})
    error = net.send(server).error
    assert isinstance(error, AllRecipientsRefused)
    assert (code < 500) == error.transient


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_an_error_after_somebody_was_accepted_is_not_transient(net: Net, end: Act) -> None:
    """The server takes one recipient at a time: the same again would be a second copy for one."""
    limited = ("PIPELINING", "LIMITS RCPTMAX=1", "AUTH PLAIN")
    server = net.server({"RCPT#2": end}, secure=limited)
    result = net.send(server, recipients=["b@example.net", "c@example.net"])
    assert isinstance(result.error, ConnectionClosed)
    assert [o.status.value for o in result.report.outcomes] == ["accepted", "untouched"]
    assert (result.error.transient, result.error.in_doubt) == (False, False)
    assert [outcome.transient for outcome in result.report.outcomes] == [False, True]


@pytest.mark.parametrize("end", [CLOSE, RESET, ("421 4.3.2 bye", CLOSE)])
@pytest.mark.parametrize("offers", [(), ("CHUNKING",)], ids=["DATA", "BDAT"])
def test_the_end_between_two_transactions_is_an_error(
    net: Net, end: Any, offers: tuple[str, ...]
) -> None:
    """The message did not reach every recipient, though each command had its reply."""
    limited = ("PIPELINING", *offers, "LIMITS RCPTMAX=1", "AUTH PLAIN")
    key = "BDAT_LAST#1" if offers else ".#1"
    server = net.server({key: ("250 queued", end)}, secure=limited)
    result = net.send(server, recipients=["b@example.net", "c@example.net"])
    assert isinstance(result.error, ConnectionClosed)
    assert [o.status.value for o in result.report.outcomes] == ["accepted", "untouched"]


def test_no_connection_at_all(net: Net) -> None:
    error = net.send(ConnectionRefusedError("refused")).error
    assert (ConnectFailed, "connect") == (type(error), error.phase)
    assert isinstance(error, ConnectionError)


def test_a_connection_that_closes_at_once(net: Net) -> None:
    error = net.send(net.server({"CONNECT": CLOSE, "GREETING": SILENT})).error
    assert (ConnectionClosed, "greeting") == (type(error), error.phase)


def test_errors_are_of_the_builtin_that_people_catch(net: Net) -> None:
    assert issubclass(SendTimeout, TimeoutError)
    assert issubclass(ConnectionClosed, ConnectionError)
    assert not issubclass(ProtocolBreach, OSError)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("GREETING", "before the greeting"),
        ("EHLO", "before the reply to EHLO"),
        ("STARTTLS", "before the reply to STARTTLS"),
        ("AUTH", "before the reply to AUTH"),
        ("MAIL", "before the reply to MAIL"),
        ("RCPT", "before the reply to RCPT"),
        ("DATA", "before the reply to DATA"),
    ],
)
def test_the_error_tells_when_the_connection_was_lost(net: Net, at: str, words: str) -> None:
    error = net.send(net.server({at: CLOSE})).error
    assert isinstance(error, ConnectionClosed)
    assert f"connection lost {words} at mx.example.net[" in str(error)


def test_the_error_tells_which_command_was_answered_by_421(net: Net) -> None:
    error = net.send(net.server({"AUTH": ("421 4.7.0 too many errors", CLOSE)})).error
    assert "AUTH" in str(error)
    error = net.send(net.server({"MAIL": ("421 4.3.2 going down", CLOSE)})).error
    assert "connection closed in the reply to MAIL by " in str(error)
