"""TLS on any transport: its own ``startTLS`` where it has one, else a layer of ours.

Proxies, pairs in memory and other wrapped endpoints have transports that cannot start
TLS; Twisted's TLS protocol is put between such a transport and the client.

Either way the client stands on both sides of that protocol: it is given the ciphertext
first, so that it knows when all of a read was decrypted, and then what was in it.
"""

from __future__ import annotations

from contextlib import suppress
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IHandshakeListener, ITLSTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer, providedBy
from zope.interface.declarations import Provides

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
    from twisted.python.failure import Failure


#: By the class of a layer and of what is below it: the declarations that Twisted makes for them.
_DECLARATIONS: dict[tuple[type, type], list[Any]] = {}


@implementer(IHandshakeListener)
class _Inside(Protocol):
    """What the TLS protocol wraps: hands everything on to the client."""

    def __init__(self, client: Any, below: Any) -> None:
        self._client = client
        self._below = below

    def connectionMade(self) -> None:
        self._client.transport = self.transport

    def handshakeCompleted(self) -> None:
        self._client.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        self._client.decrypted(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._client.connection_ended(reason)
        # startTLS has given the transport methods of the layer, which holds the transport.
        for name in ("getHandle", "getPeerCertificate"):
            with suppress(AttributeError):
                delattr(self._below, name)


def start_tls(
    client: Any, creator: IOpenSSLClientConnectionCreator, clock: IReactorTime
) -> TLSMemoryBIOProtocol:
    """Start TLS as a client on ``client.transport``.

    :param client: a protocol with ``handshakeCompleted()``, ``decrypted(data)`` and
        ``connection_ended(reason)``.
    :returns: the layer that now wants ciphertext and the end of the connection.
    """
    transport = client.transport
    inside: Any = _Inside(client, transport)
    layer: Any
    if ITLSTransport.providedBy(client.transport):
        transport.startTLS(creator)
        layer = transport.protocol
        layer.wrappedProtocol = inside
        transport.protocol = client
        inside.makeConnection(layer)
    else:
        factory = TLSMemoryBIOFactory(
            creator, True, Factory.forProtocol(lambda: inside), clock=clock
        )
        factory.noisy = False
        layer = factory.buildProtocol(None)
        layer.makeConnection(transport)
    _keep_declarations(layer, transport)
    # Twisted gathers small writes until the reactor's next turn.  The client writes a whole
    # flight at once and has nothing to gather.
    layer.write = MethodType(TLSMemoryBIOProtocol.write, layer)
    return cast("TLSMemoryBIOProtocol", layer)


def _keep_declarations(layer: Any, transport: Any) -> None:
    """Keep what zope.interface has found of such a layer.

    Twisted declares, one after the other, that a layer provides each interface of its
    transport.  zope.interface knows such a declaration again as long as somebody holds it;
    otherwise it is worked out for each connection, which takes longer than encrypting a message.
    """
    kind = type(layer), type(transport)
    if kind in _DECLARATIONS or len(_DECLARATIONS) >= 16:
        return
    each = [Provides(type(layer), interface) for interface in providedBy(layer.transport)]
    _DECLARATIONS[kind] = [*each, providedBy(layer), providedBy(transport)]
