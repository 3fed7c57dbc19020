"""Work that blocks or computes for long, kept off the reactor's thread."""

from __future__ import annotations

from functools import lru_cache, partial
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

_T = TypeVar("_T")
#: Threads of a pool of daemon threads.
MAX_DAEMON_THREADS = 10


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


class DaemonThreads(ThreadPool):
    """A pool for work that may take long and cannot be ended: the end of the process does not wait for it."""

    threadFactory: Callable[..., Thread] = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]  # noqa: N815 - Twisted names it, and has a class there

    def __init__(self, name: str) -> None:
        super().__init__(0, MAX_DAEMON_THREADS, name)

    def call(self, reactor: Any, work: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Call *work* in a thread; the result is discarded after a cancellation."""
        # Not in __init__: threads do not survive a fork into the background.
        if not self.started:
            self.start()
        return deferToThreadPool(reactor, self, work, *args)


@lru_cache(maxsize=1)
def _daemon_threads() -> DaemonThreads:
    return DaemonThreads("twisted_sendmail")


def in_daemon_thread(reactor: Any, work: Callable[[], _T]) -> Deferred[_T]:
    """Call *work* in one of the :class:`DaemonThreads` that all callers share; at once without a reactor's threads."""
    if not IReactorThreads.providedBy(reactor):
        return maybeDeferred(work)
    return _daemon_threads().call(reactor, work)
