"""The queue in an SQLite database, which one relay has open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.sqlite.free_space import LEAST_FREE
from twisted_sendmail.queue.sqlite.notify import QueueNotifications
from twisted_sendmail.queue.sqlite.store import SQLiteStore
from twisted_sendmail.queue.stored_queue import StoredQueue

if TYPE_CHECKING:
    from twisted_sendmail.queue.group_commit import Worker


class SQLiteQueue(StoredQueue):
    """The queue in *directory*, which is created if it is missing.

    :param reactor: an ``IReactorTime``; with ``IReactorFromThreads`` the work is done in a thread.
    :param worker: runs the operations, if given; then long reads run in the caller's thread.
    :param least_free: octets of free space to keep on the file system; 0: no limit.
    """

    _store: SQLiteStore

    def __init__(
        self,
        reactor: Any,
        directory: str | Path,
        *,
        worker: Worker | None = None,
        least_free: int = LEAST_FREE,
    ) -> None:
        self.directory = Path(directory)
        store = SQLiteStore(self.directory, damaged=self.found_damaged, least_free=least_free)
        # Read only: in WAL mode a reader does not delay the writer.
        super().__init__(reactor, store, SQLiteStore(self.directory), worker=worker)
        self._notifications = QueueNotifications(self.directory, self.read_flushed)

    def start_watching(self) -> None:
        """See ``StoredQueue.start_watching``: commands of an operator send a datagram."""
        self._notifications.listen(self.reactor)

    def stop_watching(self) -> None:
        """See ``StoredQueue.stop_watching``."""
        self._notifications.stop()
