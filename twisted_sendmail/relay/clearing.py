"""Mail that failed with nobody to tell, kept for the operator for its time, and then removed.

How long each has been kept is counted here and written to the spool: as much as passes
between two looks, and never more than the time between them.  So no clock that jumps, and
no relay that starts with a wrong one, removes anything early; while no relay runs nothing
grows older.

What is damaged, or on hold, is not touched: see ``Queue.clear_aside``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_sendmail.relay.events import Cleared, Trouble
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import Queue
    from twisted_sendmail.relay.events import Observer

#: Seconds between two looks, at the most; what is kept for a shorter time is looked at more often.
_LOOK = 3600.0
_LOOKS = 24


class Clearing:
    """See the module; works from :meth:`begin` to :meth:`stop`.

    :param keep: seconds; None: for ever.
    :param tell: told of what is removed.
    """

    def __init__(self, reactor: Any, spool: Queue, keep: float | None, *, tell: Observer) -> None:
        self._reactor = reactor
        self._spool = spool
        self._tell = tell
        self._keep = keep
        #: Seconds that passed, and are not written down yet.
        self._passed = 0.0
        self._since = 0.0
        self._timer: IDelayedCall | None = None
        self._begun = self._busy = False

    def configure(self, keep: float | None) -> None:
        """From now on keep it so long."""
        self._count()
        self._keep = keep
        self._wait()

    def begin(self) -> None:
        """Count from now on."""
        self._begun = True
        self._wait()

    def stop(self) -> None:
        """Remove nothing more."""
        self._begun = False
        self._wait()

    def _wait(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._since = self._reactor.seconds()
        if self._begun and not self._busy and self._keep is not None:
            self._timer = self._reactor.callLater(self._pause(self._keep), self._look)

    def _count(self) -> None:
        """Add what passed since the last time, as far as it can be believed."""
        if self._timer is not None and self._keep is not None:
            passed = self._reactor.seconds() - self._since
            self._passed += min(max(0.0, passed), self._pause(self._keep))

    @staticmethod
    def _pause(keep: float) -> float:
        return min(_LOOK, keep / _LOOKS)

    def _look(self) -> None:
        self._count()
        self._timer = None
        if self._keep is not None:
            self._busy = True
            clearing = Deferred.fromCoroutine(self._clear(self._keep))
            _ = clearing.addErrback(self._failed).addBoth(lambda _: self._cleared())

    def _cleared(self) -> None:
        self._busy = False
        self._wait()

    async def _clear(self, keep: float) -> None:
        while self._begun:
            passed = self._passed
            gone = await self._spool.clear_aside(passed, keep)
            self._passed -= passed
            for each in gone:
                self._tell(Cleared(each, keep))
            if not gone:
                return

    def _failed(self, failure: Failure) -> None:
        if self._begun:
            reason = printable(str(failure.value))
            self._tell(Trouble("what was set aside long ago could not be removed", reason))
