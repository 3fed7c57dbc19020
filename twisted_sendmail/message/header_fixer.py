"""Completes the header of a message as the message streams through.

One component for all mail: of the client, of the relay from any source, and of the ``sendmail``
command. It

* adds ``Date`` and ``Message-ID`` (and ``From``, if asked) where they are missing, after the fields
  that are there, and in a resent message the missing ``Resent-`` forms;
* removes ``Bcc``;
* qualifies addresses without a domain, and lets a rule change the header, before anything else
  (:mod:`~twisted_sendmail.message.rewriting`);
* and finds out what the queue and the reports need: Message-ID, hops, UTF-8, automatic mail.

The header is held until it ends; the rest passes unchanged, even if it has no lines (RFC 3030).
Any cutting of the octets gives the same result. A field that is there keeps every octet. The
Received fields at the beginning are a trace that servers added: they stay first (RFC 5321
section 4.4), and the message itself begins after them.

RFC 6409 section 8 (submission), RFC 5322 section 3.6, RFC 3834 section 5 (automatic mail),
RFC 5321 section 6.3 (hops), RFC 2047 (names).
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.message.addresses import header_sender
from twisted_sendmail.message.field_encoding import encoded_words, sendable_field
from twisted_sendmail.message.header import BLIND, LONG_HEADER, Field, Header, header_end
from twisted_sendmail.smtp import (
    MAX_HEADER,
    InvalidInput,
    Mailbox,
    domain_name,
    hop_count,
    quoted,
    section_end,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.message.qualification import Qualification
    from twisted_sendmail.smtp import ReversePath

#: Characters of a display name in a From field that is added.
MAX_DISPLAY_NAME = 128
#: The local part in From when a message has no sender.
MAILER_DAEMON = "MAILER-DAEMON"

# The Received fields at the beginning.
_TRACE = re.compile(rb"(?:received[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*)*", re.IGNORECASE)
# Matches all octets up to the last line that is known to begin a field.
_WHOLE_FIELDS = re.compile(rb".*\n(?=[^ \t])", re.DOTALL)
# Not a field, but a reader that is more lenient than RFC 5322 may read it as a blind copy.
_ALMOST_BLIND = re.compile(rb"(?:resent-)?bcc\s*:[^\n]*\n(?:[ \t][^\n]*\n)*\Z", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[^<>\s]+>")
_SPECIAL = re.compile(r"[^A-Za-z0-9 !#$%&\'*+/=?^_`{|}~-]")

# For the header that needs nothing or little, as most do; in lower case, after a line feed. A blank
# before the colon is rare.
_NEEDS_A_CLOSER_LOOK = re.compile(
    rb"\n(?:bcc|resent-|auto-submitted|(?:date|message-id)[ \t])"
).search
_NO_FIELD = re.compile(rb"\n(?![!-9;-~]+[ \t]*:|[ \t]|\Z)").search
_PLAIN_MESSAGE_ID = re.compile(rb"[ \t]*(<[!-;=?-~]+>)[ \t]*\r\n(?![ \t])")


class HeaderFixer:
    """Fixes the header of one message.

    :param now: the time for a missing Date, in seconds since the epoch.
    :param host_name: the name of this host, for a missing Message-ID if the sender has no domain
        that is known elsewhere, and for the From of a message without sender.
    :param sender: the sender of the envelope.
    :param from_name: the sender's display name, for a missing From.
    :param add_from: add a missing From.
    :param complete: False: change nothing, only find out the facts.
    :param qualification: the domains for addresses without one; None: they stay.
    :param rewrite: may change the header after that, and before anything else.
    :param limit: octets of a header, up to :data:`MAX_HEADER`; the rest of a longer one passes
        unchanged, and nothing is added to it.
    """

    #: The Message-ID, with its angle brackets; like the next three, valid after the header.
    message_id: str | None = None
    #: A program generated the message (RFC 3834).
    automatic = False
    #: The number of Received fields.
    hops = 0
    #: The header holds UTF-8 (RFC 6532).
    smtputf8_header = False
    #: There was an octet above 127 so far.
    eight_bit = False

    def __init__(
        self,
        now: float,
        host_name: str,
        sender: ReversePath,
        *,
        from_name: str | None = None,
        add_from: bool = True,
        complete: bool = True,
        qualification: Qualification | None = None,
        rewrite: Callable[[Header], Header] | None = None,
        limit: int = MAX_HEADER,
    ) -> None:
        self._now = now
        self._host_name = host_name
        self._sender = sender
        self._from_name = from_name
        self._add_from = add_from
        self._complete = complete
        self._qualification = qualification if complete else None
        self._rewrite = rewrite
        self._limit = limit
        self._held: bytes | bytearray | None = b""

    def feed(self, data: bytes) -> bytes:
        """Read the next octets, canonical at least up to the end of the header.

        :returns: the octets that are ready to be passed on.
        """
        if not self.eight_bit and not data.isascii():
            self.eight_bit = True
        held = self._held
        if held is None:
            return data
        start = 0
        if held:
            start = max(0, len(held) - 3)
            if isinstance(held, bytes):
                held = bytearray(held)
            held += data
        else:
            held = data  # most headers come in one piece
        end = section_end(held, start, self._limit + 2)
        if end < 0:
            if len(held) < self._limit + 2:
                self._held = held
                return b""
            self._held = None
            return self._too_long(bytes(held))
        self._held = None
        section = bytes(held[:end])
        fixed = self.fix(section)
        return bytes(held) if fixed == section else fixed + held[end:]

    def finish(self) -> bytes:
        """End the message; return the octets that were held."""
        held, self._held = self._held, None
        if held is None:
            return b""
        return self._too_long(bytes(held)) if len(held) > self._limit else self.fix(bytes(held))

    def fix(self, section: bytes, parsed: Header | None = None) -> bytes:
        """Return a whole header *section* fixed, and set the facts.

        :param section: the octets before the empty line. If the first line of the message is not a
            field, there is no header, and the octets are body.
        :param parsed: the section, if it was parsed before.
        """
        if self._rewrite is None:
            fixed = self._fixed_at_once(section)
            if fixed is not None:
                return fixed
        begin = _end_of_trace(section)
        trace, own = Header.parse(section[:begin]) if begin else Header(()), section[begin:]
        headless = bool(own) and not header_end(own, whole=True)
        if not headless and own and not own.endswith(b"\n"):
            own += b"\r\n"
        if headless:
            header = Header(())
        else:
            header = Header.parse(own) if parsed is None or own != section else parsed
        if self._complete:
            header = self.completed(header)
            section = bytes(trace) + bytes(header) + (b"\r\n" + own if headless else b"")
        self._find_facts(Header(trace.fields + header.fields))
        return section

    def completed(self, header: Header) -> Header:
        """Return *header*, which has no trace at its beginning, rewritten and completed."""
        if self._qualification is not None:
            header = self._qualification.header(header)
        if self._rewrite is not None:
            header = self._rewrite(header)
        fields = [
            field
            for field in header.fields
            if field.name not in BLIND and (field.name or not _ALMOST_BLIND.match(field.octets))
        ]
        missing = []
        if self._add_from and "from" not in header:
            box = self._sender.mailbox
            missing.append(
                from_field(Mailbox(MAILER_DAEMON, self._host_name))
                if box is None
                else from_field(box, self._from_name)
            )
        if "date" not in header:
            missing.append(_field("Date", date_text(self._now)))
        if "message-id" not in header:
            missing.append(_field("Message-ID", self._new_message_id(header)))
        if missing:
            # After the fields that are there, but before a line that is not a field: some readers
            # take it for the beginning of the body.
            end = Header(fields).broken
            end = len(fields) if end is None else end
            fields[end:end] = missing
        resent = header.newest_resent
        if resent.fields:
            missing = []
            if "resent-date" not in resent:
                missing.append(_field("Resent-Date", date_text(self._now)))
            if "resent-message-id" not in resent:
                missing.append(_field("Resent-Message-ID", self._new_message_id(header)))
            begin = next((at for at, f in enumerate(fields) if f.name.startswith("resent-")), 0)
            fields[begin:begin] = missing
        return Header(fields)

    def _new_message_id(self, header: Header) -> str:
        """Return a Message-ID at the domain of the sender, if that is known elsewhere."""
        box = self._sender.mailbox
        if box is None and len(bytes(header)) <= LONG_HEADER:
            try:
                box = header_sender(header).mailbox
            except InvalidInput:
                box = None
        domain = "" if box is None else box.ascii_domain
        unqualified = "." not in domain and "." in self._host_name
        if not domain or domain.startswith("[") or unqualified:
            domain = self._host_name
        return new_message_id(domain)

    def _fixed_at_once(self, section: bytes) -> bytes | None:
        """Fix a *section* that clearly needs no more than Date and Message-ID, and set the facts.

        :returns: None for any other section.
        """
        if not section.isascii() or section[-1:] != b"\n" or section[:1] in {b" ", b"\t"}:
            return None
        lower = b"\n" + section.lower()
        if (
            _NEEDS_A_CLOSER_LOOK(lower)
            or _NO_FIELD(lower)
            or (self._qualification is not None and self._qualification.concerns(lower))
            or (self._complete and self._add_from and b"\nfrom:" not in lower)
        ):
            return None
        missing = b""
        if self._complete and b"\ndate:" not in lower:
            missing = _field("Date", date_text(self._now)).octets
        at = lower.find(b"\nmessage-id:")
        if at >= 0:
            found = _PLAIN_MESSAGE_ID.match(section, at + 11)
            if found is None:
                return None
            self.message_id = found[1].decode("ascii")
        elif self._complete:
            if self._sender.mailbox is None:
                return None
            self.message_id = self._new_message_id(Header(()))
            missing += _field("Message-ID", self.message_id).octets
        if b"\nreceived" in lower:
            self.hops = hop_count(section)
        return section + missing if missing else section

    def _find_facts(self, header: Header) -> None:
        header = Header(header.fields[: header.broken])
        self.message_id = message_id(header)
        self.hops = hop_count(bytes(header))
        self.smtputf8_header = header.international
        submitted = [_first_word(value) for value in header.values("auto-submitted")]
        self.automatic = any(word != "no" for word in submitted)

    def _too_long(self, octets: bytes) -> bytes:
        """Return *octets*, the beginning of an endless header, without the blind copies in them."""
        begin = _end_of_trace(octets[: self._limit])
        fields = _WHOLE_FIELDS.match(octets, begin, self._limit)
        if fields is None or not header_end(octets[begin : fields.end()], whole=True):
            self._find_facts(Header.parse(octets[:begin]))
            return octets
        trace, header = Header.parse(octets[:begin]), Header.parse(fields[0])
        if self._complete:
            header = Header(field for field in header.fields if field.name not in BLIND)
        self._find_facts(Header(trace.fields + header.fields))
        if not self._complete:
            return octets
        return bytes(trace) + bytes(header) + octets[fields.end() :]


def message_id(header: Header) -> str | None:
    """Return the Message-ID, with its angle brackets, if there is one that can be shown."""
    for value in header.values("message-id"):
        found = _MESSAGE_ID.search(value)
        if found and found[0].isprintable():
            return found[0]
    return None


def new_message_id(domain: str) -> str:
    """Return a Message-ID that cannot be guessed and tells nothing about this machine.

    :raises InvalidAddress: *domain* is neither a domain name nor an address literal.
    """
    return f"<{secrets.token_hex(16)}@{domain_name(domain)}>"


def date_text(now: float) -> str:
    """Return *now*, seconds since the epoch, as a date of RFC 5322 in the local time zone."""
    second = int(now)
    return _date_text(second, datetime.fromtimestamp(second))  # noqa: DTZ006 - the local time


# Many messages are made in the same second, and the date costs as much as the rest of their header.
# The local time is in the key because the zone may change.
@lru_cache(maxsize=1)
def _date_text(second: int, _local: datetime) -> str:
    return formatdate(second, localtime=True)


def from_field(mailbox: Mailbox, name: str | None = None) -> Field:
    """Return a From field.

    :param name: the display name; characters that are not printable become blanks.
    """
    if name is not None:
        characters = (c if c.isprintable() else " " for c in name[:MAX_DISPLAY_NAME])
        name = " ".join("".join(characters).split())
    if not name:
        return _field("From", mailbox.wire)
    return sendable_field(_field("From", f"{phrase(name)} <{mailbox.wire}>"))


def phrase(name: str) -> str:
    """Return a display name as a reader decodes it to *name*, in quotes if need be.

    A name that looks encoded is encoded, because readers decode it also within quotes.
    """
    if "=?" in name:
        return " ".join(encoded_words(name))
    return quoted(name) if _SPECIAL.search(name) else name


def _field(name: str, value: str) -> Field:
    return Field(name.lower(), f"{name}: {value}\r\n".encode())


def _end_of_trace(octets: bytes) -> int:
    match = _TRACE.match(octets)
    return match.end() if match else 0


def _first_word(value: str) -> str:
    """Return the first word, in lower case, without parameters and comments."""
    found = re.match(r"(?:\s|\([^()]*\))*([^\s;()]*)", value)
    return found[1].lower() if found else ""
