"""Depth of the queue and age of its oldest message over the last hours, in memory.

Two rings of fixed size: a sample every ten seconds for an hour, and the maxima of each five
minutes for two days. Prometheus keeps them longer.

The clock is the wall clock, and may jump. When it is set back, older samples are moved back with
it, so that times keep increasing; when it is set forward, the curve has a gap.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import QueueTotals

_log = Logger(namespace="twisted_sendmail.daemon")


#: Seconds between fine samples, and how many are kept: an hour.
FINE_SECONDS, FINE_KEPT = 10.0, 360
#: Seconds between coarse samples, and how many are kept: two days.
COARSE_SECONDS, COARSE_KEPT = 300.0, 576


class QueueSample(NamedTuple):
    """The queue at one moment, or the maxima of some minutes."""

    #: Seconds since 1970.
    at: float
    #: Messages that wait to go out; not those on hold or set aside.
    depth: int
    #: Seconds that the oldest message has waited.
    age: float


def waiting(totals: QueueTotals) -> int:
    """Count the messages that wait to go out or are being delivered."""
    return sum(totals.queues.get(name, 0) for name in ("incoming", "active", "deferred"))


def oldest_age(totals: QueueTotals, now: float) -> float:
    """Return the seconds that the oldest message has waited; 0 for none, and after the clock was set back."""
    return 0.0 if totals.oldest is None else max(0.0, now - totals.oldest)


class QueueHistory:
    """Samples the queue at regular intervals.

    :param reactor: provides ``IReactorTime``.
    :param totals: counts the queue; where it fails, the curve has a gap.
    """

    def __init__(self, reactor: Any, totals: Callable[[], Deferred[QueueTotals]]) -> None:
        self._reactor = reactor
        self._totals = totals
        self._fine: deque[QueueSample] = deque(maxlen=FINE_KEPT)
        self._coarse: deque[QueueSample] = deque(maxlen=COARSE_KEPT)
        # The maxima since the last coarse sample, and the time of the first fine one in them.
        self._maxima: QueueSample | None = None
        self._maxima_begin = 0.0
        self._next: IDelayedCall | None = None
        self._counting: Deferred[QueueTotals] | None = None

    @property
    def hour(self) -> tuple[QueueSample, ...]:
        """The fine samples, the oldest first."""
        return tuple(self._fine)

    @property
    def days(self) -> tuple[QueueSample, ...]:
        """The coarse samples, and the maxima of the current five minutes."""
        return (*self._coarse, self._maxima) if self._maxima else tuple(self._coarse)

    def start(self) -> None:
        """Take the first sample now."""
        if self._next is None:
            self._sample()

    def stop(self) -> None:
        """Take no more samples."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        if self._counting is not None:
            self._counting.cancel()

    def resume(self) -> None:
        """Sample now if the clock was set back, which made the next sample as much later.

        To be called when the history is shown.
        """
        call = self._next
        if call is None or not call.active():
            return
        if call.getTime() - self._reactor.seconds() > FINE_SECONDS:
            call.cancel()
            self._sample()

    def _sample(self) -> None:
        self._next = self._reactor.callLater(FINE_SECONDS, self._sample)
        if self._counting is None:
            self._counting = maybeDeferred(self._totals)
            _ = self._counting.addCallbacks(self._add, self._failed)

    def _failed(self, failure: Failure) -> None:
        self._counting = None
        if self._next is not None:
            # For debugging only: the health check reports it to the operator.
            _log.debug("the queue could not be counted: {why}", why=failure.getErrorMessage())

    def _add(self, totals: QueueTotals) -> None:
        self._counting = None
        now = self._reactor.seconds()
        if self._fine and now < self._fine[-1].at:
            self._move_back(self._fine[-1].at + FINE_SECONDS - now)
        sample = QueueSample(now, waiting(totals), oldest_age(totals, now))
        self._fine.append(sample)
        if self._maxima is not None and now - self._maxima_begin >= COARSE_SECONDS:
            self._coarse.append(self._maxima)
            self._maxima = None
        if self._maxima is None:
            self._maxima, self._maxima_begin = sample, now
        else:
            depth, age = max(self._maxima.depth, sample.depth), max(self._maxima.age, sample.age)
            self._maxima = QueueSample(now, depth, age)

    def _move_back(self, seconds: float) -> None:
        """Move all samples back, after the clock was set back."""
        self._fine = deque((s._replace(at=s.at - seconds) for s in self._fine), FINE_KEPT)
        self._coarse = deque((s._replace(at=s.at - seconds) for s in self._coarse), COARSE_KEPT)
        if self._maxima is not None:
            self._maxima = self._maxima._replace(at=self._maxima.at - seconds)
        self._maxima_begin -= seconds
