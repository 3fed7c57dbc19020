"""Run code as other users of this machine; only the superuser can."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ALICE, BOB = 20001, 20002
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can be other users")

# The interpreter may be in a directory that other users cannot enter, so the imports come first.
_AS_USER = """
import os, runpy, socket, sys
{imports}
os.setgroups({groups})
os.setgid({gid})
os.setuid({uid})
{code}
"""


def as_user(
    uid: int,
    code: str,
    *args: str,
    imports: str = "",
    gid: int | None = None,
    groups: tuple[int, ...] = (),
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run Python *code* as the user *uid*, whose primary group has the same number.

    :param imports: statements that run before, as the superuser.
    """
    script = _AS_USER.format(
        imports=imports, groups=list(groups), gid=uid if gid is None else gid, uid=uid, code=code
    )
    return subprocess.run(
        [sys.executable, "-c", script, *args],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
