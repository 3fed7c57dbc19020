"""The next hop is lost between the final dot and its reply, or accepts some recipients and refuses others."""

from __future__ import annotations

import time

import pytest_twisted
from twisted.internet.defer import Deferred

from tests.durability.audit import Delivered, Ledger
from tests.durability.next_hop import NextHop
from tests.durability.relay_process import RelayProcess
from twisted_sendmail import Reply


@pytest_twisted.ensureDeferred
async def test_a_message_in_doubt_goes_exactly_twice_and_is_named(
    hop: NextHop, relay: RelayProcess, ledger: Ledger
) -> None:
    async def fall_silent(delivered: Delivered) -> Reply | None:
        if not ledger.hits:
            ledger.hits.append(time.time())
            for session in list(hop.server.factory.connections):
                session.transport.abortConnection()  # type: ignore[union-attr]
            await Deferred()
        return None

    hop.after_noting = fall_silent
    await relay.start()
    await relay.give_alone(ledger.send("doubt", ("x@r.example",)))
    await relay.until(lambda: len(ledger.times("doubt", "x@r.example")) == 2)
    await relay.pause(1.5)
    assert ledger.complaints() == []
    assert len(ledger.times("doubt", "x@r.example")) == 2
    await relay.terminate()
    assert "possibl" in relay.log


@pytest_twisted.ensureDeferred
async def test_one_is_delivered_one_bounced_and_one_tried_again_alone(
    hop: NextHop, relay: RelayProcess, ledger: Ledger
) -> None:
    asked: list[str] = []

    def decide(address: str) -> Reply | None:
        asked.append(address)
        if address.startswith("never"):
            return Reply(550, ("5.1.1 No such user",))
        if address.startswith("later") and asked.count(address) < 3:
            return Reply(452, ("4.2.2 Mailbox full",))
        return None

    hop.at_recipient = decide
    await relay.start()
    await relay.give_alone(
        ledger.send("three", ("now@r.example", "never@r.example", "later@r.example"))
    )
    await relay.drained(ledger)
    await relay.pause(0.5)
    assert ledger.complaints() == []
    assert len(ledger.bounces("three")) == 1
    assert tuple(asked.count(f"{who}@r.example") for who in ("now", "never", "later")) == (1, 1, 3)
    await relay.stopped()
