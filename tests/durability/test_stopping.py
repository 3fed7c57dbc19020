"""SIGTERM and SIGHUP under load: nothing is lost, and nothing is sent twice."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList

from tests.durability.audit import Ledger
from tests.durability.relay_process import RelayProcess


async def under_load(relay: RelayProcess, ledger: Ledger, tag: str, count: int = 200) -> Any:
    """Begin to give *relay* messages; what to wait for, and the client to close."""
    mailer = relay.client(10)
    giving = [
        Deferred.fromCoroutine(
            relay.give(mailer, ledger.send(f"{tag}{number}", ("x@r.example",), size=5_000))
        )
        for number in range(count)
    ]
    await relay.until(lambda: ledger.delivered)
    return DeferredList(giving), mailer


@pytest_twisted.ensureDeferred
async def test_sigterm_under_load_loses_nothing_and_repeats_nothing(
    relay: RelayProcess, ledger: Ledger
) -> None:
    for turn in range(3):
        await relay.start()
        giving, mailer = await under_load(relay, ledger, f"t{turn}-")
        since = time.monotonic()
        await relay.stopped()
        assert time.monotonic() - since < 40
        await mailer.aclose(grace=0.001)
        await giving
    await relay.start()
    await relay.drained(ledger)
    # No hit was noted: a single second copy is a complaint.
    assert ledger.complaints() == []


@pytest_twisted.ensureDeferred
async def test_reloads_under_load_lose_nothing_and_repeat_nothing(
    relay: RelayProcess, ledger: Ledger
) -> None:
    configuration = relay.folder / "relay.toml"
    original = configuration.read_text("utf-8")
    await relay.start()
    giving, mailer = await under_load(relay, ledger, "r", count=300)
    assert relay.process is not None
    for connections in (2, 5, 1):
        # Each time other connections are needed, so the mailer is another.
        changed = original + f"\n[delivery]\nconnections = {connections}\n"
        configuration.write_text(changed, "utf-8")
        relay.process.send_signal(signal.SIGHUP)
        await relay.pause(0.3)
    await giving
    await mailer.aclose()
    assert all(sent.acked for sent in ledger.sent.values())
    await relay.drained(ledger)
    await relay.stopped()
    assert ledger.complaints() == []
    assert relay.log.count("read again, and in effect") == 3
