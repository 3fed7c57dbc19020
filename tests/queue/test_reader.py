"""A long look at the queue does not delay the mail that arrives."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from tests.deferreds import Result
from tests.names import QueueError, QueueTotals, Selection, SQLiteQueue, SQLiteStore
from tests.queue.messages import take_in

if TYPE_CHECKING:
    from pathlib import Path


@ensureDeferred
async def test_mail_is_queued_while_a_long_read_goes_on(
    tmp_path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()
    totals = SQLiteStore.totals

    def slow(store: SQLiteStore) -> QueueTotals:
        assert end.wait(30)
        return totals(store)

    monkeypatch.setattr(SQLiteStore, "totals", slow)
    queue = SQLiteQueue(reactor, tmp_path / "queue")
    await queue.open()
    reading = Result(queue.totals())
    message = await take_in(queue, b"x")
    assert reading.fired == 0
    end.set()
    assert (await queue.totals()).queues == {"incoming": 1}
    assert reading.get().queues == {"incoming": 1}
    assert [each.id for each in await queue.list(Selection())] == [message.id]
    await queue.close()


@ensureDeferred
async def test_a_read_that_failed_does_not_make_the_next_one_fail(
    tmp_path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = SQLiteQueue(reactor, tmp_path / "queue")
    await queue.open()
    await take_in(queue, b"x")

    def broken(store: SQLiteStore) -> QueueTotals:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStore, "totals", broken)
        with pytest.raises(QueueError, match=r"the queue could not be read: .*Input/output error"):
            await queue.totals()
    assert (await queue.totals()).queues == {"incoming": 1}
    await queue.close()
    with pytest.raises(QueueError, match="the queue is not open"):
        await queue.totals()


@ensureDeferred
async def test_the_connection_that_reads_cannot_write(
    tmp_path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = SQLiteQueue(reactor, tmp_path / "queue")
    await queue.open()
    monkeypatch.setattr(SQLiteStore, "totals", SQLiteStore.probe)
    with pytest.raises(QueueError, match="attempt to write a readonly database"):
        await queue.totals()
    await queue.close()
