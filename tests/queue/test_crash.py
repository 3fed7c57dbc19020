"""Committed data survive the end of the process at every point.

The whole relay is put to the same in ``tests/durability``.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock, deferLater

from tests.forked import ForkedProcess
from tests.names import QueueAction, QueueBusy, Selection, SQLiteQueue
from tests.queue.failing_store import Choke, choked
from tests.queue.traffic import Audit, Record, Traffic
from tests.queue.writer import write
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@ensureDeferred
async def test_a_process_may_end_at_any_call_of_the_store(fast: Path) -> None:
    """I1 no loss, I2 no phantom, I3 no more copies than tries that nobody saw the end of, I4.

    Before each call the files are copied: a process that ends there leaves them so. One that ends after a call
    leaves the same queue as one before the next call, and at most fewer lines in its record.
    """
    life = fast / "life"
    life.mkdir()

    def end_here(number: int, _sql: str) -> None:
        shutil.copytree(life, fast / str(number))

    with choked(Choke(before=end_here)) as choke:
        await live(life)
    assert 100 < choke.calls
    for directory in (*(fast / str(number + 1) for number in range(choke.calls)), life):
        assert (directory.name, await faults_after(directory)) == (directory.name, [])


async def live(directory: Path) -> None:
    """Do all that is done with a queue."""
    spool = SQLiteQueue(Clock(), directory / "queue")
    record = Record(directory / "record")
    await spool.open()
    traffic = Traffic(spool, record)
    for _ in range(3):
        await traffic.bring()
    aborted = spool.intake()
    aborted.write(bytes(700_000))
    aborted.abort()
    await spool.act(QueueAction.FLUSH, Selection(), 0.0)
    taken = await spool.lease("out", 10_000.0, fresh=2, retries=2, horizon=1e6)
    await spool.release(taken)
    await traffic.drain()
    await spool.close()
    record.close()


async def faults_after(directory: Path) -> list[str]:
    """What the next process finds; the faults."""
    clock = Clock()
    # Later than its first life: the ids go on.
    clock.advance(1000.0)
    spool = SQLiteQueue(clock, directory / "queue")
    record = Record(directory / "record")
    recovered = await spool.open()
    await Traffic(spool, record).drain()
    record.close()
    left = [message.id for message in await spool.list(Selection())]
    await spool.close()
    faults = Audit.of(directory / "record").faults(Counter(recovered.interrupted))
    return faults + [f"{id_} is still there" for id_ in left]


async def pause(seconds: float) -> None:
    from twisted.internet import reactor

    await deferLater(reactor, seconds)


class Writer:
    """A process that writes to the queue in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._output = directory / "output"
        self._output.write_bytes(b"")
        self.process = ForkedProcess(
            partial(write, directory),
            folder=directory,
            env=os.environ,
            streams=[os.devnull, str(self._output), str(self._output)],
        )

    def line(self) -> str:
        """Wait for the line that it prints."""
        wait_until(lambda: self._output.read_text().endswith("\n"))
        return self._output.read_text().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


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
        writer = Writer(tmp_path)
        try:
            assert writer.line() == "open"
            await pause(chance.uniform(0.02, 0.6))
        finally:
            writer.end()
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
    first = Writer(tmp_path)
    try:
        assert first.line() == "open"
        second = Writer(tmp_path)
        text = second.line()
        second.end()
        queue = tmp_path / "queue"
        assert (
            f"the queue {queue} is in use: process {first.process.pid} has it; "
            "stop the relay that is running, or give another directory"
        ) == text
        with pytest.raises(QueueBusy):
            await SQLiteQueue(Clock(), queue).open()
    finally:
        first.end()


def test_a_process_that_is_started_right_after_a_kill_finds_no_lock(tmp_path: Path) -> None:
    for _ in range(3):
        writer = Writer(tmp_path)
        try:
            assert writer.line() == "open"
        finally:
            writer.end()
    assert (tmp_path / "queue" / "relay.lock").exists()
