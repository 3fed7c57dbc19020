"""The socket under a session: has it anything to read, and will it take a flight at once?

Asked instead of waiting for a turn of the reactor, where the transport is a reactor's own
and thus a socket.  What the socket takes at once, the reactor never hears of; what it does
not take is the reactor's, and so is all that comes behind it.

Of any other transport, in memory or over a proxy, nothing is known here, and nothing is done.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable


class SocketState:
    """What can be asked of the socket of *transport*, and done with it."""

    def __init__(self, transport: Any) -> None:
        handle = None
        if all(each.providedBy(transport) for each in (IReadDescriptor, IWriteDescriptor)):
            handle = getattr(transport, "getHandle", lambda: None)()
        self._socket = handle if isinstance(handle, socket.socket) else None
        self._transport = None if self._socket is None else transport
        # How the reactor is given something to write.
        self._leave = _nowhere if self._transport is None else transport.write
        # What a TLS layer writes to, and what it has written in the flight under way.
        self._beneath: Any = None
        self._flight: list[bytes] | None = None
        # The reactor may have something to write.
        self._behind = True

    def silent(self) -> bool:
        """Certainly nothing has arrived that was not read; False when that is not known."""
        if self._socket is None:
            return False
        try:
            _ = self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # octets, or the end: the reactor is about to deliver it

    def push(self) -> None:
        """Let the socket take now what was written, as the reactor would do in its next turn."""
        transport = self._transport
        if transport is None or not transport.connected or transport.disconnecting:
            return
        # What it returns tells of an error; the reactor meets that error itself, as it
        # still has something to write.
        _ = transport.doWrite()

    def under(self, layer: Any) -> None:
        """From now on *layer* writes to the transport, and nobody else."""
        if self._transport is not None:
            self._beneath = layer.transport
            self._leave = self._beneath.write
            self._beneath.write = self._take
            self._behind = True

    def let_go(self) -> None:
        """The connection is over: nothing is asked, and nothing done, any more."""
        if self._beneath is not None:
            del self._beneath.write
        self._transport = self._beneath = self._socket = None
        self._leave = _nowhere

    def write(self, data: bytes, through: Callable[[bytes], None]) -> None:
        """Write *data* by *through*, which is the transport's or its layer's."""
        self._behind = True
        through(data)

    def fly(self, data: bytes, through: Callable[[bytes], None]) -> None:
        """The same, and send it at once."""
        if self._transport is None or self._flight is not None:
            through(data)
        elif self._beneath is None:
            self._send(data)
        else:
            self.flight(through, data)

    def flight(self, act: Callable[[bytes], None], data: bytes) -> None:
        """Send at once, and together, all that the layer writes while *act* is given *data*."""
        records: list[bytes] = []
        self._flight = records
        try:
            act(data)
        finally:
            self._flight = None
            if records:
                self._send(records[0] if len(records) == 1 else b"".join(records))

    def _take(self, data: bytes) -> None:
        if self._flight is not None:
            self._flight.append(data)
        else:
            self._behind = True
            self._leave(data)

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        if transport.connected and not transport.disconnecting and not self._waits(transport):
            sent = transport.writeSomeData(data)
            if sent == len(data):
                return
            # An error is met by the reactor again, when it writes.
            data = data[sent:] if isinstance(sent, int) and sent > 0 else data
        self._behind = True
        self._leave(data)

    def _waits(self, transport: Any) -> bool:
        """Has the reactor something to write?"""
        if self._behind:
            self._behind = transport in transport.reactor.getWriters()
        return self._behind


def _nowhere(_: bytes) -> None:
    """What is written when the connection is over."""
