"""Which failures are reported, and to whom."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.names import (
    Attempted,
    AttemptRecord,
    QueueAction,
    RecipientState,
    Reported,
    Selection,
    SetAside,
    SetAsideReason,
    without,
)
from tests.relay.world import HOUR, SENDER, World
from twisted_sendmail import Recipient, ServerSettings
from twisted_sendmail.smtp.server_settings import EXTENSIONS

GONE = {"gone@x.example": "550 5.1.1 unknown", SENDER: "550 5.1.1 the sender is unknown too"}
AUTOMATIC = "Auto-Submitted: auto-generated\r\n"


def test_a_report_that_is_refused_is_set_aside_and_makes_no_report(world: World) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host)
    world.send(relay, "gone@x.example")
    world.advance(HOUR)
    assert host.got == []
    (left,) = world.queue(relay)
    assert (left.aside, left.info.envelope.sender.mailbox) == (SetAsideReason.UNDELIVERABLE, None)
    assert len(world.of(Reported)) == 1


def test_mail_without_a_sender_is_set_aside_when_it_fails(world: World) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host)
    queued = world.send(relay, "gone@x.example", "ok@x.example", sender="")
    report = world.run(queued.delivered())
    assert report.aside
    assert host.got == [("<>", "ok@x.example")]
    (left,) = world.queue(relay)
    assert left.aside is SetAsideReason.UNDELIVERABLE
    assert [queued.id] == [event.id for event in world.of(SetAside)]


def test_mail_that_a_machine_wrote_is_never_reported_about(world: World) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host)
    world.send(relay, "gone@x.example", fields=AUTOMATIC)
    assert host.got == []
    assert [message.aside for message in world.queue(relay)] == [SetAsideReason.UNDELIVERABLE]


def test_what_was_set_aside_goes_out_when_it_is_requeued(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": ["550 5.1.1 unknown"]}
    relay = world.relay(host)
    world.send(relay, "gone@x.example", fields=AUTOMATIC)
    world.run(relay.queue.act(QueueAction.REQUEUE, Selection(), world.clock.seconds()))
    world.pump.run()
    assert host.got == [(SENDER, "gone@x.example")]


def test_the_one_who_is_pending_is_waited_for_before_it_is_set_aside(world: World) -> None:
    host = world.host()
    host.refusals = {**GONE, "full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    queued = world.send(relay, "gone@x.example", "full@x.example", fields=AUTOMATIC)
    assert [message.aside for message in world.queue(relay)] == [None]
    report = world.run(queued.delivered())
    assert (len(report.delivered), len(report.failed), report.aside) == (1, 1, True)


def test_a_postmaster_gets_what_nobody_else_can_be_told_of_once(world: World) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host, postmaster="postmaster@example.org")
    world.send(relay, "gone@x.example")
    assert host.got == [("<>", "postmaster@example.org")]
    assert world.queue(relay) == []
    host.refusals["postmaster@example.org"] = "550 5.1.1 nobody there"
    world.send(relay, "gone@x.example")
    world.advance(HOUR)
    assert len(host.got) == 1
    assert [message.aside for message in world.queue(relay)] == [SetAsideReason.UNDELIVERABLE]


_PARTS = "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n--b\r\n"
_SIGNATURE = "Content-Type: application/pkcs7-signature\r\n\r\nMIIB\r\n--b--\r\n"


def test_who_signed_8_bit_content_is_told_what_to_do_where_it_cannot_go(world: World) -> None:
    host = world.host(faults=[without("8BITMIME", "BINARYMIME")])
    relay = world.relay(host)
    kind = 'multipart/signed; protocol="application/pkcs7-signature"; boundary=b'
    mime = f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\n"
    world.send(relay, "bob@example.net", fields=mime, body=(_PARTS + _SIGNATURE).encode())
    (bounce,) = host.reports
    text = " ".join(bounce.email.get_body().get_content().split())  # type: ignore[union-attr]
    assert "8BITMIME is needed and not offered" in text
    assert (
        "takes 7-bit content only, and the message cannot be encoded on its way without breaking it"
        in text
    )
    assert "encode it as quoted-printable or base64 before it is signed, and send it again" in text
    assert b"\r\nStatus: 5.6.3\r\n" in bounce.content


@pytest.mark.parametrize(
    ("notify", "told"), [((), 1), ("FAILURE", 1), ("NEVER", 0), (("SUCCESS", "DELAY"), 0)]
)
def test_a_failure_is_reported_to_who_did_not_decline(
    world: World, notify: tuple[str, ...], told: int
) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    world.send(relay, Recipient("gone@x.example", notify))
    assert told == len(host.reports)
    assert world.queue(relay) == []


def test_what_was_asked_for_is_passed_on_and_repeated_in_the_report(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    world.send(
        relay,
        Recipient("ok@x.example", ("SUCCESS", "FAILURE"), "rfc822;first@y.example"),
        Recipient("gone@x.example", (), "rfc822;second@y.example"),
        ret="HDRS",
        envid="my-name",
        body=b"a secret\r\n",
    )
    message, report = host.messages
    assert (message.parameters.ret, message.parameters.envid) == ("HDRS", "my-name")
    (ok,) = message.recipients
    assert (ok.notify, ok.orcpt) == (frozenset({"SUCCESS", "FAILURE"}), "rfc822;first@y.example")
    assert b"Original-Envelope-Id: my-name" in report.content
    assert b"Original-Recipient: rfc822;second@y.example" in report.content
    assert b"Subject: x" in report.content
    assert b"a secret" not in report.content


def test_the_message_comes_back_whole_where_nothing_else_was_asked_for(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    world.send(relay, "gone@x.example", body=b"what I wrote\r\n")
    assert b"what I wrote" in host.reports[0].content


@pytest.mark.parametrize("announced", [True, False])
def test_a_report_about_requiretls_requires_it_and_returns_no_body(
    world: World, announced: bool
) -> None:
    """RFC 8689 section 5; without it the status is 5.7.30, and the report waits for the operator."""
    keywords = (*EXTENSIONS, "REQUIRETLS") if announced else EXTENSIONS
    host = world.host(clear=False, settings=ServerSettings(extensions=keywords))
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    world.send(relay, "gone@x.example", require_tls=True, body=b"the secret\r\n")
    world.advance(HOUR)
    (attempt, *_) = world.of(Attempted)
    assert attempt.dsn == ("5.1.1" if announced else "5.7.30")
    if announced:
        (message,) = host.messages
        assert message.parameters.require_tls
        assert b"the secret" not in message.content
        assert b"Subject: x" in message.content
    else:
        assert host.messages == []
        (left,) = world.queue(relay)
        assert left.info.envelope.require_tls
        assert left.aside is SetAsideReason.UNDELIVERABLE


def test_of_a_message_too_large_for_the_next_hop_the_header_comes_back(world: World) -> None:
    host = world.host()
    host.refusals = {"big@x.example": "552 5.3.4 too big"}
    relay = world.relay(host)
    world.send(relay, "big@x.example")
    (report,) = host.reports
    assert b"text/rfc822-headers" in report.content


def test_of_a_large_message_the_header_comes_back(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    world.send(relay, "gone@x.example", body=b"what I wrote\r\n" * 100_000)
    (report,) = host.reports
    assert b"Subject: x" in report.content
    assert b"what I wrote" not in report.content


@pytest.mark.parametrize(("faults", "told"), [([], 0), ([without("DSN")], 1)])
def test_success_is_told_by_who_hands_it_to_a_server_that_will_not(
    world: World, faults: list[object], told: int
) -> None:
    host = world.host(faults=faults)  # type: ignore[arg-type]
    relay = world.relay(host)
    world.send(relay, Recipient("ok@x.example", "SUCCESS"), "other@x.example")
    assert told == len(host.reports)
    for report in host.reports:
        assert b"Action: relayed" in report.content
        assert b"other@x.example" not in report.content


@pytest.mark.parametrize(("notify", "told"), [((), 1), ("DELAY", 1), ("FAILURE", 0)])
def test_a_delay_is_told_once(world: World, notify: tuple[str, ...], told: int) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host)
    world.send(relay, Recipient("full@x.example", notify))
    world.advance(4 * HOUR - 10)
    assert host.reports == []
    world.advance(4 * HOUR)
    assert told == len(host.reports)
    for report in host.reports:
        assert b"Action: delayed" in report.content


def test_beyond_the_rate_a_failure_waits_and_is_told_of_later(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host, report_rate=0.001, report_burst=3)
    for _ in range(5):
        world.send(relay, "gone@x.example")
    assert len(host.reports) == 3
    assert [message.aside for message in world.queue(relay)] == [None, None]
    world.advance(3 * HOUR)
    assert len(host.reports) == 5
    assert world.queue(relay) == []


def test_what_the_operator_gives_up_is_told_of_whatever_the_rate(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host, report_rate=0.001, report_burst=1)
    for _ in range(5):
        world.send(relay, "full@x.example")
    world.run(relay.queue.act(QueueAction.EXPIRE, Selection(), world.clock.seconds()))
    world.advance(10)
    assert len(host.reports) == 5
    assert world.queue(relay) == []


def test_beyond_the_rate_a_failure_waits_where_others_are_pending(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown", "full@x.example": "452 4.2.2 full"}
    relay = world.relay(host, report_rate=0.001, report_burst=1)
    world.send(relay, "gone@x.example")
    world.send(relay, "gone@x.example", "full@x.example")
    assert [len(message.pending) for message in world.queue(relay)] == [2]
    world.advance(3000)
    assert len(host.reports) == 2
    assert [len(message.pending) for message in world.queue(relay)] == [1]


def test_what_a_server_says_reaches_neither_report_nor_log_unescaped(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 \x1b[2Jbad\u202eevil"}
    relay = world.relay(host)
    world.send(relay, "gone@x.example")
    assert b"\x1b" not in host.reports[0].content
    assert all("\x1b" not in str(event) and "\u202e" not in str(event) for event in world.events)


def test_a_report_takes_the_route_of_whom_it_is_for(world: World) -> None:
    one, two = world.host(), world.host()
    one.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(
        world.route(one, name="one", senders=(SENDER,)), world.route(two, name="two")
    )
    world.send(relay, "gone@x.example")
    assert (one.got, two.got) == ([("<>", SENDER)], [])


def test_reports_take_a_route_of_their_own_where_there_is_one(world: World) -> None:
    one, two = world.host(), world.host()
    one.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(world.route(one, name="one"), world.route(two, name="two", senders=("<>",)))
    world.send(relay, "gone@x.example")
    assert (one.got, two.got) == ([], [("<>", SENDER)])


def test_a_report_is_committed_with_the_failure_it_reports_and_not_before(world: World) -> None:
    """A crash between the two would report the failure a second time."""
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    spool = world.spool()
    lost: list[AttemptRecord] = []

    def crash(record: AttemptRecord) -> Deferred[None]:
        lost.append(record)
        return Deferred()

    spool.settle = crash  # type: ignore[method-assign,assignment]
    relay = world.relay(host, spool=spool)
    queued = world.send(relay, "gone@x.example")
    (record,) = lost
    assert len(record.reports) == 1
    assert [row.state for row in record.changes] == [RecipientState.FAILED]
    # The process ends here: the queue has neither the failure nor the report.
    assert [queued.id] == [message.id for message in world.queue(relay)]
    world.stop(relay)
    relay = world.relay(host)
    world.until(lambda: host.reports)
    world.advance(HOUR)
    assert host.got == [("<>", SENDER)]
    assert world.queue(relay) == []
