"""A real server on 127.0.0.1, for any client: STARTTLS on one port, implicit TLS on another.

It runs in a reactor you have; :class:`~twisted_sendmail.testkit.background.BackgroundServer`
brings its own, in a thread.  Certificates come from an authority of its own, whose
certificate lies in a private temporary directory.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_sendmail.ingress.accounts import HashedAccounts
from twisted_sendmail.ingress.deadlines import Deadlines
from twisted_sendmail.ingress.factory import SMTPServerFactory
from twisted_sendmail.ingress.tls import ServerTLS
from twisted_sendmail.smtp.server_settings import ServerSettings
from twisted_sendmail.testkit.authority import Authority
from twisted_sendmail.testkit.mailbox import KeepingReceiver, ReceivedMessage, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from twisted_sendmail.ingress.protocol import SMTPServerProtocol
    from twisted_sendmail.ingress.receiver import Connection, Receiver

#: Seconds; short, so that a test that hangs says so.
DEADLINES = Deadlines(handshake=10, command=30, content=30, reading=30, closing=5, failed_login=0)


class _Factory(SMTPServerFactory):
    """Tells the server of each session."""

    server: LoopbackServer

    def opened(self, protocol: SMTPServerProtocol) -> None:
        super().opened(protocol)
        self.server.session_opened(protocol)

    def closed(self, protocol: SMTPServerProtocol) -> None:
        super().closed(protocol)
        self.server.session_closed(protocol)


class LoopbackServer:
    """A submission server that keeps what it is sent.

    Use it as ``async with LoopbackServer(reactor) as server``, or with
    :meth:`start` and :meth:`stop`.

    :param reactor: where to listen and run.
    :param users: user name to password; with users, MAIL needs AUTH.
    :param tls: offer STARTTLS, need it before MAIL, and listen with implicit TLS too.
    :param settings: to replace what follows from these, wholly.
    :param receiver: takes the mail instead, called with the connection;
        :attr:`messages` then stays empty.
    :param authority: signs the certificate; its own unless given.
    :param host: the address to listen on.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        users: Mapping[str, str] | None = None,
        tls: bool = True,
        settings: ServerSettings | None = None,
        receiver: Callable[[Connection], Receiver] | None = None,
        authority: Authority | None = None,
        host: str = "127.0.0.1",
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        self._reactor = reactor
        self._users = dict(users or {})
        self._tls = tls
        self._settings = settings
        self._receiver = receiver
        self._deadlines = deadlines
        self.authority = authority or Authority()
        self.host = host
        #: Where STARTTLS is spoken, once started.
        self.port = 0
        #: Where implicit TLS is spoken, once started; 0 without TLS.
        self.tls_port = 0
        #: What was received, in order of arrival.
        self.messages: list[ReceivedMessage] = []
        #: Who connected, in order.
        self.sessions: list[SessionRecord] = []
        self._records: dict[SMTPServerProtocol, SessionRecord] = {}
        self._closing: dict[SMTPServerProtocol, Deferred[None]] = {}
        self._directory: Path | None = None
        self._ports: list[IListeningPort] = []
        self._waiting: list[tuple[int, Deferred[list[ReceivedMessage]]]] = []

    # -- what a client needs --------------------------------------------------

    @property
    def ca_file(self) -> str:
        """The path of the CA certificate the client has to trust."""
        return str(self._path("ca.pem"))

    @property
    def url(self) -> str:
        """For STARTTLS; in clear when there is no TLS."""
        return f"{'smtp+starttls' if self._tls else 'smtp'}://{self.host}:{self.port}"

    @property
    def tls_url(self) -> str:
        """For implicit TLS."""
        return f"smtps://{self.host}:{self.tls_port}"

    # -- life -----------------------------------------------------------------

    def start(self) -> Deferred[LoopbackServer]:
        """Listen; the result is this server."""
        self._directory = Path(tempfile.mkdtemp(prefix="twisted_sendmail-"))
        self._path("ca.pem").write_bytes(self.authority.pem)
        certificate = None
        if self._tls:
            self._path("server.pem").write_bytes(self.authority.issue())
            self._path("server.pem").chmod(0o600)
            certificate = ServerTLS(self._path("server.pem"))
        factory = self.factory = _Factory(
            self._reactor,
            self._receiver or (lambda connection: KeepingReceiver(connection, self._keep)),
            tls=certificate,
            accounts=HashedAccounts.of_passwords(self._users) if self._users else None,
            settings=self._settings,
            deadlines=self._deadlines,
            trace=False,
        )
        factory.server = self
        self.port = self._listen(factory)
        if certificate is not None:
            self.tls_port = self._listen(
                TLSMemoryBIOFactory(certificate, False, factory, clock=self._reactor)
            )
        return succeed(self)

    def _listen(self, factory: Any) -> int:
        port: IListeningPort = self._reactor.listenTCP(0, factory, interface=self.host)
        self._ports.append(port)
        address: Any = port.getHost()
        return int(address.port)

    def _path(self, name: str) -> Path:
        if self._directory is None:
            msg = "the server is not running: start it first"
            raise RuntimeError(msg)
        return self._directory / name

    async def stop(self) -> None:
        """Stop listening, drop every connection, remove the temporary directory."""
        ports, self._ports = self._ports, []
        await DeferredList([d for port in ports if (d := port.stopListening()) is not None])
        gone = []
        for protocol in list(self._records):
            gone.append(waiting := Deferred[None]())
            self._closing[protocol] = waiting
            transport: Any = protocol.transport
            transport.abortConnection()
        await DeferredList(gone)
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    async def __aenter__(self) -> LoopbackServer:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- what has happened ----------------------------------------------------

    def wait_for(self, count: int, timeout: float = 10) -> Deferred[list[ReceivedMessage]]:
        """All messages, as soon as there are *count* of them.

        :raises twisted.internet.error.TimeoutError: after *timeout* seconds.
        """
        waiting: Deferred[list[ReceivedMessage]] = Deferred()
        if len(self.messages) >= count:
            waiting.callback(list(self.messages))
            return waiting
        self._waiting.append((count, waiting))
        return waiting.addTimeout(timeout, self._reactor)

    def clear(self) -> None:
        """Forget messages and sessions."""
        self.messages.clear()
        self.sessions.clear()

    def _keep(self, message: ReceivedMessage) -> None:
        self.messages.append(message)
        waiting, self._waiting = self._waiting, []
        for count, each in waiting:
            if len(self.messages) >= count and not each.called:
                each.callback(list(self.messages))
            else:
                self._waiting.append((count, each))

    def session_opened(self, protocol: SMTPServerProtocol) -> None:
        """Called by the factory."""
        record = self._records[protocol] = SessionRecord(protocol.connection)
        self.sessions.append(record)

    def session_closed(self, protocol: SMTPServerProtocol) -> None:
        """Called by the factory."""
        self._records.pop(protocol).closed = True
        waiting = self._closing.pop(protocol, None)
        if waiting is not None:
            waiting.callback(None)
