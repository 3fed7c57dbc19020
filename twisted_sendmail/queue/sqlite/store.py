"""The queue's tables and every SQL statement on them; synchronous and without Twisted.

**Theory of operation.**  A queue is one SQLite database in WAL mode with ``synchronous=FULL``: a
commit is on the disk when it returns.  The relay and the commands of an operator use it side by side.
How messages move through the tables is described in ``queue.store``.

**Number of statements.**  Each statement releases the interpreter's lock, and a busy reactor keeps
it for milliseconds; a statement for many rows costs little more than one for a single row.  So
messages are inserted, leased and settled in batches, by statements whose number does not depend on
the number of messages.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.queue.errors import QueueError
from twisted_sendmail.queue.ids import id_number, id_text
from twisted_sendmail.queue.interface import RecoveryReport
from twisted_sendmail.queue.models import (
    DownRoute,
    LeasedMessage,
    QueueAction,
    QueueActionResult,
    QueuedMessage,
    QueueTotals,
    Selection,
    SetAsideReason,
)
from twisted_sendmail.queue.rows import (
    BODY,
    LEASED,
    MESSAGE,
    PIECES,
    RECIPIENT,
    Damaged,
    content_checksum,
    decode,
    decode_damaged,
    encode,
)
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
    CLEAR_LIMIT,
    SWEEP_PIECES,
    ContentPlace,
    Pieces,
    Store,
    StoreState,
    applies,
    cannot_queue,
    intact,
    message_damaged,
    new_message,
    settled_recipients,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from twisted_sendmail.queue.models import AttemptRecord, Lease, MessageInfo

#: Rows of one INSERT; SQLite allows 32,766 parameters.
_INSERT_ROWS = 64

# A list of numbers as one parameter.
_THESE = "IN (SELECT value FROM json_each(?))"
_DUE = (
    f"SELECT number FROM message WHERE route = ? AND (attempts > 0) = ? AND {READY}"  # noqa: S608
    " AND due {} ? ORDER BY due, number LIMIT ?"
)
# The age of a new message is 0.
_NEW_MESSAGE = "?, " * 20 + "(SELECT CASE WHEN ? THEN 0.0 ELSE ran END FROM about)"
# Recipients still pending, one row each, or one row with NULL.  A damaged state counts as pending.
_STANDING = f"""
    SELECT message.number, leased, doomed, recipient.number
    FROM message LEFT JOIN recipient ON recipient.message = message.number
        AND state NOT IN ('delivered', 'failed')
    WHERE message.number {_THESE}
"""  # noqa: S608
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
# ``QueuedMessage.deferred`` and ``queue_name`` in SQL.
_DEFERRED = (
    "attempts > 0 OR EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = message.number "
    "AND r.status IS NOT NULL)"
)
_QUEUE_NAME = (
    "CASE WHEN aside = 'undeliverable' THEN aside WHEN aside IS NOT NULL THEN 'corrupt' WHEN held = 1 THEN 'hold' "
    f"WHEN leased = 1 THEN 'active' WHEN {_DEFERRED} THEN 'deferred' ELSE 'incoming' END"
)
# Recipients that do not have the message yet.
_HAS_RECIPIENT = (
    "EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = message.number "
    "AND r.state <> 'delivered' AND fits(?, r.address))"
)


class SQLiteStore(Store):
    """The queue in *directory*.

    :param patience: seconds to wait while another process writes.
    :param damaged: called with the id of each message that is found damaged and set aside.
    :param least_free: octets of free space that ``admit`` keeps on the file system; 0: no limit.
    """

    errors = (sqlite3.Error, OSError)

    def __init__(
        self,
        directory: str | Path,
        *,
        patience: float = PATIENCE,
        damaged: Callable[[str], None] = lambda _: None,
        least_free: int = 0,
    ) -> None:
        self.directory = Path(directory)
        self._patience = patience
        self._damaged = damaged
        self._free_space = FreeSpace(self.directory, least_free, self.unused)
        # Held by a relay as long as the queue is open.
        self._lock = RelayLock(self.directory)
        self._relay = False
        # Of the files, if this is the superuser and a command.
        self._owner: ForeignOwner | None = None
        self._connection: SQLiteConnection | None = None

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

    @property
    def is_open(self) -> bool:
        """The queue is open."""
        return self._connection is not None

    @property
    def connection(self) -> SQLiteConnection:
        """The open connection.

        :raises QueueError: the queue is closed.
        """
        if self._connection is None:
            raise QueueError("the queue is not open")
        return self._connection

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
        interrupted = self.end_leases(interrupted=True)
        self.connection.execute("DELETE FROM route_down")
        self.throw_away_orphans(orphans_before)
        return RecoveryReport(self.count(), interrupted)

    def end_relay(self, but: Collection[str]) -> None:
        """See ``Store.end_relay``."""
        _ = self.end_leases(interrupted=False, but=but)

    def relay_runs(self) -> bool | None:
        """See ``Store.relay_runs``."""
        return relay_runs(self.directory)

    def announce(self) -> None:
        """See ``Store.announce``."""
        _ = wake(self.directory)

    def state(self) -> StoreState:
        """See ``Store.state``."""
        return StoreState(self.data_version(), rubbish=self.rubbish())

    # -- arrival -----------------------------------------------------------------------

    def put_all(
        self, arrivals: Sequence[tuple[MessageInfo, bytes | Pieces, bool]]
    ) -> list[QueuedMessage]:
        """Insert messages that are due at once.

        :param arrivals: for each message its ``MessageInfo``, its content, and whether it is
            inserted leased.
        :raises QueueError: an id or a file's key exists already, or a piece is missing; the transaction is to be
            rolled back.
        """
        messages: list[tuple[Any, ...]] = []
        recipients: list[tuple[Any, ...]] = []
        contents: list[tuple[Any, ...]] = []
        files = [(info.file_key,) for info, _, _ in arrivals if info.file_key is not None]
        for info, content, leased in arrivals:
            number = id_number(info.id)
            if number is None:
                raise cannot_queue(info.id, "the id is not one of this queue")
            if isinstance(content, Pieces):
                self._check_pieces(content)
                fixed, given = encode(info, number, content.size, content.body, content.count)
            else:
                fixed, given = encode(info, number, len(content), None, 0)
                contents.append((number, content, content_checksum(number, 0, content)))
            held = int(info.held)
            state = (info.route, 0.0, 0, int(leased), held, None, None, 0, 0, None, held)
            messages.append(fixed + state)
            recipients += [(number, *row) for row in given]
        try:
            self._insert("taken_file", "?", files)
            self._insert("message", _NEW_MESSAGE, messages)
        except sqlite3.IntegrityError as e:
            raise cannot_queue(arrivals[0][0].id, str(e)) from None
        self._insert(
            "recipient", "?, ?, ?, ?, ?, 'pending', 0.0, 0, NULL, NULL, NULL, NULL", recipients
        )
        self._insert("content", "?, ?, ?", contents)
        return [new_message(*arrival) for arrival in arrivals]

    def _insert(self, table: str, values: str, rows: list[tuple[Any, ...]]) -> None:
        for start in range(0, len(rows), _INSERT_ROWS):
            some = rows[start : start + _INSERT_ROWS]
            places = ", ".join([f"({values})"] * len(some))
            self.connection.execute(
                f"INSERT INTO {table} VALUES {places}",  # noqa: S608 - constant texts
                [value for row in some for value in row],
            )

    def restore(self, message: QueuedMessage) -> None:
        """See ``Store.restore``."""
        number = id_number(message.id)
        for r in message.recipients:
            self.connection.execute(
                "UPDATE recipient SET state = ?, due = ?, attempts = ?, tried = ?, reply = ?, "
                "status = ?, relay = ? WHERE message = ? AND number = ?",
                (
                    r.state.value,
                    r.due,
                    r.attempts,
                    r.tried,
                    r.reply,
                    r.status,
                    r.relay,
                    number,
                    r.number,
                ),
            )
        self.connection.execute(
            "UPDATE message SET due = ?1, attempts = ?2, held = ?3, expired = ?4, warned = ?5, "
            "interrupted = ?6, aside = ?7, ran = (1 - ?3) * (SELECT ran FROM about) - ?8 "
            "WHERE number = ?9",
            (
                message.due,
                message.attempts,
                int(message.held),
                "expired" if message.expired else None,
                int(message.warned),
                message.interrupted,
                message.aside and message.aside.value,
                message.age,
                number,
            ),
        )

    def _check_pieces(self, content: Pieces) -> None:
        found = self.connection.row(
            "SELECT count(*), ifnull(sum(length(data)), 0) FROM piece WHERE body = ?",
            (content.body,),
        )
        if found != (content.count, content.size):
            raise QueueError(
                "the queue lost a part of a message", detail=f"{content} became {found}"
            )

    def taken_files(self) -> Sequence[str]:
        """Return the keys of files whose messages were committed."""
        return [key for (key,) in self.connection.rows("SELECT key FROM taken_file")]

    def forget_files(self, keys: Sequence[str]) -> None:
        """Forget keys of files that do not exist any more."""
        self.connection.execute(
            "DELETE FROM taken_file WHERE key IN (SELECT value FROM json_each(?))",
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

    def throw_away_orphans(self, older_than: int) -> None:
        """Mark bodies below *older_than* that have no message as rubbish."""
        body = -1
        while True:
            # One seek for each body, not for each piece.
            following = self.connection.value(
                "SELECT body FROM piece WHERE body > ? AND body < ? ORDER BY body LIMIT 1",
                (body, older_than),
            )
            if following is None:
                return
            body = following
            if not self._has_message(body):
                self.connection.execute("INSERT OR IGNORE INTO rubbish VALUES (?)", (body,))

    def rubbish(self) -> list[int]:
        """Return the bodies to be swept."""
        return [body for (body,) in self.connection.rows("SELECT body FROM rubbish")]

    def sweep(self, body: int) -> bool:
        """Remove some pieces of *body*; return True when none is left, or a message has them.

        Large content is removed in small steps, so that no other operation waits for long.
        """
        if self._has_message(body):
            return True
        first_kept = self.connection.value(
            "SELECT place FROM piece WHERE body = ? ORDER BY place LIMIT 1 OFFSET ?",
            (body, SWEEP_PIECES),
        )
        if first_kept is not None:
            self.connection.execute(
                "DELETE FROM piece WHERE body = ? AND place < ?", (body, first_kept)
            )
            return False
        self.connection.execute("DELETE FROM piece WHERE body = ?", (body,))
        self.connection.execute("DELETE FROM rubbish WHERE body = ?", (body,))
        return True

    def _has_message(self, body: int) -> bool:
        query = "SELECT 1 FROM message WHERE body = ?"
        return self.connection.value(query, (body,)) is not None

    # -- delivery ----------------------------------------------------------------------

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> list[LeasedMessage]:
        """Lease messages that are due; see ``Queue.lease``.  Damaged ones are set aside."""
        numbers = [
            number
            for tried, count in enumerate((fresh, retries))
            for number in self._due(route, tried, now, horizon, count)
        ]
        if not numbers:
            return []
        these = (json.dumps(numbers),)
        messages, recipients = self._rows(these)
        contents = {
            number: row
            for number, *row in self.connection.rows(
                f"SELECT message, data, checksum FROM content WHERE message {_THESE}",  # noqa: S608
                these,
            )
        }
        leased = []
        for number in numbers:
            row = messages[number]
            try:
                message = decode((*row[:LEASED], 1, *row[LEASED + 1 :]), recipients.get(number, []))
                content = (
                    None if row[BODY] else intact(contents.get(number), number, 0, message.size)
                )
            except Damaged:
                self._set_aside(number)
                continue
            leased.append(LeasedMessage(message, content))
        self.connection.execute(
            f"UPDATE message SET leased = 1 WHERE number {_THESE}",  # noqa: S608
            (json.dumps([id_number(each.message.id) for each in leased]),),
        )
        return leased

    def _due(self, route: str, tried: int, now: float, horizon: float, count: int) -> list[int]:
        if count <= 0:
            return []
        found = self.connection.rows(_DUE.format("<="), (route, tried, now, count))
        if len(found) < count:
            found += self.connection.rows(
                _DUE.format(">"), (route, tried, max(now, horizon), count - len(found))
            )
        return [number for (number,) in found]

    def _rows(self, these: tuple[str]) -> tuple[dict[int, Any], dict[int, list[Any]]]:
        """Return the rows of messages and of their recipients, by the message's number."""
        rows = self.connection.rows(
            f"SELECT {MESSAGE} FROM message WHERE number {_THESE}",  # noqa: S608
            these,
        )
        recipients: dict[int, list[Any]] = {}
        for message, *row in self.connection.rows(
            f"SELECT message, {RECIPIENT} FROM recipient WHERE message {_THESE} "  # noqa: S608
            "ORDER BY message, number",
            these,
        ):
            recipients.setdefault(message, []).append(row)
        return {row[0]: row for row in rows}, recipients

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

    def where(self, id: str) -> ContentPlace:  # noqa: A002 - the field's name
        """Return the place of a message's content.

        :raises QueueError: there is no such message.
        :raises MessageDamaged: the message is damaged.
        """
        number = id_number(id)
        rows, recipients = self._rows((json.dumps([number]),))
        if number is None or number not in rows:
            raise QueueError(f"message {id} is not in the queue")
        try:
            message = decode(rows[number], recipients.get(number, []))
        except Damaged:
            raise message_damaged(id) from None
        return ContentPlace(number, rows[number][BODY], rows[number][PIECES], message.size)

    def piece(self, at: ContentPlace, place: int) -> bytes:
        """Return one piece of a content; *place* is 0 where the content is in one row.

        :raises MessageDamaged: the data differ from what was written.
        """
        try:
            if at.body is None:
                query = "SELECT data, checksum FROM content WHERE message = ?"
                row = self.connection.row(query, (at.number,))
                return intact(row, at.number, 0, at.size)
            query = "SELECT data, checksum FROM piece WHERE body = ? AND place = ?"
            return intact(self.connection.row(query, (at.body, place)), at.body, place)
        except Damaged:
            raise message_damaged(id_text(at.number)) from None

    def set_aside(self, id: str) -> None:  # noqa: A002 - the field's name
        """Set a damaged message aside."""
        number = id_number(id)
        if number is not None:
            self._set_aside(number)

    def _set_aside(self, number: int) -> None:
        self.connection.execute(
            "UPDATE message SET aside = 'damaged', leased = 0 WHERE number = ?", (number,)
        )
        self._damaged(id_text(number))

    # -- results -----------------------------------------------------------------------

    def settle_all(self, records: Sequence[AttemptRecord]) -> list[QueuedMessage | None]:
        """See ``Store.settle_all``."""
        numbers = [id_number(record.id) for record in records]
        pending: dict[int, set[int]] = {}
        leased: dict[int, str | None] = {}
        for number, is_leased, doomed, recipient in self.connection.rows(
            _STANDING, (json.dumps(numbers),)
        ):
            waiting = pending.setdefault(number, set())
            if recipient is not None:
                waiting.add(recipient)
            if is_leased:
                leased[number] = doomed
        gone: list[int] = []
        kept: list[int] = []
        for number, record in zip(numbers, records, strict=True):
            if number is None or number not in leased:
                if number in pending and number not in gone:
                    kept.append(number)
                continue
            doomed = leased.pop(number)
            if record.reports:
                self.put_all([(info, content, False) for info, content in record.reports])
            left = pending[number] - settled_recipients(record)
            if doomed == "doomed" or not (left or record.aside):
                gone.append(number)
            else:
                self._update(number, record)
                kept.append(number)
        self._delete(gone)
        messages = self._read(kept) if kept else {}
        return [None if number is None else messages.get(number) for number in numbers]

    def _update(self, number: int, record: AttemptRecord) -> None:
        tried, aside = int(record.tried), record.aside
        for row in record.changes:
            new = int(tried or row.reply is not None or row.status is not None)
            self.connection.execute(
                _UPDATE_RECIPIENT,
                (
                    row.state.value,
                    row.due,
                    tried,
                    record.at,
                    new,
                    row.reply,
                    row.status,
                    row.relay,
                    number,
                    row.number,
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

    def _read(self, numbers: Collection[int]) -> dict[int, QueuedMessage]:
        rows, recipients = self._rows((json.dumps(list(numbers)),))
        messages = {}
        for number, row in rows.items():
            try:
                messages[number] = decode(row, recipients.get(number, []))
            except Damaged:
                self._set_aside(number)
        return messages

    def release(self, leased: Sequence[LeasedMessage]) -> None:
        """See ``Store.release``."""
        numbers = [id_number(each.message.id) for each in leased]
        self._end_leases([n for n in numbers if n is not None], interrupted=False)

    def hold_unrecorded(self, id: str, lease: Lease | None) -> None:  # noqa: A002
        """See ``Store.hold_unrecorded``."""
        number = id_number(id)
        if number is not None and self._end_leases([number], interrupted=True):
            self._act(QueueAction.HOLD, number, 0.0, leased=False, held=False, aside=None)

    def end_leases(self, *, interrupted: bool, but: Collection[str] = ()) -> tuple[str, ...]:
        """End all leases; return the ids of the messages that are left.

        :param interrupted: the ends of these attempts are unknown: a copy may have gone out.
        :param but: ids of leases to keep.
        """
        numbers = [
            number
            for (number,) in self.connection.rows("SELECT number FROM message WHERE leased = 1")
            if id_text(number) not in but
        ]
        return self._end_leases(numbers, interrupted=interrupted)

    def _end_leases(self, numbers: list[int], *, interrupted: bool) -> tuple[str, ...]:
        left: list[int] = []
        doomed: list[int] = []
        for number, mark in self.connection.rows(
            f"SELECT number, doomed FROM message WHERE number {_THESE} AND leased = 1 "  # noqa: S608
            "ORDER BY number",
            (json.dumps(numbers),),
        ):
            (doomed if mark == "doomed" else left).append(number)
        self._delete(doomed)
        if left:
            self.connection.execute(
                "UPDATE message SET leased = 0, interrupted = interrupted + ? "  # noqa: S608
                f"WHERE number {_THESE}",
                (int(interrupted), json.dumps(left)),
            )
        return tuple(id_text(number) for number in left)

    def _delete(self, numbers: list[int]) -> None:
        if numbers:
            self.connection.execute(
                f"DELETE FROM message WHERE number {_THESE}",  # noqa: S608
                (json.dumps(numbers),),
            )

    def reroute(self, routes: dict[str, str]) -> None:
        """Rename the routes of messages, all at the same time."""
        if not routes:
            return
        cases = " ".join(["WHEN ? THEN ?"] * len(routes))
        places = ", ".join("?" * len(routes))
        pairs = [name for pair in routes.items() for name in pair]
        self.connection.execute(
            f"UPDATE message SET route = CASE route {cases} END WHERE route IN ({places})",  # noqa: S608
            (*pairs, *routes),
        )

    # -- operators ---------------------------------------------------------------------

    def probe(self) -> None:
        """Write something without meaning."""
        self.connection.execute("INSERT OR IGNORE INTO rubbish VALUES (-1)")
        self.connection.execute("DELETE FROM rubbish WHERE body = -1")

    def newest(self) -> int:
        """Return the largest number of an id; 0: there is no message."""
        return int(self.connection.value("SELECT ifnull(max(number), 0) FROM message"))

    def count(self, selection: Selection | None = None) -> int:
        """Return the number of messages that match, without regard to ``limit``; all if not given."""
        where, parameters = self._where(selection or Selection())
        query = f"SELECT count(*) FROM message {where}"  # noqa: S608
        return int(self.connection.value(query, parameters))

    def _selected(self, selection: Selection) -> list[int]:
        """Return the numbers that match, oldest first."""
        where, parameters = self._where(selection)
        limit = -1 if selection.limit is None else max(0, selection.limit)
        rows = self.connection.rows(
            f"SELECT number FROM message {where} ORDER BY number LIMIT ? OFFSET ?",  # noqa: S608
            (*parameters, limit, selection.offset),
        )
        return [number for (number,) in rows]

    def _where(self, selection: Selection) -> tuple[str, list[Any]]:
        """Return the WHERE clause of a selection, and its parameters."""
        after = None if selection.after is None else id_number(selection.after)
        clauses: list[str] = ["number > ?"]
        parameters: list[Any] = [-1 if after is None else after]
        if selection.ids:
            clauses.append(f"number {_THESE}")
            parameters.append(json.dumps([id_number(each) for each in selection.ids]))
        for given, condition in (
            (selection.queue, f"{_QUEUE_NAME} = ?"),
            (selection.route, "route = ?"),
            (selection.uid, "uid = ?"),
            (selection.sender, "fits(?, sender)" if selection.sender else "sender = ?"),
            (selection.recipient, _HAS_RECIPIENT),
        ):
            if given is not None:
                clauses.append(condition)
                parameters.append(given)
        return f"WHERE {' AND '.join(clauses)}", parameters

    def list(self, selection: Selection) -> list[QueuedMessage]:
        """Return the messages that match, oldest first; damaged ones as far as they are readable."""
        numbers = self._selected(selection)
        rows, recipients = self._rows((json.dumps(numbers),))
        messages = []
        for number in numbers:
            parts = rows[number], recipients.get(number, [])
            try:
                messages.append(decode(*parts))
            except Damaged:
                aside = SetAsideReason.DAMAGED
                messages.append(attrs.evolve(decode_damaged(*parts), aside=aside))
        return messages

    def act(self, action: QueueAction, selection: Selection, now: float) -> list[QueueActionResult]:  # type: ignore[valid-type]
        """Apply *action*; return the messages it changed.  A running relay is notified by ``wake``."""
        changed = []
        routes = {""} if selection == Selection() else set()
        for number in self._selected(selection):
            leased, held, aside, route = self.connection.row(
                "SELECT leased, held, aside, route FROM message WHERE number = ?", (number,)
            )
            if self._act(action, number, now, leased=leased == 1, held=bool(held), aside=aside):
                changed.append(QueueActionResult(id_text(number), on_its_way=leased == 1))
                routes.add(route)
        if action in {QueueAction.FLUSH, QueueAction.REQUEUE} and selection.uid is None:
            for route in routes:
                self.connection.execute("INSERT OR IGNORE INTO flushed VALUES (?)", (route,))
        return changed

    def take_flushed(self) -> frozenset[str]:
        """Return the routes whose messages were flushed since the last call; ``""`` is all routes."""
        routes = frozenset(
            [route for (route,) in self.connection.rows("SELECT route FROM flushed")]
        )
        if routes:
            self.connection.execute("DELETE FROM flushed")
        return routes

    def _act(
        self,
        action: QueueAction,
        number: int,
        now: float,
        *,
        leased: bool,
        held: bool,
        aside: str | None,
    ) -> bool:
        execute = self.connection.execute
        if not applies(action, held=held, aside=aside):
            return False
        if action is QueueAction.DELETE:
            if leased:
                execute("UPDATE message SET doomed = 'doomed' WHERE number = ?", (number,))
            else:
                execute("DELETE FROM message WHERE number = ?", (number,))
        elif action is QueueAction.REQUEUE:
            self._requeue(number, undeliverable=aside is not None)
        elif action is QueueAction.FLUSH:
            execute(
                "UPDATE recipient SET due = min(due, ?) WHERE message = ? AND state = 'pending'",
                (now, number),
            )
            execute("UPDATE message SET due = min(due, ?) WHERE number = ?", (now, number))
        elif action in {QueueAction.HOLD, QueueAction.RELEASE}:
            hold = int(action is QueueAction.HOLD)
            execute(
                "UPDATE message SET ran = ran + (held - ?1) * (SELECT ran FROM about), held = ?1 "
                "WHERE number = ?2",
                (hold, number),
            )
        elif action is QueueAction.EXPIRE:
            execute(
                "UPDATE message SET expired = 'expired', held = 0, due = 0.0, "
                "ran = ran + held * (SELECT ran FROM about) WHERE number = ?",
                (number,),
            )
        return True

    def _requeue(self, number: int, *, undeliverable: bool) -> None:
        if undeliverable:
            # The recipients failed, and no report was sent.
            self.connection.execute(
                "UPDATE recipient SET state = 'pending' WHERE message = ? AND state = 'failed'",
                (number,),
            )
        self.connection.execute(
            "UPDATE recipient SET due = 0.0, attempts = 0, reply = NULL, status = NULL, "
            "relay = NULL WHERE message = ? AND state = 'pending'",
            (number,),
        )
        self.connection.execute(
            "UPDATE message SET due = 0.0, attempts = 0, expired = NULL, warned = 0, aside = NULL, "
            "ran = (1 - held) * (SELECT ran FROM about) WHERE number = ?",
            (number,),
        )

    def count_running(self, passed: float) -> None:
        """Add to the age of all mail; see ``Queue.count_running``."""
        self.connection.execute(
            "UPDATE about SET ran = ran + ? WHERE EXISTS (SELECT 1 FROM message)", (passed,)
        )

    def clear_aside(self, keep: float) -> Sequence[str]:
        """Remove undeliverable messages; see ``Queue.clear_aside``."""
        rows = self.connection.rows(
            "SELECT number FROM message WHERE aside = 'undeliverable' AND held = 0 "
            "AND (SELECT ran FROM about) - ran >= ? ORDER BY number LIMIT ?",
            (keep, CLEAR_LIMIT),
        )
        numbers = [number for (number,) in rows]
        self._delete(numbers)
        return [id_text(number) for number in numbers]

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

    def totals(self) -> QueueTotals:
        """Return figures of the whole queue."""
        queues = self.connection.rows(
            f"SELECT {_QUEUE_NAME}, count(*) FROM message GROUP BY 1"  # noqa: S608
        )
        deferred = self.connection.rows(
            "SELECT ifnull(status, ''), count(*) FROM recipient "
            "WHERE state = 'pending' AND (attempts > 0 OR status IS NOT NULL) GROUP BY 1"
        )
        oldest, octets = self.connection.row(
            "SELECT min(CASE WHEN aside IS NULL THEN arrived END), ifnull(sum(size), 0) "
            "FROM message"
        )
        return QueueTotals(dict(queues), dict(deferred), oldest, octets)

    def unused(self) -> int:
        """Return the octets of unused pages, which are filled before the file grows."""
        pages = self.connection.value("PRAGMA freelist_count")
        return int(pages * self.connection.value("PRAGMA page_size"))

    def data_version(self) -> int:
        """Return a number that changes when another process changes the database."""
        return int(self.connection.value("PRAGMA data_version"))
