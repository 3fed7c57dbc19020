"""The error tree: every way in which mail is not sent, each with a class.

Every error says whether the same may be tried again (``transient``), whether the server
may have the message (``in_doubt``) and whether the connection may be used for another
message (``connection_usable``).  Where people already catch a builtin, the error is one too.

This module classifies replies that were refusals; it never decides what to do.
RFC 5321 section 4.2.3, RFC 4954 section 6 (AUTH codes), RFC 3207 (STARTTLS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.root_error import (
    InvalidAddress,
    InvalidInput,
    InvalidMessage,
    InvalidServer,
    SendmailError,
)

if TYPE_CHECKING:
    from twisted_sendmail.smtp.reply import Reply

__all__ = [
    "ActionIgnored",
    "AllRecipientsRefused",
    "AuthenticationError",
    "AuthenticationFailed",
    "AuthenticationRejected",
    "AuthenticationRequired",
    "CertificateRejected",
    "CommandNotAllowed",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionFailed",
    "DeliveryCancelled",
    "DeliveryInDoubt",
    "EncryptionRequired",
    "ErrorProcessing",
    "ExtensionUnavailable",
    "InvalidAddress",
    "InvalidBase64",
    "InvalidInput",
    "InvalidMessage",
    "InvalidServer",
    "MailboxUnavailable",
    "MailerBusy",
    "MailerClosed",
    "MessageTooLarge",
    "PermanentFailure",
    "ProtocolBreach",
    "Refused",
    "SendTimeout",
    "SendmailError",
    "ServerNotAuthentic",
    "ServiceClosing",
    "StartTLSUnavailable",
    "TLSAlert",
    "TLSClosed",
    "TLSError",
    "TLSFailure",
    "TemporaryAuthenticationFailure",
    "TemporaryFailure",
    "UnableToAccommodateParameters",
    "UnexpectedResponse",
    "UnsupportedMechanism",
    "WeakMechanism",
    "authentication_refusal",
    "refusal",
]


# -- the connection ---------------------------------------------------------


class ConnectionFailed(SendmailError, ConnectionError):
    """The connection could not be made, or did not last."""

    temporary = True


class ConnectFailed(ConnectionFailed):
    """No address of the server could be reached, or its name could not be found."""

    remedy = "check host name and port, and that no firewall is in between"


class ConnectionClosed(ConnectionFailed):
    """The connection ended before the conversation did."""


class ServiceClosing(ConnectionFailed):
    """The server is closing the connection (421)."""


class SendTimeout(SendmailError, TimeoutError):
    """Something did not happen in the time given for it."""

    temporary = True


class DeliveryCancelled(SendmailError):
    """The caller cancelled; ``report`` says whether the message is in doubt."""

    temporary = True


# -- the conversation -------------------------------------------------------


class ProtocolBreach(SendmailError):
    """The server broke the protocol; nothing more it says can be relied on."""

    temporary = True


class UnexpectedResponse(ProtocolBreach):
    """A well-formed reply whose code makes no sense here."""


class InvalidBase64(ProtocolBreach):
    """A challenge in AUTH is not base64 (RFC 4954 section 4)."""


class CommandNotAllowed(SendmailError):
    """The command does not fit the state of the session; it was not sent."""

    connection_usable = True


# -- TLS --------------------------------------------------------------------


class TLSError(SendmailError):
    """There is no TLS where there has to be."""


class StartTLSUnavailable(TLSError):
    """The server does not offer STARTTLS, or refused it; no password and no mail was sent."""


class TLSFailure(TLSError):
    """The handshake failed."""


class TLSAlert(TLSFailure):
    """The handshake was ended by an alert."""


class CertificateRejected(TLSFailure):
    """The certificate does not prove that this is the server asked for."""


class TLSClosed(TLSError, ConnectionError):
    """The connection ended during the handshake."""

    temporary = True


# -- AUTH -------------------------------------------------------------------


class AuthenticationError(SendmailError):
    """The server does not know us; no mail was sent."""


class UnsupportedMechanism(AuthenticationError):
    """No mechanism in common, or 504."""


class EncryptionRequired(AuthenticationError):
    """538: the mechanism needs TLS."""


class WeakMechanism(AuthenticationError):
    """534: the server wants a stronger mechanism."""


class AuthenticationRejected(AuthenticationError):
    """500, 501, 503 …: the server did not understand, or broke off, the exchange."""


class AuthenticationFailed(AuthenticationError):
    """535: wrong user name, password or token."""

    remedy = "check user name and password; it was not tried again"


class TemporaryAuthenticationFailure(AuthenticationError):
    """454, 432 and other 4yz: the server cannot tell now."""

    temporary = True


class ServerNotAuthentic(AuthenticationError):
    """The server did not prove that it knows the password (SCRAM, RFC 5802)."""


# -- refusals ---------------------------------------------------------------


class Refused(SendmailError):
    """A command was refused; ``reply`` says why."""

    connection_usable = True


class TemporaryFailure(Refused):
    """4yz: the same may work later."""

    temporary = True


class MailboxUnavailable(TemporaryFailure):
    """450."""


class ErrorProcessing(TemporaryFailure):
    """451."""


class ActionIgnored(TemporaryFailure):
    """452: the server is short of storage, or there are too many recipients."""


class UnableToAccommodateParameters(TemporaryFailure):
    """455."""


class PermanentFailure(Refused):
    """5yz: the same will not work later."""


class AuthenticationRequired(AuthenticationError, Refused):
    """530: the server wants us to authenticate first, or to start TLS (RFC 3207 section 4)."""

    remedy = "give credentials, or TLS where the reply asks for STARTTLS"


class AllRecipientsRefused(Refused):
    """Nobody was accepted; ``report`` has the reply for each recipient."""


class MessageTooLarge(InvalidMessage):
    """The message is larger than the server's SIZE (RFC 1870); it was not sent."""

    connection_usable = True


class ExtensionUnavailable(SendmailError):
    """The message or its envelope needs an extension the server does not offer."""

    connection_usable = True


class MailerBusy(SendmailError):
    """Too many messages wait already."""

    temporary = True
    remedy = "send fewer at once, or use send_many, which waits"


class MailerClosed(SendmailError):
    """The mailer takes no more messages."""

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
    command: str, reply: Reply, *, phase: str | None = None, recipient: str | None = None
) -> SendmailError:
    """The error for a *reply* to *command* that is a refusal (4yz or 5yz)."""
    kind: type[SendmailError]
    if reply.code == 421:
        kind = ServiceClosing
    elif reply.code == 530:
        kind = AuthenticationRequired
    elif reply.transient:
        kind = _TRANSIENT.get(reply.code, TemporaryFailure)
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


def authentication_refusal(mechanism: str, reply: Reply) -> SendmailError:
    """The error for a *reply* to AUTH that is not 235."""
    kind: type[SendmailError]
    if reply.code == 421:
        kind = ServiceClosing
    elif reply.transient:
        kind = TemporaryAuthenticationFailure
    elif reply.permanent:
        kind = _AUTH.get(reply.code, AuthenticationRejected)
    else:
        kind = UnexpectedResponse
    return kind(f"AUTH {mechanism} refused", phase="AUTH", command=f"AUTH {mechanism}", reply=reply)
