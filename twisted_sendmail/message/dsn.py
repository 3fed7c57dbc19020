"""A delivery status notification: the report to a sender about the recipients of a message.

``multipart/report`` in three parts: a text for people, ``message/delivery-status`` for programs, and
the message or its header. It is written octet for octet, so that the returned message is the message
that was sent. Replies of servers are escaped: nothing in them becomes a field, a line or a control
character. The caller decides who gets a report, and when; it is sent with the null reverse-path.

RFC 3464 (the fields), RFC 6522 (multipart/report), RFC 3461 sections 4.3 and 6 (what is returned),
RFC 3463 (status codes), RFC 3834 (Auto-Submitted), RFC 6533 (addresses beyond ASCII).
"""

from __future__ import annotations

import enum
import re
import secrets
from binascii import b2a_qp
from email.errors import MessageError
from email.header import decode_header, make_header
from email.utils import format_datetime
from textwrap import TextWrapper
from typing import TYPE_CHECKING

import attrs

from twisted_sendmail.message.field_encoding import folded_field
from twisted_sendmail.message.header import Field, Header, header_end
from twisted_sendmail.message.header_fixer import (
    MAILER_DAEMON,
    from_field,
    message_id,
    new_message_id,
)
from twisted_sendmail.smtp import (
    MAX_TEXT_LINE,
    Canonicalizer,
    InvalidInput,
    InvalidMessage,
    Mailbox,
    Repair,
    is_canonical,
    long_line,
    printable,
)

if TYPE_CHECKING:
    from datetime import datetime

    from twisted_sendmail.smtp import Recipient

#: Octets of a message that is returned whole, and of a header that is returned.
MAX_RETURNED = 50 * 1024
MAX_HEADER_RETURNED = 32 * 1024
# Only the header is returned of a message that is too large, or of a kind that a server does not
# take: whole, it would not come back either (RFC 3463 sections 3.4 and 3.7).
_HEADER_ONLY = frozenset({"5.3.4", "5.6.1", "5.6.3"})
#: Octets of the part for programs. A sender can be forged: a report must not be much larger than the
#: message and its recipients. Further recipients are only counted.
MAX_STATUS = 128 * 1024
#: Characters of the text for people; further recipients are only counted.
MAX_TEXT = 64 * 1024
#: Characters of one server's reply, and of all replies if there are many recipients.
MAX_SHOWN_REPLY = 1000
MAX_REPLIES = 64 * 1024
# A reply is not cut below this.
_SHORT_REPLY = 120

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}\Z")
_REPLY = re.compile(r"[2-5][0-9][0-9](?:[ -]|\Z)")
_HOST = re.compile(r"[A-Za-z0-9._-]+\Z")
_REFERENCE = re.compile(r"<[!-;=?-~]{1,500}>\Z")


class DSNAction(enum.Enum):
    """The action for a recipient (RFC 3464 section 2.3.3); the worst first."""

    FAILED = "failed"
    DELAYED = "delayed"
    #: The message went to a server that does not report.
    RELAYED = "relayed"
    DELIVERED = "delivered"
    #: The message went on to several recipients, and no further report follows.
    EXPANDED = "expanded"


_DEFAULT_STATUS = {DSNAction.FAILED: "5.0.0", DSNAction.DELAYED: "4.0.0"}
_SUBJECTS = {
    DSNAction.FAILED: "Your mail could not be delivered",
    DSNAction.DELAYED: "Your mail is late, and still being tried",
    DSNAction.RELAYED: "Your mail was handed on",
    DSNAction.DELIVERED: "Your mail was delivered",
    DSNAction.EXPANDED: "Your mail was sent on to several",
}


@attrs.frozen
class ReportedRecipient:
    """One recipient in a report."""

    #: The recipient, with its original form (``orcpt``).
    recipient: Recipient
    action: DSNAction
    #: ``5.1.1``; anything else becomes ``5.0.0``, ``4.0.0`` or ``2.0.0``.
    status: str | None = None
    #: The server's reply, with its code; or a local error.
    reply: str | None = None
    #: The server: ``name[address]:port``.
    relay: str | None = None
    last_attempt: datetime | None = None
    #: For delayed recipients.
    will_retry_until: datetime | None = None

    @property
    def code(self) -> str:
        """The enhanced status code, or the default for the action."""
        if self.status is not None and _STATUS.match(self.status):
            return self.status
        return _DEFAULT_STATUS.get(self.action, "2.0.0")


@attrs.frozen
class Report:
    """One report.

    :raises InvalidInput: there are no recipients.
    """

    #: The name of this host.
    name: str
    #: The sender of the message.
    to: Mailbox
    recipients: tuple[ReportedRecipient, ...]
    #: The time of the message's arrival; with a time zone, like all times here.
    arrived: datetime
    #: The time of the report.
    now: datetime
    #: The content of the message, or its beginning.
    content: bytes = b""
    #: ``content`` is the whole message.
    whole: bool = False
    #: The sender's wish: ``FULL``, ``HDRS``, or None.
    ret: str | None = None
    #: The sender's id of the envelope.
    envid: str | None = None
    queue_id: str | None = None
    #: The Message-ID of the report.
    message_id: str = attrs.field()
    #: Octets of a message that is returned whole.
    max_returned: int = MAX_RETURNED
    #: The address in From; None: the mail system of this host.
    sender: Mailbox | None = None
    #: An address needs the forms of RFC 6533.
    international: bool = attrs.field(init=False)

    @message_id.default
    def _new_message_id(self) -> str:
        return new_message_id(self.name)

    @international.default
    def _needs_utf8(self) -> bool:
        return self.to.needs_smtputf8 or any(
            each.recipient.path.needs_smtputf8 or not (each.recipient.orcpt or "").isascii()
            for each in self.recipients
        )

    def __attrs_post_init__(self) -> None:
        if not self.recipients:
            raise InvalidInput("a report cannot be made", detail="it is about no recipient")

    @property
    def action(self) -> DSNAction:
        """The worst action of all recipients."""
        return min((each.action for each in self.recipients), key=list(DSNAction).index)

    def to_bytes(self) -> bytes:
        """Return the whole report, canonical."""
        header = Header.parse(_header_section(self.content))
        whole = self._returns_content()
        parts = [
            self._text(header, whole=whole),
            self._status(),
            self._returned(header, whole=whole),
        ]
        boundary = f"=_{secrets.token_hex(16)}"
        head = self._header(header, boundary, eight_bit=not b"".join(parts).isascii())
        between = f"\r\n--{boundary}\r\n".encode("ascii")
        preamble = b"\r\nA report about a message, in MIME (RFC 6522).\r\n"
        return head + preamble + between + between.join(parts) + between[:-2] + b"--\r\n"

    def _returns_content(self) -> bool:
        """Return True if the report contains the whole message, and not only its header."""
        return (
            self.whole
            and self.ret != "HDRS"
            and self.action is DSNAction.FAILED
            and not any(each.status in _HEADER_ONLY for each in self.recipients)
            and len(self.content) <= self.max_returned
            and is_canonical(self.content)
            and long_line(self.content) is None
        )

    # -- the header ---------------------------------------------------------------

    def _header(self, returned: Header, boundary: str, *, eight_bit: bool) -> bytes:
        sender = self.sender or Mailbox(MAILER_DAEMON, self.name)
        begin = from_field(sender, "Mail Delivery System")
        fields = [
            f"To: <{self.to.wire}>\r\n",
            f"Subject: {_SUBJECTS[self.action]}\r\n",
            f"Date: {format_datetime(self.now)}\r\n",
            f"Message-ID: {self.message_id}\r\n",
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
        return begin.octets + "".join(fields).encode("utf-8")

    # -- the part for people ------------------------------------------------------

    def _text(self, header: Header, *, whole: bool) -> bytes:
        lines = _wrapped("", f"This is the mail system at {printable(self.name, 255)}.")
        lines += ["", *_wrapped("", _OPENINGS[self.action]), ""]
        for name, value in [
            ("Subject", _subject(header)),
            ("Message-ID", message_id(header)),
            ("Received here", format_datetime(self.arrived)),
            ("Queue id", self.queue_id),
        ]:
            if value:
                lines += _wrapped("  ", f"{name}: {printable(value, 200)}")
        size = 0
        for number, each in enumerate(self.recipients):
            if size >= MAX_TEXT:
                rest = len(self.recipients) - number
                lines += ["", *_wrapped("", f"and {rest} more recipients.")]
                break
            about = self._about_for_people(each)
            size += sum(map(len, about))
            lines += ["", *about]
        if self.action is DSNAction.FAILED:
            lines += ["", *_wrapped("", _ASK)]
        below = "Your message" if whole else "The header of your message"
        lines += ["", *_wrapped("", f"{below} is attached, and so are the facts for programs.")]
        return b"Content-Description: What happened\r\n" + _text_part("\n".join(lines) + "\n")

    def _about_for_people(self, each: ReportedRecipient) -> list[str]:
        lines = _wrapped("  ", printable(each.recipient.path.wire, 400))
        original = (each.recipient.orcpt or "").partition(";")[2]
        if original and original != str(each.recipient.path):
            lines += _wrapped("    ", f"(addressed as {printable(original, 400)})")
        if each.action not in _DEFAULT_STATUS:
            where = f" by {printable(each.relay, 300)}" if each.relay else ""
            lines += _wrapped("    ", f"{each.action.value}{where}")
        elif each.reply:
            relay = printable(each.relay or "the server", 300)
            said = f"{relay} said:" if _REPLY.match(each.reply) else "what went wrong:"
            lines += _wrapped("    ", said)
            lines += _wrapped("      ", printable(each.reply, self._reply_limit))
        if each.action is DSNAction.DELAYED and each.will_retry_until is not None:
            lines += _wrapped("    ", f"tried until {format_datetime(each.will_retry_until)}")
        advice = _advice(each.code) if each.action is DSNAction.FAILED else None
        return lines + (_wrapped("    ", advice) if advice else [])

    @property
    def _reply_limit(self) -> int:
        """Characters of each recipient's reply."""
        return min(MAX_SHOWN_REPLY, max(_SHORT_REPLY, MAX_REPLIES // len(self.recipients)))

    # -- the part for programs ----------------------------------------------------

    def _status(self) -> bytes:
        kind = "message/global-delivery-status" if self.international else "message/delivery-status"
        blocks, size = [], 0
        for each in self.recipients:
            if size >= MAX_STATUS:
                break
            blocks.append(self._about(each))
            size += len(blocks[-1])
        omitted = len(self.recipients) - len(blocks)
        # RFC 3464 section 2.2.
        about_message = self._fields(
            ("Original-Envelope-Id", self.envid),
            ("Reporting-MTA", f"dns; {self.name}"),
            ("X-Queue-ID", self.queue_id),
            ("Arrival-Date", format_datetime(self.arrived)),
            ("X-Omitted-Recipients", str(omitted) if omitted else None),
        )
        return _part("Delivery status", kind, b"\r\n".join([about_message, *blocks]))

    def _about(self, each: ReportedRecipient) -> bytes:
        """Yield the fields about the message (RFC 3464 section 2.3)."""
        path = each.recipient.path
        kind = "utf-8" if path.needs_smtputf8 else "rfc822"
        diagnostic = None
        if each.reply:
            # A local error has a type of our own (section 2.3.6, 2.1.2).
            diagnostic_type = "smtp" if _REPLY.match(each.reply) else "X-local"
            diagnostic = f"{diagnostic_type}; {printable(each.reply, self._reply_limit)}"
        host = (each.relay or "").partition("[")[0].partition(":")[0]
        tried = each.last_attempt
        until = each.will_retry_until if each.action is DSNAction.DELAYED else None
        return self._fields(
            ("Original-Recipient", each.recipient.orcpt),
            ("Final-Recipient", f"{kind}; {path.wire[1:-1]}"),
            ("Action", each.action.value),
            ("Status", each.code),
            ("Remote-MTA", f"dns; {host}" if _HOST.match(host) else None),
            ("Diagnostic-Code", diagnostic),
            ("Last-Attempt-Date", None if tried is None else format_datetime(tried)),
            ("Will-Retry-Until", None if until is None else format_datetime(until)),
        )

    def _fields(self, *fields: tuple[str, str | None]) -> bytes:
        return b"".join(
            _field(name, value, utf8=self.international) for name, value in fields if value
        )

    # -- the message --------------------------------------------------------------

    def _returned(self, header: Header, *, whole: bool) -> bytes:
        international = header.international
        if whole:
            kind = "message/global" if international else "message/rfc822"
            return _part("Your message", kind, self.content)
        octets = bytes(header)
        kind = "message/global-headers" if international else "text/rfc822-headers"
        if not international and not octets.isascii():
            kind += "; charset=unknown-8bit"
        return _part("The header of your message", kind, octets)


def _part(description: str, kind: str, octets: bytes) -> bytes:
    head = f"Content-Description: {description}\r\nContent-Type: {kind}\r\n"
    if not octets.isascii():
        head += "Content-Transfer-Encoding: 8bit\r\n"
    return head.encode("ascii") + b"\r\n" + octets


def _field(name: str, value: str, *, utf8: bool) -> bytes:
    """Return a field; nothing in *value* can end or lengthen it beyond measure."""
    value = printable(value, 1000)
    if not utf8:
        value = value.encode("ascii", "backslashreplace").decode("ascii")
    words = [word[at : at + 200] for word in value.split() for at in range(0, len(word), 200)]
    return folded_field(Field("", f"{name}: {' '.join(words)}\r\n".encode())).octets


# -- the header of the message ----------------------------------------------------


def _header_section(content: bytes) -> bytes:
    """Return the header section of *content*, in lines that can be sent."""
    begin = content[:MAX_HEADER_RETURNED]
    try:
        end = header_end(begin, whole=False)
    except InvalidMessage:
        end = begin.rfind(b"\n") + 1  # the header is cut
    canonical = Canonicalizer(Repair.REPAIR)
    octets = canonical.feed(begin[:end]) + canonical.finish()
    if long_line(octets) is None:
        return octets
    return b"".join(_short(line) + b"\r\n" for line in octets.split(b"\r\n")[:-1])


def _short(line: bytes) -> bytes:
    if len(line) <= MAX_TEXT_LINE:
        return line
    line = line[:MAX_TEXT_LINE]
    # No part of a UTF-8 character at the end.
    return line if line.isascii() else line.decode("utf-8", "ignore").encode("utf-8")


def _subject(header: Header) -> str | None:
    """Return the subject, decoded as far as possible."""
    value = next(iter(header.values("subject")), None)
    if value is None:
        return None
    value = value[:500].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, LookupError, ValueError):
        return value


# -- texts for people -------------------------------------------------------------

_OPENINGS = {
    DSNAction.FAILED: "Your message could not be delivered to the recipients below. It will not be"
    " tried again.",
    DSNAction.DELAYED: "Your message is late: the recipients below do not have it yet. You need do"
    " nothing, it is tried again.",
    DSNAction.RELAYED: "Your message was handed to the next server for the recipients below. That"
    " server does not say whether it arrived.",
    DSNAction.DELIVERED: "Your message was delivered to the recipients below.",
    DSNAction.EXPANDED: "Your message was sent on to several for each of the recipients below.",
}
# RFC 3463 sections 3.2 to 3.8, by subject and detail.
_ADVICE = {
    "1.1": "There is no such mailbox there. Check the address, and send the message again.",
    "1.2": "That domain does not exist, or has no mail. Check the part after the @.",
    "1.3": "The server does not accept this form of address. Check the address.",
    "1.6": "The mailbox has moved. Ask for the new address.",
    "1.10": "That domain accepts no mail. Check the part after the @.",
    "2.1": "The mailbox accepts no mail at present. Reach the recipient in another way.",
    "2.2": "The mailbox is full. Tell the recipient in another way, and send the message again later.",
    "2.3": "The message is too large for the recipient. Send it in parts, or send a link.",
    "3.4": "The message is too large for a server on the way. Send it in parts, or send a link.",
    "4.7": "Delivery was tried until the time limit. Send the message again, or ask your postmaster.",
    "6.1": "The next server does not accept content of this kind.",
    "6.3": "The next server does not take binary content, or it takes 7-bit content only, and the"
    " message cannot be encoded on its way without breaking it, as when it is signed or encrypted. Have your mail program encode it as"
    " quoted-printable or base64 before it is signed, and send it again.",
    "6.7": "The next server accepts only addresses in ASCII. Use another address of the recipient.",
    "7.30": "The message must be sent over TLS only, and the next server does not support that.",
}
_BY_SUBJECT = {
    "4": "The next server could not be reached, or did not respond as it should.",
    "7": "The next server refused the message. Its reply may tell why.",
}
_ASK = "If you do not know what to do, show this report to your postmaster."


def _advice(status: str) -> str | None:
    subject = status.partition(".")[2]
    return _ADVICE.get(subject) or _BY_SUBJECT.get(subject.partition(".")[0])


def _wrapped(indent: str, text: str) -> list[str]:
    wrapper = TextWrapper(
        width=76, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return wrapper.wrap(text)


def _text_part(text: str) -> bytes:
    """Return the MIME fields of a text part, an empty line, and *text*, encoded if necessary."""
    if text.isascii():
        head, body = b"Content-Type: text/plain; charset=us-ascii\r\n", text.encode("ascii")
    else:
        head = (
            b"Content-Type: text/plain; charset=utf-8\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n"
        )
        body = b2a_qp(text.encode("utf-8"), istext=True)
    return head + b"\r\n" + body.replace(b"\n", b"\r\n")
