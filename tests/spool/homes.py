"""Where the spools of the tests live: in memory, in SQLite here, in SQLite on a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.spool.conformance_home import Home
from twisted_sendmail.spool.group_commit import Kind, Operation
from twisted_sendmail.spool.sqlite_spool import SqliteSpool
from twisted_sendmail.spool.worker import InlineWorker, ThreadWorker
from twisted_sendmail.testkit.memory_spool import MemorySpool

if TYPE_CHECKING:
    from pathlib import Path

    from twisted_sendmail.spool.spool import Recovered, Spool


async def end(spool: SqliteSpool) -> None:
    """End *spool* as the end of its process would: nothing is put in order."""
    spool._open = False
    spool._wakeup.stop()
    if spool._poll.running:
        spool._poll.stop()
    spool._insistence.give_up()
    if isinstance(spool._worker, ThreadWorker):
        # SQLite wants to be closed where it was opened; nothing is written by it.
        spool._worker.submit(Operation(lambda _: _drop(spool), Kind.ALONE))
    else:
        _drop(spool)
    await spool._worker.stop()


def _drop(spool: SqliteSpool) -> None:
    spool._store.close()
    spool._lock.release()


class MemoryHome(Home):
    def __init__(self, clock: Any) -> None:
        self._spool = MemorySpool(clock)

    async def open(self) -> tuple[Spool, Recovered]:
        return self._spool, await self._spool.open()

    async def kill(self) -> None:
        self._spool.crash()


class SqliteHome(Home):
    """A directory; *inline*: without a thread."""

    def __init__(self, reactor: Any, directory: Path, *, inline: bool) -> None:
        self._reactor = reactor
        self.directory = directory
        self._inline = inline
        self._spools: list[SqliteSpool] = []

    async def open(self) -> tuple[SqliteSpool, Recovered]:
        worker = InlineWorker() if self._inline else None
        spool = SqliteSpool(self._reactor, self.directory, worker=worker)
        self._spools.append(spool)
        return spool, await spool.open()

    async def kill(self) -> None:
        await end(self._spools.pop())
