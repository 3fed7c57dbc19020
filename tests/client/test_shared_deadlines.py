"""Many operations with the same timeout: one timer, and each ends in its own time."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.deferreds import Result
from twisted_sendmail import Cancelled, SendTimeout
from twisted_sendmail.client.timeouts import Deadlines


class Operations:
    def __init__(self, seconds: float | None = 10.0) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, seconds, "a message")
        self.cancelled: list[Deferred[Any]] = []

    def begin(self) -> tuple[Deferred[Any], Result]:
        def cancel(running: Deferred[Any]) -> None:
            self.cancelled.append(running)
            running.errback(Cancelled("cancelled"))

        running: Deferred[Any] = Deferred(cancel)
        return running, Result(self.deadlines.apply(running))

    @property
    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())


def test_each_is_cancelled_when_its_own_time_is_over() -> None:
    operations = Operations()
    results = []
    for _ in range(5):
        results.append(operations.begin()[1])
        operations.clock.advance(1)
    for over in range(5):
        operations.clock.advance(5 if not over else 1)
        assert [1] * (over + 1) + [0] * (4 - over) == [result.fired for result in results]
    assert [result.error.what for result in results if isinstance(result.error, SendTimeout)] == [
        "a message took more than 10 s"
    ] * 5
    assert operations.timers == 0


def test_there_is_one_timer_for_all() -> None:
    operations = Operations()
    for _ in range(5):
        _ = operations.begin()
        operations.clock.advance(1)
        assert operations.timers == 1


def test_what_ended_in_time_is_not_cancelled() -> None:
    operations = Operations()
    (first, early), (_, late) = operations.begin(), operations.begin()
    first.callback("done")
    operations.clock.advance(10)
    assert early.value == "done"
    assert isinstance(late.error, SendTimeout)
    assert first not in operations.cancelled


def test_an_operation_that_begins_when_others_end_has_its_own_time() -> None:
    operations = Operations()
    (_, first), (second, _) = operations.begin(), operations.begin()
    operations.clock.advance(1)
    (_, third) = operations.begin()
    begun: list[Result] = []
    _ = second.addBoth(lambda _: begun.append(operations.begin()[1]))
    operations.clock.advance(9)
    assert (first.fired, third.fired, operations.timers) == (1, 0, 1)
    operations.clock.advance(1)
    assert (third.fired, begun[0].fired) == (1, 0)
    operations.clock.advance(9)
    assert (begun[0].fired, operations.timers) == (1, 0)


def test_a_cancel_by_the_caller_is_no_timeout() -> None:
    operations = Operations()
    running, result = operations.begin()
    running.cancel()
    assert isinstance(result.error, Cancelled)


def test_a_rest_leaves_no_timer_unless_something_is_under_way() -> None:
    operations = Operations()
    running, _ = operations.begin()
    operations.deadlines.stop_if_idle()
    assert operations.timers == 1
    running.callback(None)
    operations.deadlines.stop_if_idle()
    operations.deadlines.stop_if_idle()
    assert operations.timers == 0
    _, result = operations.begin()
    operations.clock.advance(10)
    assert isinstance(result.error, SendTimeout)


@pytest.mark.parametrize("seconds", [None, 10.0])
def test_what_needs_none_gets_none(seconds: float | None) -> None:
    operations = Operations(seconds)
    running: Deferred[Any] = Deferred()
    if seconds is not None:
        running.callback("done")
    assert operations.deadlines.apply(running) is running
    assert operations.timers == 0
