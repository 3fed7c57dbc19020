"""A relay between next hops in memory, with a clock that the test advances.

The next hops are servers of ``twisted_sendmail.testing``; the queue is the real one, on a disk,
and its work is done in the test's own thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.names import Attempted, Event, Fault, InlineWorker, QueuedMessage, Selection, SQLiteQueue
from twisted_sendmail import (
    Credentials,
    Envelope,
    PoolLimits,
    Queued,
    Recipient,
    RelayService,
    RelaySettings,
    Reply,
    RouteSettings,
    SubmissionServer,
    TLSPolicy,
    TLSTrust,
)
from twisted_sendmail.testing import (
    MemoryNetwork,
    MemoryServer,
    ReceivedMessage,
    RecordingReceiver,
)

T = TypeVar("T")
E = TypeVar("E", bound=Any)
#: When it all begins, in seconds since 1970.
START = 1_800_000_000.0
HOUR, DAY = 3600.0, 86400.0
SENDER = "alice@example.org"


@dataclass
class Judging(RecordingReceiver):
    """Asks the host about each recipient."""

    host: Any = None
    _refused: list[str] = field(default_factory=list, init=False)

    def recipient(self, recipient: Recipient) -> Any:
        answer = self.host.answer(str(recipient))
        return answer or super().recipient(recipient)


@implementer(IStreamClientEndpoint)
class Host(MemoryServer):
    """A next hop; where to connect to it as well."""

    def __init__(self, network: MemoryNetwork, *, clear: bool = True, **options: Any) -> None:
        self._secure: bool = options.setdefault("tls", not clear)
        options.setdefault(
            "receiver", lambda connection: Judging(connection, self._received, host=self)
        )
        super().__init__(network=network, **options)
        #: Refusals by recipient, each said once, or always when it stands alone.
        self.refusals: dict[str, list[str] | str] = {}
        self.up = True
        #: Connecting never ends.
        self.silent = False
        #: When somebody connected.
        self.attempts: list[float] = []
        self.__enter__()

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts.append(self.clock.seconds())
        if self.silent:
            return Deferred()
        if not self.up:
            failed: Deferred[Any] = Deferred()
            failed.errback(Failure(Refused()))  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
            return failed
        return self.endpoint.connect(factory)

    def _received(self, message: ReceivedMessage) -> None:
        self.messages.append(message)

    def answer(self, address: str) -> Reply | None:
        said = self.refusals.get(address)
        if not said:
            return None
        text = said.pop(0) if isinstance(said, list) else said
        return Reply(int(text[:3]), (text[4:],)) if text else None

    def server(self, *, user: str | None = None, **settings: Any) -> SubmissionServer:
        """How a relay reaches it."""
        settings.setdefault("tls", TLSPolicy.STARTTLS if self._secure else TLSPolicy.NONE)
        if user is not None:
            settings["credentials"] = Credentials(user, "secret")
        return SubmissionServer(
            "localhost", endpoint=self, trust=TLSTrust(ca_file=self.ca_file), **settings
        )

    @property
    def got(self) -> list[tuple[str, str]]:
        """Sender and recipient of all that was received, in order."""
        return [
            (str(message.sender), str(recipient))
            for message in self.messages
            for recipient in message.recipients
        ]

    @property
    def reports(self) -> list[ReceivedMessage]:
        return [message for message in self.messages if message.sender.mailbox is None]


class World:
    """Hosts, one queue, and the relays that work on it one after the other."""

    def __init__(self, directory: Path) -> None:
        self.pump = MemoryNetwork()
        self.clock = self.pump.clock
        self.clock.advance(START)
        self.directory = directory
        self.hosts: list[Host] = []
        self.relays: list[RelayService] = []
        self.events: list[Event] = []
        #: What came of every Deferred that was given out.
        self.fired: list[list[Any]] = []

    def host(self, *, faults: Iterable[Fault] = (), **options: Any) -> Host:
        host = Host(self.pump, faults=faults, **options)
        self.hosts.append(host)
        return host

    def route(self, *hosts: Host | SubmissionServer, name: str = "out", **options: Any) -> Any:
        servers = tuple(h.server() if isinstance(h, Host) else h for h in hosts)
        options.setdefault("limits", PoolLimits())
        return RouteSettings(name, servers, **options)

    def settings(self, *routes: Any, **options: Any) -> RelaySettings:
        made = tuple(self.route(r) if isinstance(r, Host) else r for r in routes)
        return RelaySettings("relay.example", made, **options)

    def spool(self) -> SQLiteQueue:
        return SQLiteQueue(self.clock, self.directory, worker=InlineWorker(), least_free=0)

    def relay(
        self,
        *routes: Any,
        spool: Any = None,
        policy: Any = None,
        chance: float = 0.5,
        **options: Any,
    ) -> RelayService:
        """A relay that runs."""
        relay = RelayService(
            self.clock,
            spool or self.spool(),
            self.settings(*routes, **options),
            policy=policy,
            chance=lambda: chance,
        )
        relay.observers.append(self.events.append)
        self.relays.append(relay)
        relay.startService()
        self.run(relay.ready())
        return relay

    def send(
        self,
        relay: RelayService,
        *to: str | Recipient,
        sender: str = SENDER,
        fields: str = "",
        body: bytes = b"hello\r\n",
        **envelope: Any,
    ) -> Queued:
        content = f"From: {SENDER}\r\nSubject: x\r\n{fields}\r\n".encode() + body
        queued = self.run(relay.send(content, envelope=Envelope(sender, to, **envelope)))
        self.pump.run()
        return queued

    def run(self, work: Awaitable[T], *, patience: float = 30 * DAY) -> T:
        """Move octets and time until *work* is done."""
        deferred: Deferred[T] = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]
        results: list[Any] = []
        _ = deferred.addBoth(results.append)
        end = self.clock.seconds() + patience
        self.pump.run()
        while not results:
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            assert times, "nothing moves any more"
            assert min(times) <= end, "it takes too long"
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
            self.pump.run()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]  # type: ignore[no-any-return]

    def watch(self, deferred: Deferred[Any]) -> list[Any]:
        """Where the result will be."""
        results: list[Any] = []
        _ = deferred.addBoth(results.append)
        self.fired.append(results)
        return results

    def until(self, condition: Callable[[], Any], *, patience: float = 30 * DAY) -> None:
        """Let time pass until *condition* holds."""
        end = self.clock.seconds() + patience
        self.pump.run()
        while not condition():
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            assert times, "nothing moves any more"
            assert min(times) <= end, "it takes too long"
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
            self.pump.run()

    def turn(self) -> bool:
        """Move everything a little; False when nothing moves any more."""
        return self.pump.turn()

    def advance(self, seconds: float) -> None:
        self.pump.advance(seconds)

    def jump(self, seconds: float) -> None:
        """Set the clock, so that nobody notices but by looking at it."""
        self.clock.rightNow += seconds
        # As the reactor's timers do, those of the clock keep the times they were given.

    def queue(self, relay: RelayService, **selection: Any) -> list[QueuedMessage]:
        return list(self.run(relay.queue.list(Selection(**selection))))

    def tamper(self, sql: str, *values: object) -> None:
        """Do this to a queue that no relay has open."""
        with closing(sqlite3.connect(self.directory / "queue.sqlite3")) as database, database:
            database.execute(sql, values)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def tried(self) -> list[tuple[str, str]]:
        """Recipient and status of every attempt."""
        return [(event.recipient, event.status) for event in self.of(Attempted)]

    def stop(self, relay: RelayService) -> None:
        self.run(relay.stopService())
        self.relays.remove(relay)

    def close(self) -> None:
        for relay in list(self.relays):
            self.stop(relay)
        for host in self.hosts:
            host.__exit__(None, None, None)
        self.pump.run()
