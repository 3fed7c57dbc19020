"""Traffic through a queue, with a record of both ends that survives a crash.

What a message contains follows from its id, so that who finds it can tell whether it is whole.
Each has two recipients.  The second is refused for a while at the first try; every fourth
message fails for him then, and a report comes in.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, ensureDeferred

from tests.names import (
    AttemptRecord,
    LeasedMessage,
    MessageInfo,
    QueueObserver,
    RecipientState,
)
from tests.queue.messages import content_of, info_of
from tests.rows import recipient_row
from twisted_sendmail import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.names import Queue

#: Small, and in one, two and some pieces.
_SIZES = (20, 3_000, 70_000, 600_000)
LATER, HORIZON = 10_000.0, 1_000_000.0


def content_for(id_: str, sizes: tuple[int, ...] = _SIZES) -> bytes:
    """What message *id_* contains."""
    size = sizes[sum(id_.encode()) % len(sizes)]
    line = f"{id_} of {size} octets\r\n".encode()
    return (line * (size // len(line) + 1))[:size]


class Record:
    """Lines in a file; each is there when ``say`` returns, whatever becomes of the process."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())

    def close(self) -> None:
        os.close(self._descriptor)


class Traffic(QueueObserver):
    """Brings mail in, and takes it out again; claims every other message."""

    def __init__(self, spool: Queue, record: Record) -> None:
        self._spool = spool
        self._record = record
        self._claims = False
        self._delivering: list[Deferred[None]] = []
        spool.observer = self

    async def bring(self, sizes: tuple[int, ...] = _SIZES) -> None:
        """One message."""
        id_ = self._spool.new_id()
        info = info_of(self._spool, id_=id_, to=["a@example.net", "b@example.net"])
        content = content_for(id_, sizes)
        intake = self._spool.intake()
        for start in range(0, len(content), 100_000):
            waiting = intake.write(content[start : start + 100_000])
            if waiting is not None:
                await waiting
        self._record.say("begun", id_)
        await intake.commit(info)
        self._record.say("acked", id_)

    def claim(self, info: MessageInfo) -> bool:
        self._claims = not self._claims
        return self._claims

    def arrived(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        for leased, claimed in arrivals:
            if claimed:
                self._delivering.append(ensureDeferred(self.deliver(leased)))

    def unclaimed(self, info: MessageInfo) -> None:
        """Nothing was begun."""

    def queue_changed(self) -> None:
        """It looks anyway."""

    async def settled(self) -> None:
        """Wait for all that is on its way."""
        while self._delivering:
            await self._delivering.pop()

    async def drain(self) -> None:
        """Deliver until nothing is left."""
        while True:
            await self.settled()
            taken = await self._spool.lease("out", LATER, fresh=5, retries=5, horizon=HORIZON)
            if not taken:
                return
            for leased in taken:
                await self.deliver(leased)

    async def deliver(self, leased: LeasedMessage) -> None:
        """Give one to the next hop, which notes it, and settle it."""
        message = leased.message
        content = leased.content
        if content is None:
            content = await content_of(self._spool, message.id)
        sizes = (message.size,)
        whole = content in {content_for(message.id, sizes), b"a report"}
        for recipient in message.pending:
            self._record.say("out" if whole else "WRONG", message.id, recipient.number)
        settlement = self._verdict(message.id, leased)
        for report, _ in settlement.reports:
            self._record.say("report", report.id, "of", message.id)
        await self._spool.settle(settlement)
        self._record.say("settled", message.id)

    def _verdict(self, id_: str, leased: LeasedMessage) -> AttemptRecord:
        changes = [
            recipient_row(r.number, RecipientState.DELIVERED) for r in leased.message.pending
        ]
        reports: tuple[tuple[MessageInfo, bytes], ...] = ()
        if len(changes) == 2:
            changes[1] = recipient_row(1, RecipientState.PENDING, 100.0, "450 later", "4.2.0", "mx")
            if int(id_[-1], 36) % 4 == 0:
                changes[1] = recipient_row(1, RecipientState.FAILED, 0.0, "550 no", "5.1.1", "mx")
                report = info_of(self._spool, envelope=Envelope(None, "ann@example.org"))
                reports = ((report, b"a report"),)
        return AttemptRecord(id_, 50.0, tuple(changes), reports=reports)


@dataclass
class Audit:
    """What a record says happened, over any number of crashes."""

    acked: set[str] = field(default_factory=set)
    settled: Counter[str] = field(default_factory=Counter)
    out: Counter[tuple[str, str]] = field(default_factory=Counter)
    report_of: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Audit:
        audit = cls()
        for line in path.read_text("ascii").splitlines():
            match line.split():
                case ["acked", id_]:
                    audit.acked.add(id_)
                case ["out", id_, number]:
                    audit.out[id_, number] += 1
                case ["settled", id_]:
                    audit.settled[id_] += 1
                case ["report", id_, "of", message]:
                    audit.report_of[id_] = message
                case ["WRONG", *_]:
                    audit.wrong.append(line)
        return audit

    def faults(self, interrupted: Counter[str]) -> list[str]:
        """What is not as it was promised, when the queue has drained.

        :param interrupted: how often the end of a try was not seen, by id.
        """
        found = list(self.wrong)
        for id_ in self.acked:
            found += [f"{id_} was lost for {n}" for n in "01" if not self.out[id_, n]]
        for (id_, number), count in self.out.items():
            # The second recipient is refused at the first try, so it is recorded twice.
            expected = 2 if number == "1" and id_ not in self.report_of.values() else 1
            if count > expected + interrupted[id_]:
                found.append(f"{id_} went out {count} times for {number}")
        for report, message in self.report_of.items():
            if self.settled[message] and not self.out[report, "0"]:
                # Another report may have taken its place, where the try was repeated.
                others = [r for r, m in self.report_of.items() if m == message]
                if not any(self.out[r, "0"] for r in others):
                    found.append(f"the report {report} of {message} was lost")
        return found
