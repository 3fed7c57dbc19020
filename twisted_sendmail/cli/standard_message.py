"""A message from stdin: its header in memory, its body in a file that has no name.

Line ends become CRLF; a bare CR becomes one too and a NUL is left out, as cron would
rather have its mail mended than refused.  The header ends where ``sendmail`` has always
ended it: at the empty line, or before the first line that is no field.

It costs the header and a piece of the body in memory, whatever the size.
RFC 5322 section 2.1, RFC 5321 section 4.1.1.4 (the lone dot).
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from typing import IO, cast

from twisted_sendmail.message import MAX_HEADER, Field, Header
from twisted_sendmail.smtp import MAX_TEXT_LINE, Canonicalizer, InvalidMessage, Repair

#: Octets of body kept in memory; a longer one is in a file.
SMALL = 256 * 1024
_CHUNK = 64 * 1024


class UntilDot:
    """Canonical octets up to a line that is one dot, however they are cut."""

    def __init__(self) -> None:
        # Of the line before the first there is only its end.
        self._held = b"\n"
        self._first = True
        #: There was such a line; what comes behind it is nothing.
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """What certainly belongs to the message."""
        if self.ended:
            return b""
        held = self._held + data
        at = held.find(b"\n.\r\n")
        self.ended = at >= 0
        cut = at + 1 if self.ended else max(len(held) - 3, 0)
        self._held = b"" if self.ended else held[cut:]
        return self._out(held[:cut])

    def finish(self) -> bytes:
        """The rest, at the end of what there is."""
        held, self._held = self._held, b""
        return self._out(held)

    def _out(self, data: bytes) -> bytes:
        if self._first and data:
            self._first = False
            return data[1:]
        return data


class StandardMessage:
    """One message, read; to be closed.

    :param header: its fields; empty where it has none.
    :param body: what is behind the empty line, open at its beginning.
    """

    def __init__(self, header: Header, body: IO[bytes], size: int) -> None:
        self.header = header
        self._body = body
        #: Octets of body.
        self.size = size

    @property
    def octets(self) -> int:
        """All of it."""
        return len(bytes(self.header)) + 2 + self.size

    def pieces(self) -> Iterator[bytes]:
        """Header, empty line, body; any number of times."""
        yield bytes(self.header) + b"\r\n"
        self._body.seek(0)
        while piece := self._body.read(_CHUNK):
            yield piece

    def content(self) -> bytes | IO[bytes]:
        """All of it: octets where it is small, else a file to be read from its beginning."""
        if self.size <= SMALL:
            return b"".join(self.pieces())
        return cast("IO[bytes]", _Whole(bytes(self.header) + b"\r\n", self._body))

    def close(self) -> None:
        """Forget it."""
        self._body.close()


class _Whole(io.RawIOBase):
    """Header and body as one file."""

    def __init__(self, head: bytes, body: IO[bytes]) -> None:
        self._head = head
        self._body = body
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Only to where something was before (``tell``)."""
        self._at = offset
        self._body.seek(max(offset - len(self._head), 0))
        return offset

    def read(self, size: int = -1, /) -> bytes:
        if self._at < len(self._head):
            end = len(self._head) if size < 0 else self._at + size
            piece = self._head[self._at : end]
        else:
            piece = self._body.read(size)
        self._at += len(piece)
        return piece


def read_message(descriptor: int, *, dot_ends: bool) -> StandardMessage:
    """Read all there is, or up to a lone dot.

    :raises InvalidMessage: its header is longer than any header.
    :raises OSError: it cannot be read, or there is no room for it.
    """
    body = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=SMALL))  # noqa: SIM115 - it stays open
    try:
        header, size = _read(descriptor, body, dot_ends=dot_ends)
    except BaseException:
        body.close()
        raise
    return StandardMessage(header, body, size)


def _read(descriptor: int, body: IO[bytes], *, dot_ends: bool) -> tuple[Header, int]:
    head = b""
    header: Header | None = None
    size = 0
    for piece in _canonical(descriptor, dot_ends=dot_ends):
        if header is None:
            head += piece
            found = _header(head, whole=False)
            if found is None:
                continue
            header, piece = found  # noqa: PLW2901 - what is left of it
        size += body.write(piece)
    if header is None:
        header, rest = cast("tuple[Header, bytes]", _header(head, whole=True))
        size += body.write(rest)
    return header, size


def _canonical(descriptor: int, *, dot_ends: bool) -> Iterator[bytes]:
    canonical, dot = Canonicalizer(Repair.REPAIR), UntilDot()
    while not dot.ended and (chunk := os.read(descriptor, _CHUNK)):
        piece = canonical.feed(chunk)
        yield dot.feed(piece) if dot_ends else piece
    if not dot_ends:
        yield canonical.finish()
    elif not dot.ended:
        yield dot.feed(canonical.finish())
        if not dot.ended:
            yield dot.finish()


def _header(head: bytes, *, whole: bool) -> tuple[Header, bytes] | None:
    """The header in *head* and what is behind it; None when that cannot be told yet."""
    if head.startswith(b"\r\n"):
        return Header(()), head[2:]
    end = head.find(b"\r\n\r\n") + 2
    endless = end < 2
    if endless:
        if not whole and len(head) <= MAX_HEADER:
            return None
        end = len(head)
    # A last line that has no end yet is looked at where it is too long for a field's name.
    last = len(head) - head.rfind(b"\n") - 1
    if endless and not whole and last < MAX_TEXT_LINE:
        end -= last
    mend = b"\r\n" if head[end - 1 : end] != b"\n" else b""
    header = Header.parse(head[:end] + mend)
    header.check_fields()
    broken = header.broken
    if broken is not None:
        fields: tuple[Field, ...] = header.fields
        behind = b"".join(field.octets for field in fields[broken:]).removesuffix(mend)
        return Header(fields[:broken]), behind + head[end:]
    if end > MAX_HEADER or (endless and not whole):
        raise InvalidMessage(
            "the message's header cannot be used",
            detail=f"it is longer than {MAX_HEADER} octets",
            remedy="put an empty line between header and body",
        )
    return header, head[end + 2 :]
