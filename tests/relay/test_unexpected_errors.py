"""Errors that nothing in the relay expects: no mail is lost, none goes round in a loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import implementer

from tests.names import Attempted, QueueAction, Selection, SetAsideReason, Trouble, close
from tests.relay.world import SENDER, START, World
from twisted_sendmail import RetryPolicy
from twisted_sendmail.relay import bounce, delivery


@pytest.fixture
def errors() -> Iterator[list[Any]]:
    """Events of the log with a failure."""
    found: list[Any] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if "log_failure" in event:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def fail_once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """Let the first call of a function raise an error."""
    function, calls = getattr(module, name), []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise ZeroDivisionError("a mistake")
        return function(*args, **options)

    monkeypatch.setattr(module, name, failing)


def test_a_message_that_was_not_sent_is_tried_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: list[Any]
) -> None:
    fail_once(monkeypatch, delivery, "stored_message")
    host = world.host()
    relay = world.relay(host)
    queued = world.send(relay, "bob@example.net")
    (waiting,) = world.queue(relay)
    assert (waiting.leased, waiting.attempts, waiting.interrupted) == (False, 1, 0)
    assert [row.status for row in waiting.recipients] == ["4.3.0"]
    (event,) = errors
    assert event["log_level"] is LogLevel.error
    assert f"{queued.id}: unexpected error, tried again later: ZeroDivisionError: a mistake" == (
        f"{event['what']}: {event['reason']}"
    )
    world.run(queued.delivered())
    assert host.got == [(SENDER, "bob@example.net")]
    assert relay.stats().routes[0].under_way == 0


def test_the_wait_after_an_unexpected_error_has_jitter(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: list[Any]
) -> None:
    fail_once(monkeypatch, delivery, "stored_message")
    relay = world.relay(world.host(), chance=0.0, schedule=RetryPolicy(first=100, jitter=0.5))
    world.send(relay, "bob@example.net")
    (waiting,) = world.queue(relay)
    assert waiting.due == START + 50
    errors.clear()


def test_recipients_that_the_server_accepted_get_no_second_copy(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: list[Any]
) -> None:
    fail_once(monkeypatch, delivery, "classify_attempt")
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    report = world.run(world.send(relay, "ok@x.example", "full@x.example").delivered())
    assert [str(row.recipient) for row in report.delivered] == ["ok@x.example", "full@x.example"]
    assert host.got == [(SENDER, "ok@x.example"), (SENDER, "full@x.example")]
    assert len(errors) == len(world.of(Trouble)) == 1


def test_a_message_in_doubt_stays_in_doubt(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: list[Any]
) -> None:
    fail_once(monkeypatch, delivery, "classify_attempt")
    host = world.host(faults=[close("dot", nth=1)])
    relay = world.relay(host)
    world.run(world.send(relay, "bob@example.net").delivered())
    assert host.got == [(SENDER, "bob@example.net")] * 2
    (second,) = world.of(Attempted)
    assert (second.doubles, second.status) == (1, "sent")
    assert len(errors) == 1


def test_an_error_while_a_report_is_recorded_defers(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: list[Any]
) -> None:
    """Neither is the failure recorded without its report."""
    fail_once(monkeypatch, bounce.BounceService, "postpone")
    fail_once(monkeypatch, bounce, "new_message_id")
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    queued = world.send(relay, "gone@x.example")
    (waiting,) = world.queue(relay)
    assert (waiting.leased, [row.status for row in waiting.recipients]) == (False, ["4.3.0"])
    assert len(world.run(queued.delivered()).failed) == 1
    assert len(host.reports) == 1
    assert len(errors) == 1


def test_a_report_that_cannot_be_made_is_one_error(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: list[Any]
) -> None:
    fail_once(monkeypatch, bounce, "new_message_id")
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    relay = world.relay(host)
    assert len(world.run(world.send(relay, "gone@x.example").delivered()).failed) == 1
    assert (len(host.reports), len(errors), len(world.of(Trouble))) == (1, 1, 1)


def test_a_message_that_cannot_be_expired_is_set_aside(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: list[Any]
) -> None:
    fail_once(monkeypatch, delivery, "given_up")
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host)
    world.send(relay, "full@x.example")
    world.run(relay.queue.act(QueueAction.EXPIRE, Selection(), world.clock.seconds()))
    world.pump.run()
    (aside,) = world.queue(relay)
    assert (aside.leased, aside.aside) == (False, SetAsideReason.UNDELIVERABLE)
    assert len(errors) == 1
