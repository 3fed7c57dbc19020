"""Content of a message: sources, the header and its completion, MIME, reports; pure."""

from typing import TYPE_CHECKING

from twisted_sendmail.lazy_names import lazy_names

__all__ = [
    "FOLD_WIDTH",
    "AnyAddress",
    "AnyAddresses",
    "Attachment",
    "Content",
    "DKIMKey",
    "DKIMSigner",
    "DSNAction",
    "Header",
    "HeaderFixer",
    "KeyProvider",
    "Message",
    "MessagePart",
    "PreparedMessage",
    "Qualification",
    "Report",
    "ReportedRecipient",
    "Rewriting",
    "SigningUnavailable",
    "UnsignableMessage",
    "comment_end",
    "compose",
    "dkim_selector",
    "from_domain",
    "header_recipients",
    "inspect_message",
    "is_signed_by",
    "kept",
    "mailboxes",
    "new_message_id",
    "prepare",
    "prepare_small",
    "signed",
]

if TYPE_CHECKING:
    from twisted_sendmail.message.addresses import comment_end, header_recipients, mailboxes
    from twisted_sendmail.message.composition import AnyAddress, AnyAddresses, Attachment, compose
    from twisted_sendmail.message.dkim import (
        DKIMKey,
        DKIMSigner,
        KeyProvider,
        SigningUnavailable,
        UnsignableMessage,
        dkim_selector,
        from_domain,
        is_signed_by,
    )
    from twisted_sendmail.message.dsn import DSNAction, Report, ReportedRecipient
    from twisted_sendmail.message.header import FOLD_WIDTH, Header
    from twisted_sendmail.message.header_fixer import HeaderFixer, new_message_id
    from twisted_sendmail.message.prepared import Content, PreparedMessage, prepare, prepare_small
    from twisted_sendmail.message.qualification import Qualification
    from twisted_sendmail.message.rewriting import Rewriting
    from twisted_sendmail.message.signing import kept, signed
    from twisted_sendmail.message.source import Message
    from twisted_sendmail.message.structure import MessagePart, inspect_message
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "addresses": "comment_end header_recipients mailboxes",
            "composition": "AnyAddress AnyAddresses Attachment compose",
            "dkim": """
                DKIMKey DKIMSigner KeyProvider SigningUnavailable UnsignableMessage
                dkim_selector from_domain is_signed_by""",
            "dsn": "DSNAction Report ReportedRecipient",
            "header": "FOLD_WIDTH Header",
            "header_fixer": "HeaderFixer new_message_id",
            "prepared": "Content PreparedMessage prepare prepare_small",
            "qualification": "Qualification",
            "rewriting": "Rewriting",
            "signing": "kept signed",
            "source": "Message",
            "structure": "MessagePart inspect_message",
        },
    )
