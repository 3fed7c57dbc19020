"""A server in memory, and a scripted client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from twisted_sendmail import ConnectionInfo, HashedAccounts, Receiver, ServerTLS, SMTPServerFactory
from twisted_sendmail.testing import Authority, MemoryNetwork, ReceivedMessage, RecordingReceiver


@implementer(IOpenSSLClientConnectionCreator)
class Trusting:
    """A client that accepts any certificate: it is the server that is tested."""

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)


class Raw(Protocol):
    """Records the octets that it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.gone: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = reason


class Client:
    """One connection to the server."""

    def __init__(
        self, pump: MemoryNetwork, factory: SMTPServerFactory, *, implicit: bool = False
    ) -> None:
        self._pump = pump
        self.raw = Raw()
        address: Any = None
        inner: Any = factory
        if implicit:
            inner = factory.implicit_tls()
        self.link = None
        server: Any = inner.buildProtocol(address)
        self.link = pump.connect(self.raw, server)
        self.server: Any = getattr(server, "wrappedProtocol", server)
        if implicit:
            self.link.client.startTLS(Trusting())
        pump.run()
        self.greeting = self.take()

    def take(self) -> list[str]:
        received, self.raw.received = self.raw.received, b""
        return received.decode().splitlines()

    def send(self, data: str | bytes) -> list[str]:
        """Return the lines of the replies."""
        self.raw.transport.write(data.encode() if isinstance(data, str) else data)  # type: ignore[union-attr]
        self._pump.run()
        return self.take()

    def code(self, command: str) -> str:
        return " ".join(self.send(command + "\r\n")[-1].split()[:2])

    def starttls(self) -> None:
        self.send("EHLO client.example.net\r\n")
        assert self.code("STARTTLS") == "220 2.0.0"
        assert self.link is not None
        self.link.client.startTLS(Trusting())
        self._pump.run()
        self.send("EHLO client.example.net\r\n")

    @property
    def over(self) -> bool:
        return self.raw.gone is not None


class Net:
    """The clock, the messages, and a server made to order."""

    def __init__(self, certificate: ServerTLS) -> None:
        self.pump = MemoryNetwork()
        self.clock = self.pump.clock
        self.certificate = certificate
        self.messages: list[ReceivedMessage] = []
        self.factory: SMTPServerFactory

    def server(
        self, receiver: Callable[[ConnectionInfo], Receiver] | None = None, **options: Any
    ) -> SMTPServerFactory:
        options.setdefault("trace", False)
        self.factory = SMTPServerFactory(
            self.clock,
            receiver or (lambda connection: RecordingReceiver(connection, self.messages.append)),
            **options,
        )
        return self.factory

    def secure(self, **options: Any) -> SMTPServerFactory:
        accounts = HashedAccounts.of_passwords({"jane": "s3cret"})
        return self.server(tls=self.certificate, accounts=accounts, **options)

    def client(self, *, implicit: bool = False) -> Client:
        return Client(self.pump, self.factory, implicit=implicit)

    def contents(self) -> list[bytes]:
        return [message.content for message in self.messages]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(Authority().issue())
    return ServerTLS(path)


@pytest.fixture
def net(certificate: ServerTLS) -> Net:
    return Net(certificate)
