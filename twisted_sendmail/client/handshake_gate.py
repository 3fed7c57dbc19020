"""Not too many TLS handshakes with one server at the same time.

A thousand at once would each need their memory at once, and none could resume what
another was given.  So some begin, and the others when those are through.  It is only a
matter of order: who has waited for long begins all the same, so that a server that
stalls in its handshakes delays nobody beyond that.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.internet.interfaces import IReactorTime

#: Handshakes with one server at once.
ABREAST = 32
#: Seconds after which nobody waits any more.
PATIENCE = 5.0


class HandshakeGate:
    """The way into a handshake with one server: ``await enter()``, and ``leave()`` behind it."""

    __slots__ = ("_clock", "_inside", "_key", "_waiting")

    def __init__(self, clock: IReactorTime, key: Hashable) -> None:
        self._clock = clock
        self._key = key
        self._inside = 0
        self._waiting: OrderedDict[Deferred[None], None] = OrderedDict()

    async def enter(self) -> None:
        """Wait for the turn; cancelling gives it up."""
        if self._inside >= ABREAST:
            turn: Deferred[None] = Deferred()
            self._waiting[turn] = None
            late = self._clock.callLater(PATIENCE, turn.callback, None)
            try:
                await turn
            finally:
                _ = self._waiting.pop(turn, None)
                if late.active():
                    late.cancel()
        self._inside += 1

    def leave(self) -> None:
        """The handshake is over, well or not."""
        self._inside -= 1
        if self._waiting and self._inside < ABREAST:
            turn, _ = self._waiting.popitem(last=False)
            turn.callback(None)
        elif not self._inside and not self._waiting:
            _ = _GATES.pop(self._key, None)


#: Only those where somebody is.
_GATES: dict[Hashable, HandshakeGate] = {}


def gate_of(clock: IReactorTime, key: Hashable) -> HandshakeGate:
    """The one gate of the server that *key* stands for."""
    gate = _GATES.get(key)
    if gate is None:
        gate = _GATES[key] = HandshakeGate(clock, key)
    return gate
