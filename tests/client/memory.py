"""A network in memory: two transports, a pump between them, a clock that is wound by hand.

Bytes move when the pump says so: first all that the server sent, then the calls that
are due, then all that the client wrote.  Whatever the client writes without having
heard anything in between is one flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IProtocol, IStreamClientEndpoint, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_sendmail.client import connection
from twisted_sendmail.client.socket_state import SocketState

#: Where TCP's transport pauses its producer.
FULL = 64 * 1024
#: What one read from a socket gives at the most.
SEGMENT = 64 * 1024


@implementer(ITransport, IConsumer)
class MemoryTransport:
    """One end of a connection; behaves as Twisted's TCP transport does."""

    def __init__(self, here: IPv4Address, there: IPv4Address) -> None:
        self._here, self._there = here, there
        self.protocol: Any = None
        #: The other end.
        self.peer: MemoryTransport | None = None
        self.out: deque[bytes] = deque()
        self.waiting = 0
        #: This end takes what arrives.
        self.reading = True
        self.disconnecting = False
        self.disconnected = False
        #: It was dropped, not closed.
        self.aborted = False
        self.resetting = False
        self._producer: Any = None
        self._paused = False

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if not data or self.disconnected or self.aborted:
            return
        if self.disconnecting and self._producer is None:
            return
        self.out += (data[i : i + SEGMENT] for i in range(0, len(data), SEGMENT))
        self.waiting += len(data)
        if self._producer is not None and self.waiting > FULL and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def reset(self) -> None:
        """Drop the connection, but behind what was written: the RST comes last."""
        self.disconnecting = self.resetting = True

    def abortConnection(self) -> None:
        if not self.disconnected:
            self.aborted = self.disconnecting = True
            self.out.clear()
            self.waiting = 0

    def getPeer(self) -> IPv4Address:
        return self._there

    def getHost(self) -> IPv4Address:
        return self._here

    def pauseProducing(self) -> None:
        """Take no more of what arrives."""
        self.reading = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self._producer is None, "a producer is registered already"
        if self.disconnected:
            producer.stopProducing()
            return
        assert streaming
        self._producer, self._paused = producer, False

    def unregisterProducer(self) -> None:
        self._producer = None

    # -- for the pump

    def take(self) -> bytes:
        """Take what one segment holds."""
        taken = self.out.popleft()
        while self.out and len(taken) + len(self.out[0]) <= SEGMENT:
            taken += self.out.popleft()
        self.waiting -= len(taken)
        return taken

    def drained(self) -> None:
        if not self.out and self._producer is not None and self._paused:
            self._paused = False
            self._producer.resumeProducing()

    def lose(self, reason: Exception) -> None:
        if self.disconnected:
            return
        self.disconnected = True
        self.out.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class Link:
    """One connection: the client's end and the server's end."""

    def __init__(self, client: Any, server: Any) -> None:
        here, there = IPv4Address("TCP", "192.0.2.2", 40000), IPv4Address("TCP", "192.0.2.1", 587)
        self.client = MemoryTransport(here, there)
        self.server = MemoryTransport(there, here)
        self.client.protocol, self.server.protocol = client, server
        self.client.peer = self.server
        #: Deliver every write of the server by itself, not all that waits as one segment.
        self.apart = False
        #: Client flights; the server's decoder adds the commands it finds in each.
        self.flights: list[list[str]] = []
        self._heard = True
        #: All that the client wrote, as it was on the wire.
        self.wire = bytearray()
        self.keep_wire = True
        server.link = self

    @property
    def over(self) -> bool:
        return self.client.disconnected and self.server.disconnected

    def to_client(self) -> bool:
        """Deliver one segment to the client."""
        if not self.server.out or self.client.disconnected or not self.client.reading:
            return False
        if self.client.aborted:
            self.server.out.clear()
            return False
        if self.apart:
            data = self.server.out.popleft()
            self.server.waiting -= len(data)
        else:
            data = self.server.take()
        self._heard = True
        self.client.protocol.dataReceived(data)
        self.server.drained()
        return True

    def to_server(self) -> bool:
        """Deliver one segment to the server."""
        if not self.client.out or self.server.disconnected or not self.server.reading:
            return False
        if self._heard:
            self.flights.append([])
            self._heard = False
        data = self.client.take()
        if self.keep_wire:
            self.wire += data
        self.server.protocol.dataReceived(data)
        self.client.drained()
        return True

    def closings(self) -> bool:
        moved = False
        for end, other in ((self.client, self.server), (self.server, self.client)):
            if end.aborted and not end.disconnected:
                end.lose(ConnectionAborted())
                other.lose(ConnectionLost())
                moved = True
            elif end.disconnecting and not end.disconnected and not end.out and not end._producer:
                end.lose(ConnectionDone())
                other.lose(ConnectionLost() if end.resetting else ConnectionDone())
                moved = True
        return moved


class Asked(SocketState):
    """What a reactor's own transport can be asked, asked of one in memory."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self._end = transport

    def silent(self) -> bool:
        end = self._end
        if not isinstance(end, MemoryTransport) or end.peer is None or end.disconnected:
            return False
        return not end.peer.out and not end.peer.disconnecting and not end.peer.aborted


@contextmanager
def asked(on: bool) -> Iterator[None]:
    """Let clients know, if *on*, whether anything is on its way to them."""
    before = SocketState
    vars(connection)["SocketState"] = Asked if on else before
    try:
        yield
    finally:
        vars(connection)["SocketState"] = before


class Pump:
    """All links and the clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.links: list[Link] = []

    def connect(self, client: Any, server: Any) -> Link:
        link = Link(client, server)
        self.links.append(link)
        server.makeConnection(link.server)
        client.makeConnection(link.client)
        return link

    def turn(self) -> bool:
        """Move everything once; True if anything moved."""
        moved = False
        for link in self.links[:]:
            while link.to_client():
                moved = True
            # A FIN comes along with the last segment.
            moved |= link.closings()
        moved |= self.due()
        for link in self.links[:]:
            # One segment: what the server says to it is heard before the next.
            moved |= link.to_server()
            moved |= link.closings()
        return moved

    def due(self) -> bool:
        """Run the calls that are due now."""
        calls = self.clock.getDelayedCalls()
        if any(call.getTime() <= self.clock.seconds() for call in calls):
            self.clock.advance(0)
            return True
        return False

    def run(self, turns: int = 100_000) -> None:
        """Turn until nothing moves any more."""
        for _ in range(turns):
            if not self.turn():
                return
        raise AssertionError("the conversation never comes to rest")

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps between which everything moves."""
        self.run()
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            times = [c.getTime() for c in self.clock.getDelayedCalls()]
            self.clock.advance(max(0.0, min([*times, end]) - self.clock.seconds()))
            self.run()


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to the servers given, one after the other.

    A server may be an exception, which the connection then fails with, a Deferred
    that is handed out as it is, or a callable that makes a server.
    """

    def __init__(self, pump: Pump, *servers: Any) -> None:
        self.pump = pump
        self._servers = deque(servers)
        #: How often somebody connected.
        self.attempts = 0
        self.links: list[Link] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts += 1
        server = self._servers.popleft() if len(self._servers) > 1 else self._servers[0]
        if isinstance(server, Deferred):
            return server
        if isinstance(server, Exception):
            failed: Deferred[Any] = Deferred()
            failed.errback(Failure(server))
            return failed
        if not IProtocol.providedBy(server) and isinstance(server, Callable):  # type: ignore[arg-type]
            server = server()
        client = factory.buildProtocol(None)
        self.links.append(self.pump.connect(client, server))
        return succeed(client)


class Result:
    """What a Deferred fired with; it may fire once only."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.fired = 0
        self.value: Any = None
        self.error: Any = None
        self.deferred = deferred
        _ = deferred.addCallbacks(self._yes, self._no)

    def _yes(self, value: Any) -> None:
        self.fired += 1
        self.value = value

    def _no(self, failure: Failure) -> None:
        self.fired += 1
        self.error = failure.value

    @property
    def report(self) -> Any:
        """The report of the error; it has to be there."""
        assert self.error.report is not None
        return self.error.report

    def get(self) -> Any:
        """Return the value; it has to be there."""
        assert self.fired == 1, f"fired {self.fired} times"
        if self.error is not None:
            raise self.error
        return self.value
