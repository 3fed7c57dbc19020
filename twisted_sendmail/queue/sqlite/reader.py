"""Reads of the queue that may be long, over a connection and in a thread of their own.

In SQLite's WAL mode a reader does not delay the writer, and reads what was committed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from twisted_sendmail.queue.sqlite.group_commit import GroupCommit, OperationKind, Request
from twisted_sendmail.queue.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted_sendmail.queue.sqlite.group_commit import Worker


class SQLiteReader:
    """Reads the queue in *directory*, which exists; its connection is opened at the first read.

    :param worker: runs the reads.
    """

    def __init__(self, directory: Path, worker: Worker) -> None:
        self._store = SQLiteStore(directory)
        self._worker = worker
        self._started = False

    def read(self, work: Callable[[SQLiteStore], Any]) -> Deferred[Any]:
        """Return the result of *work*, which reads the store in one transaction.

        :raises QueueError: the queue cannot be read.
        """
        if not self._started:
            self._started = True
            self._worker.start(GroupCommit(self._store).run)
        request = Request(lambda store: _read(store, work), OperationKind.ALONE, "be read")
        self._worker.submit(request)
        return request.done

    def close(self) -> Deferred[None]:
        """Close the connection after the reads under way; read nothing afterwards."""
        if not self._started:
            return succeed(None)
        self._worker.submit(Request(lambda store: store.close(), OperationKind.ALONE))
        return self._worker.stop()


def _read(store: SQLiteStore, work: Callable[[SQLiteStore], Any]) -> Any:
    if not store.is_open:
        store.open()
        store.connection.execute("PRAGMA query_only = ON")
    try:
        with store.transaction(write=False, doing="be read"):
            return work(store)
    except BaseException:
        # The fault may lie in the connection: the next read opens another.
        store.close()
        raise
