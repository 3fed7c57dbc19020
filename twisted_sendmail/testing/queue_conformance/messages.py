"""Messages for a queue under test, and an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_sendmail.queue import (
    LeasedMessage,
    MessageInfo,
    QueuedMessage,
    QueuedRecipient,
    QueueObserver,
    RecipientState,
)
from twisted_sendmail.smtp import Envelope, Recipient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.queue import Queue

SENDER, RECIPIENT = "ann@example.org", "bob@example.net"


def info_of(
    queue: Queue,
    *,
    id_: str | None = None,
    sender: str | None = SENDER,
    to: list[str] | None = None,
    envelope: Envelope | None = None,
    **given: Any,
) -> MessageInfo:
    """Return the data of a message from *sender* to *to*, on the route ``out``."""
    return MessageInfo(
        id=id_ or queue.new_id(),
        envelope=envelope or Envelope(sender, to or [RECIPIENT]),
        **{"arrived": 10.0, "route": "out", **given},
    )


async def add_message(
    queue: Queue, content: bytes, info: MessageInfo | None = None, *, step: int = 65_536
) -> QueuedMessage:
    """Add a message to *queue*, *step* octets at a time, as fast as it takes them."""
    intake = queue.intake()
    for start in range(0, len(content), step):
        waiting = intake.write(content[start : start + step])
        if waiting is not None:
            await waiting
    return await intake.commit(info or info_of(queue))


async def content_of(queue: Queue, id_: str) -> bytes:
    """Return the content of a message."""
    return b"".join([piece async for piece in queue.content(id_)])


class Observer(QueueObserver):
    """Records its notifications.

    :param claims: the answer to ``claim``.
    """

    def __init__(self, *, claims: bool) -> None:
        self.claims = claims
        self.events: list[tuple[Any, ...]] = []
        self._waiting: tuple[int, Deferred[None]] | None = None

    async def notified(self, count: int) -> None:
        """Wait for *count* notifications in all."""
        if len(self.events) < count:
            waiting: Deferred[None] = Deferred()
            self._waiting = count, waiting
            await waiting

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        if self._waiting is not None and len(self.events) >= self._waiting[0]:
            waiting, self._waiting = self._waiting[1], None
            waiting.callback(None)

    def claim(self, info: MessageInfo) -> bool:
        """See ``QueueObserver.claim``."""
        self._note("claim", info.id)
        return self.claims

    def arrived(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        """See ``QueueObserver.arrived``."""
        for leased, claimed in arrivals:
            self._note("arrived", leased.message.id, claimed, leased.content)

    def unclaimed(self, info: MessageInfo) -> None:
        """See ``QueueObserver.unclaimed``."""
        self._note("unclaimed", info.id)

    def queue_changed(self) -> None:
        """See ``QueueObserver.queue_changed``."""
        self._note("queue_changed")


_ANYBODY = Recipient("anybody@x.example")


def recipient_row(  # noqa: PLR0917 - one row, one line
    number: int,
    state: RecipientState,
    due: float = 0.0,
    reply: str | None = None,
    status: str | None = None,
    relay: str | None = None,
) -> QueuedRecipient:
    """Return the result of an attempt for one recipient; the queue holds its address."""
    return QueuedRecipient(number, _ANYBODY, state, due, reply=reply, status=status, relay=relay)
