"""The directory of a queue and the files in it: whose they are, and who may read them.

The directory is 0700 and every file 0600, whatever the umask is; what is ours and open to
others is closed to them.  Each refusal is one line with a remedy.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted_sendmail.queue.trouble import QueueUnusable

DATABASE = "queue.sqlite3"
LOCK = "relay.lock"
WAKEUP = "wakeup"


def check_directory(directory: Path, *, create: bool, root_may: bool) -> None:
    """Make sure that *directory* can hold a queue.

    :param create: make it where it is missing.
    :param root_may: the superuser may use the queue of another.
    :raises QueueUnusable: when it cannot.
    """
    try:
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except FileNotFoundError:
        raise refusal(directory, "it does not exist", "start the relay, or make it") from None
    except (FileExistsError, NotADirectoryError):
        raise refusal(directory, "it is not a directory", "give another one") from None
    except OSError as e:
        raise refusal(directory, f"{e.strerror}", "give a directory that can be made") from None
    if not stat.S_ISDIR(found.st_mode):
        raise refusal(directory, "it is not a directory", "give another one")
    user = os.geteuid()
    if found.st_uid != user and not (root_may and user == 0):
        raise refusal(
            directory,
            f"it belongs to user {found.st_uid}, and this is user {user}",
            f"run as user {found.st_uid}, or give the directory to user {user}",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        _close_to_others(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise refusal(directory, "it cannot be written to", "mount or make it writable")


def _close_to_others(directory: Path) -> None:
    # A home directory, or /tmp, given by mistake: not ours to close.
    if not (directory / DATABASE).exists() and any(directory.iterdir()):
        raise refusal(
            directory,
            "others may read it, and it holds what is no queue",
            "give an empty directory, or one that does not exist",
        )
    try:
        directory.chmod(0o700)
    except OSError as e:
        raise refusal(directory, f"{e.strerror}", f"run chmod 700 {directory}") from None


def check_database(directory: Path, *, create: bool) -> Path:
    """The path of the database, which is there now, and closed to others.

    :raises QueueUnusable: when it is not.
    """
    path = directory / DATABASE
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    owner = directory.stat()
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        raise refusal(directory, "there is no queue in it", "start the relay") from None
    except OSError as e:
        raise refusal(path, f"{e.strerror}", "make it a file that can be written") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refusal(path, "it is not a file", "give another directory")
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
            # The superuser put mail in before the relay ever ran.
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except OSError as e:
        raise refusal(path, f"{e.strerror}", f"run chmod 600 {path}") from None
    finally:
        os.close(descriptor)
    return path


def refusal(path: Path, why: str, remedy: str) -> QueueUnusable:
    """One clear line: the queue at *path* cannot be used, *why*, and what to do."""
    return QueueUnusable(f"the queue {path} cannot be used", detail=why, remedy=remedy)
