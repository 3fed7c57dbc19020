"""Who runs the operations: a thread of its own, or the caller himself.

A worker takes operations one by one, gives them to the group commit in the groups in
which it finds them, and has who asked told in the reactor's thread.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.queue.sqlite.group_commit import Operation

#: Operations that share a commit at the most.
MOST = 256


class Worker(ABC):
    """Runs operations in the order in which they are given."""

    _log = Logger(namespace="twisted_sendmail.queue")
    _told: Callable[[], None]

    @abstractmethod
    def start(
        self, run: Callable[[list[Operation]], None], told: Callable[[], None] = lambda: None
    ) -> None:
        """Begin to give groups to *run*; *told* is called when all of a group have been told."""

    @abstractmethod
    def submit(self, operation: Operation) -> None:
        """Have it done; called in the reactor's thread."""

    @abstractmethod
    def stop(self) -> Deferred[None]:
        """End, when all that was submitted has been done and told."""

    def _tell(self, group: list[Operation]) -> None:
        # First those who wait for it, such as a client for its 250; then those who go on with it.
        for operation in group:
            try:
                operation.fire()
            except Exception:  # noqa: BLE001 - one listener's fault is not the next one's
                self._log.failure("a listener of the queue failed")
        for operation in group:
            try:
                operation.after()
            except Exception:  # noqa: BLE001
                self._log.failure("an observer of the queue failed")
        self._told()


class InlineWorker(Worker):
    """Does it at once, in the caller's thread: for tests, and reactors without threads."""

    def __init__(self) -> None:
        self._run: Callable[[list[Operation]], None] | None = None
        self._waiting: list[Operation] = []
        self._busy = False

    def start(
        self, run: Callable[[list[Operation]], None], told: Callable[[], None] = lambda: None
    ) -> None:
        """See ``Worker.start``."""
        self._run, self._told = run, told

    def submit(self, operation: Operation) -> None:
        """See ``Worker.submit``; what is submitted while one is told waits for its end."""
        self._waiting.append(operation)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting and self._run is not None:
                group, self._waiting = self._waiting, []
                self._run(group)
                self._tell(group)
        finally:
            self._busy = False

    def stop(self) -> Deferred[None]:
        """See ``Worker.stop``."""
        return succeed(None)


class ThreadWorker(Worker):
    """A thread for the life of the spool.

    :param reactor: an ``IReactorFromThreads``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._queue: SimpleQueue[list[Operation] | None] = SimpleQueue()
        self._together: list[Operation] = []
        self._thread: threading.Thread | None = None
        self._stopped: Deferred[None] | None = None

    def start(
        self, run: Callable[[list[Operation]], None], told: Callable[[], None] = lambda: None
    ) -> None:
        """See ``Worker.start``."""
        self._told = told
        # A daemon: an application that ends without closing the spool must still end.
        # Whatever it is doing then is as safe as in a crash.
        self._thread = threading.Thread(
            target=self._work, args=(run,), name="twisted_sendmail.queue", daemon=True
        )
        self._thread.start()

    def submit(self, operation: Operation) -> None:
        """See ``Worker.submit``; what is submitted in one turn of the reactor goes together.

        The thread is then woken once, not once for each, and its commits serve more.
        """
        self._together.append(operation)
        if len(self._together) == 1:
            self._reactor.callLater(0, self._hand_over)

    def _hand_over(self) -> None:
        together, self._together = self._together, []
        if together:
            self._queue.put(together)

    def stop(self) -> Deferred[None]:
        """See ``Worker.stop``."""
        if self._stopped is None:
            self._stopped = Deferred()
            if self._thread is None:
                self._stopped.callback(None)
            else:
                self._hand_over()
                self._queue.put(None)
        return self._stopped

    def _work(self, run: Callable[[list[Operation]], None]) -> None:
        going = True
        while going:
            group: list[Operation] = []
            some = self._queue.get()
            while some is not None:
                group += some
                if len(group) >= MOST:
                    break
                try:
                    some = self._queue.get_nowait()
                except Empty:
                    break
            else:
                going = False
            if group:
                run(group)
                self._reactor.callFromThread(self._tell, group)
        self._reactor.callFromThread(self._ended)

    def _ended(self) -> None:
        if self._thread is not None:
            # It has nothing left to do but to end.
            self._thread.join()
        if self._stopped is not None:
            self._stopped.callback(None)
