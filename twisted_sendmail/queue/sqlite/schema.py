"""The tables of the queue in SQLite: opened, created, migrated, and verified.

A message is one row: constant columns, under a checksum, and the columns of its state.  Each
recipient is a row, and so is the content, which is written once: small content beside the message,
large content in pieces that exist before the message does.  A state that must not become another
state when a bit flips is stored as a word and not as a number: a damaged word is not a valid word.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING
from zlib import crc32

from twisted_sendmail.queue.errors import QueueFull, QueueUnusable
from twisted_sendmail.queue.sqlite.connection import SQLiteConnection
from twisted_sendmail.queue.sqlite.files import unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Largest database, in octets, that is verified when a relay starts.
MAX_VERIFIED_SIZE = 256 * 1024 * 1024
# PRAGMA synchronous = FULL: a commit is on the disk when it returns.
_FULL = 2
_SETTINGS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
    # The file is private: deleted mail need not be overwritten.
    "PRAGMA secure_delete = OFF",
    "PRAGMA cache_size = -8192",
    "PRAGMA journal_size_limit = 16777216",
)
# SQLite quotes damaged names in its errors; they may be no valid UTF-8.
_ERRORS = (sqlite3.Error, UnicodeError)
_REMEDIES = (
    (
        "not a database",
        "the file is not a database",
        "move the file away, or give another directory",
    ),
    ("no such", "the database is damaged", "restore a backup, or move the file away and keep it"),
    (
        "malformed",
        "the database is damaged",
        "restore a backup, or move the file away and keep it",
    ),
    (
        "readonly",
        "the database is not writable",
        "mount its file system writable, or give another directory",
    ),
    ("is full", "its file system is full", QueueFull.remedy),
    ("locked", "another program has locked the database", "end that program"),
)
#: The condition for a message that may be leased.
READY = "leased = 0 AND held = 0 AND aside IS NULL"
#: "TSMq", in the header of the file.
APPLICATION_ID = 0x54534D71

_TABLES = (
    """
    CREATE TABLE message (
        number INTEGER PRIMARY KEY,     -- the number of its id
        -- Constant.
        arrived REAL NOT NULL,
        sender TEXT NOT NULL,
        parameters TEXT NOT NULL,       -- JSON; empty: all defaults
        size INTEGER NOT NULL,
        origin TEXT NOT NULL,
        uid INTEGER,                    -- of the user of this machine who sent it
        body INTEGER,                   -- of its pieces; NULL: content in one row
        pieces INTEGER NOT NULL,
        checksum INTEGER NOT NULL,      -- CRC-32 of the columns above and of the recipients
        -- State.
        route TEXT NOT NULL,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL,
        leased INTEGER NOT NULL,
        held INTEGER NOT NULL,
        expired TEXT,                   -- 'expired'
        doomed TEXT,                    -- 'doomed'
        warned INTEGER NOT NULL,
        interrupted INTEGER NOT NULL,
        aside TEXT,
        ran REAL NOT NULL               -- about.ran minus its age; on hold: minus its age
    )
    """,
    """
    CREATE TABLE recipient (
        message INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
        number INTEGER NOT NULL,
        address TEXT NOT NULL,
        notify TEXT NOT NULL,
        orcpt TEXT,
        state TEXT NOT NULL,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL,
        tried REAL,
        reply TEXT,
        status TEXT,
        relay TEXT,
        PRIMARY KEY (message, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE content (
        message INTEGER PRIMARY KEY REFERENCES message ON DELETE CASCADE,
        data BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE piece (
        body INTEGER NOT NULL,
        place INTEGER NOT NULL,
        data BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        PRIMARY KEY (body, place)
    ) WITHOUT ROWID
    """,
    # Files whose message was committed, until they are removed; see ``MessageInfo.file_key``.
    "CREATE TABLE taken_file (key TEXT PRIMARY KEY) WITHOUT ROWID",
    # Routes of messages that an operator flushed, until the relay reads them; '': all routes.
    "CREATE TABLE flushed (route TEXT PRIMARY KEY) WITHOUT ROWID",
    # Routes that are down, as the relay recorded them last.
    "CREATE TABLE route_down (name TEXT PRIMARY KEY, reason TEXT NOT NULL, next_attempt REAL NOT NULL) WITHOUT ROWID",
    # Bodies whose message is gone; their pieces are removed in small steps.
    "CREATE TABLE rubbish (body INTEGER PRIMARY KEY)",
    """
    CREATE TRIGGER thrown_away AFTER DELETE ON message WHEN old.body IS NOT NULL
    BEGIN INSERT OR IGNORE INTO rubbish VALUES (old.body); END
    """,
    # Messages ready for an attempt: new ones and retries apart, each by due time.
    f"""
    CREATE INDEX ready ON message (route, attempts > 0, due)
    WHERE {READY}
    """,
    "CREATE INDEX uid ON message (uid) WHERE uid IS NOT NULL",
    "CREATE INDEX body ON message (body) WHERE body IS NOT NULL",
    # Checksum of the schema: damage to a column's name is not damage to a message.  And the seconds
    # that relays ran with this queue.
    "CREATE TABLE about (tables INTEGER NOT NULL, ran REAL NOT NULL)",
)

# One statement, hence one snapshot: another process may be creating the tables.
_IDENTITY = """
    SELECT (SELECT application_id FROM pragma_application_id),
        (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)
"""

#: Oldest format that can be migrated.
OLDEST_FORMAT = 2
#: Step *n* migrates format ``OLDEST_FORMAT + n`` to the next one, inside a transaction.
MIGRATIONS: Sequence[Callable[[SQLiteConnection], None]] = ()


def version() -> int:
    """Return the format that this program writes."""
    return OLDEST_FORMAT + len(MIGRATIONS)


def open_database(path: Path, *, patience: float, relay: bool) -> SQLiteConnection:
    """Open the database at *path*, and create or migrate its tables.

    :param relay: this connection checkpoints the log.  Commands of an operator leave that to
        the relay.
    :raises QueueUnusable: the database cannot be used.
    """
    try:
        connection = SQLiteConnection(path, patience=patience)
    except sqlite3.Error as e:
        raise _unusable(path, e) from None
    try:
        # Before any change: the file may belong to another program.
        _format(connection)
        mode = connection.value("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise unusable(
                path,
                "its file system does not support SQLite's WAL mode",
                "give a directory on a local disk",
            )
        connection.execute(f"PRAGMA synchronous = {_FULL}")
        if connection.value("PRAGMA synchronous") < _FULL:
            raise unusable(path, "SQLite does not write durably", "use another build of SQLite")
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.execute(f"PRAGMA wal_autocheckpoint = {1000 if relay else 0}")
        _prepare(connection)
    except BaseException as e:
        connection.close()
        if isinstance(e, _ERRORS):
            raise _unusable(path, e) from None
        raise
    return connection


def verify(connection: SQLiteConnection, path: Path) -> None:
    """Check the integrity of a database that is not too large; rebuild its indexes if needed.

    :raises QueueUnusable: the database is damaged.
    """
    try:
        if path.stat().st_size > MAX_VERIFIED_SIZE or _is_intact(connection):
            return
        connection.execute("REINDEX")
        if _is_intact(connection):
            return
    except _ERRORS as e:
        raise _unusable(path, e) from None
    raise _unusable(path, sqlite3.DatabaseError("malformed"))


def _is_intact(connection: SQLiteConnection) -> bool:
    return bool(connection.rows("PRAGMA integrity_check(1)") == [("ok",)])


def _unusable(path: Path, error: Exception) -> QueueUnusable:
    text = "malformed" if isinstance(error, UnicodeError) else str(error)
    for part, why, remedy in _REMEDIES:
        if part in text:
            return unusable(path, why, remedy)
    return unusable(path, text, "see that its directory and its files can be read and written")


def _prepare(connection: SQLiteConnection) -> None:
    """Create or migrate the tables in one transaction.

    :raises QueueUnusable: see :func:`_format`.
    """
    if _format(connection) == version():
        _check(connection)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have created them meanwhile.
        found = _format(connection)
        if not found:
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            found = OLDEST_FORMAT
        for step in MIGRATIONS[found - OLDEST_FORMAT :]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {version()}")
        ran = connection.value("SELECT ran FROM about") or 0.0
        connection.execute("DELETE FROM about")
        connection.execute("INSERT INTO about VALUES (?, ?)", (_checksum(connection), ran))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _checksum(connection: SQLiteConnection) -> int:
    rows = connection.rows("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")
    return crc32(repr(rows).encode())


def _check(connection: SQLiteConnection) -> None:
    if connection.rows("SELECT tables FROM about") != [(_checksum(connection),)]:
        raise sqlite3.DatabaseError("the tables are malformed")


def _format(connection: SQLiteConnection) -> int:
    """Return the format of the file; 0: the file is empty.

    :raises QueueUnusable: the file belongs to another program, or has a format that is newer, or
        too old to be migrated.
    """
    owner, format_, tables = connection.row(_IDENTITY)
    if owner == APPLICATION_ID and OLDEST_FORMAT <= format_ <= version():
        return int(format_)
    if owner == APPLICATION_ID and format_:
        newer = "use the version of the program that wrote it, or a newer one"
        older = (
            "deliver its mail with the version of the program that wrote it, then use an empty "
            "directory"
        )
        raise QueueUnusable(
            "the queue cannot be used",
            detail=f"the format of the file is {format_}, and this program supports {version()}",
            remedy=newer if format_ > version() else older,
        )
    if (owner, format_, tables) == (0, 0, 0):
        return 0
    raise QueueUnusable(
        "the queue cannot be used",
        detail="the file belongs to another program",
        remedy="give another directory",
    )
