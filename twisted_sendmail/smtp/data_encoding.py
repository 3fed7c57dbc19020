"""Content in the form it has on the wire: canonical line ends, stuffed dots.

One guard for everything that is sent.  ``Canonicalizer`` makes every line end CRLF and
lets no bare CR and no NUL pass; ``DotStuffer`` makes sure that nothing in the content
looks like its end.  Both work on chunks, and how the content is cut changes nothing.

RFC 5321 section 2.3.8 (lines), section 4.5.2 (transparency).
"""

from __future__ import annotations

import enum
import re

from twisted_sendmail.smtp.root_error import InvalidMessage

#: Octets of a line without its end (RFC 5321 section 4.5.3.1.6).
MAX_TEXT_LINE = 998

# Octets worked on at a time: few enough for the allocator to use the same memory again.
_STRIDE = 32 * 1024

# A pattern finds several octets faster than ``replace`` and ``in`` do.
_AT_DOTS = re.compile(rb"\n\.").split
_AT_STUFFED = re.compile(rb"\r\n\.").split

_WRONG = re.compile(rb"\r(?!\n)|\0")


class Repair(enum.Enum):
    """What to do with a bare CR or a NUL, which SMTP cannot carry."""

    #: Raise :class:`~twisted_sendmail.smtp.root_error.InvalidMessage`.
    REFUSE = "refuse"
    #: A bare CR becomes a line end, a NUL is left out.
    REPAIR = "repair"


class Canonicalizer:
    """Raw octets in, lines ended by CRLF out.

    :param policy: for a bare CR or a NUL.
    """

    __slots__ = (
        "_before",
        "_held",
        "_line",
        "_policy",
        "eight_bit",
        "longest_line",
        "size",
    )

    def __init__(self, policy: Repair = Repair.REFUSE) -> None:
        self._policy = policy
        self._held = False
        self._line = 0
        self._before = 0  # whole lines
        #: Octets given out.
        self.size = 0
        #: There was an octet above 127.
        self.eight_bit = False
        #: Octets of the longest line without its end, if that is more than
        #: :data:`MAX_TEXT_LINE`; otherwise 0.
        self.longest_line = 0

    def feed(self, chunk: bytes) -> bytes:
        """The canonical form of the next *chunk*, but for a CR at its end, which waits.

        :raises InvalidMessage: a bare CR or a NUL, and the policy is to refuse.
        """
        if len(chunk) <= _STRIDE:
            return self._feed(chunk)
        cuts = range(0, len(chunk), _STRIDE)
        return b"".join([self._feed(chunk[at : at + _STRIDE]) for at in cuts])

    def _feed(self, chunk: bytes) -> bytes:
        if self._policy is Repair.REPAIR and b"\0" in chunk:
            # First of all, so that CR NUL LF is one line end: text of 16 bits has such.
            chunk = chunk.replace(b"\0", b"")
        if self._held and chunk:
            chunk = b"\r" + chunk
            self._held = False
        if chunk[-1:] == b"\r":
            chunk = chunk[:-1]
            self._held = True
        return self._out(*self._clean(chunk))

    def finish(self) -> bytes:
        """What is left: a CR that was held, and the end of a last line without one.

        :raises InvalidMessage: the content ends with a bare CR, and the policy is to refuse.
        """
        if self._held:
            self._held = False
            if self._policy is Repair.REFUSE:
                raise self._refused(b"\r")
            return self._out(b"\r\n", 1)
        return self._out(b"\r\n", 1) if self._line else b""

    def _clean(self, chunk: bytes) -> tuple[bytes, int]:
        """*chunk* made canonical, and its lines.

        Operations on one octet are several times faster than those on two, so what is
        canonical already is recognized by taking CR away and putting it back.
        """
        plain = chunk.replace(b"\r", b"") if b"\r" in chunk else chunk
        clean = plain.replace(b"\n", b"\r\n")
        lines = len(clean) - len(plain)
        if clean == chunk:
            clean = chunk  # one of the two can go
        elif plain is not chunk and len(chunk) - len(plain) != chunk.count(b"\r\n"):
            if self._policy is Repair.REFUSE:
                raise self._refused(chunk)
            plain = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            clean = plain.replace(b"\n", b"\r\n")
            lines = len(clean) - len(plain)
        if b"\0" in clean:
            raise self._refused(chunk)
        return clean, lines

    def _refused(self, chunk: bytes) -> InvalidMessage:
        match = _WRONG.search(chunk)
        if match is None:
            raise AssertionError(chunk)
        what = "a NUL" if match[0] == b"\0" else "a bare CR"
        line = 1 + self._before + chunk.count(b"\n", 0, match.start())
        return InvalidMessage(
            "the message cannot be sent as it is",
            detail=f"there is {what} in line {line}",
            remedy="encode it as base64 or quoted-printable, or ask for repair",
        )

    def _out(self, chunk: bytes, lines: int) -> bytes:
        self.size += len(chunk)
        self._before += lines
        if not self.eight_bit and not chunk.isascii():
            self.eight_bit = True
        self._measure(chunk)
        return chunk

    def _measure(self, chunk: bytes) -> None:
        """Look for a line longer than any before, in strides that no shorter one can fill."""
        longest = max(self.longest_line, MAX_TEXT_LINE)
        begin, end = -self._line, len(chunk)
        while end - begin > longest:
            # The last line end of a stride: all lines up to there are short enough.
            feed = chunk.rfind(b"\n", max(begin, 0), begin + longest + 2)
            if feed < 0:
                feed = chunk.find(b"\n", begin + longest + 2)
                self.longest_line = longest = (end if feed < 0 else feed - 1) - begin
                if feed < 0:
                    break
            begin = feed + 1
        feed = chunk.rfind(b"\n", max(begin, 0))
        self._line = end - (begin if feed < 0 else feed + 1)


class DotStuffer:
    """Canonical octets in, octets for behind a 354 out."""

    __slots__ = ("_at_line_start",)

    def __init__(self) -> None:
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """*chunk* with a dot before each dot that begins a line."""
        if not chunk:
            return chunk
        parts = _AT_DOTS(chunk)
        stuffed = chunk if len(parts) == 1 else b"\n..".join(parts)
        if self._at_line_start and chunk[:1] == b".":
            stuffed = b"." + stuffed
        self._at_line_start = chunk[-1:] == b"\n"
        return stuffed

    def finish(self) -> bytes:
        """The end of the content."""
        return b".\r\n" if self._at_line_start else b"\r\n.\r\n"


def unstuffed(content: bytes) -> bytes:
    """*content* without the dot that begins a line, in every line but the first."""
    parts = _AT_STUFFED(content)
    return content if len(parts) == 1 else b"\r\n".join(parts)
