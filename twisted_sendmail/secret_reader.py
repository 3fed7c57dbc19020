"""Secrets read from commands and decoded, and files with secrets that are replaced in one step.

All of it blocks. No error quotes a secret, and the stderr of a command is thrown away.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
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
        remedy = "make its directory writable for this user"
        raise InvalidServer("a secret cannot be stored", detail=why, remedy=remedy) from None


def shell_words(line: str) -> tuple[str, ...]:
    """Return the words of the command that runs *line* in the shell."""
    return "/bin/sh", "-c", line


class SecretCommand:
    """A command that prints a secret, or reads one from its standard input.

    :param words: the program and its arguments.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def run(self, content: bytes | None = None) -> bytes:
        """Run it, for :data:`COMMAND_TIMEOUT` at most; return its output.

        :param content: its standard input, of :data:`MAX_SECRET_SIZE` octets at most; None: it has none.
        :raises InvalidServer: it cannot be run, fails, takes too long, or prints too much.
        """
        end = time.monotonic() + COMMAND_TIMEOUT
        try:
            process = self._process = subprocess.Popen(  # noqa: S603 - the operator's own command
                self._words,
                stdin=subprocess.DEVNULL if content is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as e:
            why = f"the command cannot be run: {e.strerror or type(e).__name__}"
            raise _unusable(why, "check its name") from None
        if self._killed:
            self.kill()
        with process:
            try:
                if process.stdin is not None:
                    # The pipe holds all of it, and a command need not read it.
                    with suppress(BrokenPipeError), process.stdin as pipe:
                        _ = pipe.write(content or b"")
                output = _output(process, end)
                _ = process.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                self.kill()
                why = f"the command took longer than {COMMAND_TIMEOUT:.0f} s"
                raise _unusable(why, "run it by hand") from None
            except InvalidServer:
                self.kill()
                raise
        if process.returncode:
            why = f"the command failed with status {process.returncode}"
            raise _unusable(why, "run it by hand as the same user")
        return output

    def kill(self) -> None:
        """End it, also from another thread and before it runs; it fails then."""
        self._killed = True
        process = self._process
        if process is not None and process.poll() is None:
            # The command has a session of its own: this ends its children too.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _output(process: subprocess.Popen[bytes], end: float) -> bytes:
    """Return what *process* prints until it closes its output.

    :raises TimeoutExpired: it does not close it until *end*.
    :raises InvalidServer: it prints too much.
    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    output, descriptor = bytearray(), process.stdout.fileno()
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while waiting.poll(max(end - time.monotonic(), 0) * 1000):
        piece = os.read(descriptor, MAX_SECRET_SIZE)
        if not piece:
            return bytes(output)
        output += piece
        if len(output) > MAX_SECRET_SIZE:
            raise _too_long()
    raise subprocess.TimeoutExpired(process.args, COMMAND_TIMEOUT)


def secret_text(content: bytes) -> str:
    """Decode a secret.

    :raises InvalidServer: it is too long, or not UTF-8.
    """
    if len(content) > MAX_SECRET_SIZE:
        raise _too_long()
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


def _too_long() -> InvalidServer:
    return _unusable(
        f"the secret is longer than {MAX_SECRET_SIZE} octets", "give a file with a secret"
    )


def _unusable(why: str, remedy: str) -> InvalidServer:
    return InvalidServer("a secret cannot be obtained", detail=why, remedy=remedy)
