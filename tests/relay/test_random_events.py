"""Random sequences of events: no message is lost or tried twice at the same time."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.names import (
    Attempted,
    Fault,
    InlineWorker,
    LeasedMessage,
    QueueAction,
    QueueObserver,
    RecipientState,
    Selection,
    SQLiteQueue,
    Trouble,
    close,
    refuse,
    reset,
)
from tests.relay.world import DAY, SENDER, World
from twisted_sendmail import FinalReport, PoolLimits, Queued, Reply

REPLIES = ["450 4.2.0 later", "452 4.5.3 too many", "421 4.3.2 closing", "", "", "", "", ""]


class Watched(QueueObserver):
    """Passes on to the relay, and notes what is leased by a commit."""

    def __init__(self, spool: WatchedSpool, inner: QueueObserver) -> None:
        self._spool, self._inner = spool, inner

    def claim(self, info: Any) -> bool:
        return self._inner.claim(info)

    def arrived(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        self._spool.note([leased for leased, claimed in arrivals if claimed])
        self._inner.arrived(arrivals)

    def unclaimed(self, info: Any) -> None:
        self._inner.unclaimed(info)

    def queue_changed(self) -> None:
        self._inner.queue_changed()

    def queue_flushed(self, routes: Collection[str]) -> None:
        self._inner.queue_flushed(routes)


class WatchedSpool(SQLiteQueue):
    """Sees to it that nothing is leased twice at a time."""

    out: set[str]

    def note(self, found: list[LeasedMessage]) -> list[LeasedMessage]:
        ids = {leased.message.id for leased in found}
        assert not ids & self.out
        assert len(ids) == len(found)
        self.out |= ids
        return found

    def lease(self, *args: Any, **options: Any) -> Deferred[list[LeasedMessage]]:
        return super().lease(*args, **options).addCallback(self.note)

    def settle(self, settlement: Any) -> Any:
        assert settlement.id in self.out
        self.out.remove(settlement.id)
        return super().settle(settlement)

    def release(self, leased: Any) -> Any:
        self.out -= {each.message.id for each in leased}
        return super().release(leased)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "observer" and value is not None:
            value = Watched(self, value)
        super().__setattr__(name, value)


class Story:
    """One random history."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self.world = World(directory)
        faults: list[Fault] = []
        for _ in range(self.random.randrange(4)):
            moment = self.random.choice(["dot", "MAIL", "content", "RCPT"])
            fault = self.random.choice([close, reset])
            faults.append(fault(moment, nth=self.random.randrange(1, 12)))
        faults.append(refuse("dot", "451 4.3.0 later", nth=self.random.randrange(1, 12)))
        self.host = self.world.host(faults=faults)
        self.host.answer = self.answer  # type: ignore[method-assign]
        self.calm = False
        self.gone: set[str] = set()
        self.queued: list[tuple[Queued, str, tuple[str, ...]]] = []
        self.waiting: list[list[Any]] = []
        self.deleted: set[str] = set()
        self.start()

    def answer(self, address: str) -> Reply | None:
        if address.startswith("gone"):
            return Reply(550, ("5.1.1 unknown",))
        text = "" if self.calm else self.random.choice(REPLIES)
        return Reply(int(text[:3]), (text[4:],)) if text else None

    def start(self) -> None:
        limits = PoolLimits(
            connections=self.random.randrange(1, 4), window=self.random.randrange(1, 6)
        )
        spool = WatchedSpool(
            self.world.clock, self.world.directory, worker=InlineWorker(), least_free=0
        )
        spool.out = set()
        self.spool = spool
        self.relay = self.world.relay(
            self.world.route(self.host, limits=limits), spool=spool, grace=5.0
        )

    def step(self) -> None:
        what = self.random.choice(
            ["send"] * 6
            + ["wait"] * 4
            + ["down", "up", "flush", "restart", "operate", "look", "jump"]
        )
        getattr(self, what)()

    def send(self) -> None:
        number = len(self.queued)
        names = [
            f"{self.random.choice(['ok', 'ok', 'gone'])}{number}-{n}@x.example"
            for n in range(self.random.randrange(1, 4))
        ]
        large = self.random.random() < 0.2
        queued = self.world.run(
            self.relay.send(
                f"Subject: {number}\r\n\r\n".encode() + b"x\r\n" * (40_000 if large else 1),
                sender=SENDER,
                recipients=names,
            )
        )
        self.queued.append((queued, str(number), tuple(names)))
        self.waiting.append(self.world.watch(queued.delivered()))

    def wait(self) -> None:
        self.world.advance(self.random.choice([0.0, 0.0, 1.0, 60.0, 400.0, 5000.0]))

    def down(self) -> None:
        self.host.up = False

    def up(self) -> None:
        self.host.up = True

    def flush(self) -> None:
        self.world.run(self.relay.flush())

    def look(self) -> None:
        self.relay.look()

    def jump(self) -> None:
        self.world.jump(self.random.choice([-3600.0, 3600.0]))
        self.relay.look()

    def restart(self) -> None:
        self.world.stop(self.relay)
        self.start()

    def operate(self) -> None:
        if not self.queued:
            return
        queued, name, _ = self.random.choice(self.queued)
        action = self.random.choice(
            [QueueAction.HOLD, QueueAction.RELEASE, QueueAction.EXPIRE, QueueAction.DELETE]
        )
        acted = self.world.run(
            self.relay.queue.act(action, Selection(ids=(queued.id,)), self.world.clock.seconds())
        )
        if acted and action in {QueueAction.EXPIRE, QueueAction.DELETE}:
            self.deleted.add(name)

    def end(self) -> None:
        """Everything works again: the queue drains."""
        self.calm = self.host.up = True
        now = self.world.clock.seconds()
        self.world.run(self.relay.queue.act(QueueAction.RELEASE, Selection(), now))
        self.world.run(self.relay.flush())
        self.world.until(lambda: not self.world.queue(self.relay), patience=DAY)

    def judge(self) -> None:
        deliveries = Counter(
            (message.email["Subject"], str(recipient))
            for message in self.host.messages
            if message.sender.mailbox is not None
            for recipient in message.recipients
        )
        doubts = Counter(event.recipient for event in self.world.of(Attempted) if event.in_doubt)
        told = b"".join(report.content for report in self.host.reports)
        for _, name, recipients in self.queued:
            for recipient in recipients:
                count = deliveries[name, recipient]
                assert count <= 1 + doubts[recipient], recipient
                if recipient.startswith("gone"):
                    assert count == 0
                    assert name in self.deleted or f"; {recipient}".encode() in told
                elif name not in self.deleted:
                    assert count >= 1, recipient
        for results in self.waiting:
            assert len(results) == 1
        for (_, name, _), (result, *_) in zip(self.queued, self.waiting, strict=True):
            if isinstance(result, FinalReport) and name not in self.deleted:
                assert all(
                    outcome.state is not RecipientState.PENDING for outcome in result.outcomes
                )
        assert self.spool.out == set()
        assert self.world.of(Trouble) == []
        routes = self.relay.stats().routes
        assert [route.under_way for route in routes] == [0]


@given(st.integers(0, 2**32))
@settings(max_examples=settings.default.max_examples // 8)  # type: ignore[union-attr]
def test_nothing_is_lost_and_nothing_is_tried_twice_at_a_time(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name, "queue")
        directory.mkdir(0o700)
        story = Story(seed, directory)
        try:
            for _ in range(30):
                story.step()
            story.end()
            story.judge()
        finally:
            story.world.close()
