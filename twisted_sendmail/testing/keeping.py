"""What every server of the kit has: an authority, a certificate, what it has seen.

``loopback`` gives it ports, ``memory`` an endpoint, ``background`` a thread.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_sendmail.server import HashedAccounts, ServerTimeouts, ServerTLS, SMTPServerProtocol
from twisted_sendmail.smtp import InvalidServer, ServerSettings
from twisted_sendmail.testing.anyone import Anyone
from twisted_sendmail.testing.authority import Authority
from twisted_sendmail.testing.faults import FaultPlan
from twisted_sendmail.testing.faulty import FaultyFactory
from twisted_sendmail.testing.mailbox import ReceivedMessage, RecordingReceiver, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from twisted_sendmail.server import Accounts, ConnectionInfo, Receiver
    from twisted_sendmail.testing.faults import Fault

#: Seconds; short, so that a test that hangs says so.
DEADLINES = ServerTimeouts(
    handshake=10, command=30, content=30, reading=30, closing=5, failed_login=0
)


class _Factory(FaultyFactory):
    """Tells the server of each session."""

    server: KeepingServer

    def opened(self, protocol: SMTPServerProtocol) -> None:
        super().opened(protocol)
        self.server.session_opened(protocol)

    def closed(self, protocol: SMTPServerProtocol) -> None:
        super().closed(protocol)
        self.server.session_closed(protocol)


class KeepingServer:
    """A submission server that keeps what it is sent.

    :param clock: for deadlines.
    :param users: user name to password; with users, MAIL needs AUTH, and TLS if it is offered.
    :param tls: offer STARTTLS and implicit TLS.
    :param lenient: demand neither TLS nor AUTH, take AUTH in clear too, and any user with any
        password if no *users* are given.  None: lenient unless *users* are given.
    :param faults: what goes wrong, see :mod:`~twisted_sendmail.testing.faults`.
    :param settings: changes to the server's settings; those of ``starttls``, ``require_tls``,
        ``mechanisms``, ``require_auth`` and ``clear_auth`` that are None follow from the above.
    :raises InvalidServer: when started, if *settings* contradict the other parameters.
    :param receiver: takes the mail instead, called with the connection;
        :attr:`messages` then stays empty.
    :param authority: signs the certificate; its own unless given.
    """

    def __init__(
        self,
        clock: Any,
        *,
        users: Mapping[str, str] | None = None,
        tls: bool = True,
        lenient: bool | None = None,
        faults: Iterable[Fault] = (),
        settings: ServerSettings | None = None,
        receiver: Callable[[ConnectionInfo], Receiver] | None = None,
        authority: Authority | None = None,
        deadlines: ServerTimeouts = DEADLINES,
    ) -> None:
        self._clock = clock
        self._users = None if users is None else dict(users)
        self._tls = tls
        self._lenient = users is None if lenient is None else lenient
        self._settings = _fitting(
            settings or ServerSettings(), tls=tls, users=users is not None, lenient=lenient
        )
        self._plan = FaultPlan(faults)
        self._receiver = receiver
        self._deadlines = deadlines
        self.authority = authority or Authority()
        #: What was received, in order of arrival.
        self.messages: list[ReceivedMessage] = []
        #: Who connected, in order.
        self.sessions: list[SessionRecord] = []
        self._records: dict[SMTPServerProtocol, SessionRecord] = {}
        self._closing: dict[SMTPServerProtocol, Deferred[None]] = {}
        self._directory: Path | None = None
        self._waiting: list[tuple[int, Deferred[list[ReceivedMessage]]]] = []

    @property
    def ca_file(self) -> str:
        """The path of the CA certificate the client has to trust."""
        return str(self._path("ca.pem"))

    def clear(self) -> None:
        """Forget messages and sessions."""
        self.messages.clear()
        self.sessions.clear()

    def wait_for(self, count: int, timeout: float = 10) -> Deferred[list[ReceivedMessage]]:
        """All messages, as soon as there are *count* of them.

        :raises twisted.internet.defer.TimeoutError: after *timeout* seconds.
        """
        waiting: Deferred[list[ReceivedMessage]] = Deferred()
        if len(self.messages) >= count:
            waiting.callback(list(self.messages))
            return waiting
        self._waiting.append((count, waiting))
        return waiting.addTimeout(timeout, self._clock)

    # -- for those who inherit ------------------------------------------------

    def _open(self) -> tuple[_Factory, ServerTLS | None]:
        """Make the temporary directory, and the factory."""
        self._directory = Path(tempfile.mkdtemp(prefix="twisted_sendmail-"))
        self._path("ca.pem").write_bytes(self.authority.pem)
        certificate = None
        if self._tls:
            self._path("server.pem").touch(0o600)
            self._path("server.pem").write_bytes(self._plan.certificate(self.authority))
            certificate = ServerTLS(self._path("server.pem"))
        accounts = self._accounts()
        factory = _Factory(
            self._clock,
            self._receiver or (lambda connection: RecordingReceiver(connection, self._keep)),
            plan=self._plan,
            tls=certificate,
            accounts=accounts,
            settings=self._settings,
            deadlines=self._deadlines,
            trace=False,
        )
        factory.server = self
        return factory, certificate

    def _accounts(self) -> Accounts | None:
        if self._users is not None:
            return HashedAccounts.of_passwords(self._users)
        offers_auth = self._settings.mechanisms != ()
        return Anyone() if self._lenient and offers_auth else None

    def _path(self, name: str) -> Path:
        if self._directory is None:
            msg = "the server is not running: start it first"
            raise RuntimeError(msg)
        return self._directory / name

    def _drop_all(self) -> list[Deferred[None]]:
        """Drop every connection."""
        gone = []
        for protocol in list(self._records):
            gone.append(waiting := Deferred[None]())
            self._closing[protocol] = waiting
            transport: Any = protocol.transport
            transport.abortConnection()
        return gone

    def _remove_directory(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def _keep(self, message: ReceivedMessage) -> None:
        self.messages.append(message)
        waiting, self._waiting = self._waiting, []
        for count, each in waiting:
            if len(self.messages) >= count:
                if not each.called:
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


def _fitting(
    settings: ServerSettings, *, tls: bool, users: bool, lenient: bool | None
) -> ServerSettings:
    """*settings*, with what they leave open as lenient as the server is."""
    for name in ("require_tls", "require_auth"):
        if lenient and getattr(settings, name):
            raise InvalidServer(
                f"lenient=True with {name}=True", remedy=f"leave {name} out, or lenient"
            )
    if lenient is None:
        lenient = not users
    if lenient:
        settings = replace(
            settings,
            require_tls=settings.require_tls or False,
            require_auth=settings.require_auth or False,
        )
    if (
        settings.clear_auth is None
        and settings.mechanisms != ()
        and not settings.require_tls
        and (lenient or (users and not tls))
    ):
        settings = replace(settings, clear_auth=True)
    return settings
