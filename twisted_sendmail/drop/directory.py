"""The drop directory as the relay reads it: hostile input, bounded, fair to users.

Any user may create anything in the directory, without the ``sendmail`` command.  A scan lists all
names and looks at each file's status only.  It returns the complete files in turns: one file of each
user, then the second of each, so that no user delays another by more than one file.  A file that
cannot be taken is reported once, does not count again, and is removed a day after its last change.

Synchronous, for a thread; one scan at a time.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from twisted_sendmail.drop.file_format import (
    REMOVAL_AGE,
    UNFINISHED_MODE,
    DropFileError,
    DropReader,
    check_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

#: Mode of a drop directory: set-gid, so that files get the relay's group; sticky; not listable.
DIRECTORY_MODE = 0o3733
#: Files of one user that one scan returns, and files of all users.
MAX_FILES_OF_USER, MAX_FILES = 10_000, 50_000
#: Files of one user that cannot be taken.  While a user has more, none of their files is taken.
MAX_BAD_FILES_OF_USER = 1000

_NAME = re.compile(r"[0-9A-Za-z._-]{1,64}\Z")


class FileKey(NamedTuple):
    """The identity of a file: nobody but its owner can make another one with the same key.

    The device is not part of it: its number may change when the machine starts.
    """

    name: str
    uid: int
    inode: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.inode}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> FileKey:
        """Parse what ``str()`` returned."""
        uid, inode, name = text.split(":", 2)
        return cls(name, int(uid), int(inode))


class WaitingFile(NamedTuple):
    """A complete file, as far as its status tells."""

    key: FileKey
    size: int
    #: Time of its last change, in nanoseconds.
    changed: int


class BadFile(NamedTuple):
    """A file that cannot be taken."""

    key: FileKey
    why: str


class DropTotals(NamedTuple):
    """Figures of the files in a drop directory."""

    #: Complete files.
    files: int
    #: Age of the oldest of them, in seconds; 0 if there is none.
    oldest: float
    octets: int

    def without(self, file: WaitingFile) -> DropTotals:
        """Return the totals when *file* is gone; the age stays, unless no file is left."""
        files = self.files - 1
        return DropTotals(files, self.oldest if files else 0.0, self.octets - file.size)


class DropScan(NamedTuple):
    """The result of a scan."""

    #: Complete files, in turns.
    files: list[WaitingFile]
    #: There are more, for the next scan.
    more: bool
    #: Files that cannot be taken and were not reported before.
    bad: list[BadFile]
    totals: DropTotals


class DropDirectory:
    """The drop directory at *path*.

    :param now: returns seconds since 1970.
    :raises OSError: it cannot be opened.
    """

    def __init__(self, path: str, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = now
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags)
        # Files that cannot be taken, and the time of their last change, by user.
        self._bad: dict[int, dict[FileKey, int]] = {}
        self._bad_before: dict[int, dict[FileKey, int]] = {}
        self._reports: list[BadFile] = []
        self._now = 0.0

    def lock(self) -> bool:
        """Lock the directory until it is closed; False if another process has locked it.

        Ordinary users cannot lock it, because they may not open it.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the directory."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def is_current(self) -> bool:
        """Return False if *path* is another directory meanwhile."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._descriptor))

    def scan(self, limit: int, taken: Collection[FileKey] = ()) -> DropScan:
        """List the directory.

        :param limit: octets of a file.
        :param taken: files that were taken and could not be removed.
        :raises OSError: it cannot be listed.
        """
        self._bad_before, self._bad, self._reports = self._bad, {}, []
        self._now = self._clock()
        waiting: dict[int, list[WaitingFile]] = {}
        left_out: set[int] = set()
        files = octets = listed = 0
        oldest = self._now
        for name, status in self._entries():
            key = FileKey(name, status.st_uid, status.st_ino)
            if key in taken:
                continue
            try:
                _check_name(name)
                check_status(status, limit)
            except DropFileError as e:
                self._note_bad(key, status, str(e))
                continue
            if self._bad_before.get(key.uid, {}).get(key) == status.st_ctime_ns:
                # It was opened, and could not be taken.
                self._note_bad(key, status, "")
                continue
            files += 1
            octets += status.st_size
            oldest = min(oldest, status.st_ctime)
            of_user = waiting.setdefault(key.uid, [])
            if not of_user or (len(of_user) < MAX_FILES_OF_USER and listed < MAX_FILES):
                of_user.append(WaitingFile(key, status.st_size, status.st_ctime_ns))
                listed += 1
            else:
                left_out.add(key.uid)
        for uid, bad in self._bad.items():
            if len(bad) >= MAX_BAD_FILES_OF_USER:
                waiting.pop(uid, None)
                left_out.discard(uid)
        totals = DropTotals(files, self._now - oldest, octets)
        return DropScan(_in_turns(waiting), bool(left_out), self._reports, totals)

    def totals(self) -> DropTotals:
        """Count the complete files, and change nothing.

        :raises OSError: the directory cannot be listed.
        """
        files = octets = 0
        oldest = now = self._clock()
        for _, status in self._entries():
            with suppress(DropFileError):
                check_status(status, status.st_size)
                files += 1
                octets += status.st_size
                oldest = min(oldest, status.st_ctime)
        return DropTotals(files, now - oldest, octets)

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self._descriptor) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # removed meanwhile

    def _note_bad(self, key: FileKey, status: os.stat_result, why: str) -> None:
        unfinished = (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) & ~UNFINISHED_MODE == 0
            and status.st_nlink == 1
        )
        # Not st_mtime, which the owner can set.
        if self._now - status.st_ctime > REMOVAL_AGE and self._remove_bad(key, status):
            if unfinished:
                self._reports.append(BadFile(key, "it was never finished, and was removed"))
            return
        if unfinished:
            return  # a program is writing it, or was killed
        bad = self._bad.setdefault(key.uid, {})
        if len(bad) >= MAX_BAD_FILES_OF_USER:
            return
        bad[key] = status.st_ctime_ns
        if key not in self._bad_before.get(key.uid, {}):
            self._reports.append(BadFile(key, why))
            if len(bad) == MAX_BAD_FILES_OF_USER:
                more = f"no file of this user is taken: {MAX_BAD_FILES_OF_USER} are bad"
                self._reports.append(BadFile(key, more))

    def _remove_bad(self, key: FileKey, status: os.stat_result) -> bool:
        try:
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(key.name, dir_fd=self._descriptor)
            else:
                os.unlink(key.name, dir_fd=self._descriptor)
        except OSError:
            return False
        return True

    def refuse(self, file: WaitingFile) -> None:
        """Do not return *file* again unless it changes: it was opened, and could not be taken."""
        self._bad.setdefault(file.key.uid, {})[file.key] = file.changed

    def open(self, key: FileKey, limit: int) -> DropReader:
        """Open a file, and check that it is the one of the scan.

        :param limit: octets of the file.
        :raises DropFileError: it cannot be taken.
        :raises OSError: it cannot be opened; it may be gone.
        """
        reader = DropReader(self._descriptor, key.name, limit)
        status = reader.status
        if (status.st_uid, status.st_ino) != (key.uid, key.inode):
            reader.close()
            raise DropFileError("it was replaced by another file")
        return reader

    def remove(self, keys: Collection[FileKey]) -> list[tuple[FileKey, OSError]]:
        """Remove files that were taken, durably; return those that are still there, with the reason.

        A name that belongs to another file meanwhile stays: the file that was taken is gone.
        """
        left: list[tuple[FileKey, OSError]] = []
        for key in keys:
            try:
                status = os.stat(key.name, dir_fd=self._descriptor, follow_symlinks=False)
                if (status.st_uid, status.st_ino) == (key.uid, key.inode):
                    os.unlink(key.name, dir_fd=self._descriptor)
            except FileNotFoundError:
                pass
            except OSError as e:
                left.append((key, e))
        # Otherwise a power failure might bring back a file after its key was forgotten.
        os.fsync(self._descriptor)
        return left


def _check_name(name: str) -> None:
    if _NAME.match(name) is None:
        raise DropFileError("its name has other characters than letters and digits, or is too long")


def _in_turns(waiting: dict[int, list[WaitingFile]]) -> list[WaitingFile]:
    """Return the oldest file of each user, then the second of each, and so on."""
    numbered = []
    for files in waiting.values():
        files.sort(key=lambda file: file.changed)
        numbered += [(turn, file.changed, file) for turn, file in enumerate(files)]
    numbered.sort(key=lambda each: each[:2])
    return [file for _, _, file in numbered]


def directory_fault(path: str, owner: tuple[int, int] | None = None) -> tuple[str, str] | None:
    """Return what is wrong with the drop directory at *path*, and a remedy; None if it can be used.

    :param owner: the uid and gid of the relay; None: those of this process, which may have more groups.
    """
    uid, gid = owner or (os.geteuid(), os.getegid())
    gids = {gid} if owner else {gid, *os.getgroups()}
    make = f"as root: install -d -o {uid} -g {gid} -m 3733 {path}"
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "it does not exist", f"make it, {make}"
    except OSError as e:
        return f"it cannot be read: {e.strerror}", "check the permissions of the directories above"
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a directory", f"remove it, and make a directory, {make}"
    if status.st_uid != uid:
        return f"it belongs to user {status.st_uid}, and the relay is user {uid}", f"run {make}"
    if status.st_gid not in gids:
        return f"it belongs to group {status.st_gid}, which the relay is not in", f"run {make}"
    mode = stat.S_IMODE(status.st_mode)
    if mode != DIRECTORY_MODE:
        return f"its mode is {mode:04o}", f"run {make}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "its file system is read-only", "mount it writable"
    return None
