"""Samples of the queue over time, with clock jumps and failures of the queue."""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.names import QueueError, QueueTotals
from twisted_sendmail.admin.history import COARSE_KEPT, FINE_KEPT, QueueHistory, QueueSample

BEGIN = 1_700_000_000.0


class Watched:
    """A history, its clock, and a queue that is as the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(BEGIN)
        self.asked = 0
        self.depth = 0
        self.oldest: float | None = None
        self.answer: Deferred[QueueTotals] | None = None
        self.history = QueueHistory(self.clock, self.totals)
        self.history.start()

    def totals(self) -> Deferred[QueueTotals]:
        self.asked += 1
        if self.answer is not None:
            return self.answer
        queues = {"incoming": self.depth, "hold": 70, "corrupt": 80}
        return succeed(QueueTotals(queues, {}, self.oldest))

    def pass_(self, seconds: float, step: float = 10.0) -> None:
        for _ in range(int(seconds / step)):
            self.clock.advance(step)

    def set_clock(self, by: float) -> None:
        """As an operator sets it, and the clock watch moves the timers along."""
        self.clock.rightNow += by
        for call in self.clock.getDelayedCalls():
            call.delay(by)


def test_waiting_messages_are_sampled_every_ten_seconds() -> None:
    watched = Watched()
    watched.depth, watched.oldest = 3, BEGIN - 50
    watched.pass_(20)
    expected = (
        QueueSample(BEGIN, 0, 0.0),
        QueueSample(BEGIN + 10, 3, 60.0),
        QueueSample(BEGIN + 20, 3, 70.0),
    )
    assert watched.history.hour == expected


def test_fine_samples_are_kept_for_an_hour() -> None:
    watched = Watched()
    watched.pass_(3 * 3600)
    assert FINE_KEPT == len(watched.history.hour) == 360
    assert watched.clock.seconds() - 3590 == watched.history.hour[0].at


def test_the_maxima_of_five_minutes_are_kept_for_two_days() -> None:
    watched = Watched()
    watched.pass_(100)
    watched.depth = 40
    watched.pass_(10)
    watched.depth = 1
    watched.pass_(4 * 86400)
    days = watched.history.days
    assert len(days) == COARSE_KEPT + 1
    assert {sample.depth for sample in days} == {1}
    assert 2 * 86400 - 300 <= days[-1].at - days[0].at <= 2 * 86400 + 300


def test_a_peak_of_ten_seconds_is_kept_for_a_day() -> None:
    watched = Watched()
    watched.pass_(100)
    watched.depth, watched.oldest = 40, BEGIN
    watched.pass_(10)
    watched.depth, watched.oldest = 0, None
    watched.pass_(86400)
    assert (
        max(sample.depth for sample in watched.history.days),
        max(sample.age for sample in watched.history.days),
    ) == (40, 110.0)


def test_the_age_of_a_message_from_the_future_is_zero() -> None:
    watched = Watched()
    watched.oldest = BEGIN + 7200
    watched.pass_(10)
    assert watched.history.hour[-1].age == 0.0


def test_samples_move_back_when_the_clock_is_set_back() -> None:
    watched = Watched()
    watched.pass_(600)
    watched.set_clock(-6 * 86400)
    watched.pass_(600)
    times = [sample.at for sample in watched.history.hour]
    assert len(times) == 121
    assert {after - before for before, after in pairwise(times)} == {10.0}
    days = [sample.at for sample in watched.history.days]
    assert sorted(days) == days
    assert watched.clock.seconds() == days[-1]


def test_a_clock_that_is_set_forward_leaves_a_gap() -> None:
    watched = Watched()
    watched.pass_(100)
    watched.set_clock(3600)
    watched.pass_(100)
    times = [sample.at for sample in watched.history.hour]
    assert [b - a for a, b in pairwise(times) if b - a != 10.0] == [3610.0]


def test_resuming_samples_at_once_when_the_next_sample_is_days_away() -> None:
    watched = Watched()
    watched.pass_(100)
    watched.clock.rightNow -= 6 * 86400
    watched.history.resume()
    assert watched.clock.seconds() == watched.history.hour[-1].at
    watched.pass_(30)
    assert len(watched.history.hour) == 15


def test_resuming_in_time_changes_nothing() -> None:
    watched = Watched()
    watched.pass_(100)
    watched.clock.advance(3)
    asked = watched.asked
    watched.history.resume()
    assert asked == watched.asked
    assert len(watched.clock.getDelayedCalls()) == 1


def test_only_one_count_of_the_queue_runs_at_a_time() -> None:
    watched = Watched()
    watched.answer = Deferred()
    watched.pass_(100)
    assert watched.asked == 2
    late, watched.answer = watched.answer, None
    late.callback(QueueTotals({"deferred": 5}, {}, None))
    watched.pass_(10)
    assert [sample.depth for sample in watched.history.hour] == [0, 5, 0]


def test_a_queue_that_cannot_be_counted_leaves_a_gap() -> None:
    watched = Watched()
    watched.answer = fail(QueueError("no"))
    watched.pass_(10)
    watched.answer = None
    watched.pass_(10)
    assert [sample.at for sample in watched.history.hour] == [BEGIN, BEGIN + 20]


def test_it_stops_and_leaves_nothing_behind() -> None:
    watched = Watched()
    pending: Deferred[QueueTotals] = Deferred()
    watched.answer = pending
    watched.pass_(10)
    watched.history.stop()
    assert watched.clock.getDelayedCalls() == []
    assert pending.called
    watched.history.stop()
    watched.history.resume()
    assert watched.clock.getDelayedCalls() == []
