"""The content of one message as the server reads it, after DATA or in BDAT chunks.

:class:`DataParser` finds CRLF dot CRLF and removes stuffed dots, :class:`ChunkParser` joins
chunks; both notice bare CR, bare LF and NUL, because two servers that read them differently
make two messages of one.  :class:`HeaderCounter` measures the header.  :class:`ContentReader`
holds the parser and the counter of one message, and what speaks against the message.

Any cutting of the octets gives the same content and the same refusal.  No content is kept.

RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2 and 6.3 (hops); RFC 1870 section 6.3; RFC 3030.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.data_encoding import unstuffed
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_settings import MAX_FIELDS

if TYPE_CHECKING:
    from twisted_sendmail.smtp.server_settings import ServerSettings

#: Octets beyond twice the limit that are read before the connection is closed: a client that
#: did not look at SIZE gets its reply, one that never ends does not.
SLACK = 1024 * 1024

_END = b"\r\n.\r\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")
# A whole line that neither is a field nor goes on with one (RFC 5322 section 2.2).
_BODY = re.compile(rb"\r\n(?![!-9;-~]+[ \t]*:|[ \t])[^\r\n]*\r\n")
_NEXT_FIELD = re.compile(rb"\n(?![ \t])")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)


def too_large(settings: ServerSettings) -> Reply:
    """552, naming the limit."""
    return Reply(552, (f"5.3.4 The message is larger than {settings.max_size} octets",))


class ContentReader:
    """Reads one content, from DATA or the first BDAT to its end.

    :param chunked: it comes in BDAT chunks.
    :param binary: MAIL had BODY=BINARYMIME.
    """

    __slots__ = ("_header", "_parser", "_settings", "chunks", "ended", "handler_refusal", "size")

    def __init__(self, settings: ServerSettings, *, chunked: bool, binary: bool = False) -> None:
        self._settings = settings
        self._header = HeaderCounter(settings.max_header, settings.max_fields)
        self._parser: DataParser | ChunkParser = (
            ChunkParser(repair=settings.repair, binary=binary)
            if chunked
            else DataParser(repair=settings.repair)
        )
        #: The number of BDAT commands.
        self.chunks = 0
        #: Octets of content so far.
        self.size = 0
        #: The end has been read.
        self.ended = False
        #: The refusal by the handler, if there was one.
        self.handler_refusal: Reply | None = None

    def feed(self, data: bytes, *, last: bool = False) -> tuple[bytes, bytes]:
        """Read octets.

        Returns the content in them, empty once the message is refused, and after DATA the
        octets that follow the end of the content.

        :param last: they are the last ones of the last chunk.
        """
        parser = self._parser
        rest: bytes | None = None
        if isinstance(parser, ChunkParser):
            content = parser.feed(data)
            if last:
                content += parser.finish()
                self.ended = True
        else:
            content, rest = parser.feed(data)
            self.ended = rest is not None
        return self._count(content), rest or b""

    def _count(self, content: bytes) -> bytes:
        self.size += len(content)
        self._header.feed(content)
        if self.ended:
            self._header.finish()
        return b"" if self.refusal() is not None else content

    def refusal(self) -> Reply | None:
        """What speaks against the message so far, or None; for the end: against the message.

        The handler's own refusal comes last, because how many octets it had seen by then
        depends on how they were cut.
        """
        settings, header = self._settings, self._header
        faults = self._parser.faults
        if faults and not settings.repair:
            held = ", ".join(sorted(fault.value for fault in faults))
            return Reply(550, (f"5.6.0 The message holds {held}",))
        if self.size > settings.max_size:
            return too_large(settings)
        if header.too_long:
            limit = settings.max_header
            return Reply(552, (f"5.3.4 The header is longer than {limit} octets",))
        if header.too_many_fields:
            limit = settings.max_fields
            return Reply(552, (f"5.3.4 The header has more than {limit} fields",))
        if header.hops > settings.max_hops:
            return Reply(554, ("5.4.6 Too many hops: the message goes in circles",))
        if self.chunks > settings.max_chunks:
            return Reply(
                552, (f"5.3.4 The message comes in more than {settings.max_chunks} chunks",)
            )
        return self.handler_refusal

    @property
    def endless(self) -> bool:
        """It is so far beyond the limit that its end is not waited for."""
        return self.size > 2 * self._settings.max_size + SLACK


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
    """The content after one DATA.

    :param repair: make CRLF of bare CR and LF, and drop NUL.
    """

    def __init__(self, *, repair: bool = False) -> None:
        super().__init__(repair=repair)
        # The content starts at the start of a line, as if a CRLF stood before it.
        self._held = b"\r\n"
        self._start = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take octets from the wire.

        Returns the content they complete, and None; or, once the end was seen, the octets
        after it (which are no content).  Do not feed again after that.
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
    """The content of any number of BDAT chunks.

    :param repair: make CRLF of bare CR and LF, and drop NUL.
    :param binary: BODY=BINARYMIME: every octet is content.
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


class HeaderCounter:
    """Counts over pieces of content.

    :param limit: octets a header may have.
    :param fields: fields it may have.
    """

    def __init__(self, limit: int, fields: int = MAX_FIELDS) -> None:
        self._limit = limit
        self._fields = fields
        self._header: bytearray | None = None
        self._over = False
        #: Received fields; known when the header has ended.
        self.hops = 0
        #: Is the header longer than it may be?
        self.too_long = False
        #: Has the header more fields than it may have?
        self.too_many_fields = False

    def feed(self, content: bytes) -> None:
        """Look at the next piece."""
        if self._over:
            return
        header = self._header
        if header is None:
            # Most headers come in one piece.
            end = 0 if content.startswith(b"\r\n") else content.find(b"\r\n\r\n") + 2
            if end != 1 and end <= self._limit:
                self._judge(b"\r\n" + content[:end])
                return
            header = self._header = bytearray(b"\r\n")
        room = self._limit + 8 - len(header)
        start = max(0, len(header) - 3)
        header += content[:room]
        end = header.find(b"\r\n\r\n", start)
        if end >= 0:
            self._judge(bytes(header[: end + 2]))
        elif len(header) - 2 > self._limit + 2:
            # Only what is the same for any cutting is looked at.
            del header[self._limit + 2 :]
            self._judge(bytes(header), cut=True)

    def finish(self) -> None:
        """The header, or all of the content, has ended."""
        if not self._over:
            self._judge(b"\r\n" if self._header is None else bytes(self._header))

    def _judge(self, header: bytes, *, cut: bool = False) -> None:
        """Look at the header, which begins after a CRLF.

        :param cut: it goes on.
        """
        self._over, self._header = True, None
        body = _BODY.search(header)
        if body is not None:
            # It is body after all.
            header = header[: body.start() + 2]
        self.too_long = body is None if cut else len(header) - 2 > self._limit
        # There are no more fields than lines, and lines are counted at once.
        if header.count(b"\n") > self._fields:
            # The first field follows a line end, and so does what follows the last one.
            self.too_many_fields = len(_NEXT_FIELD.findall(header)) - 1 > self._fields
        if b"\nreceived" in header.lower():
            self.hops = len(_RECEIVED.findall(header))
