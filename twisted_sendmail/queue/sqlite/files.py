"""Files of an SQLite queue: their permissions, and the relay's lock.

The directory has mode 0700 and every file 0600, whatever the umask; wider permissions are
narrowed.  Each refusal is one line with a remedy.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import tempfile
from pathlib import Path

from twisted_sendmail.queue.errors import QueueBusy, QueueUnusable

DATABASE = "queue.sqlite3"
LOCK = "relay.lock"
WAKEUP = "wakeup"


def unusable(path: Path, why: str, remedy: str) -> QueueUnusable:
    """Return the error for a queue at *path* that cannot be used."""
    return QueueUnusable(f"the queue {path} cannot be used", detail=why, remedy=remedy)


def check_place(directory: Path) -> None:
    """Verify that *directory* can hold a queue, or that it can be created; leave it as it is.

    :raises QueueUnusable: it cannot.
    """
    if os.path.lexists(directory):
        check_directory(directory, create=False, root_may=True, narrow=False)
        return
    above = next(each for each in directory.absolute().parents if os.path.lexists(each))
    try:
        # Permissions do not tell it, of root or on file systems such as /proc.
        Path(tempfile.mkdtemp(prefix=".twisted-sendmail-", dir=above)).rmdir()
    except OSError as e:
        why = f"no directory can be created in {above}: {e.strerror}"
        raise unusable(directory, why, "give a directory that can be made") from None


def check_directory(directory: Path, *, create: bool, root_may: bool, narrow: bool = True) -> None:
    """Verify that *directory* can hold a queue.

    :param create: create it if it is missing.
    :param root_may: the superuser may use another user's queue.
    :param narrow: withdraw permissions of other users.
    :raises QueueUnusable: it cannot.
    """
    try:
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except FileNotFoundError:
        raise unusable(
            directory, "the directory does not exist", "start the relay, which creates it"
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
            _as_owner(found.st_uid, root_may=root_may),
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        _make_private(directory, narrow=narrow)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise unusable(directory, "the directory is not writable", "mount or make it writable")


def _as_owner(uid: int, *, root_may: bool) -> str:
    """Return the remedy for another user than the owner of a queue; chown would stop its relay."""
    try:
        login = f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        login = f"user {uid}"
    if not root_may:
        return f"run as {login}, or give another directory"
    return f"run as {login} or as root" if uid else f"run as {login}"


def _make_private(directory: Path, *, narrow: bool) -> None:
    # A home directory or /tmp, given by mistake, must keep its mode.
    if not (directory / DATABASE).exists() and any(directory.iterdir()):
        raise unusable(
            directory,
            "the directory is readable for others and holds other files than a queue",
            "give an empty directory, or one that does not exist",
        )
    if not narrow:
        return
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
