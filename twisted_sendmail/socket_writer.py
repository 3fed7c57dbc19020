"""Writes octets of a connection: the socket takes them at once, without a turn of the reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


class SocketWriter:
    """Writes to *transport*: its socket takes what it can at once, the reactor writes the rest.

    That saves a turn of the reactor and three system calls for each write.
    """

    __slots__ = ("_reactor_writes", "connection", "transport")

    def __init__(self, transport: Any) -> None:
        #: Writes what the socket has not taken.
        self.transport = transport
        #: The transport, if it writes octets to a socket as they are; None: a protocol of the
        #: application or of Twisted (TLS, the PROXY protocol) may stand between, or there is no socket.
        self.connection: Connection | None = (
            transport if isinstance(transport, Connection) and not transport.TLS else None
        )
        # The reactor may still have to write what the socket has not taken.
        self._reactor_writes = False

    def write(self, data: bytes) -> None:
        """Write *data* after everything that was written before."""
        connection: Any = self.connection
        if connection is not None and connection.connected and not connection.disconnecting:
            if self._reactor_writes:
                self._reactor_writes = connection in connection.reactor.getWriters()
            if not self._reactor_writes:
                sent = connection.writeSomeData(data)
                if sent == len(data):
                    return
                # The reactor meets an error again when it writes.
                data = data[sent:] if isinstance(sent, int) else data
                self._reactor_writes = True
        self.transport.write(data)

    def flush(self) -> None:
        """Let the socket take what the transport has left to the reactor."""
        connection: Any = self.connection
        if connection is not None:
            self._reactor_writes = True
            connection.doWrite()
