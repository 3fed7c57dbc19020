"""A folder with the files of a configuration, and relays in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.names import Configuration, ConfigurationError, password_entry, read_configuration
from twisted_sendmail import SendmailError
from twisted_sendmail.daemon.service import RelayDaemon
from twisted_sendmail.exit_status import status_of_start
from twisted_sendmail.testing import Authority, LoopbackServer

PASSWORD = "kein-Wort-davon-42"
AUTHORITY = Authority()
CERTIFICATE = AUTHORITY.issue()
SIMPLE = """\
queue = "queue"
listen = ["tcp:127.0.0.1:0"]
[[smarthost]]
url = "smtp+starttls://jane@mail.example.net"
password-file = "password"
"""


class Folder:
    """A folder with the files that configurations name."""

    def __init__(self, path: Path, reactor: Any) -> None:
        self.path = path
        self.reactor = reactor
        self.write("password", f"{PASSWORD}\n", 0o600)
        self.write("token", f"{PASSWORD}\n", 0o600)
        self.write("ca.pem", AUTHORITY.pem.decode())
        self.write("server.pem", CERTIFICATE.decode(), 0o600)
        self.write("accounts", password_entry("jane", PASSWORD, iterations=4096) + "\n", 0o600)

    def write(self, name: str, content: str, mode: int = 0o644) -> Path:
        """Write a file."""
        path = self.path / name
        path.write_text(content, "utf-8")
        path.chmod(mode)
        return path

    def read(self, text: str) -> Configuration:
        """The configuration that *text* is."""
        return read_configuration(self.write("relay.toml", text), self.reactor)

    def complaint(self, text: str) -> str:
        """What is wrong with *text*, without the file's name."""
        with pytest.raises(ConfigurationError) as caught:
            self.read(text)
        line = str(caught.value)
        assert PASSWORD not in line
        assert line.isprintable()
        assert status_of_start(caught.value) == 78
        before = f"{self.path / 'relay.toml'}: "
        assert line.startswith(before)
        return line.removeprefix(before)


@pytest.fixture
def folder(tmp_path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr("socket.gethostname", lambda: "relay.example.org")
    return Folder(tmp_path, reactor)


@pytest_twisted.async_yield_fixture
async def hop(reactor: Any) -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(reactor, users={"jane": PASSWORD}) as server:
        yield server


class Stage:
    """Makes relays, and stops them at the end."""

    def __init__(self, folder: Folder, hop: LoopbackServer) -> None:
        self.folder = folder
        self.hop = hop
        self.daemons: list[RelayDaemon] = []
        self.failures: list[SendmailError] = []

    def text(self, *, listen: str = '["tcp:127.0.0.1:0"]', more: str = "") -> str:
        return f"""
            queue = "queue"
            listen = {listen}
            [[smarthost]]
            url = "smtp+starttls://jane@127.0.0.1:{self.hop.port}"
            password-file = "password"
            ca-file = "{self.hop.ca_file}"
            {more}
        """

    def daemon(self, text: str | None = None) -> RelayDaemon:
        reactor = self.folder.reactor
        configuration = self.folder.read(self.text() if text is None else text)

        def read() -> Configuration:
            from tests.names import read_configuration

            return read_configuration(self.folder.path / "relay.toml", reactor)

        daemon = RelayDaemon(reactor, configuration, read=read, start_failed=self.failures.append)
        self.daemons.append(daemon)
        return daemon

    async def started(self, text: str | None = None) -> RelayDaemon:
        daemon = self.daemon(text)
        daemon.startService()
        await self.until(lambda: daemon.listeners is not None and daemon.listeners.addresses)
        return daemon

    async def until(self, done: Any, *, patience: float = 60) -> None:
        for _ in range(int(patience * 100)):
            if done():
                return
            await deferLater(self.folder.reactor, 0.01)
        raise AssertionError("it did not come to that")


@pytest_twisted.async_yield_fixture
async def stage(folder: Folder, hop: LoopbackServer) -> AsyncIterator[Stage]:
    reactor = folder.reactor
    before = set(reactor.getDelayedCalls())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR1)}
    stage = Stage(folder, hop)
    yield stage
    for daemon in stage.daemons:
        if daemon.running:
            await daemon.stopService()
    await stage.until(lambda: not hop.sessions or all(s.closed for s in hop.sessions))
    assert handlers == {number: signal.getsignal(number) for number in handlers}
    assert "clock watch" not in [thread.name for thread in threading.enumerate()]
    assert [] == [call for call in reactor.getDelayedCalls() if call not in before]
