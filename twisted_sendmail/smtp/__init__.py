"""The language of SMTP as pure values, parsers and machines: no Twisted, sockets, files, threads or clock."""

from typing import TYPE_CHECKING

from twisted_sendmail.lazy_names import lazy_names

__all__ = [
    "DERIVED_EXTENSIONS",
    "DOUBLED_CR",
    "EHLO_UNKNOWN",
    "EXTENSIONS",
    "MAX_DOMAIN",
    "MAX_FIELDS",
    "MAX_HEADER",
    "MAX_HOPS",
    "MAX_ORCPT",
    "MAX_TEXT_LINE",
    "MECHANISM_NAME",
    "NO_PARAMETERS",
    "PENDING",
    "TOO_MANY_HOPS",
    "AllRecipientsRefused",
    "AnyRecipient",
    "Auth",
    "AuthCancel",
    "AuthLine",
    "AuthenticationError",
    "AuthenticationFailed",
    "AuthenticationRejected",
    "Bdat",
    "Canonicalizer",
    "Capabilities",
    "CertificateRejected",
    "ChunkingFailure",
    "ClientSession",
    "ClientState",
    "Command",
    "CommandGroup",
    "CommandNotAllowed",
    "CommandResult",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionFailed",
    "ContentCommand",
    "ContentReader",
    "DANEUnavailable",
    "Data",
    "DeliveryCancelled",
    "DeliveryInDoubt",
    "DeliveryReport",
    "DeliveryWithdrawn",
    "Envelope",
    "Extension",
    "ExtensionCommand",
    "ExtensionParameter",
    "ExtensionUnavailable",
    "ForwardPath",
    "HeaderCounter",
    "Hello",
    "InvalidAddress",
    "InvalidBase64",
    "InvalidInput",
    "InvalidMessage",
    "InvalidServer",
    "LineBreaker",
    "LoneDot",
    "LongLines",
    "Mail",
    "MailParameters",
    "Mailbox",
    "MailerBusy",
    "MailerClosed",
    "MessageTooLarge",
    "Noop",
    "OtherCommand",
    "Parameters",
    "Pending",
    "ProtocolBreach",
    "Quit",
    "Rcpt",
    "Recipient",
    "RecipientResult",
    "RecipientStatus",
    "Repair",
    "Reply",
    "ReplyMeaning",
    "ReplySubject",
    "RestartCommand",
    "ReversePath",
    "Rset",
    "SendTimeout",
    "SendmailError",
    "ServerHandler",
    "ServerNotAuthentic",
    "ServerSession",
    "ServerSettings",
    "ServerState",
    "StartTLS",
    "StartTLSUnavailable",
    "TLSAlert",
    "TLSClosed",
    "TLSError",
    "TLSFacts",
    "TLSFailure",
    "TemporaryAuthenticationFailure",
    "TextModeRepair",
    "Transcript",
    "UnsupportedMechanism",
    "UnusableRecipient",
    "Verb",
    "ascii_domain",
    "authentication_refusal",
    "check_callable",
    "check_each",
    "check_flag",
    "check_path",
    "check_positive",
    "check_reactor",
    "check_texts",
    "check_type",
    "classify_reply",
    "domain_name",
    "due_reply",
    "full_url",
    "hop_count",
    "is_canonical",
    "is_loop",
    "long_line",
    "mail_command",
    "may_hold_url",
    "printable",
    "quoted",
    "quoted_forms",
    "rcpt_command",
    "recipient_results",
    "refusal",
    "refused_address",
    "refused_parameters",
    "require_acceptance",
    "section_end",
    "shown_argument",
    "shown_url",
    "smtputf8_refusal",
]

if TYPE_CHECKING:
    from twisted_sendmail.smtp.address import (
        ForwardPath,
        Mailbox,
        ReversePath,
        ascii_domain,
        domain_name,
        quoted,
    )
    from twisted_sendmail.smtp.arguments import (
        check_callable,
        check_each,
        check_flag,
        check_path,
        check_positive,
        check_reactor,
        check_texts,
        check_type,
    )
    from twisted_sendmail.smtp.capabilities import Capabilities
    from twisted_sendmail.smtp.client import ClientSession, CommandGroup, CommandResult
    from twisted_sendmail.smtp.client_states import ClientState
    from twisted_sendmail.smtp.commands import (
        MECHANISM_NAME,
        Auth,
        AuthCancel,
        AuthLine,
        Bdat,
        Command,
        ContentCommand,
        Data,
        Hello,
        LoneDot,
        Mail,
        Noop,
        OtherCommand,
        Parameters,
        Quit,
        Rcpt,
        RestartCommand,
        Rset,
        StartTLS,
        Verb,
    )
    from twisted_sendmail.smtp.data_encoding import (
        DOUBLED_CR,
        Canonicalizer,
        LineBreaker,
        LongLines,
        Repair,
        TextModeRepair,
        is_canonical,
        long_line,
    )
    from twisted_sendmail.smtp.data_reader import ContentReader, HeaderCounter
    from twisted_sendmail.smtp.envelope import (
        AnyRecipient,
        Envelope,
        Recipient,
        UnusableRecipient,
    )
    from twisted_sendmail.smtp.envelope_commands import mail_command, rcpt_command, smtputf8_refusal
    from twisted_sendmail.smtp.errors import (
        AllRecipientsRefused,
        AuthenticationError,
        AuthenticationFailed,
        AuthenticationRejected,
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
        ExtensionUnavailable,
        InvalidAddress,
        InvalidBase64,
        InvalidInput,
        InvalidMessage,
        InvalidServer,
        MailerBusy,
        MailerClosed,
        MessageTooLarge,
        ProtocolBreach,
        SendmailError,
        SendTimeout,
        ServerNotAuthentic,
        StartTLSUnavailable,
        TemporaryAuthenticationFailure,
        TLSAlert,
        TLSClosed,
        TLSError,
        TLSFailure,
        UnsupportedMechanism,
        authentication_refusal,
        due_reply,
        refusal,
    )
    from twisted_sendmail.smtp.escape import printable
    from twisted_sendmail.smtp.extensions import (
        DERIVED_EXTENSIONS,
        NO_PARAMETERS,
        Extension,
        ExtensionCommand,
        ExtensionParameter,
        MailParameters,
    )
    from twisted_sendmail.smtp.header_section import (
        TOO_MANY_HOPS,
        hop_count,
        is_loop,
        section_end,
    )
    from twisted_sendmail.smtp.limits import (
        MAX_DOMAIN,
        MAX_FIELDS,
        MAX_HEADER,
        MAX_HOPS,
        MAX_ORCPT,
        MAX_TEXT_LINE,
    )
    from twisted_sendmail.smtp.redaction import (
        full_url,
        may_hold_url,
        quoted_forms,
        shown_argument,
        shown_url,
    )
    from twisted_sendmail.smtp.reply import Reply
    from twisted_sendmail.smtp.reply_meaning import (
        EHLO_UNKNOWN,
        ReplyMeaning,
        ReplySubject,
        classify_reply,
        refused_parameters,
    )
    from twisted_sendmail.smtp.result import (
        DeliveryReport,
        RecipientResult,
        RecipientStatus,
        recipient_results,
        refused_address,
        require_acceptance,
    )
    from twisted_sendmail.smtp.server import PENDING, Pending, ServerHandler, ServerSession
    from twisted_sendmail.smtp.server_settings import EXTENSIONS, ServerSettings
    from twisted_sendmail.smtp.server_states import ServerState
    from twisted_sendmail.smtp.tls_facts import TLSFacts
    from twisted_sendmail.smtp.transcript import Transcript
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "address": "ForwardPath Mailbox ReversePath ascii_domain domain_name quoted",
            "arguments": "check_callable check_each check_flag check_path check_positive check_reactor check_texts check_type",
            "capabilities": "Capabilities",
            "client": "ClientSession CommandGroup CommandResult",
            "client_states": "ClientState",
            "commands": """
                Auth AuthCancel AuthLine Bdat Command ContentCommand Data Hello
                LoneDot Mail MECHANISM_NAME Noop OtherCommand Parameters Quit Rcpt RestartCommand
                Rset StartTLS Verb""",
            "data_encoding": """
                Canonicalizer DOUBLED_CR LineBreaker LongLines Repair TextModeRepair long_line
                is_canonical""",
            "data_reader": "ContentReader HeaderCounter",
            "header_section": "TOO_MANY_HOPS hop_count is_loop section_end",
            "envelope": "AnyRecipient Envelope Recipient UnusableRecipient",
            "errors": """
                AllRecipientsRefused AuthenticationError AuthenticationFailed AuthenticationRejected
                CertificateRejected CommandNotAllowed ConnectFailed ConnectionClosed
                ConnectionFailed DANEUnavailable DeliveryCancelled DeliveryInDoubt DeliveryWithdrawn
                ChunkingFailure ExtensionUnavailable InvalidAddress InvalidBase64 InvalidInput
                InvalidMessage InvalidServer MailerBusy MailerClosed MessageTooLarge
                ProtocolBreach SendmailError SendTimeout ServerNotAuthentic
                StartTLSUnavailable TemporaryAuthenticationFailure TLSAlert
                TLSClosed TLSError TLSFailure UnsupportedMechanism
                authentication_refusal due_reply refusal""",
            "escape": "printable",
            "extensions": """
                DERIVED_EXTENSIONS NO_PARAMETERS Extension ExtensionCommand
                ExtensionParameter MailParameters""",
            "limits": """
                MAX_DOMAIN MAX_FIELDS MAX_HEADER MAX_HOPS MAX_ORCPT MAX_TEXT_LINE""",
            "redaction": "full_url may_hold_url quoted_forms shown_argument shown_url",
            "reply": "Reply",
            "reply_meaning": "EHLO_UNKNOWN ReplyMeaning ReplySubject classify_reply refused_parameters",
            "envelope_commands": "mail_command rcpt_command smtputf8_refusal",
            "result": """
                DeliveryReport RecipientResult RecipientStatus recipient_results refused_address
                require_acceptance""",
            "server": "PENDING Pending ServerHandler ServerSession",
            "server_settings": "EXTENSIONS ServerSettings",
            "server_states": "ServerState",
            "tls_facts": "TLSFacts",
            "transcript": "Transcript",
        },
    )
