"""Fills a queue with mail in every state, and a fake relay that only reports the state of its routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.names import (
    AttemptRecord,
    MessageInfo,
    QueueAction,
    RecipientState,
    Selection,
    SetAsideReason,
)
from tests.rows import recipient_row
from twisted_sendmail import Envelope
from twisted_sendmail.relay import RelayStats, RouteStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from tests.names import Queue, QueueActionResult

#: Text of a malicious server or sender: markup, script, control and direction characters.
HOSTILE = (
    '<script>document.title="broken"</script>"\'><img src=x onerror=alert(1)>'
    "\u202egnp.\u2066exe\x1b[31m\r\nSet-Cookie: a=b\u200b"
)
TOKEN = "correct-horse-battery"
LONG = 1e9


def route(
    name: str,
    servers: tuple[str, ...] = (),
    *,
    wait: float = 0.0,
    locked: bool = False,
    reason: str | None = None,
    under_way: int = 0,
) -> RouteStats:
    """Make the state of a route, which is down if it has to *wait*."""
    mailer: Any = None
    return RouteStats(name, servers, not wait, reason, wait, locked, under_way, 1, mailer)


class FakeRelay:
    """A relay that delivers nothing."""

    def __init__(self, queue: Queue, reactor: Any) -> None:
        self._queue = queue
        self._reactor = reactor
        self.stopping = False
        self.routes: tuple[RouteStats, ...] = (route("default", ("smtp.example.net:587",)),)
        self.flushed: list[Selection | None] = []

    def stats(self) -> RelayStats:
        return RelayStats(self.routes, 0)

    def flush(self, selection: Selection | None = None) -> Deferred[Sequence[QueueActionResult]]:
        self.flushed.append(selection)
        return self._queue.act(QueueAction.FLUSH, selection or Selection(), self._reactor.seconds())


class QueueFiller:
    """Adds messages to a queue and moves them between its states."""

    def __init__(self, queue: Queue, reactor: Any) -> None:
        self.queue = queue
        self.reactor = reactor

    async def message(
        self,
        to: str | Sequence[str] = "bob@example.net",
        *,
        sender: str = "alice@example.org",
        subject: str = "Hello",
        age: float = 0.0,
        size: int = 900,
        held: bool = False,
        **facts: Any,
    ) -> str:
        """Add a message that waits; return its id."""
        recipients = [to] if isinstance(to, str) else list(to)
        info = MessageInfo(
            id=self.queue.new_id(),
            envelope=Envelope(sender, recipients),
            arrived=self.reactor.seconds() - age,
            held=held,
            **{
                "route": "default",
                "origin": "localhost[127.0.0.1]",
                "message_id": "<1@example.org>",
                **facts,
            },
        )
        intake = self.queue.intake()
        head = f"From: {sender}\r\nTo: {recipients[0]}\r\nSubject: {subject}\r\n\r\n"
        waiting = intake.write(head.encode("utf-8", "surrogateescape") + b"x" * size + b"\r\n")
        if waiting is not None:
            await waiting
        return (await intake.commit(info)).id

    async def tried(
        self,
        name: str,
        reply: str,
        status: str = "4.4.1",
        *,
        relay: str = "smtp.example.net[192.0.2.1]:587",
        due: float = 300.0,
        done: Sequence[int] = (),
        aside: SetAsideReason | None = None,
    ) -> None:
        """Record an attempt that ended with *reply* for all recipients but those who are *done*."""
        now = self.reactor.seconds()
        # All due messages are leased; the others are released again.
        leased = await self.queue.lease(
            "default", now + LONG, fresh=1000, retries=1000, horizon=1e12
        )
        others = [each for each in leased if each.message.id != name]
        (message,) = [each.message for each in leased if each.message.id == name]
        await self.queue.release(others)
        changes = tuple(
            recipient_row(r.number, RecipientState.DELIVERED, now, "250 2.0.0 Ok", "2.0.0", relay)
            if r.number in done
            else recipient_row(r.number, RecipientState.PENDING, now + due, reply, status, relay)
            for r in message.pending
        )
        await self.queue.settle(AttemptRecord(name, now, changes, aside=aside))

    async def on_its_way(self, name: str) -> None:
        """Lease a message."""
        leased = await self.queue.lease(
            "default", self.reactor.seconds() + LONG, fresh=1000, retries=1000, horizon=1e12
        )
        await self.queue.release([each for each in leased if each.message.id != name])

    async def held(self, name: str) -> None:
        """Put a message on hold."""
        await self.queue.act(QueueAction.HOLD, Selection(ids=(name,)), self.reactor.seconds())


async def fill_queue(stage: QueueFiller) -> dict[str, str]:
    """Add mail in every state, with replies of several kinds; return the ids of some."""
    names = {}
    for number in range(4):
        name = await stage.message(f"user{number}@example.net", age=11000 - 700 * number, size=4000)
        await stage.tried(
            name,
            "connect to smtp.example.net[192.0.2.1]:587: Connection timed out",
            due=280 + number,
        )
    names["deferred"] = name
    name = await stage.message(
        ["carol@example.com", "dave@example.com", "erin@example.com"],
        sender="reports@example.org",
        age=5400,
        size=1_250_000,
    )
    await stage.tried(
        name, "452 4.2.2 <dave@example.com>: mailbox is over its quota", "4.2.2", done=(0,), due=900
    )
    names["quota"] = name
    name = await stage.message("frank@example.edu", sender="<>", age=4000)
    await stage.tried(
        name, "451 4.7.1 Greylisted, try again in 300 seconds (id 8F3A2B)", "4.7.1", due=61
    )
    name = await stage.message(
        "mallory@example.net", subject=HOSTILE, age=3600, origin="unix socket"
    )
    await stage.tried(name, f"450 4.2.1 {HOSTILE}", "4.2.1")
    names["hostile"] = name
    name = await stage.message("grace@example.net", age=2000)
    await stage.held(name)
    names["held"] = name
    name = await stage.message("heidi@example.net", sender="<>", age=1800)
    await stage.tried(name, "550 5.1.1 User unknown", "5.1.1", aside=SetAsideReason.UNDELIVERABLE)
    names["aside"] = name
    names["active"] = await stage.message("ivan@example.net", age=30)
    names["new"] = await stage.message("judy@example.net", age=4)
    await stage.on_its_way(names["active"])
    return names
