"""Reads of the queue that may be long, over a connection and in a thread of their own.

A reader does not delay the writer, and reads what was committed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from twisted_sendmail.queue.group_commit import GroupCommit, OperationKind, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.queue.group_commit import Worker
    from twisted_sendmail.queue.store import Store


class StoreReader:
    """Reads *store*, which exists and is used by this reader alone; it is opened at the first read.

    :param worker: runs the reads.
    """

    def __init__(self, store: Store, worker: Worker) -> None:
        self._store = store
        self._worker = worker
        self._started = False

    def read(self, work: Callable[[Store], Any]) -> Deferred[Any]:
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


def _read(store: Store, work: Callable[[Store], Any]) -> Any:
    if not store.is_open:
        store.open(read_only=True)
    try:
        with store.transaction(write=False, doing="be read"):
            return work(store)
    except BaseException:
        # The fault may lie in the connection: the next read opens another.
        store.close()
        raise
