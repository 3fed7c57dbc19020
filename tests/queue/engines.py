"""The queues under test: in memory, in SQLite, in PostgreSQL; that in SQLite with a thread or without."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from tests.memory_queue import MemoryQueue
from tests.names import InlineWorker, SQLiteQueue
from twisted_sendmail.queue.postgresql.queue import PostgreSQLQueue
from twisted_sendmail.testing.queue_conformance import QueueHome, SharedQueueHome

if TYPE_CHECKING:
    from pathlib import Path

    from tests.names import Queue, RecoveryReport
    from tests.postgresql import PostgreSQL


class MemoryHome(QueueHome):
    def __init__(self, clock: Any) -> None:
        self._spool = MemoryQueue(clock)

    async def open(self) -> tuple[Queue, RecoveryReport]:
        return self._spool, await self._spool.open()

    async def kill(self) -> None:
        self._spool.crash()


class SqliteHome(QueueHome):
    """A directory; *inline*: without a thread."""

    def __init__(self, reactor: Any, directory: Path, *, inline: bool) -> None:
        self._reactor = reactor
        self.directory = directory
        self._inline = inline
        self._lives = 0
        self._spools: list[SQLiteQueue] = []

    async def open(self) -> tuple[SQLiteQueue, RecoveryReport]:
        worker = InlineWorker() if self._inline else None
        spool = SQLiteQueue(self._reactor, self.directory, worker=worker)
        self._spools.append(spool)
        return spool, await spool.open()

    async def kill(self) -> None:
        """Go on with a copy of the files as they are now: the next process finds no others."""
        self._lives += 1
        left = self.directory.with_name(f"{self.directory.name}-{self._lives}")
        left.mkdir(mode=0o700)
        for path in self.directory.iterdir():
            if path.is_file():
                shutil.copy2(path, left)
        self.directory = left
        await self._spools.pop().close()


class PostgreSQLHome(SharedQueueHome):
    """A database."""

    def __init__(self, reactor: Any, server: PostgreSQL, database: str) -> None:
        self._reactor = reactor
        self._server = server
        self.database = database
        self._spools: list[PostgreSQLQueue] = []

    async def open(self) -> tuple[PostgreSQLQueue, RecoveryReport]:
        spool = PostgreSQLQueue(self._reactor, self._server.url(self.database))
        self._spools.append(spool)
        return spool, await spool.open()

    async def kill(self) -> None:
        """Leave the relay's row as that of a process that has ended, and close the connections."""
        self._server.sql(
            # Another process has its number: it started at another time.
            "UPDATE twisted_sendmail.node SET number = -number, process = process || '0'",
            database=self.database,
        )
        self._server.sql(
            "UPDATE twisted_sendmail.message SET owner = -owner WHERE owner IS NOT NULL",
            database=self.database,
        )
        await self._spools.pop().close()

    async def open_another(self) -> Queue:
        spool, _ = await self.open()
        return spool

    async def end_leases(self, queue: Queue, finder: Queue) -> None:
        assert isinstance(queue, PostgreSQLQueue)
        assert isinstance(finder, PostgreSQLQueue)
        self._server.sql(
            "UPDATE twisted_sendmail.node SET alive_until = '-infinity' WHERE number = %s",
            queue._store.node,
            database=self.database,
        )
        await finder._renew()
