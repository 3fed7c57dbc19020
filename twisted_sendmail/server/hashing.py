"""Threads that hash passwords.

They are their own, and not the reactor's, which resolves names in its threads: many logins must
not hold up the delivery of mail, nor the reverse.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads

if TYPE_CHECKING:
    from collections.abc import Callable

#: Threads at most.
THREADS = min(4, os.cpu_count() or 1)


class HashingPool:
    """Calls functions in threads; a thread is started when there is work for it.

    An object that implements ``run_blocking`` of
    :class:`~twisted_sendmail.server.accounts.HashedAccounts`.

    :param reactor: gets the results; one without threads (a ``Clock``) has the work done at once.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._threads: ThreadPoolExecutor | None = None

    def __call__(self, call: Callable[[], bool]) -> Deferred[bool]:
        """Have *call* done; cancelling takes it back where it has not begun."""
        if not IReactorFromThreads.providedBy(self._reactor):
            return maybeDeferred(call)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "twisted_sendmail password hashing")
        work = self._threads.submit(call)

        def withdraw(_: object) -> None:
            work.cancel()

        waiting: Deferred[bool] = Deferred(withdraw)

        def done(work: Future[bool]) -> None:
            # In a thread of the pool, or in the one that took the work back.
            self._reactor.callFromThread(settle, work)

        def settle(work: Future[bool]) -> None:
            if waiting.called:
                return
            try:
                result = work.result()
            except Exception:  # noqa: BLE001 - it is for the caller
                waiting.errback()
            else:
                waiting.callback(result)

        work.add_done_callback(done)
        return waiting

    def stop(self) -> None:
        """End the threads when they have done what they are at; new work starts new ones."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
