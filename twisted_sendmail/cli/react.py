"""Run one coroutine on the reactor, to its exit status.

Like ``twisted.internet.task.react``, but a signal cancels the coroutine, so that the command can
report the result for the message, and Twisted's log is not written.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from twisted_sendmail.cli.output import finish
from twisted_sendmail.exit_status import status_of_signal


def react(work: Callable[[Any], Coroutine[Any, Any, int]]) -> int:
    """Run *work* with the reactor; the exit status.

    :param work: the first SIGINT or SIGTERM cancels it; the second ends the process.
    :returns: the result of *work*; 128 + signal if a signal interrupted it and it did not succeed.
    :raises Exception: *work* raised it.
    """
    # Without an observer of its own, Twisted would print tracebacks.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)

    from twisted.internet import reactor as installed

    reactor: Any = installed
    results: list[int | Failure] = []
    signals: list[int | None] = [None]
    working: list[Deferred[int]] = []

    def begin() -> None:
        deferred = Deferred.fromCoroutine(work(reactor))
        working.append(deferred)
        _ = deferred.addBoth(end)

    def end(result: int | Failure) -> None:
        results.append(result)
        reactor.stop()

    def leave() -> None:
        (result,) = results
        pool = reactor.threadpool
        if isinstance(result, int) and pool is not None and pool.working:
            # Exit now: a name look-up or a read in a thread may take minutes.
            os._exit(finish(status_of_signal(result, signals[-1])))

    def cancel() -> None:
        for deferred in working:
            deferred.cancel()

    def interrupted(signum: int, _frame: object) -> None:
        signal.signal(signum, signal.SIG_DFL)
        signals.append(signum)
        reactor.callFromThread(cancel)

    before = {n: signal.signal(n, interrupted) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        # Before the trigger of the thread pool, which waits for the threads; after those that store a token.
        _ = reactor.addSystemEventTrigger("during", "shutdown", leave)
        reactor.callWhenRunning(begin)
        reactor.run(installSignalHandlers=False)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return status_of_signal(result, signals[-1])
