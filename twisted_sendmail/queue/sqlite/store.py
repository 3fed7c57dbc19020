"""The store: a queue in one SQLite database, used by one thread at a time.

Synchronous and without Twisted: the relay drives it from a thread (``sqlite_spool``), the
commands of an operator use it directly, beside a running relay.  It does not take the
relay's lock, and does not know when a transaction begins: who calls does.

    with Store(directory) as store, store.transaction():
        store.act(Action.FLUSH, Selection(), time.time())
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from twisted_sendmail.queue.ids import id_number
from twisted_sendmail.queue.sqlite import arriving, operating, plain_settlement, reading, settling
from twisted_sendmail.queue.sqlite.connection import PATIENCE, SQLiteConnection, trouble
from twisted_sendmail.queue.sqlite.opening import open_database, verify
from twisted_sendmail.queue.sqlite.premises import check_database, check_directory
from twisted_sendmail.queue.sqlite.row import Damaged
from twisted_sendmail.queue.trouble import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from types import TracebackType

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
    from twisted_sendmail.queue.sqlite.arriving import Pieces

_Self = TypeVar("_Self", bound="SQLiteStore")
#: Pieces removed in one go.
_SWEPT = 8
#: Messages that are in memory at once, where a whole queue is read.
_PAGE = 500


class SQLiteStore:
    """The queue in *directory*.

    :param patience: seconds to wait while another process writes.
    :param damaged: told the id of each message that is found damaged, and set aside.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        patience: float = PATIENCE,
        damaged: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = Path(directory)
        self._patience = patience
        self._damaged = damaged
        self._relay = False
        self._connection: SQLiteConnection | None = None

    # Opening and closing

    def open(self, *, create: bool = False, relay: bool = False) -> None:
        """Open it; a new one where there is none and *create* says so.

        :param relay: for the life of a relay: it has to be this user's, it is verified,
            and it is this connection that tidies up the database.
        :raises QueueUnusable: it cannot be used; what is wrong, and what to do.
        """
        check_directory(self.directory, create=create, root_may=not relay)
        self._relay = relay
        path = self._connect(create=create)
        if relay:
            try:
                verify(self.connection, path)
            except BaseException:
                self.close()
                raise

    def reopen(self) -> None:
        """Open it anew, with another connection.

        :raises QueueUnusable: it cannot be used.
        """
        self.close()
        self._connect(create=False)

    def _connect(self, *, create: bool) -> Path:
        path = check_database(self.directory, create=create)
        self._connection = open_database(path, patience=self._patience, relay=self._relay)
        return path

    def close(self) -> None:
        """Close it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

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

    @property
    def connection(self) -> SQLiteConnection:
        """The open connection.

        :raises QueueError: it is closed.
        """
        if self._connection is None:
            raise QueueError("the queue is not open")
        return self._connection

    # Transactions

    def begin(self, *, write: bool = True) -> None:
        """Begin a transaction."""
        self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def commit(self) -> None:
        """What was done since ``begin`` is durable when this returns."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Nothing was done since ``begin``."""
        # Some errors have done it already.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @contextmanager
    def transaction(self, *, write: bool = True, doing: str = "do it") -> Iterator[None]:
        """All that is done inside, or nothing.

        :param doing: for the error, behind "the queue could not".
        :raises QueueError: it could not, and nothing was done.
        """
        try:
            self.begin(write=write)
            yield
            self.commit()
        except BaseException as e:
            # Where that fails too, the first error says more.
            with suppress(sqlite3.Error, QueueError):
                self.rollback()
            if isinstance(e, (sqlite3.Error, OSError)):
                raise trouble(e, doing) from e
            raise

    @property
    def changes(self) -> int:
        """Rows changed since it was opened."""
        return self.connection.changes

    # Bringing in

    def put(
        self, draft: MessageInfo, content: bytes | Pieces, *, leased: bool = False
    ) -> QueuedMessage:
        """Write a message that is due at once.

        :param content: all of it, or what was written in pieces.
        :param leased: it is tried at once.
        :raises QueueError: there is one of this id, or a piece is missing.
        """
        return arriving.put_message(self.connection, draft, content, leased=leased)

    def put_all(
        self, arrivals: Sequence[tuple[MessageInfo, bytes | Pieces, bool]]
    ) -> list[QueuedMessage]:
        """Write many; of each its draft, its content, and if it is leased."""
        return arriving.put_messages(self.connection, arrivals)

    def put_piece(self, body: int, place: int, data: bytes) -> None:
        """Write one piece (``arriving.PIECE`` octets at the most) of a message to come.

        :param body: a new number of a ``QueueIds``, for all of its pieces.
        :param place: from 0.
        """
        arriving.put_piece(self.connection, body, place, data)

    def sweep(self, body: int) -> bool:
        """Remove some pieces of no message; True when none of *body* is left to remove."""
        return arriving.sweep(self.connection, body, _SWEPT)

    def throw_away_orphans(self, older_than: int) -> None:
        """What is left of messages that never came is rubbish, below that number."""
        arriving.throw_away_orphans(self.connection, older_than)

    def rubbish(self) -> list[int]:
        """The bodies that are to be swept."""
        return arriving.rubbish(self.connection)

    # Taking out

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> list[LeasedMessage]:
        """See ``Spool.lease``."""
        return reading.lease(
            self.connection, (route, now, horizon), (fresh, retries), self._damaged
        )

    def next_due(self) -> dict[str, float]:
        """See ``Spool.next_due``."""
        return reading.next_due(self.connection)

    def where(self, id: str) -> reading.Where:  # noqa: A002 - that is its name
        """Where the content of a message is.

        :raises QueueError: there is no such message.
        :raises MessageDamaged: it is not what was written.
        """
        return reading.where(self.connection, id)

    def piece(self, at: reading.Where, place: int) -> bytes:
        """One piece of a content; *place* is 0 where it is in one.

        :raises MessageDamaged: it is not what was written.
        """
        return reading.piece(self.connection, at, place)

    def content(self, id: str) -> Iterator[bytes]:  # noqa: A002 - that is its name
        """The content of a message, in pieces, each checked before it is given.

        :raises QueueError: there is no such message.
        :raises MessageDamaged: it is not what was written.
        """
        at = self.where(id)
        for place in range(max(1, at.pieces)):
            yield self.piece(at, place)

    def settle(self, settlement: AttemptRecord) -> QueuedMessage | None:
        """See ``Spool.settle``."""
        try:
            return settling.settle(self.connection, settlement)
        except Damaged:
            self.set_aside(settlement.id)
            return None

    def settle_together(self, settlements: Sequence[AttemptRecord]) -> set[str]:
        """Remove those that are over by plain settlements; gives their ids."""
        return plain_settlement.settle_together(self.connection, settlements)

    def set_aside(self, id: str) -> None:  # noqa: A002 - that is its name
        """Keep a damaged message for the operator, and tell of it."""
        number = id_number(id)
        if number is not None:
            reading.set_aside(self.connection, number)
            self._damaged(id)

    def release(self, ids: Iterable[str]) -> None:
        """See ``Spool.release``."""
        settling.release(self.connection, ids)

    def end_leases(self, *, interrupted: bool, but: Collection[str] = ()) -> tuple[str, ...]:
        """End every lease; gives the ids of the messages that are left.

        :param interrupted: nobody saw the end of these tries.
        :param but: not these.
        """
        return settling.end_leases(self.connection, interrupted=interrupted, but=but)

    def reroute(self, routes: dict[str, str]) -> None:
        """See ``Spool.reroute``."""
        settling.reroute(self.connection, routes)

    # For the operator

    def probe(self) -> None:
        """Write something that means nothing."""
        self.connection.execute("INSERT OR IGNORE INTO rubbish VALUES (-1)")
        self.connection.execute("DELETE FROM rubbish WHERE body = -1")

    def newest(self) -> int:
        """The greatest number of an id; 0: there is none."""
        return int(self.connection.value("SELECT ifnull(max(number), 0) FROM message"))

    def count(self) -> int:
        """How many messages there are."""
        return int(self.connection.value("SELECT count(*) FROM message"))

    def list(
        self, selection: Selection, *, after: str | None = None, most: int | None = None
    ) -> list[QueuedMessage]:
        """See ``Spool.list``.

        :param after: only those behind this id.
        :param most: at most so many.
        """
        number = id_number(after) if after is not None else None
        return operating.listed(
            self.connection, selection, after=-1 if number is None else number, most=most
        )

    def pages(self, selection: Selection, most: int = _PAGE) -> Iterator[Sequence[QueuedMessage]]:
        """The same, at most so many at a time; no page is empty."""
        after: str | None = None
        while page := self.list(selection, after=after, most=most):
            yield page
            if len(page) < most:
                return
            after = page[-1].id

    def act(self, action: QueueAction, selection: Selection, now: float) -> list[QueueActionResult]:  # type: ignore[valid-type]
        """See ``Spool.act``; a running relay is told by ``wakeup.wake``."""
        return operating.act(self.connection, action, selection, now)

    def clear_aside(self, passed: float, keep: float) -> Sequence[str]:
        """See ``Spool.clear_aside``."""
        return operating.clear_aside(self.connection, passed, keep)

    def totals(self) -> QueueTotals:
        """See ``Spool.totals``."""
        return operating.totals(self.connection)

    def unused(self) -> int:
        """Octets of the database that hold nothing, and are used before it grows."""
        pages = self.connection.value("PRAGMA freelist_count")
        return int(pages * self.connection.value("PRAGMA page_size"))

    def data_version(self) -> int:
        """A number that changes when another process has changed something."""
        return int(self.connection.value("PRAGMA data_version"))
