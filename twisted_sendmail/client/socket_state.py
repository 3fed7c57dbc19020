"""The socket under a session: has it anything to read, will it take more at once?

Asked instead of waiting for a turn of the reactor, where the transport is a reactor's own
and thus a socket.  Of any other transport, in memory or over a proxy, nothing is known
here, and nothing is done.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor


class SocketState:
    """What can be asked of the socket of *transport*."""

    def __init__(self, transport: Any) -> None:
        self._transport: Any = None
        self._socket: socket.socket | None = None
        if IReadDescriptor.providedBy(transport) and IWriteDescriptor.providedBy(transport):
            handle = getattr(transport, "getHandle", lambda: None)()
            if isinstance(handle, socket.socket):
                self._transport, self._socket = transport, handle

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
