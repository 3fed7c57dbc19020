"""The time that a relay runs: the age of its mail, and the end of mail that was set aside.

No clock is read for it: what passed between two additions counts, but never more than the time
planned between them.  A clock that jumps, a machine that is suspended and a relay that does not run add
nothing to the age of mail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from twisted_sendmail.relay.events import Cleared, trouble
from twisted_sendmail.relay.retry_policy import elapsed

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import Queue
    from twisted_sendmail.relay.events import Observer

#: Seconds between two additions to the age of mail.
_COUNT_INTERVAL = 60.0
#: Longest time between two removals of undeliverable messages, in seconds, and how often in the
#: time they are kept.
_MAX_REMOVAL_INTERVAL = 3600.0
_REMOVALS_PER_KEEP = 24


class RunningTime:
    """Counts the time that the relay runs, and removes undeliverable mail that was kept for its time.

    :param keep: seconds that undeliverable mail is kept; None: for ever.
    """

    def __init__(self, reactor: Any, queue: Queue, keep: float | None, *, notify: Observer) -> None:
        self._reactor = reactor
        self._queue = queue
        #: Seconds that undeliverable mail is kept; None: for ever.
        self.keep = keep
        self._notify = notify
        # Seconds that passed and are not written to the queue.
        self._passed = 0.0
        # Seconds since the last removal.
        self._not_removed = 0.0
        self._since = 0.0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Start to count."""
        self._since = self._reactor.seconds()
        self._timer = self._reactor.callLater(_COUNT_INTERVAL, self._tick)

    def stop(self) -> Deferred[None]:
        """Stop; the Deferred fires when the time is written to the queue, or cannot be."""
        timer, self._timer = self._timer, None
        if timer is None:
            return succeed(None)
        timer.cancel()
        return self._add()

    def _tick(self) -> None:
        adding = self._add()
        self.start()
        keep = self.keep
        if keep is None or self._not_removed < min(
            _MAX_REMOVAL_INTERVAL, keep / _REMOVALS_PER_KEEP
        ):
            return
        self._not_removed = 0.0
        _ = adding.addCallback(lambda _: Deferred.fromCoroutine(self._remove(keep)))
        _ = adding.addErrback(self._failed, "undeliverable mail could not be removed")

    def _add(self) -> Deferred[None]:
        passed = min(elapsed(self._since, self._reactor.seconds()), _COUNT_INTERVAL)
        self._not_removed += passed
        written, self._passed = self._passed + passed, 0.0
        return self._queue.count_running(written).addErrback(self._not_added, written)

    def _not_added(self, failure: Failure, passed: float) -> None:
        self._passed += passed
        if passed <= _COUNT_INTERVAL:  # the first of several failures
            self._failed(failure, "the age of mail cannot be written")

    async def _remove(self, keep: float) -> None:
        # In parts, so that new mail does not wait.
        while self._timer is not None and (gone := await self._queue.clear_aside(keep)):
            for each in gone:
                self._notify(Cleared(each, keep))

    def _failed(self, failure: Failure, what: str) -> None:
        if self._timer is not None:
            self._notify(trouble(what, failure))
