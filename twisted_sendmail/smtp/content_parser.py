"""Content as a server reads it: where it ends, and what is wrong in it.

Behind DATA only CRLF, dot, CRLF ends the content, and stuffed dots are taken off.
Behind BDAT the count ends it.  In both, a bare CR, a bare LF and NUL are noticed,
and repaired where that is asked for: two servers that read them differently are
how one message is made into two.

Any cutting of the octets gives the same content and the same faults.  Sizes are
counted by ``server_session``.  RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2; RFC 3030.
"""

from __future__ import annotations

import enum
import re

from twisted_sendmail.smtp.transparency import unstuffed

_END = b"\r\n.\r\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")


class Fault(enum.Enum):
    """What a message may not hold; the values complete "the message holds"."""

    BARE_CR = "a bare CR"
    BARE_LF = "a bare LF"
    NUL = "a NUL"


class _Inspector:
    """Looks at pieces that never part a CR from its LF."""

    def __init__(self, *, repair: bool, binary: bool = False) -> None:
        self._repair = repair
        self._binary = binary
        #: What was found so far, repaired or not.
        self.faults: set[Fault] = set()

    def inspect(self, piece: bytes) -> bytes:
        if self._binary:
            return piece
        # Operations on one octet are several times faster than those on two: what is
        # canonical is recognized by taking CR away and putting it back.
        if b"\0" not in piece and piece.replace(b"\r", b"").replace(b"\n", b"\r\n") == piece:
            return piece
        pairs = piece.count(b"\r\n")
        bare_cr, bare_lf = piece.count(b"\r") != pairs, piece.count(b"\n") != pairs
        nul = b"\0" in piece
        if not (bare_cr or bare_lf or nul):
            return piece
        if bare_cr:
            self.faults.add(Fault.BARE_CR)
        if bare_lf:
            self.faults.add(Fault.BARE_LF)
        if nul:
            self.faults.add(Fault.NUL)
        return _LINE_END.sub(b"\r\n", piece).replace(b"\0", b"") if self._repair else piece


class DataParser(_Inspector):
    """The content behind one DATA.

    :param repair: make CRLF of bare CR and LF, and drop NUL.
    """

    def __init__(self, *, repair: bool = False) -> None:
        super().__init__(repair=repair)
        # The content starts at the start of a line, as if a CRLF stood before it.
        self._held = b"\r\n"
        self._start = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take octets from the wire.

        Returns the content they complete, and None; or, once the end was seen, what
        follows it (which is no content).  Do not feed again after that.
        """
        data = self._held + data
        end = data.find(_END)
        rest: bytes | None = None
        if end >= 0:
            rest = data[end + len(_END) :]
            data = data[: end + 2]
        else:
            kept = next((n for n in (4, 3, 2, 1) if data.endswith(_END[:n])), 0)
            self._held = data[len(data) - kept :]
            data = data[: len(data) - kept]
        if not data:
            return b"", rest
        start, self._start = self._start, 0
        data = unstuffed(data)
        return self.inspect(data[start:] if start else data), rest


class ChunkParser(_Inspector):
    """The content behind any number of BDAT.

    :param repair: make CRLF of bare CR and LF, and drop NUL.
    :param binary: BODY=BINARYMIME was said: every octet is content.
    """

    def __init__(self, *, repair: bool = False, binary: bool = False) -> None:
        super().__init__(repair=repair, binary=binary)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take octets of a chunk, give back content."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r") and not self._binary:
            self._held = b"\r"
            data = data[:-1]
        return self.inspect(data)

    def finish(self) -> bytes:
        """What was held back; to be called once, at the end of the last chunk."""
        held, self._held = self._held, b""
        return self.inspect(held)
