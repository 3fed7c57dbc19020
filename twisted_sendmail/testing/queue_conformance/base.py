"""Base of the conformance suite: the queue under test, and helpers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twisted_sendmail.queue import (
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
from twisted_sendmail.testing.queue_conformance.messages import add_message, recipient_row

DELIVERED, FAILED, PENDING = RecipientState.DELIVERED, RecipientState.FAILED, RecipientState.PENDING
ALL = Selection()
#: Later than anything that is due in these tests, and the end of what a due time can be.
LATER, HORIZON = 10_000.0, 1_000_000.0


class QueueHome(ABC):
    """Place of a queue under test, which keeps its content when the queue is closed."""

    @abstractmethod
    async def open(self) -> tuple[Queue, RecoveryReport]:
        """Open the queue, and return it with the result of its ``open``.

        The test closes or kills it before it opens it again.
        """

    @abstractmethod
    async def kill(self) -> None:
        """End the queue as the end of its process would: nothing is written any more."""


async def leased(
    queue: Queue, route: str = "out", now: float = LATER, **counts: int
) -> list[LeasedMessage]:
    """Lease messages that are due at *now*."""
    wanted = {"fresh": 100, "retries": 100, **counts}
    return await queue.lease(route, now, horizon=HORIZON, **wanted)


async def on_its_way(queue: Queue, info: MessageInfo | None = None) -> QueuedMessage:
    """Add a message and lease it."""
    message = await add_message(queue, b"x", info)
    await leased(queue)
    return message


async def ids(queue: Queue, /, **selection: Any) -> list[str]:
    """Return the ids of the messages that match."""
    return [message.id for message in await queue.list(Selection(**selection))]


async def one(queue: Queue, id_: str) -> QueuedMessage:
    """Return one message."""
    (message,) = await queue.list(Selection(ids=(id_,)))
    return message


def delivered(id_: str, *numbers: int) -> AttemptRecord:
    """Return the record of a delivery to these recipients; to the first if none is given."""
    return AttemptRecord(id_, 50.0, tuple(recipient_row(n, DELIVERED) for n in numbers or (0,)))


def undeliverable(id_: str) -> AttemptRecord:
    """Return the record of a failure without a sender to report to."""
    return AttemptRecord(id_, 50.0, (recipient_row(0, FAILED),), aside=SetAsideReason.UNDELIVERABLE)
