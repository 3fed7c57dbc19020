"""TLS over any stream transport: a socket, a proxy's stream, a pair in memory.

The transport's own ``startTLS`` begins TLS.  A transport without that method, as of a proxy or in
memory, gets Twisted's TLS protocol on top.  Either way :class:`TLSTransport` then stands between
the TLS protocol and the transport, and the client receives the bytes of the transport first and
passes them on.  So the client gets what was decrypted, can tell when a read has been decrypted to
its end, and the records of one flight are written together.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener, ISSLTransport, ITLSTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import declarations, implementer, noLongerProvides

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
    from twisted.python.failure import Failure

_NO_FACTORY = Factory()


class TLSTransport:
    """The transport below a TLS protocol; it declares no interface, as looking them up takes long.

    :param client: a protocol with ``handshake_completed()``, ``decrypted(data)`` and
        ``connection_ended(reason)``; its ``transport`` becomes the TLS protocol.
    :param wire: the transport that carries the records.
    :param write: writes to *wire*.
    """

    def __init__(
        self,
        client: Any,
        creator: IOpenSSLClientConnectionCreator,
        wire: Any,
        write: Callable[[bytes], object],
    ) -> None:
        self._client = client
        self._creator = creator
        #: Carries the records.
        self.wire = wire
        self._write = write
        self._records: list[bytes] = []
        self._layer: Any = None
        # The transport that has started TLS itself.
        self._started: Any = None

    def start(self, clock: IReactorTime) -> None:
        """Begin the handshake."""
        decrypted: Any = _Decrypted(self._client)
        wire = self.wire
        if ITLSTransport.providedBy(wire) and not ISSLTransport.providedBy(wire):
            started: Any = wire
            try:
                started.startTLS(self._creator)
            except Exception:
                # A TLS context of the application failed: close the transport as one without TLS.
                started.protocol, started.TLS = self._client, False
                with suppress(ValueError):
                    noLongerProvides(started, ISSLTransport)
                raise
            self._started = started
            self._layer, started.protocol = started.protocol, self._client
            layer_class: Any = type(self._layer)
            wire_class: Any = type(started)
            _ = _declarations(layer_class, wire_class)
            self.wire, self._layer.transport = self._layer.transport, self
            self._layer.wrappedProtocol = decrypted
            decrypted.makeConnection(self._layer)
        else:
            factory = TLSMemoryBIOFactory(self._creator, True, _NO_FACTORY, clock=clock)
            self._layer = TLSMemoryBIOProtocol(factory, decrypted)
            self._layer.makeConnection(self)
            self.flush()

    # -- for the client

    def receive(self, data: bytes) -> None:
        """Decrypt *data*."""
        self._layer.dataReceived(data)

    def send(self, data: bytes) -> None:
        """Encrypt *data* and write it."""
        # The layer of ``startTLS`` would gather writes until the next turn of the reactor.
        TLSMemoryBIOProtocol.write(self._layer, data)
        self.flush()

    def flush(self) -> None:
        """Write the records that were made."""
        if self._records:
            records, self._records = self._records, []
            self._write(records[0] if len(records) == 1 else b"".join(records))

    def connection_lost(self, reason: Failure) -> None:
        """Take the end of the transport."""
        self._layer.connectionLost(reason)
        # Break the reference cycles that startTLS makes.
        for name in ("getHandle", "getPeerCertificate"):
            with suppress(AttributeError):
                delattr(self._started, name)
        # Break our own now instead of waiting for the garbage collector.
        self._client, self._layer, self._started, self._write = None, None, None, lambda _: None

    # -- for the TLS protocol

    def write(self, data: bytes) -> None:
        """Take a record."""
        self._records.append(data)

    def loseConnection(self) -> None:
        """See ``ITransport``."""
        self.flush()
        self.wire.loseConnection()

    def abortConnection(self) -> None:
        """See ``IAbortingTransport``, which not every transport is."""
        getattr(self.wire, "abortConnection", self.wire.loseConnection)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 - Twisted's
        """See ``IConsumer``."""
        self.wire.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self.wire.unregisterProducer()

    def getPeer(self) -> Any:
        """See ``ITransport``."""
        return self.wire.getPeer()

    def getHost(self) -> Any:
        """See ``ITransport``."""
        return self.wire.getHost()


@cache
def _declarations(layer: Hashable, wire: Hashable) -> list[object]:
    """Keep what ``startTLS`` declares of each TLS protocol.

    zope.interface holds declarations weakly, and making them again takes long.
    """
    zope: Any = declarations
    return [zope.Provides(layer, interface) for interface in zope.implementedBy(wire)]


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
