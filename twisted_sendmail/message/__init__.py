"""Content of a message: sources, the header and its completion, MIME, trace fields, reports; pure."""

from twisted_sendmail.message.addresses import header_recipients, mailboxes
from twisted_sendmail.message.dsn import DSNAction, Report, ReportedRecipient
from twisted_sendmail.message.header import MAX_HEADER, Header
from twisted_sendmail.message.header_fixer import HeaderFixer, new_message_id
from twisted_sendmail.message.mime import OCTET_STREAM, Attachment, compose
from twisted_sendmail.message.prepared import Content, PreparedMessage, prepare, prepare_small
from twisted_sendmail.message.received import clause, folded, received_field
from twisted_sendmail.message.rewriting import Rewriting
from twisted_sendmail.message.source import Message

__all__ = [
    "MAX_HEADER",
    "OCTET_STREAM",
    "Attachment",
    "Content",
    "DSNAction",
    "Header",
    "HeaderFixer",
    "Message",
    "PreparedMessage",
    "Report",
    "ReportedRecipient",
    "Rewriting",
    "clause",
    "compose",
    "folded",
    "header_recipients",
    "mailboxes",
    "new_message_id",
    "prepare",
    "prepare_small",
    "received_field",
]
