"""Work that blocks or computes for long, kept off the reactor's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

_T = TypeVar("_T")


def off_reactor(
    reactor: Any, work: Callable[[], _T], end: Callable[[], None] | None = None
) -> Deferred[_T]:
    """Call *work* in the reactor's thread pool; at once where the reactor has none (a Clock).

    :param end: makes *work* end soon. It is called in the reactor's thread by a cancellation, and when the
        reactor stops, which waits for its threads. Without it the thread goes on, and its result is discarded.
    """
    if not IReactorThreads.providedBy(reactor):
        return maybeDeferred(work)
    working: Deferred[_T] = deferToThreadPool(reactor, reactor.getThreadPool(), work)
    if end is None:
        return working
    stopping = False
    core: Any = reactor

    def stop() -> None:
        nonlocal stopping
        stopping = True
        end()

    trigger = core.addSystemEventTrigger("before", "shutdown", stop)
    waiting: Deferred[_T] = Deferred(lambda _: end())

    def ended(result: _T | Failure) -> None:
        if not stopping:
            core.removeSystemEventTrigger(trigger)
        if not waiting.called:
            # Given a Failure, it calls the errbacks.
            waiting.callback(result)

    _ = working.addBoth(ended)
    return waiting
