"""A relay whose tokens come from a command that does not do what it should."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher

from tests.daemon.conftest import Stage
from tests.daemon.test_service import port_of, send
from twisted_sendmail import secret_reader
from twisted_sendmail.testing import LoopbackServer

TOKEN = "tOkEn-1234"


@pytest_twisted.async_yield_fixture
async def hop(reactor: Any) -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(reactor, tokens={"jane": TOKEN}) as server:
        yield server


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    logged: list[str] = []

    keep: Any = lambda event: logged.append(formatEvent(event))  # noqa: E731 - an observer

    globalLogPublisher.addObserver(keep)
    yield logged
    globalLogPublisher.removeObserver(keep)


def keys(stage: Stage, command: str) -> str:
    """A configuration; the command is in a file, so that a test can replace it."""
    stage.folder.write("command", command)
    text = stage.text().replace('password-file = "password"', "bearer = true")
    return text + f"password-command = ['/bin/sh', '{stage.folder.path / 'command'}']"


# The script, and what the log has about it.
BROKEN = {
    "exits with 1": (f"echo {TOKEN}; exit 1", "the command failed with status 1"),
    "is killed": ("kill -9 $$", "the command failed with status -9"),
    "prints nothing": ("exit 0", "the secret is empty, or more than one line"),
    "prints an empty line": ("echo", "the secret is empty, or more than one line"),
    "prints two lines": (f"echo {TOKEN}; echo x", "the secret is empty, or more than one line"),
    "prints a NUL": (f"printf '{TOKEN}\\000'", "the secret is empty, or more than one line"),
    "prints no UTF-8": (f"printf '{TOKEN}\\377\\n'", "the secret is not UTF-8"),
    "prints a blank": (f"echo '{TOKEN} x'", "has characters that no bearer token has (RFC 6750)"),
    "prints a CR": (f"printf '{TOKEN}\\rx\\n'", "has characters that no bearer token has"),
    "prints a control character": (f"printf '{TOKEN}\\001auth=x\\n'", "has characters that no"),
    "prints an escape sequence": (f"printf '\\033[1m{TOKEN}\\n'", "has characters that no bearer"),
    "prints 65 kB": (
        "head -c 66000 /dev/zero | tr '\\0' x",
        "the secret is longer than 65536 octets",
    ),
    "prints without end": (f"yes {TOKEN}", "the secret is longer than 65536 octets"),
    "hangs": ("sleep 60", "the command took longer than 2 s"),
    "hangs after the token": (f"echo {TOKEN}; sleep 60", "the command took longer than 2 s"),
    "closes its output and hangs": ("exec >&-; sleep 60", "the command took longer than 2 s"),
}


@pytest.mark.parametrize("way", BROKEN)
@ensureDeferred
async def test_mail_waits_and_the_reason_is_logged(
    stage: Stage,
    hop: LoopbackServer,
    lines: list[str],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secret_reader, "COMMAND_TIMEOUT", 2.0)
    command, reason = BROKEN[way]
    daemon = await stage.started(keys(stage, command))
    await deferToThread(send, port_of(daemon))
    await stage.until(lambda: any(reason in line for line in lines))
    assert [line for line in lines if "status=bounced" in line] == []
    assert not any(TOKEN in line or "\x1b" in line for line in lines)
    assert hop.messages == []
    stage.folder.write("command", f"echo {TOKEN}")
    await daemon.relay.flush()
    (message,) = await hop.wait_for(1)
    assert message.user == "jane"


@pytest.mark.parametrize("other", ["wrong", "wrong-$$"], ids=["the same token", "another token"])
@ensureDeferred
async def test_a_token_that_is_refused_twice_is_an_alarm(
    stage: Stage, hop: LoopbackServer, lines: list[str], other: str
) -> None:
    daemon = await stage.started(keys(stage, f"echo {other}"))
    await deferToThread(send, port_of(daemon))
    await stage.until(lambda: any("refuses the credentials" in line for line in lines))
    assert [route.locked for route in daemon.relay.stats().routes] == [True]
    assert not any("wrong" in line for line in lines)
    assert hop.messages == []
    stage.folder.write("command", f"echo {TOKEN}")
    await daemon.relay.flush()
    await hop.wait_for(1)


@pytest.mark.parametrize("kind", ["password", "token"])
@ensureDeferred
async def test_a_stop_ends_a_command_that_hangs(
    stage: Stage, hop: LoopbackServer, kind: str
) -> None:
    pid = stage.folder.path / "pid"
    text = keys(stage, f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 60")
    if kind == "password":
        text = text.replace("bearer = true", "")
    daemon = await stage.started(text)
    await deferToThread(send, port_of(daemon))
    await stage.until(pid.exists)
    await daemon.stopService()
    process = Path("/proc", pid.read_text().strip())
    await stage.until(lambda: not process.exists(), patience=20)
    assert hop.messages == []


def test_a_stop_of_the_reactor_does_not_wait_for_a_command() -> None:
    program = """
from twisted.internet import reactor
from twisted_sendmail.oauth import CommandTokens
def run():
    CommandTokens(reactor, ["sleep", "60"]).get().addErrback(lambda why: print(why.value.detail))
    reactor.callLater(0.2, reactor.stop)
reactor.callWhenRunning(run)
reactor.run()
"""
    words = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(words, capture_output=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("ends_with", ["the token", "the stop"])
def test_a_stop_of_the_reactor_lets_a_new_refresh_token_be_stored(
    tmp_path: Path, ends_with: str
) -> None:
    """For five seconds at most."""
    program = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted_sendmail.oauth import ClientCredentials, RefreshTokenCommands, RefreshTokens
class Endpoint:
    reactor = reactor
    async def request(self, form):
        reactor.callLater(0.5, reactor.stop)
        return {"access_token": "a", "refresh_token": "new"}
store = RefreshTokenCommands(reactor, ["echo", "old"], ["/bin/sh", "-c", sys.argv[1]])
reactor.callWhenRunning(RefreshTokens(Endpoint(), store).get)
reactor.run()
"""
    seconds = 2 if ends_with == "the token" else 60
    words = [sys.executable, "-c", program, f"sleep {seconds}; cat >{tmp_path}/stored"]
    done = subprocess.run(words, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0
    assert (tmp_path / "stored").exists() == (seconds == 2)
