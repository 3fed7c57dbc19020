"""The process of a relay ends between any two calls of the storage."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from tests.durability.audit import Ledger
from tests.durability.forked_relay import ForkedRelay
from tests.durability.next_hop import NextHop
from tests.queue.failing_store import EXITED
from tests.waiting import PATIENCE
from twisted_sendmail import Reply

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN = Reply(550, ("5.1.1 No such user",))
#: Calls whose cases run at once.
TOGETHER = 8
#: `make soak` asks for both ends of each call.
EACH_END = bool(os.environ.get("TWISTED_SENDMAIL_EACH_END"))
FULL = Reply(452, ("4.2.2 Mailbox full",))


async def one_case(reactor: Any, folder: Path, at: int, before: bool) -> bool:
    """A run that ends at the *at*-th call, and one that clears up; True if the first did not end."""
    ledger = Ledger()
    hop = NextHop(reactor, ledger)
    full = {"full@r.example"}

    def decide(address: str) -> Reply | None:
        if address in full:
            full.clear()
            return FULL
        return UNKNOWN if address.startswith("unknown") else None

    hop.at_recipient = decide
    await hop.start()
    folder.mkdir()
    relay = ForkedRelay(reactor, folder, hop)
    relay.at, relay.before = at, before
    try:
        untouched = await first_run(relay, ledger)
        relay.kill()
        relay.at = 0
        took = await relay.start()
        assert took < 30
        await relay.drained(ledger)
        await relay.terminate()
        assert ledger.complaints() == [], relay.log[-3000:]
        if untouched:
            assert len(ledger.bounces("three")) == 1
        return untouched
    finally:
        relay.kill()
        await hop.stop()


async def first_run(relay: ForkedRelay, ledger: Ledger) -> bool:
    """The run that may end; True if it did not, and all that was to be done was done."""
    process = relay.launch()
    await relay.until(lambda: relay.listens() or process.poll() is not None)
    mailer = relay.client(3)
    given = [
        ledger.send("plain", ("x@r.example",)),
        ledger.send("three", ("x@r.example", "unknown@r.example", "full@r.example")),
        ledger.send("large", ("x@r.example",), size=400_000),
    ]
    giving = [Deferred.fromCoroutine(relay.give(mailer, each)) for each in given]
    since = time.monotonic()
    while process.poll() is None:
        if all(each.acked for each in given) and not ledger.missing():
            # What is still to be recorded.
            await relay.pause(0.5)
            break
        assert time.monotonic() - since < PATIENCE, relay.log[-3000:]
        await relay.pause(0.02)
    untouched = process.poll() is None
    if not untouched:
        assert process.poll() == EXITED, relay.log[-3000:]
    await mailer.aclose(grace=0.001)
    await DeferredList(giving)
    if not untouched:
        # Behind what was on its way to the next hop, which reads it only now.
        await relay.pause(0.2)
        ledger.hits.append(time.time())
    return untouched


@pytest_twisted.ensureDeferred
async def test_an_end_at_any_call_of_the_storage(reactor: Any, tmp_path: Path) -> None:
    """The storage is the same after a call as before the next one.

    So the ends before and after every odd call leave it in each of its states.
    """
    at, untouched = 1, False
    while not untouched:
        # Each waits more than it works.
        ends = [(n, before) for n in range(at, at + TOGETHER) for before in (True, False)]
        cases = [
            Deferred.fromCoroutine(one_case(reactor, tmp_path / f"{n}-{before}", n, before))
            for n, before in ends
            if EACH_END or n % 2
        ]
        results = await gatherResults(cases, consumeErrors=True)
        untouched = all(results)
        at += TOGETHER
    assert at > 50
