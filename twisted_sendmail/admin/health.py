"""Is the relay well: can the queue be written, and is mail taken out of it?

A next hop that is down is no reason to call the relay unwell: keeping mail meanwhile is
its work, and starting it anew would help nobody.  The queue is asked to make something
durable, at most every few seconds however often somebody asks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.admin.watched import WatchedRelay

#: Seconds for which an answer is good.
FRESH = 5.0
#: Seconds the queue may take to answer.
PATIENCE = 4.0


class Health:
    """Asks, and remembers the answer for a moment.

    :param reactor: provides ``IReactorTime``.
    :param probe: writes something to the queue; fires when it is durable.
    """

    def __init__(
        self, reactor: Any, probe: Callable[[], Deferred[None]], relay: WatchedRelay
    ) -> None:
        self._reactor = reactor
        self._probe = probe
        self._relay = relay
        self._asked = float("-inf")
        self._spool: str | None = None
        self._waiting: list[Deferred[str | None]] = []
        self._under_way: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None

    def reason(self) -> Deferred[str | None]:
        """Why it is not well, in one printable line; None: it is.  Never fails.

        Cancelling stops the waiting only.
        """
        answer: Deferred[str | None] = Deferred(self._forget)
        if 0 <= self._reactor.seconds() - self._asked < FRESH:
            answer.callback(self._said())
            return answer
        self._waiting.append(answer)
        if self._patience is None:
            late = f"the queue has not answered for {PATIENCE:.0f} s"
            self._patience = self._reactor.callLater(PATIENCE, self._answer, late)
        if self._under_way is None:
            self._under_way = maybeDeferred(self._probe)
            _ = self._under_way.addBoth(self._probed)
        return answer

    def stop(self) -> None:
        """Ask no more; who waits is told that it stops."""
        self._answer("the relay stops")

    def _probed(self, result: object) -> None:
        self._under_way = None
        trouble: str | None = None
        if isinstance(result, Failure):
            trouble = f"the queue cannot be written: {printable(result.getErrorMessage(), 200)}"
        self._answer(trouble)

    def _answer(self, trouble: str | None) -> None:
        call, self._patience = self._patience, None
        if call is not None and call.active():
            call.cancel()
        self._asked, self._spool = self._reactor.seconds(), trouble
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer.callback(self._said())

    def _said(self) -> str | None:
        if self._spool is not None:
            return self._spool
        return None if self._relay.running else "the relay does not run"

    def _forget(self, answer: Deferred[str | None]) -> None:
        if answer in self._waiting:
            self._waiting.remove(answer)
