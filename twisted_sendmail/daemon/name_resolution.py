"""Name resolution that does not delay the end of the process.

``getaddrinfo`` blocks its thread, for half a minute where no name server answers, and the
reactor waits for the threads of its own pool when it ends.  So names are resolved in a pool
of daemon threads, which nothing waits for.
"""

from __future__ import annotations

from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from twisted.internet._resolver import GAIResolver
from twisted.python.threadpool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

#: Names resolved at once.
MAX_THREADS = 10


class _DaemonThreadPool(ThreadPool):
    """A pool whose threads end with the process."""

    threadFactory: Callable[..., Thread] = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]  # noqa: N815 - Twisted names it, and has a class there


def resolve_in_daemon_threads(reactor: Any) -> None:
    """Let *reactor* resolve names in threads that nothing waits for."""
    pool = _DaemonThreadPool(0, MAX_THREADS, "name resolution")

    def started() -> ThreadPool:
        # Not before the first name: threads do not survive a fork into the background.
        if not pool.started:
            pool.start()
        return pool

    reactor.installNameResolver(GAIResolver(reactor, started))
