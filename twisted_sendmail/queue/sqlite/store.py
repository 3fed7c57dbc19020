"""The queue in SQLite: its files, and the statements that ``sql_store`` has not; without Twisted.

**Theory of operation.**  A queue is one SQLite database in WAL mode with ``synchronous=FULL``: a
commit is on the disk when it returns.  The relay and the commands of an operator use it side by side.
How messages move through the tables is described in ``queue.store``.

Each statement releases the interpreter's lock, and a busy reactor keeps it for milliseconds; a
statement for many rows costs little more than one for a single row (``sql_store``).
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.errors import QueueError
from twisted_sendmail.queue.ids import id_text
from twisted_sendmail.queue.interface import RecoveryReport
from twisted_sendmail.queue.models import (
    DownRoute,
)
from twisted_sendmail.queue.rows import (
    content_checksum,
)
from twisted_sendmail.queue.sql_store import SQLStore, Standing
from twisted_sendmail.queue.sqlite.connection import (
    PATIENCE,
    SQLiteConnection,
    queue_error,
)
from twisted_sendmail.queue.sqlite.files import (
    ForeignOwner,
    RelayLock,
    acting_as,
    check_database,
    check_directory,
    foreign_owner,
)
from twisted_sendmail.queue.sqlite.free_space import FreeSpace
from twisted_sendmail.queue.sqlite.notify import relay_runs, wake
from twisted_sendmail.queue.sqlite.schema import READY, open_database, verify
from twisted_sendmail.queue.store import (
    StoreState,
    cannot_queue,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from twisted_sendmail.queue.models import AttemptRecord, MessageInfo

#: Rows of one INSERT; SQLite allows 32,766 parameters.
_INSERT_ROWS = 64

_DUE = (
    f"SELECT number FROM message WHERE route = ? AND (attempts > 0) = ? AND {READY}"  # noqa: S608
    " AND due {} ? ORDER BY due, number LIMIT ?"
)
# The age of a new message is 0.
_NEW_MESSAGE = "?, " * 20 + "(SELECT CASE WHEN ? THEN 0.0 ELSE ran END FROM about)"
# Recipients still pending, one row each, or one row with NULL.  A damaged state counts as pending.
_STANDING = """
    SELECT message.number, leased, doomed, recipient.number
    FROM message LEFT JOIN recipient ON recipient.message = message.number
        AND state NOT IN ('delivered', 'failed')
    WHERE message.number IN (SELECT value FROM json_each(?)) ORDER BY message.number
"""
# An operator may have reset the attempts during the attempt, so they are counted here.
_UPDATE_RECIPIENT = """
    UPDATE recipient SET state = ?1, due = ?2, attempts = attempts + ?3,
        tried = CASE WHEN ?3 THEN ?4 ELSE tried END, reply = CASE WHEN ?5 THEN ?6 ELSE reply END,
        status = CASE WHEN ?5 THEN ?7 ELSE status END, relay = CASE WHEN ?5 THEN ?8 ELSE relay END
    WHERE message = ?9 AND number = ?10 AND state = 'pending'
"""
# Due at the next time of its recipients; now, when the operator expired the message.
_UPDATE_MESSAGE = """
    UPDATE message SET leased = 0, attempts = attempts + ?1, interrupted = interrupted + ?2,
        warned = max(warned, ?3), aside = ifnull(?4, aside),
        due = CASE WHEN expired IS NOT NULL THEN 0.0 ELSE ifnull(
            (SELECT min(due) FROM recipient WHERE message = ?5 AND state = 'pending'),
            CASE WHEN ?4 IS NULL THEN due ELSE 0.0 END) END,
        ran = CASE WHEN ?4 IS NULL THEN ran ELSE (1 - held) * (SELECT ran FROM about) END
    WHERE number = ?5
"""


class SQLiteStore(SQLStore[SQLiteConnection]):
    """The queue in *directory*.

    :param patience: seconds to wait while another process writes.
    :param damaged: called with the id of each message that is found damaged and set aside.
    :param least_free: octets of free space that ``admit`` keeps on the file system; 0: no limit.
    """

    THESE = "IN (SELECT value FROM json_each(?))"
    LEASED = "leased = 1"
    NOT_LEASED = "leased = 0"
    INTERRUPTED = ", interrupted = interrupted + 1"
    LEAST = "min"
    errors = (sqlite3.Error, OSError)

    def __init__(
        self,
        directory: str | Path,
        *,
        patience: float = PATIENCE,
        damaged: Callable[[str], None] = lambda _: None,
        least_free: int = 0,
    ) -> None:
        super().__init__(damaged)
        self.directory = Path(directory)
        self._patience = patience
        self._free_space = FreeSpace(self.directory, least_free, self.unused)
        # Held by a relay as long as the queue is open.
        self._lock = RelayLock(self.directory)
        self._relay = False
        # Owner of the files, if this is a command of the superuser.
        self._owner: ForeignOwner | None = None

    # -- opening, closing, transactions ---------------------------------------------

    def open(self, *, create: bool = False, relay: bool = False, read_only: bool = False) -> None:
        """See ``Store.open``.

        For a relay the queue has to belong to this user, is locked, is verified, and is checkpointed
        by this connection.  A command of the superuser opens another user's queue with the rights of
        that user.
        """
        self._relay = relay
        self._owner = None if relay else foreign_owner(self.directory)
        if relay:
            self._lock.acquire()
        try:
            with acting_as(self._owner):
                check_directory(self.directory, create=create, root_may=not relay)
                path = self._connect(create=create)
            if relay:
                verify(self.connection, path)
            if read_only:
                self.connection.execute("PRAGMA query_only = ON")
        except BaseException:
            self.close()
            raise

    def reopen(self) -> None:
        """See ``Store.reopen``."""
        self._disconnect()
        with acting_as(self._owner):
            self._connect(create=False)

    def _connect(self, *, create: bool) -> Path:
        path = check_database(self.directory, create=create)
        self._connection = open_database(path, patience=self._patience, relay=self._relay)
        return path

    def close(self) -> None:
        """See ``Store.close``."""
        self._disconnect()
        self._lock.release()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # The last connection writes the log into the database, and removes it.
            with acting_as(self._owner):
                connection.close()

    def begin(self, *, write: bool = True) -> None:
        """Begin a transaction."""
        self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def commit(self) -> None:
        """Commit: the changes since ``begin`` are durable when this returns."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo all changes since ``begin``."""
        # SQLite rolls back by itself after some errors.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @property
    def changes(self) -> int:
        """Number of rows changed since the queue was opened."""
        return self.connection.changes

    def error(self, error: Exception, doing: str) -> QueueError:
        """See ``Store.error``."""
        return queue_error(error, doing)

    def admit(self, size: int) -> None:
        """See ``Store.admit``."""
        self._free_space.reserve(size)

    def check_space(self, size: int) -> None:
        """See ``Store.check_space``."""
        self._free_space.check(size)

    # -- a relay -------------------------------------------------------------------------

    def begin_relay(self, orphans_before: int) -> RecoveryReport:
        """See ``Store.begin_relay``: no other relay has the queue open."""
        leased = self._leased()
        interrupted = self._end_leases(leased, self.node, interrupted=True)
        self.connection.execute("DELETE FROM route_down")
        self._throw_away_orphans(orphans_before)
        return RecoveryReport(self.count(), interrupted)

    def end_relay(self, but: Collection[str]) -> None:
        """See ``Store.end_relay``."""
        numbers = [number for number in self._leased() if id_text(number) not in but]
        _ = self._end_leases(numbers, self.node, interrupted=False)

    def _leased(self) -> list[int]:
        return [n for (n,) in self.connection.rows("SELECT number FROM message WHERE leased = 1")]

    def relay_runs(self) -> bool | None:
        """See ``Store.relay_runs``."""
        return relay_runs(self.directory)

    def announce(self) -> None:
        """See ``Store.announce``."""
        _ = wake(self.directory)

    def state(self) -> StoreState:
        """See ``Store.state``."""
        # A number that changes when another process changes the database.
        version = int(self.connection.value("PRAGMA data_version"))
        rubbish = [body for (body,) in self.connection.rows("SELECT body FROM rubbish")]
        return StoreState(version, rubbish=rubbish)

    # -- the dialect -----------------------------------------------------------------------

    def _change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self.connection.execute(sql, parameters).rowcount

    def _list(self, numbers: Iterable[int]) -> str:
        return json.dumps(list(numbers))

    def _fits(self, column: str, pattern: str) -> tuple[str, list[str]]:
        return f"fits(?, {column})", [pattern]

    # -- arrival -----------------------------------------------------------------------

    def _insert(
        self,
        messages: Sequence[tuple[tuple[Any, ...], MessageInfo, bool]],
        recipients: Sequence[tuple[Any, ...]],
        contents: Sequence[tuple[int, bytes, int]],
    ) -> None:
        files = [(info.file_key,) for _, info, _ in messages if info.file_key is not None]
        rows = []
        for fixed, info, leased in messages:
            held = int(info.held)
            state = (info.route, 0.0, 0, int(leased), held, None, None, 0, 0, None, held)
            rows.append(fixed + state)
        try:
            self._insert_rows("taken_file", "?", files)
            self._insert_rows("message", _NEW_MESSAGE, rows)
        except sqlite3.IntegrityError as e:
            raise cannot_queue(messages[0][1].id, str(e)) from None
        self._insert_rows(
            "recipient", "?, ?, ?, ?, ?, 'pending', 0.0, 0, NULL, NULL, NULL, NULL", recipients
        )
        self._insert_rows("content", "?, ?, ?", contents)

    def _insert_rows(self, table: str, values: str, rows: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(rows), _INSERT_ROWS):
            some = rows[start : start + _INSERT_ROWS]
            places = ", ".join([f"({values})"] * len(some))
            self.connection.execute(
                f"INSERT INTO {table} VALUES {places}",  # noqa: S608 - constant texts
                [value for row in some for value in row],
            )

    def taken_files(self) -> Sequence[str]:
        """Return the keys of files whose messages were committed."""
        return [key for (key,) in self.connection.rows("SELECT key FROM taken_file")]

    def forget_files(self, keys: Sequence[str]) -> None:
        """Forget keys of files that do not exist any more."""
        self.connection.execute(
            f"DELETE FROM taken_file WHERE key {self.THESE}",  # noqa: S608
            (json.dumps(keys),),
        )

    def put_piece(self, body: int, place: int, data: bytes) -> None:
        """Insert one piece, of ``PIECE_SIZE`` octets at most, of content whose message follows.

        :param body: a new number from ``QueueIds``, the same for all pieces.
        :param place: position, from 0.
        """
        self.connection.execute(
            "INSERT INTO piece VALUES (?, ?, ?, ?)",
            (body, place, data, content_checksum(body, place, data)),
        )

    # -- delivery ----------------------------------------------------------------------

    def _take(
        self, route: str, now: float, horizon: float, fresh: int, retries: int
    ) -> Sequence[int]:
        numbers = [
            number
            for tried, count in enumerate((fresh, retries))
            for number in self._due(route, tried, now, horizon, count)
        ]
        if numbers:
            self.connection.execute(
                f"UPDATE message SET leased = 1 WHERE number {self.THESE}",  # noqa: S608
                (self._list(numbers),),
            )
        return numbers

    def _due(self, route: str, tried: int, now: float, horizon: float, count: int) -> list[int]:
        if count <= 0:
            return []
        found = self.connection.rows(_DUE.format("<="), (route, tried, now, count))
        if len(found) < count:
            found += self.connection.rows(
                _DUE.format(">"), (route, tried, horizon, count - len(found))
            )
        return [number for (number,) in found]

    def next_due(self) -> dict[str, float]:
        """Return the next due time of each route; see ``Queue.next_due``."""
        found: dict[str, float] = {}
        query = f"SELECT min(route) FROM message WHERE {READY}"  # noqa: S608
        route = self.connection.value(query)
        while route is not None:
            times = [
                self.connection.value(
                    f"SELECT due FROM message WHERE route = ? AND (attempts > 0) = ? AND {READY}"  # noqa: S608
                    " ORDER BY due LIMIT 1",
                    (route, tried),
                )
                for tried in (0, 1)
            ]
            found[route] = min(time for time in times if time is not None)
            route = self.connection.value(f"{query} AND route > ?", (route,))
        return found

    # -- results -----------------------------------------------------------------------

    def _standing(self, numbers: Sequence[int]) -> dict[int, Standing]:
        found: dict[int, Standing] = {}
        pending: dict[int, set[int]] = {}
        for number, leased, doomed, recipient in self.connection.rows(
            _STANDING, (self._list(numbers),)
        ):
            if number not in found:
                waiting = pending[number] = set()
                owner = self.node if leased else None
                found[number] = Standing(number, owner, 0, doomed, waiting)
            if recipient is not None:
                pending[number].add(recipient)
        return found

    def _update(self, changed: Sequence[tuple[int, AttemptRecord]]) -> None:
        for number, record in changed:
            tried, aside = int(record.tried), record.aside
            for row in record.changes:
                new = int(tried or row.reply is not None or row.status is not None)
                self.connection.execute(
                    _UPDATE_RECIPIENT,
                    (
                        *(row.state.value, row.due, tried, record.at, new),
                        *(row.reply, row.status, row.relay, number, row.number),
                    ),
                )
            self.connection.execute(
                _UPDATE_MESSAGE,
                (
                    tried,
                    int(record.in_doubt),
                    int(record.warned),
                    None if aside is None else aside.value,
                    number,
                ),
            )

    def _delete(self, numbers: Sequence[int]) -> None:
        if numbers:
            self.connection.execute(
                f"DELETE FROM message WHERE number {self.THESE}",  # noqa: S608
                (self._list(numbers),),
            )

    # -- operators ---------------------------------------------------------------------

    def _acted(self, *, changed: bool, flushed: Sequence[str]) -> None:
        for route in flushed:
            self.connection.execute("INSERT OR IGNORE INTO flushed VALUES (?)", (route,))

    def take_flushed(self) -> frozenset[str]:
        """Return the routes whose messages were flushed since the last call; ``""`` is all routes."""
        routes = frozenset(
            [route for (route,) in self.connection.rows("SELECT route FROM flushed")]
        )
        if routes:
            self.connection.execute("DELETE FROM flushed")
        return routes

    def count_running(self, passed: float) -> None:
        """Add to the age of all mail; see ``Queue.count_running``."""
        self.connection.execute(
            "UPDATE about SET ran = ran + ? WHERE EXISTS (SELECT 1 FROM message)", (passed,)
        )

    def record_route(self, name: str, down: DownRoute | None) -> None:
        """Record whether a route is down; see ``Queue.record_route``."""
        if down is None:
            self.connection.execute("DELETE FROM route_down WHERE name = ?", (name,))
        else:
            self.connection.execute(
                "INSERT OR REPLACE INTO route_down VALUES (?, ?, ?)",
                (name, down.reason, down.next_attempt),
            )

    def down_routes(self) -> dict[str, DownRoute]:
        """Return the routes that are down, by name, as the relay recorded them last."""
        rows = self.connection.rows(
            "SELECT name, reason, next_attempt FROM route_down ORDER BY name"
        )
        return {row[0]: DownRoute(*row) for row in rows}

    def unused(self) -> int:
        """Return the octets of unused pages, which are filled before the file grows."""
        pages = self.connection.value("PRAGMA freelist_count")
        return int(pages * self.connection.value("PRAGMA page_size"))
