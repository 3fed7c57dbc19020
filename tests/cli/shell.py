"""Runs the installed command as a person or a program does.

Whatever a test asks of it, each run is held to what is true of all: no traceback, no
Every run is checked for tracebacks, control characters and secrets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.forked import run_forked

PASSWORD = "kein-Wort-davon-42"
COMMAND = str(Path(sys.executable).parent / "twisted-sendmail")
MESSAGE = (
    b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: hello\r\n"
    b"Date: Thu, 01 Jan 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n"
    b"Hi.\r\n.\r\n..dots\r\n"
)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass
class Done:
    """The result of a run."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on stdout, which is in one line."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def check(self) -> Done:
        """Assert what holds for every run."""
        both = self.out + self.err
        assert "Traceback" not in both, both
        assert PASSWORD not in both, both
        assert not _CONTROL.search(both), both
        return self


#: Seconds for one run; the demo takes ten on an idle machine, and a minute on a busy one.
RUN_SECONDS = 200


def read_terminal(descriptor: int, *, prompt: bytes = b"", answer: bytes = b"") -> bytes:
    """Return all that is written to a terminal until it ends.

    :param descriptor: our side of it.
    :param prompt: *answer* is typed once, when this was shown.
    """
    seen = b""
    try:
        while piece := os.read(descriptor, 65536):
            if prompt and prompt in seen + piece and prompt not in seen:
                os.write(descriptor, answer)
            seen += piece
    except OSError:
        pass  # that is how a terminal ends
    return seen


class Shell:
    """Runs the command in a folder of its own, with an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            # As the tests themselves: a warning is a fault.
            "PYTHONWARNINGS": "error",
        }
        self.message = self.write("message.eml", MESSAGE)
        self.password = self.write("password", PASSWORD.encode() + b"\n", 0o600)

    def write(self, name: str, content: bytes, mode: int = 0o644) -> str:
        """Write a file; its path."""
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    def run_now(self, *words: str, stdin: bytes = b"", **env: str) -> Done:
        """Run the command, where nothing in this process has to answer it."""
        done = run_forked(
            "twisted-sendmail",
            *words,
            folder=self.folder,
            env={**self.env, **env},
            stdin=stdin,
            seconds=RUN_SECONDS,
        )
        return Done(done.returncode, done.stdout, done.stderr).check()

    def start(
        self, *words: str, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start the command and let it run, without a terminal but those it is given."""
        return subprocess.Popen(
            [COMMAND, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env={**self.env, "TERM": "xterm"},
        )

    def line(self, line: str) -> subprocess.CompletedProcess[bytes]:
        """Let a shell run *line*."""
        return subprocess.run(
            ["/bin/bash", "-c", line], capture_output=True, env=self.env, timeout=60, check=False
        )

    async def run(self, *words: str, stdin: bytes = b"", **env: str) -> Done:
        """Run the command while this process's reactor goes on."""
        return await deferToThread(lambda: self.run_now(*words, stdin=stdin, **env))
