"""The statements and rules that are the same in every SQL database; an engine adds what differs.

How messages move through the tables is described in ``store``.  The statements are in the SQL that
SQLite and PostgreSQL share, with ``?`` for a parameter; the constants of ``SQLStore`` are the words
that differ.  Messages are inserted, leased and settled in batches, by statements whose number does not
depend on the number of messages.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import attrs

from twisted_sendmail.queue.errors import LeaseLost, QueueError
from twisted_sendmail.queue.ids import id_number, id_text
from twisted_sendmail.queue.models import (
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
    OWNER,
    PIECES,
    RECIPIENT,
    Damaged,
    content_checksum,
    decode,
    decode_damaged,
    encode,
    message_columns,
)
from twisted_sendmail.queue.store import (
    CLEAR_LIMIT,
    SWEEP_PIECES,
    ContentPlace,
    Pieces,
    Store,
    applies,
    cannot_queue,
    intact,
    message_damaged,
    new_message,
    settled_recipients,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from twisted_sendmail.queue.models import AttemptRecord, Lease, MessageInfo

#: More messages than a queue holds, for LIMIT.
_ALL = 1 << 62
# ``QueuedMessage.deferred`` in SQL.
_DEFERRED = (
    "attempts > 0 OR EXISTS (SELECT 1 FROM recipient r WHERE r.message = message.number "
    "AND r.status IS NOT NULL)"
)


class SQLConnection(Protocol):
    """The methods of a connection that the shared statements use."""

    def rows(self, sql: str, parameters: Sequence[Any] = ...) -> list[Any]:
        """Return all rows of a query."""
        ...

    def row(self, sql: str, parameters: Sequence[Any] = ...) -> Any:
        """Return the first row of a query, or None."""
        ...

    def value(self, sql: str, parameters: Sequence[Any] = ...) -> Any:
        """Return the first column of the first row of a query, or None."""
        ...


class Standing(NamedTuple):
    """State of a message that decides what becomes of its lease."""

    number: int
    #: Number of the relay that has it leased; None: it is not leased.
    owner: int | None
    #: Number of its last lease.
    fence: int
    doomed: str | None
    #: Numbers of the recipients that are pending.
    pending: Collection[int]


_Connection = TypeVar("_Connection", bound=SQLConnection)


class SQLStore(Store, Generic[_Connection]):
    """The tables of one queue in an SQL database.

    :param damaged: called with the id of each message that is found damaged and set aside.
    """

    #: Follows a column: one of the numbers of the parameter ``self._list(numbers)``.
    THESE: ClassVar[str]
    #: The condition for a message that is leased, and the assignments that end a lease, and that count
    #: an interrupted attempt.
    LEASED: ClassVar[str]
    NOT_LEASED: ClassVar[str]
    INTERRUPTED: ClassVar[str]
    #: The two columns after those that ``decode`` takes, if leases have an owner and a fence.
    LEASE_COLUMNS: ClassVar[str] = ""
    #: The function that returns the least of its arguments.
    LEAST: ClassVar[str]
    #: Follow a query whose messages are changed: wait for those that another transaction has locked, or
    #: leave them out.
    FOR_UPDATE: ClassVar[str] = ""
    SKIP_LOCKED: ClassVar[str] = ""

    #: Number of this relay in a queue that several relays share.
    node = 0
    #: The clock of this machine minus that of the database.
    clock_offset = 0.0

    def __init__(self, damaged: Callable[[str], None]) -> None:
        self._damaged = damaged
        self._connection: _Connection | None = None
        self._queue_name = (
            "CASE WHEN aside = 'undeliverable' THEN aside WHEN aside IS NOT NULL THEN 'corrupt' "
            f"WHEN held THEN 'hold' WHEN {self.LEASED} THEN 'active' "
            f"WHEN {_DEFERRED} THEN 'deferred' ELSE 'incoming' END"
        )
        self._message_columns = message_columns(self.LEASED) + self.LEASE_COLUMNS

    @property
    def is_open(self) -> bool:
        """The queue is open."""
        return self._connection is not None

    @property
    def connection(self) -> _Connection:
        """The open connection.

        :raises QueueError: the queue is closed.
        """
        if self._connection is None:
            raise QueueError("the queue is not open")
        return self._connection

    # -- the dialect -----------------------------------------------------------------------

    @abstractmethod
    def _change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement that changes something; return the number of rows it concerns."""

    @abstractmethod
    def _list(self, numbers: Iterable[int]) -> Any:
        """Return *numbers* as one parameter."""

    @abstractmethod
    def _fits(self, column: str, pattern: str) -> tuple[str, list[str]]:
        """Return the condition that an address matches *pattern* (``sqlite.schema.fits``), and its parameters."""

    def _text(self, text: str) -> str:
        """Return *text* for a comparison."""
        return text

    def _database_time(self, moment: float) -> float:
        """Return a time of this machine as the database's; 0 is no time, but at once."""
        return moment - self.clock_offset if moment else moment

    def _local_time(self, moment: float) -> float:
        return moment + self.clock_offset if moment else moment

    # -- arrival -----------------------------------------------------------------------

    def put_all(
        self, arrivals: Sequence[tuple[MessageInfo, bytes | Pieces, bool]]
    ) -> list[QueuedMessage]:
        """See ``Store.put_all``."""
        messages: list[tuple[tuple[Any, ...], MessageInfo, bool]] = []
        recipients: list[tuple[Any, ...]] = []
        contents: list[tuple[int, bytes, int]] = []
        for given, content, leased in arrivals:
            number = id_number(given.id)
            if number is None:
                raise cannot_queue(given.id, "the id is not one of this queue")
            info = given
            if self.clock_offset:
                info = attrs.evolve(given, arrived=self._database_time(given.arrived))
            if isinstance(content, Pieces):
                self._check_pieces(content)
                fixed, rows = encode(info, number, content.size, content.body, content.count)
            else:
                fixed, rows = encode(info, number, len(content), None, 0)
                contents.append((number, content, content_checksum(number, 0, content)))
            messages.append((fixed, info, leased))
            recipients += [(number, *row) for row in rows]
        if messages:
            self._insert(messages, recipients, contents)
        return [new_message(*arrival) for arrival in arrivals]

    @abstractmethod
    def _insert(
        self,
        messages: Sequence[tuple[tuple[Any, ...], MessageInfo, bool]],
        recipients: Sequence[tuple[Any, ...]],
        contents: Sequence[tuple[int, bytes, int]],
    ) -> None:
        """Insert messages, with the keys of their files.

        :param messages: the constant columns of each, its information, and whether it is leased.
        :param recipients: the number of the message, and the constant columns.
        :param contents: the number of the message, the content, and its checksum.
        :raises QueueError: an id or a file's key exists already (``cannot_queue``).
        """

    def _check_pieces(self, content: Pieces) -> None:
        found = self.connection.row(
            "SELECT count(*), coalesce(sum(length(data)), 0) FROM piece WHERE body = ?",
            (content.body,),
        )
        if tuple(found) != (content.count, content.size):
            raise QueueError(
                "the queue lost a part of a message", detail=f"{content} became {found}"
            )

    def restore(self, message: QueuedMessage) -> None:
        """See ``Store.restore``."""
        number, there = id_number(message.id), self._database_time
        for r in message.recipients:
            tried = None if r.tried is None else there(r.tried)
            _ = self._change(
                "UPDATE recipient SET state = ?, due = ?, attempts = ?, tried = ?, reply = ?, "
                "status = ?, relay = ? WHERE message = ? AND number = ?",
                (
                    *(r.state.value, there(r.due), r.attempts, tried, r.reply, r.status, r.relay),
                    *(number, r.number),
                ),
            )
        _ = self._change(
            "UPDATE message SET due = ?, attempts = ?, held = ?, expired = ?, warned = ?, "
            "interrupted = ?, aside = ?, ran = ? * (SELECT ran FROM about) - ? WHERE number = ?",
            (
                there(message.due),
                message.attempts,
                message.held,
                "expired" if message.expired else None,
                message.warned,
                message.interrupted,
                message.aside and message.aside.value,
                float(not message.held),
                message.age,
                number,
            ),
        )

    def _throw_away_orphans(self, older_than: int) -> None:
        """Mark bodies below *older_than* that have no message as rubbish."""
        # One seek for each body, not for each piece.
        _ = self._change(
            """
            WITH RECURSIVE bodies (body) AS (
                SELECT min(body) FROM piece
                UNION ALL
                SELECT (SELECT min(p.body) FROM piece p WHERE p.body > bodies.body)
                FROM bodies WHERE bodies.body < ?
            )
            INSERT INTO rubbish SELECT body FROM bodies WHERE body < ?
                AND NOT EXISTS (SELECT 1 FROM message WHERE message.body = bodies.body)
            ON CONFLICT DO NOTHING
            """,
            (older_than, older_than),
        )

    def sweep(self, body: int) -> bool:
        """See ``Store.sweep``."""
        query = "SELECT 1 FROM message WHERE body = ?"
        if self.connection.value(query, (body,)) is not None:
            return True
        removed = self._change(
            "DELETE FROM piece WHERE body = ? AND place IN "
            "(SELECT place FROM piece WHERE body = ? ORDER BY place LIMIT ?)",
            (body, body, SWEEP_PIECES),
        )
        if removed == SWEEP_PIECES:
            return False
        _ = self._change("DELETE FROM rubbish WHERE body = ?", (body,))
        return True

    # -- delivery ----------------------------------------------------------------------

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> list[LeasedMessage]:
        """See ``Store.lease``."""
        numbers = self._take(
            route,
            self._database_time(now),
            self._database_time(max(now, horizon)),
            max(0, fresh),
            max(0, retries),
        )
        if not numbers:
            return []
        these = (self._list(numbers),)
        messages, recipients = self._rows(numbers)
        contents = {
            number: row
            for number, *row in self.connection.rows(
                f"SELECT message, data, checksum FROM content WHERE message {self.THESE}",  # noqa: S608
                these,
            )
        }
        leased = []
        for number in numbers:
            row = messages[number]
            try:
                message = self._decode(row, recipients.get(number, []))
                content = (
                    None if row[BODY] else intact(contents.get(number), number, 0, message.size)
                )
            except Damaged:
                self._set_aside(number)
                continue
            leased.append(LeasedMessage(message, content, self._lease_of(row)))
        return leased

    @abstractmethod
    def _take(
        self, route: str, now: float, horizon: float, fresh: int, retries: int
    ) -> Sequence[int]:
        """Lease messages that are due, and return their numbers; the times are the database's.

        Fresh ones come first, each kind by due time.
        """

    def _lease_of(self, row: Sequence[Any]) -> Lease:
        """Return the lease of the message of *row*, which was leased just now."""
        return self.first_lease

    def _rows(self, numbers: Collection[int]) -> tuple[dict[int, Any], dict[int, list[Any]]]:
        """Return the rows of messages and of their recipients, by the message's number."""
        these = (self._list(numbers),)
        rows = self.connection.rows(
            f"SELECT {self._message_columns} FROM message WHERE number {self.THESE} {self._read_lock}",  # noqa: S608
            these,
        )
        recipients: dict[int, list[Any]] = {}
        for message, *row in self.connection.rows(
            f"SELECT message, {RECIPIENT} FROM recipient WHERE message {self.THESE} "  # noqa: S608
            "ORDER BY message, number",
            these,
        ):
            recipients.setdefault(message, []).append(row)
        return {row[0]: row for row in rows}, recipients

    @property
    def _read_lock(self) -> str:
        """Follows the query of messages whose recipients are read next."""
        return ""

    def _decode(self, row: Sequence[Any], recipients: Sequence[Sequence[Any]]) -> QueuedMessage:
        return decode(row[:OWNER], recipients)

    def where(self, id: str) -> ContentPlace:  # noqa: A002 - the field's name
        """See ``Store.where``."""
        number = id_number(id)
        rows, recipients = self._rows([] if number is None else [number])
        if number is None or number not in rows:
            raise _not_in_queue(id)
        row = rows[number]
        try:
            message = self._decode(row, recipients.get(number, []))
        except Damaged:
            raise message_damaged(id) from None
        return ContentPlace(number, row[BODY], row[PIECES], message.size)

    def piece(self, at: ContentPlace, place: int) -> bytes:
        """See ``Store.piece``."""
        try:
            if at.body is None:
                query = "SELECT data, checksum FROM content WHERE message = ?"
                return intact(self.connection.row(query, (at.number,)), at.number, 0, at.size)
            query = "SELECT data, checksum FROM piece WHERE body = ? AND place = ?"
            return intact(self.connection.row(query, (at.body, place)), at.body, place)
        except Damaged:
            query = "SELECT 1 FROM message WHERE number = ?"
            if self.connection.row(query, (at.number,)) is None:
                # Another relay took it over, and delivered it.
                raise _not_in_queue(id_text(at.number)) from None
            raise message_damaged(id_text(at.number)) from None

    def set_aside(self, id: str) -> None:  # noqa: A002 - the field's name
        """See ``Store.set_aside``."""
        number = id_number(id)
        if number is not None:
            self._set_aside(number)

    def _set_aside(self, number: int) -> None:
        if self._change(
            f"UPDATE message SET aside = 'damaged', {self.NOT_LEASED} WHERE number = ?",  # noqa: S608
            (number,),
        ):
            self._damaged(id_text(number))

    # -- results -----------------------------------------------------------------------

    def settle_all(
        self, records: Sequence[AttemptRecord]
    ) -> list[QueuedMessage | QueueError | None]:
        """See ``Store.settle_all``."""
        numbers = [id_number(record.id) for record in records]
        standing = self._standing([number for number in numbers if number is not None])
        gone: list[int] = []
        changed: list[tuple[int, AttemptRecord]] = []
        kept: set[int] = set()
        lost: dict[int, QueueError] = {}
        settled: set[int] = set()
        for place, (number, record) in enumerate(zip(numbers, records, strict=True)):
            lease = record.lease
            if lease is not None and lease.node != self.node:
                lost[place] = LeaseLost.of(record.id)
                continue
            if number is None or number not in standing:
                continue
            _, owner, fence, doomed, pending = standing[number]
            # A standby that was promoted without the last lease may issue its fence again.
            if lease is not None and (lease.fence != fence or owner not in {None, self.node}):
                lost[place] = LeaseLost.of(record.id)
                continue
            if owner != self.node or number in settled:
                # It was recorded before.
                kept.add(number)
                continue
            settled.add(number)
            if record.reports:
                _ = self.put_all([(info, content, False) for info, content in record.reports])
            left = set(pending) - settled_recipients(record)
            if doomed == "doomed" or not (left or record.aside):
                gone.append(number)
            else:
                changed.append((number, record))
                kept.add(number)
        if changed:
            self._update(changed)
        self._delete(gone)
        messages = self._read(sorted(kept - set(gone)))
        return [
            lost.get(place) or (None if number is None else messages.get(number))
            for place, number in enumerate(numbers)
        ]

    @abstractmethod
    def _standing(self, numbers: Sequence[int]) -> dict[int, Standing]:
        """Return the state of messages, by their numbers, in ascending order; lock them."""

    @abstractmethod
    def _update(self, changed: Sequence[tuple[int, AttemptRecord]]) -> None:
        """Write records of attempts into the rows of their messages, which stay, and end the leases."""

    @abstractmethod
    def _delete(self, numbers: Sequence[int]) -> None:
        """Remove messages with all that belongs to them."""

    def _read(self, numbers: Sequence[int]) -> dict[int, QueuedMessage]:
        messages: dict[int, QueuedMessage] = {}
        if not numbers:
            return messages
        rows, recipients = self._rows(numbers)
        for number, row in rows.items():
            try:
                messages[number] = self._decode(row, recipients.get(number, []))
            except Damaged:
                self._set_aside(number)
        return messages

    def release(self, leased: Sequence[LeasedMessage]) -> None:
        """See ``Store.release``."""
        fences = {
            number: each.lease.fence
            for each in leased
            if each.lease.node == self.node and (number := id_number(each.message.id)) is not None
        }
        _ = self._end_leases(list(fences), self.node, interrupted=False, fences=fences)

    def hold_unrecorded(self, id: str, lease: Lease | None) -> None:  # noqa: A002
        """See ``Store.hold_unrecorded``."""
        number = id_number(id)
        if number is None or (lease is not None and lease.node != self.node):
            return
        fences = None if lease is None else {number: lease.fence}
        if self._end_leases([number], self.node, interrupted=True, fences=fences):
            self._hold([number], hold=True)

    def _end_leases(
        self,
        numbers: Sequence[int],
        owner: int,
        *,
        interrupted: bool,
        fences: dict[int, int] | None = None,
    ) -> tuple[str, ...]:
        """End the leases that relay *owner* has of messages; return the ids of those that are left.

        :param interrupted: the ends of these attempts are unknown: a copy may have gone out.
        :param fences: only leases with these fences.
        """
        left: list[int] = []
        doomed: list[int] = []
        for each in self._standing(numbers).values() if numbers else ():
            if each.owner == owner and (fences is None or fences[each.number] == each.fence):
                (doomed if each.doomed == "doomed" else left).append(each.number)
        self._delete(doomed)
        if left:
            interruption = self.INTERRUPTED if interrupted else ""
            _ = self._change(
                f"UPDATE message SET {self.NOT_LEASED}{interruption} WHERE number {self.THESE}",  # noqa: S608
                (self._list(left),),
            )
        return tuple([id_text(number) for number in left])

    def reroute(self, routes: dict[str, str]) -> None:
        """See ``Store.reroute``."""
        if not routes:
            return
        cases = " ".join(["WHEN ? THEN ?"] * len(routes))
        places = ", ".join("?" * len(routes))
        pairs = [name for pair in routes.items() for name in pair]
        _ = self._change(
            f"UPDATE message SET route = CASE route {cases} END WHERE route IN ({places})",  # noqa: S608
            (*pairs, *routes),
        )

    # -- operators ---------------------------------------------------------------------

    def probe(self) -> None:
        """See ``Store.probe``."""
        _ = self._change("INSERT INTO rubbish VALUES (-1) ON CONFLICT DO NOTHING")
        _ = self._change("DELETE FROM rubbish WHERE body = -1")

    def newest(self) -> int:
        """See ``Store.newest``."""
        return int(self.connection.value("SELECT coalesce(max(number), 0) FROM message"))

    def count(self, selection: Selection | None = None) -> int:
        """See ``Store.count``."""
        where, parameters = self._where(selection or Selection())
        query = f"SELECT count(*) FROM message {where}"  # noqa: S608
        return int(self.connection.value(query, parameters))

    def _selected(self, selection: Selection, *, lock: bool = False) -> list[Any]:
        """Return the numbers that match, oldest first, each with what ``act`` needs to decide."""
        where, parameters = self._where(selection)
        limit = _ALL if selection.limit is None else max(0, selection.limit)
        return self.connection.rows(
            f"SELECT number, {self.LEASED}, held, aside, route FROM message {where} "  # noqa: S608
            f"ORDER BY number LIMIT ? OFFSET ? {self.FOR_UPDATE if lock else ''}",
            (*parameters, limit, selection.offset),
        )

    def _where(self, selection: Selection) -> tuple[str, list[Any]]:
        """Return the WHERE clause of a selection, and its parameters."""
        after = None if selection.after is None else id_number(selection.after)
        clauses: list[str] = ["number > ?"]
        parameters: list[Any] = [-1 if after is None else after]
        if selection.ids:
            clauses.append(f"number {self.THESE}")
            numbers = [id_number(each) for each in selection.ids]
            parameters.append(self._list([number for number in numbers if number is not None]))
        for given, condition in (
            (selection.queue, f"{self._queue_name} = ?"),
            (selection.route, "route = ?"),
            (selection.uid, "uid = ?"),
        ):
            if given is not None:
                clauses.append(condition)
                parameters.append(self._text(given) if isinstance(given, str) else given)
        if selection.sender == "":
            clauses.append("sender = ''")
        elif selection.sender is not None:
            condition, values = self._fits("sender", selection.sender)
            clauses.append(condition)
            parameters += values
        if selection.recipient is not None:
            condition, values = self._fits("r.address", selection.recipient)
            # Recipients that do not have the message yet.
            clauses.append(
                "EXISTS (SELECT 1 FROM recipient r WHERE r.message = message.number "  # noqa: S608
                f"AND r.state <> 'delivered' AND {condition})"
            )
            parameters += values
        return f"WHERE {' AND '.join(clauses)}", parameters

    def list(self, selection: Selection) -> list[QueuedMessage]:
        """See ``Store.list``."""
        numbers = [row[0] for row in self._selected(selection)]
        if not numbers:
            return []
        rows, recipients = self._rows(numbers)
        names = self._owner_names(rows.values())
        messages = []
        for number in numbers:
            row, those = rows[number], recipients.get(number, [])
            try:
                message = self._decode(row, those)
            except Damaged:
                damaged = decode_damaged(row[:OWNER], those)
                message = attrs.evolve(damaged, aside=SetAsideReason.DAMAGED)
            owner = names.get(row[OWNER]) if names else None
            messages.append(attrs.evolve(message, owner=owner) if owner else message)
        return messages

    def _owner_names(self, rows: Iterable[Sequence[Any]]) -> dict[int, str]:
        """Return the names of the relays that have messages of *rows* leased, by their numbers."""
        return {}

    def act(self, action: QueueAction, selection: Selection, now: float) -> list[QueueActionResult]:  # type: ignore[valid-type]
        """See ``Store.act``."""
        found = [
            row
            for row in self._selected(selection, lock=True)
            if applies(action, held=bool(row[2]), aside=row[3])
        ]
        if found:
            self._act(action, found, self._database_time(now))
        routes: set[str] = set()
        if action in {QueueAction.FLUSH, QueueAction.REQUEUE} and selection.uid is None:
            routes = {row[4] for row in found} | ({""} if selection == Selection() else set())
        self._acted(changed=bool(found), flushed=sorted(routes))
        return [QueueActionResult(id_text(row[0]), on_its_way=bool(row[1])) for row in found]

    @abstractmethod
    def _acted(self, *, changed: bool, flushed: Sequence[str]) -> None:
        """Record for the relays what an operator did.

        :param changed: messages were changed.
        :param flushed: routes whose messages were flushed; ``""`` is all routes.
        """

    def _act(self, action: QueueAction, found: Sequence[Any], now: float) -> None:
        numbers = [row[0] for row in found]
        these = self._list(numbers)
        if action is QueueAction.DELETE:
            leased = [row[0] for row in found if row[1]]
            if leased:
                _ = self._change(
                    f"UPDATE message SET doomed = 'doomed' WHERE number {self.THESE}",  # noqa: S608
                    (self._list(leased),),
                )
            self._delete([row[0] for row in found if not row[1]])
        elif action is QueueAction.REQUEUE:
            self._requeue(found)
        elif action is QueueAction.FLUSH:
            _ = self._change(
                f"UPDATE recipient SET due = {self.LEAST}(due, ?) WHERE message {self.THESE} "  # noqa: S608
                "AND state = 'pending'",
                (now, these),
            )
            _ = self._change(
                f"UPDATE message SET due = {self.LEAST}(due, ?) WHERE number {self.THESE}",  # noqa: S608
                (now, these),
            )
        elif action is QueueAction.EXPIRE:
            _ = self._change(
                "UPDATE message SET expired = 'expired', held = FALSE, due = 0.0, "  # noqa: S608
                "ran = CASE WHEN held THEN ran + (SELECT ran FROM about) ELSE ran END "
                f"WHERE number {self.THESE}",
                (these,),
            )
        else:
            self._hold(numbers, hold=action is QueueAction.HOLD)

    def _hold(self, numbers: Sequence[int], *, hold: bool) -> None:
        # On hold ``ran`` is minus the age.
        other, sign = ("FALSE", "-") if hold else ("TRUE", "+")
        _ = self._change(
            f"UPDATE message SET held = NOT held, ran = ran {sign} (SELECT ran FROM about) "  # noqa: S608
            f"WHERE held = {other} AND number {self.THESE}",
            (self._list(numbers),),
        )

    def _requeue(self, found: Sequence[Any]) -> None:
        undeliverable = [row[0] for row in found if row[3] is not None]
        if undeliverable:
            # The recipients failed, and no report was sent.
            _ = self._change(
                f"UPDATE recipient SET state = 'pending' WHERE message {self.THESE} "  # noqa: S608
                "AND state = 'failed'",
                (self._list(undeliverable),),
            )
        these = (self._list([row[0] for row in found]),)
        _ = self._change(
            "UPDATE recipient SET due = 0.0, attempts = 0, reply = NULL, status = NULL, relay = NULL "  # noqa: S608
            f"WHERE message {self.THESE} AND state = 'pending'",
            these,
        )
        _ = self._change(
            "UPDATE message SET due = 0.0, attempts = 0, expired = NULL, warned = FALSE, aside = NULL, "  # noqa: S608
            "ran = CASE WHEN held THEN 0.0 ELSE (SELECT ran FROM about) END "
            f"WHERE number {self.THESE}",
            these,
        )

    def clear_aside(self, keep: float) -> Sequence[str]:
        """See ``Store.clear_aside``."""
        rows = self.connection.rows(
            "SELECT number FROM message WHERE aside = 'undeliverable' AND NOT held "  # noqa: S608
            f"AND (SELECT ran FROM about) - ran >= ? ORDER BY number LIMIT ? {self.SKIP_LOCKED}",
            (keep, CLEAR_LIMIT),
        )
        numbers = [number for (number,) in rows]
        self._delete(numbers)
        return [id_text(number) for number in numbers]

    def totals(self) -> QueueTotals:
        """See ``Store.totals``."""
        queues = self.connection.rows(
            f"SELECT {self._queue_name}, count(*) FROM message GROUP BY 1"  # noqa: S608
        )
        deferred = self.connection.rows(
            "SELECT coalesce(status, ''), count(*) FROM recipient "
            "WHERE state = 'pending' AND (attempts > 0 OR status IS NOT NULL) GROUP BY 1"
        )
        oldest, octets = self.connection.row(
            "SELECT min(CASE WHEN aside IS NULL THEN arrived END), "
            "CAST(coalesce(sum(size), 0) AS bigint) FROM message"
        )
        return QueueTotals(
            dict(queues),
            dict(deferred),
            None if oldest is None else self._local_time(oldest),
            octets,
        )


def _not_in_queue(id: str) -> QueueError:  # noqa: A002 - the field's name
    return QueueError(f"message {id} is not in the queue")
