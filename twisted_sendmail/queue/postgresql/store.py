"""The queue in PostgreSQL: leases, commits, and statements that ``sql_store`` has not; without Twisted.

How messages move through the tables is described in ``queue.store``.  Several relays and commands use
the tables at the same time, each with a connection of its own, in transactions that read what is
committed.

**Leases.**  A relay is a row of ``node``.  It has leased the messages whose ``owner`` is its number.
One update of its row, ``renew``, extends all its leases.  When a relay did not renew in time, or its
process is known to have ended, another relay deletes its row and ends its leases (``_reclaim``); the
attempts under way count as interrupted.  A relay that could not renew its own leases either, because the
database was away, first leaves the others time to renew theirs.  Each lease of a message increases
``fence``; a record counts only if the message still has the fence of its lease.

**Commits.**  Every writing transaction of a relay sets ``node.committed`` to its serial number.  When
the connection is lost during COMMIT, the row tells on the next connection whether it was committed:
the row is locked, which waits for the end of the old transaction.  A commit that is on the disk of
the primary only is repeated, with no change, until it is replicated; else it failed.

**Round trips.**  Each costs more than the work of most statements.  A transaction begins with one for
its settings, its number and the clock; messages are inserted, leased and settled in batches, by
statements whose number does not depend on the number of messages.

**Clocks.**  Times in the tables are those of the database's clock.  A clock of this machine that
differs by more than two seconds is corrected when values are written and read.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger

from twisted_sendmail.queue.errors import QueueError, QueueUnusable
from twisted_sendmail.queue.ids import id_number
from twisted_sendmail.queue.interface import RecoveryReport
from twisted_sendmail.queue.models import (
    ClusterState,
    DownRoute,
    Lease,
    LeasedMessage,
    LeaseTerm,
    QueuedMessage,
    RelayNode,
)
from twisted_sendmail.queue.postgresql.address import WEAKER, DatabaseAddress
from twisted_sendmail.queue.postgresql.connection import (
    ERRORS,
    PostgreSQLConnection,
    database_error,
    ends_connection,
    is_lost,
    is_of_server,
    unusable,
)
from twisted_sendmail.queue.postgresql.driver import psycopg
from twisted_sendmail.queue.postgresql.process import has_ended, process_name
from twisted_sendmail.queue.postgresql.schema import READY, prepare
from twisted_sendmail.queue.rows import (
    FENCE,
    OWNER,
    content_checksum,
)
from twisted_sendmail.queue.sql_store import SQLStore, Standing
from twisted_sendmail.queue.store import (
    StoreState,
    cannot_queue,
)
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from twisted_sendmail.queue.models import AttemptRecord, MessageInfo

#: Seconds between two attempts to connect: first and largest.
FIRST_DELAY, MAX_DELAY = 0.25, 4.0
#: Seconds in which the result of a COMMIT whose connection was lost is looked up.
RESOLVE_TIME = 20.0
# Difference of clocks, in seconds, that is left alone: NTP keeps clocks closer.
_CLOCK_TOLERANCE = 2.0
# Share of the lease time after which a lease counts as ended for its own holder.
_SAFETY = 1 / 12
#: The renewals in one lease time.
RENEWALS = 4
# Share of the lease time without a renewal after which other relays get time for theirs.
_MISSED = 0.6
# Milliseconds that a transaction waits for a lock of another, and that it may be idle.
_LOCK_TIMEOUT, _IDLE_TIMEOUT = 10_000, 30_000

# Columns of new rows with their types, and the values of the others.
_NEW_MESSAGE = {
    "number": "bigint",
    "arrived": "float8",
    "sender": "text",
    "sender_folded": "text",
    "parameters": "text",
    "size": "bigint",
    "origin": "text",
    "uid": "bigint",
    "body": "bigint",
    "pieces": "integer",
    "checksum": "bigint",
    "route": "text",
    "owner": "bigint",
    "fence": "bigint",
    "held": "boolean",
}
_NEW_MESSAGE_STATE = {
    "due": "0.0",
    "attempts": "0",
    "warned": "false",
    "interrupted": "0",
    # The age of a new message is 0.
    "ran": "CASE WHEN held THEN 0.0 ELSE (SELECT ran FROM about) END",
}
_NEW_RECIPIENT = {
    "message": "bigint",
    "number": "integer",
    "address": "text",
    "address_folded": "text",
    "notify": "text",
    "orcpt": "text",
}
_NEW_RECIPIENT_STATE = {"state": "'pending'", "due": "0.0", "attempts": "0"}
_NEW_CONTENT = {"message": "bigint", "data": "bytea", "checksum": "bigint"}


def _insertion(table: str, given: dict[str, str], state: dict[str, str]) -> str:
    """Return the statement that inserts rows, with one array for each column.

    :param given: name and type of each column that is given.
    :param state: the other columns, and their values in SQL.
    """
    arrays = ", ".join(f"%b::{kind}[]" for kind in given.values())
    return (
        f"INSERT INTO {table} ({', '.join((*given, *state))}) "  # noqa: S608 - constant texts
        f"SELECT {', '.join((*given, *state.values()))} "
        f"FROM unnest({arrays}) AS new ({', '.join(given)})"
    )


_INSERT_LARGE = (
    f"WITH inserted AS ({_insertion('message', _NEW_MESSAGE, _NEW_MESSAGE_STATE)}) "
    f"{_insertion('recipient', _NEW_RECIPIENT, _NEW_RECIPIENT_STATE)}"
)
_INSERT = (
    f"WITH inserted AS ({_insertion('message', _NEW_MESSAGE, _NEW_MESSAGE_STATE)}), "
    f"contents AS ({_insertion('content', _NEW_CONTENT, {})}) "
    f"{_insertion('recipient', _NEW_RECIPIENT, _NEW_RECIPIENT_STATE)}"
)


def _due(kind: str, due: str, limit: str) -> str:
    """Return the query that locks messages for a lease; one that another relay is leasing is left to it."""
    return (
        f"(SELECT number FROM message WHERE route = %(route)s AND {kind} AND {READY} "  # noqa: S608
        f"AND due {due} ORDER BY due, number LIMIT {limit} FOR UPDATE SKIP LOCKED)"
    )


# Due now, or in a future that a clock that jumped has made.
_NOW, _LATE = "<= %(now)s", "> %(horizon)s"
# Leases of all kinds in one statement.
_LEASE = f"""
    WITH fresh AS {_due("NOT retried", _NOW, "%(fresh)s")},
    old AS {_due("retried", _NOW, "%(retries)s")},
    fresh_late AS {_due("NOT retried", _LATE, "(SELECT %(fresh)s - count(*) FROM fresh)")},
    old_late AS {_due("retried", _LATE, "(SELECT %(retries)s - count(*) FROM old)")},
    found AS (SELECT number FROM fresh UNION ALL SELECT number FROM old
        UNION ALL SELECT number FROM fresh_late UNION ALL SELECT number FROM old_late)
    UPDATE message SET owner = %(owner)s, fence = fence + 1 FROM found
    WHERE message.number = found.number RETURNING message.number, retried, due
"""  # noqa: S608
_ROUTES = f"""
    WITH RECURSIVE routes (route) AS (
        (SELECT route FROM message WHERE {READY} ORDER BY route LIMIT 1)
        UNION ALL
        SELECT (SELECT m.route FROM message m WHERE {READY} AND m.route > routes.route
            ORDER BY m.route LIMIT 1)
        FROM routes WHERE routes.route IS NOT NULL
    )
    SELECT route, least(
        (SELECT due FROM message m WHERE m.route = routes.route AND NOT retried AND {READY}
            ORDER BY due, number LIMIT 1),
        (SELECT due FROM message m WHERE m.route = routes.route AND retried AND {READY}
            ORDER BY due, number LIMIT 1))
    FROM routes WHERE route IS NOT NULL
"""  # noqa: S608
# A damaged state counts as pending.
_STANDING = """
    SELECT number, owner, fence, doomed, ARRAY(SELECT r.number FROM recipient r
        WHERE r.message = m.number AND state NOT IN ('delivered', 'failed'))
    FROM message m WHERE number = ANY(%b::bigint[]) ORDER BY number FOR UPDATE
"""
_UPDATE_RECIPIENTS = """
    UPDATE recipient r SET state = c.state, due = c.due, attempts = attempts + c.tried,
        tried = CASE WHEN c.tried > 0 THEN c.at ELSE r.tried END,
        reply = CASE WHEN c.new THEN c.reply ELSE r.reply END,
        status = CASE WHEN c.new THEN c.status ELSE r.status END,
        relay = CASE WHEN c.new THEN c.relay ELSE r.relay END
    FROM unnest(%b::bigint[], %b::integer[], %b::text[], %b::float8[], %b::integer[], %b::float8[],
        %b::boolean[], %b::text[], %b::text[], %b::text[])
        AS c (message, number, state, due, tried, at, new, reply, status, relay)
    WHERE r.message = c.message AND r.number = c.number AND r.state = 'pending'
"""
# Due at the next time of its recipients; now, when the operator expired the message.
_UPDATE_MESSAGES = """
    UPDATE message m SET owner = NULL, attempts = m.attempts + c.tried,
        interrupted = m.interrupted + c.in_doubt, warned = m.warned OR c.warned,
        aside = coalesce(c.aside, m.aside),
        due = CASE WHEN m.expired IS NOT NULL THEN 0.0 ELSE coalesce(
            (SELECT min(r.due) FROM recipient r WHERE r.message = m.number AND r.state = 'pending'),
            CASE WHEN c.aside IS NULL THEN m.due ELSE 0.0 END) END,
        ran = CASE WHEN c.aside IS NULL THEN m.ran WHEN m.held THEN 0.0
            ELSE (SELECT a.ran FROM about a) END
    FROM unnest(%b::bigint[], %b::integer[], %b::integer[], %b::boolean[], %b::text[])
        AS c (number, tried, in_doubt, warned, aside)
    WHERE m.number = c.number
"""
_DELETE = """
    WITH gone AS (DELETE FROM message WHERE number = ANY(%b::bigint[]) RETURNING number, body),
        recipients AS (DELETE FROM recipient USING gone WHERE message = gone.number),
        contents AS (DELETE FROM content USING gone WHERE message = gone.number AND gone.body IS NULL)
    INSERT INTO rubbish SELECT body FROM gone WHERE body IS NOT NULL ON CONFLICT DO NOTHING
"""
_DEAD = """
    SELECT number, name FROM node
    WHERE number <> %(own)s AND (number = ANY(%(ended)b::bigint[]) OR %(expired)s
        AND (alive_until < clock_timestamp()
            -- Written before the clock was set back: longer than any lease.
            OR alive_until > clock_timestamp() + interval '2 days'))
    FOR UPDATE SKIP LOCKED
"""
_END_NODE = """
    WITH gone AS (DELETE FROM node WHERE number = %s RETURNING number, committed)
    INSERT INTO ended_node SELECT number, committed, clock_timestamp() FROM gone
"""
_NODES = """
    SELECT name, started, (SELECT count(*) FROM message WHERE owner = node.number),
        alive_until >= clock_timestamp()
    FROM node ORDER BY name, number
"""
_CLOCK = "extract(epoch FROM clock_timestamp())::float8"
_log = Logger(namespace="twisted_sendmail.queue")


class CommitUnknown(QueueError):
    """The connection was lost during COMMIT, and its result could not be looked up."""


class PostgreSQLStore(SQLStore[PostgreSQLConnection]):
    """The queue in the database at *address*.

    :param damaged: called with the id of each message that is found damaged and set aside.
    :param seconds: returns seconds since 1970, from the clock of this machine.
    """

    THESE = "= ANY(%b::bigint[])"
    LEASED = "owner IS NOT NULL"
    NOT_LEASED = "owner = NULL"
    INTERRUPTED = ", interrupted = interrupted + 1, fence = fence + 1"
    LEASE_COLUMNS = ", owner, fence"
    LEAST = "least"
    FOR_UPDATE = "FOR UPDATE"
    SKIP_LOCKED = "FOR UPDATE SKIP LOCKED"
    errors = ERRORS

    def __init__(
        self,
        address: DatabaseAddress | str,
        *,
        damaged: Callable[[str], None] = lambda _: None,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(address, str):
            address = DatabaseAddress.parse(address)
        super().__init__(damaged)
        self.address = address
        self._seconds = seconds
        self._create = self._relay = self._read_only = self._opened = False
        #: Name of this relay.
        self.name = address.node or socket.gethostname()
        #: The time until which its leases are valid.
        self.term = LeaseTerm()
        self._serial = 0
        self._writing = False
        # The last renewal, by the clock of the leases and by the database's.
        self._renewed: tuple[float, float] | None = None
        self._patient_until = float("-inf")
        # Back-off of connecting.
        self._delay = FIRST_DELAY
        self._next_try = float("-inf")
        self._refused: QueueError | None = None
        # The server's reason to end the last connection: it explains why it cannot be reached.
        self._ended: QueueError | None = None
        # Weaknesses of the server in use that were logged.
        self._weaknesses: set[str] = set()
        # The last results of ``state`` and ``take_flushed``.
        self._own_changes = 0
        self._flushed: set[int] | None = None
        self._others = self._others_committed = 0

    # -- opening, closing ----------------------------------------------------------------

    def open(self, *, create: bool = False, relay: bool = False, read_only: bool = False) -> None:
        """See ``Store.open``."""
        self._create, self._relay, self._read_only = create, relay, read_only
        self._opened = False
        self._next_try = float("-inf")
        self._connect()

    def reopen(self) -> None:
        """See ``Store.reopen``."""
        self._drop()
        self._connect()

    def _connect(self) -> None:
        """Connect, unless an attempt failed just now."""
        refused = self._refused
        if refused is not None and time.monotonic() < self._next_try:
            # Not the same exception: each time it is raised it would keep more frames.
            again = QueueError(refused.what, detail=refused.detail, remedy=refused.remedy)
            again.temporary = refused.temporary
            raise again
        try:
            connection = PostgreSQLConnection(self.address)
            try:
                prepare(connection, self.address, create=self._create)
                if self._relay:
                    self._check_durability(connection)
            except BaseException:
                connection.close()
                raise
        except (QueueError, *ERRORS) as e:
            first = self._refused is None
            self._refused = refused = self.error(e, "be reached")
            if self._ended is not None:
                refused.detail += f"; the last connection ended: {self._ended.detail}"
                refused.remedy = self._ended.remedy or refused.remedy
            # A database that was open may be reachable again: nothing is given up.
            refused.temporary |= self._opened
            if self._opened and first:
                _log.error("{problem}; trying again", problem=str(refused))
            self._next_try = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, MAX_DELAY)
            raise self._refused from None
        if self._opened:
            _log.info(
                "{queue}: connected again, to {host}", queue=self.address, host=connection.host
            )
        self._delay, self._refused, self._ended = FIRST_DELAY, None, None
        self._connection, self._opened = connection, True

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """See ``Store.close``."""
        self.term.end()
        self._drop()

    def _check_durability(self, connection: PostgreSQLConnection) -> None:
        """Check settings of the server that decide whether accepted mail survives.

        Each server is checked: the one that takes over may have others.

        :raises QueueUnusable: it does not write durably.
        """
        fsync, full_pages, standbys = connection.row(
            "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
            "current_setting('synchronous_standby_names')"
        )
        if fsync != "on":
            raise unusable(
                self.address,
                "the server runs with fsync = off, and loses mail when the power fails",
                "set fsync = on in postgresql.conf",
            )
        weaknesses = set()
        if full_pages != "on":
            weaknesses.add(
                "the server runs with full_page_writes = off: a power failure may damage the queue, "
                "unless its file system writes whole pages"
            )
        chosen = self.address.synchronous_commit
        if chosen in WEAKER:
            weaknesses.add(f"synchronous_commit = {chosen}: mail that was accepted may be lost")
        elif not standbys:
            weaknesses.add(
                "the server has no synchronous standby (synchronous_standby_names is empty): the "
                "promotion of a standby may lose mail that was accepted"
            )
        for weakness in sorted(weaknesses - self._weaknesses):
            _log.warn("{queue}: {weakness}", queue=str(self.address), weakness=weakness)
        self._weaknesses = weaknesses

    # -- transactions --------------------------------------------------------------------

    def begin(self, *, write: bool = True) -> None:
        """See ``Store.begin``; connects again if the connection was lost."""
        if self._connection is not None and self._connection.lost:
            self._drop()
        if self._connection is None:
            self._connect()
        try:
            self._begin_as_relay(write=write and not self._read_only)
        except psycopg.OperationalError as e:
            # Lost while it was idle, as when the server was started again: nothing has begun.
            if not self.connection.lost:
                raise
            self._note_end(e)
            self._drop()
            self._connect()
            self._begin_as_relay(write=write and not self._read_only)

    def _begin_as_relay(self, *, write: bool) -> None:
        """Begin a transaction; register first if this is a relay that is not registered any more."""
        if write and self._relay and not self.node:
            self._register()
        if not self._begin(write=write, count=True):
            # Another relay took the leases over while this one was suspended or cut off.
            self.rollback()
            self._register()
            _ = self._begin(write=True, count=True)

    def _begin(self, *, write: bool, count: bool = False) -> bool:
        """Begin a transaction in one round trip; return False if this relay is not registered any more.

        :param count: number the transaction, if this is a relay.
        """
        self._writing = write
        ask = f"SELECT {_CLOCK}"
        if write:
            # Settings of the transaction, whatever the defaults of the database, the user and the URL
            # are: PgBouncer gives the next one another session.  The warning that a commit was not
            # replicated must arrive.
            start = (
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
                f"SET LOCAL synchronous_commit TO {self.address.synchronous_commit}; "
                "SET LOCAL client_min_messages TO warning; "
                f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT}; "
                f"SET LOCAL idle_in_transaction_session_timeout TO {_IDLE_TIMEOUT}"
            )
            if count and self.node:
                self._serial += 1
                ask = (
                    f"UPDATE node SET committed = {self._serial} WHERE number = {self.node} "  # noqa: S608
                    f"RETURNING {_CLOCK}"
                )
        else:
            start = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        before = self._seconds()
        found = self.connection.run(
            f"{start}; SET LOCAL search_path TO {self.address.schema}; {ask}"
        )
        after = self._seconds()
        if found is None:
            return False
        if after - before < _CLOCK_TOLERANCE:
            offset = (before + after) / 2 - found[0]
            self.clock_offset = 0.0 if abs(offset) < _CLOCK_TOLERANCE else float(round(offset))
        return True

    def commit(self) -> None:
        """See ``Store.commit``; finds out what became of a commit whose answer was lost."""
        connection, serial = self.connection, self._serial
        try:
            durable = connection.commit()
        except ERRORS as e:
            if not (self._writing and self.node and connection.lost):
                raise
            self._resolve(serial, e)
        else:
            if not durable and self._writing:
                self._replicate()

    def _resolve(self, serial: int, cause: Exception) -> None:
        """Return if transaction *serial* was committed durably.

        :raises QueueError: it was not, or that cannot be known now.
        """
        self._note_end(cause)
        until = time.monotonic() + RESOLVE_TIME
        while True:
            self._drop()
            try:
                self._connect()
                _ = self._begin(write=True)
                # Waits for the end of the old transaction, whose session may still wait for a standby.
                committed = self.connection.value(
                    "SELECT committed FROM node WHERE number = %s FOR UPDATE", (self.node,)
                )
                if committed is None:
                    # Another relay has taken over.
                    committed = self.connection.value(
                        "SELECT committed FROM ended_node WHERE number = %s", (self.node,)
                    )
                durable = self.connection.commit()
            except (QueueError, *ERRORS):
                pass
            else:
                if committed is None:
                    # A standby that did not have this relay yet was promoted.
                    break
                if committed < serial:
                    raise CommitUnknown(
                        "the queue lost its connection before the commit",
                        detail=str(self.error(cause, "commit")),
                    )
                if not durable:
                    self._replicate()
                return
            if time.monotonic() > until:
                break
            time.sleep(min(self._delay, FIRST_DELAY))
        raise CommitUnknown(
            "the result of a commit of the queue is not known",
            detail=str(self.error(cause, "commit")),
        )

    def _replicate(self) -> None:
        """Return when everything that is committed is on a standby as well.

        Commits are replicated in order: an empty commit that is replicated
        confirms those before.

        :raises QueueError: that cannot be obtained.
        """
        for _ in range(3):
            try:
                _ = self._begin(write=True)
                if self.node:
                    _ = self.connection.execute(
                        "UPDATE node SET committed = committed WHERE number = %s", (self.node,)
                    )
                else:
                    _ = self.connection.execute("UPDATE about SET changed = changed")
                if self.connection.commit():
                    return
            except ERRORS as e:
                raise CommitUnknown(
                    "a commit of the queue was not replicated",
                    detail=str(self.error(e, "commit")),
                ) from None
        raise CommitUnknown(
            "a commit of the queue was not replicated",
            detail=f"the database at {self.address.hosts} cancelled its wait for a standby",
        )

    def rollback(self) -> None:
        """See ``Store.rollback``."""
        connection = self._connection
        if connection is not None and not connection.lost and connection.in_transaction:
            connection.run("ROLLBACK")

    @property
    def changes(self) -> int:
        """See ``Store.changes``."""
        return self.connection.changes

    def error(self, error: Exception, doing: str) -> QueueError:
        """See ``Store.error``."""
        if is_lost(error):
            # A server that became a standby: the next operation finds the primary.
            self._drop()
        self._note_end(error)
        return database_error(self.address, error, doing)

    def _note_end(self, error: Exception) -> None:
        if ends_connection(error):
            self._ended = database_error(self.address, error, "be used")

    def concerns_all(self, error: Exception) -> bool:
        """See ``Store.concerns_all``."""
        connection = self._connection
        return (
            isinstance(error, (CommitUnknown, QueueUnusable))
            or connection is None
            or connection.lost
            or is_of_server(error)
        )

    # -- the dialect ---------------------------------------------------------------------

    def _change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self.connection.execute(sql, parameters)

    def _list(self, numbers: Iterable[int]) -> list[int]:
        return list(numbers)

    def _text(self, text: str) -> str:
        """Return *text* without the characters that no text in PostgreSQL has."""
        return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()

    def _fits(self, column: str, pattern: str) -> tuple[str, list[str]]:
        column = f"coalesce({column}_folded, {column})"
        pattern = self._text(pattern).casefold()
        local, at, domain = pattern.partition("@")
        if not at:
            return f"position(? IN {column}) > 0", [pattern]
        if not local:
            return f"substring({column} FROM '[^@]*$') = ?", [domain]
        return f"{column} = ?", [pattern]

    # -- relays --------------------------------------------------------------------------

    def _register(self) -> None:
        """Become a relay with a new number: earlier leases of this process are lost."""
        self.term.end()
        term = LeaseTerm()
        before = LeaseTerm.now()
        _ = self._begin(write=True)
        number = self.connection.rows(
            "INSERT INTO node (name, process, started, alive_until, committed) VALUES "
            "(%s, %s, extract(epoch FROM clock_timestamp()), "
            "clock_timestamp() + make_interval(secs => %s), 0) RETURNING number",
            (self.name, process_name(), self.address.lease_time),
            changes=True,
        )[0][0]
        if not self.connection.commit():
            self.node = number
            self._replicate()
        self.node, self._serial, self.term = number, 0, term
        term.extend(self._end_of_lease(before))

    def _end_of_lease(self, before: float) -> float:
        return before + self.address.lease_time * (1 - _SAFETY)

    def begin_relay(self, orphans_before: int) -> RecoveryReport:
        """See ``Store.begin_relay``: leases of other relays that live are left alone."""
        # Relays that did not renew in time end with the first renewal: after an outage of the database
        # the others are about to renew.
        interrupted = [id_ for _, ids in self._reclaim(expired=False) for id_ in ids]
        query = "SELECT EXISTS (SELECT FROM node WHERE name = %s AND number <> %s)"
        if self.connection.value(query, (self.name, self.node)):
            _log.warn(
                "{queue}: another relay with the name {name} has the queue open, or has just ended: give "
                "each relay a name of its own with ?node=",
                queue=str(self.address),
                name=printable(self.name),
            )
        if self.connection.value("SELECT count(*) FROM node") == 1:
            _ = self.connection.execute("DELETE FROM route_down")
        self._throw_away_orphans(orphans_before - (int(self.clock_offset * 1_000_000) << 8))
        return RecoveryReport(self.count(), tuple(sorted(interrupted)))

    def end_relay(self, but: Collection[str]) -> None:
        """See ``Store.end_relay``; leases to keep end as those of a relay that died."""
        kept = [number for number in map(id_number, but) if number is not None]
        rows = self.connection.rows(
            "SELECT number FROM message WHERE owner = %s AND NOT number = ANY(%b::bigint[])",
            (self.node, kept),
        )
        _ = self._end_leases([number for (number,) in rows], self.node, interrupted=False)
        if kept:
            # The row stays, to count the transaction, and ends at once.
            _ = self.connection.execute(
                "UPDATE node SET alive_until = '-infinity' WHERE number = %s", (self.node,)
            )
        else:
            _ = self.connection.execute("DELETE FROM node WHERE number = %s", (self.node,))

    def renew(self) -> tuple[LeaseTerm, float, list[tuple[str, tuple[str, ...]]]]:
        """Renew the leases of this relay, and end those of relays that died.

        :returns: the term, the time until which it is valid when this is committed; and the name of each dead
            relay, with the ids of its messages.
        """
        before = LeaseTerm.now()
        ((there,),) = self.connection.rows(
            "WITH flushes AS (DELETE FROM flushed WHERE at < clock_timestamp() - interval '1 hour'), "
            "nodes AS (DELETE FROM ended_node WHERE at < clock_timestamp() - interval '1 day') "
            "UPDATE node SET alive_until = clock_timestamp() + make_interval(secs => %s) "
            "WHERE number = %s RETURNING extract(epoch FROM clock_timestamp())::float8",
            (self.address.lease_time, self.node),
            changes=True,
        )
        expired = self._others_could_renew(before, there)
        return self.term, self._end_of_lease(before), self._reclaim(expired=expired)

    def _others_could_renew(self, here: float, there: float) -> bool:
        """Return whether a relay that did not renew its leases in time had the opportunity.

        The database may have been away for all relays, or its clock may have been set.  Then the first relay
        that renews must not end the leases of the others, which are about to renew them, and to record
        what they have delivered.

        :param here: the time of this renewal by the clock of the leases.
        :param there: the same by the database's clock.
        """
        before, self._renewed = self._renewed, (here, there)
        lease_time = self.address.lease_time
        if before is not None:
            passed, passed_there = here - before[0], there - before[1]
            if passed > lease_time * _MISSED or abs(passed_there - passed) > lease_time * _SAFETY:
                self._patient_until = here + lease_time
        return here >= self._patient_until

    def _reclaim(self, *, expired: bool) -> list[tuple[str, tuple[str, ...]]]:
        """End the leases of relays that died; return their names and the ids of the messages.

        :param expired: also of those that did not renew in time.
        """
        gone = [
            number
            for number, process in self.connection.rows(
                "SELECT number, process FROM node WHERE number <> %s", (self.node,)
            )
            if has_ended(process)
        ]
        found = []
        given = {"own": self.node, "ended": gone, "expired": expired}
        for number, name in self.connection.rows(_DEAD, given):
            owned = self.connection.rows("SELECT number FROM message WHERE owner = %s", (number,))
            ids = self._end_leases([each for (each,) in owned], number, interrupted=True)
            _ = self.connection.execute(_END_NODE, (number,))
            found.append((name, ids))
        return found

    def relay_runs(self) -> bool | None:
        """See ``Store.relay_runs``; needs a transaction."""
        return bool(
            self.connection.value(
                "SELECT EXISTS (SELECT FROM node WHERE alive_until >= clock_timestamp())"
            )
        )

    def state(self) -> StoreState:
        """See ``Store.state``."""
        nodes = tuple(
            [
                RelayNode(name, self._local_time(started), leased, alive)
                for name, started, leased, alive in self.connection.rows(_NODES)
            ]
        )
        changed, committed = self.connection.row(
            "SELECT (SELECT changed FROM about), "
            "(SELECT coalesce(sum(committed), 0)::bigint FROM node WHERE number <> %s)",
            (self.node,),
        )
        if committed != self._others_committed:
            query = f"SELECT EXISTS (SELECT FROM message WHERE {READY} AND due <= %s)"  # noqa: S608
            self._others_committed = committed
            self._others += bool(
                self.connection.value(query, (self._database_time(self._seconds()),))
            )
        return StoreState(
            changed - self._own_changes,
            self._others,
            [body for (body,) in self.connection.rows("SELECT body FROM rubbish LIMIT 20")],
            ClusterState(nodes, self.down_routes()),
        )

    # -- arrival -----------------------------------------------------------------------

    @property
    def first_lease(self) -> Lease:
        """See ``Store.first_lease``."""
        return Lease(self.node, 1, self.term)

    @property
    def may_lease(self) -> bool:
        """See ``Store.may_lease``."""
        return self.term.valid

    def _insert(
        self,
        messages: Sequence[tuple[tuple[Any, ...], MessageInfo, bool]],
        recipients: Sequence[tuple[Any, ...]],
        contents: Sequence[tuple[int, bytes, int]],
    ) -> None:
        files = [info.file_key for _, info, _ in messages if info.file_key is not None]
        columns = [
            *_columns(
                (
                    *(*fixed[:3], _folded(fixed[2]), *fixed[3:]),
                    *(info.route, self.node if leased else None, int(leased), info.held),
                )
                for fixed, info, leased in messages
            ),
            *_columns(contents),
            *_columns(
                (number, n, address, _folded(address), notify, orcpt)
                for number, n, address, notify, orcpt in recipients
            ),
        ]
        try:
            if files:
                _ = self.connection.execute(
                    "INSERT INTO taken_file SELECT %s, unnest(%b::text[])", (self.name, files)
                )
            _ = self.connection.execute(_INSERT if contents else _INSERT_LARGE, columns)
        except psycopg.errors.UniqueViolation as e:
            why = e.diag.message_detail or "it is in the queue already"
            raise cannot_queue(messages[0][1].id, " ".join(why.split())) from None

    def taken_files(self) -> Sequence[str]:
        """See ``Store.taken_files``: those of this relay, by its name."""
        rows = self.connection.rows("SELECT key FROM taken_file WHERE node = %s", (self.name,))
        return [key for (key,) in rows]

    def forget_files(self, keys: Sequence[str]) -> None:
        """See ``Store.forget_files``."""
        _ = self.connection.execute(
            "DELETE FROM taken_file WHERE node = %s AND key = ANY(%b::text[])",
            (self.name, list(keys)),
        )

    def put_piece(self, body: int, place: int, data: bytes) -> None:
        """See ``Store.put_piece``."""
        _ = self.connection.execute(
            "INSERT INTO piece VALUES (%s, %s, %b, %s)",
            (body, place, data, content_checksum(body, place, data)),
        )

    # -- delivery ----------------------------------------------------------------------

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> list[LeasedMessage]:
        """See ``Store.lease``.

        :raises QueueError: the leases of this relay have ended, and are not renewed yet.
        """
        if not self.term.valid:
            raise QueueError(
                "the queue gives no leases",
                detail="the leases of this relay could not be renewed in the database",
            )
        return super().lease(route, now, fresh=fresh, retries=retries, horizon=horizon)

    def _take(
        self, route: str, now: float, horizon: float, fresh: int, retries: int
    ) -> Sequence[int]:
        given: dict[str, Any] = {
            "route": route,
            "now": now,
            "horizon": horizon,
            "owner": self.node,
            "fresh": fresh,
            "retries": retries,
        }
        taken = self.connection.rows(_LEASE, given, changes=True, prepare=False)
        taken.sort(key=lambda row: (row[1], row[2], row[0]))
        return [row[0] for row in taken]

    def _lease_of(self, row: Sequence[Any]) -> Lease:
        return Lease(self.node, row[FENCE], self.term)

    @property
    def _read_lock(self) -> str:
        # In a transaction that writes each statement reads what is committed then: the lock keeps
        # the messages until their recipients are read.
        return "FOR SHARE" if self._writing else ""

    def _decode(self, row: Sequence[Any], recipients: Sequence[Sequence[Any]]) -> QueuedMessage:
        return self._in_local_time(super()._decode(row, recipients))

    def _in_local_time(self, message: QueuedMessage) -> QueuedMessage:
        """Return *message* with times of this machine's clock."""
        if not self.clock_offset:
            return message
        local = self._local_time
        return attrs.evolve(
            message,
            info=attrs.evolve(message.info, arrived=local(message.info.arrived)),
            due=local(message.due),
            recipients=tuple(
                [
                    attrs.evolve(
                        r, due=local(r.due), tried=None if r.tried is None else local(r.tried)
                    )
                    for r in message.recipients
                ]
            ),
        )

    def next_due(self) -> dict[str, float]:
        """See ``Store.next_due``."""
        return {route: self._local_time(due) for route, due in self.connection.rows(_ROUTES)}

    # -- results -----------------------------------------------------------------------

    def _standing(self, numbers: Sequence[int]) -> dict[int, Standing]:
        rows = self.connection.rows(_STANDING, (numbers,))
        return {row[0]: Standing(*row) for row in rows}

    def _update(self, changed: Sequence[tuple[int, AttemptRecord]]) -> None:
        recipients = [
            (
                number,
                row.number,
                row.state.value,
                self._database_time(row.due),
                int(record.tried),
                self._database_time(record.at),
                record.tried or row.reply is not None or row.status is not None,
                row.reply,
                row.status,
                row.relay,
            )
            for number, record in changed
            for row in record.changes
        ]
        if recipients:
            _ = self.connection.execute(_UPDATE_RECIPIENTS, _columns(recipients))
        messages = [
            (
                number,
                int(record.tried),
                int(record.in_doubt),
                record.warned,
                None if record.aside is None else record.aside.value,
            )
            for number, record in changed
        ]
        _ = self.connection.execute(_UPDATE_MESSAGES, _columns(messages))

    def _delete(self, numbers: Sequence[int]) -> None:
        if numbers:
            _ = self.connection.execute(_DELETE, (list(numbers),))

    # -- operators ---------------------------------------------------------------------

    def _owner_names(self, rows: Iterable[Sequence[Any]]) -> dict[int, str]:
        if any(row[OWNER] is not None for row in rows):
            return dict(self.connection.rows("SELECT number, name FROM node"))
        return {}

    def _acted(self, *, changed: bool, flushed: Sequence[str]) -> None:
        """See ``SQLStore._acted``; relays are notified by the commit."""
        if changed:
            self._own_changes += 1
            _ = self.connection.execute("UPDATE about SET changed = changed + 1")
        if flushed:
            _ = self.connection.execute(
                "INSERT INTO flushed (route, at) SELECT unnest(%b::text[]), clock_timestamp()",
                (flushed,),
            )
        _ = self.connection.rows("SELECT pg_notify(%s, '')", (self.channel,))

    @property
    def channel(self) -> str:
        """Name of the channel on which changes by operators are announced."""
        return f"{self.address.schema}_queue"

    def take_flushed(self) -> frozenset[str]:
        """See ``Store.take_flushed``; each relay takes every route, and none from before its start."""
        rows = self.connection.rows("SELECT serial, route FROM flushed")
        known, self._flushed = self._flushed, {serial for serial, _ in rows}
        if known is None:
            return frozenset()
        return frozenset([route for serial, route in rows if serial not in known])

    def count_running(self, passed: float) -> None:
        """See ``Store.count_running``; each of the relays that run counts its share."""
        _ = self.connection.execute(
            "UPDATE about SET ran = ran + %s / greatest(1, "
            "(SELECT count(*) FROM node WHERE alive_until >= clock_timestamp())) "
            "WHERE EXISTS (SELECT FROM message)",
            (passed,),
        )

    def record_route(self, name: str, down: DownRoute | None) -> None:
        """See ``Store.record_route``."""
        if down is None:
            _ = self.connection.execute("DELETE FROM route_down WHERE name = %s", (name,))
        else:
            _ = self.connection.execute(
                "INSERT INTO route_down VALUES (%s, %s, %s, %s, nextval('route_number')) "
                "ON CONFLICT (name) DO UPDATE SET reason = excluded.reason, "
                "next_attempt = excluded.next_attempt, refused = excluded.refused, "
                "number = excluded.number",
                (name, down.reason, self._database_time(down.next_attempt), down.refused),
            )

    def down_routes(self) -> dict[str, DownRoute]:
        """See ``Store.down_routes``."""
        rows = self.connection.rows(
            "SELECT name, reason, next_attempt, refused, number FROM route_down ORDER BY name"
        )
        return {
            name: DownRoute(name, reason, self._local_time(due), refused=refused, number=number)
            for name, reason, due, refused, number in rows
        }


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _folded(address: str) -> str | None:
    """Return *address* without regard to case, for searches; None if it is so already."""
    folded = address.casefold()
    return None if folded == address else folded
