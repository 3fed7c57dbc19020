"""The interface of a spool: what any store has to do, and promise.

1. ``Intake.commit`` fires when the message would survive a power cut, and not before.
2. Content is written once.  A state changes only by ``settle`` or an operator's ``act``.
3. A settlement is durable as a whole, its reports included, or not at all.
4. A message is leased to one at a time.  Leases of a process that died end when the spool
   is opened, and are counted in ``interrupted``.
5. What cannot be read any more is set aside, and never holds up or damages another.

Everything gives a Deferred; cancelling one stops the waiting, never the work.  Errors
are those of ``spool.trouble``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted.internet.defer import Deferred

    from twisted_sendmail.queue.models import (
        AttemptRecord,
        LeasedMessage,
        MessageInfo,
        QueueAction,
        QueueActionResult,
        QueuedMessage,
        QueueTotals,
        Selection,
    )

_log = Logger(namespace="twisted_sendmail.queue")

#: Octets up to which a content is kept in memory on its way through.
SMALL = 64 * 1024


@dataclass(frozen=True)
class RecoveryReport:
    """What was found when a spool was opened."""

    #: Messages in it.
    messages: int
    #: Those whose last try nobody saw the end of: a second copy of them may go out.
    interrupted: tuple[str, ...]


class QueueObserver(ABC):
    """Who takes mail out: told of what comes in.  Its methods are called in the reactor's thread."""

    @abstractmethod
    def claim(self, draft: MessageInfo) -> bool:
        """Is this one tried at once?  Then it is leased by the commit that brings it in."""

    @abstractmethod
    def arrived(self, leased: LeasedMessage, *, claimed: bool) -> None:
        """One was committed; a claimed one is to be tried now, and was leased."""

    def arrived_together(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        """These were committed together: each message, and whether it is a claimed one."""
        for leased, claimed in arrivals:
            try:
                self.arrived(leased, claimed=claimed)
            except Exception:  # noqa: BLE001 - one's fault is not the next one's
                _log.failure("an observer of the queue failed")

    @abstractmethod
    def unclaimed(self, draft: MessageInfo) -> None:
        """A claimed one did not come in after all."""

    @abstractmethod
    def disturbed(self) -> None:
        """Somebody else changed the queue: look again."""


class Intake(ABC):
    """One message on its way in; ends with ``commit`` or ``abort``."""

    @abstractmethod
    def write(self, data: bytes) -> Deferred[None] | None:
        """Some canonical content; a Deferred when the next piece has to wait.

        :raises QueueFull: through the Deferred.
        """

    @abstractmethod
    def commit(self, draft: MessageInfo) -> Deferred[QueuedMessage]:
        """Make it durable.

        :raises QueueError: it is not, and nothing of it is left.
        """

    @abstractmethod
    def abort(self) -> None:
        """Forget it."""


class Queue(ABC):
    """A durable queue."""

    #: Told of what comes in; set by who takes mail out.
    observer: QueueObserver | None = None

    @abstractmethod
    def open(self) -> Deferred[RecoveryReport]:
        """Open it, for this one process.

        :raises QueueUnusable: missing, read-only, somebody else's, damaged, of a newer
            format, or in use.  The text is one line that says which, and what to do.
        """

    @abstractmethod
    def close(self) -> Deferred[None]:
        """End what is begun and close; leases of ours that are left end, uncounted."""

    @abstractmethod
    def new_id(self) -> str:
        """A name for a message."""

    @abstractmethod
    def intake(self) -> Intake:
        """Begin to take a message in."""

    @abstractmethod
    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> Deferred[list[LeasedMessage]]:
        """Take messages out to be tried, and lease them durably.

        :param route: of this way out.
        :param now: those that are due.
        :param fresh: at most so many that were never tried, the oldest first.
        :param retries: at most so many others, the longest due first.
        :param horizon: a due time beyond is the fruit of a clock that jumped, and counts as due.
        """

    @abstractmethod
    def next_due(self) -> Deferred[dict[str, float]]:
        """For each route, when the next of its messages is due; routes without any are absent."""

    @abstractmethod
    def content(self, id: str) -> AsyncIterator[bytes]:  # noqa: A002 - that is its name
        """The content of a message, in pieces, each checked before it is given.

        :raises MessageDamaged: it is not what was written.
        """

    @abstractmethod
    def settle(self, settlement: AttemptRecord) -> Deferred[QueuedMessage | None]:
        """End a lease; gives the message, or None when it is gone.

        It is gone when no recipient is pending and it is not set aside, or when it was doomed.
        """

    @abstractmethod
    def release(self, ids: Sequence[str]) -> Deferred[None]:
        """End leases of messages that were not tried after all."""

    @abstractmethod
    def reroute(self, routes: dict[str, str]) -> Deferred[None]:
        """Give the messages of other routes: from name to name."""

    @abstractmethod
    def list(self, selection: Selection) -> Deferred[Sequence[QueuedMessage]]:
        """The messages of *selection*, the oldest first."""

    @abstractmethod
    def act(
        self, action: QueueAction, selection: Selection, now: float
    ) -> Deferred[Sequence[QueueActionResult]]:
        """Do *action* to the messages of *selection*."""

    @abstractmethod
    def clear_aside(self, passed: float, keep: float) -> Deferred[Sequence[str]]:
        """Remove what was set aside as undeliverable and kept for its time; gives the ids.

        A part of it at a time: ask again, with 0, until nothing is given.  What is on hold
        stays and grows no older; what is damaged stays.

        :param passed: seconds that each has been kept longer than when it was last asked.
            They are counted and not read off a clock, so that a clock cannot remove anything.
        :param keep: seconds after which it is to go.
        """

    @abstractmethod
    def totals(self) -> Deferred[QueueTotals]:
        """The queue in numbers."""

    def probe(self) -> Deferred[None]:
        """Write something that means nothing, and make it durable: for the health check.

        A store in which that writes nothing has its own way.

        :raises QueueError: mail could not be taken in now.
        """
        return self.release(())
