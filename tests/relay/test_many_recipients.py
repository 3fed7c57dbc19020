"""A message to many recipients goes out in parts, and holds the reactor's thread for none too long."""

from __future__ import annotations

from typing import Any

import pytest

from tests.names import (
    Attempted,
    QueueAction,
    RecipientState,
    Reported,
    Selection,
    close,
)
from tests.relay.world import SENDER, START, Host, World
from twisted_sendmail import ServerSettings
from twisted_sendmail.relay import delivery
from twisted_sendmail.relay.attempt_result import classify_attempt, given_up
from twisted_sendmail.testing import ReceivedMessage

#: Recipients of one part.
PART = 3


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "RECIPIENTS_AT_ONCE", PART)


def addresses(count: int) -> list[str]:
    return [f"user{number}@x.example" for number in range(count)]


def parts(host: Host) -> list[list[str]]:
    """The recipients of each message that is no report."""
    return [
        [str(recipient) for recipient in message.recipients]
        for message in host.messages
        if message.sender.mailbox is not None
    ]


def fail_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the result of the second part raise an error in the relay."""
    calls: list[Any] = []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise ZeroDivisionError("a mistake")
        return classify_attempt(*args, **options)

    monkeypatch.setattr(delivery, "classify_attempt", failing)


def test_a_message_to_many_goes_out_in_parts(world: World) -> None:
    host = world.host()
    announced: list[int] = []
    received = host._received

    def note(message: ReceivedMessage) -> None:
        announced.append(len(world.of(Attempted)))
        received(message)

    host._received = note  # type: ignore[method-assign]
    report = world.run(world.send(world.relay(host), *addresses(8)).delivered())
    assert parts(host) == [addresses(8)[:3], addresses(8)[3:6], addresses(8)[6:]]
    # Each part is handled before the next one goes out.
    assert announced == [0, 3, 6]
    assert [str(row.recipient) for row in report.delivered] == addresses(8)
    assert world.clock.seconds() == START


@pytest.mark.parametrize("count", [1000, 1001])
def test_a_part_has_a_thousand_recipients(
    world: World, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.undo()
    host = world.host(settings=ServerSettings(max_recipients=5000))
    world.send(world.relay(host), *addresses(count))
    assert [len(part) for part in parts(host)] == [1000, 1][: count - 999]


def test_one_report_names_all_who_failed_and_one_record_holds_all(world: World) -> None:
    host = world.host()
    host.refusals = dict.fromkeys(addresses(8)[1::2], "550 5.1.1 unknown")
    host.refusals["user6@x.example"] = ["450 4.2.0 later"]
    relay = world.relay(host)
    queued = world.send(relay, *addresses(8))
    (left,) = world.queue(relay)
    assert (left.attempts, [row.number for row in left.pending]) == (1, [6])
    (report,) = host.reports
    assert report.content.count(b"Final-Recipient:") == 4
    assert len(world.of(Reported)) == 1
    end = world.run(queued.delivered())
    assert [row.number for row in end.failed] == [1, 3, 5, 7]
    assert [row.number for row in end.delivered] == [0, 2, 4, 6]


def test_those_after_a_lost_connection_are_not_tried_and_nobody_gets_two(world: World) -> None:
    # The second part is in doubt.
    host = world.host(faults=[close("dot", nth=2)])
    relay = world.relay(host)
    queued = world.send(relay, *addresses(8))
    world.run(queued.delivered())
    first, doubtful, *rest = parts(host)
    assert (first, doubtful) == (addresses(8)[:3], addresses(8)[3:6])
    # Those that were not tried go out at once, those in doubt when they are due again.
    assert rest == [addresses(8)[6:], addresses(8)[3:6]]
    statuses = [event.status for event in world.of(Attempted)]
    assert statuses == ["sent"] * 3 + ["deferred"] * 3 + ["sent"] * 5


def test_a_route_that_goes_down_between_two_parts_keeps_the_rest(world: World) -> None:
    host = world.host(faults=[close("greeting", nth=2)], settings=ServerSettings(max_messages=1))
    relay = world.relay(host)
    world.run(world.send(relay, *addresses(5)).delivered())
    assert parts(host) == [addresses(5)[:3], addresses(5)[3:]]
    assert [row.recipient for row in world.of(Attempted)].count("user0@x.example") == 1


def test_an_unexpected_error_in_a_part_keeps_what_was_delivered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_second(monkeypatch)
    host = world.host()
    host.refusals = {"user4@x.example": ["450 4.2.0 later"]}
    relay = world.relay(host)
    world.run(world.send(relay, *addresses(8)).delivered())
    got = [to for part in parts(host) for to in part]
    assert sorted(got) == addresses(8)


def test_a_failure_in_a_part_is_not_recorded_when_another_ends_unexpectedly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No failure without its report."""
    fail_second(monkeypatch)
    host = world.host()
    host.refusals = {"user0@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    queued = world.send(relay, *addresses(5))
    (left,) = world.queue(relay)
    assert (left.recipients[0].state, host.reports) == (RecipientState.PENDING, [])
    assert [row.number for row in world.run(queued.delivered()).failed] == [0]
    assert len(host.reports) == 1


def test_expiring_a_message_to_many_makes_one_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []

    def counted(recipients: Any) -> Any:
        at_once.append(len(recipients))
        return given_up(recipients)

    monkeypatch.setattr(delivery, "given_up", counted)
    host = world.host()
    host.refusals = dict.fromkeys(addresses(8), "450 4.2.0 later")
    relay = world.relay(host)
    queued = world.send(relay, *addresses(8))
    world.run(relay.queue.act(QueueAction.EXPIRE, Selection(), world.clock.seconds()))
    assert len(world.run(queued.delivered()).failed) == 8
    (report,) = host.reports
    assert [str(each) for each in report.recipients] == [SENDER]
    assert report.content.count(b"Final-Recipient:") == 8
    assert at_once == [3, 3, 2]
