"""One deadline over a whole operation, whatever it is waiting for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.smtp import SendTimeout

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

_T = TypeVar("_T")


def within(
    clock: IReactorTime, seconds: float | None, work: Coroutine[Deferred[Any], Any, _T], what: str
) -> Deferred[_T]:
    """Run *work*, and cancel it after *seconds*; None for never.

    :raises SendTimeout: it took too long; carries what the cancelled work could tell.
    """
    running: Deferred[_T] = Deferred.fromCoroutine(work)
    if seconds is None:
        return running
    late: list[bool] = []

    def expire() -> None:
        late.append(True)
        running.cancel()

    timer = clock.callLater(seconds, expire)

    def done(result: Any) -> Any:
        if timer.active():
            timer.cancel()
        return _late(result, what, seconds) if late else result

    return running.addBoth(done)


class Deadlines:
    """The same for many operations that may all take as long: one timer serves for all.

    :param seconds: None for no deadline.
    :param what: how to call an operation in errors.
    """

    def __init__(self, clock: IReactorTime, seconds: float | None, what: str) -> None:
        self._clock = clock
        self._seconds = seconds
        self._what = what
        # In the order in which they are due.
        self._running: dict[Deferred[Any], float] = {}
        self._expired: set[Deferred[Any]] = set()
        self._timer: IDelayedCall | None = None

    def hold(self, running: Deferred[_T]) -> Deferred[_T]:
        """Cancel *running* when its time is over; it then fails as with :func:`within`."""
        if self._seconds is None or running.called:
            return running
        self._running[running] = self._clock.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._expire)
        return running.addBoth(self._done, running, self._seconds)

    def rest(self) -> None:
        """No more of them may come for a long time: leave no timer behind, if none is under way."""
        if self._timer is not None and not self._running:
            timer, self._timer = self._timer, None
            timer.cancel()

    def _done(self, result: Any, running: Deferred[Any], seconds: float) -> Any:
        _ = self._running.pop(running, None)
        if running not in self._expired:
            return result
        self._expired.remove(running)
        return _late(result, self._what, seconds)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for running, due in list(self._running.items()):
            if due > now:
                self._timer = self._clock.callLater(due - now, self._expire)
                return
            if self._running.pop(running, None) is not None:
                self._expired.add(running)
                running.cancel()


def _late(result: Any, what: str, seconds: float) -> Any:
    """What an operation whose time was over has come to."""
    if not isinstance(result, Failure) or not result.check(CancelledError):
        return result
    cut = result.value
    error = SendTimeout(f"{what} took more than {seconds:g} s")
    if isinstance(cut, Cancelled):
        error.remedy, error.phase = cut.remedy, cut.phase
        report = cut.report and replace(cut.report, error=error)
        error.at(host=cut.host, tls=cut.tls, transcript=cut.transcript, report=report)
    return Failure(error)
