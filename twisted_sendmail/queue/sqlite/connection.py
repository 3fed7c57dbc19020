"""A connection to the SQLite database, and its errors.

Every statement goes through ``SQLiteConnection.execute``: tests count the statements there, make
the n-th one fail, or end the process at it.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted_sendmail.queue.errors import QueueError, QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Seconds to wait while another process writes.
PATIENCE = 30.0
_TRANSIENT = (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError)
#: Numbers of errors of a full disk.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SQLiteConnection:
    """Connection to the existing database at *path*.

    :param patience: seconds to wait for a lock that another process holds.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        self._sqlite = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=patience,
            # BEGIN and COMMIT are explicit.
            isolation_level=None,
            cached_statements=256,
        )
        self._execute = self._sqlite.execute
        # Damaged text must reach the checksum instead of failing the query.
        self._sqlite.text_factory = _text
        self._sqlite.create_function("fits", 2, fits, deterministic=True)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""
        return self.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the first row of a query, or None."""
        return self.execute(sql, parameters).fetchone()

    def value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row of a query, or None."""
        row = self.execute(sql, parameters).fetchone()
        return None if row is None else row[0]

    @property
    def in_transaction(self) -> bool:
        """A transaction is open."""
        return self._sqlite.in_transaction

    @property
    def changes(self) -> int:
        """Number of rows changed since the connection was opened."""
        return self._sqlite.total_changes

    def close(self) -> None:
        """Close the connection; uncommitted changes are lost."""
        self._sqlite.close()


def _text(octets: bytes) -> str:
    return str(octets, "utf-8", "surrogateescape")


def fits(pattern: str, address: str) -> bool:
    """Match *address* against an address, ``@domain`` or part of an address, in either case.

    >>> fits("ann@example.org", "joann@example.org")
    False
    >>> fits("@Example.org", "ann@example.org"), fits("ann", "joann@example.org")
    (True, True)
    """
    pattern, address = str(pattern).casefold(), str(address).casefold()
    local, at, domain = pattern.partition("@")
    if not at:
        return pattern in address
    if not local:
        # A quoted local part may hold an @; the domain follows the last one.
        return address.rpartition("@")[2] == domain
    return address == pattern


def queue_error(error: Exception, doing: str) -> QueueError:
    """Return the error of the queue for *error*.

    :param doing: what failed, following "the queue could not".
    """
    if isinstance(error, QueueError):
        return error
    what = f"the queue could not {doing}"
    full = isinstance(error, sqlite3.Error) and "is full" in str(error)
    if full or (isinstance(error, OSError) and error.errno in NO_SPACE):
        return QueueFull(what, detail=str(error))
    found = QueueError(what, detail=f"{type(error).__name__}: {error}")
    # A fault of the disk may pass; a fault of the data does not.
    found.temporary = isinstance(error, OSError) or type(error) in _TRANSIENT
    return found
