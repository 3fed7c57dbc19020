"""SIGKILL at any moment: no accepted message is lost, and only messages under way are sent twice."""

from __future__ import annotations

import os
import random
import time

import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList

from tests.durability.audit import Delivered, Ledger
from tests.durability.next_hop import NextHop
from tests.durability.relay_process import RelayProcess
from twisted_sendmail import Reply

#: `make soak` asks for 500.
ROUNDS = int(os.environ.get("TWISTED_SENDMAIL_KILL_ROUNDS", "8"))
IN_FLIGHT = 20


async def killed_while_busy(relay: RelayProcess, ledger: Ledger, tag: str, after: float) -> None:
    """Give *relay* messages of many sizes, and kill it in the midst."""
    mailer = relay.client(IN_FLIGHT)
    giving = [
        Deferred.fromCoroutine(
            relay.give(
                mailer,
                ledger.send(
                    f"{tag}-{number}",
                    ("x@r.example", "y@r.example")[: 1 + number % 2],
                    size=random.choice([10, 3_000, 200_000]),
                ),
            )
        )
        for number in range(IN_FLIGHT)
    ]
    await relay.pause(after)
    relay.kill()
    await mailer.aclose(grace=0.001)
    await DeferredList(giving)
    # What the relay had sent before its end is still on its way to the next hop, which reads it
    # only now: the kill comes after all of it, and before the next start.
    await relay.pause(0.2)
    ledger.hits.append(time.time())


@pytest_twisted.ensureDeferred
async def test_sigkill_at_random(relay: RelayProcess, ledger: Ledger) -> None:
    for turn in range(ROUNDS):
        took = await relay.start()
        assert took < 30
        await killed_while_busy(relay, ledger, f"k{turn}", random.uniform(0.0, 0.5))
    await relay.start()
    await relay.drained(ledger)
    assert ledger.complaints() == []
    assert sum(sent.acked for sent in ledger.sent.values()) > 0, relay.log[-2000:]


@pytest_twisted.ensureDeferred
async def test_sigkill_between_the_next_hops_250_and_the_record_of_it(
    hop: NextHop, relay: RelayProcess, ledger: Ledger
) -> None:
    """One or two deliveries, never none; the second is named as possibly the second."""

    def kill(delivered: Delivered) -> Reply | None:
        if not ledger.hits:
            relay.kill()
            ledger.hits.append(time.time())
        return None

    hop.after_noting = kill
    await relay.start()
    mailer = relay.client()
    sent = ledger.send("once", ("x@r.example",))
    giving = Deferred.fromCoroutine(relay.give(mailer, sent))
    await relay.gone()
    await mailer.aclose(grace=0.001)
    await giving
    await relay.start()
    await relay.pause(2.5)
    await relay.drained(ledger)
    assert ledger.complaints() == []
    first, second = ledger.times("once", "x@r.example")
    # The same name and the same content, to the octet: a reader can tell them for one.
    assert first.content == second.content
    assert "possibly" in relay.log


@pytest_twisted.ensureDeferred
async def test_sigkill_when_some_recipients_are_done(
    hop: NextHop, relay: RelayProcess, ledger: Ledger
) -> None:
    """Only the others are tried again."""
    later = Reply(452, ("4.2.2 Mailbox full",))
    hop.at_recipient = lambda address: later if address.startswith("later") else None
    await relay.start()
    await relay.give_alone(ledger.send("some", ("done@r.example", "later@r.example")))
    await relay.until(lambda: ledger.delivered)
    await relay.pause(0.5)
    relay.kill()
    ledger.hits.append(time.time())
    hop.at_recipient = lambda address: None
    await relay.start()
    await relay.drained(ledger)
    assert ledger.complaints() == []
    assert len(ledger.times("some", "done@r.example")) == 1
    assert len(ledger.times("some", "later@r.example")) == 1
