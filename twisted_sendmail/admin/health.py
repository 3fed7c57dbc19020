"""Health of a relay: is the queue writable, and is mail taken out of it?

A next hop that is down does not make a relay unhealthy: keeping mail meanwhile is its purpose, and
a restart would not help. The queue is written at most every five seconds, however often the
health is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import maybeDeferred, succeed
from twisted.python.failure import Failure

from twisted_sendmail.shared_result import SharedResult
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.queue import QueueActionResult, Selection
    from twisted_sendmail.relay import RelayStats

#: Seconds for which a result is used again.
VALID_SECONDS = 5.0
#: Seconds that writing to the queue may take.
PROBE_TIMEOUT = 4.0


class WatchedRelay(Protocol):
    """The part of a ``RelayService`` that the admin endpoint uses."""

    @property
    def stopping(self) -> bool:
        """True when no more mail is taken out of the queue."""
        ...

    def stats(self) -> RelayStats:
        """Return the state of the relay and its routes."""
        ...

    def flush(self, selection: Selection | None = None) -> Deferred[Sequence[QueueActionResult]]:
        """Try the selected messages now, or all, over routes that are down too."""
        ...


class Health:
    """Checks the queue and the relay, and uses the result for a few seconds.

    :param reactor: provides ``IReactorTime``.
    :param probe: writes to the queue; its Deferred fires when that is durable.
    """

    def __init__(
        self, reactor: Any, probe: Callable[[], Deferred[None]], relay: WatchedRelay
    ) -> None:
        self._reactor = reactor
        self._probe = probe
        self._relay = relay
        self._checked = float("-inf")
        self._queue_problem: str | None = None
        self._shared: SharedResult[str | None] | None = None
        self._probing: Deferred[None] | None = None
        self._timeout: IDelayedCall | None = None

    def problem(self) -> Deferred[str | None]:
        """Return why the relay is not healthy, in one printable line; None if it is healthy.

        Never fails. Cancelling ends only the waiting.
        """
        if 0 <= self._reactor.seconds() - self._checked < VALID_SECONDS:
            return succeed(self._result())
        # Before the probe, which may end at once.
        shared = self._shared = self._shared or SharedResult()
        if self._timeout is None:
            late = f"the queue has not answered for {PROBE_TIMEOUT:.0f} s"
            self._timeout = self._reactor.callLater(PROBE_TIMEOUT, self._answer, late)
        if self._probing is None:
            self._probing = maybeDeferred(self._probe)
            _ = self._probing.addBoth(self._probed)
        return shared.wait()

    def stop(self) -> None:
        """Answer all that wait, and check no more."""
        self._answer("the relay is stopping")

    def _probed(self, result: object) -> None:
        self._probing = None
        problem: str | None = None
        if isinstance(result, Failure):
            problem = f"the queue cannot be written: {printable(result.getErrorMessage(), 200)}"
        self._answer(problem)

    def _answer(self, problem: str | None) -> None:
        call, self._timeout = self._timeout, None
        if call is not None and call.active():
            call.cancel()
        self._checked, self._queue_problem = self._reactor.seconds(), problem
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.set(self._result())

    def _result(self) -> str | None:
        if self._queue_problem is not None:
            return self._queue_problem
        return "the relay is stopping" if self._relay.stopping else None
