"""Health of a relay, and the reason when it is not healthy."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.admin.queue_contents import FakeRelay, route
from tests.memory_queue import MemoryQueue
from tests.names import QueueFull
from twisted_sendmail.admin.health import Health


class CheckedHealth:
    def __init__(self) -> None:
        self.clock = Clock()
        self.relay = FakeRelay(MemoryQueue(self.clock), self.clock)
        self.probes = 0
        self.result: Any = succeed
        self.health = Health(self.clock, self.probe, self.relay)

    def probe(self) -> Deferred[None]:
        self.probes += 1
        result: Deferred[None] = self.result(None)
        return result

    def ask(self) -> list[str | None]:
        said: list[str | None] = []
        _ = self.health.problem().addCallback(said.append)
        return said


@pytest.fixture
def checked() -> CheckedHealth:
    return CheckedHealth()


def test_a_relay_is_healthy_when_the_queue_is_writable_and_the_relay_runs(
    checked: CheckedHealth,
) -> None:
    assert checked.ask() == [None]


def test_a_queue_that_cannot_be_written_is_a_problem_with_its_reason(
    checked: CheckedHealth,
) -> None:
    checked.result = lambda _: fail(QueueFull("the queue is short of room\x1b[31m"))
    expected = (
        f"the queue cannot be written: the queue is short of room\\x1b[31m; {QueueFull.remedy}"
    )
    assert checked.ask() == [expected]


def test_a_stopping_relay_is_not_healthy(checked: CheckedHealth) -> None:
    checked.relay.stopping = True
    assert checked.ask() == ["the relay is stopping"]


def test_a_route_that_is_down_is_no_problem(checked: CheckedHealth) -> None:
    checked.relay.routes = (route("default", wait=99.0, locked=True),)
    assert checked.ask() == [None]


def test_the_queue_is_written_once_in_five_seconds(checked: CheckedHealth) -> None:
    for _ in range(100):
        assert checked.ask() == [None]
        checked.clock.advance(0.04)
    assert checked.probes == 1
    checked.clock.advance(1.5)
    checked.ask()
    assert checked.probes == 2


def test_simultaneous_checks_share_one_result(checked: CheckedHealth) -> None:
    pending: Deferred[None] = Deferred()
    checked.result = lambda _: pending
    asked = [checked.ask() for _ in range(10)]
    assert asked == [[]] * 10
    pending.callback(None)
    assert asked == [[None]] * 10
    assert checked.probes == 1


def test_a_queue_that_does_not_answer_is_a_problem(checked: CheckedHealth) -> None:
    pending: Deferred[None] = Deferred()
    checked.result = lambda _: pending
    asked = checked.ask()
    checked.clock.advance(4)
    assert asked == ["the queue has not answered for 4 s"]
    checked.clock.advance(5)
    # It is not asked again before it has answered: they would pile up.
    again = checked.ask()
    assert checked.probes == 1
    pending.callback(None)
    assert again == [None]
    assert checked.clock.getDelayedCalls() == []


def test_cancelling_one_check_does_not_cancel_the_others(checked: CheckedHealth) -> None:
    pending: Deferred[None] = Deferred()
    checked.result = lambda _: pending
    first = checked.health.problem()
    _ = first.addErrback(lambda _: None)
    second = checked.ask()
    first.cancel()
    pending.callback(None)
    assert second == [None]


def test_a_result_is_not_used_after_the_clock_was_set_back(checked: CheckedHealth) -> None:
    checked.clock.advance(1000)
    checked.ask()
    checked.clock.rightNow -= 500
    checked.ask()
    assert checked.probes == 2


def test_it_stops_and_leaves_nothing_behind(checked: CheckedHealth) -> None:
    checked.result = lambda _: Deferred()
    asked = checked.ask()
    checked.health.stop()
    assert asked == ["the relay is stopping"]
    assert checked.clock.getDelayedCalls() == []
