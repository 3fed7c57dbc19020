"""A real `twistd sendmail` process to start, kill and inspect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater

from tests.durability.next_hop import PASSWORD
from tests.ports import free_port, listens
from tests.waiting import PATIENCE, until
from twisted_sendmail import Envelope, Mailer, PoolLimits, SendmailError
from twisted_sendmail.queue import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.durability.audit import Ledger, Sent
    from tests.durability.next_hop import NextHop
    from tests.forked import ForkedProcess
    from twisted_sendmail import DeliveryReport

TWISTD = str(Path(sys.executable).parent / "twistd")

CONFIGURATION = """\
name = "relay.example"
queue = "{place}"
{spool}

listen = ["tcp:127.0.0.1:{port}"]

[[smarthost]]
url = "{url}"
password-file = "{folder}/password"
ca-file = "{folder}/ca.pem"

[retry]
first = "0.3 s"
most = "1 s"
"""


class RelayProcess:
    """One relay in *folder*; the queue survives it.

    :param place: of the queue, if it is not in the folder.
    :param more: more of its configuration.
    """

    def __init__(
        self, reactor: Any, folder: Path, hop: NextHop, more: str = "", *, place: str | None = None
    ) -> None:
        self._reactor = reactor
        self.folder = folder
        self.place = place or f"{folder}/queue"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        (folder / "ca.pem").write_bytes(hop.server.authority.pem)
        password = folder / "password"
        password.touch(0o600)
        password.write_text(PASSWORD + "\n")
        # The spool of a queue in a directory is that directory.
        spool = f'spool = "{folder}"' if place else ""
        text = CONFIGURATION.format(
            folder=folder, place=self.place, spool=spool, port=self.port, url=hop.url
        )
        (folder / "relay.toml").write_text(text + more)

    @property
    def queue(self) -> Path:
        """The queue's directory."""
        return self.folder / "queue"

    @property
    def log(self) -> str:
        """What every process so far has said."""
        return (self.folder / "log").read_text("utf-8", "replace")

    @property
    def command(self) -> list[str]:
        """How it is started."""
        return [TWISTD, "-n", "--pidfile=", "sendmail", "--config", f"{self.folder}/relay.toml"]

    def launch(self, **environment: str) -> subprocess.Popen[bytes] | ForkedProcess:
        """Start the process; it is not ready yet."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env={**os.environ, **environment}
            )
        return self.process

    async def start(self, **environment: str) -> float:
        """Start it, and wait until it listens: the seconds that took."""
        process = self.launch(**environment)
        since = time.monotonic()
        while not self.listens():
            assert process.poll() is None, self.log[-4000:]
            assert time.monotonic() - since < PATIENCE, self.log[-4000:]
            await self.pause(0.02)
        return time.monotonic() - since

    def listens(self) -> bool:
        """Does somebody answer at its port?"""
        return listens(self.port)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait()

    async def gone(self) -> int:
        """Wait for its end: its exit status."""
        process = self.process
        assert process is not None
        await self.until(lambda: process.poll() is not None)
        return process.wait()

    async def terminate(self) -> int:
        """SIGTERM, and wait for the end."""
        assert self.process is not None
        self.process.terminate()
        return await self.gone()

    async def stopped(self) -> None:
        """SIGTERM, and the orderly end of it: Twisted ends by the signal again, or with 0."""
        assert await self.terminate() in {0, -signal.SIGTERM}
        assert "Server Shut Down" in self.log.rpartition("starting up")[2], self.log[-3000:]

    async def until(
        self,
        condition: Callable[[], object],
        log: Callable[[], object] | None = None,
        *,
        interval: float = 0.01,
    ) -> None:
        """Wait for something that will be."""
        await until(self._reactor, condition, log or (lambda: self.log[-6000:]), interval=interval)

    async def pause(self, seconds: float) -> None:
        """Let the reactor run."""
        await deferLater(self._reactor, seconds, lambda: None)

    def client(self, connections: int = 20) -> Mailer:
        """Something that gives it mail: each message over a connection of its own."""
        limits = PoolLimits(connections=connections, window=1)
        return Mailer(self._reactor, f"smtp://127.0.0.1:{self.port}", limits=limits)

    async def give(self, mailer: Mailer, sent: Sent) -> None:
        """Give it one message, and note whether it was acked."""
        try:
            report = await self.offer(mailer, sent)
        except SendmailError:
            pass  # it may have it or not, but it did not say so
        else:
            sent.acked = bool(report.accepted)
            sent.refused = bool(report.refused)

    async def give_alone(self, sent: Sent) -> None:
        """The same, by a client that has no other."""
        mailer = self.client()
        await self.give(mailer, sent)
        await mailer.aclose()

    async def offer(self, mailer: Mailer, sent: Sent) -> DeliveryReport:
        """Give it one message: what came of it.

        :raises SendmailError: no answer.
        """
        envelope = Envelope("a@sender.example", sent.recipients)
        try:
            return await mailer.send(sent.content, envelope=envelope, complete=False)
        except SendmailError as error:
            if error.report is None or not error.report.refused:
                raise
            return error.report

    def waiting(self) -> int:
        """Messages in the queue."""
        with open_store(self.place) as store, store.transaction(write=False):
            return store.count()

    async def drained(self, ledger: Ledger) -> None:
        """Wait until nothing that was acked is missing."""
        await self.until(
            lambda: not ledger.missing(),
            lambda: (ledger.missing()[:5], self.log[-4000:]),
            interval=0.05,
        )
