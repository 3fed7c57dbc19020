"""One deadline over a whole operation, whatever it is waiting for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.smtp.errors import SendTimeout

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from twisted.internet.interfaces import IReactorTime

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
        if not late or not isinstance(result, Failure) or not result.check(CancelledError):
            return result
        cut = result.value
        error = SendTimeout(f"{what} took more than {seconds:g} s")
        if isinstance(cut, Cancelled):
            error.remedy, error.phase = cut.remedy, cut.phase
            report = cut.report and replace(cut.report, error=error)
            error.at(host=cut.host, tls=cut.tls, transcript=cut.transcript, report=report)
        return Failure(error)

    return running.addBoth(done)
