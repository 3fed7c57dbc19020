"""Committed data survive the end of the process at every point.

The whole relay is put to the same in ``tests/durability``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock, deferLater

from tests.names import QueueBusy, Selection, SQLiteQueue
from tests.queue.traffic import Audit, Record, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
ROUNDS = int(os.environ.get("SPOOL_KILLS", "6"))


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """Memory, where there is a file system in it: a kill tests the order, not the disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.mark.parametrize("when", ["exit-before", "exit-after"])
def test_a_process_may_end_at_any_call_of_the_store(when: str, fast: Path) -> None:
    """I1 no loss, I2 no phantom, I3 no more copies than tries that nobody saw the end of, I4."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.queue.crashes", when, str(fast)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    *faults, last = done.stdout.splitlines() or [""]
    assert (faults, done.stderr) == ([], "")
    runs, _, status = last.partition(" runs, the last one ended with ")
    assert status == "0"
    assert 100 < int(runs)


async def pause(seconds: float) -> None:
    from twisted.internet import reactor

    await deferLater(reactor, seconds)


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.queue.writer", str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@ensureDeferred
async def test_a_killed_process_loses_nothing_and_sends_no_more_than_it_must(
    tmp_path: Path,
) -> None:
    """Killed at random, over and over, on one queue: I1 to I4, and I5 at the end."""
    chance = random.Random(5)
    interrupted: Counter[str] = Counter()
    clock = Clock()
    clock.advance(time.time() + 1000)
    for _ in range(ROUNDS):
        process = start(tmp_path)
        try:
            assert said(process) == "open"
            await pause(chance.uniform(0.02, 0.6))
        finally:
            end(process)
        # At once: a lock that outlives its process would be seen here.
        spool = SQLiteQueue(clock, tmp_path / "queue")
        recovered = await spool.open()
        interrupted.update(recovered.interrupted)
        await spool.close()
    spool = SQLiteQueue(clock, tmp_path / "queue")
    await spool.open()
    await Traffic(spool, Record(tmp_path / "record")).drain()
    left = [message.id for message in await spool.list(Selection())]
    await spool.close()
    audit = Audit.of(tmp_path / "record")
    assert (audit.faults(interrupted), left) == ([], [])
    assert ROUNDS < len(audit.acked)


@ensureDeferred
async def test_a_second_process_is_told_who_has_the_queue(tmp_path: Path) -> None:
    first = start(tmp_path)
    try:
        assert said(first) == "open"
        second = start(tmp_path)
        text = said(second)
        end(second)
        queue = tmp_path / "queue"
        assert (
            f"the queue {queue} is in use: process {first.pid} has it; "
            "stop the relay that is running, or give another directory"
        ) == text
        with pytest.raises(QueueBusy):
            await SQLiteQueue(Clock(), queue).open()
    finally:
        end(first)


def test_a_process_that_is_started_right_after_a_kill_finds_no_lock(tmp_path: Path) -> None:
    for _ in range(3):
        process = start(tmp_path)
        try:
            assert said(process) == "open"
            process.kill()
            time.sleep(0.1)
        finally:
            end(process)
    assert (tmp_path / "queue" / "relay.lock").exists()
