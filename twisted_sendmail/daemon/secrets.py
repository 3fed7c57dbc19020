"""Secrets of the relay: from a file, a systemd credential, a command, or the environment.

Never from the configuration itself or from argv. No error quotes a secret, and the stderr of a
command is thrown away.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.daemon.config_types import InvalidValue, at_key
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.sasl import CredentialsUnavailable
from twisted_sendmail.secret_file import check_secret_file
from twisted_sendmail.smtp import InvalidServer, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_sendmail.daemon.config_schema import AdminTable, DKIMKeyTable, SmarthostTable

#: Octets of a secret.
MAX_SECRET_SIZE = 65536
#: Seconds that a command may take.
COMMAND_TIMEOUT = 30.0

_KINDS = ("file", "credential", "command", "shell", "environment")


def secret_source(
    table: SmarthostTable | AdminTable | DKIMKeyTable, name: str, *, world_readable: bool
) -> SecretSource | None:
    """Return the source of the secret *name* in *table*, checked; None if no key names one.

    :param world_readable: accept a file that everybody may read.
    :raises InvalidValue: two keys name one, or the secret is not available.
    """
    values = {kind: getattr(table, f"{name}_{kind}", None) for kind in _KINDS}
    given = [kind for kind, value in values.items() if value is not None]
    if not given:
        return None
    with at_key(f"{name}-{given[0]}"):
        if len(given) > 1:
            raise InvalidValue(f"there is a {name}-{given[1]} too", "give one of them")
        source = SecretSource(given[0], values[given[0]], world_readable, whole=name == "key")
        source.check()
    return source


@attrs.frozen
class SecretSource:
    """One place to read a secret from.

    :param kind: ``file``, ``credential``, ``command``, ``shell`` or ``environment``.
    :param place: the path, the credential's name, the words, the line, the variable.
    :param world_readable: accept a file that everybody may read.
    :param whole: the secret has several lines, as a key in PEM.
    """

    kind: str
    place: Any = attrs.field(repr=False)
    world_readable: bool = attrs.field(default=False, repr=False)
    whole: bool = attrs.field(default=False, repr=False)

    def check(self) -> None:
        """Check that the secret is available, without running a command.

        :raises InvalidValue: it is not.
        """
        if self.kind == "command":
            program = self.place[0]
            if shutil.which(program) is None:
                why = f"there is no program {printable(program, 100)}"
                raise InvalidValue(why, "give its whole path, or install it")
        elif self.kind != "shell":
            self.read()

    def read(self) -> str:
        """Read the secret. Blocks while a command runs.

        :raises InvalidValue: it is not available.
        """
        if self.kind == "file":
            content = _file_content(self.place, world_readable=self.world_readable)
        elif self.kind == "credential":
            # systemd protects the directory.
            content = _file_content(_credential_path(self.place), world_readable=True)
        elif self.kind == "environment":
            if self.place not in os.environ:
                why = f"the variable {printable(self.place, 60)} is not set"
                raise InvalidValue(why, "set it where the relay is started")
            content = os.environb[os.fsencode(self.place)]
        elif self.kind == "shell":
            content = _command_output(["/bin/sh", "-c", self.place])
        else:
            content = _command_output(self.place)
        text = _text(content)
        return text if self.whole else _one_line(text)

    def provider(self, reactor: Any) -> Callable[[], Deferred[str]]:
        """Return a function that reads the secret again, in a thread; the secret may have changed."""

        def read() -> str:
            try:
                return self.read()
            except InvalidValue as e:
                raise CredentialsUnavailable(
                    "the password cannot be had", detail=e.why, remedy=e.remedy, phase="AUTH"
                ) from None

        return lambda: off_reactor(reactor, read)


def _credential_path(name: str) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        why = "there are no credentials: CREDENTIALS_DIRECTORY is not set"
        raise InvalidValue(why, "write LoadCredential= in the systemd unit, or use a file")
    if "/" in name or name in {".", ".."}:
        why = "invalid name of a credential"
        raise InvalidValue(why, "write the name that LoadCredential= gives it")
    return Path(directory) / name


def _file_content(path: Path, *, world_readable: bool) -> bytes:
    shown = printable(str(path), 200)
    try:
        # O_NONBLOCK: opening a pipe without a writer must not block.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidValue(f"{shown} is no file", "name a file that holds the secret")
            try:
                check_secret_file(path, status, world_readable=world_readable)
            except InvalidServer as e:
                raise InvalidValue(e.detail, e.remedy) from None
            return file.read(MAX_SECRET_SIZE + 1)
    except OSError as e:
        why = f"{shown} cannot be read: {e.strerror or type(e).__name__}"
        raise InvalidValue(why, "check the name and its permissions") from None


def _command_output(words: Sequence[str]) -> bytes:
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
        raise InvalidValue(why, "check its name") from None
    with process:
        try:
            content, _ = process.communicate(timeout=COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            # The command has a session of its own: this ends its children too.
            os.killpg(process.pid, signal.SIGKILL)
            why = f"the command took longer than {COMMAND_TIMEOUT:.0f} s"
            raise InvalidValue(why, "run it by hand") from None
    if process.returncode:
        why = f"the command failed with status {process.returncode}"
        raise InvalidValue(why, "run it by hand as the relay's user")
    return content


def _text(content: bytes) -> str:
    if len(content) > MAX_SECRET_SIZE:
        raise InvalidValue(
            f"the secret is longer than {MAX_SECRET_SIZE} octets", "give a file with a secret"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidValue("the secret is not UTF-8", "save the file as UTF-8") from None


def _one_line(text: str) -> str:
    for end in ("\r\n", "\n"):
        text = text.removesuffix(end)
    if not text or "\n" in text or "\0" in text:
        why = "the secret is empty, or more than one line"
        raise InvalidValue(why, "write the secret alone into it")
    return text
