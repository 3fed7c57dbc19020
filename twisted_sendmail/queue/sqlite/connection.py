"""The one place where the database is called: everything stored goes through ``execute``.

So that a test can count the calls, let the n-th one fail, or end the process there.
It knows SQLite and nothing of mail; who begins a transaction ends it.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted_sendmail.queue.address_match import fits
from twisted_sendmail.queue.trouble import QueueError, QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Seconds to wait while another process writes.
PATIENCE = 30.0
_OF_THE_DISK = (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SQLiteConnection:
    """A connection to the database at *path*, which has to be there.

    :param patience: seconds to wait for a lock that another process holds.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        self._sqlite = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=patience,
            # We say BEGIN and COMMIT ourselves.
            isolation_level=None,
            cached_statements=256,
        )
        self._execute = self._sqlite.execute
        # A text that was damaged on the disk must reach the checksum, and not end the query.
        self._sqlite.text_factory = _text
        self._sqlite.create_function("fits", 2, fits, deterministic=True)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All that a query finds."""
        return self.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first that a query finds; None: nothing."""
        return self.execute(sql, parameters).fetchone()

    def value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first that a query finds; None: nothing."""
        row = self.execute(sql, parameters).fetchone()
        return None if row is None else row[0]

    @property
    def in_transaction(self) -> bool:
        """Something was begun, and not ended."""
        return self._sqlite.in_transaction

    @property
    def changes(self) -> int:
        """Rows changed since it was opened."""
        return self._sqlite.total_changes

    def close(self) -> None:
        """Close it; what was not committed is gone."""
        self._sqlite.close()


def _text(octets: bytes) -> str:
    return str(octets, "utf-8", "surrogateescape")


def trouble(error: Exception, doing: str) -> QueueError:
    """What *error*, met while *doing* something, means to who asked for it."""
    if isinstance(error, QueueError):
        return error
    what = f"the queue could not {doing}"
    if isinstance(error, sqlite3.Error) and "is full" in str(error):
        return QueueFull(what, detail=str(error), remedy="make room on its file system")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return QueueFull(what, detail=str(error), remedy="make room on its file system")
    found = QueueError(what, detail=f"{type(error).__name__}: {error}")
    # The disk may be well again later; what it was given will not be another.
    found.temporary = type(error) in _OF_THE_DISK or isinstance(error, OSError)
    return found
