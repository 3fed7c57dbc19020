"""The tables in PostgreSQL: how they are made, verified and migrated.

They have a schema of their own.  A message is one row: constant columns, under a checksum, and
the columns of its state.  Each recipient is a row, and so is the content, as in SQLite.  There are no
foreign keys: the store alone writes, and deletes by statements for many messages.

A table of a queue is written and emptied all the time.  So its pages are vacuumed early and without
pauses, and pages with rows that change keep space for the next version of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from twisted_sendmail.queue.errors import QueueMissing, QueueUnusable
from twisted_sendmail.queue.postgresql.connection import is_of_server, unusable
from twisted_sendmail.queue.postgresql.driver import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.queue.postgresql.address import DatabaseAddress
    from twisted_sendmail.queue.postgresql.connection import PostgreSQLConnection

#: The condition for a message that may be leased.
READY = "owner IS NULL AND NOT held AND aside IS NULL"
_PROGRAM = "twisted_sendmail queue"
#: Oldest format that can be migrated.
OLDEST_FORMAT = 1
#: Step *n* migrates format ``OLDEST_FORMAT + n`` to the next one, inside a transaction.
MIGRATIONS: Sequence[Callable[[PostgreSQLConnection], None]] = ()
#: Oldest server that is supported, as in ``server_version_num``.
OLDEST_SERVER = 130000

# Rows come and go: vacuum after a hundred dead rows, and do not pause.
_BUSY = (
    "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 100, "
    "autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.2, "
    "autovacuum_vacuum_cost_delay = 0"
)
_TABLES = (
    f"""
    CREATE TABLE message (
        number bigint PRIMARY KEY,      -- the number of its id
        -- Constant.
        arrived float8 NOT NULL,
        sender text NOT NULL,
        sender_folded text,             -- for searches; NULL: sender is folded
        parameters text NOT NULL,       -- JSON; empty: all defaults
        size bigint NOT NULL,
        origin text NOT NULL,
        uid bigint,                     -- of the user of the machine who sent it
        body bigint,                    -- of its pieces; NULL: content in one row
        pieces integer NOT NULL,
        checksum bigint NOT NULL,       -- CRC-32 of the columns above and of the recipients
        -- State.
        route text COLLATE "C" NOT NULL,
        due float8 NOT NULL,
        attempts integer NOT NULL,
        retried boolean NOT NULL GENERATED ALWAYS AS (attempts > 0) STORED,
        owner bigint,                   -- number of the relay that has it leased
        fence bigint NOT NULL,          -- number of its last lease
        held boolean NOT NULL,
        expired text,                   -- 'expired'
        doomed text,                    -- 'doomed'
        warned boolean NOT NULL,
        interrupted integer NOT NULL,
        aside text,
        ran float8 NOT NULL             -- about.ran minus its age; on hold: minus its age
    ) WITH (fillfactor = 80, {_BUSY})
    """,
    f"""
    CREATE TABLE recipient (
        message bigint NOT NULL,
        number integer NOT NULL,
        address text NOT NULL,
        address_folded text,
        notify text NOT NULL,
        orcpt text,
        state text NOT NULL,
        due float8 NOT NULL,
        attempts integer NOT NULL,
        tried float8,
        reply text,
        status text,
        relay text,
        PRIMARY KEY (message, number)
    ) WITH (fillfactor = 80, {_BUSY})
    """,
    f"""
    CREATE TABLE content (
        message bigint PRIMARY KEY,
        data bytea NOT NULL,
        checksum bigint NOT NULL
    ) WITH ({_BUSY})
    """,
    f"""
    CREATE TABLE piece (
        body bigint NOT NULL,
        place integer NOT NULL,
        data bytea NOT NULL,
        checksum bigint NOT NULL,
        PRIMARY KEY (body, place)
    ) WITH ({_BUSY})
    """,
    # Mail is compressed hardly or not at all.
    "ALTER TABLE content ALTER COLUMN data SET STORAGE EXTERNAL",
    "ALTER TABLE piece ALTER COLUMN data SET STORAGE EXTERNAL",
    # Relays that have the queue open; ``committed`` counts their transactions.
    """
    CREATE TABLE node (
        number bigserial PRIMARY KEY,
        name text NOT NULL,
        process text NOT NULL,
        started float8 NOT NULL,
        alive_until timestamptz NOT NULL,
        committed bigint NOT NULL
    ) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)
    """,
    # Relays whose leases another one ended, for a day: for the look-up of a last commit.
    """
    CREATE TABLE ended_node (
        number bigint PRIMARY KEY, committed bigint NOT NULL, at timestamptz NOT NULL
    )
    """,
    # Files whose message was committed, by the relay that took them.
    """
    CREATE TABLE taken_file (
        node text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, PRIMARY KEY (node, key)
    )
    """,
    # Routes of messages that an operator flushed, for an hour; '': all routes.
    """
    CREATE TABLE flushed (
        serial bigserial PRIMARY KEY, route text NOT NULL, at timestamptz NOT NULL
    )
    """,
    # Routes that are down, as a relay recorded them last.
    """
    CREATE TABLE route_down (
        name text COLLATE "C" PRIMARY KEY, reason text NOT NULL, next_attempt float8 NOT NULL,
        refused boolean NOT NULL, number bigint NOT NULL
    )
    """,
    "CREATE SEQUENCE route_number",
    # Bodies whose message is gone; their pieces are removed in small steps.
    "CREATE TABLE rubbish (body bigint PRIMARY KEY)",
    # Messages ready for an attempt: new ones and retries apart, each by due time.
    f"CREATE INDEX ready ON message (route, retried, due, number) WHERE {READY}",
    "CREATE INDEX owned ON message (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX aside ON message (aside) WHERE aside IS NOT NULL",
    "CREATE INDEX uid ON message (uid) WHERE uid IS NOT NULL",
    "CREATE INDEX body ON message (body) WHERE body IS NOT NULL",
    # The seconds that relays ran with this queue, and the changes by operators.
    """
    CREATE TABLE about (
        program text NOT NULL, format integer NOT NULL, tables bigint NOT NULL,
        ran float8 NOT NULL, changed bigint NOT NULL
    ) WITH (fillfactor = 10)
    """,
)

# The tables, with their sequences, and the indexes.  An administrator may add others.
_TABLE_NAMES = (
    *("message", "recipient", "content", "piece", "node", "ended_node", "taken_file", "flushed"),
    *("route_down", "rubbish", "about", "route_number", "node_number_seq", "flushed_serial_seq"),
)
_INDEX_NAMES = ("ready", "owned", "aside", "uid", "body", *[f"{t}_pkey" for t in _TABLE_NAMES])
# Columns and valid indexes: a type that differs is found here, and not as damage to messages.
_SHAPE = """
    SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind IN ('r', 'i', 'S') AND a.attnum > 0 AND NOT a.attisdropped
        AND coalesce(i.indisvalid AND i.indisready, true)
    ORDER BY c.relname COLLATE "C", a.attnum
"""
_EXISTS = """
    SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relkind IN ('r', 'v', 'm', 'S', 'f', 'p')),
        to_regclass(%s) IS NOT NULL
"""


def version() -> int:
    """Return the format that this program writes."""
    return OLDEST_FORMAT + len(MIGRATIONS)


def prepare(connection: PostgreSQLConnection, address: DatabaseAddress, *, create: bool) -> None:
    """Check the tables; create or migrate them if needed and *create*.

    :raises QueueUnusable: the tables cannot be used; the text names the cause and a remedy.
    """
    if connection.server_version < OLDEST_SERVER:
        raise unusable(address, "the server is older than PostgreSQL 13", "use a newer one")
    try:
        found = _format(connection, address)
        if found == version():
            _check(connection, address)
        elif create:
            _make(connection, address)
        elif found:
            raise _migrate_first(found)
        else:
            raise QueueMissing(
                f"the queue {address} cannot be used",
                detail="the database holds no queue",
                remedy="start the relay, or run twisted-sendmail queue migrate",
            )
    except psycopg.Error as e:
        if connection.lost or is_of_server(e):
            raise
        text = " ".join((e.diag.message_primary or str(e)).split())
        raise unusable(
            address, text, f"let its user create the schema {address.schema} and use it"
        ) from None


def _make(connection: PostgreSQLConnection, address: DatabaseAddress) -> None:
    schema = address.schema
    encoding = connection.value("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        raise unusable(
            address,
            f"the encoding of the database is {encoding}",
            "create one with ENCODING 'UTF8'",
        )
    lock = crc32(f"{_PROGRAM} {schema}".encode())
    connection.run(f"BEGIN; SELECT pg_advisory_xact_lock({lock})")
    try:
        # Another relay may have created them meanwhile.
        found = _format(connection, address)
        if not found:
            connection.run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.run(f"SET LOCAL search_path TO {schema}")
        if not found:
            for statement in _TABLES:
                connection.run(statement)
            connection.execute(
                "INSERT INTO about VALUES (%s, %s, 0, 0, 0)", (_PROGRAM, OLDEST_FORMAT)
            )
            found = OLDEST_FORMAT
        for step in MIGRATIONS[found - OLDEST_FORMAT :]:
            step(connection)
        connection.execute(
            "UPDATE about SET format = %s, tables = %s", (version(), _shape(connection, schema))
        )
        connection.commit()
    finally:
        if not connection.lost and connection.in_transaction:
            connection.run("ROLLBACK")


def _shape(connection: PostgreSQLConnection, schema: str) -> int:
    rows = connection.rows(_SHAPE, (schema, [*_TABLE_NAMES, *_INDEX_NAMES]))
    return crc32(repr([tuple(row) for row in rows]).encode())


def _format(connection: PostgreSQLConnection, address: DatabaseAddress) -> int:
    """Return the format of the tables; 0: there are none.

    :raises QueueUnusable: they belong to another program, or have a format that is newer, or too old
        to be migrated.
    """
    schema = address.schema
    tables, marked = connection.row(_EXISTS, (schema, f"{schema}.about"))
    if not tables:
        return 0
    foreign = unusable(
        address,
        f"the schema {schema} belongs to another program",
        "give another database, or another schema with ?schema=",
    )
    if not marked:
        raise foreign
    try:
        rows = connection.rows(f"SELECT program, format FROM {schema}.about")  # noqa: S608 - checked
    except psycopg.errors.UndefinedColumn:
        raise foreign from None
    if [program for program, _ in rows] != [_PROGRAM]:
        raise foreign
    found = int(rows[0][1])
    if OLDEST_FORMAT <= found <= version():
        return found
    newer = "use the version of the program that wrote it, or a newer one"
    older = (
        "deliver its mail with the version of the program that wrote it, then use an empty schema"
    )
    raise unusable(
        address,
        f"the format of its tables is {found}, and this program supports {version()}",
        newer if found > version() else older,
    )


def _check(connection: PostgreSQLConnection, address: DatabaseAddress) -> None:
    schema = address.schema
    expected = connection.value(f"SELECT tables FROM {schema}.about")  # noqa: S608 - checked
    if expected != _shape(connection, schema):
        raise unusable(
            address,
            "its tables are damaged: a table, a column or an index differs from what was created",
            "restore a backup, or keep the schema under another name",
        )


def _migrate_first(found: int) -> QueueUnusable:
    return QueueUnusable(
        "the queue cannot be used",
        detail=f"the format of its tables is {found}, and this program supports {version()}",
        remedy="run twisted-sendmail queue migrate, or start the relay",
    )
