"""A result that cannot be written: the disk is full, or the reader has closed its pipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.cli.queues import Queue
from tests.cli.shell import COMMAND, Shell
from tests.cli.test_sendmail import SendmailCommand
from tests.forked import run_forked
from twisted_sendmail.testing import LoopbackServer

FULL = Path("/dev/full")
LOST = "twisted-sendmail: the result could not be written: No space left on device\n"

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


def lost(words: list[str], env: dict[str, str], folder: Path) -> tuple[int, str]:
    """Status and stderr of a command whose stdout is full."""
    done = run_forked(*words, folder=folder, env=env, stdout=str(FULL))
    return done.returncode, done.stderr


@pytest.mark.parametrize("messages", [0, 3])
@pytest.mark.parametrize(
    "words", ["list", "list --json", "show --sender a", "show --json --sender a", "flush --all"]
)
def test_a_lost_result_of_the_queue_command_is_one_line_and_74(
    shell: Shell, tmp_path: Path, words: str, messages: int
) -> None:
    queue = Queue(tmp_path / "queue")
    for _ in range(messages):
        queue.take()
    action, *more = words.split()
    silent = not messages and words not in {"list", "flush --all"}
    expected = (0, "") if silent else (74, LOST)
    command = [COMMAND, "queue", action, "--queue", str(queue.directory), *more]
    assert lost(command, shell.env, tmp_path) == expected


def test_a_lost_content_is_one_line_and_74(shell: Shell, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    name = queue.take()
    command = [COMMAND, "queue", "show", "--queue", str(queue.directory), "--content", name]
    assert lost(command, shell.env, tmp_path) == (74, LOST)


@pytest.mark.parametrize("words", ["--version", "--help", "queue list --help"])
def test_a_lost_help_or_version_is_one_line_and_74(
    shell: Shell, tmp_path: Path, words: str
) -> None:
    assert lost([COMMAND, *words.split()], shell.env, tmp_path) == (74, LOST)


def test_an_earlier_error_keeps_its_status(shell: Shell, tmp_path: Path) -> None:
    words = [COMMAND, "check", "--json", "smtp://127.0.0.1:1"]
    status, err = lost(words, shell.env, tmp_path)
    assert (status, err.startswith(LOST)) == (75, True)


@ensureDeferred
async def test_a_lost_result_of_a_delivery_is_one_line_and_74(
    reactor: Any, shell: Shell, tmp_path: Path
) -> None:
    async with LoopbackServer(reactor) as server:
        words = [COMMAND, "send", "--server", server.tls_url, "--ca-file", server.ca_file]
        status, err = await deferToThread(lost, [*words, shell.message], shell.env, tmp_path)
        assert len(server.messages) == 1
    assert (status, err) == (74, LOST)


def test_a_lost_result_of_mailq_is_one_line_and_74(tmp_path: Path, sendmail_command: str) -> None:
    sendmail = SendmailCommand(tmp_path, sendmail_command)
    line = LOST.replace("twisted-sendmail:", "mailq:")
    assert lost([sendmail.called("mailq")], sendmail.env, tmp_path) == (74, line)


def test_a_reader_that_closes_its_pipe_causes_no_error(shell: Shell, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    for _ in range(500):
        queue.take()
    for words in ("list", "list --json", "show --sender a"):
        action, *more = words.split()
        line = " ".join([COMMAND, "queue", action, "--queue", str(queue.directory), *more])
        done = shell.line(f"set -o pipefail; {line} | head -c 1")
        assert (len(done.stdout), done.stderr) == (1, b"")
        assert done.returncode in {0, 141}


def test_a_lost_result_of_twistd_check_is_one_line_and_74(shell: Shell, tmp_path: Path) -> None:
    configuration = tmp_path / "relay.toml"
    configuration.write_text('queue = "queue"\n[[smarthost]]\nurl = "smtps://localhost"\n', "utf-8")
    twistd = str(Path(COMMAND).parent / "twistd")
    words = [twistd, "sendmail", "--config", str(configuration), "--check"]
    line = LOST.replace("twisted-sendmail:", "twistd sendmail:")
    assert lost(words, {**shell.env, "PYTHONWARNINGS": ""}, tmp_path) == (74, line)


def test_a_lost_password_entry_is_one_line_and_74(shell: Shell, tmp_path: Path) -> None:
    env = {**shell.env, "TWISTED_SENDMAIL_PASSWORD": "secret"}
    assert lost([COMMAND, "password", "jane"], env, tmp_path) == (74, LOST)


@ensureDeferred
async def test_a_lost_result_of_a_check_is_one_line_and_74(
    reactor: Any, shell: Shell, tmp_path: Path
) -> None:
    async with LoopbackServer(reactor) as server:
        words = [COMMAND, "check", server.tls_url, "--ca-file", server.ca_file]
        assert await deferToThread(lost, words, shell.env, tmp_path) == (74, LOST)
