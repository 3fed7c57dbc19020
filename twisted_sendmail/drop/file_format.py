"""One file of the drop directory: the message of a local program with its envelope.

::

    twisted_sendmail drop 1                  the format
    {"sender": "alice@example.org", …}       the envelope: one line of JSON, in ASCII
    Subject: hello …                         the content
    end 00000000000000000042 1f2e3d4c        its octets; CRC-32 of everything above

A writer creates the file under its final name with mode 0600, and makes it 0640 when all of it is
written: a file with that mode and a valid end is complete.  Nothing is renamed, because a user may
create files in the directory and not read it.  The checksum finds what a power failure left
unwritten; it is no protection against a user, who may write anything.

The reader trusts no octet.  The file is read once, and the end of its content is known to be valid
only after the last piece.
"""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The mode of a file that is being written, and that of a complete one.
UNFINISHED_MODE, COMPLETE_MODE = 0o600, 0o640
#: Seconds without a change after which a file that cannot be taken is removed.
REMOVAL_AGE = 24 * 3600.0
#: Octets of one piece of content.
DROP_PIECE_SIZE = 64 * 1024

_FORMAT = b"twisted_sendmail drop 1\n"
_END = "end {:020d} {:08x}\n"
_END_SIZE = len(_END.format(0, 0))
#: Octets of the envelope.
MAX_ENVELOPE = 2 * 1024 * 1024


class DropFileError(Exception):
    """A file cannot be taken; the text is the reason."""


class DropRecipient(NamedTuple):
    """One recipient, as text."""

    address: str
    #: Words of NOTIFY (RFC 3461 section 4.1), separated by commas.
    notify: str = ""
    orcpt: str | None = None


class DropEnvelope(NamedTuple):
    """The envelope of a message, as text; the reader of the file has to check every value."""

    #: Empty for the null reverse-path.
    sender: str
    recipients: tuple[DropRecipient, ...]
    ret: str | None = None
    envid: str | None = None
    require_tls: bool = False
    #: The content is not made of lines (BODY=BINARYMIME).
    binary: bool = False
    #: The sender's name, for a missing From field.
    full_name: str | None = None


class DropFile:
    """A message for the drop *directory*: :meth:`create`, write, and :meth:`commit` or :meth:`abort`.

    :raises DropFileError: the envelope is too long.
    """

    def __init__(self, directory: str, envelope: DropEnvelope, name: str | None = None) -> None:
        self._head = _FORMAT + _encoded(envelope)
        if len(self._head) > MAX_ENVELOPE:
            raise DropFileError(f"the envelope has more than {MAX_ENVELOPE} octets")
        #: The name of the file: 128 random bits, unless given.
        self.name = name or new_name()
        self._path = os.path.join(directory, self.name)  # noqa: PTH118 - pathlib costs 1 MB
        self._descriptor: int | None = None
        # There may be a file that is not complete.
        self._unfinished = False
        self._checksum = 0
        #: Octets of content so far.
        self.size = 0

    def create(self) -> None:
        """Create the file, with the envelope.

        A signal may interrupt the program in this method: call :meth:`abort` also when it raises.

        :raises OSError: the file cannot be created or written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._unfinished = True
        try:
            self._descriptor = os.open(self._path, flags, UNFINISHED_MODE)
        except OSError:
            self._unfinished = False
            raise
        self._write(self._head)

    def write(self, data: bytes) -> None:
        """Append content.

        :raises OSError: there is no space.
        """
        self._write(data)
        self.size += len(data)

    def commit(self) -> None:
        """Complete the file: it survives a power failure when this returns.

        :raises OSError: it could not be written.
        """
        descriptor = self._open()
        changed = os.fstat(descriptor).st_ctime
        self._write(_END.format(self.size, self._checksum).encode())
        os.fchmod(descriptor, COMPLETE_MODE)
        os.fsync(descriptor)
        # After a long pause the relay may have removed the file of this writer.
        silent = time.time() - changed > REMOVAL_AGE / 2
        if silent and not os.fstat(descriptor).st_nlink:
            raise FileNotFoundError(2, "the unfinished file was removed because of its age")
        self._unfinished = False
        self._descriptor = None
        os.close(descriptor)

    def abort(self) -> None:
        """Remove the file if it is not complete."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        if self._unfinished:
            self._unfinished = False
            # If it cannot be removed, the relay removes it after a day.
            with suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - the same

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("the file was closed")
        return self._descriptor

    def _write(self, data: bytes) -> None:
        descriptor = self._open()
        self._checksum = crc32(data, self._checksum)
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]


def new_name() -> str:
    """Return a name for a file that no other user can guess."""
    return os.urandom(16).hex()


def _encoded(envelope: DropEnvelope) -> bytes:
    return json.dumps(envelope._asdict(), separators=(",", ":")).encode() + b"\n"


class DropReader:
    """An open file of the drop directory, judged by its descriptor, not by its name.

    :param limit: octets of the file.
    :raises DropFileError: it cannot be taken: anything but a complete file with one name.
    :raises OSError: it cannot be opened or read.
    """

    def __init__(self, directory: int, name: str, limit: int) -> None:
        # A FIFO must not block, and a device must not become the terminal.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        self._descriptor = os.open(name, flags, dir_fd=directory)
        try:
            self.status = os.fstat(self._descriptor)
            check_status(self.status, limit)
            self._read_head()
        except BaseException:
            self.close()
            raise

    def _read_head(self) -> None:
        end = os.pread(self._descriptor, _END_SIZE, max(0, self.status.st_size - _END_SIZE))
        word, _, numbers = end.partition(b" ")
        size = numbers[:20]
        if word != b"end" or len(end) != _END_SIZE or not size.isdigit():
            raise DropFileError("its end is missing")
        #: Octets of content.
        self.size = int(size)
        head_size = self.status.st_size - self.size - _END_SIZE
        if not 0 < head_size <= MAX_ENVELOPE:
            raise DropFileError("its envelope is too long, or missing")
        head = self._read(head_size)
        self._checksum = crc32(head)
        if not head.startswith(_FORMAT):
            raise DropFileError("its format is not known")
        self.envelope = _decoded(head[len(_FORMAT) :])

    def pieces(self) -> Iterator[bytes]:
        """Yield the content in pieces of :data:`DROP_PIECE_SIZE` octets at most.

        :raises DropFileError: the file differs from what was written: the pieces before are void.
        """
        left = self.size
        while left:
            piece = self._read(min(left, DROP_PIECE_SIZE))
            self._checksum = crc32(piece, self._checksum)
            left -= len(piece)
            yield piece
        if self._read(_END_SIZE) != _END.format(self.size, self._checksum).encode():
            raise DropFileError("its checksum differs: it is damaged, or was changed")

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._descriptor, size)
            if not part:
                raise DropFileError("it became shorter while it was read")
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def check_status(status: os.stat_result, limit: int) -> None:
    """Check that a file may hold a complete message, by what ``stat`` returns.

    :param limit: octets of the file.
    :raises DropFileError: it does not.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise DropFileError(f"it is {_KINDS.get(kind, 'no file')}")
    if status.st_nlink != 1:
        raise DropFileError("it has another name: a hard link")
    if stat.S_IMODE(status.st_mode) != COMPLETE_MODE:
        raise DropFileError(f"its mode is {stat.S_IMODE(status.st_mode):04o}, not 0640")
    if status.st_size > limit:
        raise DropFileError(f"it has {status.st_size} octets, and the limit is {limit}")


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _decoded(line: bytes) -> DropEnvelope:
    """Parse an envelope, whose values have the right types then.

    :raises DropFileError: it is not one.
    """
    try:
        found = json.loads(line.decode("ascii"))
        recipients = tuple(
            DropRecipient(_text(address), _text(notify), _optional(orcpt))
            for address, notify, orcpt in found["recipients"]
        )
        return DropEnvelope(
            sender=_text(found["sender"]),
            recipients=recipients,
            ret=_optional(found["ret"]),
            envid=_optional(found["envid"]),
            require_tls=found["require_tls"] is True,
            binary=found["binary"] is True,
            full_name=_optional(found["full_name"]),
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        raise DropFileError("its envelope cannot be parsed") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)
