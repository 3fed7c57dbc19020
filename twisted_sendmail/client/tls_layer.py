"""TLS between a transport and the client: one layer of Twisted's, whatever the transport.

Not the transport's own ``startTLS``: that holds each write back for a turn of the
reactor, to gather small ones.  The client writes a whole flight at once and has
nothing to gather.  Proxies, pairs in memory and other wrapped endpoints have
transports that cannot start TLS at all; here they are like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
    from twisted.python.failure import Failure


@implementer(IHandshakeListener)
class _Inside(Protocol):
    """What the TLS protocol wraps: hands everything on to the client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def connectionMade(self) -> None:
        self._client.transport = self.transport

    def handshakeCompleted(self) -> None:
        self._client.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        self._client.decrypted(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._client.connection_ended(reason)


def start_tls(
    client: Any, creator: IOpenSSLClientConnectionCreator, clock: IReactorTime
) -> TLSMemoryBIOProtocol:
    """Start TLS as a client on ``client.transport``.

    :param client: a protocol with ``handshakeCompleted()``, ``decrypted(data)`` and
        ``connection_ended(reason)``.
    :returns: the layer that now wants ciphertext and the end of the connection.
    """
    factory = TLSMemoryBIOFactory(
        creator, True, Factory.forProtocol(lambda: _Inside(client)), clock=clock
    )
    factory.noisy = False
    # Not the factory's default, which buffers.
    factory.protocol = TLSMemoryBIOProtocol
    layer = factory.buildProtocol(None)
    layer.makeConnection(client.transport)
    return layer
