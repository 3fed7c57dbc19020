"""What the spool asks of its store: each an operation, with who is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_sendmail.queue.models import LeasedMessage
from twisted_sendmail.queue.sqlite.group_commit import Kind, Operation
from twisted_sendmail.queue.sqlite.insistence import Insistence, Record
from twisted_sendmail.queue.trouble import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.queue.models import AttemptRecord, MessageInfo, QueuedMessage
    from twisted_sendmail.queue.sqlite.arriving import Pieces
    from twisted_sendmail.queue.sqlite.intake import SQLiteIntake
    from twisted_sendmail.queue.sqlite.room import Room
    from twisted_sendmail.queue.sqlite.spool import SQLiteQueue
    from twisted_sendmail.queue.sqlite.store import SQLiteStore

_log = Logger(namespace="twisted_sendmail.queue")


class Asked(Operation):
    """An operation with a Deferred."""

    __slots__ = ("done",)

    def __init__(self, work: Callable[[SQLiteStore], Any], kind: Kind, doing: str) -> None:
        super().__init__(work, kind, doing)
        self.done: Deferred[Any] = Deferred()

    def fire(self) -> None:
        """See ``Operation.fire``."""
        if self.error is None:
            self.done.callback(self.result)
        else:
            self.done.errback(self.error)


class Settled(Record):
    """A plain settlement: most of them remove a message, and many do together."""

    __slots__ = ("settlement",)

    def __init__(self, insistence: Insistence, settlement: AttemptRecord) -> None:
        super().__init__(insistence, (settlement.id,))
        self.settlement = settlement

    def work(self, store: SQLiteStore) -> Any:
        """See ``Operation.work``."""
        return store.settle(self.settlement)

    @staticmethod
    def many(store: SQLiteStore, some: Sequence[Settled]) -> Sequence[Settled]:
        """See ``Operation.many``."""
        gone = store.settle_together([settled.settlement for settled in some])
        for settled in some:
            settled.result = None
        return [settled for settled in some if settled.settlement.id not in gone]


class Piece(Operation):
    """One piece of a large content."""

    __slots__ = ("_at", "_data", "_intake", "_room")

    def __init__(self, intake: SQLiteIntake, room: Room, at: tuple[int, int], data: bytes) -> None:
        super().__init__(doing="take the message in")
        self._intake = intake
        self._room = room
        self._at = at
        self._data = data

    def work(self, store: SQLiteStore) -> None:
        """See ``Operation.work``."""
        self._room.ask(len(self._data))
        store.put_piece(*self._at, self._data)

    def fire(self) -> None:
        """See ``Operation.fire``."""
        self._intake.written(self.error)


class Arrival(Operation):
    """The commit of a message; many of them are written together."""

    __slots__ = ("_intake", "_spool", "claimed", "content", "done", "draft")

    def __init__(
        self, spool: SQLiteQueue, draft: MessageInfo, content: bytes | Pieces, intake: SQLiteIntake
    ) -> None:
        super().__init__(doing="take the message in")
        self._spool = spool
        self.draft = draft
        self.content = content
        self._intake = intake
        self.claimed = False
        self.done: Deferred[Any] = Deferred()

    def claim(self) -> None:
        """Ask whether it is tried at once."""
        observer = self._spool.observer
        if observer is not None and not self.draft.held:
            try:
                self.claimed = observer.claim(self.draft)
            except Exception:  # noqa: BLE001 - it is taken in all the same
                _log.failure("an observer of the queue failed")

    @staticmethod
    def many(store: SQLiteStore, some: Sequence[Arrival]) -> Sequence[Arrival]:
        """See ``Operation.many``."""
        ready = [a for a in some if isinstance(a.content, bytes) and a.has_room()]
        messages = store.put_all([(a.draft, a.content, a.claimed) for a in ready])
        for arrival, message in zip(ready, messages, strict=True):
            arrival.result = message
        return [arrival for arrival in some if not isinstance(arrival.content, bytes)]

    def has_room(self) -> bool:
        """Is there; else that is its error."""
        try:
            self._spool.room.ask(len(self.content))  # type: ignore[arg-type]
        except QueueFull as e:
            self.error = e
            return False
        return True

    def work(self, store: SQLiteStore) -> QueuedMessage:
        """See ``Operation.work``."""
        if isinstance(self.content, bytes):
            self._spool.room.ask(len(self.content))
        return store.put(self.draft, self.content, leased=self.claimed)

    def fire(self) -> None:
        """See ``Operation.fire``."""
        self.error = self._intake.ended(self.error)
        if self.error is None:
            self.done.callback(self.result)
        else:
            self.done.errback(self.error)

    def after(self) -> None:
        """See ``Operation.after``."""
        observer = self._spool.observer
        if observer is None:
            return
        if self.error is None:
            small = self.claimed and isinstance(self.content, bytes)
            content = self.content if small else None
            self._spool.arrivals.append((LeasedMessage(self.result, content), self.claimed))  # type: ignore[arg-type]
        elif self.claimed:
            observer.unclaimed(self.draft)
