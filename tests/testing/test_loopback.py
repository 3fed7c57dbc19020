"""The loopback server in a reactor that is there already: as a context manager, and in `trial`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import TimeoutError as TooLong
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

from twisted_sendmail import Credentials, SubmissionServer, TLSTrust, submit
from twisted_sendmail.testing import LoopbackServer

MESSAGE = b"From: a@example.org\r\nTo: b@example.net\r\n\r\nhello\r\n"


@ensureDeferred
async def test_a_client_sends_by_starttls_and_by_implicit_tls(reactor: Any) -> None:
    async with LoopbackServer(reactor, users={"jane": "s3cret"}) as server:
        for url in (server.url, server.tls_url):
            where = SubmissionServer.from_url(
                url,
                credentials=Credentials("jane", "s3cret"),
                trust=TLSTrust(ca_file=server.ca_file),
            )
            await submit(reactor, where, MESSAGE, recipients="b@example.net", complete=False)
        first, second = await server.wait_for(2)
        directory = Path(server.ca_file).parent
        assert directory.stat().st_mode & 0o777 == 0o700
    assert (first.content, second.content, first.user) == (MESSAGE, MESSAGE, "jane")
    assert [session.closed for session in server.sessions] == [True, True]
    assert not directory.exists()


@ensureDeferred
async def test_waiting_for_a_message_has_a_timeout(reactor: Any) -> None:
    async with LoopbackServer(reactor) as server:
        with pytest.raises(TooLong):
            await server.wait_for(1, timeout=0.01)


# Twisted leaves the socket it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("which", ["port", "tls_port"])
@ensureDeferred
async def test_a_port_in_use_is_an_error_that_leaves_nothing_behind(
    reactor: Any, which: str
) -> None:
    async with LoopbackServer(reactor) as server:
        before = len(reactor.getReaders())
        options: dict[str, Any] = {which: server.port}
        other = LoopbackServer(reactor, **options)
        with pytest.raises(CannotListenError):
            await other.start()
        assert len(reactor.getReaders()) == before
        with pytest.raises(RuntimeError, match="start it first"):
            _ = other.ca_file


@ensureDeferred
async def test_stopping_drops_open_connections(reactor: Any) -> None:
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
    from twisted.internet.protocol import Protocol

    async with LoopbackServer(reactor) as server:
        endpoint = TCP4ClientEndpoint(reactor, server.host, server.port)
        client = await connectProtocol(endpoint, Protocol())  # Twisted's
        while not server.sessions:
            await deferLater(reactor, 0.01)
    assert server.sessions[0].closed
    client.transport.abortConnection()


TRIAL = """
from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted_sendmail import SubmissionServer, TLSTrust, submit
from twisted_sendmail.testing import LoopbackServer

class MailTests(TestCase):
    def setUp(self):
        self.server = LoopbackServer(reactor)
        self.addCleanup(self.server.stop)
        return self.server.start()

    async def test_mail(self):
        trust = TLSTrust(ca_file=self.server.ca_file)
        server = SubmissionServer.from_url(self.server.url, trust=trust)
        await submit(reactor, server, b"hello", sender="a@example.org", recipients="b@example.net")
        self.assertEqual(len(self.server.messages), 1)
"""


def test_the_server_works_with_trial(tmp_path: Path) -> None:
    """Which also finds any timer or connection that is left behind."""
    (tmp_path / "test_mail.py").write_text(TRIAL)
    command = [sys.executable, "-m", "twisted.trial", "test_mail"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
