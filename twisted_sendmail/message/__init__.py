"""Content of a message: sources, the header and its completion, MIME, reports; pure."""

from typing import TYPE_CHECKING

from twisted_sendmail.lazy_names import lazy_names

__all__ = [
    "FOLD_WIDTH",
    "AnyAddress",
    "AnyAddresses",
    "Attachment",
    "Content",
    "DSNAction",
    "Header",
    "HeaderFixer",
    "Message",
    "PreparedMessage",
    "Qualification",
    "Report",
    "ReportedRecipient",
    "Rewriting",
    "compose",
    "header_recipients",
    "mailboxes",
    "new_message_id",
    "prepare",
    "prepare_small",
]

if TYPE_CHECKING:
    from twisted_sendmail.message.addresses import header_recipients, mailboxes
    from twisted_sendmail.message.composition import AnyAddress, AnyAddresses, Attachment, compose
    from twisted_sendmail.message.dsn import DSNAction, Report, ReportedRecipient
    from twisted_sendmail.message.header import FOLD_WIDTH, Header
    from twisted_sendmail.message.header_fixer import HeaderFixer, new_message_id
    from twisted_sendmail.message.prepared import Content, PreparedMessage, prepare, prepare_small
    from twisted_sendmail.message.qualification import Qualification
    from twisted_sendmail.message.rewriting import Rewriting
    from twisted_sendmail.message.source import Message
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "addresses": "header_recipients mailboxes",
            "composition": "AnyAddress AnyAddresses Attachment compose",
            "dsn": "DSNAction Report ReportedRecipient",
            "header": "FOLD_WIDTH Header",
            "header_fixer": "HeaderFixer new_message_id",
            "prepared": "Content PreparedMessage prepare prepare_small",
            "qualification": "Qualification",
            "rewriting": "Rewriting",
            "source": "Message",
        },
    )
