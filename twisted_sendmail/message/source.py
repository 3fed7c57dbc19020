"""The sources of a message's octets: one class for each kind of message that a caller may give.

They give the raw octets as the caller gave them. Nothing is read before it is asked for, and no more
than about :data:`READ_SIZE` octets are given at a time. A source has a flag that reading may
block; the caller then reads in a thread.
"""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from email.message import Message as MIMEMessage
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, Union

from twisted_sendmail.message.attached_file import ended
from twisted_sendmail.smtp import InvalidMessage, printable

if TYPE_CHECKING:
    from twisted_sendmail.message.attached_file import AttachedFile

T = TypeVar("T")

#: Octets given at a time.
READ_SIZE = 256 * 1024
# Small pieces of an iterator, such as lines, are gathered up to this many octets.
_GATHERED = 64 * 1024

#: A message as callers give it. ``str`` is the text of the message; the name of a file must be a
#: path.
Message = Union[
    bytes,
    bytearray,
    memoryview,
    str,
    MIMEMessage,
    "os.PathLike[str]",
    IO[bytes],
    Iterable[bytes],
    AsyncIterable[bytes],
]

#: Runs work that blocks in another thread, and returns its result.
RunBlocking = Callable[[Callable[[], T]], Awaitable[T]]


async def run_inline(work: Callable[[], T]) -> T:
    """Run *work* at once: the simplest :data:`RunBlocking`."""
    return work()


def source_of(message: Any) -> ContentSource:
    """Return the source for *message*, which is not a MIME object. Opens nothing yet.

    :raises InvalidMessage: *message* is nothing that can be sent.
    """
    if isinstance(message, (bytes, bytearray, memoryview)):
        return OctetsSource(bytes(message))
    if isinstance(message, str):
        return OctetsSource(_encoded(message))
    if isinstance(message, os.PathLike):
        return PathSource(message)
    if isinstance(message, io.TextIOBase):
        raise _text_mode()
    if hasattr(message, "read"):
        return FileSource(message)
    if hasattr(message, "__aiter__"):
        return AsynchronousSource(message)
    if hasattr(message, "__iter__") and not isinstance(message, dict):
        return IterableSource(message)
    raise InvalidMessage(
        f"message cannot be {type(message).__name__}",
        remedy="give bytes, text, an EmailMessage, a path, a binary file or an iterable of bytes",
    )


class ContentSource:
    """Octets that are pulled by :meth:`read`."""

    #: ``read()`` may block on a disk: call it in a thread.
    blocking = False
    #: The source can be read a second time; valid once something was read.
    rewindable = False
    #: Octets of the source; None if not known, or nothing was read yet.
    raw_size: int | None = None

    def read(self) -> bytes:
        """Return the next octets; ``b""`` at the end, and only there.

        :raises InvalidMessage: the source gives something other than octets.
        :raises Exception: what a file or an iterator raises.
        """
        raise NotImplementedError

    def rewind(self) -> None:
        """Go back to where reading began."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the file that was opened, and end a generator; may be called twice."""


class OctetsSource(ContentSource):
    """Octets in memory."""

    rewindable = True

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.raw_size = len(octets)
        self._at = 0

    def read(self) -> bytes:
        """See :class:`ContentSource`."""
        piece = self.octets[self._at : self._at + READ_SIZE]
        self._at += len(piece)
        return piece

    def rewind(self) -> None:
        """See :class:`ContentSource`."""
        self._at = 0


class PiecesSource(ContentSource):
    """Octets in memory, with files attached between them."""

    blocking = True
    rewindable = True

    def __init__(self, pieces: Sequence[bytes | AttachedFile]) -> None:
        self._pieces = pieces
        self._index = self._at = 0
        self.raw_size = sum(
            len(piece) if isinstance(piece, bytes) else piece.encoded_size for piece in pieces
        )

    def read(self) -> bytes:
        """See :class:`ContentSource`.

        :raises InvalidMessage: a file cannot be read, or is not what it was.
        """
        octets = b""
        while not octets and self._index < len(self._pieces):
            piece, at = self._pieces[self._index], self._at
            if isinstance(piece, bytes):
                octets, self._at = piece[at : at + READ_SIZE], at + READ_SIZE
                ended = self._at >= len(piece)
            else:
                octets, self._at = piece.encoded(at)
                ended = self._at >= piece.size
            if ended:
                self._index, self._at = self._index + 1, 0
        return octets

    def rewind(self) -> None:
        """See :class:`ContentSource`."""
        self._index = self._at = 0


class FileSource(ContentSource):
    """A binary file, read from its position; the caller closes it.

    :raises InvalidMessage: the file is closed, or was read to its end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        if getattr(file, "closed", False) is True:
            raise InvalidMessage("the message file is closed", remedy="open it again")
        self.blocking = not isinstance(file, io.BytesIO)
        self._file: IO[bytes] | None = file
        self._start = 0
        try:
            if file.seekable():
                self._start = file.tell()
                self.rewindable = True
                if isinstance(file, io.BytesIO):
                    self.raw_size = file.getbuffer().nbytes - self._start
                elif isinstance(getattr(file, "raw", file), io.FileIO):
                    self.raw_size = os.fstat(file.fileno()).st_size - self._start
        except (AttributeError, OSError, NotImplementedError):
            pass  # a pipe, a socket, or an object that has only read()
        if self.raw_size is not None and self.raw_size <= 0 < self._start:
            raise ended("the message file")

    def read(self) -> bytes:
        """See :class:`ContentSource`."""
        if self._file is None:
            raise ValueError("read of a closed source")
        return _octets(self._file.read(READ_SIZE), "file")

    def rewind(self) -> None:
        """See :class:`ContentSource`."""
        if self._file is not None and self.rewindable:
            self._file.seek(self._start)


class SharedFile:
    """A file that may be closed while another thread uses it: the later of the two closes it.

    No descriptor is closed during a read then, and none stays open.

    :param open_file: opens the file when it is first used.
    """

    def __init__(self, open_file: Callable[[], IO[bytes]]) -> None:
        self._open = open_file
        self._file: IO[bytes] | None = None
        self._in_use = self._closed = False

    @contextmanager
    def used(self) -> Iterator[IO[bytes]]:
        """Give the file, which stays open meanwhile.

        :raises ValueError: it was closed.
        """
        self._in_use = True
        try:
            if self._closed:
                raise ValueError("use of a closed file")
            if self._file is None:
                self._file = self._open()
            yield self._file
        finally:
            self._in_use = False
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close the file, at once if it is not in use; may be called twice."""
        self._closed = True
        if self._file is not None and not self._in_use:
            self._file.close()


class PathSource(FileSource):
    """A file given by its path: opened by the first ``read``, closed by :meth:`close`."""

    blocking = True

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = path
        self._file = None
        self._shared = SharedFile(self._open)

    def read(self) -> bytes:
        """See :class:`ContentSource`.

        :raises InvalidMessage: the file cannot be opened.
        """
        with self._shared.used() as file:
            if self._file is None:
                super().__init__(file)
            return super().read()

    def _open(self) -> IO[bytes]:
        try:
            return Path(os.fsdecode(self._path)).open("rb", buffering=0)
        except (OSError, ValueError) as e:
            shown = printable(os.fsencode(self._path), 200)
            raise InvalidMessage(
                f"message file '{shown}' cannot be read",
                detail=getattr(e, "strerror", None) or str(e),
            ) from e

    async def close(self) -> None:
        """See :class:`ContentSource`."""
        self._shared.close()


class _PieceBuffer:
    """Cuts large pieces of an iterator and gathers small ones."""

    def __init__(self) -> None:
        self._piece = b""
        self._at = 0
        self._few: list[bytes] = []
        self._gathered = 0

    def cut(self) -> bytes:
        """Return the next part of a large piece; ``b""`` if there is none."""
        piece = self._piece[self._at : self._at + READ_SIZE]
        self._at += len(piece)
        if self._at >= len(self._piece):
            self._piece, self._at = b"", 0
        return piece

    def add(self, given: object) -> bool:
        """Add a piece; return True when there is enough."""
        piece = _octets(given, "iterator")
        if len(piece) > READ_SIZE:
            self._piece = self.gathered() + piece
            return True
        self._few.append(piece)
        self._gathered += len(piece)
        return self._gathered >= _GATHERED

    def gathered(self) -> bytes:
        """Return the small pieces gathered so far."""
        octets = b"".join(self._few)
        self._few, self._gathered = [], 0
        return octets


class IterableSource(ContentSource):
    """An iterable of bytes; a list or a tuple can be read again."""

    def __init__(self, given: Iterable[bytes]) -> None:
        self._given = given
        self._left = iter(given)
        self._pieces = _PieceBuffer()
        # Another iterable may give something else the second time.
        self.rewindable = isinstance(given, Sequence)

    def read(self) -> bytes:
        """See :class:`ContentSource`."""
        pieces = self._pieces
        octets = pieces.cut()
        if octets:
            return octets
        for given in self._left:
            if pieces.add(given):
                break
        return pieces.cut() or pieces.gathered()

    def rewind(self) -> None:
        """See :class:`ContentSource`."""
        self._left = iter(self._given)
        self._pieces = _PieceBuffer()

    async def close(self) -> None:
        """See :class:`ContentSource`."""
        if isinstance(self._left, Generator):
            self._left.close()


class AsynchronousSource(ContentSource):
    """An asynchronous iterable of bytes, read once, by :meth:`arrive`."""

    def __init__(self, given: AsyncIterable[bytes]) -> None:
        self._left = given.__aiter__()
        self._pieces = _PieceBuffer()

    async def arrive(self) -> bytes:
        """Return the next octets, as :meth:`ContentSource.read` does."""
        pieces = self._pieces
        octets = pieces.cut()
        if octets:
            return octets
        async for given in self._left:
            if pieces.add(given):
                break
        return pieces.cut() or pieces.gathered()

    async def close(self) -> None:
        """See :class:`ContentSource`."""
        if isinstance(self._left, AsyncGenerator):
            await self._left.aclose()


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidMessage(
            "the message's text cannot be encoded",
            detail="it holds a lone surrogate",
            remedy="give bytes",
        ) from None


def _octets(given: object, whose: str) -> bytes:
    if isinstance(given, bytes):
        return given
    if isinstance(given, (bytearray, memoryview)):
        return bytes(given)
    if isinstance(given, str) and whose == "file":
        raise _text_mode()
    remedy = "let it give bytes"
    if inspect.iscoroutine(given):
        given.close()
        remedy = "give an asynchronous iterator of bytes instead"
    elif given is None:
        remedy = "it must not be non-blocking"
    shown = "nothing" if given is None else type(given).__name__
    raise InvalidMessage(f"the message's {whose} gives {shown}, not bytes", remedy=remedy)


def _text_mode() -> InvalidMessage:
    return InvalidMessage(
        "the message file is open in text mode", remedy='open it in binary mode, "rb"'
    )
