"""Files with secrets are read here, and their permissions checked: passwords, tokens, private keys.

Only the owner may change such a file, and only owner and group may read it.  ``world_readable``
accepts files that everybody may read, as Docker and Kubernetes mount secrets.  The permissions of
pipes and terminals are not checked.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from twisted_sendmail.smtp import InvalidServer, printable

#: Octets of a secret.
MAX_SECRET_SIZE = 65536


def check_secret_file(
    path: str | os.PathLike[str],
    status: os.stat_result | None = None,
    *,
    world_readable: bool = False,
) -> None:
    """Check the permissions of *path*; a file that does not exist passes.

    :param status: of the file, if it is open; otherwise of the path.
    :param world_readable: accept a file that everybody may read.
    :raises InvalidServer: the secret is exposed; ``detail`` and ``remedy`` name the file.
    """
    if status is None:
        try:
            status = Path(path).stat()
        except OSError:
            return
    mode = status.st_mode
    shown = printable(os.fspath(path), 200)
    if not stat.S_ISREG(mode):
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"{shown} may be changed by others than its owner"
    elif mode & stat.S_IROTH and not world_readable:
        why = f"{shown} may be read by everybody"
    else:
        return
    raise InvalidServer("a secret is exposed", detail=why, remedy=f"chmod 640 {shown}")


def read_file(path: Path, *, world_readable: bool = False) -> bytes:
    """Return the content of a file, or the first octets of one that is too large for a secret.

    :param world_readable: accept a file that everybody may read.
    :raises InvalidServer: it is no file, cannot be read, or others may read or change it.
    """
    shown = printable(str(path), 200)
    try:
        # O_NONBLOCK: opening a pipe without a writer must not block.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unreadable(f"{shown} is no file", "name a file that holds the secret")
            check_secret_file(path, status, world_readable=world_readable)
            return file.read(MAX_SECRET_SIZE + 1)
    except OSError as e:
        raise _unreadable(*why_unreadable(path, e)) from None


def why_unreadable(path: str | os.PathLike[str], error: OSError) -> tuple[str, str]:
    """Return why a file cannot be opened, and the remedy; they name the owner of one that is another user's."""
    shown = printable(os.fspath(path), 200)
    why = f"{shown} cannot be read: {error.strerror or type(error).__name__}"
    if isinstance(error, PermissionError):
        try:
            status = Path(path).stat()
        except OSError:
            # A directory above the file cannot be searched.
            return f"{why}; this process runs as {_user(os.geteuid())}", "open its directory to it"
        if status.st_uid != os.geteuid():
            user, mode = _user(os.geteuid()), stat.S_IMODE(status.st_mode)
            why += f"; it belongs to {_user(status.st_uid)}, with mode {mode:04o}, and this process runs as {user}"
            return why, f"chown {user} {shown}"
    return why, "check the name and its permissions"


def _user(uid: int) -> str:
    try:
        return printable(pwd.getpwuid(uid).pw_name, 40)
    except KeyError:
        return str(uid)


def _unreadable(why: str, remedy: str) -> InvalidServer:
    return InvalidServer("a secret cannot be obtained", detail=why, remedy=remedy)
