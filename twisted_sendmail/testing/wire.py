"""A network in memory: transports in pairs, and a clock that the test advances.

The transports behave as Twisted's TCP transports do: reading can be paused, a producer is
paused when too much waits, TLS can be started, and closing waits for what was written.
Nothing moves unless :meth:`MemoryNetwork.run` is called, so every test sees the same order:
first all that the servers sent, then the calls that are due, then one segment of each client.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
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

#: Octets that may wait before a producer is paused, as in TCP's transport.
FULL = 64 * 1024
#: Octets of one delivery at the most.
SEGMENT = 64 * 1024


@implementer(ITransport, IConsumer)
class BareTransport:
    """A memory transport that cannot start TLS, as those of proxies and other wrapped endpoints.

    :param transport: the one that it stands for.
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
        #: The connection of which this is one end.
        self.link: MemoryConnection | None = None
        #: What waits to be delivered to the other end, a piece for each write.
        self.out: deque[bytes] = deque()
        #: Octets in ``out``.
        self.waiting = 0
        #: False while the protocol has paused what is delivered to it.
        self.reading = True
        #: ``loseConnection`` or ``abortConnection`` was called.
        self.disconnecting = False
        #: ``abortConnection`` was called.
        self.aborted = False
        #: The connection is over.
        self.disconnected = False
        #: All that was delivered from here, as it was on the wire, while ``keeps`` is true.
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
        self._tls.makeConnection(BareTransport(self))
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
        if not data or self.disconnected or self.aborted:
            return
        self.out += (data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT))
        self.waiting += len(data)
        if self._producer is not None and self.waiting > FULL and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def finish(self) -> None:
        """Close after all is delivered and no producer is paused."""
        self.disconnecting = True

    def drop(self) -> None:
        """Close at once, and discard what was written and not delivered."""
        if not self.disconnected:
            self.aborted = self.disconnecting = True
            self.out.clear()
            self.waiting = 0

    def reset(self) -> None:
        """Close after all is delivered, by a reset: the other end sees ``ConnectionLost``."""
        self.disconnecting = self._resetting = True

    def attach(self, producer: Any) -> None:
        """Take a push producer, or let it go."""
        self._producer, self._paused = producer, False
        if producer is not None and self.disconnected:
            producer.stopProducing()

    # -- for the connection ---------------------------------------------------

    def take(self, *, apart: bool = False) -> bytes:
        """Remove and return the next segment.

        :param apart: no more than one write.
        """
        data = self.out.popleft()
        while not apart and self.out and len(data) + len(self.out[0]) <= SEGMENT:
            data += self.out.popleft()
        self.waiting -= len(data)
        if self.keeps:
            self.sent += data
        return data

    def drained(self) -> None:
        """The other end has taken a segment."""
        if not self.out and self._paused and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

    def end(self) -> tuple[Exception, Exception] | None:
        """Why this end closes the connection now, and what the other end sees; or None."""
        if self.disconnected:
            return None
        if self.aborted:
            return ConnectionAborted(), ConnectionLost()
        if self.disconnecting and not (self.out or self._paused):
            return ConnectionDone(), ConnectionLost() if self._resetting else ConnectionDone()
        return None

    def lose(self, reason: Exception) -> None:
        """The connection is gone."""
        if self.disconnected:
            return
        self.disconnected = True
        self.out.clear()
        self.waiting = 0
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class MemoryConnection:
    """A client and a server protocol, joined.

    :param clock: the one both use.
    :param number: of the client's port, counted from 40000.
    :param bare: the client's transport cannot start TLS.
    """

    def __init__(
        self, clock: Clock, client: Any, server: Any, number: int = 0, *, bare: bool = False
    ) -> None:
        here = IPv4Address("TCP", "192.0.2.2", 40000 + number)
        there = IPv4Address("TCP", "192.0.2.1", 587)
        self.client = MemoryTransport(clock, here, there, is_client=True)
        self.server = MemoryTransport(clock, there, here, is_client=False)
        self.client.protocol, self.server.protocol = client, server
        self.client.link = self.server.link = self
        #: Deliver each write of the server by itself, not all that waits as one segment.
        self.apart = False
        #: The client's flights that were delivered.  What a client writes before something
        #: is delivered to it belongs to one flight.
        self.flights = 0
        self._answered = True
        server.makeConnection(self.server)
        client.makeConnection(BareTransport(self.client) if bare else self.client)

    @property
    def over(self) -> bool:
        """Both ends have seen the end of the connection."""
        return self.client.disconnected and self.server.disconnected

    def to_client(self) -> bool:
        """Deliver one segment to the client; True when there was one."""
        moved = self._deliver(self.server, self.client, apart=self.apart)
        self._answered |= moved
        return moved

    def to_server(self) -> bool:
        """Deliver one segment to the server; True when there was one."""
        start, to = self.client, self.server
        if self._answered and start.out and to.reading and not to.disconnected:
            self._answered = False
            self.flights += 1
        return self._deliver(start, to)

    def close(self) -> bool:
        """End the connection if one end has closed it; True when it ended just now."""
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
        if not to.disconnecting:  # as TCP's transport, which reads no more from then on
            to.protocol.dataReceived(data)
        start.drained()
        return True


class MemoryNetwork:
    """All connections of a test, and the clock."""

    def __init__(self) -> None:
        #: What to give as reactor.
        self.clock = Clock()
        #: Every connection that was made.
        self.links: list[MemoryConnection] = []

    def connect(self, client: Any, server: Any, *, bare: bool = False) -> MemoryConnection:
        """Join two protocols.

        :param bare: the client's transport cannot start TLS.
        """
        link = MemoryConnection(self.clock, client, server, len(self.links), bare=bare)
        self.links.append(link)
        return link

    def turn(self) -> bool:
        """Move everything once; True when anything moved."""
        moved = False
        for link in self.links[:]:
            while link.to_client():
                moved = True
            # The end of a connection comes along with its last segment.
            moved |= link.close()
        moved |= self._due()
        for link in self.links[:]:
            # One segment: the client receives the answer to it before the next is delivered.
            moved |= link.to_server()
            moved |= link.close()
        return moved

    def run(self, turns: int = 1_000_000) -> None:
        """Move everything until nothing moves any more, without letting time pass.

        :raises AssertionError: after so many turns.
        """
        for _ in range(turns):
            if not self.turn():
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


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to the servers given, one after the other, and to the last one for good.

    :param network: where the connections are made.
    :param servers: each a protocol, a protocol factory, a callable that returns a protocol, an
        exception with which the connection fails, or a Deferred that is returned as it is.
    :param bare: the client's transports cannot start TLS.
    """

    def __init__(self, network: MemoryNetwork, *servers: Any, bare: bool = False) -> None:
        self._network = network
        self._bare = bare
        #: Those still to come; the first one is the next.
        self.servers = deque(servers)
        #: How often ``connect`` was called.
        self.attempts = 0
        #: Every connection that was made.
        self.links: list[MemoryConnection] = []

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Join the factory's protocol and the next server."""
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
