"""Interface of a store: the synchronous operations on the tables of one queue.

A store has no thread and no reactor, and one thread uses it at a time.  The relay drives it from a
thread of its own (``stored_queue.StoredQueue``), which turns its operations into a ``Queue``;
commands of an operator use it directly, beside a running relay::

    with SQLiteStore(directory) as store, store.transaction(doing="flush messages"):
        store.act(QueueAction.FLUSH, Selection(), time.time())

The life of a message:

1. ``put_all`` inserts the message, its recipients, and its content: small content with the message,
   large content before it by ``put_piece``.  Pieces without a message are found by ``begin_relay``
   and removed in small steps by ``sweep``.
2. ``lease`` takes messages that are due.  A message may also be inserted leased.
3. ``settle_all`` records an attempt and ends the lease: the message leaves the queue when no recipient
   is pending, else its next ``due`` is computed from its recipients.  ``release`` ends a lease
   without an attempt; ``begin_relay`` ends those of relays that died, and counts them.
4. ``act`` changes messages for an operator.  A message that is leased is not removed but marked
   ``doomed``, and leaves the queue when the attempt ends.

Invariants: constant columns are covered by a checksum that every read verifies; a damaged message
is set aside and never delivered; nothing but ``settle_all`` ends a recipient's *pending* state.

Every operation but ``open``, ``reopen``, ``close`` and ``error`` runs in a transaction: between
``begin`` and ``commit``, or in the block of ``transaction``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import attrs

from twisted_sendmail.queue.errors import MessageDamaged, QueueError
from twisted_sendmail.queue.models import (
    LASTING_LEASE,
    ClusterState,
    QueueAction,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    SetAsideReason,
)
from twisted_sendmail.queue.rows import Damaged, content_checksum

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from types import TracebackType

    from twisted_sendmail.queue.interface import RecoveryReport
    from twisted_sendmail.queue.models import (
        AttemptRecord,
        DownRoute,
        Lease,
        LeasedMessage,
        MessageInfo,
        QueueActionResult,
        QueueTotals,
        Selection,
    )

_Self = TypeVar("_Self", bound="Store")

#: Octets of one piece of large content.
PIECE_SIZE = 256 * 1024
#: Pieces removed by one ``sweep``.
SWEEP_PIECES = 8
#: Messages read at once where the whole queue is read.
PAGE = 500
#: Undeliverable messages removed by one ``clear_aside``, so that new mail does not wait.
CLEAR_LIMIT = 100


@attrs.frozen
class Pieces:
    """Large content, written in pieces before its message."""

    #: Number shared by the pieces.
    body: int
    count: int
    #: Octets of all pieces.
    size: int


@attrs.frozen
class ContentPlace:
    """Place of a message's content."""

    number: int
    #: Number of the pieces; None: the content is in one row.
    body: int | None
    pieces: int
    size: int


@attrs.frozen
class StoreState:
    """State of a store that is read every few seconds."""

    #: Changes when another process changed the queue for an operator.
    version: int
    #: Changes when another relay changed the queue.
    others: int = 0
    #: Bodies to be swept.
    rubbish: Sequence[int] = ()
    cluster: ClusterState = attrs.field(factory=ClusterState)


class Store(ABC):
    """The tables of one queue."""

    #: Errors of the database, which ``transaction`` turns into a ``QueueError``.
    errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    # -- opening, closing, transactions ---------------------------------------------

    @abstractmethod
    def open(self, *, create: bool = False, relay: bool = False, read_only: bool = False) -> None:
        """Open the queue.

        :param create: create it if it does not exist.
        :param relay: for a relay, which leases messages.
        :param read_only: nothing is written.
        :raises QueueMissing: it does not exist, and is not to be created.
        :raises QueueUnusable: the text names the cause and a remedy.
        """

    @abstractmethod
    def reopen(self) -> None:
        """Replace the connection.

        :raises QueueError: the queue cannot be used now.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the queue."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """The queue is open."""

    @abstractmethod
    def begin(self, *, write: bool = True) -> None:
        """Begin a transaction."""

    @abstractmethod
    def commit(self) -> None:
        """Commit: the changes since ``begin`` are durable when this returns."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo all changes since ``begin``."""

    @property
    @abstractmethod
    def changes(self) -> int:
        """Number that grows with every change since the queue was opened."""

    @abstractmethod
    def error(self, error: Exception, doing: str) -> QueueError:
        """Return the error of the queue for *error*.

        :param doing: what failed, following "the queue could not".
        """

    def concerns_all(self, error: Exception) -> bool:
        """Return whether *error* ends every operation of its transaction, and not only the faulty one."""
        return False

    def admit(self, size: int) -> None:  # noqa: B027 - not every store can tell
        """Reserve space for *size* octets of content.

        :raises QueueFull: there is too little free space.
        """

    def check_space(self, size: int) -> None:  # noqa: B027 - not every store can tell
        """See ``Queue.check_space``.

        :raises QueueFull: there is too little free space.
        """

    @contextmanager
    def transaction(self, *, write: bool = True, doing: str = "do it") -> Iterator[None]:
        """Commit what the block does, or nothing of it.

        :param doing: text for the error, following "the queue could not".
        :raises QueueError: nothing was changed.
        """
        try:
            self.begin(write=write)
            yield
            self.commit()
        except BaseException as e:
            # The first error is the one to report.
            with suppress(QueueError, *self.errors):
                self.rollback()
            if isinstance(e, self.errors):
                raise self.error(e, doing) from e
            raise

    def __enter__(self: _Self) -> _Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- a relay -------------------------------------------------------------------------

    @abstractmethod
    def begin_relay(self, orphans_before: int) -> RecoveryReport:
        """Register a relay that starts, and end the leases of those that died.

        :param orphans_before: pieces without a message are removed if the number of their body is
            smaller.
        """

    @abstractmethod
    def end_relay(self, but: Collection[str]) -> None:
        """End the leases of this relay, which stops; they are not counted as interrupted.

        :param but: ids of leases to keep: the results of their attempts could not be recorded.
        """

    @abstractmethod
    def state(self) -> StoreState:
        """Return the state that the relay reads every few seconds."""

    # -- arrival -----------------------------------------------------------------------

    def put(
        self, info: MessageInfo, content: bytes | Pieces, *, leased: bool = False
    ) -> QueuedMessage:
        """Insert one message; see ``put_all``."""
        return self.put_all([(info, content, leased)])[0]

    @abstractmethod
    def put_all(
        self, arrivals: Sequence[tuple[MessageInfo, bytes | Pieces, bool]]
    ) -> list[QueuedMessage]:
        """Insert messages that are due at once.

        :param arrivals: for each message its ``MessageInfo``, its content, and whether it is
            inserted leased.
        :raises QueueError: an id or a file's key exists already, or a piece is missing; the transaction is to be
            rolled back.
        """

    @abstractmethod
    def restore(self, message: QueuedMessage) -> None:
        """Give a message that was put in this transaction the state that another queue exported.

        :param message: it, not leased, with its recipients, due times, attempts, and age.
        """

    @property
    def first_lease(self) -> Lease:
        """The lease of a message that ``put_all`` inserts leased."""
        return LASTING_LEASE

    @property
    def may_lease(self) -> bool:
        """Messages may be inserted leased: the leases of this relay have not ended."""
        return True

    @abstractmethod
    def put_piece(self, body: int, place: int, data: bytes) -> None:
        """Insert one piece, of ``PIECE_SIZE`` octets at most, of content whose message follows.

        :param body: a new number from ``QueueIds``, the same for all pieces.
        :param place: position, from 0.
        """

    @abstractmethod
    def sweep(self, body: int) -> bool:
        """Remove some pieces of *body*; return True when none is left, or a message has them.

        Large content is removed in small steps, so that no other operation waits for long.
        """

    @abstractmethod
    def taken_files(self) -> Sequence[str]:
        """Return the keys of files whose messages were committed."""

    @abstractmethod
    def forget_files(self, keys: Sequence[str]) -> None:
        """Forget keys of files that do not exist any more."""

    # -- delivery ----------------------------------------------------------------------

    @abstractmethod
    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> list[LeasedMessage]:
        """Lease messages that are due; see ``Queue.lease``.  Damaged ones are set aside."""

    @abstractmethod
    def next_due(self) -> dict[str, float]:
        """Return the next due time of each route; see ``Queue.next_due``."""

    @abstractmethod
    def where(self, id: str) -> ContentPlace:  # noqa: A002 - the field's name
        """Return the place of a message's content.

        :raises QueueError: there is no such message.
        :raises MessageDamaged: the message is damaged.
        """

    @abstractmethod
    def piece(self, at: ContentPlace, place: int) -> bytes:
        """Return one piece of a content; *place* is 0 where the content is in one row.

        :raises MessageDamaged: the data differ from what was written.
        """

    def content(self, id: str) -> Iterator[bytes]:  # noqa: A002 - the field's name
        """Yield the content of a message in pieces, each verified.

        :raises QueueError: there is no such message.
        :raises MessageDamaged: the data differ from what was written.
        """
        at = self.where(id)
        for place in range(max(1, at.pieces)):
            yield self.piece(at, place)

    @abstractmethod
    def set_aside(self, id: str) -> None:  # noqa: A002 - the field's name
        """Set a damaged message aside."""

    # -- results -----------------------------------------------------------------------

    def settle(self, record: AttemptRecord) -> QueuedMessage | None:
        """Record the end of one attempt; see ``settle_all``."""
        left = self.settle_all([record])[0]
        if isinstance(left, QueueError):
            raise left
        return left

    @abstractmethod
    def settle_all(
        self, records: Sequence[AttemptRecord]
    ) -> Sequence[QueuedMessage | QueueError | None]:
        """Record the end of attempts; see ``Queue.settle``.

        A message that is not leased was recorded already and stays as it is.

        :returns: what is left of each message, or the error of the one record.
        """

    @abstractmethod
    def release(self, leased: Sequence[LeasedMessage]) -> None:
        """End leases of messages that were not tried."""

    @abstractmethod
    def hold_unrecorded(self, id: str, lease: Lease | None) -> None:  # noqa: A002 - the field's name
        """End the lease of a message whose result cannot be recorded, and put it on hold."""

    @abstractmethod
    def reroute(self, routes: dict[str, str]) -> None:
        """Rename the routes of messages, all at the same time."""

    # -- operators ---------------------------------------------------------------------

    @abstractmethod
    def probe(self) -> None:
        """Write something without meaning."""

    @abstractmethod
    def newest(self) -> int:
        """Return the largest number of an id; 0: there is no message."""

    @abstractmethod
    def count(self, selection: Selection | None = None) -> int:
        """Return the number of messages that match, without regard to ``limit``; all if not given."""

    @abstractmethod
    def list(self, selection: Selection) -> list[QueuedMessage]:
        """Return the messages that match, oldest first; damaged ones as far as they are readable."""

    def pages(self, selection: Selection, most: int = PAGE) -> Iterator[Sequence[QueuedMessage]]:
        """Yield all messages that match, in pages of at most *most*; no page is empty."""
        while page := self.list(attrs.evolve(selection, limit=most)):
            yield page
            if len(page) < most:
                return
            selection = attrs.evolve(selection, after=page[-1].id, offset=0)

    @abstractmethod
    def act(self, action: QueueAction, selection: Selection, now: float) -> list[QueueActionResult]:  # type: ignore[valid-type]
        """Apply *action*; return the messages it changed.

        A running relay is notified by ``announce``, after the commit.
        """

    def announce(self) -> None:  # noqa: B027 - a store need not notify another process
        """Notify relays that have the queue open that it was changed; needs no transaction."""

    @abstractmethod
    def take_flushed(self) -> frozenset[str]:
        """Return the routes whose messages were flushed since the last call; ``""`` is all routes."""

    @abstractmethod
    def count_running(self, passed: float) -> None:
        """Add to the age of all mail; see ``Queue.count_running``."""

    @abstractmethod
    def clear_aside(self, keep: float) -> Sequence[str]:
        """Remove undeliverable messages; see ``Queue.clear_aside``."""

    @abstractmethod
    def record_route(self, name: str, down: DownRoute | None) -> None:
        """Record whether a route is down; see ``Queue.record_route``."""

    @abstractmethod
    def down_routes(self) -> dict[str, DownRoute]:
        """Return the routes that are down, by name, as the relays recorded them last."""

    @abstractmethod
    def relay_runs(self) -> bool | None:
        """Return whether a relay has the queue open; None: that cannot be known."""

    @abstractmethod
    def totals(self) -> QueueTotals:
        """Return figures of the whole queue."""


def applies(action: QueueAction, *, held: bool, aside: str | None) -> bool:
    """Return whether *action* changes a message that is on hold, or set aside for the reason *aside*."""
    if action is QueueAction.DELETE:
        return True
    if action is QueueAction.REQUEUE:
        return aside != SetAsideReason.DAMAGED.value
    # A message that is set aside can only be deleted or requeued.
    return aside is None and (action is not QueueAction.RELEASE or held)


def new_message(info: MessageInfo, content: bytes | Pieces, leased: bool) -> QueuedMessage:  # noqa: FBT001
    """Return a message as ``put_all`` inserts it."""
    return QueuedMessage(
        info,
        size=content.size if isinstance(content, Pieces) else len(content),
        recipients=tuple(
            [QueuedRecipient(n, recipient) for n, recipient in enumerate(info.envelope.recipients)]
        ),
        leased=leased,
        held=info.held,
    )


def settled_recipients(record: AttemptRecord) -> set[int]:
    """Return the numbers of the recipients that *record* ends."""
    return {c.number for c in record.changes if c.state is not RecipientState.PENDING}


def intact(row: Sequence[Any] | None, number: int, place: int, size: int | None = None) -> bytes:
    """Return the data of a row with a piece of content and its checksum.

    :raises Damaged: they differ from what was written.
    """
    if row is None or not isinstance(row[0], bytes):
        raise Damaged
    data, checksum = row
    if content_checksum(number, place, data) != checksum or size not in {None, len(data)}:
        raise Damaged
    return bytes(data)


def message_damaged(id: str) -> MessageDamaged:  # noqa: A002 - the field's name
    """Return the error for a damaged message."""
    return MessageDamaged(
        f"message {id} is damaged", detail="the stored data differ from the data written"
    )


def cannot_queue(id: str, why: str) -> QueueError:  # noqa: A002 - the field's name
    """Return the error for a message that the queue will never take."""
    error = QueueError(f"message {id} cannot be queued", detail=why)
    # The header contains the id already: a later try would fail in the same way.
    error.temporary = False
    return error
