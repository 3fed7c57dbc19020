"""A proxy that cuts connections on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol
from twisted.protocols.portforward import (
    ProxyClient,
    ProxyClientFactory,
    ProxyFactory,
    ProxyServer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IListeningPort


class Cutter:
    """Forwards to *port*, and cuts the connection instead of passing on what *cuts* says.

    :param cuts: told who speaks (`C` or `S`) and all that he said on this connection, what comes
        now included; True drops it, and both ends.
    """

    def __init__(self, reactor: Any, port: int, cuts: Callable[[str, bytes], bool]) -> None:
        self.cuts = cuts
        #: Connections so far.
        self.connections = 0
        factory = _Factory("127.0.0.1", port)
        factory.cutter = self
        self._port: IListeningPort = reactor.listenTCP(0, factory, interface="127.0.0.1")
        address: Any = self._port.getHost()
        self.port: int = address.port

    async def stop(self) -> None:
        """Stop listening."""
        await self._port.stopListening()  # type: ignore[misc]


class _End(Protocol):
    """Either end: what it receives goes to its peer."""

    who: str
    cutter: Cutter
    peer: Any
    received: bytes = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.peer is None:
            return
        if self.cutter.cuts(self.who, self.received):
            for end in (self, self.peer):
                transport: Any = end.transport
                transport.abortConnection()
            return
        self.peer.transport.write(data)


class _ServerEnd(_End, ProxyClient):
    who = "S"


class _ClientFactory(ProxyClientFactory):
    protocol = _ServerEnd
    cutter: Cutter

    def buildProtocol(self, *arguments: Any) -> Any:
        protocol = super().buildProtocol(*arguments)
        protocol.cutter = self.server.cutter  # type: ignore[attr-defined]
        return protocol


class _ClientEnd(_End, ProxyServer):
    who = "C"
    clientProtocolFactory = _ClientFactory  # noqa: N815


class _Factory(ProxyFactory):
    protocol = _ClientEnd
    noisy = False
    cutter: Cutter

    def buildProtocol(self, addr: Any) -> Any:
        self.cutter.connections += 1
        protocol: Any = super().buildProtocol(addr)
        protocol.cutter = self.cutter
        return protocol
