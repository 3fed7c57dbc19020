"""Count the calls of the store, and make the n-th one fail.

Every call of the database goes through ``SQLiteConnection.execute``.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

#: What a process says that ended here.
EXITED = 86
_execute = SQLiteConnection.execute


class Choke:
    """Notes the statements, and calls *before* and *after* with the number and the text of each."""

    def __init__(
        self,
        before: Callable[[int, str], None] = lambda _n, _sql: None,
        after: Callable[[int, str], None] = lambda _n, _sql: None,
    ) -> None:
        self.before = before
        self.after = after
        self.calls = 0

    def install(self) -> None:
        """From now on, in this process."""

        def execute(
            connection: SQLiteConnection, sql: str, parameters: Sequence[Any] = ()
        ) -> sqlite3.Cursor:
            self.calls += 1
            number = self.calls
            self.before(number, sql)
            cursor = _execute(connection, sql, parameters)
            self.after(number, sql)
            return cursor

        SQLiteConnection.execute = execute  # type: ignore[method-assign,assignment]


@contextmanager
def choked(choke: Choke) -> Iterator[Choke]:
    """While it lasts."""
    choke.install()
    try:
        yield choke
    finally:
        SQLiteConnection.execute = _execute  # type: ignore[method-assign]


def exiting(number: int, *, before: bool) -> Choke:
    """Ends the process before or after the *number*-th call."""

    def end(n: int, _sql: str) -> None:
        if n == number:
            os._exit(EXITED)

    return Choke(before=end) if before else Choke(after=end)
