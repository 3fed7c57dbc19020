"""Send mail from Twisted programs: submission over TLS, right, or with a clear error.

Everything public is named here, once; nothing inside the package imports from here.
A name is imported when it is first asked for, so that the pure core can be used by
programs that have no use for Twisted.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_sendmail.client.connection import Cancelled
    from twisted_sendmail.client.delivery import deliver
    from twisted_sendmail.client.opening import Opening, open_session
    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.timeouts import Timeouts
    from twisted_sendmail.client.tls_policy import TLSPolicy, TLSTrust
    from twisted_sendmail.client.tls_session import ServerJudge
    from twisted_sendmail.client.transaction import transact
    from twisted_sendmail.ingress.accounts import HashedAccounts
    from twisted_sendmail.ingress.auth_throttle import AuthThrottle
    from twisted_sendmail.ingress.deadlines import Deadlines
    from twisted_sendmail.ingress.factory import ConnectionLimits, SMTPServerFactory
    from twisted_sendmail.ingress.networks import Networks
    from twisted_sendmail.ingress.password_file import PasswordFile
    from twisted_sendmail.ingress.portal import PortalAccounts
    from twisted_sendmail.ingress.receiver import Connection, Receiver
    from twisted_sendmail.ingress.tls import ServerTLS
    from twisted_sendmail.mailer.limits import PoolLimits
    from twisted_sendmail.mailer.mailer import Mailer, MailerStats
    from twisted_sendmail.mailer.many import many
    from twisted_sendmail.mailer.sending import Sending
    from twisted_sendmail.mailer.service import MailerService
    from twisted_sendmail.mailer.submission_server import SubmissionServer
    from twisted_sendmail.mailer.submit import sendmail, submit
    from twisted_sendmail.relay.handle import FinalOutcome, FinalReport, Queued
    from twisted_sendmail.relay.schedule import Schedule
    from twisted_sendmail.relay.service import RelayService
    from twisted_sendmail.relay.settings import RelaySettings, RouteSettings
    from twisted_sendmail.sasl.choice import MECHANISMS
    from twisted_sendmail.sasl.credentials import Credentials
    from twisted_sendmail.sasl.mechanism import Mechanism
    from twisted_sendmail.smtp.address import ForwardPath, Mailbox, ReversePath
    from twisted_sendmail.smtp.client_session import ClientSession
    from twisted_sendmail.smtp.envelope import Envelope, Recipient
    from twisted_sendmail.smtp.errors import (
        ActionIgnored,
        AllRecipientsRefused,
        AuthenticationError,
        AuthenticationFailed,
        AuthenticationRejected,
        AuthenticationRequired,
        CertificateRejected,
        CommandNotAllowed,
        ConnectFailed,
        ConnectionClosed,
        ConnectionFailed,
        DeliveryCancelled,
        DeliveryInDoubt,
        EncryptionRequired,
        ErrorProcessing,
        ExtensionUnavailable,
        InvalidAddress,
        InvalidBase64,
        InvalidInput,
        InvalidMessage,
        InvalidServer,
        MailboxUnavailable,
        MailerBusy,
        MailerClosed,
        MessageTooLarge,
        PermanentFailure,
        ProtocolBreach,
        Refused,
        SendmailError,
        SendTimeout,
        ServerNotAuthentic,
        ServiceClosing,
        StartTLSUnavailable,
        TemporaryAuthenticationFailure,
        TemporaryFailure,
        TLSAlert,
        TLSClosed,
        TLSError,
        TLSFailure,
        UnableToAccommodateParameters,
        UnexpectedResponse,
        UnsupportedMechanism,
        WeakMechanism,
    )
    from twisted_sendmail.smtp.outcome import DeliveryReport, Outcome, Status
    from twisted_sendmail.smtp.reply import EnhancedStatus, Reply
    from twisted_sendmail.smtp.server import ServerHandler, ServerSession
    from twisted_sendmail.smtp.server_settings import ServerSettings
    from twisted_sendmail.smtp.tls_facts import TLSFacts
    from twisted_sendmail.smtp.transcript import Transcript

__version__ = version("twisted_sendmail")

__all__ = [
    "MECHANISMS",
    "ActionIgnored",
    "AllRecipientsRefused",
    "AuthThrottle",
    "AuthenticationError",
    "AuthenticationFailed",
    "AuthenticationRejected",
    "AuthenticationRequired",
    "Cancelled",
    "CertificateRejected",
    "ClientSession",
    "CommandNotAllowed",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionLimits",
    "Credentials",
    "Deadlines",
    "DeliveryCancelled",
    "DeliveryInDoubt",
    "DeliveryReport",
    "EncryptionRequired",
    "EnhancedStatus",
    "Envelope",
    "ErrorProcessing",
    "ExtensionUnavailable",
    "FinalOutcome",
    "FinalReport",
    "ForwardPath",
    "HashedAccounts",
    "InvalidAddress",
    "InvalidBase64",
    "InvalidInput",
    "InvalidMessage",
    "InvalidServer",
    "Mailbox",
    "MailboxUnavailable",
    "Mailer",
    "MailerBusy",
    "MailerClosed",
    "MailerService",
    "MailerStats",
    "Mechanism",
    "MessageTooLarge",
    "Networks",
    "Opening",
    "Outcome",
    "PasswordFile",
    "PermanentFailure",
    "PoolLimits",
    "PortalAccounts",
    "ProtocolBreach",
    "Queued",
    "Receiver",
    "Recipient",
    "Refused",
    "RelayService",
    "RelaySettings",
    "Reply",
    "ReversePath",
    "RouteSettings",
    "SMTPServerFactory",
    "Schedule",
    "SendTimeout",
    "Sending",
    "SendmailError",
    "ServerHandler",
    "ServerJudge",
    "ServerNotAuthentic",
    "ServerSession",
    "ServerSettings",
    "ServerTLS",
    "ServiceClosing",
    "StartTLSUnavailable",
    "Status",
    "SubmissionProtocol",
    "SubmissionServer",
    "TLSAlert",
    "TLSClosed",
    "TLSError",
    "TLSFacts",
    "TLSFailure",
    "TLSPolicy",
    "TLSTrust",
    "TemporaryAuthenticationFailure",
    "TemporaryFailure",
    "Timeouts",
    "Transcript",
    "UnableToAccommodateParameters",
    "UnexpectedResponse",
    "UnsupportedMechanism",
    "WeakMechanism",
    "deliver",
    "many",
    "open_session",
    "sendmail",
    "submit",
    "transact",
]

#: Where each public name lives.
_ROOMS = {
    "twisted_sendmail.client.connection": ("Cancelled",),
    "twisted_sendmail.client.delivery": ("deliver",),
    "twisted_sendmail.client.opening": ("Opening", "open_session"),
    "twisted_sendmail.client.protocol": ("SubmissionProtocol",),
    "twisted_sendmail.client.timeouts": ("Timeouts",),
    "twisted_sendmail.client.tls_policy": ("TLSPolicy", "TLSTrust"),
    "twisted_sendmail.client.tls_session": ("ServerJudge",),
    "twisted_sendmail.client.transaction": ("transact",),
    "twisted_sendmail.ingress.accounts": ("HashedAccounts",),
    "twisted_sendmail.ingress.auth_throttle": ("AuthThrottle",),
    "twisted_sendmail.ingress.deadlines": ("Deadlines",),
    "twisted_sendmail.ingress.factory": ("ConnectionLimits", "SMTPServerFactory"),
    "twisted_sendmail.ingress.networks": ("Networks",),
    "twisted_sendmail.ingress.password_file": ("PasswordFile",),
    "twisted_sendmail.ingress.portal": ("PortalAccounts",),
    "twisted_sendmail.ingress.receiver": ("Connection", "Receiver"),
    "twisted_sendmail.ingress.tls": ("ServerTLS",),
    "twisted_sendmail.mailer.limits": ("PoolLimits",),
    "twisted_sendmail.mailer.mailer": ("Mailer", "MailerStats"),
    "twisted_sendmail.mailer.many": ("many",),
    "twisted_sendmail.mailer.sending": ("Sending",),
    "twisted_sendmail.mailer.service": ("MailerService",),
    "twisted_sendmail.mailer.submission_server": ("SubmissionServer",),
    "twisted_sendmail.mailer.submit": ("sendmail", "submit"),
    "twisted_sendmail.relay.handle": ("FinalOutcome", "FinalReport", "Queued"),
    "twisted_sendmail.relay.schedule": ("Schedule",),
    "twisted_sendmail.relay.service": ("RelayService",),
    "twisted_sendmail.relay.settings": ("RelaySettings", "RouteSettings"),
    "twisted_sendmail.sasl.choice": ("MECHANISMS",),
    "twisted_sendmail.sasl.credentials": ("Credentials",),
    "twisted_sendmail.sasl.mechanism": ("Mechanism",),
    "twisted_sendmail.smtp.address": ("ForwardPath", "Mailbox", "ReversePath"),
    "twisted_sendmail.smtp.client_session": ("ClientSession",),
    "twisted_sendmail.smtp.envelope": ("Envelope", "Recipient"),
    "twisted_sendmail.smtp.errors": (
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
        "SendmailError",
        "SendTimeout",
        "ServerNotAuthentic",
        "ServiceClosing",
        "StartTLSUnavailable",
        "TemporaryAuthenticationFailure",
        "TemporaryFailure",
        "TLSAlert",
        "TLSClosed",
        "TLSError",
        "TLSFailure",
        "UnableToAccommodateParameters",
        "UnexpectedResponse",
        "UnsupportedMechanism",
        "WeakMechanism",
    ),
    "twisted_sendmail.smtp.outcome": ("DeliveryReport", "Outcome", "Status"),
    "twisted_sendmail.smtp.reply": ("EnhancedStatus", "Reply"),
    "twisted_sendmail.smtp.server": ("ServerHandler", "ServerSession"),
    "twisted_sendmail.smtp.server_settings": ("ServerSettings",),
    "twisted_sendmail.smtp.tls_facts": ("TLSFacts",),
    "twisted_sendmail.smtp.transcript": ("Transcript",),
}

_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    """Import the room a public name lives in (PEP 562)."""
    room = _HOME.get(name)
    if room is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
