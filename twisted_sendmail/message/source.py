"""What can be sent, and how its octets are pulled: one class a kind of source.

Raw octets as the caller gave them; line ends and headers are ``letter``'s.  Nothing
is read before it is asked for, and no more than :data:`CHUNK` at a time.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from email.message import Message as MIMEMessage
from pathlib import Path
from typing import IO, Any, TypeVar, Union

from twisted_sendmail.smtp.printable import printable
from twisted_sendmail.smtp.root_error import InvalidMessage

T = TypeVar("T")

#: Octets read at a time.
CHUNK = 256 * 1024

#: What the callers of this package may give as a message.  ``str`` is the message's text;
#: a file's name has to be a path.
Message = Union[
    bytes,
    bytearray,
    str,
    MIMEMessage,
    "os.PathLike[str]",
    IO[bytes],
    Iterable[bytes],
    AsyncIterable[bytes],
]

#: Runs work that blocks somewhere else, and gives its result.
RunBlocking = Callable[[Callable[[], T]], Awaitable[T]]


async def run_inline(work: Callable[[], T]) -> T:
    """The simplest :data:`RunBlocking`: here and now."""
    return work()


class Source:
    """Octets to be pulled."""

    #: ``read()`` may block on a disk.
    blocking = False
    #: It can be read a second time.
    rewindable = False

    async def read(self) -> bytes:
        """The next octets, at most :data:`CHUNK`; ``b""`` at the end."""
        return self.read_now()

    def read_now(self) -> bytes:
        """The same for a source that has no need to wait."""
        raise NotImplementedError

    def rewind(self) -> None:
        """Go back to where reading began."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close what was opened here, and end a generator."""


class OctetsSource(Source):
    """Octets in memory."""

    rewindable = True

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def read_now(self) -> bytes:
        """See :class:`Source`."""
        piece = self._octets[self._at : self._at + CHUNK]
        self._at += len(piece)
        return piece

    def rewind(self) -> None:
        """See :class:`Source`."""
        self._at = 0


class FileSource(Source):
    """A binary file, read from where it stands.

    :param owned: opened for us, and ours to close.
    """

    blocking = True

    def __init__(self, file: IO[bytes], *, owned: bool = False) -> None:
        self._file = file
        self._owned = owned
        seekable = getattr(file, "seekable", None)
        self.rewindable = bool(seekable and seekable())
        self._start = file.tell() if self.rewindable else 0

    @classmethod
    def open(cls, path: os.PathLike[str]) -> FileSource:
        """Open the file at *path*.

        :raises InvalidMessage: it cannot be opened.
        """
        try:
            return cls(Path(path).open("rb"), owned=True)
        except OSError as e:
            shown = printable(os.fspath(path), 200)
            raise InvalidMessage(
                f"message file '{shown}' cannot be read", detail=e.strerror or str(e)
            ) from e

    def read_now(self) -> bytes:
        """See :class:`Source`."""
        return _octets(self._file.read(CHUNK))

    def rewind(self) -> None:
        """See :class:`Source`."""
        self._file.seek(self._start)

    async def close(self) -> None:
        """See :class:`Source`."""
        if self._owned:
            self._file.close()


class _Pieces(Source):
    """Cuts what an iterator yields into chunks, whatever its size."""

    def __init__(self) -> None:
        self._piece = b""
        self._at = 0

    def _cut(self) -> bytes:
        piece = self._piece[self._at : self._at + CHUNK]
        self._at += len(piece)
        return piece

    def _take(self, piece: object) -> None:
        self._piece, self._at = _octets(piece), 0


class IterableSource(_Pieces):
    """An iterable of bytes; an iterator can be read once, a list again."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = iter(pieces)
        self.rewindable = self._left is not pieces

    def read_now(self) -> bytes:
        """See :class:`Source`."""
        while True:
            if chunk := self._cut():
                return chunk
            for piece in self._left:
                self._take(piece)
                break
            else:
                return b""

    def rewind(self) -> None:
        """See :class:`Source`."""
        self._left = iter(self._pieces)
        self._take(b"")

    async def close(self) -> None:
        """See :class:`Source`."""
        close = getattr(self._left, "close", None)
        if close is not None:
            close()


class AsyncIterableSource(_Pieces):
    """An asynchronous iterable of bytes, read once."""

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        super().__init__()
        self._left = pieces.__aiter__()

    async def read(self) -> bytes:
        """See :class:`Source`."""
        while True:
            if chunk := self._cut():
                return chunk
            try:
                self._take(await self._left.__anext__())
            except StopAsyncIteration:
                return b""

    async def close(self) -> None:
        """See :class:`Source`."""
        close = getattr(self._left, "aclose", None)
        if close is not None:
            await close()


def source_of(message: Any) -> Source:
    """The source for anything but a MIME message, which has to be written out first.

    Opens a path at once: call it where it may block.

    :raises InvalidMessage: it is nothing that can be sent.
    """
    if isinstance(message, (bytes, bytearray, memoryview)):
        return OctetsSource(bytes(message))
    if isinstance(message, str):
        return OctetsSource(_encoded(message))
    if isinstance(message, os.PathLike):
        return FileSource.open(message)
    if isinstance(message, io.TextIOBase):
        raise InvalidMessage(
            "the message file is open in text mode", remedy='open it with mode "rb"'
        )
    if hasattr(message, "read"):
        return FileSource(message)
    if hasattr(message, "__aiter__"):
        return AsyncIterableSource(message)
    if hasattr(message, "__iter__") and not isinstance(message, dict):
        return IterableSource(message)
    raise InvalidMessage(
        f"message cannot be {type(message).__name__}",
        remedy="give bytes, text, an EmailMessage, a path, a binary file or an iterable of bytes",
    )


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidMessage(
            "the message's text cannot be encoded",
            detail="it holds a lone surrogate",
            remedy="give bytes",
        ) from None


def _octets(piece: object) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, (bytearray, memoryview)):
        return bytes(piece)
    if piece is None:
        return b""
    raise InvalidMessage(
        f"the message's source gives {type(piece).__name__}", remedy="let it give bytes"
    )
