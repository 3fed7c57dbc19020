"""Relays on several machines, under load: no fault of one of them, of the database or of the network loses mail.

A message goes twice only after a crash or a pause, and then a relay has named it.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from tests.durability.audit import Delivered, Ledger
from tests.durability.cluster import (
    LEASE_TIME,
    Cluster,
    Network,
    continue_process,
    stop_process,
)
from tests.durability.next_hop import NextHop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.durability.zygote import Zygote
    from tests.postgresql import Pair
    from twisted_sendmail import Reply

#: `make soak` asks for more.
ROUNDS = int(os.environ.get("TWISTED_SENDMAIL_CLUSTER_ROUNDS", "1"))
RELAYS = 3


@pytest.fixture
def cluster(
    reactor: Any, zygote: Zygote, tmp_path: Path, hop: NextHop, postgresql_pair: Pair
) -> Iterator[Cluster]:
    made = Cluster(reactor, zygote, tmp_path, hop, [postgresql_pair.url("mail")] * RELAYS)
    yield made
    made.kill()


@pytest_twisted.ensureDeferred
async def test_sigkill_of_a_relay(cluster: Cluster, ledger: Ledger) -> None:
    """The others deliver its mail without it."""
    await cluster.start()
    for turn in range(ROUNDS):
        victim = cluster.relays[turn % RELAYS]
        giving = cluster.load(ledger, f"k{turn}")
        await victim.pause(random.uniform(0.1, 0.8))
        victim.kill()
        # What it had sent is still on its way to the next hop.
        await victim.pause(0.2)
        ledger.hits.append(time.time())
        await giving
        if turn + 1 < ROUNDS:
            await victim.start()
    await cluster.audited(ledger)


@pytest_twisted.ensureDeferred
async def test_a_relay_that_stands_still_longer_than_its_leases(
    cluster: Cluster, hop: NextHop, ledger: Ledger
) -> None:
    """At most one second copy for each pause."""

    async def slow(delivered: Delivered) -> Reply | None:
        await cluster.relays[0].pause(0.02)
        return None

    hop.before_noting = slow
    await cluster.start()
    for turn in range(ROUNDS):
        victim = cluster.relays[turn % RELAYS]
        giving = cluster.load(ledger, f"s{turn}")
        await victim.pause(random.uniform(0.2, 0.6))
        stop_process(victim)
        await victim.pause(0.2)
        ledger.hits.append(time.time())
        await victim.pause(LEASE_TIME * 2)
        ledger.hits.append(time.time())
        continue_process(victim)
        await giving
        await victim.drained(ledger)
    await cluster.audited(ledger)
    copies = [len(ledger.times(s.token, r)) for s in ledger.sent.values() for r in s.recipients]
    assert max(copies) <= 2


@pytest_twisted.ensureDeferred
async def test_sigkill_of_the_primary_and_promotion_of_the_standby(
    cluster: Cluster, postgresql_pair: Pair, ledger: Ledger
) -> None:
    pair = postgresql_pair
    await cluster.start()
    giving = cluster.load(ledger, "before")
    await cluster.until(lambda: len(ledger.delivered) > 10)
    await cluster.off_reactor(pair.primary.kill)
    ledger.hits.append(time.time())
    await cluster.off_reactor(pair.promote)
    await giving
    ledger.hits.append(time.time())
    # The same processes go on with the other server.
    await cluster.load(ledger, "after", 10)
    assert any(sent.acked for token, sent in ledger.sent.items() if token.startswith("after"))
    cluster.place = pair.standby.url("mail")
    await cluster.audited(ledger)


@pytest_twisted.ensureDeferred
async def test_a_primary_without_its_standby_acks_nothing(
    cluster: Cluster, postgresql_pair: Pair, ledger: Ledger
) -> None:
    """The old primary is alone: what it confirmed would be lost by the promotion of the other."""
    pair = postgresql_pair
    await cluster.start()
    await cluster.off_reactor(pair.standby.kill)
    giving = cluster.load(ledger, "alone", 5)
    await cluster.relays[0].pause(1)
    assert not any(sent.acked for sent in ledger.sent.values())
    await cluster.off_reactor(pair.standby.start)
    await giving
    ledger.hits.append(time.time())
    await cluster.audited(ledger)


@pytest_twisted.ensureDeferred
async def test_a_cut_network_between_a_relay_and_the_database(
    reactor: Any,
    zygote: Zygote,
    tmp_path: Path,
    hop: NextHop,
    postgresql_pair: Pair,
    ledger: Ledger,
) -> None:
    primary = postgresql_pair.primary
    network = Network(reactor, primary.port)
    through = primary.url("mail", port=network.port)
    cluster = Cluster(
        reactor, zygote, tmp_path, hop, [through, primary.url("mail"), primary.url("mail")]
    )
    try:
        await cluster.start()
        giving = cluster.load(ledger, "cut")
        await cluster.relays[0].pause(random.uniform(0.2, 0.6))
        network.cut()
        ledger.hits.append(time.time())
        await cluster.relays[0].pause(LEASE_TIME * 2)
        ledger.hits.append(time.time())
        network.heal()
        await giving
        await cluster.load(ledger, "healed", 5)
        assert any(
            sent.acked for token, sent in ledger.sent.items() if token.startswith("healed-0")
        )
        await cluster.audited(ledger)
    finally:
        cluster.kill()
        await network.stop()
