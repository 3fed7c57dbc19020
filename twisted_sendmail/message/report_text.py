"""The part of a report that people read: what happened, to whom, why, and what to do.

Plain text, wrapped; what others wrote in it is escaped.  RFC 3463 (what the codes mean).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header
from email.quoprimime import body_encode
from email.utils import format_datetime
from textwrap import TextWrapper
from typing import TYPE_CHECKING

from twisted_sendmail.message.header_fixer import message_id
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.message.dsn import ReportedRecipient
    from twisted_sendmail.message.header import Header

#: Characters of the text; recipients beyond it are counted only.
MAX_TEXT = 64 * 1024

_SAID = re.compile(r"[2-5][0-9][0-9](?:[ -]|\Z)")

_OPENINGS = {
    "failed": "Your message could not be delivered to the recipients below. It will not be tried again.",
    "delayed": "Your message is late: the recipients below do not have it yet. You need do"
    " nothing, it is tried again.",
    "relayed": "Your message was handed to the next server for the recipients below. That server"
    " does not say whether it arrived.",
    "delivered": "Your message was delivered to the recipients below.",
    "expanded": "Your message was sent on to several for each of the recipients below.",
}
# RFC 3463 sections 3.2 to 3.8, by subject and detail.
_ADVICE = {
    "1.1": "There is no such mailbox there. Check the address, and send the message again.",
    "1.2": "There is no mail at that domain. Check what stands behind the @.",
    "1.3": "The address cannot be read there. Check it.",
    "1.6": "The mailbox has moved. Ask for the new address.",
    "1.10": "That domain takes no mail. Check what stands behind the @.",
    "2.1": "The mailbox takes no mail at present. Reach the recipient in another way.",
    "2.2": "The mailbox is full. Tell the recipient in another way, and send it again later.",
    "2.3": "The message is too large for the recipient. Send it in parts, or a link to it.",
    "3.4": "The message is too large for a server on the way. Send it in parts, or a link to it.",
    "4.7": "It was tried until its time was over. Send it again, or ask your postmaster.",
    "6.1": "The next server does not take content of this kind.",
    "6.3": "The next server takes 7-bit content only, and the message cannot be encoded on its way"
    " without breaking it, as when it is signed or encrypted. Have your mail program encode it as"
    " quoted-printable or base64 before it is signed, and send it again.",
    "6.7": "The next server takes no addresses beyond ASCII. Use another address of the recipient.",
    "7.30": "It was to go over protected connections only, and there is none to the next server.",
}
_BY_SUBJECT = {
    "4": "The next server could not be reached, or did not do its work.",
    "7": "The next server does not want it. What it said may tell why.",
}
_ASK = "If you do not know what to do, show this report to your postmaster."


@dataclass(frozen=True)
class Facts:
    """What is to be told."""

    #: Our host name.
    name: str
    #: The worst action.
    kind: str
    arrived: str
    queue_id: str | None
    #: Of the message, as far as it is returned.
    header: Header
    #: All of the message is returned.
    whole: bool
    recipients: Sequence[ReportedRecipient]
    #: Characters of a reply.
    reply_limit: int


def for_people(facts: Facts) -> str:
    """The text; lines end with LF."""
    lines = _wrapped("", f"This is the mail system at {printable(facts.name, 255)}.")
    lines += ["", *_wrapped("", _OPENINGS[facts.kind]), ""]
    identification = message_id(facts.header)
    for name, value in [
        ("Subject", _subject(facts.header)),
        ("Message-ID", identification),
        ("Received here", facts.arrived),
        ("Queue id", facts.queue_id),
    ]:
        if value:
            lines += _wrapped("  ", f"{name}: {printable(value, 200)}")
    size = 0
    for number, each in enumerate(facts.recipients):
        if size >= MAX_TEXT:
            lines += ["", *_wrapped("", f"and {len(facts.recipients) - number} more recipients.")]
            break
        about = _about(each, facts.reply_limit)
        size += sum(map(len, about))
        lines += ["", *about]
    if facts.kind == "failed":
        lines += ["", *_wrapped("", _ASK)]
    below = "Your message" if facts.whole else "The header of your message"
    lines += ["", *_wrapped("", f"{below} is attached, and so are the facts for programs.")]
    return "\n".join(lines) + "\n"


def _about(each: ReportedRecipient, reply_limit: int) -> list[str]:
    lines = _wrapped("  ", printable(each.recipient.path.wire, 400))
    original = (each.recipient.orcpt or "").partition(";")[2]
    if original and original != str(each.recipient.path):
        lines += _wrapped("    ", f"(addressed as {printable(original, 400)})")
    if each.action.value not in {"failed", "delayed"}:
        where = f" by {printable(each.relay, 300)}" if each.relay else ""
        lines += _wrapped("    ", f"{each.action.value}{where}")
    elif each.reply:
        relay = printable(each.relay or "the server", 300)
        said = f"{relay} said:" if _SAID.match(each.reply) else "what went wrong:"
        lines += _wrapped("    ", said) + _wrapped("      ", printable(each.reply, reply_limit))
    if each.action.value == "delayed" and each.will_retry_until is not None:
        lines += _wrapped("    ", f"tried until {format_datetime(each.will_retry_until)}")
    advice = _advice(each.code) if each.action.value == "failed" else None
    return lines + (_wrapped("    ", advice) if advice else [])


def _advice(status: str) -> str | None:
    subject = status.partition(".")[2]
    return _ADVICE.get(subject) or _BY_SUBJECT.get(subject.partition(".")[0])


def _subject(header: Header) -> str | None:
    """Decoded as far as it can be."""
    value = next(iter(header.values("subject")), None)
    if value is None:
        return None
    value = value[:500].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, LookupError, ValueError):
        return value


def _wrapped(indent: str, text: str) -> list[str]:
    wrapper = TextWrapper(
        width=76, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return wrapper.wrap(text)


def quoted_printable(text: str) -> bytes:
    """The rest of a text part: its MIME fields, an empty line, and *text*, encoded if need be."""
    if text.isascii():
        head, body = "Content-Type: text/plain; charset=us-ascii\r\n", text.replace("\n", "\r\n")
    else:
        head = (
            "Content-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: quoted-printable\r\n"
        )
        body = body_encode(text.encode("utf-8").decode("latin-1"), eol="\r\n")
    return f"{head}\r\n{body}".encode("ascii")
