"""The tables of the store, how they come to be, and how an older store becomes a newer one.

A message is one row, with what never changes (under a checksum) and how it stands.  Its
recipients are rows of their own, and so is its content, which is written once: a small
one beside the message, a large one in pieces that exist before the message does.

What must not turn into something else when a bit flips (a state, a mark that removes) is
a word and not a number: a damaged word is no word.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING
from zlib import crc32

from twisted_sendmail.queue.trouble import QueueUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

#: In the header of the file, so that nobody takes it for something else: "TSMq".
APPLICATION_ID = 0x54534D71

_TABLES = (
    """
    CREATE TABLE message (
        number INTEGER PRIMARY KEY,     -- the number of its id
        -- What never changes.
        arrived REAL NOT NULL,
        sender TEXT NOT NULL,
        parameters TEXT NOT NULL,       -- JSON; empty: nothing out of the ordinary
        size INTEGER NOT NULL,
        origin TEXT NOT NULL,
        body INTEGER,                   -- of its pieces; NULL: its content is in one
        pieces INTEGER NOT NULL,
        checksum INTEGER NOT NULL,      -- CRC-32 of all this and of the recipients
        -- How it stands.
        route TEXT NOT NULL,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL,
        leased INTEGER NOT NULL,
        held INTEGER NOT NULL,
        expired TEXT,                   -- 'expired'
        doomed TEXT,                    -- 'doomed'
        warned INTEGER NOT NULL,
        interrupted INTEGER NOT NULL,
        aside TEXT
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
    # Pieces whose message is gone; they are removed little by little.
    "CREATE TABLE rubbish (body INTEGER PRIMARY KEY)",
    """
    CREATE TRIGGER thrown_away AFTER DELETE ON message WHEN old.body IS NOT NULL
    BEGIN INSERT OR IGNORE INTO rubbish VALUES (old.body); END
    """,
    # Those that may be tried: untried ones and others apart, each in the order of its turn.
    """
    CREATE INDEX ready ON message (route, attempts > 0, due)
    WHERE leased = 0 AND held = 0 AND aside IS NULL
    """,
    "CREATE INDEX body ON message (body) WHERE body IS NOT NULL",
    # A checksum of all this: a damaged name of a column is no damaged message.
    "CREATE TABLE about (tables INTEGER NOT NULL)",
)

# In one statement, which sees one moment: another process may just be making it.
_WHOSE = """
    SELECT (SELECT application_id FROM pragma_application_id),
        (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)
"""

#: What makes of format *n* + 1 the next one, in a transaction that is begun.
MIGRATIONS: Sequence[Callable[[SQLiteConnection], None]] = ()


def version() -> int:
    """The format that this program writes."""
    return 1 + len(MIGRATIONS)


def prepare(connection: SQLiteConnection) -> None:
    """Make the tables, or bring them up to date, in one transaction; or refuse.

    :raises QueueUnusable: the file is somebody else's, or of a newer format.
    """
    if _found(connection) == version():
        _check(connection)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it meanwhile.
        found = _found(connection)
        if not found:
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            found = 1
        for step in MIGRATIONS[found - 1 :]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {version()}")
        connection.execute("DELETE FROM about")
        connection.execute("INSERT INTO about VALUES (?)", (_checksum(connection),))
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


def check_owner(connection: SQLiteConnection) -> None:
    """Look, without changing anything, whether the file is ours to use.

    :raises QueueUnusable: it is somebody else's, or of a newer format.
    """
    _found(connection)


def _found(connection: SQLiteConnection) -> int:
    """The format of what is there; 0: nothing is."""
    owner, format_, tables = connection.row(_WHOSE)
    if owner == APPLICATION_ID and 0 < format_ <= version():
        return int(format_)
    if owner == APPLICATION_ID and format_ > version():
        raise QueueUnusable(
            "the queue cannot be used",
            detail=f"its format is {format_}, and this program knows {version()}",
            remedy="use the version of the program that wrote it, or a newer one",
        )
    if (owner, format_, tables) == (0, 0, 0):
        return 0
    raise QueueUnusable(
        "the queue cannot be used",
        detail="its file belongs to another program",
        remedy="give another directory",
    )
