"""Secrets read from commands and decoded, and files with secrets that are replaced in one step.

All of it blocks. No error quotes a secret, and the stderr of a command is thrown away.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_sendmail.secret_file import MAX_SECRET_SIZE
from twisted_sendmail.smtp import InvalidServer, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds that a command may take.
COMMAND_TIMEOUT = 30.0


def write_file(path: Path, content: bytes) -> None:
    """Replace the content of a file in one step, durably; the new one has mode 0600.

    A symbolic link stays, and the file that it names is replaced.  Root leaves it its owner: a login by
    root replaces the file that the relay reads.

    :raises InvalidServer: the file cannot be written; the old one is there still.
    """
    target = Path(os.path.realpath(path))
    new = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        # A file of this name is of a process that was killed, or another user's, and may be a link.
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            os.fchmod(descriptor, 0o600)
            if os.geteuid() == 0:
                with suppress(FileNotFoundError):
                    old = target.stat()
                    os.fchown(descriptor, old.st_uid, old.st_gid)
            _ = file.write(content)
            file.flush()
            os.fsync(descriptor)
        new.replace(target)
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as e:
        with suppress(OSError):
            new.unlink()
        why = f"{printable(str(path), 200)} cannot be written: {e.strerror or type(e).__name__}"
        raise _unusable(why, "make its directory writable for this user") from None


def run_command(words: Sequence[str], content: bytes | None = None) -> bytes:
    """Run a command, for :data:`COMMAND_TIMEOUT` at most; return its output.

    :param content: its standard input; None: it has none.
    :raises InvalidServer: it cannot be run, fails, or takes too long.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command
            words,
            stdin=subprocess.DEVNULL if content is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as e:
        why = f"the command cannot be run: {e.strerror or type(e).__name__}"
        raise _unusable(why, "check its name") from None
    with process:
        try:
            output, _ = process.communicate(content, timeout=COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            # The command has a session of its own: this ends its children too.
            os.killpg(process.pid, signal.SIGKILL)
            why = f"the command took longer than {COMMAND_TIMEOUT:.0f} s"
            raise _unusable(why, "run it by hand") from None
    if process.returncode:
        why = f"the command failed with status {process.returncode}"
        raise _unusable(why, "run it by hand as the same user")
    return output


def secret_text(content: bytes) -> str:
    """Decode a secret.

    :raises InvalidServer: it is too long, or not UTF-8.
    """
    if len(content) > MAX_SECRET_SIZE:
        raise _unusable(
            f"the secret is longer than {MAX_SECRET_SIZE} octets", "give a file with a secret"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _unusable("the secret is not UTF-8", "save the file as UTF-8") from None


def one_line(content: bytes) -> str:
    """Decode a secret of one line, without the end of the line.

    :raises InvalidServer: it is empty, too long, not UTF-8 or more than one line.
    """
    text = secret_text(content)
    for end in ("\r\n", "\n"):
        text = text.removesuffix(end)
    if not text or "\n" in text or "\0" in text:
        why = "the secret is empty, or more than one line"
        raise _unusable(why, "write the secret alone into it")
    return text


def _unusable(why: str, remedy: str) -> InvalidServer:
    return InvalidServer("a secret cannot be had", detail=why, remedy=remedy)
