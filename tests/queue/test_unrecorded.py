"""A record that the queue refuses for good does not leave its message leased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from tests.names import AttemptRecord, QueueError, RecipientState, Selection, SQLiteQueue
from tests.queue.messages import take_in
from tests.rows import recipient_row

if TYPE_CHECKING:
    from pathlib import Path


@ensureDeferred
async def test_a_message_whose_result_cannot_be_recorded_is_put_on_hold(
    tmp_path: Path, reactor: Any
) -> None:
    queue = SQLiteQueue(reactor, tmp_path / "queue")
    await queue.open()
    message = await take_in(queue, b"x")
    await queue.lease("out", 100.0, fresh=1, retries=1, horizon=1e9)
    # A text that SQLite cannot store.
    row = recipient_row(0, RecipientState.PENDING, 900.0, "450 \ud800", "4.0.0", "relay")
    with pytest.raises(QueueError):
        await queue.settle(AttemptRecord(message.id, 50.0, (row,)))
    (found,) = await queue.list(Selection())
    assert (found.queue_name, found.leased, found.interrupted) == ("hold", False, 1)
    await queue.close()
