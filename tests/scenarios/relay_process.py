"""A real ``twistd`` process in a folder of its own.

It owns what it starts.  Whatever a test does with it, each process is held to what is true of
all: no traceback, no secret in its log, its queue closed to others.
"""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.threads import deferToThread

from tests.forked import ForkedProcess, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.testing import LoopbackServer

TWISTD = str(Path(sys.executable).parent / "twistd")
PASSWORD = "kein-Wort-davon-42"
#: Seconds. Only a relay that is broken takes so long.
PATIENCE = 60.0
# The socket is descriptor 3, and LISTEN_PID is the process itself.
_ACTIVATE = (
    "import os, sys; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', "
    "LISTEN_FDNAMES='smtp'); os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)
#: What the queue's directory holds for local programs, if the spool has no directory of its own.
OPEN_TO_PROGRAMS = {"drop", "mailq", "sendmail.json", "sendmail.fifo"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Relay:
    """One folder, and the process in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = folder / "queue"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.env = {**os.environ, "PYTHONWARNINGS": "default", "LANG": "C.UTF-8"}
        self.write("password", PASSWORD + "\n", 0o600)

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> str:
        """Write a file; its path."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return str(path)

    def accept_local_mail(self, hop: LoopbackServer) -> None:
        """Make a spool that every user can enter, and a configuration with *hop* as smarthost."""
        drop = self.folder / "spool" / "drop"
        drop.mkdir(parents=True)
        drop.chmod(0o3733)
        self.write(
            "relay.toml",
            f"""
            name = "relay.example.org"
            queue = "queue"
            spool = "spool"
            [[smarthost]]
            url = "smtp+starttls://jane@127.0.0.1:{hop.port}"
            password-file = "password"
            ca-file = "{hop.ca_file}"
            """,
        )

    def start(
        self,
        *flags: str,
        through: Sequence[str] = (),
        umask: int = 0o022,
        listening: socket.socket | None = None,
    ) -> None:
        """Start it, and do not wait; it is forked, unless a command or a socket needs it otherwise.

        :param through: the command that runs it.
        :param listening: passed on as systemd does it, under the name ``smtp``.
        """
        if not through and listening is None:
            self.log.touch()
            self.process = ForkedProcess(
                partial(_run, umask, flags),
                folder=self.folder,
                env=self.env,
                streams=[os.devnull, str(self.log), str(self.log)],
            )
            return
        if listening is not None:
            through = (sys.executable, "-c", _ACTIVATE, str(listening.fileno()), sys.executable)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*through, TWISTD, "-n", "--pidfile=", "sendmail", *flags],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=umask,
                pass_fds=() if listening is None else (listening.fileno(),),
            )

    def up(self, times: int = 1) -> None:
        """Wait until it takes mail in, for the *times*-th time."""
        self.wait(lambda: self.said.count("] accepting mail; ") >= times)

    def wait(self, done: Callable[[], object]) -> None:
        """Wait until *done*, while the process lives."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert self.process is None or self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    @property
    def said(self) -> str:
        """What it has logged so far."""
        return self.log.read_text("utf-8") if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        """SIGTERM, and wait; its exit status."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(PATIENCE)

    def ended(self) -> int:
        """Wait for its end; the exit status. What holds of every run is seen to."""
        assert self.process is not None
        status = self.process.wait(PATIENCE)
        self.check()
        return status

    def check(self) -> None:
        """No traceback, nothing that moves a cursor, no secret anywhere, nothing open to others."""
        assert "Traceback" not in self.said, self.said
        assert not _CONTROL.search(self.said), self.said
        assert PASSWORD not in self.said
        if self.queue.exists():
            assert stat.S_IMODE(self.queue.stat().st_mode) == 0o700
        for path in self.queue.glob("*"):
            if path.name in OPEN_TO_PROGRAMS:
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == 0o600, f"{path} {mode:o}"
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes(), path

    def tidy(self) -> None:
        """End what is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


def _run(umask: int, flags: Sequence[str]) -> None:
    os.umask(umask)
    run_command("twistd", "-n", "--pidfile=", "sendmail", *flags)


def submit(port: int, number: int = 0, *, recipients: Sequence[str] = ("bob@example.net",)) -> str:
    """One message; the reply to its final dot."""
    content = (
        f"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: {number}\r\n\r\n{number}\r\n"
    )
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org", timeout=30) as client:
        client.ehlo()
        client.mail("alice@example.org")
        for recipient in recipients:
            client.rcpt(recipient)
        code, text = client.data(content)
        assert code == 250, text
        return text.decode()


async def off(call: Callable[..., str], *arguments: object) -> str:
    """Let *call* block in a thread."""
    return await deferToThread(call, *arguments)
