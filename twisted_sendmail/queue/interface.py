"""Interface of a queue: the promises that every engine keeps.

1. ``Intake.commit`` fires when the message would survive a power failure, not before.
2. Content is written once.  State changes only by ``settle`` and by an operator's ``act``.
3. A settlement is durable as a whole, its reports included, or not at all.
4. A message is leased to one delivery at a time.  Leases of a process that died end when the
   queue is opened, and are counted in ``interrupted``.  Where several relays share a queue, the
   leases of a relay that died end when it did not renew them in time; what is recorded for a lease
   that ended changes nothing (``LeaseLost``).
5. Damaged data are set aside and never delay or damage other messages.

Every method returns a Deferred; cancelling it stops the waiting, never the work.  Requests are
done in their order; only ``list``, ``count`` and ``totals`` may also see what was requested later.
The errors are those of ``errors``.  One conformance suite runs against every engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from twisted.internet.defer import Deferred

    from twisted_sendmail.queue.models import (
        AttemptRecord,
        ClusterState,
        DownRoute,
        LeasedMessage,
        MessageInfo,
        QueueAction,
        QueueActionResult,
        QueuedMessage,
        QueueTotals,
        Selection,
    )

#: Octets up to which a content is kept in memory between arrival and delivery.
INLINE_SIZE = 64 * 1024


@attrs.frozen
class RecoveryReport:
    """State of a queue when it was opened."""

    #: Number of messages.
    messages: int
    #: Ids of messages whose last attempt did not end: a second copy may go out.
    interrupted: tuple[str, ...]


class QueueObserver(ABC):
    """Consumer of the queue, notified of arrivals in the reactor's thread."""

    @abstractmethod
    def claim(self, info: MessageInfo) -> bool:
        """Return True to try the message at once: the commit then leases it."""

    @abstractmethod
    def arrived(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        """Handle messages of one commit.

        :param arrivals: each message, and whether it was claimed: then it is leased, and to be
            tried now.
        """

    @abstractmethod
    def unclaimed(self, info: MessageInfo) -> None:
        """Release the claim on a message whose commit failed."""

    @abstractmethod
    def queue_changed(self) -> None:
        """Read the queue again: another process or an operator changed it."""

    def queue_flushed(self, routes: Collection[str]) -> None:
        """Read the queue again, and try mail of *routes* now, whatever these routes wait for.

        Called instead of :meth:`queue_changed` when an operator flushed or requeued messages.

        :param routes: names of routes; ``""`` is all of them.
        """
        self.queue_changed()

    def mail_waits(self) -> None:  # noqa: B027 - not every observer shares its queue
        """Read the next due times again: another relay changed the queue that it shares."""

    def cluster_changed(self, state: ClusterState) -> None:  # noqa: B027
        """Handle a change of the relays that share the queue, or of the routes they found down."""

    def interrupted(self, node: str, ids: Sequence[str]) -> None:  # noqa: B027
        """Handle the end of another relay, which did not renew its leases.

        :param node: name of the relay that had them.
        :param ids: messages whose attempt may have ended in a delivery: a second copy may go out.
        """


class Intake(ABC):
    """One message being written to the queue; ends with ``commit`` or ``abort``."""

    @abstractmethod
    def write(self, data: bytes) -> Deferred[None] | None:
        """Append canonical content.

        :returns: a Deferred when the caller has to wait before the next write.
        :raises QueueFull: through the Deferred.
        """

    @abstractmethod
    def commit(self, info: MessageInfo) -> Deferred[QueuedMessage]:
        """Make the message durable.

        :raises QueueError: the commit failed, and nothing of the message is left.
        """

    @abstractmethod
    def abort(self) -> None:
        """Discard the message."""


class Queue(ABC):
    """A durable queue."""

    #: Notified of arrivals; set by the consumer of the queue.
    observer: QueueObserver | None = None

    @abstractmethod
    def open(self) -> Deferred[RecoveryReport]:
        """Open the queue for this process.

        :raises QueueUnusable: missing, read-only, owned by another user, damaged, of a newer
            format, or in use.  The text is one line that names the cause and a remedy.
        """

    @abstractmethod
    def close(self) -> Deferred[None]:
        """Finish pending operations and close; remaining leases end without being counted."""

    @abstractmethod
    def new_id(self) -> str:
        """Return a new queue id."""

    @abstractmethod
    def intake(self) -> Intake:
        """Start a new message."""

    @abstractmethod
    def check_space(self, size: int) -> Deferred[None]:
        """Check the space for mail that can wait outside the queue, before it is read.

        The queue keeps more space for mail that comes by SMTP, which has no other place.  An engine
        that cannot tell accepts everything here.

        :param size: octets of the mail.
        :raises QueueFull: through the Deferred: leave the mail where it is.
        :raises QueueError: through the Deferred: the queue cannot be read.
        """

    @abstractmethod
    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> Deferred[list[LeasedMessage]]:
        """Lease messages for delivery, durably.

        :param route: name of the route.
        :param now: lease messages due at this time.
        :param fresh: largest number of messages that were never tried, oldest first.
        :param retries: largest number of other messages, longest due first.
        :param horizon: a due time after this one results from a clock that jumped, and counts
            as due.
        """

    @abstractmethod
    def next_due(self) -> Deferred[dict[str, float]]:
        """Return the next due time of each route that has messages."""

    @abstractmethod
    def content(self, id: str) -> AsyncIterator[bytes]:  # noqa: A002 - the field's name
        """Yield the content of a message in pieces, each verified.

        :raises MessageDamaged: the stored data differ from what was written.
        """

    @abstractmethod
    def settle(self, settlement: AttemptRecord) -> Deferred[QueuedMessage | None]:
        """Record the end of an attempt and end its lease.

        :returns: the message, or None when it left the queue: no recipient is pending and it is
            not set aside, or its removal was requested during the attempt.
        :raises LeaseLost: the lease of the attempt ended before, and nothing was recorded.
        """

    @abstractmethod
    def release(self, leased: Sequence[LeasedMessage]) -> Deferred[None]:
        """End leases of messages that were not tried; leases that ended before are left out."""

    @abstractmethod
    def reroute(self, routes: dict[str, str]) -> Deferred[None]:
        """Move messages to other routes, given as old name to new name."""

    @abstractmethod
    def list(self, selection: Selection) -> Deferred[Sequence[QueuedMessage]]:
        """Return the messages of *selection*, oldest first."""

    @abstractmethod
    def count(self, selection: Selection) -> Deferred[int]:
        """Return the number of messages of *selection*, without regard to its ``limit``."""

    @abstractmethod
    def record_route(self, name: str, down: DownRoute | None) -> Deferred[None]:
        """Record that route *name* is down, or up (None).

        Commands that list the queue show it, and so do the relays that share it
        (``QueueObserver.cluster_changed``).  The record ends when the queue is opened again and no
        other relay has it open.
        """

    @abstractmethod
    def act(
        self, action: QueueAction, selection: Selection, now: float
    ) -> Deferred[Sequence[QueueActionResult]]:
        """Apply *action* to the messages of *selection*.

        FLUSH and REQUEUE also end the waits of the routes of these messages, and of all routes if
        *selection* is the whole queue.  They do not if it is the mail of one user (``uid``): each
        attempt of a route whose credentials were refused is one more failed login.
        """

    @abstractmethod
    def count_running(self, passed: float) -> Deferred[None]:
        """Add to the age of all messages, except those on hold.

        :param passed: seconds that a relay ran with this queue since the previous call.  They are
            counted and not read from a clock, so that a clock that jumps makes no mail old.
        """

    @abstractmethod
    def clear_aside(self, keep: float) -> Deferred[Sequence[str]]:
        """Remove undeliverable messages that were kept long enough; return their ids.

        Each call removes a limited number: call again until the result is empty.  Messages on hold
        and damaged messages stay.

        :param keep: age since it was set aside at which a message is removed (``count_running``).
        """

    @abstractmethod
    def taken_files(self) -> Deferred[Sequence[str]]:
        """Return the keys of files whose messages were committed (``MessageInfo.file_key``)."""

    @abstractmethod
    def forget_files(self, keys: Sequence[str]) -> Deferred[None]:
        """Forget the keys of files that do not exist any more."""

    @abstractmethod
    def totals(self) -> Deferred[QueueTotals]:
        """Return figures of the whole queue."""

    @abstractmethod
    def probe(self) -> Deferred[None]:
        """Write and commit something without meaning, for the health check.

        :raises QueueError: mail could not be accepted now.
        """
