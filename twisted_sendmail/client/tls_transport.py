"""TLS over any stream transport: a socket, a proxy's stream, a pair in memory.

Twisted's TLS protocol lies on top of the transport, with :class:`TLSTransport` between them.  The client
receives the bytes of the transport first and passes them on, so it can tell when a read has been decrypted
to its end, and the records of one flight are written together.  The transport's own ``startTLS`` gives
neither, and looks up the interfaces of the transport for each connection, which takes long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
    from twisted.python.failure import Failure

_NO_FACTORY = Factory()


class TLSTransport:
    """The transport below a TLS protocol; it declares no interface.

    :param client: a protocol with ``handshake_completed()``, ``decrypted(data)`` and
        ``connection_ended(reason)``; its ``transport`` becomes the TLS protocol.
    :param wire: the transport that carries the records.
    :param write: writes to *wire*.
    """

    def __init__(self, client: Any, wire: Any, write: Callable[[bytes], object]) -> None:
        self._client = client
        self._wire = wire
        self._write = write
        self._records: list[bytes] = []
        self._layer: Any = None

    def start(self, clock: IReactorTime, creator: IOpenSSLClientConnectionCreator) -> None:
        """Begin the handshake."""
        factory = TLSMemoryBIOFactory(creator, True, _NO_FACTORY, clock=clock)
        decrypted: Any = _Decrypted(self._client)
        self._layer = TLSMemoryBIOProtocol(factory, decrypted)
        self._layer.makeConnection(self)
        self.flush()

    # -- for the client

    def receive(self, data: bytes) -> None:
        """Decrypt *data*."""
        self._layer.dataReceived(data)

    def send(self, data: bytes) -> None:
        """Encrypt *data* and write it."""
        self._layer.write(data)
        self.flush()

    def flush(self) -> None:
        """Write the records that were made."""
        if self._records:
            records, self._records = self._records, []
            self._write(records[0] if len(records) == 1 else b"".join(records))

    def connection_lost(self, reason: Failure) -> None:
        """The transport is gone."""
        self._layer.connectionLost(reason)
        # Break reference cycles now instead of waiting for the garbage collector.
        self._client, self._layer, self._write = None, None, lambda _: None

    # -- for the TLS protocol

    def write(self, data: bytes) -> None:
        """Take a record."""
        self._records.append(data)

    def loseConnection(self) -> None:
        """See ``ITransport``."""
        self.flush()
        self._wire.loseConnection()

    def abortConnection(self) -> None:
        """See ``IAbortingTransport``, which not every transport is."""
        getattr(self._wire, "abortConnection", self._wire.loseConnection)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 - Twisted's
        """See ``IConsumer``."""
        self._wire.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._wire.unregisterProducer()

    def getPeer(self) -> Any:
        """See ``ITransport``."""
        return self._wire.getPeer()

    def getHost(self) -> Any:
        """See ``ITransport``."""
        return self._wire.getHost()


@implementer(IHandshakeListener)
class _Decrypted(Protocol):
    """The protocol above TLS: passes everything on to the client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def connectionMade(self) -> None:
        self._client.transport = self.transport

    def handshakeCompleted(self) -> None:
        self._client.handshake_completed()

    def dataReceived(self, data: bytes) -> None:
        self._client.decrypted(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client.connection_ended(reason)
