"""A configuration that cannot be used is refused in one line with its exit status, before a port is open."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.forked import run_forked
from tests.ports import free_port, listens
from tests.scenarios.relay_process import PASSWORD, Relay

if TYPE_CHECKING:
    from collections.abc import Callable


def run(relay: Relay, *flags: str, nodaemon: bool = True) -> subprocess.CompletedProcess[str]:
    """Run it to its end, which has to come by itself."""
    before = ["-n"] if nodaemon else []
    return refused(
        run_forked(
            "twistd", *before, "--pidfile=", "sendmail", *flags, folder=relay.folder, env=relay.env
        )
    )


def ended(relay: Relay, *command: str) -> subprocess.CompletedProcess[str]:
    """The same, of any program."""
    return refused(
        subprocess.run(
            command,
            cwd=relay.folder,
            env=relay.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    )


def refused(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Return *done*, whose output holds no traceback and no password."""
    assert "Traceback" not in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done


def simple(relay: Relay, port: int) -> list[str]:
    """Flags that would do."""
    return [
        *("--listen", f"tcp:127.0.0.1:{port}", "--queue", str(relay.queue)),
        *("--smarthost", "smtp+starttls://jane@localhost:1", "--password-file", "password"),
    ]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "there is no configuration; give --config FILE, or --smarthost URL"),
        (
            ["--config", "x.toml", "--queue", "q"],
            "--config: other options are given too; give all ",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_64(relay: Relay, flags: list[str], line: str) -> None:
    done = run(relay, *flags)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith(f"twistd sendmail: {line}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--queue", "q"], "the command line: --smarthost: missing; give it a url such as "),
        (["--smarthost", "smtp://h"], "the command line: --queue: missing; this key is re"),
        (
            ["--queue", "q", "--smarthost", "smtps://jane@h"],
            "the command line: --password-file: there is no password for jane; give password-file",
        ),
        (
            ["--queue", "q", "--smarthost", f"smtps://jane:{PASSWORD}@h"],
            "the command line: --smarthost: there is a password in it; take it out, and use passw",
        ),
        (
            ["--queue", "q", "--smarthost", "smtp://h", "--listen", "nil:1"],
            "the command line: --listen: 'nil:1' cannot be used: there are no endpoints of the ki",
        ),
        (
            ["--queue", "q", "--smarthost", "smtp://h", "--listen", "tcp:1", "--accounts", "nil"],
            "the command line: --accounts: ",
        ),
        (
            ["--config", "nil.toml"],
            "nil.toml: the file cannot be read: No such file or directory; che",
        ),
    ],
)
@pytest.mark.parametrize("nodaemon", [True, False])
def test_a_configuration_that_cannot_be_used_is_78(
    relay: Relay, flags: list[str], line: str, nodaemon: bool
) -> None:
    """Also where ``twistd`` would have gone into the background."""
    done = run(relay, *flags, nodaemon=nodaemon)
    assert (done.returncode, done.stdout) == (78, "")
    said = done.stderr.replace(f"{relay.folder}/", "")
    assert said.startswith(f"twistd sendmail: {line}")
    assert said.count("\n") == 1
    assert not relay.queue.exists()


def _missing_parent(relay: Relay) -> None:
    relay.queue = relay.folder / "password" / "queue"


def _file(relay: Relay) -> None:
    relay.write("queue", "x")


def _foreign(relay: Relay) -> None:
    relay.queue.mkdir(0o700)
    os.chown(relay.queue, 12345, 12345)


def _somebodys_folder(relay: Relay) -> None:
    relay.queue.mkdir(0o755)
    (relay.queue / "letter.txt").touch()


def _no_database(relay: Relay) -> None:
    relay.queue.mkdir(0o700)
    (relay.queue / "queue.sqlite3").write_bytes(b"this is no database" * 1000)


def _other_database(relay: Relay) -> None:
    relay.queue.mkdir(0o700)
    connection = sqlite3.connect(relay.queue / "queue.sqlite3")
    connection.execute("CREATE TABLE other (x)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "spoil",
    [_missing_parent, _file, _foreign, _somebodys_folder, _no_database, _other_database],
)
def test_a_queue_that_cannot_be_opened_is_78_and_no_port_was_open(
    relay: Relay, spoil: Callable[[Relay], None]
) -> None:
    if spoil is _foreign and os.geteuid() != 0:
        pytest.skip("only the superuser can give a folder away")
    spoil(relay)
    port = free_port()
    done = run(relay, *simple(relay, port))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("twistd sendmail: the queue ")
    assert done.stderr.count("\n") == 1
    assert not listens(port)


def test_a_second_relay_on_one_queue_is_refused_and_the_first_goes_on(relay: Relay) -> None:
    first, second = free_port(), free_port()
    relay.start(*simple(relay, first))
    relay.up()
    done = run(relay, *simple(relay, second))
    assert (done.returncode, done.stdout) == (78, "")
    assert f"the queue {relay.queue} is in use: process {relay.process.pid} has it" in done.stderr  # type: ignore[union-attr]
    assert (listens(first), listens(second)) == (True, False)
    relay.kill()
    # There is no stale lock, and no stale socket.
    relay.start(*simple(relay, second))
    relay.up(2)
    assert relay.end() == -signal.SIGTERM


def test_a_queue_that_becomes_unusable_after_the_check_ends_it_too(relay: Relay) -> None:
    """The check does not keep the lock: here another process takes it after the check."""
    code = (
        "import sys; from twisted_sendmail.daemon import tap; from twisted_sendmail.queue import RelayLock;"
        "from pathlib import Path; from twisted.scripts import twistd;"
        "check = tap.prepare_queue_place\n"
        "def checked(directory):\n"
        "    check(directory)\n"
        "    global lock; lock = RelayLock(directory); lock.acquire()\n"
        "tap.prepare_queue_place = checked\n"
        "sys.exit(twistd.run())\n"
    )
    port = free_port()
    script = relay.write("script.py", code)
    flags = ("-n", "--pidfile=", "sendmail", *simple(relay, port))
    done = ended(relay, sys.executable, script, *flags)
    assert done.returncode == 78, done.stdout + done.stderr
    assert "is in use" in done.stdout
    assert "Listener starting" not in done.stdout
    assert not listens(port)


def test_an_endpoint_that_is_taken_is_69_and_nothing_is_left_open(relay: Relay) -> None:
    free = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(relay, "--listen", f"tcp:127.0.0.1:{free}", *simple(relay, port))
    assert done.returncode == 69, done.stdout
    line = f"tcp:{port}:interface=127.0.0.1 cannot be listened on: Address already in use; stop the"
    assert line in done.stdout
    assert not listens(free)


def test_check_says_that_all_is_well_and_starts_nothing(relay: Relay) -> None:
    port = free_port()
    done = run(relay, *simple(relay, port), "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the command line: good\n", "")
    assert (listens(port), relay.queue.exists()) == (False, False)


def test_check_may_be_asked_while_a_relay_runs(relay: Relay) -> None:
    words = simple(relay, free_port())
    relay.start(*words)
    relay.up()
    assert run(relay, *words, "--check").returncode == 0
    assert relay.end() == -signal.SIGTERM
