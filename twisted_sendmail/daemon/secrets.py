"""Where the relay's secrets come from: a file, a systemd credential, a command, the environment.

Never from the configuration itself or from argv.  What is read goes into ``Secret`` or
straight to who asked; no error quotes it, and a command's stderr is thrown away.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.client import check_secret_file, off_reactor
from twisted_sendmail.daemon.configuration_error import Wrong
from twisted_sendmail.sasl import CredentialsUnavailable
from twisted_sendmail.smtp import InvalidServer, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

#: Octets; no password or token is as long.
MAX_SECRET = 65536
#: Seconds a command may take.
COMMAND_TIME = 30.0


@dataclass(frozen=True)
class SecretSource:
    """One place to read a secret from.

    :param kind: ``file``, ``credential``, ``command``, ``shell`` or ``environment``.
    :param place: the path, the credential's name, the words, the line, the variable.
    """

    kind: str
    place: Any = field(repr=False)
    #: A file may be one that everybody may read.
    world_readable: bool = field(default=False, repr=False)

    def check(self) -> None:
        """See that it can be had, without running anything.

        :raises Wrong: why not.
        """
        if self.kind == "command":
            program = self.place[0]
            if shutil.which(program) is None:
                remedy = "give its whole path, or install it"
                raise Wrong(f"there is no program {printable(program, 100)}", remedy)
        elif self.kind != "shell":
            self.read()

    def read(self) -> str:
        """The secret, now; blocks for a command.

        :raises Wrong: it cannot be had.
        """
        if self.kind == "file":
            return _text(_file(self.place, world_readable=self.world_readable))
        if self.kind == "credential":
            # systemd keeps others out of its directory.
            return _text(_file(_credential(self.place), world_readable=True))
        if self.kind == "environment":
            if self.place not in os.environ:
                name = printable(self.place, 60)
                raise Wrong(f"the variable {name} is not set", "set it where the relay is started")
            return _text(os.environb[os.fsencode(self.place)])
        words = ["/bin/sh", "-c", self.place] if self.kind == "shell" else list(self.place)
        return _text(_output(words))

    def provider(self, reactor: Any) -> Callable[[], Deferred[str]]:
        """Read it anew each time it is asked, in a thread: it may change, and take its time."""

        def provide() -> Deferred[str]:
            return off_reactor(reactor, self._provided)

        return provide

    def _provided(self) -> str:
        try:
            return self.read()
        except Wrong as e:
            raise CredentialsUnavailable(
                "the password cannot be had", detail=e.why, remedy=e.remedy, phase="AUTH"
            ) from None


def _credential(name: str) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        why = "there are no credentials: CREDENTIALS_DIRECTORY is not set"
        raise Wrong(why, "write LoadCredential= in the systemd unit, or use a file")
    if "/" in name or name in {".", ".."}:
        raise Wrong("it is no name of a credential", "write the name that LoadCredential= gives it")
    return Path(directory) / name


def _file(path: Path, *, world_readable: bool) -> bytes:
    shown = printable(str(path), 200)
    try:
        # A pipe nobody writes to must not stop us.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Wrong(f"{shown} is no file", "name a file that holds the secret")
            try:
                check_secret_file(path, status, world_readable=world_readable)
            except InvalidServer as e:
                raise Wrong(e.detail, e.remedy) from None
            return file.read(MAX_SECRET + 1)
    except OSError as e:
        why = f"{shown} cannot be read: {e.strerror or type(e).__name__}"
        raise Wrong(why, "check the name and its permissions") from None


def _output(words: Sequence[str]) -> bytes:
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as e:
        why = f"the command cannot be run: {e.strerror or type(e).__name__}"
        raise Wrong(why, "check its name") from None
    try:
        content, _ = process.communicate(timeout=COMMAND_TIME)
    except subprocess.TimeoutExpired:
        # What it has started belongs to its session, which is its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        process.stdout.close()
        raise Wrong(
            f"the command took longer than {COMMAND_TIME:.0f} s", "run it by hand"
        ) from None
    if process.returncode:
        why = f"the command failed with status {process.returncode}"
        raise Wrong(why, "run it by hand as the relay's user")
    return content


def _text(content: bytes) -> str:
    if len(content) > MAX_SECRET:
        raise Wrong(f"it is longer than {MAX_SECRET} octets", "it is no secret")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise Wrong("it is not UTF-8", "save it as UTF-8") from None
    for end in ("\r\n", "\n"):
        text = text.removesuffix(end)
    if not text or "\n" in text or "\0" in text:
        raise Wrong("it is empty, or more than one line", "keep the secret alone in its place")
    return text
