"""Base of the conformance tests: the queue under test, and helpers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from tests.names import (
    AttemptRecord,
    LeasedMessage,
    MessageInfo,
    Queue,
    QueuedMessage,
    RecipientState,
    RecoveryReport,
    Selection,
    SetAsideReason,
)
from tests.queue.messages import take_in
from tests.rows import recipient_row

DELIVERED, FAILED, PENDING = RecipientState.DELIVERED, RecipientState.FAILED, RecipientState.PENDING
ALL = Selection()
#: Later than anything that is due in these tests, and the end of what a due time can be.
LATER, HORIZON = 10_000.0, 1_000_000.0


class Home(ABC):
    """Where a spool lives."""

    @abstractmethod
    async def open(self) -> tuple[Queue, RecoveryReport]:
        """Open the spool; it has to be closed or killed."""

    @abstractmethod
    async def kill(self) -> None:
        """End it as the end of its process would."""


async def leased(
    spool: Queue, route: str = "out", now: float = LATER, **counts: int
) -> list[LeasedMessage]:
    wanted = {"fresh": 100, "retries": 100, **counts}
    return await spool.lease(route, now, horizon=HORIZON, **wanted)


async def on_its_way(spool: Queue, info: MessageInfo | None = None) -> QueuedMessage:
    """A message that was taken in, and leased."""
    message = await take_in(spool, b"x", info)
    await leased(spool)
    return message


async def ids(spool: Queue, **selection: Any) -> list[str]:
    return [message.id for message in await spool.list(Selection(**selection))]


async def one(spool: Queue, id_: str) -> QueuedMessage:
    (message,) = await spool.list(Selection(ids=(id_,)))
    return message


def delivered(id_: str, *numbers: int) -> AttemptRecord:
    return AttemptRecord(id_, 50.0, tuple(recipient_row(n, DELIVERED) for n in numbers or (0,)))


def undeliverable(id_: str) -> AttemptRecord:
    """It failed, and there is nobody to tell."""
    return AttemptRecord(id_, 50.0, (recipient_row(0, FAILED),), aside=SetAsideReason.UNDELIVERABLE)
