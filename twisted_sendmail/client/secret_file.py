"""The one rule for files that hold a secret: who else may read and change them.

Passwords, tokens, files of accounts and private keys: nobody but the owner may change
such a file, and nobody but the owner and the group may read it.  Where secrets are
mounted for everybody to read (Docker, Kubernetes), that part can be allowed by name.

Pipes and terminals are not files; their permissions say nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import InvalidServer, printable

if TYPE_CHECKING:
    from os import PathLike

_CHANGED_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def exposure(
    path: str | PathLike[str], status: os.stat_result, *, world_readable: bool = False
) -> str:
    """Why a secret in *path* is exposed; empty if it is not.

    :param status: of the file, open or not.
    :param world_readable: everybody may read it.
    """
    if not stat.S_ISREG(status.st_mode):
        return ""
    shown = printable(os.fspath(path), 200)
    if status.st_mode & _CHANGED_BY_OTHERS:
        return f"{shown} may be changed by others than its owner"
    if status.st_mode & stat.S_IROTH and not world_readable:
        return f"{shown} may be read by everybody"
    return ""


def remedy(path: str | PathLike[str]) -> str:
    """What to do about :func:`exposure`."""
    return f"chmod 640 {printable(os.fspath(path), 200)}"


def check_secret_file(path: str | PathLike[str], *, world_readable: bool = False) -> None:
    """Look at the permissions of *path*; a file that is not there is not looked at.

    :raises InvalidServer: a secret in it is exposed.
    """
    try:
        status = Path(path).stat()
    except OSError:
        return
    why = exposure(path, status, world_readable=world_readable)
    if why:
        raise InvalidServer("a secret is exposed", detail=why, remedy=remedy(path))
