"""The rule for the permissions of files with secrets: passwords, tokens, accounts and private keys.

Only the owner may change such a file, and only owner and group may read it.  ``world_readable``
accepts files that everybody may read, as Docker and Kubernetes mount secrets.  The permissions of
pipes and terminals are not checked.
"""

from __future__ import annotations

import stat
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import InvalidServer, printable

if TYPE_CHECKING:
    import os


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
    shown = printable(fspath(path), 200)
    if not stat.S_ISREG(mode):
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"{shown} may be changed by others than its owner"
    elif mode & stat.S_IROTH and not world_readable:
        why = f"{shown} may be read by everybody"
    else:
        return
    raise InvalidServer("a secret is exposed", detail=why, remedy=f"chmod 640 {shown}")
