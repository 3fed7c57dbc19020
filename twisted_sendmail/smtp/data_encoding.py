"""Content in the form that it has on the wire: lines that end with CRLF, dots doubled.

:class:`Canonicalizer` makes CRLF of every line end and lets no bare CR and no NUL pass.
:class:`DotStuffer` doubles the dots that begin lines, for DATA. :class:`TextModeRepair` is for the
input of commands. They work on chunks, and any cutting into chunks gives the same octets. A chunk costs
a few passes in C, and no loop over lines.

RFC 5321 section 2.3.8 (lines), section 4.5.2 (transparency).
"""

from __future__ import annotations

import enum
import re

from twisted_sendmail.smtp.errors import InvalidMessage
from twisted_sendmail.smtp.limits import MAX_TEXT_LINE

#: The line end that a CRLF becomes in text mode.
DOUBLED_CR = b"\r\r\n"

# Octets worked on at a time: few enough for the allocator to use the same memory again.
_STRIDE = 32 * 1024

# A literal pattern finds two octets faster than ``replace`` and ``in`` do.
_SPLIT_AT_DOTS = re.compile(rb"\n\.").split
_SPLIT_AT_STUFFED_DOTS = re.compile(rb"\r\n\.").split

_BARE_CR_OR_NUL = re.compile(rb"\r(?!\n)|\0")


class Repair(enum.Enum):
    """The policy for a bare CR or a NUL, which SMTP cannot carry."""

    #: Raise :class:`~twisted_sendmail.smtp.errors.InvalidMessage`.
    REFUSE = "refuse"
    #: Replace a bare CR by CRLF, and remove a NUL.
    REPAIR = "repair"


class Canonicalizer:
    """Turns raw octets into lines that end with CRLF.

    :param policy: for a bare CR or a NUL.
    """

    __slots__ = (
        "_cr_held",
        "_in_line",
        "_lines",
        "_long_lines",
        "_policy",
        "eight_bit",
        "long_line",
        "size",
    )

    def __init__(self, policy: Repair = Repair.REFUSE) -> None:
        self._policy = policy
        self._cr_held = False
        self._in_line = False
        self._lines = 0
        self._long_lines = LongLines()
        #: The number of the first line that is too long for SMTP; None: there was none so far.
        self.long_line: int | None = None
        #: Octets returned so far.
        self.size = 0
        #: True after an octet above 127.
        self.eight_bit = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the canonical form of *chunk*; a CR at its end is returned with the next chunk.

        :raises InvalidMessage: *chunk* holds a bare CR or a NUL, and the policy is to refuse.
        """
        if len(chunk) <= _STRIDE:
            return self._feed(chunk)
        return b"".join(
            [self._feed(chunk[at : at + _STRIDE]) for at in range(0, len(chunk), _STRIDE)]
        )

    def finish(self) -> bytes:
        """Return the end of the content: CRLF after a last line without a line end, or nothing.

        :raises InvalidMessage: the content ends with a bare CR, and the policy is to refuse.
        """
        if self._cr_held and self._policy is Repair.REFUSE:
            raise self._refusal(b"\r")
        if not (self._cr_held or self._in_line):
            return b""
        self._cr_held = self._in_line = False
        self._note_long_line(b"\r\n")
        self.size += 2
        return b"\r\n"

    def _feed(self, chunk: bytes) -> bytes:
        if self._policy is Repair.REPAIR and b"\0" in chunk:
            # Remove NUL first: CR NUL LF, as in UTF-16 text, is one line end.
            chunk = chunk.replace(b"\0", b"")
        if self._cr_held and chunk:
            chunk = b"\r" + chunk
            self._cr_held = False
        if chunk[-1:] == b"\r":
            chunk = chunk[:-1]
            self._cr_held = True
        # Operations on one octet are several times faster than those on two. Canonical octets are
        # recognized by removing every CR and putting one before each LF.
        plain = chunk.replace(b"\r", b"") if b"\r" in chunk else chunk
        clean = plain.replace(b"\n", b"\r\n")
        if clean == chunk:
            clean = chunk  # frees one of the two
        elif plain is not chunk and len(chunk) - len(plain) != chunk.count(b"\r\n"):
            if self._policy is Repair.REFUSE:
                raise self._refusal(chunk)
            plain = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            clean = plain.replace(b"\n", b"\r\n")
        if b"\0" in clean:
            raise self._refusal(chunk)
        self._note_long_line(clean)
        self._lines += len(clean) - len(plain)
        self.size += len(clean)
        if clean:
            self._in_line = clean[-1:] != b"\n"
            if not self.eight_bit and not clean.isascii():
                self.eight_bit = True
        return clean

    def _note_long_line(self, clean: bytes) -> None:
        begin = self._long_lines.feed(clean)
        if begin is not None:
            self.long_line = 1 + self._lines + clean.count(b"\n", 0, begin)

    def _refusal(self, chunk: bytes) -> InvalidMessage:
        match = _BARE_CR_OR_NUL.search(chunk)
        if match is None:
            raise AssertionError(chunk)
        fault = "a NUL" if match[0] == b"\0" else "a bare CR"
        line = 1 + self._lines + chunk.count(b"\n", 0, match.start())
        return InvalidMessage(
            "the message cannot be sent as it is",
            detail=f"there is {fault} in line {line}",
            remedy="encode it as base64 or quoted-printable",
        )


class TextModeRepair:
    """Makes CRLF of CR CR LF, which is a CRLF that was written in text mode.

    For the input of commands; any cutting of the octets gives the same result.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the octets that are ready to be passed on."""
        chunk = self._held + chunk
        end = len(chunk) - (2 if chunk.endswith(b"\r\r") else chunk.endswith(b"\r"))
        self._held = chunk[end:]
        return chunk[:end].replace(DOUBLED_CR, b"\r\n")

    def finish(self) -> bytes:
        """Return the octets that were held."""
        return self._held


def is_canonical(octets: bytes) -> bool:
    """Return True if there is no bare CR, no bare LF and no NUL in *octets*."""
    return b"\0" not in octets and octets.replace(b"\r", b"").replace(b"\n", b"\r\n") == octets


class LongLines:
    """Finds lines of more than :data:`MAX_TEXT_LINE` octets in canonical octets.

    Any cutting of the octets gives the same result.
    """

    __slots__ = ("_column", "found")

    def __init__(self) -> None:
        # Octets since the last line end.
        self._column = 0
        #: There is such a line.
        self.found = False

    def feed(self, octets: bytes) -> int | None:
        """Read the next octets; return where the first such line begins in them, if it is the first.

        A line that began before *octets* begins at 0.
        """
        if self.found:
            return None
        begin, last = _first_long_line(octets, self._column)
        self._column = len(octets) - last
        self.found = begin is not None
        return begin


def long_line(octets: bytes) -> int | None:
    """Return the number of the first line of more than :data:`MAX_TEXT_LINE` octets, or None."""
    begin, _ = _first_long_line(octets, 0)
    return None if begin is None else 1 + octets.count(b"\n", 0, begin)


def _first_long_line(octets: bytes, column: int) -> tuple[int | None, int]:
    """Return where the first long line begins, if there is one, and where the last line begins.

    :param column: octets of the first line that came before *octets*; where it is the long one, it
        begins at 0, and as the last one, before 0.
    """
    begin, start, longest = -column, 0, MAX_TEXT_LINE + 2
    last = len(octets) - longest
    # From line end to line end, as far as one line may reach.
    while begin <= last:
        end = octets.rfind(b"\n", start, begin + longest)
        if end < 0:
            return start, begin
        begin = start = end + 1
    end = octets.rfind(b"\n", start)
    return None, begin if end < 0 else end + 1


class LineBreaker:
    """Breaks lines of more than :data:`MAX_TEXT_LINE` octets by CRLF and a blank.

    The last resort, as in other mail systems: in a header that folds the field. Canonical octets stay
    canonical, characters of UTF-8 stay whole, and any cutting of the octets gives the same result.
    """

    __slots__ = ("_held", "_room")

    def __init__(self) -> None:
        # The octets that are not passed on yet, and the number of octets that the first line may have.
        self._held = b""
        self._room = MAX_TEXT_LINE

    def feed(self, octets: bytes) -> bytes:
        """Return the octets that are ready to be passed on."""
        octets = self._held + octets
        made, begin, room, passed = [], 0, self._room, 0
        while len(octets) - begin >= room + 2:
            end = octets.rfind(b"\n", begin, begin + room + 2)
            if end >= 0:
                begin, room = end + 1, MAX_TEXT_LINE
                continue
            begin += room
            # Up to three octets follow the first one of a character.
            begin -= next((n for n in range(4) if octets[begin - n] & 0xC0 != 0x80), 0)
            made += [octets[passed:begin], b"\r\n "]
            passed, room = begin, MAX_TEXT_LINE - 1
        made.append(octets[passed:begin])
        self._held, self._room = octets[begin:], room
        return b"".join(made)

    def finish(self) -> bytes:
        """Return the octets that were held."""
        return self._held


class DotStuffer:
    """Turns canonical octets into the octets that follow a 354."""

    __slots__ = ("_at_line_start",)

    def __init__(self) -> None:
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """Return *chunk* with a dot before each dot that begins a line."""
        if not chunk:
            return chunk
        parts = _SPLIT_AT_DOTS(chunk)
        stuffed = chunk if len(parts) == 1 else b"\n..".join(parts)
        if self._at_line_start and chunk[:1] == b".":
            stuffed = b"." + stuffed
        self._at_line_start = chunk[-1:] == b"\n"
        return stuffed

    def finish(self) -> bytes:
        """Return the end of the content: the final dot, on a line of its own."""
        return b".\r\n" if self._at_line_start else b"\r\n.\r\n"


def unstuffed(content: bytes) -> bytes:
    """Return *content* without the dot that begins a line, in every line but the first."""
    parts = _SPLIT_AT_STUFFED_DOTS(content)
    return content if len(parts) == 1 else b"\r\n".join(parts)
