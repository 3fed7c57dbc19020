"""Opening the database: what SQLite is told, and what is said when it cannot be opened."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from twisted_sendmail.queue.sqlite.connection import SQLiteConnection
from twisted_sendmail.queue.sqlite.premises import refusal
from twisted_sendmail.queue.sqlite.schema import check_owner, prepare
from twisted_sendmail.queue.trouble import QueueUnusable

if TYPE_CHECKING:
    from pathlib import Path

#: Octets of a database that is verified when a relay starts.
VERIFIED = 256 * 1024 * 1024
# synchronous: FULL, so that a commit is on the disk when it returns.
_FULL = 2
_SETTINGS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
    # Deleted mail need not be written over: the file is as private as it was before.
    "PRAGMA secure_delete = OFF",
    "PRAGMA cache_size = -8192",
    "PRAGMA journal_size_limit = 16777216",
)
# A damaged name in an error's text is no text any more.
_ERRORS = (sqlite3.Error, UnicodeError)
_REMEDIES = (
    ("not a database", "it is no database", "move the file away, or give another directory"),
    ("no such", "it is damaged", "keep a copy, and run `sqlite3 queue.sqlite3 .recover`"),
    ("malformed", "it is damaged", "keep a copy, and run `sqlite3 queue.sqlite3 .recover`"),
    ("readonly", "it cannot be written to", "mount it writable, or give another directory"),
    ("is full", "there is no room", "make room on its file system"),
    ("locked", "another program holds it", "end that program"),
)


def open_database(path: Path, *, patience: float, relay: bool) -> SQLiteConnection:
    """Open the database at *path*, make its tables or bring them up to date.

    :param relay: this connection moves what is in the log into the database.  One at a
        time does: the commands of an operator leave it to the relay.
    :raises QueueUnusable: it cannot be used.
    """
    try:
        connection = SQLiteConnection(path, patience=patience)
    except sqlite3.Error as e:
        raise _refusal(path, e) from None
    try:
        # Before anything is changed: it may be another program's.
        check_owner(connection)
        mode = connection.value("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise refusal(
                path, "its file system cannot hold a queue", "give a directory on a local disk"
            )
        connection.execute(f"PRAGMA synchronous = {_FULL}")
        if connection.value("PRAGMA synchronous") < _FULL:
            raise refusal(path, "SQLite does not write durably", "use another build of SQLite")
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.execute(f"PRAGMA wal_autocheckpoint = {1000 if relay else 0}")
        prepare(connection)
    except BaseException as e:
        connection.close()
        if isinstance(e, _ERRORS):
            raise _refusal(path, e) from None
        raise
    return connection


def verify(connection: SQLiteConnection, path: Path) -> None:
    """Look whether the database hangs together, where that does not take long.

    An index that does not fit its table is made anew.

    :raises QueueUnusable: it does not.
    """
    try:
        if path.stat().st_size > VERIFIED or _is_whole(connection):
            return
        connection.execute("REINDEX")
        if _is_whole(connection):
            return
    except _ERRORS as e:
        raise _refusal(path, e) from None
    raise _refusal(path, sqlite3.DatabaseError("malformed"))


def _is_whole(connection: SQLiteConnection) -> bool:
    return bool(connection.rows("PRAGMA integrity_check(1)") == [("ok",)])


def _refusal(path: Path, error: Exception) -> QueueUnusable:
    text = "malformed" if isinstance(error, UnicodeError) else str(error)
    for part, why, remedy in _REMEDIES:
        if part in text:
            return refusal(path, why, remedy)
    return refusal(path, text, "see that its directory and its files can be read and written")
