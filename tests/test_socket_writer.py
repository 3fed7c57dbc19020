"""What client and server write over real sockets: past no wrapper, whole, and in order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from twisted_sendmail import (
    Receiver,
    Reply,
    ServerSettings,
    SMTPServerFactory,
    TLSPolicy,
    sendmail,
)
from twisted_sendmail.server import SMTPServerProtocol
from twisted_sendmail.testing import ReceivedMessage, RecordingReceiver

Factory.noisy = False


class Scrambled(ProtocolWrapper):
    """Writes and reads every octet with its bits inverted."""

    def write(self, data: bytes) -> None:
        wrapped: Any = super()
        wrapped.write(bytes(255 - octet for octet in data))

    def dataReceived(self, data: bytes) -> None:
        wrapped: Any = super()
        wrapped.dataReceived(bytes(255 - octet for octet in data))


def scrambling(factory: Any) -> Any:
    """Return a factory of the same protocols behind :class:`Scrambled`."""
    wrapping: Any = WrappingFactory
    made = wrapping(factory)
    made.noisy, made.protocol = False, Scrambled
    return made


@implementer(IStreamClientEndpoint)
class ScramblingEndpoint:
    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: Any) -> Any:
        connected: Any = self._endpoint.connect(scrambling(protocolFactory))
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


class Ports:
    """Listens on free ports of the loopback interface."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.ports: list[Any] = []

    def listen(self, factory: Any) -> int:
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.ports.append(port)
        number: int = port.getHost().port
        return number


@pytest.fixture
def ports() -> Iterator[Ports]:
    made = Ports()
    yield made
    for port in made.ports:
        pytest_twisted.blockon(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_a_wrapper_of_the_connection_sees_everything_that_is_written(ports: Ports) -> None:
    messages: list[ReceivedMessage] = []
    server = SMTPServerFactory(
        ports.reactor,
        lambda connection: RecordingReceiver(connection, messages.append),
        settings=ServerSettings(host="mx.example.org", require_tls=False),
    )
    port = ports.listen(scrambling(server))
    report = await sendmail(
        ScramblingEndpoint(TCP4ClientEndpoint(ports.reactor, "127.0.0.1", port)),
        b"Subject: x\r\n\r\nhello\r\n",
        sender="a@example.org",
        recipients=["b@example.net"],
        tls=TLSPolicy.NONE,
        reactor=ports.reactor,
    )
    assert (len(report.accepted), len(messages)) == (1, 1)


REFUSALS = 2000


class Client:
    """A client with small buffers, in the thread of the reactor; it reads when it is told to."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.received = b""

    def connect(self, port: int) -> None:
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)

    def read(self) -> None:
        """Read what has arrived."""
        with suppress(BlockingIOError):
            while data := self.socket.recv(65536):
                self.received += data


class SmallBuffers(SMTPServerProtocol):
    def connectionMade(self) -> None:
        connection: Any = self.transport
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connectionMade()


@pytest_twisted.ensureDeferred
async def test_replies_stay_in_order_if_the_client_reads_before_the_reactor_writes(
    ports: Ports,
) -> None:
    client = Client()

    class Refusing(Receiver):
        """Refuses each recipient in a long reply of its own, while the client reads."""

        def recipient(self, recipient: Any) -> Reply:
            client.read()
            return Reply(550, (f"5.1.1 {recipient} {'x' * 300}",))

    settings = ServerSettings(host="mx.example.org", require_tls=False, max_refusals=REFUSALS)
    factory = SMTPServerFactory(ports.reactor, Refusing, settings=settings)
    factory.protocol_class = SmallBuffers
    client.connect(ports.listen(factory))
    lines = [b"RCPT TO:<b%d@example.net>\r\n" % number for number in range(REFUSALS)]
    waiting = b"".join([b"EHLO c.example\r\nMAIL FROM:<a@example.org>\r\n", *lines, b"QUIT\r\n"])
    with client.socket:
        while b"\r\n221 " not in client.received[-80:]:
            with suppress(BlockingIOError):
                waiting = waiting[client.socket.send(waiting) :]
            client.read()
            await deferLater(ports.reactor, 0)
    refusals = [line for line in client.received.split(b"\r\n") if line.startswith(b"550 ")]
    assert [line.split()[2] for line in refusals] == [
        b"b%d@example.net" % number for number in range(REFUSALS)
    ]
