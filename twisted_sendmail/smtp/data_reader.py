"""The content of one message as the server reads it, after DATA or in BDAT chunks.

:class:`DataParser` finds CRLF dot CRLF and removes stuffed dots, :class:`ChunkParser` joins chunks.
Both notice bare CR, bare LF and NUL, because two servers that read them differently make two
messages of one. :class:`HeaderCounter` measures the header. :class:`ContentReader` holds the parser
and the counter of one message, and decides whether the message is refused. The octets of a chunk
are counted by the session (``server``).

Any cutting of the octets gives the same content and the same refusal. No content is kept.

RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2 and 6.3 (hops); RFC 1870 section 6.3; RFC 3030.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.data_encoding import is_canonical, unstuffed
from twisted_sendmail.smtp.header_section import (
    TOO_MANY_HOPS,
    hop_count,
    is_loop,
    section_end,
)
from twisted_sendmail.smtp.limits import MAX_FIELDS
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from twisted_sendmail.smtp.server_settings import ServerSettings

#: Octets beyond twice the limit that are read before the connection is closed. A client that
#: ignored SIZE gets its reply; a client that never ends does not.
SLACK = 1024 * 1024

_END = b"\r\n.\r\n"
# CR CR LF is a CRLF that was written in text mode: an empty line there would end the header.
_LINE_END = re.compile(rb"\r\r?\n|\r|\n")
# A whole line that neither is a field nor continues one (RFC 5322 section 2.2).
_NO_FIELD = re.compile(rb"\r\n(?![!-9;-~]+[ \t]*:|[ \t])[^\r\n]*\r\n")
_NEXT_FIELD = re.compile(rb"\n(?![ \t])")


def too_large(settings: ServerSettings) -> Reply:
    """Return the 552 that names the limit."""
    return Reply(552, (f"5.3.4 The message is larger than {settings.max_size} octets",))


class ContentReader:
    """Reads one content, from DATA or the first BDAT to its end.

    :param chunked: the content comes in BDAT chunks.
    :param binary: MAIL had BODY=BINARYMIME.
    """

    __slots__ = (
        "_header",
        "_parser",
        "_refusal",
        "_settings",
        "chunks",
        "ended",
        "endless",
        "handler_refusal",
        "size",
    )

    def __init__(self, settings: ServerSettings, *, chunked: bool, binary: bool = False) -> None:
        self._settings = settings
        self._header = HeaderCounter(settings.max_header, settings.max_fields)
        self._parser: DataParser | ChunkParser = (
            ChunkParser(repair=settings.repair, binary=binary)
            if chunked
            else DataParser(repair=settings.repair)
        )
        self._refusal: Reply | None = None
        #: The number of BDAT commands.
        self.chunks = 0
        #: Octets of content so far.
        self.size = 0
        #: The end has been read.
        self.ended = False
        #: The message is so far beyond the limit that its end is not awaited.
        self.endless = False
        #: The refusal by the handler, if there was one.
        self.handler_refusal: Reply | None = None

    def feed(self, data: bytes, *, last: bool = False) -> tuple[bytes, bytes]:
        """Read octets.

        Return the content in them, empty once the message is refused, and after DATA the octets
        that follow the end of the content.

        :param last: *data* ends the last chunk.
        """
        parser = self._parser
        rest: bytes | None = None
        if isinstance(parser, ChunkParser):
            content = parser.feed(data)
            if last:
                content += parser.finish()
            self.ended = last
        else:
            content, rest = parser.feed(data)
            self.ended = rest is not None
        self.size += len(content)
        header = self._header
        if not header.ended:
            header.feed(content)
            if self.ended:
                header.finish()
        self._refusal = self._objection()
        return content if self.refusal is None else b"", rest or b""

    @property
    def refusal(self) -> Reply | None:
        """The refusal of the message as read so far, or None.

        The handler's own refusal comes last, because the octets that the handler had seen by then
        depend on the cutting.
        """
        return self._refusal or self.handler_refusal

    def _objection(self) -> Reply | None:
        settings, header, faults = self._settings, self._header, self._parser.faults
        if faults and not settings.repair:
            held = ", ".join(sorted(fault.value for fault in faults))
            return Reply(550, (f"5.6.0 The message holds {held}",))
        if self.size > settings.max_size:
            self.endless = self.size > 2 * settings.max_size + SLACK
            return too_large(settings)
        text = ""
        if header.too_long:
            text = f"5.3.4 The header is longer than {settings.max_header} octets"
        elif header.too_many_fields:
            text = f"5.3.4 The header has more than {settings.max_fields} fields"
        elif is_loop(header.hops, settings.max_hops):
            return TOO_MANY_HOPS
        elif self.chunks > settings.max_chunks:
            text = f"5.3.4 The message comes in more than {settings.max_chunks} chunks"
        return Reply(552, (text,)) if text else None


class ContentDefect(enum.Enum):
    """A fault of a content; the values complete "the message holds"."""

    BARE_CR = "a bare CR"
    BARE_LF = "a bare LF"
    NUL = "a NUL"


class _ContentParser:
    """Common part of the parsers: inspects pieces that never separate a CR from its LF.

    :param repair: replace bare CR and LF, and CR CR LF, by CRLF, and remove NUL; pieces do not
        separate CR CR LF then.
    :param binary: BODY=BINARYMIME; every octet is content.
    """

    _held = b""

    def __init__(self, *, repair: bool = False, binary: bool = False) -> None:
        self._repair = repair
        self._binary = binary
        #: The faults found so far, repaired or not.
        self.faults: set[ContentDefect] = set()

    def _inspected(self, piece: bytes) -> bytes:
        if self._binary or is_canonical(piece):
            return piece
        pairs = piece.count(b"\r\n")
        if piece.count(b"\r") != pairs:
            self.faults.add(ContentDefect.BARE_CR)
        if piece.count(b"\n") != pairs:
            self.faults.add(ContentDefect.BARE_LF)
        if b"\0" in piece:
            self.faults.add(ContentDefect.NUL)
        return _LINE_END.sub(b"\r\n", piece).replace(b"\0", b"") if self._repair else piece


class DataParser(_ContentParser):
    """The content after one DATA."""

    # The content starts at the start of a line, as if a CRLF stood before it.
    _held = b"\r\n"
    _start = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Read octets from the wire.

        Return the content that they complete, and None; at the end of the content the octets after
        it, which are not content. Then do not feed again.
        """
        data = self._held + data
        end = data.find(_END)
        rest: bytes | None = None
        if end >= 0:
            rest = data[end + len(_END) :]
            data = data[: end + 2]
        else:
            kept = next((n for n in (4, 3, 2, 1) if data.endswith(_END[:n])), 0)
            if self._repair and data.endswith(b"\r" + _END[:kept]):
                kept += 1
            self._held = data[len(data) - kept :]
            data = data[: len(data) - kept]
        if not data:
            return b"", rest
        start, self._start = self._start, 0
        data = unstuffed(data)
        return self._inspected(data[start:] if start else data), rest


class ChunkParser(_ContentParser):
    """The content of any number of BDAT chunks."""

    def feed(self, data: bytes) -> bytes:
        """Read octets of a chunk; return content."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r") and not self._binary:
            kept = 2 if self._repair and data.endswith(b"\r\r") else 1
            self._held = data[-kept:]
            data = data[:-kept]
        return self._inspected(data)

    def finish(self) -> bytes:
        """Return the octets held back; call once, at the end of the last chunk."""
        held, self._held = self._held, b""
        return self._inspected(held)


class HeaderCounter:
    """Measures the header at the beginning of a content.

    :param limit: octets that a header may have.
    :param fields: fields that a header may have.
    """

    def __init__(self, limit: int, fields: int = MAX_FIELDS) -> None:
        self._limit = limit
        self._fields = fields
        self._header: bytearray | None = None
        #: The end of the header has been read.
        self.ended = False
        #: Received fields; valid after the header.
        self.hops = 0
        #: The header is longer than *limit*.
        self.too_long = False
        #: The header has more than *fields* fields.
        self.too_many_fields = False

    def feed(self, content: bytes) -> None:
        """Read the next piece of content."""
        if self.ended:
            return
        header = self._header
        if header is None:
            # Most headers come in one piece.
            end = section_end(content)
            if 0 <= end <= self._limit:
                self._measure(b"\r\n" + content[:end])
                return
            header = self._header = bytearray(b"\r\n")
        room = self._limit + 8 - len(header)
        start = max(0, len(header) - 3)
        header += content[:room]
        end = header.find(b"\r\n\r\n", start)
        if end >= 0:
            self._measure(bytes(header[: end + 2]))
        elif len(header) - 2 > self._limit + 2:
            # Measure only octets that are the same for any cutting.
            del header[self._limit + 2 :]
            self._measure(bytes(header), cut=True)

    def finish(self) -> None:
        """End the header, as the content has ended."""
        if not self.ended:
            self._measure(b"\r\n" if self._header is None else bytes(self._header))

    def _measure(self, header: bytes, *, cut: bool = False) -> None:
        """Measure *header*, which begins after a CRLF.

        :param cut: *header* is only the beginning of the header.
        """
        self.ended, self._header = True, None
        body = _NO_FIELD.search(header)
        if body is not None:
            # The body begins with the line that is no field.
            header = header[: body.start() + 2]
        self.too_long = body is None if cut else len(header) - 2 > self._limit
        # There are no more fields than lines, and lines are counted faster.
        if header.count(b"\n") > self._fields:
            # The first field follows a line end, and so does the end of the last one.
            self.too_many_fields = len(_NEXT_FIELD.findall(header)) - 1 > self._fields
        self.hops = hop_count(header)
