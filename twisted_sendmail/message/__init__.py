"""The letter itself: what can be sent, what submission adds to it, what is read from its header: pure."""

from twisted_sendmail.message.addresses import mailboxes
from twisted_sendmail.message.compose import UNKNOWN, Attachment, compose
from twisted_sendmail.message.content import Content
from twisted_sendmail.message.dsn import DSNAction, Report, ReportedRecipient
from twisted_sendmail.message.header import MAX_HEADER, Field, Header
from twisted_sendmail.message.header_fixups import (
    DAEMON,
    HeaderFixer,
    complete_as_it_is,
    from_field,
)
from twisted_sendmail.message.prepared import PreparedMessage, prepare
from twisted_sendmail.message.ready import ready_letter
from twisted_sendmail.message.received import Received, clause, folded
from twisted_sendmail.message.rewriting import Rewriting
from twisted_sendmail.message.source import Message
from twisted_sendmail.message.submission import completed, new_message_id, recipients_of

__all__ = [
    "DAEMON",
    "MAX_HEADER",
    "UNKNOWN",
    "Attachment",
    "Content",
    "DSNAction",
    "Field",
    "Header",
    "HeaderFixer",
    "Message",
    "PreparedMessage",
    "Received",
    "Report",
    "ReportedRecipient",
    "Rewriting",
    "clause",
    "complete_as_it_is",
    "completed",
    "compose",
    "folded",
    "from_field",
    "mailboxes",
    "new_message_id",
    "prepare",
    "ready_letter",
    "recipients_of",
]
