"""Octets to the socket at once, as long as it takes them all.

A reactor's transport sends what is written in its next turn, and asks the kernel twice
about it.  For short replies, each of which somebody waits for, that is more work than all
the rest.  So they go straight to the socket, until it once does not take everything: from
then on, and on any transport that is not a plain socket, they are the transport's, as ever.

It never writes past TLS: whoever starts TLS says so first.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable


class PromptWriter:
    """Writes to *transport*; nobody else may."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._send: Callable[[bytes], int | Exception] | None = None
        reactors_own = (i.providedBy(transport) for i in (IReadDescriptor, IWriteDescriptor))
        if all(reactors_own) and isinstance(transport.getHandle(), socket.socket):
            self._send = transport.writeSomeData

    def write(self, data: bytes) -> None:
        """*data*, behind all that was written before."""
        send, transport = self._send, self._transport
        if send is not None:
            if transport.TLS or transport.disconnecting or not transport.connected:
                self.patient()
            else:
                sent = send(data)
                if sent == len(data):
                    return
                # What went wrong, if anything did, the transport meets by itself.
                self.patient()
                if isinstance(sent, int):
                    data = data[sent:]
        transport.write(data)

    def patient(self) -> None:
        """Leave it to the transport from now on: TLS starts, or the client is slow."""
        self._send = None
