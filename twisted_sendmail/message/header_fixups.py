"""The header of a message as it streams in: made complete, looked at, and passed on.

The header is held until it ends; everything behind it goes through as it is, whatever
it is (also what has no lines, RFC 3030).  How the octets are cut changes nothing.
What is added stands behind the fields that are there, so that a Received field put in
front (RFC 5321 section 4.4) stays in front.

What makes a header complete is ``submission``'s, but for ``From``.  RFC 5322 section 3.6,
RFC 3834 section 5 (who is automatic), RFC 5321 section 6.3 (hops), RFC 2047 (names).
"""

from __future__ import annotations

import re
from email.header import Header as EncodedWords
from typing import TYPE_CHECKING

from twisted_sendmail.message.header import MAX_HEADER, Field, Header, header_end
from twisted_sendmail.message.header_fields import BLIND
from twisted_sendmail.message.submission import completed, message_id
from twisted_sendmail.smtp import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from twisted_sendmail.smtp import ReversePath

#: Where From is folded (RFC 5322 section 2.1.1).
WIDTH = 78
#: Characters of a name put into From.
MAX_NAME = 128
#: Who writes when there is no sender.
DAEMON = "MAILER-DAEMON"

# The Received fields in front: the message itself, with all it may lack, begins behind.
_TRACE = re.compile(rb"(?:received[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*)*", re.IGNORECASE)
# All up to the last line that is known to begin a field.
_WHOLE_FIELDS = re.compile(rb".*\n(?=[^ \t])", re.DOTALL)
_SPECIAL = re.compile(r"[^A-Za-z0-9 !#$%&\'*+/=?^_`{|}~-]|=\?")

# For the header that needs nothing, which is nearly every one: how a field begins that has
# to be there, or asks for more than a look; behind a line feed, in lower case.
_NEEDED = (b"\nfrom:", b"\ndate:")
_TO_BE_SEEN_TO = (b"\nbcc", b"\nresent-", b"\nauto-submitted")
_STRAY = re.compile(rb"\n(?![!-9;-~]+[ \t]*:|[ \t]|\Z)")
_MESSAGE_ID = re.compile(rb"[ \t]*(<[!-;=?-~]+>)[ \t]*\r\n")
_BLANK = (b" ", b"\t")


class HeaderFixer:
    """One message's.

    :param now: for a missing Date, in the zone it is to show.
    :param domain: our name: for a missing Message-ID when the sender has no domain that
        others know, and for the From of a message without sender.
    :param sender: who sends: a missing From names him.
    :param from_name: his name, for a missing From; what would break the field is left out.
    :param complete: False only looks.
    :param rewrite: may change the header, before anything else does.
    :param limit: octets of a header.  What is longer passes from there on untouched, and
        nothing is added to it.
    """

    def __init__(
        self,
        now: datetime,
        domain: str,
        sender: ReversePath,
        from_name: str | None = None,
        *,
        complete: bool = True,
        rewrite: Callable[[Header], Header] | None = None,
        limit: int = MAX_HEADER,
    ) -> None:
        self._now = now
        self._name = domain
        self._sender = sender
        self._from_name = from_name
        self._complete = complete
        self._rewrite = rewrite
        self._limit = min(limit, MAX_HEADER)
        self._held: bytearray | None = bytearray()
        #: The Message-ID, with its angle brackets; known behind the header.
        self.message_id: str | None = None
        #: A machine wrote it; known behind the header.
        self.automatic = False
        #: Received fields; known behind the header.
        self.hops = 0
        #: The header holds UTF-8 (RFC 6532); known behind the header.
        self.smtputf8_header = False
        #: There was an octet above 127 so far.
        self.eight_bit = False

    def feed(self, data: bytes) -> bytes:
        """Take the next octets, canonical (CRLF) at least up to the end of the header.

        :returns: what is ready to be passed on.
        """
        if not self.eight_bit and not data.isascii():
            self.eight_bit = True
        held = self._held
        if held is None:
            return data
        start = max(0, len(held) - 3)
        held += data
        end = held.find(b"\r\n\r\n", start, self._limit + 2) + 2
        if held.startswith(b"\r\n"):
            end = 0
        elif end == 1:
            return self._too_long(bytes(held)) if len(held) >= self._limit + 2 else b""
        self._held = None
        octets = bytes(held)
        header = octets[:end]
        if self._needs_nothing(header):
            return octets
        return self._completed(header) + octets[end:]

    def finish(self) -> bytes:
        """The message has ended: what was held."""
        if self._held is None:
            return b""
        octets = bytes(self._held)
        self._held = None
        if len(octets) > self._limit:
            return self._too_long(octets)
        return octets if self._needs_nothing(octets) else self._completed(octets)

    # -- the header -----------------------------------------------------------

    def _completed(self, octets: bytes) -> bytes:
        """The header section *octets*, complete."""
        begin = _end_of_trace(octets)
        trace, own = Header.parse(octets[:begin]), octets[begin:]
        headless = bool(own) and not header_end(own, whole=True)
        if not headless and own and not own.endswith(b"\n"):
            own += b"\r\n"
        header = Header(()) if headless else Header.parse(own)
        if self._complete:
            header = self._whole(header)
            # There was no header: what is there is all body.
            octets = bytes(trace) + bytes(header) + (b"\r\n" + own if headless else b"")
        self._look_at(Header(trace.fields + header.fields))
        return octets

    def _whole(self, header: Header) -> Header:
        if self._rewrite is not None:
            header = self._rewrite(header)
        if "from" not in header:
            fields = list(header.fields)
            end = len(fields) if header.broken is None else header.broken
            box = self._sender.mailbox or Mailbox(DAEMON, self._name)
            fields.insert(end, from_field(box, self._from_name))
            header = Header(fields)
        return completed(header, self._now, self._domain())

    def _domain(self) -> str:
        """Where a new Message-ID belongs: to the sender, if others know his domain."""
        box = self._sender.mailbox
        domain = "" if box is None else box.ascii_domain
        return domain if "." in domain and not domain.startswith("[") else self._name

    def _too_long(self, octets: bytes) -> bytes:
        """What has no end in sight: blind copies are taken out as far as it was held."""
        self._held = None
        begin = _end_of_trace(octets[: self._limit])
        fields = _WHOLE_FIELDS.match(octets, begin, self._limit)
        if fields is None or not header_end(octets[begin : fields.end()], whole=True):
            self._look_at(Header.parse(octets[:begin]))
            return octets
        trace, header = Header.parse(octets[:begin]), Header.parse(fields[0])
        if self._complete:
            header = header.without(*BLIND)
        self._look_at(Header(trace.fields + header.fields))
        if not self._complete:
            return octets
        return bytes(trace) + bytes(header) + octets[fields.end() :]

    # -- what is to be known of it --------------------------------------------

    def _needs_nothing(self, octets: bytes) -> bool:
        """Is it complete as it is, with nothing in it to think about?"""
        seen = None if self._rewrite is not None else _seen(octets)
        if seen is None:
            return False
        self.message_id, self.hops = seen
        return True

    def _look_at(self, header: Header) -> None:
        believed = Header(header.fields[: header.broken])
        self.message_id = message_id(believed)
        self.hops = len(believed.values("received"))
        self.smtputf8_header = believed.international
        submitted = [_word(value) for value in believed.values("auto-submitted")]
        self.automatic = any(word != "no" for word in submitted)


def complete_as_it_is(message: bytes) -> tuple[str, int] | None:
    """Message-ID and Received fields of a whole *message*; None when it has to be gone through.

    It is so with nearly every one that its header is complete, and has nothing in it to
    think about: then the message needs no ``HeaderFixer``.
    """
    end = message.find(b"\r\n\r\n", 0, MAX_HEADER + 2)
    return None if end < 0 or message.startswith(b"\r\n") else _seen(message[: end + 2])


def _seen(header: bytes) -> tuple[str, int] | None:
    """Message-ID and Received fields of a header that is complete as it is."""
    if not header.isascii() or header[-1:] != b"\n" or header[:1] in _BLANK:
        return None
    lower = b"\n" + header.lower()
    for begin in _NEEDED:
        if begin not in lower:
            return None
    for begin in _TO_BE_SEEN_TO:
        if begin in lower:
            return None
    at = lower.find(b"\nmessage-id:")
    found = _MESSAGE_ID.match(header, at + 11) if at >= 0 else None
    if found is None or _STRAY.search(lower):
        return None
    hops = lower.count(b"\nreceived:")
    if hops != lower.count(b"\nreceived"):
        return None
    return found[1].decode("ascii"), hops


def from_field(mailbox: Mailbox, name: str | None = None) -> Field:
    """A From field of our making.

    :param name: the display name: what is not printable becomes a blank.
    """
    if name is not None:
        characters = (c if c.isprintable() else " " for c in name[:MAX_NAME])
        name = " ".join("".join(characters).split())
    if not name:
        return Field("from", f"From: {mailbox.wire}\r\n".encode())
    if not name.isascii():
        name = EncodedWords(name, "utf-8", header_name="From").encode(linesep="\r\n")
    elif _SPECIAL.search(name):
        name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    line = f"From: {name} <{mailbox.wire}>\r\n"
    if len(line) > WIDTH + 2:
        line = f"From: {name}\r\n <{mailbox.wire}>\r\n"
    return Field("from", line.encode())


def _end_of_trace(octets: bytes) -> int:
    match = _TRACE.match(octets)
    return match.end() if match else 0


def _word(value: str) -> str:
    """The first word, in lower case, without parameters and comments."""
    found = re.match(r"(?:\s|\([^()]*\))*([^\s;()]*)", value)
    return found[1].lower() if found else ""
