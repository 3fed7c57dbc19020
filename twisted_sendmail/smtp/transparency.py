"""Content in the form it has on the wire: canonical line ends, stuffed dots.

One guard for everything that is sent.  ``Canonical`` makes every line end CRLF and
lets no bare CR and no NUL pass; ``DotStuffer`` makes sure that nothing in the content
looks like its end.  Both work on chunks, and how the content is cut changes nothing.

RFC 5321 section 2.3.8 (lines), section 4.5.2 (transparency).
"""

from __future__ import annotations

import enum

from twisted_sendmail.smtp.root_error import InvalidMessage

#: Octets of a line without its end (RFC 5321 section 4.5.3.1.6).
MAX_TEXT_LINE = 998


class Repair(enum.Enum):
    """What to do with a bare CR or a NUL, which SMTP cannot carry."""

    #: Raise :class:`~twisted_sendmail.smtp.root_error.InvalidMessage`.
    REFUSE = "refuse"
    #: A bare CR becomes a line end, a NUL is left out.
    REPAIR = "repair"


class Canonical:
    """Raw octets in, lines ended by CRLF out.

    :param policy: for a bare CR or a NUL.
    """

    __slots__ = (
        "_held",
        "_line",
        "_lines",
        "_policy",
        "_tail",
        "eight_bit",
        "longest_line",
        "size",
    )

    def __init__(self, policy: Repair = Repair.REFUSE) -> None:
        self._policy = policy
        self._held = False
        self._tail = b""
        self._line = 0
        self._lines = 1
        #: Octets given out.
        self.size = 0
        #: There was an octet above 127.
        self.eight_bit = False
        #: Octets of the longest line without its end.
        self.longest_line = 0

    def feed(self, chunk: bytes) -> bytes:
        """The canonical form of the next *chunk*, but for a CR at its end, which waits.

        :raises InvalidMessage: a bare CR or a NUL, and the policy is to refuse.
        """
        if self._held:
            chunk = b"\r" + chunk
            self._held = False
        if chunk[-1:] == b"\r":
            chunk = chunk[:-1]
            self._held = True
        return self._clean(chunk)

    def finish(self) -> bytes:
        """What is left: a CR that was held, and the end of a last line without one.

        :raises InvalidMessage: the content ends with a bare CR, and the policy is to refuse.
        """
        rest = b""
        if self._held:
            self._held = False
            if self._policy is Repair.REFUSE:
                raise self._refused("a bare CR", b"")
            rest = self._out(b"\r\n")
        if self.size and self._tail != b"\n":
            rest += self._out(b"\r\n")
        return rest

    def _clean(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        feeds, returns = chunk.count(b"\n"), chunk.count(b"\r")
        if feeds != returns or chunk.count(b"\r\n") != feeds:
            chunk = self._ended(chunk, returns)
        if b"\0" in chunk:
            if self._policy is Repair.REFUSE:
                raise self._refused("a NUL", chunk[: chunk.index(b"\0")])
            chunk = chunk.replace(b"\0", b"")
        return self._out(chunk)

    def _ended(self, chunk: bytes, returns: int) -> bytes:
        plain = chunk.replace(b"\r\n", b"\n") if returns else chunk
        if b"\r" in plain:
            if self._policy is Repair.REFUSE:
                raise self._refused("a bare CR", plain[: plain.index(b"\r")])
            plain = plain.replace(b"\r", b"\n")
        return plain.replace(b"\n", b"\r\n")

    def _refused(self, what: str, before: bytes) -> InvalidMessage:
        line = self._lines + before.count(b"\n")
        return InvalidMessage(
            "the message cannot be sent as it is",
            detail=f"there is {what} in line {line}",
            remedy="encode it as base64 or quoted-printable, or ask for repair",
        )

    def _out(self, chunk: bytes) -> bytes:
        if not chunk:
            return chunk
        self.size += len(chunk)
        self._tail = chunk[-1:]
        if not self.eight_bit and not chunk.isascii():
            self.eight_bit = True
        self._measure(chunk)
        return chunk

    def _measure(self, chunk: bytes) -> None:
        lines = chunk.count(b"\n")
        self._lines += lines
        if not lines:
            self._line += len(chunk)
            self.longest_line = max(self.longest_line, self._line)
            return
        first = chunk.index(b"\n") - 1
        longest = max(self.longest_line, self._line + first)
        # Exact, and split into lines only where a longer one than seen can be.
        if len(chunk) - 2 * lines > self.longest_line:
            longest = max(longest, *map(len, chunk.split(b"\r\n")))
        self._line = len(chunk) - chunk.rindex(b"\n") - 1
        self.longest_line = max(longest, self._line)


class DotStuffer:
    """Canonical octets in, octets for behind a 354 out."""

    __slots__ = ("_at_line_start",)

    def __init__(self) -> None:
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """*chunk* with a dot before each dot that begins a line."""
        if not chunk:
            return chunk
        stuffed = chunk.replace(b"\n.", b"\n..") if b"\n." in chunk else chunk
        if self._at_line_start and chunk[:1] == b".":
            stuffed = b"." + stuffed
        self._at_line_start = chunk[-1:] == b"\n"
        return stuffed

    def finish(self) -> bytes:
        """The end of the content."""
        return b".\r\n" if self._at_line_start else b"\r\n.\r\n"
