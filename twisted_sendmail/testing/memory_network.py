"""A network in memory: pairs of transports, and a clock that the test advances.

The transports behave as Twisted's TCP transports do: reading can be paused, a producer is paused
while too much is unsent, TLS can be started, and closing waits until everything is sent. Octets
are delivered only by :meth:`MemoryNetwork.run`, always in this order: first everything that the
servers sent, then the delayed calls that are due, then one segment of each client.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    IStreamClientEndpoint,
    ITLSTransport,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IProtocolFactory

#: Unsent octets above which a producer is paused, as in Twisted's TCP transport.
FULL = 64 * 1024
#: Most octets of one delivery.
SEGMENT = 64 * 1024

_TCPAddress = IPv4Address | IPv6Address


class MemoryNetwork:
    """The connections of a test, and their clock."""

    def __init__(self) -> None:
        #: To be given as the reactor.
        self.clock = Clock()
        #: Every connection, closed ones too.
        self.links: list[MemoryConnection] = []

    def connect(
        self, client: Any, server: Any, *, bare: bool = False, address: _TCPAddress | None = None
    ) -> MemoryConnection:
        """Connect two protocols.

        :param bare: the client's transport cannot start TLS.
        :param address: the client's address; None: an address of its own at 192.0.2.2.
        """
        if address is None:
            address = IPv4Address("TCP", "192.0.2.2", 40000 + len(self.links))
        link = MemoryConnection(self.clock, client, server, address, bare=bare)
        self.links.append(link)
        return link

    def turn(self) -> bool:
        """Deliver once in each direction; return True if anything happened."""
        moved = False
        for link in self.links[:]:
            while link.to_client():
                moved = True
            # A closed connection ends together with the delivery of its last segment.
            moved |= link.close()
        moved |= self._due()
        for link in self.links[:]:
            # One segment only: the client receives the reply to it before the next is delivered.
            moved |= link.to_server()
            moved |= link.close()
        return moved

    def run(self, turns: int = 1_000_000) -> None:
        """Deliver until nothing is left to deliver, without letting time pass.

        :raises AssertionError: after so many turns.
        """
        for _ in range(turns):
            if not self.turn():
                return
        raise AssertionError(f"still something to deliver after {turns:,} turns")

    def advance(self, seconds: float) -> None:
        """Let time pass, from one delayed call to the next, and deliver after each."""
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


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to one server after the other, and always to the last one from then on.

    :param network: where the connections are made.
    :param servers: each a protocol, a protocol factory, a callable that returns a protocol, an
        exception with which the connection fails, or a Deferred that is returned as it is.
    :param bare: the client's transports cannot start TLS.
    """

    def __init__(self, network: MemoryNetwork, *servers: Any, bare: bool = False) -> None:
        self._network = network
        self._bare = bare
        #: The servers of the next connections.
        self.servers = deque(servers)
        #: How often ``connect`` was called.
        self.attempts = 0
        #: Every connection, closed ones too.
        self.links: list[MemoryConnection] = []

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect the factory's protocol to the next server."""
        self.attempts += 1
        server = self.servers.popleft() if len(self.servers) > 1 else self.servers[0]
        if isinstance(server, Deferred):
            return server
        if isinstance(server, Exception):
            return fail(server)
        address: Any = None
        if hasattr(server, "buildProtocol"):
            server = server.buildProtocol(address)
        elif not IProtocol.providedBy(server):
            server = server()
        client: Any = factory.buildProtocol(address)
        self.links.append(self._network.connect(client, server, bare=self._bare))
        return succeed(client)


class MemoryConnection:
    """A connection between a client and a server protocol.

    :param clock: for both.
    :param here: the client's address.
    :param bare: the client's transport cannot start TLS.
    """

    def __init__(
        self, clock: Clock, client: Any, server: Any, here: _TCPAddress, *, bare: bool = False
    ) -> None:
        there = IPv4Address("TCP", "192.0.2.1", 587)
        self.client = MemoryTransport(clock, here, there, is_client=True)
        self.server = MemoryTransport(clock, there, here, is_client=False)
        self.client.protocol, self.server.protocol = client, server
        self.client.link = self.server.link = self
        #: Deliver each write of the server by itself instead of joining writes to segments.
        self.apart = False
        #: Round trips: all octets that the client writes before it receives any are one flight.
        self.flights = 0
        self._answered = True
        server.makeConnection(self.server)
        client.makeConnection(BareTransport(self.client) if bare else self.client)

    @property
    def over(self) -> bool:
        """True when both ends have lost the connection."""
        return self.client.disconnected and self.server.disconnected

    def to_client(self) -> bool:
        """Deliver one segment to the client; return True if there was one."""
        moved = self._deliver(self.server, self.client, apart=self.apart)
        self._answered |= moved
        return moved

    def to_server(self) -> bool:
        """Deliver one segment to the server; return True if there was one."""
        start, to = self.client, self.server
        if self._answered and start.out and to.reading and not to.disconnected:
            self._answered = False
            self.flights += 1
        return self._deliver(start, to)

    def close(self) -> bool:
        """End the connection if one end has closed it; return True if it ended just now."""
        moved = False
        for end, other in ((self.client, self.server), (self.server, self.client)):
            reasons = end.end()
            if reasons is not None:
                end.lose(reasons[0])
                other.lose(reasons[1])
                moved = True
        return moved

    def _deliver(self, start: MemoryTransport, to: MemoryTransport, *, apart: bool = False) -> bool:
        if not start.out or not to.reading or to.disconnected:
            return False
        data = start.take(apart=apart)
        # Twisted's TCP transport reads no more after loseConnection().
        if not to.disconnecting:
            to.protocol.dataReceived(data)
        start.drained()
        return True


@implementer(ITLSTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a connection.

    :param clock: for the TLS layer.
    :param is_client: the side it takes in a TLS handshake.
    """

    def __init__(
        self, clock: Clock, here: _TCPAddress, there: _TCPAddress, *, is_client: bool
    ) -> None:
        self._clock = clock
        self._here, self._there = here, there
        self._is_client = is_client
        self._tls: Any = None
        self._producer: Any = None
        self._paused = False
        self.protocol: Any = None
        #: The connection that this is one end of.
        self.link: MemoryConnection | None = None
        #: The writes that are not delivered yet.
        self.out: deque[bytes] = deque()
        #: Octets in ``out``.
        self.waiting = 0
        #: False while the protocol has paused reading.
        self.reading = True
        #: ``loseConnection`` or ``abortConnection`` was called.
        self.disconnecting = False
        #: ``abortConnection`` was called.
        self.aborted = False
        #: The connection is over.
        self.disconnected = False
        #: All octets that were delivered from here, as they were on the wire, while ``keeps`` is true.
        self.sent = bytearray()
        self.keeps = True
        self._resetting = False

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

    def getPeer(self) -> _TCPAddress:
        """As a transport."""
        return self._there

    def getHost(self) -> _TCPAddress:
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
        """Pause reading."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Resume reading."""
        self.reading = True

    def stopProducing(self) -> None:
        """As a producer."""
        self.loseConnection()

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:  # noqa: FBT001, FBT002, N803 - Twisted's
        """As Twisted's TCP transport."""
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
        self._tls.makeConnection(BareTransport(self))
        if producer is not None:
            self.registerProducer(producer, True)

    def getHandle(self) -> Any:  # noqa: N802 - Twisted's
        """Return the TLS connection, if there is one."""
        return self._tls.getHandle() if self._tls is not None else None

    def getPeerCertificate(self) -> Any:
        """Return the peer's certificate, if there is TLS."""
        return self._tls.getPeerCertificate() if self._tls is not None else None

    def loseWriteConnection(self) -> None:  # noqa: N802 - Twisted's
        """As a TCP transport, but it closes both directions."""
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
        """Send *data*, beneath TLS."""
        if not data or self.disconnected or self.aborted:
            return
        self.out += (data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT))
        self.waiting += len(data)
        if self._producer is not None and self.waiting > FULL and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def finish(self) -> None:
        """Close when everything is delivered and no producer is paused."""
        self.disconnecting = True

    def drop(self) -> None:
        """Close now, and discard what is not delivered."""
        if not self.disconnected:
            self.aborted = self.disconnecting = True
            self.out.clear()
            self.waiting = 0

    def reset(self) -> None:
        """Reset when everything is delivered: the other end gets ``ConnectionLost``."""
        self.disconnecting = self._resetting = True

    def attach(self, producer: Any) -> None:
        """Register a push producer, or None."""
        self._producer, self._paused = producer, False
        if producer is not None and self.disconnected:
            producer.stopProducing()

    # -- for the connection ---------------------------------------------------

    def take(self, *, apart: bool = False) -> bytes:
        """Remove and return the next segment.

        :param apart: at most one write.
        """
        data = self.out.popleft()
        while not apart and self.out and len(data) + len(self.out[0]) <= SEGMENT:
            data += self.out.popleft()
        self.waiting -= len(data)
        if self.keeps:
            self.sent += data
        return data

    def drained(self) -> None:
        """Resume the producer if everything is delivered."""
        if not self.out and self._paused and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

    def end(self) -> tuple[Exception, Exception] | None:
        """Return the reasons for this end and for the other if this end closes the connection now."""
        if self.disconnected:
            return None
        if self.aborted:
            return ConnectionAborted(), ConnectionLost()
        if self.disconnecting and not (self.out or self._paused):
            return ConnectionDone(), ConnectionLost() if self._resetting else ConnectionDone()
        return None

    def lose(self, reason: Exception) -> None:
        """Lose the connection."""
        if self.disconnected:
            return
        self.disconnected = True
        self.out.clear()
        self.waiting = 0
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


@implementer(ITransport, IConsumer)
class BareTransport:
    """A transport that cannot start TLS, like that of a proxy; also the one beneath the TLS layer.

    :param transport: the transport to write to.
    """

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As a transport."""
        self._transport.send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """As a transport."""
        self._transport.send(b"".join(data))

    def loseConnection(self) -> None:
        """As a transport."""
        self._transport.finish()

    def abortConnection(self) -> None:
        """As a transport."""
        self._transport.drop()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 - Twisted's
        """As a consumer."""
        self._transport.attach(producer)

    def unregisterProducer(self) -> None:
        """As a consumer."""
        self._transport.attach(None)
