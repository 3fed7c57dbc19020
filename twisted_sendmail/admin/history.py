"""How deep the queue was, and how old its oldest message, over the last hours.

Two rings of samples: every ten seconds for an hour, and of each five minutes the worst,
for two days.  They are in memory, of fixed size, and gone with the process: who wants
to keep them has Prometheus.

The clock is the wall's, and may jump.  Set back, it takes the older samples with it, so
that the curve stays whole; set forward, it leaves a gap, as a machine that slept does.
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

#: Seconds between samples, and how many are kept: an hour.
FINE, FINE_KEPT = 10.0, 360
#: The same for the coarse ring: two days.
COARSE, COARSE_KEPT = 300.0, 576


class Sample(NamedTuple):
    """The queue at one moment, or the worst of some minutes."""

    #: When, seconds since 1970.
    at: float
    #: Messages that wait to go out; those on hold and set aside are not among them.
    depth: int
    #: Seconds that the oldest one has waited.
    age: float


def waiting(totals: QueueTotals) -> int:
    """Messages that wait to go out, or are on their way."""
    return sum(totals.queues.get(name, 0) for name in ("incoming", "active", "deferred"))


def age(totals: QueueTotals, now: float) -> float:
    """Seconds that the oldest message has waited; 0 if there is none, or the clock was set back."""
    return 0.0 if totals.oldest is None else max(0.0, now - totals.oldest)


class History:
    """Looks at the queue from time to time.

    :param reactor: provides ``IReactorTime``.
    :param totals: gives the queue in numbers; where it fails the curve has a gap.
    """

    log = Logger(namespace="twisted_sendmail.daemon")

    def __init__(self, reactor: Any, totals: Callable[[], Deferred[QueueTotals]]) -> None:
        self._reactor = reactor
        self._totals = totals
        self._fine: deque[Sample] = deque(maxlen=FINE_KEPT)
        self._coarse: deque[Sample] = deque(maxlen=COARSE_KEPT)
        # The worst since the last coarse sample, and when that one began.
        self._worst: Sample | None = None
        self._since = 0.0
        self._call: IDelayedCall | None = None
        self._asked: Deferred[QueueTotals] | None = None

    @property
    def hour(self) -> tuple[Sample, ...]:
        """The fine samples, the oldest first."""
        return tuple(self._fine)

    @property
    def days(self) -> tuple[Sample, ...]:
        """The coarse ones, with the five minutes that are not over yet."""
        return (*self._coarse, self._worst) if self._worst else tuple(self._coarse)

    def start(self) -> None:
        """Take the first sample now, and go on."""
        if self._call is None:
            self._look()

    def stop(self) -> None:
        """Take no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if self._asked is not None:
            self._asked.cancel()

    def wake(self) -> None:
        """Go on where the clock was set back: the next look would be as far off as it was set.

        Called whenever somebody wants to see the history; costs nothing otherwise.
        """
        call = self._call
        if call is not None and call.active() and call.getTime() - self._reactor.seconds() > FINE:
            call.cancel()
            self._look()

    def _look(self) -> None:
        self._call = self._reactor.callLater(FINE, self._look)
        if self._asked is not None:
            return
        self._asked = maybeDeferred(self._totals)
        _ = self._asked.addCallbacks(self._keep, self._missed)

    def _missed(self, failure: Failure) -> None:
        self._asked = None
        if self._call is not None:
            # The health check is who tells the operator.
            self.log.debug("the queue could not be counted: {why}", why=failure.getErrorMessage())

    def _keep(self, totals: QueueTotals) -> None:
        self._asked = None
        now = self._reactor.seconds()
        self._follow(now)
        sample = Sample(now, waiting(totals), age(totals, now))
        self._fine.append(sample)
        if self._worst is not None and now - self._since >= COARSE:
            self._coarse.append(self._worst)
            self._worst = None
        if self._worst is None:
            self._worst, self._since = sample, now
        else:
            worst = self._worst
            self._worst = Sample(now, max(worst.depth, sample.depth), max(worst.age, sample.age))

    def _follow(self, now: float) -> None:
        """Where the clock was set back, set back what was noted before, by as much."""
        if not self._fine or now >= self._fine[-1].at:
            return
        back = self._fine[-1].at + FINE - now
        self._fine = deque((s._replace(at=s.at - back) for s in self._fine), FINE_KEPT)
        self._coarse = deque((s._replace(at=s.at - back) for s in self._coarse), COARSE_KEPT)
        if self._worst is not None:
            self._worst = self._worst._replace(at=self._worst.at - back)
        self._since -= back
