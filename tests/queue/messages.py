"""Messages for a queue, and an observer of arrivals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from tests.names import LeasedMessage, MessageInfo, QueuedMessage, QueueObserver
from twisted_sendmail import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.names import Queue

SENDER, RECIPIENT = "ann@example.org", "bob@example.net"


def info_of(
    spool: Queue,
    *,
    id_: str | None = None,
    sender: str | None = SENDER,
    to: list[str] | None = None,
    envelope: Envelope | None = None,
    **given: Any,
) -> MessageInfo:
    """A message of *sender* to *to*, on the route ``out``."""
    return MessageInfo(
        id=id_ or spool.new_id(),
        envelope=envelope or Envelope(sender, to or [RECIPIENT]),
        **{"arrived": 10.0, "route": "out", **given},
    )


async def take_in(
    spool: Queue, content: bytes, info: MessageInfo | None = None, *, step: int = 65_536
) -> QueuedMessage:
    """Give *content* to *spool*, *step* octets at a time, as fast as it takes them."""
    intake = spool.intake()
    for start in range(0, len(content), step):
        waiting = intake.write(content[start : start + step])
        if waiting is not None:
            await waiting
    return await intake.commit(info or info_of(spool))


async def content_of(spool: Queue, id_: str) -> bytes:
    return b"".join([piece async for piece in spool.content(id_)])


class Observer(QueueObserver):
    """Notes what it is told.

    :param claims: what it answers.
    """

    def __init__(self, *, claims: bool) -> None:
        self.claims = claims
        self.events: list[tuple[Any, ...]] = []
        self._waiting: tuple[int, Deferred[None]] | None = None

    async def heard(self, count: int) -> None:
        """Wait until it was told so often."""
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
        self._note("claim", info.id)
        return self.claims

    def arrived(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        for leased, claimed in arrivals:
            self._note("arrived", leased.message.id, claimed, leased.content)

    def unclaimed(self, info: MessageInfo) -> None:
        self._note("unclaimed", info.id)

    def queue_changed(self) -> None:
        self._note("queue_changed")
