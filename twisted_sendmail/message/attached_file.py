"""A large file as content of a message: read in pieces when the message is sent, and again if need be.

No descriptor stays open for a path, and the position of an open file does not change, so several
threads may read at once. A file that grows is sent as long as it was when the message was composed.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import weakref
from binascii import b2a_base64
from pathlib import Path
from typing import IO, TYPE_CHECKING

from twisted_sendmail.smtp import InvalidMessage, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A longer content is not read when a message is composed, but when it is sent.
MAX_IN_MEMORY = 64 * 1024
#: Octets in a line of base64 (RFC 2045 section 6.8: 76 characters).
_LINE = 57
#: Octets of a file that are read at a time: whole lines.
_READ = _LINE * 4096


class AttachedFile:
    """The octets of a file, from *offset*.

    :param name: for errors.
    :param path: the file, opened for each read; None: *descriptor* is read.
    :param descriptor: an open file, which is closed with this object.
    """

    def __init__(
        self, name: str, *, path: str | None = None, descriptor: int | None = None, offset: int = 0
    ) -> None:
        self._name = name
        self._path = path
        self._descriptor = descriptor
        self._offset = offset
        status = os.stat(path) if descriptor is None else os.fstat(descriptor)  # type: ignore[arg-type]  # noqa: PTH116 - one of two
        self._file = (status.st_dev, status.st_ino)
        #: Octets.
        self.size = max(status.st_size - offset, 0)
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)

    def __deepcopy__(self, memo: object) -> AttachedFile:
        return self

    @property
    def encoded_size(self) -> int:
        """Octets in base64."""
        lines = -(-self.size // _LINE)
        return -(-self.size // 3) * 4 + 2 * max(lines - 1, 0)

    def encoded(self, at: int) -> tuple[bytes, int]:
        """Return the next piece in base64, and where the next but one begins; blocks.

        The lines end with CRLF, except for the last one.

        :param at: 0 at first.
        :raises InvalidMessage: the file cannot be read, or is not what it was.
        """
        octets = self._read(at)
        base64 = b2a_base64(octets, newline=False)
        lines = [base64[begin : begin + 76] for begin in range(0, len(base64), 76)]
        after = at + len(octets)
        return b"\r\n".join(lines) + (b"\r\n" if after < self.size else b""), after

    def text(self) -> str:
        """Return all of it in base64, in memory."""
        pieces, at = [], 0
        while at < self.size:
            piece, at = self.encoded(at)
            pieces.append(piece)
        return b"".join(pieces).decode("ascii").replace("\r\n", "\n")

    def content(self) -> bytes:
        """Return all octets, in memory."""
        return b"".join(self._all())

    def _all(self) -> Iterator[bytes]:
        at = 0
        while at < self.size:
            octets = self._read(at)
            at += len(octets)
            yield octets

    def _read(self, at: int) -> bytes:
        wanted = min(_READ, self.size - at)
        try:
            octets = self._read_at(at + self._offset, wanted)
        except OSError as e:
            raise unreadable(self._name, e) from None
        if len(octets) != wanted:
            raise InvalidMessage(
                f"attachment {printable(self._name, 200)} changed after the message was composed",
                remedy="compose the message again",
            )
        return octets

    def _read_at(self, at: int, wanted: int) -> bytes:
        if self._path is None:
            return _pread(self._descriptor or 0, wanted, at)
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != self._file:
                return b""
            return _pread(descriptor, wanted, at)
        finally:
            os.close(descriptor)


def _pread(descriptor: int, wanted: int, at: int) -> bytes:
    """Return *wanted* octets, or all there are up to the end; a read may return fewer."""
    pieces = []
    while wanted and (piece := os.pread(descriptor, wanted, at)):
        pieces.append(piece)
        wanted, at = wanted - len(piece), at + len(piece)
    return b"".join(pieces)


def attached_path(path: os.PathLike[str], name: str) -> bytes | AttachedFile:
    """Return the content of the file at *path*, if it is small, or else the file; may block.

    :param name: for errors.
    :raises InvalidMessage: it cannot be read, or is no regular file.
    """
    text = os.fsdecode(path)
    try:
        # Opening a pipe without a writer must not block.
        descriptor = os.open(text, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidMessage(
                    f"attachment {printable(name, 200)} cannot be used",
                    detail="it is no regular file",
                    remedy="name a file",
                )
            if status.st_size <= MAX_IN_MEMORY:
                # Files in /proc have no size.
                return b"".join(iter(lambda: os.read(descriptor, _READ), b""))
        finally:
            os.close(descriptor)
    except InvalidMessage:
        raise  # it is a ValueError too
    except (OSError, ValueError) as e:
        raise unreadable(name, e) from None
    return AttachedFile(name, path=str(Path(text).absolute()))


def attached_file(file: IO[bytes], name: str) -> bytes | AttachedFile:
    """Return the content of an open *file* from its position; the caller may close it then. May block.

    A file that cannot be read again is copied to a temporary one.

    :param name: for errors.
    :raises InvalidMessage: it cannot be read, or is no binary file.
    """
    if isinstance(file, io.TextIOBase):
        raise InvalidMessage(
            f"attachment {printable(name, 200)} is open in text mode",
            remedy='open it in binary mode, "rb"',
        )
    try:
        begin = _place(file)
        if begin is not None:
            found = AttachedFile(name, descriptor=os.dup(file.fileno()), offset=begin)
        else:
            with tempfile.TemporaryFile() as copied:
                shutil.copyfileobj(file, copied, _READ)
                copied.flush()
                found = AttachedFile(name, descriptor=os.dup(copied.fileno()))
        at_end = not found.size and hasattr(file, "tell") and file.seekable() and file.tell() > 0
    except (OSError, ValueError, TypeError) as e:
        raise unreadable(name, e) from None
    if at_end:
        raise ended(f"attachment {printable(name, 200)}")
    return found if found.size > MAX_IN_MEMORY else found.content()


def _place(file: IO[bytes]) -> int | None:
    """Return the position in a regular file; None if *file* is something else."""
    if not isinstance(getattr(file, "raw", file), io.FileIO) or not file.seekable():
        return None
    # Seeking writes what is buffered.
    begin = file.seek(file.tell())
    return begin if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None


def ended(what: str) -> InvalidMessage:
    """Return the error about a file that was written or read, and not rewound."""
    return InvalidMessage(f"{what} is at its end", remedy="rewind it with seek(0)")


def unreadable(name: str, error: Exception) -> InvalidMessage:
    """Return the error about an attachment that cannot be read."""
    return InvalidMessage(
        f"attachment {printable(name, 200)} cannot be read",
        detail=getattr(error, "strerror", None) or printable(str(error), 200),
        remedy="check the name and its permissions",
    )
