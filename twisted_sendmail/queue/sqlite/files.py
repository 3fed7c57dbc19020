"""Files of an SQLite queue: their owner and permissions, and the relay's lock.

The directory has mode 0700 and every file 0600, whatever the umask; wider permissions are
narrowed.  Each refusal is one line with a remedy.

The superuser may use the queue of another user, who may be hostile: files are opened, made and
removed with the rights of that user (:func:`acting_as`).  For all users, links and files with a
second name are refused.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from twisted_sendmail.queue.errors import QueueBusy, QueueMissing, QueueUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

DATABASE = "queue.sqlite3"
#: Endings that SQLite appends to the name of the database for its own files.
_OTHER_FILES = ("-wal", "-shm", "-journal")
LOCK = "relay.lock"
WAKEUP = "wakeup"


def unusable(path: Path, why: str, remedy: str) -> QueueUnusable:
    """Return the error for a queue at *path* that cannot be used."""
    return QueueUnusable(f"the queue {path} cannot be used", detail=why, remedy=remedy)


def _missing(directory: Path, why: str, remedy: str) -> QueueMissing:
    return QueueMissing(f"the queue {directory} cannot be used", detail=why, remedy=remedy)


@attrs.frozen
class ForeignOwner:
    """Another user than the superuser, which this process is."""

    uid: int
    gid: int


def foreign_owner(directory: Path) -> ForeignOwner | None:
    """Return the owner of *directory*, whose rights are to be used; None: those of this process."""
    if os.geteuid() != 0:
        return None
    try:
        uid = directory.stat().st_uid
    except OSError:
        return None
    if uid == 0:
        return None
    try:
        return ForeignOwner(uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:
        # Not the group of the directory: its owner may not be a member of that group.
        return ForeignOwner(uid, uid)


@contextmanager
def acting_as(owner: ForeignOwner | None) -> Iterator[None]:
    """Use the rights of *owner* for files; those of this process if there is none.

    The whole process changes its effective ids meanwhile, so only commands use it.

    :raises QueueUnusable: this process may not change its ids.
    """
    if owner is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.setgroups([])
    except OSError as e:
        raise _cannot_act(owner, e) from None
    try:
        try:
            os.setegid(owner.gid)
            os.seteuid(owner.uid)
        except OSError as e:
            raise _cannot_act(owner, e) from None
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _cannot_act(owner: ForeignOwner, error: OSError) -> QueueUnusable:
    return QueueUnusable(
        "the queue cannot be used",
        detail=f"this process cannot take the rights of user {owner.uid}: {error.strerror}",
        remedy=f"run as user {owner.uid}",
    )


def check_place(directory: Path) -> None:
    """Verify that *directory* can hold a queue, or that it can be created; leave it as it is.

    :raises QueueUnusable: it cannot.
    """
    if os.path.lexists(directory):
        check_directory(directory, create=False, root_may=True, narrow=False)
        return
    above = next(each for each in directory.absolute().parents if os.path.lexists(each))
    try:
        # Permissions are not sufficient for root, and on file systems such as /proc.
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
        link, found = directory.lstat(), directory.stat()
    except FileNotFoundError:
        raise _missing(
            directory, "the directory does not exist", "start the relay, which creates it"
        ) from None
    except (FileExistsError, NotADirectoryError):
        raise unusable(directory, "the path is not a directory", "give another one") from None
    except OSError as e:
        remedy = f"give a directory that user {os.geteuid()} can make and enter"
        raise unusable(directory, f"{e.strerror}", remedy) from None
    if not stat.S_ISDIR(found.st_mode):
        raise unusable(directory, "the path is not a directory", "give another one")
    user = os.geteuid()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in {0, user}:
        why = f"the path is a link that belongs to user {link.st_uid}"
        raise unusable(directory, why, "give the directory itself")
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

    :raises QueueUnusable: it does not exist, or cannot be made private; or it or one of SQLite's
        other files is a link, or has a second name.
    """
    path = directory / DATABASE
    try:
        if create:
            _create_private(path)
        # Not by a descriptor: closing it would drop the locks of every connection of this process to
        # the database (POSIX), and another process would then remove the log that they write to.
        found = path.lstat()
        _check_file(path, found)
        if stat.S_IMODE(found.st_mode) != 0o600:
            path.chmod(0o600)
    except FileNotFoundError:
        raise _missing(directory, "the directory holds no queue", "start the relay") from None
    except OSError as e:
        raise unusable(path, f"{e.strerror}", "make it a file of this user") from None
    for each in _OTHER_FILES:
        other = path.with_name(path.name + each)
        try:
            _check_file(other, other.lstat())
        except FileNotFoundError:
            pass
        except OSError as e:
            raise unusable(other, f"{e.strerror}", "give another directory") from None
    return path


def _create_private(path: Path) -> None:
    """Create a file that is not there."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
    with suppress(FileExistsError):
        os.close(os.open(path, flags, 0o600))


def _open_private(path: Path) -> int:
    """Open a file to read and write, and create it if needed; return its descriptor.

    Its mode is 0600 now.

    :raises QueueUnusable: it is not a regular file with one name, or cannot be made private.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as e:
        if path.is_symlink():
            raise _is_link(path) from None
        raise unusable(path, f"{e.strerror}", "make it a file that can be written") from None
    try:
        found = os.fstat(descriptor)
        _check_file(path, found)
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
    except BaseException as e:
        os.close(descriptor)
        if isinstance(e, OSError):
            raise unusable(path, f"{e.strerror}", f"run chmod 600 {path}") from None
        raise
    return descriptor


def _check_file(path: Path, found: os.stat_result) -> None:
    """Verify that a file of the queue is a regular file with one name."""
    if stat.S_ISLNK(found.st_mode):
        raise _is_link(path)
    if not stat.S_ISREG(found.st_mode):
        raise unusable(path, "the path is not a regular file", "give another directory")
    if found.st_nlink > 1:
        # Under another name, a program could not find its log; and it may be a file of another user.
        remedy = f"copy the file to a new name, and rename the copy to {path.name}"
        raise unusable(path, "the file has a second name (a hard link)", remedy)


def _is_link(path: Path) -> QueueUnusable:
    return unusable(path, "the path is a symbolic link", "put the file itself there")


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
        descriptor = _open_private(self._directory / LOCK)
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
