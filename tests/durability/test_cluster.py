"""Relays on several machines, under load: no fault of one of them, of the database or of the network loses mail.

A message goes twice only after a crash or a pause, and then a relay has named it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from tests.durability.audit import Delivered, Ledger, Sent
from tests.durability.cluster import (
    LEASE_TIME,
    LIBRARY,
    RELAYS,
    Cluster,
    Network,
    continue_process,
    stop_process,
)
from tests.durability.next_hop import NextHop
from tests.durability.relay_process import RelayProcess
from tests.postgresql import USER, give_to_server
from tests.scenarios.peers import require
from twisted_sendmail import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.postgresql import Pair, PostgreSQL

#: `make soak` asks for more.
ROUNDS = int(os.environ.get("TWISTED_SENDMAIL_CLUSTER_ROUNDS", "1"))


@pytest.fixture
def cluster(reactor: Any, tmp_path: Path, hop: NextHop, postgresql_pair: Pair) -> Iterator[Cluster]:
    made = Cluster(reactor, tmp_path, hop, postgresql_pair.url("mail"))
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
        # The others take its mail over at once, and what it had sent is still on its way to the next hop:
        # one copy may be read after the other, and both after the end of the process.
        for _ in range(20):
            ledger.hits.append(time.time())
            await victim.pause(0.01)
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


@pytest.mark.parametrize(("chunking", "copies"), [(False, 1), (True, 2)])
@pytest_twisted.ensureDeferred
async def test_a_relay_that_stands_still_between_recipient_and_content(
    cluster: Cluster, hop: NextHop, ledger: Ledger, chunking: bool, copies: int
) -> None:
    """With DATA the end is not written when it goes on; with BDAT it was in the same segments."""
    victim = cluster.relays[0]
    stopped: list[str] = []

    def stop(address: str) -> None:
        if not stopped:
            stopped.append(address)
            stop_process(victim)

    hop.at_recipient = stop
    hop.offer(chunking=chunking)
    await cluster.start()
    await victim.give_alone(ledger.send("once", ("x@r.example",)))
    await cluster.until(lambda: bool(ledger.delivered))
    if chunking:
        ledger.hits.append(time.time())
    await cluster.until(lambda: len(ledger.delivered) == copies)
    continue_process(victim)
    await cluster.until(lambda: "taken over by another relay during the attempt" in victim.log)
    await cluster.audited(ledger)
    assert len(ledger.times("once", "x@r.example")) == copies


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
    await cluster.accepting(ledger)
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
async def test_mail_of_local_programs_waits_while_the_database_is_away(
    cluster: Cluster, postgresql_pair: Pair, ledger: Ledger
) -> None:
    """Clients get 451, and the sendmail command puts its mail into the drop directory."""
    await cluster.start()
    await cluster.off_reactor(postgresql_pair.primary.stop)
    relay = cluster.relays[0]
    local, remote = ledger.send("local", ("x@r.example",)), ledger.send("remote", ("x@r.example",))
    mailer = relay.client()
    report = await relay.offer(mailer, remote)
    await mailer.aclose()
    assert {o.reply.code for o in report.refused if o.reply is not None} == {451}
    remote.refused = True
    await cluster.off_reactor(lambda: send_locally(relay, local))
    local.acked = True
    assert ledger.delivered == []
    await cluster.off_reactor(postgresql_pair.primary.start)
    await cluster.accepting(ledger)
    # The relay looks into the directory when a message is put there, and every ten seconds.
    another = ledger.send("another", ("x@r.example",))
    await cluster.off_reactor(lambda: send_locally(relay, another))
    another.acked = True
    await cluster.audited(ledger)
    # No hit was noted: a second copy is a complaint.
    assert ledger.hits == []


def send_locally(relay: RelayProcess, sent: Sent) -> None:
    """Give it to the sendmail command."""
    program = Path(sys.executable).with_name("twisted-sendmail-sendmail")
    subprocess.run(
        [str(program), "-i", "-f", "a@sender.example", *sent.recipients],
        input=sent.content,
        env={**os.environ, "TWISTED_SENDMAIL_SPOOL": str(relay.folder)},
        check=True,
    )


@pytest_twisted.ensureDeferred
async def test_an_isolated_primary_confirms_nothing_after_the_promotion_of_its_standby(
    cluster: Cluster, postgresql_pair: Pair, ledger: Ledger
) -> None:
    """Relays that still reach the old primary neither accept mail nor deliver it."""
    pair = postgresql_pair
    await cluster.start()
    await cluster.load(ledger, "before", 3)
    await cluster.relays[0].drained(ledger)
    await cluster.off_reactor(pair.promote)
    delivered = len(ledger.delivered)
    giving = cluster.load(ledger, "isolated", 3)
    await cluster.relays[0].pause(LEASE_TIME * 1.5)
    acked = {token for token, sent in ledger.sent.items() if sent.acked}
    assert {token.partition("-")[0] for token in acked} == {"before"}
    assert len(ledger.delivered) == delivered
    await cluster.off_reactor(pair.primary.kill)
    ledger.hits.append(time.time())
    await giving
    await cluster.accepting(ledger)
    cluster.place = pair.standby.url("mail")
    await cluster.audited(ledger)


@pytest_twisted.async_yield_fixture
async def network(reactor: Any, postgresql_pair: Pair) -> AsyncIterator[Network]:
    made = Network(reactor, postgresql_pair.primary.port)
    yield made
    await made.stop()


@pytest.fixture
def cluster_with_network(cluster: Cluster, postgresql_pair: Pair, network: Network) -> Cluster:
    """One relay reaches the database through *network*."""
    cluster.reach_through(network.port, instead_of=postgresql_pair.primary.port)
    return cluster


@pytest_twisted.ensureDeferred
async def test_a_cut_network_between_a_relay_and_the_database(
    cluster_with_network: Cluster, network: Network, ledger: Ledger
) -> None:
    cluster = cluster_with_network
    await cluster.start()
    giving = cluster.load(ledger, "cut")
    await cluster.relays[0].pause(random.uniform(0.2, 0.6))
    network.cut()
    ledger.hits.append(time.time())
    await cluster.relays[0].pause(LEASE_TIME * 2)
    ledger.hits.append(time.time())
    network.heal()
    await giving
    await cluster.accepting(ledger)
    await cluster.audited(ledger)


@pytest_twisted.ensureDeferred
async def test_the_clock_of_a_relay_is_wrong_by_an_hour(
    cluster: Cluster, hop: NextHop, ledger: Ledger
) -> None:
    """Mail that it deferred is tried again in time, by any of them, and no lease ends too early."""
    require("libfaketime", None if LIBRARY else "run tests/install-peers")
    wrong = [cluster.add_with_wrong_clock(hours) for hours in (1, -1)]
    refused: set[str] = set()

    def once(address: str) -> Reply | None:
        if address in refused or not address.startswith("later"):
            return None
        refused.add(address)
        return Reply(452, ("4.2.2 Mailbox full",))

    hop.at_recipient = once
    await cluster.start()
    for relay in wrong:
        mailer = relay.client(4)
        for n in range(10):
            sent = ledger.send(
                f"w{relay.port}-{n}", ("x@r.example", f"later{relay.port}-{n}@r.example")
            )
            await relay.give(mailer, sent)
            assert sent.acked
        await mailer.aclose()
    await cluster.load(ledger, "others", 10)
    await cluster.audited(ledger)
    assert max(len(ledger.times(s.token, "x@r.example")) for s in ledger.sent.values()) == 1


class SmallDisk:
    """A tablespace `small` of *server* on a file system with little space.

    The write-ahead log is not there: without space for that the server ends.
    """

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._folder = Path(tempfile.mkdtemp())
        self._tables = self._folder / "tables"

    def make(self) -> None:
        """Mount it, with a database `small`."""
        command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs", str(self._folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        require("file system of its own", done.stderr if done.returncode else None)
        self._tables.mkdir()
        give_to_server(self._tables)
        self._server.sql(f"CREATE TABLESPACE small LOCATION '{self._tables}'")
        self._server.sql(f"CREATE DATABASE small OWNER {USER} TABLESPACE small")

    @property
    def url(self) -> str:
        """The place of a queue on it."""
        return self._server.url("small")

    def grow(self) -> None:
        """Give it space."""
        command = ["mount", "-o", "remount,size=100m", str(self._folder)]
        subprocess.run(command, check=True)

    def remove(self) -> None:
        """Unmount it."""
        self._server.drop_database("small")
        self._server.sql("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", "-l", str(self._folder)], capture_output=True, check=False)
        self._folder.rmdir()


@pytest.fixture
def small_disk(postgresql: PostgreSQL) -> Iterator[SmallDisk]:
    made = SmallDisk(postgresql)
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture
def cluster_on_small_disk(
    reactor: Any, tmp_path: Path, hop: NextHop, small_disk: SmallDisk
) -> Iterator[Cluster]:
    made = Cluster(reactor, tmp_path, hop, small_disk.url)
    yield made
    made.kill()


@pytest_twisted.ensureDeferred
async def test_the_disk_of_the_database_is_full(
    cluster_on_small_disk: Cluster, hop: NextHop, small_disk: SmallDisk, ledger: Ledger
) -> None:
    cluster = cluster_on_small_disk
    # The next hop is down, so that mail stays.
    await hop.stop()
    await cluster.start()
    relay = cluster.relays[0]
    mailer = relay.client(4)
    codes: set[int] = set()
    for n in range(60):
        sent = ledger.send(f"d{n}", ("x@r.example",), size=600_000)
        report = await relay.offer(mailer, sent)
        sent.acked = bool(report.accepted)
        codes |= {o.reply.code for o in report.refused if o.reply is not None}
        if codes:
            break
    assert codes == {452}
    small_disk.grow()
    await mailer.aclose()
    await hop.start()
    await cluster.load(ledger, "again", 5)
    assert all(sent.acked for token, sent in ledger.sent.items() if token.startswith("again"))
    await cluster.audited(ledger)
