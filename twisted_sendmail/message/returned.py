"""What a report returns of the message it is about: all of it, or its header.

As a part of the report, with its MIME fields.  Nothing is returned that SMTP could not
carry back: too long a line, a NUL, or what has no lines, and only the header goes.

RFC 3461 section 4.3 (RET), RFC 6522 section 4 (text/rfc822-headers), RFC 6533 (message/global).
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted_sendmail.message.header import Header, header_end
from twisted_sendmail.smtp import MAX_TEXT_LINE, Canonicalizer, InvalidMessage, Repair

#: Octets of a message that is returned whole.
MAX_RETURNED = 50 * 1024
#: Octets of a header that is returned.
MAX_HEADER_RETURNED = 32 * 1024


@dataclass(frozen=True)
class Returned:
    """The part, and what was seen on the way."""

    #: The fields that are returned.
    header: Header
    #: All of the message is.
    whole: bool
    #: MIME fields, an empty line, and the octets.
    part: bytes

    @classmethod
    def of(cls, content: bytes, *, whole: bool, limit: int = MAX_RETURNED) -> Returned:
        """Make it.

        :param content: the message, or the beginning of it.
        :param whole: return all of *content*, if that can be done.
        :param limit: octets, for that.
        """
        header = Header.parse(_header(content))
        international = header.international
        if whole and len(content) <= limit and _can_go_back(content):
            kind = "message/global" if international else "message/rfc822"
            return cls(header, True, _part("Your message", kind, content))
        kind = "message/global-headers" if international else "text/rfc822-headers"
        if not international:
            # Octets of an unknown charset are no text.
            kind += "" if bytes(header).isascii() else "; charset=unknown-8bit"
        return cls(header, False, _part("The header of your message", kind, bytes(header)))


def _part(description: str, kind: str, octets: bytes) -> bytes:
    head = f"Content-Description: {description}\r\nContent-Type: {kind}\r\n"
    if not octets.isascii():
        head += "Content-Transfer-Encoding: 8bit\r\n"
    return head.encode("ascii") + b"\r\n" + octets


def _can_go_back(content: bytes) -> bool:
    canonical = Canonicalizer(Repair.REFUSE)
    try:
        same = canonical.feed(content) + canonical.finish()
    except InvalidMessage:
        return False
    return same in {content, content + b"\r\n"} and not _has_long_line(same)


def _header(content: bytes) -> bytes:
    """The header section, in lines that can be sent."""
    begin = content[:MAX_HEADER_RETURNED]
    try:
        end = header_end(begin, whole=False)
    except InvalidMessage:
        end = begin.rfind(b"\n") + 1  # it is cut
    canonical = Canonicalizer(Repair.REPAIR)
    octets = canonical.feed(begin[:end]) + canonical.finish()
    if not _has_long_line(octets):
        return octets
    return b"".join(_short(line) + b"\r\n" for line in octets.split(b"\r\n")[:-1])


def _has_long_line(octets: bytes) -> bool:
    return any(len(line) > MAX_TEXT_LINE for line in octets.split(b"\r\n"))


def _short(line: bytes) -> bytes:
    if len(line) <= MAX_TEXT_LINE:
        return line
    line = line[:MAX_TEXT_LINE]
    # No half of a character at the end, where it may be UTF-8.
    return line if line.isascii() else line.decode("utf-8", "ignore").encode("utf-8")
