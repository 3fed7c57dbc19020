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
    """What can be asked of the socket of *transport*."""

    def __init__(self, transport: Any) -> None:
        self._transport: Any = None
        self._socket: socket.socket | None = None
        if IReadDescriptor.providedBy(transport) and IWriteDescriptor.providedBy(transport):
            handle = getattr(transport, "getHandle", lambda: None)()
            if isinstance(handle, socket.socket):
                self._transport, self._socket = transport, handle
        # Of a flight that is being written through a TLS layer.
        self._flight: list[bytes] | None = None
        # What the layer writes to, and how that would be done by the reactor.
        self._beneath: Any = None
        self._reactors: Callable[[bytes], None] | None = None
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
        """From now on *layer* writes to the transport."""
        if self._transport is not None:
            self._beneath = layer.transport
            self._reactors = self._beneath.write
            self._beneath.write = self._below

    def let_go(self) -> None:
        """The connection is over: nothing is asked, and nothing done, any more."""
        if self._reactors is not None:
            del self._beneath.write
        self._transport = self._socket = self._beneath = self._reactors = None

    def fly(self, write: Callable[[bytes], None], data: bytes) -> None:
        """Have all of *data* written by *write*, the transport's or the layer's, and sent at once."""
        if self._reactors is None:
            write(data)
            self.push()
            return
        flight: list[bytes] = []
        self._flight = flight
        try:
            write(data)
        finally:
            self._flight = None
            if flight:
                self._send(flight[0] if len(flight) == 1 else b"".join(flight))

    def _below(self, data: bytes) -> None:
        if self._flight is not None:
            self._flight.append(data)
        else:
            self._leave(data)

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if not transport.connected or transport.disconnecting or self._waits(transport):
            self._leave(data)
            return
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        # An error is met by the reactor again when it writes.
        self._leave(data[sent:] if isinstance(sent, int) and sent > 0 else data)

    def _leave(self, data: bytes) -> None:
        if self._reactors is not None:
            self._behind = True
            self._reactors(data)

    def _waits(self, transport: Any) -> bool:
        """Has the reactor something to write?"""
        if self._behind:
            self._behind = transport in transport.reactor.getWriters()
        return self._behind
