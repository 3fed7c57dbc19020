"""The queues under test: in memory, in SQLite, in SQLite with a thread."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from tests.memory_queue import MemoryQueue
from tests.names import InlineWorker, SQLiteQueue
from tests.queue.conformance_base import Home

if TYPE_CHECKING:
    from pathlib import Path

    from tests.names import Queue, RecoveryReport


class MemoryHome(Home):
    def __init__(self, clock: Any) -> None:
        self._spool = MemoryQueue(clock)

    async def open(self) -> tuple[Queue, RecoveryReport]:
        return self._spool, await self._spool.open()

    async def kill(self) -> None:
        self._spool.crash()


class SqliteHome(Home):
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
