"""Messages from `send` to their result."""

from __future__ import annotations

import pytest

from tests.names import (
    Attempted,
    Fault,
    Interrupted,
    QueueAction,
    RecipientState,
    Reported,
    RouteDown,
    Selection,
    SetAsideReason,
    Trouble,
    close,
    id_number,
    refuse,
    reset,
    send,
    stall,
    without,
)
from tests.relay.world import HOUR, SENDER, START, Host, World
from twisted_sendmail import MailerClosed, PoolLimits, Recipient, RetryPolicy
from twisted_sendmail.message import HeaderFixer, Rewriting
from twisted_sendmail.queue import CleanupPolicy
from twisted_sendmail.relay import Routing


def test_a_new_message_goes_out_at_once(world: World) -> None:
    host = world.host()
    relay = world.relay(host)
    queued = world.send(relay, "bob@example.net")
    assert host.got == [(SENDER, "bob@example.net")]
    assert world.clock.seconds() == START
    report = world.run(queued.delivered())
    assert [outcome.state for outcome in report.outcomes] == [RecipientState.DELIVERED]
    assert world.queue(relay) == []


def test_of_three_one_is_delivered_one_bounced_once_and_one_retried_alone(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown", "full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    queued = world.send(relay, "ok@x.example", "gone@x.example", "full@x.example")
    report = world.run(queued.delivered())
    assert [str(o.recipient) for o in report.delivered] == ["ok@x.example", "full@x.example"]
    assert [str(o.recipient) for o in report.failed] == ["gone@x.example"]
    assert host.got == [
        (SENDER, "ok@x.example"),
        ("<>", SENDER),
        (SENDER, "full@x.example"),
    ]
    (bounce,) = host.reports
    assert b"gone@x.example" in bounce.content
    assert b"full@x.example" not in bounce.content
    assert world.clock.seconds() == START + 300


def test_the_wait_grows_with_the_tries_of_a_recipient(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"] * 6}
    relay = world.relay(host)
    queued = world.send(relay, "full@x.example")
    world.run(queued.delivered())
    assert world.clock.seconds() == START + 300 + 600 + 1200 + 2400 + 4000 + 4000


@pytest.mark.parametrize(
    "fault",
    [
        close("dot", nth=1),
        reset("dot", nth=1),
        stall("dot", nth=1),
        send("dot", b"250-ok\r\n", nth=1),
    ],
    ids=["close", "reset", "silence", "half a reply"],
)
def test_what_is_in_doubt_goes_again_and_is_named(world: World, fault: Fault) -> None:
    """Although the error is not transient: the relay has answered for the message."""
    host = world.host(faults=[fault])
    relay = world.relay(host)
    world.run(world.send(relay, "bob@example.net").delivered())
    assert host.got == [(SENDER, "bob@example.net")] * 2
    first, second = world.of(Attempted)
    assert (first.in_doubt, first.doubles, first.status) == (True, 0, "deferred")
    assert (second.in_doubt, second.doubles, second.status) == (False, 1, "sent")
    one, two = host.messages
    assert one.email["Message-ID"] == two.email["Message-ID"]


def test_what_a_421_refused_at_the_dot_goes_again_and_is_no_second_copy(world: World) -> None:
    host = world.host(faults=[refuse("dot", "421 4.3.2 going down", nth=1)])
    relay = world.relay(host)
    world.run(world.send(relay, "bob@example.net").delivered())
    assert host.got == [(SENDER, "bob@example.net")]
    first, second = world.of(Attempted)
    assert (first.in_doubt, first.status, first.dsn) == (False, "deferred", "4.3.2")
    assert (second.in_doubt, second.doubles, second.status) == (False, 0, "sent")


@pytest.mark.parametrize("faults", [[], [without("CHUNKING")]])
def test_a_large_message_is_read_out_of_the_queue_and_arrives_whole(
    world: World, faults: list[object]
) -> None:
    host = world.host(faults=faults)  # type: ignore[arg-type]
    relay = world.relay(host)
    body = b"0123456789" * 7 + b"\r\n"
    world.run(world.send(relay, "bob@example.net", body=body * 20_000).delivered())
    (message,) = host.messages
    assert message.content.endswith(b"\r\n\r\n" + body * 20_000)


def test_a_large_message_goes_to_the_second_host_when_the_first_dies(world: World) -> None:
    bad, good = world.host(faults=[close("content")]), world.host()
    relay = world.relay(world.route(bad, good))
    world.run(world.send(relay, "bob@example.net", body=b"x" * 70 + b"\r\n" * 200_000).delivered())
    assert bad.got == []
    assert good.got == [(SENDER, "bob@example.net")]


def test_the_second_host_stands_in_for_the_first(world: World) -> None:
    bad, good = world.host(), world.host()
    bad.up = False
    relay = world.relay(world.route(bad, good))
    world.run(world.send(relay, "bob@example.net").delivered())
    assert good.got == [(SENDER, "bob@example.net")]
    assert world.clock.seconds() == START
    assert world.of(RouteDown) == []


def test_mail_takes_the_route_of_its_sender(world: World) -> None:
    one, two, three = world.host(), world.host(), world.host()
    relay = world.relay(
        world.route(one, name="one", senders=("Carol@Example.com",)),
        world.route(two, name="two", senders=("@example.com",)),
        world.route(three, name="three"),
    )
    for sender in ("carol@example.com", "dave@EXAMPLE.com", "eve@other.example"):
        world.run(world.send(relay, "bob@example.net", sender=sender).delivered())
    assert [sender for sender, _ in one.got] == ["carol@example.com"]
    assert [sender for sender, _ in two.got] == ["dave@EXAMPLE.com"]
    assert [sender for sender, _ in three.got] == ["eve@other.example"]


def test_a_route_that_names_the_sender_before_rewriting_comes_first(world: World) -> None:
    old, new, rest = world.host(), world.host(), world.host()
    routes = (
        world.route(old, name="old", senders=("@old.example",)),
        world.route(new, name="new", senders=("@new.example",)),
        world.route(rest, name="rest"),
    )
    rewriting = Rewriting(
        senders={"@old.example": "@new.example", "@other.example": "@new.example"}
    )
    policy = CleanupPolicy("relay.example.net", Routing(routes).of, rewriting)
    relay = world.relay(*routes, policy=policy)
    for sender in ("a@old.example", "b@other.example"):
        world.run(world.send(relay, "bob@example.net", sender=sender).delivered())
    assert [sender for sender, _ in old.got] == ["a@new.example"]
    assert [sender for sender, _ in new.got] == ["b@new.example"]


def test_a_slow_route_leaves_the_other_alone(world: World) -> None:
    slow, quick = world.host(), world.host()
    slow.silent = True
    relay = world.relay(
        world.route(slow, name="slow", senders=("@slow.example",)), world.route(quick, name="q")
    )
    for _ in range(100):
        world.send(relay, "bob@example.net", sender="a@slow.example")
    for _ in range(20):
        world.send(relay, "bob@example.net")
    world.pump.run()
    assert len(quick.got) == 20
    assert world.clock.seconds() == START


def test_a_message_that_hangs_is_got_past(world: World) -> None:
    """Those that were sent after it on the same connection wait with it; all others do not."""
    host = world.host(faults=[stall("dot", nth=1)])
    relay = world.relay(host)
    for _ in range(60):
        world.send(relay, "bob@example.net")
    world.pump.run()
    assert len(host.got) <= 1
    world.until(lambda: len(host.got) > 60 - PoolLimits().window - 1)
    assert world.clock.seconds() <= START + 60


@pytest.mark.parametrize(
    "reply", ["452 4.5.3 too many recipients", "552 5.5.3 too many", "552 too many recipients"]
)
def test_a_recipient_too_many_is_tried_at_once_after_the_others(world: World, reply: str) -> None:
    host = world.host()
    host.refusals = {"b@x.example": [reply]}
    relay = world.relay(host)
    world.run(world.send(relay, "a@x.example", "b@x.example").delivered())
    assert world.clock.seconds() == START


def test_a_552_after_an_accepted_recipient_is_not_final_though_the_content_was_refused(
    world: World,
) -> None:
    host = world.host(faults=[refuse("dot", "554 5.6.0 no", nth=1)])
    host.refusals = {"b@x.example": ["552 too many recipients"]}
    relay = world.relay(host)
    report = world.run(world.send(relay, "a@x.example", "b@x.example").delivered())
    assert [str(each.recipient) for each in report.delivered] == ["b@x.example"]
    assert [str(each.recipient) for each in report.failed] == ["a@x.example"]


def test_refusals_of_the_message_as_it_is_are_final(world: World) -> None:
    host = world.host(faults=[without("SMTPUTF8"), refuse("dot", "554 5.6.0 no", nth=1)])
    relay = world.relay(host)
    refused = world.run(world.send(relay, "bob@example.net").delivered())
    assert [outcome.status for outcome in refused.failed] == ["5.6.0"]
    unsendable = world.run(world.send(relay, "bøb@example.net").delivered())
    assert [outcome.status for outcome in unsendable.failed] == ["5.6.7"]


COMPLETE = b"From: a@x.example\r\nDate: x\r\nMessage-ID: <1@x.example>\r\n"


def relayed(world: World, host: Host, content: bytes) -> bytes:
    """What *host* gets of *content*."""
    relay = world.relay(host)
    queued = world.run(relay.send(content, sender=SENDER, recipients="bob@example.net"))
    world.run(queued.delivered())
    (message,) = host.messages
    return message.content


@pytest.mark.parametrize("size", [1, 200_000])
def test_a_header_in_utf8_is_encoded_for_a_next_hop_without_smtputf8(
    world: World, size: int
) -> None:
    host = world.host(faults=[without("SMTPUTF8")])
    body = "\r\nGr\u00fc\u00dfe\r\n".encode() * size
    got = relayed(world, host, COMPLETE + "Subject: Gr\u00fc\u00dfe\r\n".encode() + body)
    assert got == COMPLETE + b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n" + body
    assert [event.signature_broken for event in world.of(Attempted)] == [False]


def test_one_recipient_that_needs_smtputf8_bounces_and_the_others_get_the_message(
    world: World,
) -> None:
    host = world.host(faults=[without("SMTPUTF8")])
    relay = world.relay(host)
    international = "j\u00fcrgen@example.net"
    content = COMPLETE + "Subject: Gr\u00fc\u00dfe\r\n\r\nx\r\n".encode()
    to = ["a@example.net", international, "b@example.net"]
    queued = world.run(relay.send(content, sender=SENDER, recipients=to))
    report = world.run(queued.delivered())
    assert [(str(each.recipient), each.status) for each in report.failed] == [
        (international, "5.6.7")
    ]
    assert world.tried[:3] == [
        ("a@example.net", "sent"),
        (international, "bounced"),
        ("b@example.net", "sent"),
    ]
    world.until(lambda: host.reports)
    assert f"5.6.7 {international} is not ASCII".encode() in host.reports[0].content


def test_an_address_of_the_header_that_has_no_form_in_ascii_is_named_in_the_report(
    world: World,
) -> None:
    host = world.host(faults=[without("8BITMIME"), without("SMTPUTF8")])
    relay = world.relay(host)
    content = COMPLETE.replace(b"a@x", "\u00e4@x".encode()) + b"\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    queued = world.run(relay.send(content, sender=SENDER, recipients="b@example.net"))
    report = world.run(queued.delivered())
    (failed,) = report.failed
    assert failed.status == "5.6.7"
    assert "the From header has \u00e4@x.example" in (failed.reply or "")


def test_signed_mail_that_would_bounce_is_encoded(world: World) -> None:
    host = world.host(faults=[without("8BITMIME"), without("SMTPUTF8")])
    content = COMPLETE + b"DKIM-Signature: x\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    assert b"\r\n\r\nGr=C3=BC=C3=9Fe\r\n" in relayed(world, host, content)
    assert [event.signature_broken for event in world.of(Attempted)] == [True]


def test_large_8_bit_mail_is_encoded_for_a_next_hop_without_8bitmime(world: World) -> None:
    host = world.host(faults=[without("8BITMIME"), without("SMTPUTF8")])
    got = relayed(world, host, COMPLETE + b"\r\n" + b"x" * 70 + b"\xc3\xbc\r\n" * 300_000)
    assert got.isascii()
    assert b"Content-Transfer-Encoding: base64\r\n" in got


@pytest.mark.parametrize("end", [b"", b"\xc3\xbc\r\n"])
def test_only_the_header_of_a_very_large_message_is_encoded_for_a_next_hop_of_7_bits(
    world: World, end: bytes
) -> None:
    """Its body is not, so that must be in ASCII."""
    host = world.host(faults=[without("8BITMIME"), without("SMTPUTF8")])
    relay = world.relay(host)
    body = b"\r\n" + b"0123456789abcdef\r\n" * 700_000 + end
    content = COMPLETE + "Subject: Gr\u00fc\u00dfe\r\n".encode() + body
    queued = world.run(relay.send(content, sender=SENDER, recipients="bob@example.net"))
    report = world.run(queued.delivered())
    assert [each.status for each in report.failed] == (["5.6.3"] if end else [])
    if not end:
        (message,) = host.messages
        assert message.content == COMPLETE + b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n" + body
        assert message.parameters.size == len(message.content)


def test_a_held_message_waits_for_the_operator(world: World) -> None:
    host = world.host()
    relay = world.relay(host)
    content = b"Subject: x\r\n\r\nhello\r\n"
    queued = world.run(relay.send(content, sender=SENDER, recipients="bob@example.net", held=True))
    world.advance(HOUR)
    assert host.got == []
    world.run(
        relay.queue.act(QueueAction.RELEASE, Selection(ids=(queued.id,)), world.clock.seconds())
    )
    world.run(queued.delivered())
    assert host.got == [(SENDER, "bob@example.net")]


def test_what_the_operator_expires_is_reported_without_another_try(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host)
    queued = world.send(relay, "full@x.example")
    world.run(relay.queue.act(QueueAction.EXPIRE, Selection(), world.clock.seconds()))
    report = world.run(queued.delivered())
    assert [str(o.recipient) for o in report.failed] == ["full@x.example"]
    assert world.tried[:2] == [("full@x.example", "deferred"), ("full@x.example", "expired")]
    assert host.got == [("<>", SENDER)]
    assert world.queue(relay) == []


def test_what_the_operator_deletes_ends_the_waiting_for_it(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host)
    queued = world.send(relay, "full@x.example")
    waiting = world.watch(queued.delivered())
    world.run(relay.queue.act(QueueAction.DELETE, Selection(), world.clock.seconds()))
    (report,) = waiting
    assert [str(o.recipient) for o in report.removed] == ["full@x.example"]


def test_after_a_restart_mail_goes_on_where_it_was(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    queued = world.send(relay, "ok@x.example", "full@x.example")
    waiting = world.watch(queued.delivered())
    world.stop(relay)
    assert isinstance(waiting[0].value, MailerClosed)
    relay = world.relay(host)
    assert world.of(Interrupted) == []
    world.until(lambda: len(host.got) == 2)
    assert host.got == [(SENDER, "ok@x.example"), (SENDER, "full@x.example")]
    assert START + 300 <= world.clock.seconds() < START + 301


def test_a_poisoned_record_is_set_aside_and_the_others_go_on(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    for number in range(3):
        world.send(relay, f"r{number}@x.example")
    bad = world.queue(relay)[1].id
    world.stop(relay)
    world.tamper(
        "UPDATE content SET data = zeroblob(length(data)) WHERE message = ?", id_number(bad)
    )
    host.up = True
    relay = world.relay(host)
    world.until(lambda: len(host.got) == 2)
    assert [to for _, to in host.got] == ["r0@x.example", "r2@x.example"]
    (left,) = world.queue(relay)
    assert (bad, SetAsideReason.DAMAGED) == (left.id, left.aside)


def test_a_large_message_that_is_damaged_is_set_aside_and_not_bounced(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    world.send(relay, "bob@example.net", body=b"x" * 70 + b"\r\n" * 200_000)
    world.stop(relay)
    world.tamper("UPDATE piece SET data = zeroblob(length(data)) WHERE place = 1")
    host.up = True
    relay = world.relay(host)
    world.advance(HOUR)
    assert host.got == []
    assert [message.aside for message in world.queue(relay)] == [SetAsideReason.DAMAGED]


def test_one_message_at_a_time_is_lost_three_in_a_row_take_the_route_down(world: World) -> None:
    host = world.host(faults=[close("MAIL")])
    relay = world.relay(world.route(host, limits=PoolLimits(connections=1)))
    for number in range(5):
        world.send(relay, f"r{number}@x.example")
    assert len(world.of(Attempted)) == 3
    assert len(world.of(RouteDown)) == 1
    assert world.of(Trouble) == []


def test_reports_are_named_when_they_are_durable(world: World) -> None:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    queued = world.send(relay, Recipient("gone@x.example"))
    (event,) = world.of(Reported)
    assert (queued.id, "failed", SENDER) == (event.id, event.kind, event.to)


def test_mail_past_its_time_is_given_up_by_a_try_that_fails(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host, schedule=RetryPolicy(lifetime=6 * HOUR))
    report = world.run(world.send(relay, "full@x.example").delivered())
    assert [outcome.status for outcome in report.failed] == ["4.4.7"]
    assert 6 * HOUR <= world.clock.seconds() - START < 6 * HOUR + 4000
    world.until(lambda: host.reports)
    assert b"Action: failed" in host.reports[-1].content


@pytest.mark.parametrize("complete", [True, False])
def test_the_header_of_a_message_of_this_process_is_fixed_once(
    world: World, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    sections: list[bytes] = []
    fix = HeaderFixer.fix

    def counted(fixer: HeaderFixer, section: bytes) -> bytes:
        sections.append(section)
        return fix(fixer, section)

    monkeypatch.setattr(HeaderFixer, "fix", counted)
    relay = world.relay(world.host())
    message = b"From: a@example.org\r\nTo: bob@example.net\r\n\r\nx\r\n"
    queued = world.run(relay.send(message, complete=complete))
    _ = world.run(queued.delivered())
    assert [b"From: a@example.org\r\nTo: bob@example.net\r\n"] == sections


def test_an_address_of_the_header_that_cannot_be_used_does_not_keep_the_others_from_it(
    world: World,
) -> None:
    host = world.host()
    relay = world.relay(host)
    content = b"From: a@x.example\r\nTo: b..b@x.example, ok@x.example.\r\n\r\nhello\r\n"
    queued = world.run(relay.send(content))
    (refused,) = queued.refused
    assert str(refused).startswith("b..b@x.example refused: 553 5.1.3 Bad recipient address")
    world.until(lambda: host.got)
    assert host.got == [("a@x.example", "ok@x.example")]
