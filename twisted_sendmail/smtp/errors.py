"""The error tree: each way in which mail is not sent has a class.

Every error tells whether the same may be tried again (``transient``), whether the server may have the
message (``in_doubt``) and whether the connection can carry another message (``connection_usable``).
An error is also the builtin that people already catch, where there is one.

:func:`refusal` and :func:`authentication_refusal` choose the class for a reply that is a refusal.
RFC 5321 section 4.2.3, RFC 4954 section 6 (AUTH codes), RFC 3207 (STARTTLS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from twisted_sendmail.smtp.escape import printable

if TYPE_CHECKING:
    from twisted_sendmail.smtp.reply import EnhancedStatus, Reply
    from twisted_sendmail.smtp.result import DeliveryReport
    from twisted_sendmail.smtp.tls_facts import TLSFacts
    from twisted_sendmail.smtp.transcript import Transcript

_Self = TypeVar("_Self", bound="SendmailError")


class SendmailError(Exception):
    """Mail could not be sent, or not as asked for.

    ``str()`` is one line that a person can act on. It holds no secret, and nothing in it acts on a
    terminal.

    :param what: the failure, such as ``RCPT TO:<x@example.net> refused``.
    :param detail: the reason, when no reply tells it.
    """

    #: The cause may pass. The message may have been delivered all the same: see ``transient``.
    temporary: bool = False
    #: The connection can carry another message.
    connection_usable: bool = False
    #: The action that helps; empty when the reply is enough.
    remedy: str = ""
    #: The word between the failure and the host, if no reply of the host is the reason.
    _before_host: ClassVar[str] = "at"
    #: The word between the failure and the reply that was due, if the error names one.
    _before_reply: ClassVar[str] = ""

    def __init__(
        self,
        what: str,
        *,
        detail: str = "",
        remedy: str | None = None,
        phase: str | None = None,
        command: str | None = None,
        reply: Reply | None = None,
        recipient: str | None = None,
        host: str | None = None,
        tls: TLSFacts | None = None,
        transcript: Transcript | None = None,
        report: DeliveryReport | None = None,
    ) -> None:
        super().__init__(what)
        #: The failure.
        self.what = what
        #: The reason.
        self.detail = detail
        if remedy is not None:
            self.remedy = remedy
        #: The phase of the session: ``connect``, ``greeting``, ``EHLO``, ``TLS``, ``AUTH``, …
        self.phase = phase
        #: The command, without secrets.
        self.command = command
        #: The server's reply.
        self.reply = reply
        #: The recipient, when the error concerns only one.
        self.recipient = recipient
        #: ``name[address]:port``.
        self.host = host
        #: The TLS session, if there was one.
        self.tls = tls
        #: The dialogue so far, redacted.
        self.transcript = transcript
        #: The result for each recipient, if the message was begun.
        self.report = report

    @property
    def in_doubt(self) -> bool:
        """True if it is unknown of a recipient whether the server has the message.

        Sending the message again may then make a second copy, and the error is not ``transient``.
        """
        return any(report.in_doubt for report in self._known())

    @property
    def transient(self) -> bool:
        """True if the whole may be tried again later, with no second copy for any recipient.

        That is so if the cause is ``temporary``, no recipient is in doubt and none was accepted.
        """
        accepted = any(report.accepted for report in self._known())
        return self.temporary and not accepted and not self.in_doubt

    def _known(self) -> tuple[DeliveryReport, ...]:
        """Return the reports of the messages in the call that failed."""
        return () if self.report is None else (self.report,)

    @property
    def enhanced(self) -> EnhancedStatus | None:
        """The enhanced status code of the reply, if there is one."""
        return self.reply.enhanced if self.reply else None

    def at(
        self: _Self,
        *,
        host: str | None = None,
        tls: TLSFacts | None = None,
        transcript: Transcript | None = None,
        report: DeliveryReport | None = None,
    ) -> _Self:
        """Fill in what is not known yet, and return this error."""
        self.host = self.host or host
        self.tls = self.tls or tls
        self.transcript = self.transcript or transcript
        self.report = self.report or report
        return self

    def copy(self: _Self) -> _Self:
        """Return this error for another message, without a report and with this one as its cause."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.args = self.args
        copy.report = None
        copy.__cause__ = self
        return copy

    def __str__(self) -> str:
        text = self.what
        if self._before_reply and self.command and self.command not in text:
            text += f" {self._before_reply} {due_reply(self.command)}"
        if self.host:
            text += f" {'by' if self.reply else self._before_host} {self.host}"
        why = str(self.reply) if self.reply else self.detail
        if why:
            text += f": {why}"
        if self.reply and self.detail:
            text += f" ({self.detail})"
        if self.remedy:
            text += f"; {self.remedy}"
        return printable(text, limit=1024)


def due_reply(command: object) -> str:
    """Return the words for the reply to *command*; the greeting answers none."""
    return "the greeting" if str(command) == "greeting" else f"the reply to {command}"


# -- input of the caller ------------------------------------------------------


class InvalidInput(SendmailError, ValueError):
    """An argument cannot be used; nothing was sent."""


class InvalidAddress(InvalidInput):
    """An address does not fit the grammar of RFC 5321 section 4.1.2."""


class InvalidMessage(InvalidInput):
    """The message, or its header, cannot be sent as it is."""


class InvalidServer(InvalidInput):
    """A server URL or a setting of a server cannot be used."""


# -- the connection ---------------------------------------------------------


class ConnectionFailed(SendmailError, ConnectionError):
    """The connection could not be made, or did not last."""

    temporary = True


class ConnectFailed(ConnectionFailed):
    """No address of the server could be reached, or its name could not be found."""

    remedy = "check host name and port, and that no firewall is in between"


class ConnectionClosed(ConnectionFailed):
    """The connection ended before the session did."""

    _before_reply = "before"


class ServiceClosing(ConnectionFailed):
    """The server is closing the connection (421)."""

    _before_reply = "in"


class SendTimeout(SendmailError, TimeoutError):
    """A phase took longer than its timeout."""

    temporary = True


class DeliveryCancelled(SendmailError):
    """The caller cancelled; ``report`` tells whether the message is in doubt."""

    temporary = True


# -- the session ------------------------------------------------------------


class ProtocolBreach(SendmailError):
    """The server broke the protocol; nothing further from it can be relied on."""

    temporary = True
    _before_reply = "in"


class UnexpectedResponse(ProtocolBreach):
    """A well-formed reply whose code makes no sense here."""


class ChunkingFailure(ProtocolBreach):
    """500 or 502 to BDAT: the server offers CHUNKING, and does not implement the command.

    It may have read the chunk as commands, so the connection is closed at once.
    """

    #: No other reply came: the server did nothing with the chunk, as far as is known.
    only_reply: bool = True


class InvalidBase64(ProtocolBreach):
    """A challenge in AUTH is not base64 (RFC 4954 section 4)."""


class CommandNotAllowed(SendmailError):
    """The command does not fit the state of the session; it was not sent."""

    connection_usable = True


# -- TLS --------------------------------------------------------------------


class TLSError(SendmailError):
    """TLS is required and was not established."""


class StartTLSUnavailable(TLSError):
    """The server does not offer STARTTLS, or refused it; no password and no mail was sent."""


class DANEUnavailable(TLSError):
    """DANE is required, and the server has no TLSA record that counts; nothing was sent."""


class TLSFailure(TLSError):
    """The handshake failed."""


class TLSAlert(TLSFailure):
    """The handshake was ended by an alert."""


class CertificateRejected(TLSFailure):
    """The certificate does not prove the identity of the server."""


class TLSClosed(TLSError, ConnectionError):
    """The connection ended during the handshake."""

    temporary = True


# -- AUTH -------------------------------------------------------------------


class AuthenticationError(SendmailError):
    """Authentication failed; no mail was sent."""


class UnsupportedMechanism(AuthenticationError):
    """No mechanism in common, or 504."""


class EncryptionRequired(AuthenticationError):
    """538: the mechanism needs TLS."""


class WeakMechanism(AuthenticationError):
    """534: the server requires a stronger mechanism."""


class AuthenticationRejected(AuthenticationError):
    """500, 501, 503 …: the server did not understand the exchange, or ended it."""


class AuthenticationFailed(AuthenticationError):
    """535: wrong user name, password or token."""

    remedy = "check user name and password; it was not tried again"


class TemporaryAuthenticationFailure(AuthenticationError):
    """454, 432 and other 4yz: the server cannot authenticate us now."""

    temporary = True


class ServerNotAuthentic(AuthenticationError):
    """The server did not prove that it has the password (SCRAM, RFC 5802)."""


# -- refusals ---------------------------------------------------------------


class Refused(SendmailError):
    """A command was refused; ``reply`` tells why."""

    connection_usable = True


class TemporaryFailure(Refused):
    """4yz: the same may work later."""

    temporary = True


class MailboxUnavailable(TemporaryFailure):
    """450."""


class ErrorProcessing(TemporaryFailure):
    """451."""


class ActionIgnored(TemporaryFailure):
    """452, or 552 for too many recipients: the server is short of storage, or there are too many recipients."""


class UnableToAccommodateParameters(TemporaryFailure):
    """455."""


class PermanentFailure(Refused):
    """5yz: the same will not work later."""


class AuthenticationRequired(AuthenticationError, Refused):
    """530: the server requires authentication, or TLS (RFC 3207 section 4)."""

    remedy = "give credentials, or TLS where the reply asks for STARTTLS"


class AllRecipientsRefused(Refused):
    """No recipient was accepted; ``report`` has the reply for each."""


class MessageTooLarge(InvalidMessage):
    """The message is larger than the server's SIZE (RFC 1870); it was not sent."""

    connection_usable = True


class ExtensionUnavailable(SendmailError):
    """The message or its envelope needs an extension that the server does not offer."""

    connection_usable = True


class MailerBusy(SendmailError):
    """Too many messages are waiting."""

    temporary = True
    remedy = "send fewer at once, or use send_many, which waits"


class MailerClosed(SendmailError):
    """The mailer is closed."""

    temporary = True


class DeliveryWithdrawn(SendmailError):
    """The sender withdrew the message before its end was written; no recipient has it.

    A relay withdraws a message whose lease has run out, because another relay may send it.
    """

    temporary = True


class DeliveryInDoubt(SendmailError):
    """The server may have the message or not; sending it again may make a second copy."""

    temporary = True
    in_doubt = True
    remedy = "the message may have been delivered; sending it again may make a second copy"


_TRANSIENT: dict[int, type[TemporaryFailure]] = {
    450: MailboxUnavailable,
    451: ErrorProcessing,
    452: ActionIgnored,
    455: UnableToAccommodateParameters,
}

_AUTH: dict[int, type[AuthenticationError]] = {
    504: UnsupportedMechanism,
    530: EncryptionRequired,
    534: WeakMechanism,
    535: AuthenticationFailed,
    538: EncryptionRequired,
}


def refusal(
    command: str,
    reply: Reply,
    *,
    phase: str | None = None,
    recipient: str | None = None,
    too_many: bool = False,
) -> SendmailError:
    """Return the error for a *reply* to *command* that is a refusal (4yz or 5yz).

    :param too_many: ``classify_reply`` found that the reply means too many recipients; a client
        treats a 552 with this meaning as a 452 (RFC 5321 section 4.5.3.1.10).
    """
    kind: type[SendmailError]
    if reply.code == 421:
        kind = ServiceClosing
    elif reply.code == 530:
        kind = AuthenticationRequired
    elif reply.transient:
        kind = _TRANSIENT.get(reply.code, TemporaryFailure)
    elif too_many:
        kind = ActionIgnored
    elif reply.permanent:
        kind = PermanentFailure
    else:
        kind = UnexpectedResponse
    return kind(
        f"{command} refused",
        phase=phase or command,
        command=command,
        reply=reply,
        recipient=recipient,
    )


#: For mechanisms without a password.
_AUTH_REMEDIES = {
    "EXTERNAL": "check that the server has the client certificate for this user; it was not tried again",
    "OAUTHBEARER": "check user name and token, and what the token allows",
    "XOAUTH2": "check user name and token, and what the token allows",
}


def authentication_refusal(mechanism: str, reply: Reply) -> SendmailError:
    """Return the error for a *reply* to AUTH that is not 235."""
    kind: type[SendmailError]
    if reply.code == 421:
        kind = ServiceClosing
    elif reply.transient:
        kind = TemporaryAuthenticationFailure
    elif reply.permanent:
        kind = _AUTH.get(reply.code, AuthenticationRejected)
    else:
        kind = UnexpectedResponse
    error = kind(
        f"AUTH {mechanism} refused", phase="AUTH", command=f"AUTH {mechanism}", reply=reply
    )
    if kind is AuthenticationFailed:
        error.remedy = _AUTH_REMEDIES.get(mechanism, error.remedy)
    return error
