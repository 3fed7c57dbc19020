"""Relays that share a queue in PostgreSQL, each a process of its own, and the faults between them."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from tests.durability.forked_relay import ForkedRelay
from tests.durability.relay_process import RelayProcess
from tests.waiting import PATIENCE
from twisted_sendmail.queue import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.durability.audit import Ledger
    from tests.durability.next_hop import NextHop
    from tests.forked import ForkedProcess
    from twisted_sendmail import Mailer

RELAYS = 3
#: libfaketime; empty: there is none.
LIBRARY = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")
_R = TypeVar("_R", bound=RelayProcess)
#: Seconds. The leases of a relay that does not renew them end after this time.
LEASE_TIME = 2
_ID = re.compile(rb"\AReceived: (?:[^\r\n]|\r\n[ \t])*?\bid ([0-9A-Z]{12})\b")


class Cluster:
    """Relays on the queue at *place*."""

    def __init__(self, reactor: Any, folder: Path, hop: NextHop, place: str) -> None:
        self._reactor = reactor
        self._hop = hop
        self._folder = folder
        self.place = place
        self.relays: list[RelayProcess] = []
        self._threads = ThreadPool(0, 2, "faults")
        self._threads.start()
        for _ in range(RELAYS):
            self._add(ForkedRelay)

    def _add(self, kind: type[_R]) -> _R:
        number = len(self.relays)
        folder = self._folder / f"relay{number}"
        folder.mkdir()
        place = f"{self.place}?node=relay{number}&lease_time={LEASE_TIME}"
        relay = kind(self._reactor, folder, self._hop, place=place)
        self.relays.append(relay)
        return relay

    def add_with_wrong_clock(self, hours: int) -> RelayProcess:
        """Add a relay on a machine whose clock is wrong."""
        relay = self._add(WrongClock)
        relay.hours = hours
        return relay

    def reach_through(self, port: int, instead_of: int) -> None:
        """Let the first relay reach the database at another port."""
        file = self.relays[0].folder / "relay.toml"
        text = file.read_text("utf-8")
        assert f":{instead_of}" in text
        file.write_text(text.replace(f":{instead_of}", f":{port}"), "utf-8")

    async def start(self) -> None:
        """Start all; the first makes the tables."""
        for relay in self.relays:
            _ = await relay.start()

    def kill(self) -> None:
        """End all, also those that are stopped."""
        for relay in self.relays:
            relay.kill()
        self._threads.stop()

    async def off_reactor(self, work: Callable[[], object]) -> None:
        """Do what blocks, while the next hop goes on."""
        await deferToThreadPool(self._reactor, self._threads, work)

    def load(self, ledger: Ledger, tag: str, count: int = 40) -> Deferred[Any]:
        """Begin to give each relay *count* messages."""
        giving = []
        for number, relay in enumerate(self.relays):
            mailer = relay.client(8)
            each = [
                Deferred.fromCoroutine(
                    relay.give(
                        mailer,
                        ledger.send(
                            f"{tag}-{number}-{n}",
                            ("x@r.example", "y@r.example")[: 1 + n % 2],
                            size=150_000 if n % 10 == 0 else 3_000,
                        ),
                    )
                )
                for n in range(count)
            ]
            giving.append(Deferred.fromCoroutine(_given(mailer, each)))
        return DeferredList(giving)

    async def accepting(self, ledger: Ledger) -> None:
        """Wait until each relay accepts mail again."""
        since = time.monotonic()
        for number, relay in enumerate(self.relays):
            tries = 0
            while True:
                sent = ledger.send(f"accepting-{number}-{tries}", ("x@r.example",))
                await relay.give_alone(sent)
                if sent.acked:
                    break
                assert time.monotonic() - since < PATIENCE, relay.log[-6000:]
                await relay.pause(0.1)
                tries += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that will be."""
        await self.relays[0].until(condition, lambda: self.log[-6000:])

    @property
    def log(self) -> str:
        """What all relays have logged."""
        return "".join(relay.log for relay in self.relays)

    async def audited(self, ledger: Ledger) -> None:
        """Wait until the queue is empty, stop the relays, and see that nothing is wrong."""
        await self.relays[-1].drained(ledger)
        await self.relays[0].until(lambda: not self.waiting(), interval=0.1)
        for relay in self.relays:
            if relay.process is not None and relay.process.poll() is None:
                await relay.stopped()
        allow_unknown_commits(ledger, self.log)
        assert ledger.complaints() == []
        assert unexplained(ledger, self.log) == []
        assert "Traceback" not in self.log, self.log[self.log.index("Traceback") - 500 :][:4000]
        acked = sum(sent.acked for sent in ledger.sent.values())
        assert acked > len(ledger.sent) / 10, (acked, len(ledger.sent))

    def waiting(self) -> int:
        """The number of messages in the queue."""
        with open_store(self.place) as store, store.transaction(write=False):
            return store.count()


async def _given(mailer: Mailer, giving: list[Deferred[None]]) -> None:
    _ = await DeferredList(giving)
    await mailer.aclose(grace=0.001)


def allow_unknown_commits(ledger: Ledger, log: str) -> None:
    """Let messages come out whose client got 451 because the result of the commit could not be known.

    Their relay was away from the database until the others had taken its place.  It logs each.
    """
    unknown = re.findall(r"([0-9A-Z]{12}): not queued: the result of a commit of the queue", log)
    for delivered in ledger.delivered:
        found = _ID.match(delivered.content)
        if found and found[1].decode() in unknown and delivered.token in ledger.sent:
            ledger.sent[delivered.token].refused = False


def unexplained(ledger: Ledger, log: str) -> list[str]:
    """The messages that went twice, and that no relay named as possibly duplicated."""
    named = {
        word
        for line in log.splitlines()
        if "possibly duplicated" in line or "may have been delivered" in line
        for word in re.findall(r"\b[0-9A-Z]{12}\b", line)
    }
    found = []
    for sent in ledger.sent.values():
        for recipient in sent.recipients:
            times = ledger.times(sent.token, recipient)
            if len(times) > 1:
                ids = {match[1].decode() for t in times if (match := _ID.match(t.content))}
                if not ids & named:
                    found.append(f"{sent.token} went {len(times)} times, and is not named: {ids}")
    return found


class WrongClock(RelayProcess):
    """One on a machine whose clock is so many hours ahead."""

    hours = 0

    def launch(self, **environment: str) -> subprocess.Popen[bytes] | ForkedProcess:
        faked = {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME": f"{self.hours:+}h",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return super().launch(**environment, **faked)


def stop_process(relay: RelayProcess) -> None:
    """SIGSTOP."""
    assert relay.process is not None
    relay.process.send_signal(signal.SIGSTOP)


def continue_process(relay: RelayProcess) -> None:
    """SIGCONT."""
    assert relay.process is not None
    relay.process.send_signal(signal.SIGCONT)


# ---------------------------------------------------------------------------------------------------------------------
# A network that can be cut


class Network:
    """A proxy to *port* of the loopback interface that can be cut: nothing comes through, and nothing is closed."""

    def __init__(self, reactor: Any, port: int) -> None:
        self.reactor = reactor
        self.target = port
        self.ends: set[_End] = set()
        self.is_cut = False
        factory = Factory.forProtocol(_Client)
        factory.noisy = False
        factory.network = self  # type: ignore[attr-defined]
        self._listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def cut(self) -> None:
        """Let nothing through; connections stay open, and new ones are not answered."""
        self.is_cut = True
        for end in self.ends:
            end.hold()

    def heal(self) -> None:
        """Let everything through again; what was on its way was lost with its connection."""
        self.is_cut = False
        for end in list(self.ends):
            end.transport.abortConnection()  # type: ignore[union-attr]

    async def stop(self) -> None:
        """End it."""
        self.heal()
        await self._listening.stopListening()


class _End(Protocol):
    """One side of one connection."""

    network: Network
    peer: _End | None = None
    early = b""

    def connectionMade(self) -> None:
        self.network.ends.add(self)

    def hold(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        if self.peer is None:
            self.early += data
        elif not self.network.is_cut:
            self.peer.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: object = None) -> None:
        self.network.ends.discard(self)
        if self.peer is not None and not self.network.is_cut:
            self.peer.transport.loseConnection()  # type: ignore[union-attr]


class _Server(_End):
    pass


class _Client(_End):
    factory: Any

    def connectionMade(self) -> None:
        self.network = self.factory.network
        super().connectionMade()
        if self.network.is_cut:
            self.hold()
            return
        server = _Server()
        server.network, server.peer = self.network, self
        endpoint = TCP4ClientEndpoint(self.network.reactor, "127.0.0.1", self.network.target)
        connecting = connectProtocol(endpoint, server)
        _ = connecting.addCallbacks(self._connected, lambda _: self.transport.abortConnection())  # type: ignore[union-attr]

    def _connected(self, server: _Server) -> None:
        self.peer = server
        early, self.early = self.early, b""
        server.transport.write(early)  # type: ignore[union-attr]
