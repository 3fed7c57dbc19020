"""A test server that records: the messages it accepts and the sessions it has.

:class:`RecordingServer` is the base of the servers in memory, on loopback and in a thread. Content
is kept as it was received, without dot-stuffing. Secrets are not kept: dialogues have them masked.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import frozen
from twisted.internet.defer import Deferred

from twisted_sendmail.sasl import ScramKeys
from twisted_sendmail.server import (
    FAILED,
    AuthRefused,
    Avatar,
    HashedAccounts,
    Receiver,
    ServerTimeouts,
    ServerTLS,
)
from twisted_sendmail.smtp import (
    EXTENSIONS,
    InvalidInput,
    InvalidServer,
    MailParameters,
    ServerSettings,
    check_callable,
    check_flag,
    check_texts,
    check_type,
)
from twisted_sendmail.testing.authority import Authority
from twisted_sendmail.testing.faults import FaultPlan, FaultyFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from email.message import EmailMessage

    from twisted_sendmail.server import (
        Accounts,
        ConnectionInfo,
        ReceiverReply,
        SMTPServerProtocol,
        Verdict,
    )
    from twisted_sendmail.smtp import Recipient, ReversePath, TLSFacts
    from twisted_sendmail.testing.faults import Fault

#: Seconds; short, so that a test that hangs fails soon.
TEST_TIMEOUTS = ServerTimeouts(
    handshake=10, command=30, content=30, reading=30, closing=5, failed_login=0
)


@frozen(repr=False)
class ReceivedMessage:
    """One message, as it was received."""

    #: The reverse-path; ``str()`` returns the address, or ``<>``.
    sender: ReversePath
    #: Each with ``path``, ``notify`` and ``orcpt``; ``str()`` returns the address.
    recipients: tuple[Recipient, ...]
    #: The parameters of MAIL: ``size``, ``body``, ``smtputf8``, ``ret`` …
    parameters: MailParameters
    #: The octets.
    content: bytes
    #: The authenticated user; None without AUTH.
    user: str | None
    #: The TLS session; None in clear text.
    tls: TLSFacts | None
    #: The name given in EHLO.
    hello: str | None
    #: The queue id in the 250 reply.
    id: str

    @property
    def email(self) -> EmailMessage:
        """The content, parsed by the standard library."""
        return message_from_bytes(self.content, policy=policy.default)

    def __str__(self) -> str:
        to = ", ".join(map(str, self.recipients))
        return f"{self.id}: {self.sender} to {to}, {len(self.content)} octets"

    def __repr__(self) -> str:
        return f"<ReceivedMessage {self}>"


class SessionRecord:
    """One connection, while it lasts and after."""

    def __init__(self, connection: ConnectionInfo) -> None:
        self._connection = connection
        #: True as soon as the connection is lost.
        self.closed = False

    @property
    def dialogue(self) -> list[str]:
        """``C: EHLO …``, ``S: 250-…`` and ``-- …`` in order, secrets masked."""
        return list(self._connection.transcript)

    @property
    def tls(self) -> TLSFacts | None:
        """The TLS session; None in clear text."""
        return self._connection.tls

    @property
    def user(self) -> str | None:
        """The authenticated user; None without AUTH."""
        return self._connection.user

    @property
    def hello(self) -> str | None:
        """The name given in EHLO."""
        return self._connection.hello

    def __repr__(self) -> str:
        how = self.tls.version if self.tls else "in clear"
        state = "closed" if self.closed else "open"
        return f"<SessionRecord of {self.user or 'nobody'}, {how}, {state}>"


@dataclass
class RecordingReceiver(Receiver):
    """Accepts every message and passes it to *keep* when it is complete."""

    keep: Callable[[ReceivedMessage], None]
    _sender: ReversePath | None = field(default=None, init=False)
    _parameters: MailParameters = field(default_factory=MailParameters, init=False)
    _recipients: list[Recipient] = field(default_factory=list, init=False)
    _content: list[bytes] = field(default_factory=list, init=False)

    def sender(self, sender: ReversePath, parameters: MailParameters) -> ReceiverReply:
        """Accept every sender."""
        self._sender, self._parameters = sender, parameters
        return None

    def recipient(self, recipient: Recipient) -> ReceiverReply:
        """Accept every recipient."""
        self._recipients.append(recipient)
        return None

    def write(self, data: bytes) -> ReceiverReply:
        """Keep a part of the content."""
        self._content.append(data)
        return None

    def commit(self) -> Verdict:
        """Pass the message on."""
        if self._sender is not None:
            connection = self.connection
            self.keep(
                ReceivedMessage(
                    self._sender,
                    tuple(self._recipients),
                    self._parameters,
                    b"".join(self._content),
                    connection.user,
                    connection.tls,
                    connection.hello,
                    self.id,
                )
            )
        return None


class ServerOptions(TypedDict, total=False):
    """The parameters of :class:`RecordingServer` that each of its kinds takes."""

    users: Mapping[str, str] | None
    tokens: Mapping[str, str] | None
    tls: bool
    lenient: bool | None
    faults: Iterable[Fault]
    settings: ServerSettings | None
    receiver: Callable[[ConnectionInfo], Receiver] | None
    authority: Authority | None
    deadlines: ServerTimeouts


class RecordingServer:
    """A submission server that records what it receives.

    :param clock: for timeouts.
    :param users: user name to password; with users, MAIL needs AUTH, and TLS if it is offered.
    :param tokens: user name to bearer token, for XOAUTH2 and OAUTHBEARER; these count as *users*.
    :param tls: offer STARTTLS and implicit TLS.
    :param lenient: require neither TLS nor AUTH, allow AUTH in clear text, and accept any password
        and token of any user if no *users* are given. None: lenient unless *users* are given.
    :param faults: see :mod:`~twisted_sendmail.testing.faults`.
    :param settings: changes to the server's settings; ``starttls``, ``require_tls``,
        ``mechanisms``, ``require_auth`` and ``clear_auth`` follow from the above where they are
        None.  Without this argument the server also offers REQUIRETLS (RFC 8689).
    :param receiver: called with each connection to make the receiver of a message; then
        :attr:`messages` stays empty.
    :param authority: signs the certificate; a new one unless given.
    :param deadlines: the times that a client may take; short ones unless given.
    :raises InvalidInput: an argument is of the wrong type.
    :raises InvalidServer: *settings* contradict *lenient*.
    """

    def __init__(
        self,
        clock: Any,
        *,
        users: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
        tls: bool = True,
        lenient: bool | None = None,
        faults: Iterable[Fault] = (),
        settings: ServerSettings | None = None,
        receiver: Callable[[ConnectionInfo], Receiver] | None = None,
        authority: Authority | None = None,
        deadlines: ServerTimeouts = TEST_TIMEOUTS,
    ) -> None:
        for name, texts, example in (("users", users, "s3cret"), ("tokens", tokens, "t0ken")):
            if texts is not None:
                check_texts(name, texts, f'texts, such as {{"jane": "{example}"}}, or None')
        check_flag("tls", tls)
        if lenient is not None:
            check_flag("lenient", lenient)
        if receiver is not None:
            check_callable(
                "receiver",
                receiver,
                "a subclass of Receiver, or a function that takes a ConnectionInfo",
            )
        for name, value, kind in (
            ("settings", settings, ServerSettings),
            ("authority", authority, Authority),
            ("deadlines", deadlines, ServerTimeouts),
        ):
            if value is not None:
                check_type(name, value, kind, f"a {kind.__name__}, or leave it out")
        self._clock = clock
        self._users = None if users is None else dict(users)
        self._tokens = None if tokens is None else dict(tokens)
        known = users is not None or tokens is not None
        self._tls = tls
        self._lenient = not known if lenient is None else lenient
        self._settings = _complete(
            settings or ServerSettings(extensions=(*EXTENSIONS, "REQUIRETLS")),
            tls=tls,
            users=known,
            lenient=lenient,
        )
        self._plan = FaultPlan(faults)
        self._receiver = receiver or (lambda c: RecordingReceiver(c, self._add_message))
        self._deadlines = deadlines
        self.authority = authority or Authority()
        #: The accepted messages, in order.
        self.messages: list[ReceivedMessage] = []
        #: The connections, in order.
        self.sessions: list[SessionRecord] = []
        self._open_sessions: dict[SMTPServerProtocol, SessionRecord] = {}
        self._closing: dict[SMTPServerProtocol, Deferred[None]] = {}
        self._directory: Path | None = None
        self._waiting: list[tuple[int, Deferred[list[ReceivedMessage]]]] = []

    @property
    def ca_file(self) -> str:
        """The path of the CA certificate that the client has to trust."""
        return str(self._path("ca.pem"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._place}, {len(self.messages)} messages>"

    @property
    def _place(self) -> str:
        return "no port"

    def set_faults(self, *faults: Fault) -> None:
        """Commit these faults from now on, instead of those before; without any, none.

        Open connections have them too, except ``without``, ``close_after`` and ``single_bytes`` as far
        as they were begun.

        :raises InvalidInput: one is no fault, or is one of the certificate, which is chosen at the
            start.
        """
        if any(getattr(each, "certificate", None) is not None for each in faults):
            raise InvalidInput(
                "the certificate cannot be changed while the server runs",
                remedy="give the fault to the server when it is made",
            )
        self._plan.set(faults)

    def clear(self) -> None:
        """Forget messages and sessions."""
        self.messages.clear()
        self.sessions.clear()

    def wait_for(self, count: int, timeout: float = 10) -> Deferred[list[ReceivedMessage]]:
        """Return all messages as soon as there are *count*.

        :raises twisted.internet.defer.TimeoutError: after *timeout* seconds.
        """
        waiting: Deferred[list[ReceivedMessage]] = Deferred()
        if len(self.messages) >= count:
            waiting.callback(list(self.messages))
            return waiting
        self._waiting.append((count, waiting))
        return waiting.addTimeout(timeout, self._clock)

    def session_opened(self, protocol: SMTPServerProtocol) -> None:
        """Record a connection; called by the factory."""
        record = self._open_sessions[protocol] = SessionRecord(protocol.connection)
        self.sessions.append(record)

    def session_closed(self, protocol: SMTPServerProtocol) -> None:
        """Record the end of a connection; called by the factory."""
        self._open_sessions.pop(protocol).closed = True
        waiting = self._closing.pop(protocol, None)
        if waiting is not None:
            waiting.callback(None)

    # -- for subclasses --------------------------------------------------------------------------

    def _open(self) -> tuple[_RecordingFactory, ServerTLS | None]:
        """Make the temporary directory, the factory, and its certificate."""
        self._directory = Path(tempfile.mkdtemp(prefix="twisted_sendmail-"))
        self._path("ca.pem").write_bytes(self.authority.pem)
        certificate = None
        if self._tls:
            self._path("server.pem").touch(0o600)
            self._path("server.pem").write_bytes(self._plan.certificate(self.authority))
            certificate = ServerTLS(self._path("server.pem"))
        factory = _RecordingFactory(
            self._clock,
            self._receiver,
            plan=self._plan,
            tls=certificate,
            accounts=self._accounts(),
            settings=self._settings,
            deadlines=self._deadlines,
            trace=False,
        )
        factory.server = self
        return factory, certificate

    def _drop_all(self) -> list[Deferred[None]]:
        """Drop every connection."""
        for protocol in self._open_sessions:
            self._closing[protocol] = Deferred()
        gone = list(self._closing.values())
        for protocol in list(self._open_sessions):
            transport: Any = protocol.transport
            transport.abortConnection()
        return gone

    def _remove_directory(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    # --------------------------------------------------------------------------------------------

    def _accounts(self) -> Accounts | None:
        if self._users is not None or self._tokens is not None:
            return _KnownUsers(self._users, self._tokens)
        offers_auth = self._settings.mechanisms != ()
        return _AnyUser() if self._lenient and offers_auth else None

    def _path(self, name: str) -> Path:
        if self._directory is None:
            raise RuntimeError("the server is not running: start it first")
        return self._directory / name

    def _add_message(self, message: ReceivedMessage) -> None:
        self.messages.append(message)
        waiting, self._waiting = self._waiting, []
        for count, each in waiting:
            if len(self.messages) < count:
                self._waiting.append((count, each))
            elif not each.called:
                each.callback(list(self.messages))


def _complete(
    settings: ServerSettings, *, tls: bool, users: bool, lenient: bool | None
) -> ServerSettings:
    """Return *settings* with the fields that follow from the other parameters."""
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


class _RecordingFactory(FaultyFactory):
    """Reports each session to the server."""

    server: RecordingServer

    def opened(self, protocol: SMTPServerProtocol) -> None:
        super().opened(protocol)
        self.server.session_opened(protocol)

    def closed(self, protocol: SMTPServerProtocol) -> None:
        super().closed(protocol)
        self.server.session_closed(protocol)


_BEARER = ("OAUTHBEARER", "XOAUTH2")


class _KnownUsers(HashedAccounts):
    """Accepts the given passwords and tokens."""

    def __init__(self, users: Mapping[str, str] | None, tokens: Mapping[str, str] | None) -> None:
        super().__init__({u: ScramKeys.of(p, iterations=4096) for u, p in (users or {}).items()})
        self._tokens = tokens or {}
        self.mechanisms = (
            *(() if users is None else self.mechanisms),
            *(() if tokens is None else _BEARER),
        )

    async def check_token(self, user: str, token: str) -> Avatar | None:
        return Avatar() if self._tokens.get(user) == token else None


class _AnyUser:
    """Accepts any password and token of any user, except by SCRAM, which needs the password."""

    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN", *_BEARER)

    async def check(self, user: str, password: str) -> Avatar | None:
        return Avatar()

    async def check_token(self, user: str, token: str) -> Avatar | None:
        return Avatar()

    async def scram_keys(self, user: str, hash_name: str) -> ScramKeys:
        raise AuthRefused(FAILED)
