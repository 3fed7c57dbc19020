"""What the demo plays on: a relay in a process of its own, and the next hop, which can be down.

Everything is on the loopback interface and in one temporary directory; the relay is the real
``twistd sendmail`` with a configuration file, the stand-in the real ``sendmail``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from twisted_sendmail.client import SubmissionServer, TLSTrust
from twisted_sendmail.sasl import Credentials
from twisted_sendmail.server import ScramKeys
from twisted_sendmail.smtp import SendmailError
from twisted_sendmail.testing.authority import Authority
from twisted_sendmail.testing.faults import refuse_recipient
from twisted_sendmail.testing.loopback import LoopbackServer

_Self = TypeVar("_Self", bound="Stage")

#: The user who submits to the relay, and the one the relay is at the next hop.
USER, RELAY = "alice", "relay"
#: Whom the next hop does not know.
UNKNOWN = "nobody@example.net"
CONFIGURATION = """\
queue = "queue"
name = "relay.example.org"

[[listen]]                        # STARTTLS and AUTH, or no mail
endpoint = "tcp:127.0.0.1:{door}"
certificate = "server.pem"
accounts = "accounts"
trusted = []

[[smarthost]]                     # STARTTLS and AUTH again
url = "smtp+starttls://{user}@127.0.0.1:{hop}"
password-file = "smarthost.password"
ca-file = "ca.pem"

[delivery]
down-first = "2 s"                # ask a server that is down again so soon, then less often
"""
_TWISTD = "from twisted.scripts.twistd import run; run()"
_COMMAND = "from twisted_sendmail.cli.{} import console; console()"
_PATIENCE = 30.0


class Stage:
    """See the module; to be used with ``async with``."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.folder = Path(tempfile.mkdtemp(prefix="demo-"))
        self.passwords = (secrets.token_urlsafe(12), secrets.token_urlsafe(12))
        self.dialogue: list[str] = []
        self._relay: subprocess.Popen[bytes] | None = None
        door, hop = _free_ports()
        self.configuration = CONFIGURATION.format(door=door, hop=hop, user=RELAY)
        self._door = door
        authority = Authority()
        self._write("ca.pem", authority.pem)
        self._write("server.pem", authority.issue(["localhost", "127.0.0.1"]))
        keys = ScramKeys.of(self.passwords[0])
        self._write("accounts", f"{USER}:{keys.spelled()}\n".encode())
        self._write("smarthost.password", f"{self.passwords[1]}\n".encode())
        self._write("relay.toml", self.configuration.encode())
        #: Not started: whoever connects is refused.
        self.next_hop = LoopbackServer(
            reactor,
            users={RELAY: self.passwords[1]},
            port=hop,
            authority=authority,
            faults=[refuse_recipient(UNKNOWN)],
        )

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        relay = self._relay
        if relay is not None:
            relay.kill()
            relay.wait()
        await self.next_hop.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What the relay has said so far."""
        return (self.folder / "relay.log").read_text("utf-8", "replace")

    @property
    def door(self) -> SubmissionServer:
        """Where an application submits: the relay."""
        return SubmissionServer.from_url(
            f"smtp+starttls://127.0.0.1:{self._door}",
            credentials=Credentials(USER, self.passwords[0], mechanisms=["PLAIN"]),
            trust=TLSTrust(ca_file=str(self.folder / "ca.pem")),
            helo_name="client.example.org",
            watch=self.dialogue.append,
        )

    async def start_relay(self) -> None:
        """Start it, and wait until it listens.

        :raises SendmailError: it does not.
        """
        relay = self._launch()
        since = self._reactor.seconds()
        while not _listens(self._door):
            late = self._reactor.seconds() - since > _PATIENCE
            if relay.poll() is not None or late:
                raise SendmailError("the relay does not start", detail=self.log[-500:])
            await self.pause(0.05)

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile=", "sendmail"]
        with (self.folder / "relay.log").open("wb") as log:
            self._relay = subprocess.Popen(  # noqa: S603 - ours, all of it
                [*command, "--config", str(self.folder / "relay.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self._relay

    async def stop_relay(self) -> None:
        """SIGTERM, and its orderly end."""
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.terminate()
            await deferToThread(relay.wait)

    async def call(self, module: str, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        """Run a command of this package as a shell would: its exit status and output."""
        done = await deferToThread(
            subprocess.run,
            [sys.executable, "-c", _COMMAND.format(module), *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env={
                **os.environ,
                "TWISTED_SENDMAIL_CONFIG": str(self.folder / "relay.toml"),
                "PYTHONIOENCODING": "utf-8",
                "COLUMNS": "100",
            },
        )
        return done.returncode, done.stdout.decode("utf-8", "replace").rstrip("\n")

    async def logged(self, what: str, times: int) -> None:
        """Wait until the relay has said it so often.

        :raises SendmailError: it does not.
        """
        since = self._reactor.seconds()
        while self.log.count(what) < times:
            if self._reactor.seconds() - since > _PATIENCE:
                raise SendmailError(f"the relay never says '{what}'", detail=self.log[-500:])
            await self.pause(0.05)

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await deferLater(self._reactor, seconds, lambda: None)


def _free_ports() -> list[int]:
    """Two ports that nobody has just now."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
