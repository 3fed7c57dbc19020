"""Drop-in for the senders of ``twisted.mail.smtp``: a program moves over by changing its import.

**Theory of operation.**

An application makes an :class:`ESMTPSenderFactory` with a message and a Deferred, and connects it::

    from twisted_sendmail.compat import ESMTPSenderFactory  # was: twisted.mail.smtp

    factory = ESMTPSenderFactory(user, password, sender, recipients, file, deferred, hostname=host)
    reactor.connectTCP(host, 587, factory)

The factory builds an :class:`ESMTPSender` for each connection.  When the connection is made, the
sender calls :func:`~twisted_sendmail.client.submission.submit` with an endpoint that hands over the
transport it has.  So each message goes by the client of this package, and this module has nothing of
SMTP: it translates arguments into a :class:`~twisted_sendmail.client.server_config.SubmissionServer`,
the report into ``(numOk, addresses)``, and an error into the exception of ``twisted.mail.smtp`` that
callers catch.  Its ``__cause__`` is the :class:`~twisted_sendmail.smtp.errors.SendmailError`.

**Invariants.**

- A password goes over verified TLS only, whatever ``requireTransportSecurity`` is.
- ``retry`` of an exception is True only if no recipient can get a second copy.  A message in doubt is
  an ``SMTPDeliveryError`` without a code.
- A connection is tried again up to ``retries`` times, at growing intervals, and never after a verdict,
  a permanent error or a message in doubt.
- The Deferred fires once.  If others fired it, as a timeout of the caller does, sending ends.

``docs/how-to/move-from-twisted-mail.md`` has a table of all arguments.
"""

from __future__ import annotations

import socket
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import field, frozen
from OpenSSL import SSL
from twisted.application.internet import backoffPolicy
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.logger import Logger

# The public place of these classes, twisted.mail.smtp, imports the reactor.
from twisted.mail._except import (
    AddressError,
    AUTHDeclinedError,
    AuthenticationError,
    AUTHRequiredError,
    EHLORequiredError,
    ESMTPClientError,
    SMTPClientError,
    SMTPConnectError,
    SMTPDeliveryError,
    SMTPError,
    SMTPProtocolError,
    SMTPTimeoutError,
    TLSRequiredError,
)
from twisted.mail._except import SMTPTLSError as TLSError
from twisted.python.failure import Failure
from twisted.python.util import LineLog
from zope.interface import implementer

from twisted_sendmail import smtp as ours
from twisted_sendmail.client import (
    Cancelled,
    ServerVerifier,
    SubmissionServer,
    Timeouts,
    TLSPolicy,
    TLSTrust,
    submit,
)
from twisted_sendmail.message import mailboxes
from twisted_sendmail.sasl import MECHANISMS, Credentials, Mechanism
from twisted_sendmail.smtp import (
    DeliveryReport,
    ForwardPath,
    Reply,
    SendmailError,
    UnusableRecipient,
    printable,
    refused_address,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import (
        IAddress,
        IConnector,
        IDelayedCall,
        IProtocolFactory,
    )
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    from twisted_sendmail.sasl import MechanismFactory, ResolvedCredentials

__all__ = [
    "AUTHDeclinedError",
    "AUTHRequiredError",
    "AddressError",
    "AuthenticationError",
    "EHLORequiredError",
    "ESMTPClientError",
    "ESMTPSender",
    "ESMTPSenderFactory",
    "SMTPClientError",
    "SMTPConnectError",
    "SMTPDeliveryError",
    "SMTPError",
    "SMTPProtocolError",
    "SMTPSender",
    "SMTPSenderFactory",
    "SMTPTimeoutError",
    "TLSConnectError",
    "TLSError",
    "TLSRequiredError",
    "sendmail",
]

#: A recipient as it was given, and the code and text of the reply that decided on it.
Address: TypeAlias = tuple[bytes, int, bytes]
_Error = TypeVar("_Error", bound=Exception)

_log = Logger(namespace="twisted_sendmail.compat")
_NO_NAME = "give hostname=, the name in the server's certificate"
# Methods of twisted.mail.smtp that are steps of its session.
_STEPS = ("smtpState_", "esmtp", "smtpConnectionFailed", "smtpTransferFailed")
_MORE_STEPS = {"lineReceived", "sendLine", "tryTLS", "authenticate", "transformChunk"}


class TLSConnectError(SMTPConnectError, TLSError):
    """The TLS handshake failed, or the certificate was rejected.

    ``twisted.mail.smtp`` raises ``SMTPConnectError`` then; this is its ``TLSError``, too.
    """


@implementer(IHandshakeListener)
class SMTPSender(Protocol):
    """Sends the message of its factory over one connection, without TLS of its own and without AUTH.

    A subclass may override ``getMailFrom``, ``getMailTo``, ``getMailData``, ``sentMail``,
    ``sendError`` and ``connectionMade``.

    :param identity: the name in EHLO; empty or None: as ``SubmissionServer(helo_name=None)``.
    :param logsize: lines of the dialogue that ``log`` keeps.
    """

    factory: Any
    transport: Any
    #: True if ``log`` gets the dialogue, in which secrets are masked.
    debug = True
    #: Seconds for each reply; None: those of RFC 5321 section 4.5.3.2.
    timeout: float | None = None
    #: A test may put the ``callLater`` of its clock here, as for Twisted's ``TimeoutMixin``.
    callLater: Any = None
    # Attributes of ESMTPSender.
    _hostname: str | None = None
    _registered: dict[str, MechanismFactory] | None = None

    def __init__(self, identity: bytes | str | None = None, logsize: int = 10) -> None:
        self.identity = identity
        #: The last lines of the dialogue.
        self.log = _line_log(logsize)
        self._sending: Deferred[DeliveryReport] | None = None
        # The protocol of the client, once it has taken over.
        self._client: Any = None
        self._recipients: list[tuple[bytes, ForwardPath | Reply]] = []
        self._error: SendmailError | None = None
        self._named = True

    def __init_subclass__(cls) -> None:
        """Refuse a method that would never be called, instead of ignoring it."""
        super().__init_subclass__()
        for name in vars(cls):
            if name.startswith(_STEPS) or name in _MORE_STEPS:
                raise TypeError(
                    f"{cls.__name__}.{name} would never be called: twisted_sendmail.compat has no such "
                    "step; override getMailFrom, getMailTo, getMailData, sentMail or sendError, or use "
                    "twisted_sendmail.SubmissionProtocol"
                )

    # -- to be overridden ------------------------------------------------------------------

    def getMailFrom(self) -> str | bytes | None:
        """Return the sender, empty for the null reverse-path; None: there is nothing to send."""
        sender: str = self.factory.fromEmail
        return sender

    def getMailTo(self) -> Iterable[str | bytes]:
        """Return the recipients."""
        recipients: list[bytes] = self.factory.toEmail
        return recipients

    def getMailData(self) -> IO[bytes]:
        """Return a file with the message."""
        file: IO[bytes] = self.factory.file
        return file

    def sentMail(
        self, code: int, resp: bytes, numOk: int, addresses: list[Address], log: Any
    ) -> None:
        """Fire the Deferred of the factory: there is a verdict.

        :param code: of the reply to the content, or of the one that refused the message before.
        :param resp: the text of that reply.
        :param numOk: recipients that the server accepted.
        :param addresses: each recipient, with the code and text of the reply that decided on it.
        :param log: the dialogue.
        """
        if 200 <= code < 300:
            self.factory.finish((numOk, addresses))
            return
        # The text of the error decodes its lines.
        refused = [
            b"%s: %03d %s" % (printable(_text(address)).encode(), number, text)
            for address, number, text in addresses
            if not 200 <= number < 300
        ]
        lines = b"\n".join([*refused, log.str()])
        error = SMTPDeliveryError(code, resp, lines, addresses)
        self.factory.finish(_caused_by(self._error, error))

    def sendError(self, exc: Exception) -> None:
        """Try again, or fire the Deferred of the factory: there is no verdict.

        :param exc: an exception of ``twisted.mail.smtp``, or one that the file has raised.
        """
        self.factory.attempt_failed(exc)

    # -- IProtocol -------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """True if there was a connection."""
        return self._sending is not None

    def connectionMade(self) -> None:
        """See ``IProtocol``: send the message."""
        if self.factory.sendFinished:
            self.transport.abortConnection()  # cancelled while an endpoint connected
            return
        try:
            self._sending = self._send()
        except Exception:  # noqa: BLE001 - of an overridden method, too: sendError gets it
            self._sending = fail()
        _ = self._sending.addCallbacks(self._sent, self._failed).addErrback(self._broken)

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._client is not None:
            self._client.dataReceived(data)

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``."""
        if self._client is not None:
            self._client.handshakeCompleted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        if self._client is not None:
            self._client.connectionLost(reason)

    def hand_over(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Let a protocol of *factory* have the transport."""
        if self._client is not None:
            why = "the server has to be connected to again, which only the application can"
            return fail(ours.ConnectionClosed("connection closed", detail=why))
        client: Any = factory.buildProtocol(self.transport.getPeer())
        self._client = client
        client.makeConnection(self.transport)
        self.transport.resumeProducing()
        return succeed(client)

    def stop(self) -> None:
        """Close the connection at once, and end what was begun."""
        if self._sending is not None:
            self._sending.cancel()

    # -- the message -----------------------------------------------------------------------

    def _send(self) -> Deferred[DeliveryReport]:
        sender = self.getMailFrom()
        if sender is None:
            raise Cancelled("there is no message to send")
        self._recipients = [
            (_octets(each), _recipient(_text(each))) for each in _several(self.getMailTo())
        ]
        usable = [path for _, path in self._recipients if isinstance(path, ForwardPath)]
        if not usable:
            raise ours.InvalidAddress("there is no recipient that can be used")
        server = self._server()
        # Until the client takes over: the greeting may come while the message is still read.
        self.transport.pauseProducing()
        return submit(
            self._clock(),
            server,
            self.getMailData(),
            sender=_sender(_text(sender)),
            recipients=usable,
        )

    def _server(self) -> SubmissionServer:
        policy, credentials = self._policy(), self._credentials()
        creator = self._context_factory()
        if creator is not None and not _makes_connections(creator):
            raise ours.InvalidInput(
                f"contextFactory cannot be a {type(creator).__name__}",
                remedy="give optionsForClientTLS(host) of twisted.internet.ssl, or an object with getContext()",
            )
        secured = policy is TLSPolicy.IMPLICIT
        name = self._hostname or self.factory.destination
        self._named = bool(name)
        if policy is not TLSPolicy.NONE and not name:
            if not secured and creator is None:
                why = "there is no name to verify the server's certificate by"
                raise ours.StartTLSUnavailable("no STARTTLS", detail=why, remedy=_NO_NAME)
            # The TLS context that was given may hold the name. Else this one is compared.
            name = getattr(self.transport.getPeer(), "host", None)
        trust = TLSTrust()
        if secured or creator is not None:
            trust = _GivenTLS(
                creator=creator, unverified_allowed=self.factory.dangerouslyAllowUnverifiedTLS
            )
        return SubmissionServer(
            name or "",
            tls=policy,
            trust=trust,
            credentials=credentials,
            mechanisms=self._registered,
            helo_name=_text(self.identity) if self.identity else None,
            timeouts=_timeouts(self.timeout),
            endpoint=_HandingOver(self),
            # The session cannot go on after a BDAT that the server does not know.
            ignore_extensions=("CHUNKING",),
        )

    def _policy(self) -> TLSPolicy:
        secured = ISSLTransport.providedBy(self.transport)
        return TLSPolicy.IMPLICIT if secured else TLSPolicy.NONE

    def _credentials(self) -> Credentials | None:
        return None

    def _context_factory(self) -> Any:
        return None

    def _clock(self) -> Any:
        """Return the clock of a test, else the reactor that has the connection."""
        given = getattr(self.callLater, "__self__", None)
        return given if IReactorTime.providedBy(given) else self.factory.clock(self.transport)

    # -- its end ---------------------------------------------------------------------------

    def _sent(self, report: DeliveryReport) -> None:
        addresses = self._addresses(report)
        numOk = sum(200 <= code < 300 for _, code, _ in addresses)
        self._note(report.transcript)
        reply = next(each.reply for each in report.accepted if each.reply is not None)
        code, text = reply.code, _reply_text(reply)
        self.sentMail(code, text, numOk, addresses, self.log)

    def _failed(self, failure: Failure) -> None:
        error: Any = failure.value
        if self._client is None:
            self.transport.loseConnection()
        if isinstance(error, Cancelled):
            self.factory.finish(error)
            return
        if not isinstance(error, SendmailError):
            self.sendError(error)  # of the file
            return
        self._error = error
        if isinstance(error, ours.TLSError) and not self._named:
            error.remedy = _NO_NAME
        report = error.report
        addresses = self._addresses(report)
        if report is not None and report.accepted:
            self._sent(report)
            return
        self._note(error.transcript, error)
        refused = [each for each in self._recipients if isinstance(each[1], Reply)]
        if len(refused) == len(self._recipients) and refused:
            self.sentMail(553, b"No recipient can be used", 0, addresses, self.log)
        elif report is not None and report.error is None and error.reply is not None:
            text = _reply_text(error.reply)
            self.sentMail(error.reply.code, text, 0, addresses, self.log)
        else:
            self.sendError(_exception(error, self.log.str(), addresses))

    def _broken(self, failure: Failure) -> None:
        """Take the error that an overridden method has raised."""
        _log.failure("{sender} failed", failure=failure, sender=type(self).__name__)
        self.factory.finish(failure.value)

    def _addresses(self, report: DeliveryReport | None) -> list[Address]:
        """Return all recipients, in the order of ``getMailTo``."""
        outcomes = () if report is None else report.outcomes
        known = {each.recipient.path: each for each in outcomes}
        found = []
        for address, path in self._recipients:
            if isinstance(path, Reply):
                found.append((address, path.code, _reply_text(path)))
            elif path in known:
                outcome = known[path]
                reply = outcome.reply
                status = outcome.status.value.encode()
                found.append(
                    (address, reply.code, _reply_text(reply)) if reply else (address, -1, status)
                )
        return found

    def _note(self, transcript: Iterable[str] | None, error: SendmailError | None = None) -> None:
        if not self.debug:
            return
        for line in transcript or ():
            side, _, text = line.partition(" ")
            self.log.append(f"{_SIDES.get(side, side)} {text}".encode())
        if error is not None and error.reply is not None:
            self.log.append(f"-- {error}".encode())


_line_log: Any = LineLog
_SIDES = {"C:": ">>>", "S:": "<<<"}


class ESMTPSender(SMTPSender):
    """Sends the message of its factory over one connection, with STARTTLS and AUTH.

    :param username: for AUTH.
    :param secret: the password; None or empty: no AUTH.
    :param contextFactory: the TLS context for STARTTLS: an ``IOpenSSLClientConnectionCreator``, or an
        object with ``getContext()``; None: the system's CAs, TLS 1.2 or later.
    :param hostname: the name in the server's certificate; None: the host that was connected to.

    The other parameters are those of :class:`SMTPSender`.
    """

    heloFallback = False
    requireAuthentication = True
    requireTransportSecurity = True
    context: Any = None
    _registered: dict[str, MechanismFactory]

    def __init__(
        self,
        username: bytes | str | None,
        secret: bytes | str | None,
        contextFactory: Any = None,
        identity: bytes | str | None = None,
        logsize: int = 10,
        hostname: str | None = None,
    ) -> None:
        super().__init__(identity, logsize)
        self.username = username
        self.secret = secret
        self._hostname = hostname
        self._registered = {}
        self.context = self._getContextFactory() if contextFactory is None else contextFactory
        self._registerAuthenticators()

    def registerAuthenticator(self, auth: Any) -> None:
        """Use a mechanism after those that were registered before.

        :param auth: an ``IClientAuthentication``.

        PLAIN and LOGIN are always those of this package.
        """
        name = auth.getName().decode("ascii").upper()
        if name in {"PLAIN", "LOGIN"}:
            self._registered[name] = MECHANISMS[name]
        else:
            made = type("_Registered", (_Authenticator,), {"name": name, "authenticator": auth})
            self._registered[name] = made

    def _registerAuthenticators(self) -> None:
        """Register the mechanisms, best first; a subclass may register its own instead."""
        self._registered.update(MECHANISMS)

    def _getContextFactory(self) -> Any:
        return self.context

    def _context_factory(self) -> Any:
        return self.context

    def _policy(self) -> TLSPolicy:
        policy = super()._policy()
        if policy is TLSPolicy.IMPLICIT:
            return policy
        if self.requireTransportSecurity or self.secret:
            return TLSPolicy.STARTTLS
        # As in twisted.mail: there is no STARTTLS unless it was prepared for.
        prepared = self.context is not None or self._hostname is not None
        return TLSPolicy.OPPORTUNISTIC if prepared else TLSPolicy.NONE

    def _credentials(self) -> Credentials | None:
        if self.secret:
            return Credentials(_text(self.username or b""), _text(self.secret))
        if self.requireAuthentication:
            why = "requireAuthentication is True, and there is no password"
            raise ours.UnsupportedMechanism("no authentication", phase="AUTH", detail=why)
        return None


class SMTPSenderFactory(ClientFactory):
    """Sends one message over the connection that it is connected by, and fires a Deferred.

    :param fromEmail: the sender; empty for the null reverse-path.
    :param toEmail: one recipient or several.
    :param file: a binary file with the message, header and body.
    :param deferred: fires with ``(numOk, addresses)`` when a recipient was accepted; fails with an
        ``SMTPClientError`` of ``twisted.mail.smtp``, or with the error of the file.  If it fires
        otherwise, sending ends.
    :param retries: how often a connection that failed, or was lost before there was a verdict, is made
        again: once at once, then at growing intervals.  An endpoint does not allow it.
    :param timeout: seconds for each reply; None: those of RFC 5321 section 4.5.3.2.
    :raises AddressError: *fromEmail* is no address.
    """

    #: The name in EHLO; None: as ``SubmissionServer(helo_name=None)``.
    domain: bytes | str | None = None
    protocol: Any = SMTPSender
    #: Keeps time; None: the reactor that has the connection.
    reactor: Any = None
    #: Use a TLS context that verifies nothing, such as ``ClientContextFactory``.
    dangerouslyAllowUnverifiedTLS = False

    def __init__(
        self,
        fromEmail: str | bytes,
        toEmail: str | bytes | Iterable[str | bytes],
        file: IO[bytes],
        deferred: Deferred[Any],
        retries: int = 5,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(retries, int):
            raise TypeError("retries has to be an int")
        self.fromEmail = _sender(_text(fromEmail))
        self.toEmail = [_octets(each) for each in _several(toEmail)]
        self.nEmails = len(self.toEmail)
        self.file = file
        self.sendFinished = False
        self.currentProtocol: Any = None
        self.retries = -retries
        self.timeout = timeout
        self._connector: IConnector | None = None
        self._connected = False
        self._stopping = False
        # Why the attempt has failed, if another one follows when the connection is gone.
        self._failure: Exception | None = None
        self._attempts = 0
        self._waiting: IDelayedCall | None = None
        self._delays = backoffPolicy()
        self.result = deferred
        _ = deferred.addBoth(self._fired)

    @property
    def destination(self) -> str | None:
        """The host that was connected to, as the application has named it; None if not known."""
        if self._connector is None:
            return None
        host = getattr(self._connector.getDestination(), "host", None)
        return None if host is None else _text(host)

    def clock(self, transport: Any = None) -> Any:
        """Return the reactor that has the connection."""
        for owner in (self, self._connector, transport):
            reactor = getattr(owner, "reactor", None)
            if IReactorTime.providedBy(reactor):
                return reactor
        from twisted.internet import reactor

        return reactor

    # -- ClientFactory ---------------------------------------------------------------------

    def startedConnecting(self, connector: IConnector) -> None:
        """See ``ClientFactory``."""
        busy = self._connected or self._waiting is not None
        if busy and connector is not self._connector:
            _log.warn("a factory sends one message: its second connection is not made")
            connector.stopConnecting()
            return
        self._connector, self._connected, self._failure = connector, True, None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See ``ClientFactory``; the protocol is ``currentProtocol``, and None while there is one."""
        if getattr(self.currentProtocol, "started", False):
            _log.warn("a factory sends one message: its second connection is closed")
            return None
        made = self._make()
        made.factory = self
        made.timeout = self.timeout
        self.currentProtocol = made
        return made

    def _make(self) -> Any:
        return self.protocol(self.domain, self.nEmails * 2 + 2)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """See ``ClientFactory``."""
        if self._connector is not None and connector is not self._connector:
            return
        self._connector, self._connected, self.currentProtocol = connector, False, None
        self.attempt_failed(_no_connection(reason))

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """See ``ClientFactory``."""
        if self._connector is not None and connector is not self._connector:
            return
        sender, self.currentProtocol = self.currentProtocol, None
        self._connector, self._connected = connector, False
        if self._failure is not None:
            self._try_again()
        elif sender is None or not getattr(sender, "started", True):
            self.attempt_failed(_no_connection(reason))

    # -- the result ------------------------------------------------------------------------

    def finish(self, result: Any) -> None:
        """Fire the Deferred, unless it has fired."""
        if self.sendFinished:
            return
        self.sendFinished = True
        if isinstance(result, BaseException):
            self.result.errback(result)
        else:
            self.result.callback(result)

    def attempt_failed(self, exc: Exception) -> None:
        """Try again if that is safe and allowed, else fire the Deferred with *exc*."""
        if self.sendFinished or self._stopping:
            return
        again = self.retries < 0 and getattr(exc, "retry", False)
        if not again or self._connector is None:
            self.finish(exc)
            return
        self._failure = exc
        if not self._connected:
            self._try_again()

    def stop(self) -> None:
        """End what was begun, at once."""
        self._stopping = True
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        elif self.currentProtocol is not None:
            self.currentProtocol.stop()
        elif self._connector is not None:
            self._connector.disconnect()

    def _try_again(self) -> None:
        error, self._failure = self._failure, None
        try:
            _ = self.file.seek(0)
        except Exception:  # noqa: BLE001 - whatever a file raises, it cannot be read again
            self.finish(error)
            return
        self.retries += 1
        self._attempts += 1
        # A connection that was lost may be good at once; a server that refused it needs time.
        at_once = self._attempts == 1 and getattr(error, "code", -1) < 0
        delay = 0.0 if at_once else self._delays(self._attempts)
        _log.info(
            "no mail was sent yet; trying again in {delay:.1f} s: {error}",
            delay=delay,
            error=printable(str(error).partition("\n")[0]),
        )
        if at_once:
            self._reconnect()
        else:
            self._waiting = self.clock().callLater(delay, self._reconnect)

    def _reconnect(self) -> None:
        self._waiting = None
        if self._connector is not None:
            self._connector.connect()

    def _fired(self, result: Any) -> Any:
        del self.result
        if not self.sendFinished:
            self.sendFinished = True
            self.stop()
        self.currentProtocol = None
        return result


class ESMTPSenderFactory(SMTPSenderFactory):
    """Sends one message with STARTTLS and AUTH over the connection that it is connected by.

    :param username: for AUTH.
    :param password: None or empty: no AUTH.  It goes over verified TLS only.
    :param contextFactory: see :class:`ESMTPSender`.
    :param heloFallback: accepted; HELO follows a refused EHLO if neither TLS nor AUTH is needed.
    :param requireAuthentication: fail without a password.  With one, AUTH is always required.
    :param requireTransportSecurity: send over TLS only.
    :param hostname: the name in the server's certificate; None: the host that was connected to.

    The other parameters are those of :class:`SMTPSenderFactory`.
    """

    protocol: Any = ESMTPSender

    def __init__(
        self,
        username: bytes | str | None,
        password: bytes | str | None,
        fromEmail: str | bytes,
        toEmail: str | bytes | Iterable[str | bytes],
        file: IO[bytes],
        deferred: Deferred[Any],
        retries: int = 5,
        timeout: float | None = None,
        contextFactory: Any = None,
        heloFallback: bool = False,
        requireAuthentication: bool | None = True,
        requireTransportSecurity: bool | None = True,
        hostname: str | None = None,
    ) -> None:
        super().__init__(fromEmail, toEmail, file, deferred, retries, timeout)
        self.username = username
        self.password = password
        self._contextFactory = contextFactory
        self._heloFallback = heloFallback
        self._requireAuthentication = requireAuthentication
        self._requireTransportSecurity = requireTransportSecurity
        self._hostname = hostname

    def _make(self) -> Any:
        made = self.protocol(
            self.username,
            self.password,
            self._contextFactory,
            self.domain,
            self.nEmails * 2 + 2,
            hostname=self._hostname,
        )
        made.heloFallback = self._heloFallback
        made.requireAuthentication = self._requireAuthentication
        made.requireTransportSecurity = self._requireTransportSecurity
        return made


def sendmail(
    smtphost: str | bytes,
    from_addr: str | bytes,
    to_addrs: str | bytes | Iterable[str | bytes],
    msg: Any,
    senderDomainName: str | bytes | None = None,
    port: int = 25,
    reactor: Any = None,
    username: str | bytes | None = None,
    password: str | bytes | None = None,
    requireAuthentication: bool = False,
    requireTransportSecurity: bool = False,
) -> Deferred[tuple[int, list[Address]]]:
    """Send an email; the same as ``twisted.mail.smtp.sendmail``, by :class:`ESMTPSenderFactory`.

    :param smtphost: connected to, and the name in the server's certificate.
    :param to_addrs: one recipient or several.
    :param msg: the message: a binary file, or bytes, text, or an object that ``bytes()`` takes.
    :param senderDomainName: the name in EHLO.
    :param reactor: the global one if not given.
    :returns: fires with ``(numOk, addresses)`` when a recipient was accepted.
    :raises AddressError: *from_addr* is no address.
    :raises SMTPClientError: of ``twisted.mail.smtp``: no recipient was accepted.

    Cancelling closes the connection and fails with a ``CancelledError``; if sending had begun it is
    a :class:`~twisted_sendmail.client.timeouts.Cancelled`, which says whether the message is in doubt.
    """
    if reactor is None:
        from twisted.internet import reactor
    if not hasattr(msg, "read"):
        msg = BytesIO(msg.encode() if isinstance(msg, str) else bytes(msg))
    host = _text(smtphost)
    result: Deferred[tuple[int, list[Address]]] = Deferred(lambda _: factory.stop())
    factory = ESMTPSenderFactory(
        None if username is None else _octets(username),
        None if password is None else _octets(password),
        from_addr,
        to_addrs,
        msg,
        result,
        heloFallback=True,
        requireAuthentication=requireAuthentication,
        requireTransportSecurity=requireTransportSecurity,
        hostname=host,
    )
    factory.reactor = reactor
    if senderDomainName is not None:
        factory.domain = _octets(senderDomainName)
    reactor.connectTCP(host, port, factory)
    return result


# ---------------------------------------------------------------------------------------


@implementer(IStreamClientEndpoint)
class _HandingOver:
    """The endpoint of a sender that is connected already."""

    def __init__(self, sender: SMTPSender) -> None:
        self._sender = sender

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return self._sender.hand_over(protocolFactory)


@frozen
class _GivenTLS(TLSTrust):
    """The application's TLS: a context for STARTTLS, or a transport that is TLS already."""

    creator: Any = field(default=None, eq=id)
    unverified_allowed: bool = False

    def verifier(self, name: str, *_: object) -> ServerVerifier:
        return _GivenVerifier(self, name)


class _GivenVerifier(ServerVerifier):
    """Makes the connection with the context of the application, and verifies the server's name."""

    def __init__(self, trust: _GivenTLS, name: str) -> None:
        super().__init__(trust, name)
        self._given, self._server_name = trust, name

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        creator = self._given.creator
        if IOpenSSLClientConnectionCreator.providedBy(creator):
            made: SSL.Connection = creator.clientConnectionForTLS(tlsProtocol)
        else:
            made = SSL.Connection(creator.getContext(), None)
            if not (isIPAddress(self._server_name) or isIPv6Address(self._server_name)):
                made.set_tlsext_host_name(self._server_name.encode("ascii"))
        self.adopt(made)
        return made

    def adopt(self, connection: SSL.Connection, *, unverified_allowed: bool = False) -> None:
        allowed = unverified_allowed or self._given.unverified_allowed
        super().adopt(connection, unverified_allowed=allowed)


def _makes_connections(creator: Any) -> bool:
    is_creator: bool = IOpenSSLClientConnectionCreator.providedBy(creator)
    return is_creator or callable(getattr(creator, "getContext", None))


class _Authenticator(Mechanism):
    """A mechanism of the application, by Twisted's interface."""

    authenticator: Any

    def __init__(self, credentials: ResolvedCredentials) -> None:
        self._password = credentials.password

    def start(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        secret = b"" if self._password is None else self._password.reveal().encode()
        response: bytes = self.authenticator.challengeResponse(secret, challenge)
        return response


def _exception(error: SendmailError, log: bytes, addresses: list[Address]) -> SMTPClientError:
    """Return the exception of ``twisted.mail.smtp`` for an error without a verdict on the message."""
    reply = None if error.in_doubt else error.reply
    kind, code = _kind_of(error)
    if reply is None:
        return _caused_by(error, kind(code, str(error).encode(), log, addresses))
    return _caused_by(error, kind(reply.code, _reply_text(reply), log, addresses))


def _kind_of(error: SendmailError) -> tuple[type[SMTPClientError], int]:
    """Return the class for *error*, and its code if there is no reply."""
    if not error.in_doubt:
        if error.reply is not None:
            if isinstance(error, ours.StartTLSUnavailable):
                return TLSError, -1
            if error.phase in _KINDS_BY_PHASE:
                return _KINDS_BY_PHASE[error.phase], -1
        for classes, kind, code in _KINDS:
            if isinstance(error, classes):
                return kind, code
    return SMTPDeliveryError, -1


_KINDS_BY_PHASE: dict[str | None, type[SMTPClientError]] = {
    "greeting": SMTPConnectError,
    "EHLO": EHLORequiredError,
    "HELO": SMTPConnectError,
}
# Our error, the exception for it, and its code without a reply; the first that fits.
_KINDS: tuple[tuple[Any, type[SMTPClientError], int], ...] = (
    (ours.StartTLSUnavailable, TLSRequiredError, 502),
    (ours.TLSError, TLSConnectError, -1),
    (ours.UnsupportedMechanism, AUTHRequiredError, 502),
    ((ours.InvalidBase64, ours.ServerNotAuthentic), AuthenticationError, -1),
    (ours.AuthenticationError, AUTHDeclinedError, -1),
    (ours.SendTimeout, SMTPTimeoutError, -1),
    (ours.ConnectionFailed, SMTPConnectError, -1),
    (ours.ProtocolBreach, SMTPProtocolError, -1),
)


def _caused_by(cause: SendmailError | None, error: _Error) -> _Error:
    error.__cause__ = cause
    error.retry = cause is not None and cause.transient  # type: ignore[attr-defined]  # of SMTPClientError
    return error


def _no_connection(reason: Any) -> SMTPConnectError:
    cause = getattr(reason, "value", reason)
    why = printable(str(cause)) or type(cause).__name__
    make: Any = SMTPConnectError
    error: SMTPConnectError = make(-1, f"Unable to connect to SMTP server: {why}")
    error.__cause__ = cause
    return error


def _reply_text(reply: Reply) -> bytes:
    return "\n".join(printable(line) for line in reply.lines).encode()


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _several(recipients: str | bytes | Iterable[str | bytes]) -> Iterable[str | bytes]:
    return [recipients] if isinstance(recipients, (str, bytes)) else recipients


def _sender(address: str) -> str:
    """Return the address for MAIL.

    :raises AddressError: *address* is none.
    """
    if address in {"", "<>"}:
        return ""
    try:
        return _mailbox("fromEmail", address)
    except ours.InvalidInput as error:
        raise AddressError(str(error)) from error


def _recipient(address: str) -> ForwardPath | Reply:
    """Return the path for RCPT, or the reply to an address that cannot be used."""
    try:
        return ForwardPath.parse(_mailbox("toEmail", address))
    except ours.InvalidAddress as error:
        refused = refused_address(UnusableRecipient(address, error)).reply
        return refused or Reply(553, ("5.1.3 Bad recipient address syntax",))


def _mailbox(name: str, address: str) -> str:
    """Return the one address in *address*, which may have a display name.

    An address without a domain gets the name of this machine, as cron's mail to ``root`` does.
    """
    try:
        found = mailboxes(name, address, domain=socket.gethostname())
    except ours.InvalidAddress:
        found = mailboxes(name, address)
    if len(found) != 1:
        raise ours.InvalidAddress(
            f"{name} '{printable(address, 100)}' cannot be used",
            detail=f"it holds {len(found)} addresses",
        )
    return str(found[0])


def _timeouts(seconds: float | None) -> Timeouts:
    if seconds is None:
        return Timeouts()
    phases = "greeting command tls auth mail rcpt data_init data_block data_end"
    return Timeouts(**dict.fromkeys(phases.split(), seconds))
