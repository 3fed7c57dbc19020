"""Run one coroutine on a reactor, to its exit status.

Like ``twisted.internet.task.react``, but an interrupt cancels the work, so that it can
say what became of the message; and Twisted's own log is heard by nobody.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from twisted_sendmail.cli.terminal import settled


def run(work: Callable[[Any], Coroutine[Any, Any, int]]) -> int:
    """Run *work*, given the reactor.

    :param work: is cancelled by the first SIGINT or SIGTERM; the second ends the process.
    :returns: what *work* does; 128 + signal when it was interrupted and did not succeed.
    :raises Exception: what *work* raises.
    """
    # With observers there are none, and the default one would print tracebacks.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)

    from twisted.internet import reactor as installed

    reactor: Any = installed
    results: list[int | Failure] = []
    interrupts: list[int] = []
    working: list[Deferred[int]] = []

    def begin() -> None:
        deferred = Deferred.fromCoroutine(work(reactor))
        working.append(deferred)
        _ = deferred.addBoth(end)

    def end(result: int | Failure) -> None:
        results.append(result)
        if isinstance(result, int) and _threads_at_work(reactor):
            # A look-up or a read that nobody waits for any more, and that may take minutes.
            os._exit(settled(_final(result, interrupts)))
        reactor.stop()

    def cancel() -> None:
        for deferred in working:
            deferred.cancel()

    def interrupted(signum: int, _frame: object) -> None:
        signal.signal(signum, signal.SIG_DFL)
        interrupts.append(signum)
        reactor.callFromThread(cancel)

    before = {n: signal.signal(n, interrupted) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        reactor.callWhenRunning(begin)
        reactor.run(installSignalHandlers=False)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return _final(result, interrupts)


def _final(status: int, interrupts: list[int]) -> int:
    return 128 + interrupts[0] if interrupts and status else status


def _threads_at_work(reactor: Any) -> bool:
    pool = getattr(reactor, "threadpool", None)
    return pool is not None and bool(pool.working)
