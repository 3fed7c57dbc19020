"""The disk is full while mail is accepted, and while its delivery is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_twisted

from tests.durability.audit import Delivered, Ledger
from tests.durability.forked_relay import ForkedRelay
from tests.durability.next_hop import NextHop

if TYPE_CHECKING:
    from twisted_sendmail import Reply


@pytest_twisted.ensureDeferred
async def test_nothing_is_acked_while_the_disk_is_full_and_all_is_well_when_it_is_not(
    relay: ForkedRelay, ledger: Ledger
) -> None:
    await relay.start()
    mailer = relay.client()
    before = ledger.send("before", ("x@r.example",))
    await relay.give(mailer, before)
    await relay.drained(ledger)
    relay.full.touch()
    small = ledger.send("small", ("x@r.example",))
    large = ledger.send("large", ("x@r.example",), size=500_000)
    for sent in (small, large):
        report = await relay.offer(mailer, sent)
        # Not now, and never a final no.
        assert {o.reply.code for o in report.refused if o.reply is not None} == {452}
    relay.full.unlink()
    after = ledger.send("after", ("x@r.example",))
    await relay.give(mailer, after)
    assert (before.acked, small.acked, large.acked, after.acked) == (True, False, False, True)
    await mailer.aclose()
    await relay.drained(ledger)
    await relay.stopped()
    assert ledger.complaints() == []


@pytest_twisted.ensureDeferred
async def test_a_delivery_that_cannot_be_recorded_is_not_repeated(
    hop: NextHop, relay: ForkedRelay, ledger: Ledger
) -> None:
    def fill(delivered: Delivered) -> Reply | None:
        relay.full.touch()
        return None

    hop.after_noting = fill
    await relay.start()
    await relay.give_alone(ledger.send("once", ("x@r.example",)))
    # Longer than every wait between two tries of a message.
    await relay.pause(4)
    assert "could not be recorded" in relay.log
    assert len(ledger.times("once", "x@r.example")) == 1
    relay.full.unlink()
    hop.after_noting = lambda delivered: None
    await relay.until(lambda: not relay.waiting(), interval=0.1)
    await relay.stopped()
    await relay.start()
    await relay.pause(1.5)
    await relay.stopped()
    assert ledger.complaints() == []
