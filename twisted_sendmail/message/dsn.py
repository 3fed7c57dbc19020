"""A report about a message: what became of it, for its sender and for his programs.

``multipart/report`` in three parts: a text for people, ``message/delivery-status`` for
programs, and the message or its header.  It is written octet for octet, so that what is
returned is what was sent.  What servers said is escaped: nothing of it becomes a field,
a line or a control character of ours.

Who is told, when and how often is not decided here; a report goes out with the null
reverse-path.

RFC 3464 (the fields), RFC 6522 (multipart/report), RFC 3461 sections 4.3 and 6 (what is
returned), RFC 3834 (Auto-Submitted), RFC 6533 (addresses beyond ASCII).
"""

from __future__ import annotations

import enum
import re
import secrets
from dataclasses import dataclass
from email.utils import format_datetime
from functools import cached_property
from typing import TYPE_CHECKING

from twisted_sendmail.message.header import Header
from twisted_sendmail.message.header_fixer import (
    MAILER_DAEMON,
    from_field,
    message_id,
    new_message_id,
)
from twisted_sendmail.message.report_text import Facts, for_people, quoted_printable
from twisted_sendmail.message.returned import MAX_RETURNED, Returned
from twisted_sendmail.smtp import InvalidInput, Mailbox, printable

if TYPE_CHECKING:
    from datetime import datetime

    from twisted_sendmail.smtp import Recipient

#: Where lines are folded (RFC 5322 section 2.1.1).
WIDTH = 78
#: Octets of all that is for programs.  A sender can be forged: a report must not be much larger
#: than the message and its recipients.  Recipients beyond it are counted only.
MAX_STATUS = 128 * 1024
#: Characters of one server's reply, and of all replies together if there are many recipients.
MAX_REPLY = 1000
MAX_REPLIES = 64 * 1024
# A reply is not cut below this.
_SHORT_REPLY = 120

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}\Z")
_REPLY = re.compile(r"[2-5][0-9][0-9](?:[ -]|\Z)")
_HOST = re.compile(r"[A-Za-z0-9._-]+\Z")
_REFERENCE = re.compile(r"<[!-;=?-~]{1,500}>\Z")


class DSNAction(enum.Enum):
    """What was done for a recipient (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    #: It went to a server that does not report.
    RELAYED = "relayed"
    DELIVERED = "delivered"
    #: It went on to several, and nothing more will be heard.
    EXPANDED = "expanded"


_DEFAULT_STATUS = {DSNAction.FAILED: "5.0.0", DSNAction.DELAYED: "4.0.0"}
_SUBJECTS = {
    DSNAction.FAILED: "Your mail could not be delivered",
    DSNAction.DELAYED: "Your mail is late, and still being tried",
    DSNAction.RELAYED: "Your mail was handed on",
    DSNAction.DELIVERED: "Your mail was delivered",
    DSNAction.EXPANDED: "Your mail was sent on to several",
}


@dataclass(frozen=True)
class ReportedRecipient:
    """What became of one recipient."""

    #: Whom it went to, with what was said of him (``orcpt``).
    recipient: Recipient
    action: DSNAction
    #: ``5.1.1``; what is none is left out for ``5.0.0``, ``4.0.0`` or ``2.0.0``.
    status: str | None = None
    #: What the server said, with its code; or what went wrong.
    reply: str | None = None
    #: Who said it: ``name[address]:port``.
    relay: str | None = None
    last_attempt: datetime | None = None
    #: For those who are late.
    will_retry_until: datetime | None = None

    @property
    def code(self) -> str:
        """The status, in any case."""
        if self.status is not None and _STATUS.match(self.status):
            return self.status
        return _DEFAULT_STATUS.get(self.action, "2.0.0")


@dataclass(frozen=True)
class Report:
    """One report.

    :raises InvalidInput: it is about nobody.
    """

    #: Our host name.
    name: str
    #: The sender of the message.
    to: Mailbox
    recipients: tuple[ReportedRecipient, ...]
    #: When the message came to us; with a time zone, like every time here.
    arrived: datetime
    #: When the report is made.
    now: datetime
    #: The content of the message, or as much of it as was read.
    content: bytes = b""
    #: ``content`` is all of it.
    whole: bool = False
    #: What the sender wants returned of it: ``FULL``, ``HDRS``, or nothing said.
    ret: str | None = None
    #: His name for the message.
    envid: str | None = None
    #: Our name for it.
    queue_id: str | None = None
    #: The Message-ID of the report; None makes one.
    message_id: str | None = None
    #: Octets of a message that is returned whole.
    max_returned: int = MAX_RETURNED

    def __post_init__(self) -> None:
        if not self.recipients:
            raise InvalidInput("a report cannot be made", detail="it is about no recipient")

    # Every field of every recipient asks.
    @cached_property
    def international(self) -> bool:
        """Does an address need the forms of RFC 6533?"""
        return self.to.needs_smtputf8 or any(
            each.recipient.path.needs_smtputf8 or not (each.recipient.orcpt or "").isascii()
            for each in self.recipients
        )

    @property
    def _reply_limit(self) -> int:
        """Characters of a recipient's reply that are told."""
        return min(MAX_REPLY, max(_SHORT_REPLY, MAX_REPLIES // len(self.recipients)))

    @property
    def action(self) -> DSNAction:
        """What it is about: the worst there is."""
        return min((each.action for each in self.recipients), key=list(DSNAction).index)

    def to_bytes(self) -> bytes:
        """The whole message, canonical."""
        returned = Returned.of(
            self.content,
            whole=self.whole and self.ret != "HDRS" and self.action is DSNAction.FAILED,
            limit=self.max_returned,
        )
        parts = [self._text(returned), self._status(), returned.part]
        boundary = f"=_{secrets.token_hex(16)}"
        head = self._header(returned.header, boundary, eight_bit=not b"".join(parts).isascii())
        between = f"\r\n--{boundary}\r\n".encode("ascii")
        preamble = b"\r\nA report about a message, in MIME (RFC 6522).\r\n"
        return head + preamble + between + between.join(parts) + between[:-2] + b"--\r\n"

    # -- parts ----------------------------------------------------------------

    def _header(self, returned: Header, boundary: str, *, eight_bit: bool) -> bytes:
        fields = [
            from_field(Mailbox(MAILER_DAEMON, self.name), "Mail Delivery System").octets.decode(
                "utf-8"
            ),
            f"To: <{self.to.wire}>\r\n",
            f"Subject: {_SUBJECTS[self.action]}\r\n",
            f"Date: {format_datetime(self.now)}\r\n",
            f"Message-ID: {self.message_id or new_message_id(self.name)}\r\n",
        ]
        about = message_id(returned)
        if about is not None and _REFERENCE.match(about):
            fields += [f"In-Reply-To: {about}\r\n", f"References: {about}\r\n"]
        fields += [
            "Auto-Submitted: auto-replied\r\n",
            "MIME-Version: 1.0\r\n",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n',
        ]
        if eight_bit:
            fields.append("Content-Transfer-Encoding: 8bit\r\n")
        return "".join(fields).encode("utf-8")

    def _text(self, returned: Returned) -> bytes:
        text = for_people(
            Facts(
                name=self.name,
                kind=self.action.value,
                arrived=format_datetime(self.arrived),
                queue_id=self.queue_id,
                header=returned.header,
                whole=returned.whole,
                recipients=self.recipients,
                reply_limit=self._reply_limit,
            )
        )
        return b"Content-Description: What happened\r\n" + quoted_printable(text)

    def _status(self) -> bytes:
        kind = "message/global-delivery-status" if self.international else "message/delivery-status"
        blocks, size = [], 0
        for each in self.recipients:
            if size >= MAX_STATUS:
                break
            blocks.append(self._about(each))
            size += len(blocks[-1])
        body = b"\r\n".join([self._about_message(len(self.recipients) - len(blocks)), *blocks])
        head = f"Content-Description: Delivery status\r\nContent-Type: {kind}\r\n"
        if not body.isascii():
            head += "Content-Transfer-Encoding: 8bit\r\n"
        return head.encode("ascii") + b"\r\n" + body

    def _about_message(self, omitted: int) -> bytes:
        """RFC 3464 section 2.2.

        :param omitted: recipients with no fields of their own.
        """
        return self._fields(
            ("Original-Envelope-Id", self.envid),
            ("Reporting-MTA", f"dns; {self.name}"),
            ("X-Queue-ID", self.queue_id),
            ("Arrival-Date", format_datetime(self.arrived)),
            ("X-Omitted-Recipients", str(omitted) if omitted else None),
        )

    def _about(self, each: ReportedRecipient) -> bytes:
        """RFC 3464 section 2.3."""
        path = each.recipient.path
        kind = "utf-8" if path.needs_smtputf8 else "rfc822"
        diagnostic = None
        if each.reply:
            # What no server said has a type of our own (section 2.3.6, 2.1.2).
            diagnostic = f"{'smtp' if _REPLY.match(each.reply) else 'X-local'}; {printable(each.reply, self._reply_limit)}"
        tried, until = each.last_attempt, each.will_retry_until
        return self._fields(
            ("Original-Recipient", each.recipient.orcpt),
            ("Final-Recipient", f"{kind}; {path.wire[1:-1]}"),
            ("Action", each.action.value),
            ("Status", each.code),
            ("Remote-MTA", _remote(each.relay)),
            ("Diagnostic-Code", diagnostic),
            ("Last-Attempt-Date", None if tried is None else format_datetime(tried)),
            (
                "Will-Retry-Until",
                None
                if until is None or each.action is not DSNAction.DELAYED
                else format_datetime(until),
            ),
        )

    def _fields(self, *fields: tuple[str, str | None]) -> bytes:
        return b"".join(
            _field(name, value, utf8=self.international) for name, value in fields if value
        )


def _remote(relay: str | None) -> str | None:
    """``dns; name``, out of ``name[address]:port``."""
    name = (relay or "").partition("[")[0].partition(":")[0]
    return f"dns; {name}" if _HOST.match(name) else None


def _field(name: str, value: str, *, utf8: bool) -> bytes:
    """A field that nothing in *value* can end or lengthen beyond measure."""
    value = printable(value, 1000)
    if not utf8:
        value = value.encode("ascii", "backslashreplace").decode("ascii")
    words = [word[at : at + 200] for word in value.split() for at in range(0, len(word), 200)]
    lines = [f"{name}:"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += " " + word
    return ("\r\n".join(lines) + "\r\n").encode("utf-8")
