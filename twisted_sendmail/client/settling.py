"""Has everything been read that the transport had received?

Asked where no reply is owed: what came unasked must be found before the next command is
said, or it would pass for its answer.  This module only knows whether there is more to
read; what is done about it is ``connection``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from twisted_sendmail.client.socket_state import SocketState
from twisted_sendmail.client.two_turns import two_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

_NONE_YET = SocketState(None)


class Settling:
    """Tells when a connection has been read to its end, for now.

    :param clock: for waiting where a transport cannot be asked.
    """

    __slots__ = ("_clock", "_reading", "_waiting", "socket")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.socket = _NONE_YET
        self._reading = False
        self._waiting: list[Deferred[None]] = []

    @property
    def quiet(self) -> bool:
        """Certainly nothing is left to read; False where that is not known."""
        return not self._reading and self.socket.silent()

    def settled(self) -> Deferred[None]:
        """Fires once everything that was received has been read; cancelling works."""
        if not self._reading:
            return two_turns(self._clock)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def read(self, layer: Callable[[bytes], None], data: bytes) -> None:
        """Let a *layer* read *data*."""
        self.begin()
        try:
            layer(data)
        finally:
            self.end()

    def begin(self) -> None:
        """A layer is reading, and may have more than it has given us so far."""
        self._reading = True

    def end(self) -> None:
        """The layer has given us all it has."""
        self._reading = False
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        quiet = self.quiet
        for each in waiting:
            if each.called:
                continue
            if quiet:
                each.callback(None)
            else:
                _ = two_turns(self._clock).chainDeferred(each)
