"""Start with ten thousand messages in the queue; a relay that has worked for a while."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList

from tests.durability.audit import Ledger
from tests.durability.relay_process import RelayProcess
from tests.names import MessageInfo, QueueIds, SQLiteStore
from twisted_sendmail import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.durability.audit import Sent

QUEUED = 10_000
#: `make soak` asks for 20,000.
THROUGH = int(os.environ.get("TWISTED_SENDMAIL_THROUGH", "1500"))


def fill(queue: Path, messages: Iterable[Sent]) -> None:
    """Put *messages* into a queue that nobody has open."""
    queue.mkdir(mode=0o700)
    store = SQLiteStore(queue)
    store.open(create=True)
    ids = QueueIds(time.time)
    with store.transaction(doing="be filled"):
        for sent in messages:
            envelope = Envelope("a@sender.example", sent.recipients)
            info = MessageInfo(
                ids(), envelope, time.time(), "default", message_id=f"<{sent.token}@s>"
            )
            store.put(info, sent.content)
            sent.acked = True
    store.close()


def memory(process: Any) -> int:
    """Resident megabytes, at the most so far."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def descriptors(process: Any) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


@pytest_twisted.ensureDeferred
async def test_a_start_with_ten_thousand_queued(relay: RelayProcess, ledger: Ledger) -> None:
    """The first goes out at once, memory stays small, each goes once."""
    fill(relay.queue, [ledger.send(f"q{n}", ("x@r.example",), 4000) for n in range(QUEUED)])
    since = time.monotonic()
    await relay.start()
    await relay.until(lambda: ledger.delivered)
    first = time.monotonic() - since
    while len(ledger.delivered) < QUEUED:
        assert time.monotonic() - since < 240, len(ledger.delivered)
        await relay.pause(0.2)
    await relay.pause(0.5)
    most = memory(relay.process)
    await relay.stopped()
    assert ledger.complaints() == []
    assert len(ledger.delivered) == QUEUED
    # What is asked for is 5 s and 200 MB; it takes one second or so, half of it to start Python.
    assert first < 20
    assert most < 200


@pytest_twisted.ensureDeferred
async def test_a_relay_at_work_keeps_its_size(relay: RelayProcess, ledger: Ledger) -> None:
    """Neither descriptors nor memory grow with the mail that has gone through."""
    await relay.start()

    async def through(count: int, tag: str) -> None:
        mailer = relay.client(10)
        for begin in range(0, count, 500):
            some = [
                ledger.send(f"{tag}{n}", ("x@r.example",), 4000)
                for n in range(begin, min(count, begin + 500))
            ]
            given = [Deferred.fromCoroutine(relay.give(mailer, sent)) for sent in some]
            await DeferredList(given)
        await mailer.aclose()
        await relay.drained(ledger)
        await relay.pause(0.5)

    await through(1000, "before")
    size, files = memory(relay.process), descriptors(relay.process)
    await through(THROUGH, "after")
    assert memory(relay.process) - size < 10
    assert abs(descriptors(relay.process) - files) <= 5
    await relay.stopped()
    assert ledger.complaints() == []
