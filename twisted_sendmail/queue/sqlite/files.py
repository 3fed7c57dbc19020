"""Files of an SQLite queue: permissions, the relay's lock, and free space.

The directory has mode 0700 and every file 0600, whatever the umask; wider permissions are
narrowed.  Each refusal is one line with a remedy.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_sendmail.queue.errors import QueueBusy, QueueFull, QueueUnusable

if TYPE_CHECKING:
    from collections.abc import Callable

DATABASE = "queue.sqlite3"
LOCK = "relay.lock"
WAKEUP = "wakeup"
#: Octets of free space reserved for recording what happens to mail that is in the queue.
LEAST_FREE = 32 * 1024 * 1024
# Seconds for which one reading of the free space is used, while there is plenty.
_FRESH = 1.0


def unusable(path: Path, why: str, remedy: str) -> QueueUnusable:
    """Return the error for a queue at *path* that cannot be used."""
    return QueueUnusable(f"the queue {path} cannot be used", detail=why, remedy=remedy)


def check_directory(directory: Path, *, create: bool, root_may: bool) -> None:
    """Verify that *directory* can hold a queue.

    :param create: create it if it is missing.
    :param root_may: the superuser may use another user's queue.
    :raises QueueUnusable: it cannot.
    """
    try:
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except FileNotFoundError:
        raise unusable(
            directory, "the directory does not exist", "start the relay, or create it"
        ) from None
    except (FileExistsError, NotADirectoryError):
        raise unusable(directory, "the path is not a directory", "give another one") from None
    except OSError as e:
        raise unusable(directory, f"{e.strerror}", "give a directory that can be made") from None
    if not stat.S_ISDIR(found.st_mode):
        raise unusable(directory, "the path is not a directory", "give another one")
    user = os.geteuid()
    if found.st_uid != user and not (root_may and user == 0):
        raise unusable(
            directory,
            f"the directory belongs to user {found.st_uid}, and this is user {user}",
            f"run as user {found.st_uid}, or give the directory to user {user}",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        _make_private(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise unusable(directory, "the directory is not writable", "mount or make it writable")


def _make_private(directory: Path) -> None:
    # A home directory or /tmp, given by mistake, must keep its mode.
    if not (directory / DATABASE).exists() and any(directory.iterdir()):
        raise unusable(
            directory,
            "the directory is readable for others and holds other files than a queue",
            "give an empty directory, or one that does not exist",
        )
    try:
        directory.chmod(0o700)
    except OSError as e:
        raise unusable(directory, f"{e.strerror}", f"run chmod 700 {directory}") from None


def check_database(directory: Path, *, create: bool) -> Path:
    """Return the path of the database file, which exists now and is private.

    :raises QueueUnusable: it does not exist, or cannot be made private.
    """
    path = directory / DATABASE
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    owner = directory.stat()
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        raise unusable(directory, "the directory holds no queue", "start the relay") from None
    except OSError as e:
        raise unusable(path, f"{e.strerror}", "make it a file that can be written") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise unusable(path, "the path is not a regular file", "give another directory")
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
            # The superuser queued mail before the relay's first start.
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except OSError as e:
        raise unusable(path, f"{e.strerror}", f"run chmod 600 {path}") from None
    finally:
        os.close(descriptor)
    return path


class RelayLock:
    """Lock that admits one relay to the queue in *directory*.

    The kernel holds it and drops it when the process ends: after a crash the file may stay, the
    lock does not.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock until ``release`` or the end of the process; create the directory if needed.

        :raises QueueBusy: another process holds it.
        :raises QueueUnusable: the directory cannot hold a queue of this user.
        """
        check_directory(self._directory, create=True, root_may=False)
        path = self._directory / LOCK
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as e:
            raise unusable(path, f"{e.strerror}", "make it a file that can be written") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise QueueBusy(
                f"the queue {self._directory} is in use",
                detail=f"process {holder} has it" if holder.isdigit() else "",
                remedy="stop the relay that is running, or give another directory",
            ) from None
        self._descriptor = descriptor
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError:
            # The disk is full: the lock holds, only its holder is not named.
            pass

    def release(self) -> None:
        """Drop the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class FreeSpace:
    """Admission by free space: mail is refused while there is still space to record results.

    Unused pages of the database count as free space, but its log needs space of its own.

    :param directory: any path on the file system.
    :param least: octets to keep free; half of them on the file system itself; 0: no limit.
    :param unused: returns the octets of unused pages in the database.
    :param monotonic: clock in seconds that does not jump.
    """

    def __init__(
        self,
        directory: Path,
        least: int,
        unused: Callable[[], int] = lambda: 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._least = least
        self._unused = unused
        self._monotonic = monotonic
        self._read_at = float("-inf")
        self._left = 0

    def ask(self, size: int) -> None:
        """Reserve *size* octets.

        :raises QueueFull: there is too little free space.
        """
        if not self._least:
            return
        now = self._monotonic()
        self._left -= size
        # The log holds a copy of what is written: near the limit read the free space each time.
        if now - self._read_at > _FRESH or self._left < 2 * self._least:
            found = os.statvfs(self._directory)
            free = found.f_bavail * found.f_frsize
            self._left = free + self._unused() - size if free >= self._least // 2 else 0
            self._read_at = now
        if self._left < self._least:
            raise QueueFull(
                "the queue has too little free space",
                detail=f"less than {self._least >> 20} MiB would be left free",
            )
