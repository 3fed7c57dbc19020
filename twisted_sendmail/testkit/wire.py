"""Two transports in memory and the pump between them, on a clock that is wound by hand.

They behave as Twisted's TCP transports do: reading can be paused, producers are
paused when too much waits, TLS can be started, closing waits for what was written.
Nothing moves unless the pump is run, so every test sees the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ISSLTransport,
    ITLSTransport,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Octets that may wait before a producer is paused, as in TCP's transport.
FULL = 64 * 1024
#: Octets of one delivery at the most.
SEGMENT = 64 * 1024


@implementer(ITransport, IConsumer)
class _Raw:
    """What a TLS layer writes to: the transport below itself."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._transport.send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self._transport.send(b"".join(data))

    def loseConnection(self) -> None:
        self._transport.finish()

    def abortConnection(self) -> None:
        self._transport.drop()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 - Twisted's
        self._transport.attach(producer)

    def unregisterProducer(self) -> None:
        self._transport.attach(None)


@implementer(ITLSTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a connection.

    :param clock: for the TLS layer.
    :param is_client: which side of a handshake it takes.
    """

    def __init__(
        self, clock: Clock, here: IPv4Address, there: IPv4Address, *, is_client: bool
    ) -> None:
        self._clock = clock
        self._here, self._there = here, there
        self._is_client = is_client
        self._tls: Any = None
        self._producer: Any = None
        self._paused = False
        self.protocol: Any = None
        #: What waits to be delivered to the other end.
        self.out = bytearray()
        self.reading = True
        self.closing = self.aborted = self.gone = False
        #: All that was sent from here, as it was on the wire.
        self.sent = bytearray()

    # -- for the protocol -----------------------------------------------------

    def write(self, data: bytes) -> None:
        """As a transport."""
        if self._tls is not None:
            self._tls.write(data)
        else:
            self.send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """As a transport."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """As a transport."""
        (self.finish if self._tls is None else self._tls.loseConnection)()

    def abortConnection(self) -> None:
        """As a transport."""
        (self.drop if self._tls is None else self._tls.abortConnection)()

    def getPeer(self) -> IPv4Address:
        """As a transport."""
        return self._there

    def getHost(self) -> IPv4Address:
        """As a transport."""
        return self._here

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 - Twisted's
        """As a consumer; push producers only."""
        if self._tls is not None:
            self._tls.registerProducer(producer, streaming)
        else:
            self.attach(producer)

    def unregisterProducer(self) -> None:
        """As a consumer."""
        if self._tls is not None:
            self._tls.unregisterProducer()
        else:
            self.attach(None)

    def pauseProducing(self) -> None:
        """Deliver nothing to the protocol here."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Go on."""
        self.reading = True

    def stopProducing(self) -> None:
        """As a producer."""
        self.loseConnection()

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:  # noqa: FBT001, FBT002, N803 - Twisted's
        """As Twisted's TCP transport does it."""
        producer = self._producer
        if producer is not None:
            self.attach(None)
        factory: Any = TLSMemoryBIOFactory(
            contextFactory,
            self._is_client == normal,
            None,  # type: ignore[arg-type]  # as Twisted itself calls it
            clock=self._clock,
        )
        self._tls = factory.protocol(factory, self.protocol, False)
        self.protocol = self._tls
        directlyProvides(self, ISSLTransport)
        self._tls.makeConnection(_Raw(self))
        if producer is not None:
            self.registerProducer(producer, True)

    def getHandle(self) -> Any:  # noqa: N802 - Twisted's
        """The TLS connection, once there is one."""
        return self._tls.getHandle() if self._tls is not None else None

    def getPeerCertificate(self) -> Any:
        """The peer's, once there is TLS."""
        return self._tls.getPeerCertificate() if self._tls is not None else None

    def loseWriteConnection(self) -> None:  # noqa: N802 - Twisted's
        """As a TCP transport; there is no half-closed connection here."""
        self.loseConnection()

    def getTcpNoDelay(self) -> bool:  # noqa: N802 - Twisted's
        """As a TCP transport."""
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001, N802 - Twisted's
        """As a TCP transport."""

    def getTcpKeepAlive(self) -> bool:  # noqa: N802 - Twisted's
        """As a TCP transport."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001, N802 - Twisted's
        """As a TCP transport."""

    # -- below TLS ------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Put *data* on the wire."""
        if self.gone or self.aborted:
            return
        self.out += data
        self.sent += data
        if self._producer is not None and len(self.out) > FULL and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def finish(self) -> None:
        """Close when all is delivered and no producer is left."""
        self.closing = True

    def drop(self) -> None:
        """Close at once."""
        if not self.gone:
            self.aborted = self.closing = True
            self.out.clear()

    def attach(self, producer: Any) -> None:
        """Take a push producer, or let it go."""
        self._producer, self._paused = producer, False
        if producer is not None and self.gone:
            producer.stopProducing()

    # -- for the pump ---------------------------------------------------------

    @property
    def done(self) -> bool:
        """Is it to be closed now?"""
        return self.closing and not (self.gone or self.out or self._paused)

    def take(self) -> bytes:
        """Take off what goes in one delivery."""
        data = bytes(self.out[:SEGMENT])
        del self.out[: len(data)]
        return data

    def drained(self) -> None:
        """The other end has taken it."""
        if not self.out and self._paused and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

    def lose(self, reason: Exception) -> None:
        """The connection is gone."""
        if self.gone:
            return
        self.gone = True
        self.out.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class Link:
    """A client and a server protocol, joined.

    :param clock: the one both use.
    """

    def __init__(self, clock: Clock, client: Any, server: Any, number: int = 0) -> None:
        here = IPv4Address("TCP", "192.0.2.2", 40000 + number)
        there = IPv4Address("TCP", "192.0.2.1", 587)
        self.client = MemoryTransport(clock, here, there, is_client=True)
        self.server = MemoryTransport(clock, there, here, is_client=False)
        self.client.protocol, self.server.protocol = client, server
        server.makeConnection(self.server)
        client.makeConnection(self.client)

    def turn(self) -> bool:
        """Deliver what is under way; True when anything was."""
        moved = self._deliver(self.server, self.client)
        moved |= self._deliver(self.client, self.server)
        for end, other in ((self.client, self.server), (self.server, self.client)):
            if end.aborted and not end.gone:
                end.lose(ConnectionAborted())
                other.lose(ConnectionLost())
                moved = True
            elif end.done:
                end.lose(ConnectionDone())
                other.lose(ConnectionDone())
                moved = True
        return moved

    def _deliver(self, start: MemoryTransport, to: MemoryTransport) -> bool:
        if not start.out or not to.reading or to.gone:
            return False
        data = start.take()
        if not to.aborted:
            to.protocol.dataReceived(data)
        start.drained()
        return True


class Pump:
    """All links, and the clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.links: list[Link] = []

    def connect(self, client: Any, server: Any) -> Link:
        """Join two protocols."""
        link = Link(self.clock, client, server, len(self.links))
        self.links.append(link)
        return link

    def run(self, turns: int = 1_000_000) -> None:
        """Move everything until nothing moves any more, without letting time pass."""
        for _ in range(turns):
            moved = self._due()
            for link in self.links[:]:
                moved |= link.turn()
            if not moved:
                return
        msg = "the conversation never comes to rest"
        raise AssertionError(msg)

    def advance(self, seconds: float) -> None:
        """Let time pass, from one due call to the next, moving everything in between."""
        self.run()
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            self.clock.advance(max(0.0, min([*times, end]) - self.clock.seconds()))
            self.run()

    def _due(self) -> bool:
        now = self.clock.seconds()
        if any(call.getTime() <= now for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)
            return True
        return False
