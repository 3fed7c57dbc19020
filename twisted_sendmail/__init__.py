"""Send mail from Twisted programs: submission over verified TLS, or a clear error.

This module lists every public name; nothing inside the package imports from it.  A name is imported
on first use, so that programs without Twisted can use the pure core.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from twisted_sendmail.lazy_names import lazy_names

if TYPE_CHECKING:
    from twisted_sendmail.client.connect import open_session
    from twisted_sendmail.client.delivery_job import deliver
    from twisted_sendmail.client.dns_lookup import DNSResolver
    from twisted_sendmail.client.mailer import (
        Mailer,
        MailerService,
        MailerStats,
        MailSender,
        Sending,
        many,
    )
    from twisted_sendmail.client.pool import PoolLimits
    from twisted_sendmail.client.probe import ProbeResult, probe_server
    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.server_config import SubmissionServer
    from twisted_sendmail.client.submission import sendmail, submit
    from twisted_sendmail.client.timeouts import Cancelled, Timeouts
    from twisted_sendmail.client.tls import ServerVerifier, TLSPolicy, TLSTrust
    from twisted_sendmail.message.composition import Attachment, compose
    from twisted_sendmail.message.dkim import DKIMKey, SigningUnavailable, UnsignableMessage
    from twisted_sendmail.message.structure import MessagePart, inspect_message
    from twisted_sendmail.queue.signing import DKIMDomain
    from twisted_sendmail.relay.retry_policy import RetryPolicy
    from twisted_sendmail.relay.send import FinalReport, Queued
    from twisted_sendmail.relay.service import RelayService
    from twisted_sendmail.relay.settings import RelaySettings, RouteSettings
    from twisted_sendmail.sasl.credentials import Credentials, Token, TokenSource
    from twisted_sendmail.sasl.mechanism import Mechanism
    from twisted_sendmail.sasl.negotiation import MECHANISMS
    from twisted_sendmail.server.auth import AuthThrottle, PortalAccounts
    from twisted_sendmail.server.connection_info import ConnectionInfo
    from twisted_sendmail.server.factory import (
        ConnectionCounter,
        ConnectionLimits,
        SMTPServerFactory,
    )
    from twisted_sendmail.server.networks import Networks
    from twisted_sendmail.server.password_file import HashedAccounts, PasswordFile, password_entry
    from twisted_sendmail.server.receiver import Receiver
    from twisted_sendmail.server.timeouts import ServerTimeouts
    from twisted_sendmail.server.tls import ServerTLS
    from twisted_sendmail.server.user_rates import UserRates
    from twisted_sendmail.smtp.address import ForwardPath, Mailbox, ReversePath
    from twisted_sendmail.smtp.client import ClientSession
    from twisted_sendmail.smtp.envelope import Envelope, Recipient, UnusableRecipient
    from twisted_sendmail.smtp.errors import (
        ActionIgnored,
        AllRecipientsRefused,
        AuthenticationError,
        AuthenticationFailed,
        AuthenticationRejected,
        AuthenticationRequired,
        CertificateRejected,
        ChunkingFailure,
        CommandNotAllowed,
        ConnectFailed,
        ConnectionClosed,
        ConnectionFailed,
        DANEUnavailable,
        DeliveryCancelled,
        DeliveryInDoubt,
        DeliveryWithdrawn,
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
    from twisted_sendmail.smtp.extensions import (
        Extension,
        ExtensionCommand,
        ExtensionParameter,
        MailParameters,
    )
    from twisted_sendmail.smtp.reply import EnhancedStatus, Reply
    from twisted_sendmail.smtp.result import (
        DeliveryReport,
        RecipientResult,
        RecipientStatus,
        require_acceptance,
    )
    from twisted_sendmail.smtp.server import ServerHandler, ServerSession
    from twisted_sendmail.smtp.server_settings import ServerSettings
    from twisted_sendmail.smtp.tls_facts import TLSFacts
    from twisted_sendmail.smtp.transcript import Transcript

__version__: str

__all__ = [
    "MECHANISMS",
    "ActionIgnored",
    "AllRecipientsRefused",
    "Attachment",
    "AuthThrottle",
    "AuthenticationError",
    "AuthenticationFailed",
    "AuthenticationRejected",
    "AuthenticationRequired",
    "Cancelled",
    "CertificateRejected",
    "ChunkingFailure",
    "ClientSession",
    "CommandNotAllowed",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionCounter",
    "ConnectionFailed",
    "ConnectionInfo",
    "ConnectionLimits",
    "Credentials",
    "DANEUnavailable",
    "DKIMDomain",
    "DKIMKey",
    "DNSResolver",
    "DeliveryCancelled",
    "DeliveryInDoubt",
    "DeliveryReport",
    "DeliveryWithdrawn",
    "EncryptionRequired",
    "EnhancedStatus",
    "Envelope",
    "ErrorProcessing",
    "Extension",
    "ExtensionCommand",
    "ExtensionParameter",
    "ExtensionUnavailable",
    "FinalReport",
    "ForwardPath",
    "HashedAccounts",
    "InvalidAddress",
    "InvalidBase64",
    "InvalidInput",
    "InvalidMessage",
    "InvalidServer",
    "MailParameters",
    "MailSender",
    "Mailbox",
    "MailboxUnavailable",
    "Mailer",
    "MailerBusy",
    "MailerClosed",
    "MailerService",
    "MailerStats",
    "Mechanism",
    "MessagePart",
    "MessageTooLarge",
    "Networks",
    "PasswordFile",
    "PermanentFailure",
    "PoolLimits",
    "PortalAccounts",
    "ProbeResult",
    "ProtocolBreach",
    "Queued",
    "Receiver",
    "Recipient",
    "RecipientResult",
    "RecipientStatus",
    "Refused",
    "RelayService",
    "RelaySettings",
    "Reply",
    "RetryPolicy",
    "ReversePath",
    "RouteSettings",
    "SMTPServerFactory",
    "SendTimeout",
    "Sending",
    "SendmailError",
    "ServerHandler",
    "ServerNotAuthentic",
    "ServerSession",
    "ServerSettings",
    "ServerTLS",
    "ServerTimeouts",
    "ServerVerifier",
    "ServiceClosing",
    "SigningUnavailable",
    "StartTLSUnavailable",
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
    "Token",
    "TokenSource",
    "Transcript",
    "UnableToAccommodateParameters",
    "UnexpectedResponse",
    "UnsignableMessage",
    "UnsupportedMechanism",
    "UnusableRecipient",
    "UserRates",
    "WeakMechanism",
    "compose",
    "deliver",
    "inspect_message",
    "many",
    "open_session",
    "password_entry",
    "probe_server",
    "require_acceptance",
    "sendmail",
    "submit",
]

#: The public names of each module.
_MODULES = {
    "client.connect": "open_session",
    "client.protocol": "SubmissionProtocol",
    "client.timeouts": "Cancelled Timeouts",
    "client.tls": "ServerVerifier TLSPolicy TLSTrust",
    "client.delivery_job": "deliver",
    "server.auth": "AuthThrottle PortalAccounts",
    "server.timeouts": "ServerTimeouts",
    "server.factory": "ConnectionCounter ConnectionLimits SMTPServerFactory",
    "server.user_rates": "UserRates",
    "server.networks": "Networks",
    "server.password_file": "HashedAccounts PasswordFile password_entry",
    "server.connection_info": "ConnectionInfo",
    "server.receiver": "Receiver",
    "server.tls": "ServerTLS",
    "client.pool": "PoolLimits",
    "client.dns_lookup": "DNSResolver",
    "client.probe": "ProbeResult probe_server",
    "client.mailer": "MailSender Mailer MailerService MailerStats Sending many",
    "client.server_config": "SubmissionServer",
    "client.submission": "sendmail submit",
    "message.composition": "Attachment compose",
    "message.structure": "MessagePart inspect_message",
    "message.dkim": "DKIMKey SigningUnavailable UnsignableMessage",
    "queue.signing": "DKIMDomain",
    "relay.send": "FinalReport Queued",
    "relay.retry_policy": "RetryPolicy",
    "relay.service": "RelayService",
    "relay.settings": "RelaySettings RouteSettings",
    "sasl.negotiation": "MECHANISMS",
    "sasl.credentials": "Credentials Token TokenSource",
    "sasl.mechanism": "Mechanism",
    "smtp.address": "ForwardPath Mailbox ReversePath",
    "smtp.client": "ClientSession",
    "smtp.envelope": "Envelope Recipient UnusableRecipient",
    "smtp.errors": """
        ActionIgnored AllRecipientsRefused AuthenticationError AuthenticationFailed
        AuthenticationRejected AuthenticationRequired CertificateRejected ChunkingFailure
        CommandNotAllowed ConnectFailed ConnectionClosed ConnectionFailed DANEUnavailable
        DeliveryCancelled DeliveryInDoubt DeliveryWithdrawn
        EncryptionRequired ErrorProcessing ExtensionUnavailable InvalidAddress InvalidBase64
        InvalidInput InvalidMessage InvalidServer MailboxUnavailable MailerBusy MailerClosed
        MessageTooLarge PermanentFailure ProtocolBreach Refused SendmailError SendTimeout
        ServerNotAuthentic ServiceClosing StartTLSUnavailable TemporaryAuthenticationFailure
        TemporaryFailure TLSAlert TLSClosed TLSError TLSFailure
        UnableToAccommodateParameters UnexpectedResponse UnsupportedMechanism WeakMechanism""",
    "smtp.extensions": "Extension ExtensionCommand ExtensionParameter MailParameters",
    "smtp.result": "DeliveryReport RecipientResult RecipientStatus require_acceptance",
    "smtp.reply": "EnhancedStatus Reply",
    "smtp.server": "ServerHandler ServerSession",
    "smtp.server_settings": "ServerSettings",
    "smtp.tls_facts": "TLSFacts",
    "smtp.transcript": "Transcript",
}

_public_name = lazy_names(__name__, _MODULES)


def __getattr__(name: str) -> object:
    """Import a public name from its module (PEP 562)."""
    if name != "__version__":
        return _public_name(name)
    # Importing importlib.metadata takes a tenth of the time of a short command.
    value: object = import_module("importlib.metadata").version("twisted_sendmail")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
