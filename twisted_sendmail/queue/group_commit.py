"""Operations on the store, the commits they share, and the thread that runs them.

Operations submitted while a commit runs share the next one, so that one write to the disk serves
as many messages as arrived meanwhile.  When an operation of a group fails, the group is rolled back
and each operation runs again in a transaction of its own: only the faulty one fails.  An error that
concerns the whole group, such as a lost connection, is the error of each operation.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from abc import ABC, abstractmethod
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from twisted_sendmail.queue.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.queue.store import Store

_log = Logger(namespace="twisted_sendmail.queue")


#: Largest number of operations that share a commit.
MAX_GROUP = 256


class OperationKind(enum.Enum):
    """Effect of an operation on the store."""

    READ = enum.auto()
    WRITE = enum.auto()
    #: Opens or closes the store, or handles transactions itself.
    ALONE = enum.auto()


class Operation:
    """One request to the store.

    :param work: called with the store; its result is the operation's.  It may be called again.
    :param doing: text for the error, following "the queue could not".
    """

    __slots__ = ("_work", "doing", "error", "kind", "result")

    #: Operations of this class are run by ``run_batch``, and not by ``work``.
    batched: ClassVar[bool] = False

    def __init__(
        self,
        work: Callable[[Store], Any] | None = None,
        kind: OperationKind = OperationKind.WRITE,
        doing: str = "do it",
    ) -> None:
        self._work = work
        self.kind = kind
        self.doing = doing
        self.result: Any = None
        self.error: Exception | None = None

    def work(self, store: Store) -> Any:
        """Run the operation; an exception becomes its error."""
        # A bound method stored as an attribute would be a reference cycle.
        return None if self._work is None else self._work(store)

    @classmethod
    def run_batch(cls, store: Store, batch: Sequence[Any]) -> None:
        """Run operations of a ``batched`` class together."""
        raise NotImplementedError

    def fire(self) -> None:
        """Deliver the result to the caller; in the reactor's thread, after the commit."""

    def after(self) -> None:
        """Notify others, after every operation of the commit has delivered its result."""


class Request(Operation):
    """An operation with a Deferred."""

    __slots__ = ("done",)

    def __init__(
        self, work: Callable[[Store], Any], kind: OperationKind, doing: str = "do it"
    ) -> None:
        super().__init__(work, kind, doing)
        self.done: Deferred[Any] = Deferred()

    def fire(self) -> None:
        """See ``Operation.fire``."""
        if self.error is None:
            self.done.callback(self.result)
        else:
            self.done.errback(self.error)


class GroupCommit:
    """Runs operations on *store* in shared transactions; uses no thread and no reactor."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, operations: Sequence[Operation]) -> None:
        """Run *operations* in order; afterwards each holds its result or error."""
        alone = OperationKind.ALONE
        for is_alone, run in groupby(operations, lambda operation: operation.kind is alone):
            if not is_alone:
                self._run_group(list(run))
                continue
            for operation in run:
                try:
                    operation.result = operation.work(self._store)
                except Exception as e:  # noqa: BLE001 - delivered to the caller
                    operation.error = self._store.error(e, operation.doing)

    def _run_group(self, group: list[Operation]) -> None:
        store = self._store
        try:
            store.begin(write=any(o.kind is OperationKind.WRITE for o in group))
            self._run_all(group)
            store.commit()
        except Exception as e:  # noqa: BLE001 - delivered to the caller
            self._roll_back()
            if len(group) > 1 and not store.concerns_all(e):
                for operation in group:
                    self._run_group([operation])
                return
            for operation in group:
                operation.result = None
                operation.error = store.error(e, operation.doing)

    def _run_all(self, group: list[Operation]) -> None:
        for batched, run in groupby(group, lambda operation: operation.batched):
            if not batched:
                for operation in run:
                    self._run_one(operation)
                continue
            batches: dict[type[Operation], list[Operation]] = {}
            for operation in run:
                operation.error = None
                batches.setdefault(type(operation), []).append(operation)
            for kind, batch in batches.items():
                kind.run_batch(self._store, batch)

    def _run_one(self, operation: Operation) -> None:
        operation.error = None
        before = self._store.changes
        try:
            operation.result = operation.work(self._store)
        except QueueError as e:
            if self._store.changes != before:
                raise
            # Refused before it changed anything: the group need not be rolled back.
            operation.error = e

    def _roll_back(self) -> None:
        store = self._store
        expected: tuple[type[Exception], ...] = (QueueError, *store.errors)
        try:
            store.rollback()
        except expected:
            # A connection that cannot roll back is unusable.  If it cannot be replaced, the next
            # operation reports the error.
            with contextlib.suppress(*expected):
                store.reopen()


class Worker(ABC):
    """Runs operations in the order of submission and delivers results in the reactor's thread."""

    _delivered: Callable[[], None]

    @abstractmethod
    def start(
        self,
        run: Callable[[list[Operation]], None],
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        """Start to pass groups to *run*; call *delivered* when a group's results are delivered."""

    @abstractmethod
    def submit(self, operation: Operation) -> None:
        """Queue an operation; called in the reactor's thread."""

    @abstractmethod
    def stop(self) -> Deferred[None]:
        """Stop after the results of everything submitted have been delivered."""

    def _deliver(self, group: list[Operation]) -> None:
        # Callers first, such as a client waiting for its 250; then the consumers of the queue.
        for operation in group:
            try:
                operation.fire()
            except Exception:  # noqa: BLE001 - an error of one caller must not affect the next
                _log.failure("a listener of the queue failed")
        for operation in group:
            try:
                operation.after()
            except Exception:  # noqa: BLE001
                _log.failure("an observer of the queue failed")
        self._delivered()


class InlineWorker(Worker):
    """Runs operations in the caller's thread: for tests, and for reactors without threads."""

    def __init__(self) -> None:
        self._run: Callable[[list[Operation]], None] | None = None
        self._waiting: list[Operation] = []
        self._busy = False

    def start(
        self,
        run: Callable[[list[Operation]], None],
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        """See ``Worker.start``."""
        self._run, self._delivered = run, delivered

    def submit(self, operation: Operation) -> None:
        """See ``Worker.submit``; operations submitted by a callback wait until it returns."""
        self._waiting.append(operation)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting and self._run is not None:
                group, self._waiting = self._waiting, []
                self._run(group)
                self._deliver(group)
        finally:
            self._busy = False

    def stop(self) -> Deferred[None]:
        """See ``Worker.stop``."""
        return succeed(None)


class ThreadWorker(Worker):
    """Runs operations in one thread of its own.

    :param reactor: an ``IReactorFromThreads``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._queue: SimpleQueue[list[Operation] | None] = SimpleQueue()
        self._turn: list[Operation] = []
        self._thread: threading.Thread | None = None
        self._stopped: Deferred[None] | None = None

    def start(
        self,
        run: Callable[[list[Operation]], None],
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        """See ``Worker.start``."""
        self._delivered = delivered
        # A daemon thread: a program that exits without closing the queue must still exit.  An
        # operation interrupted by that is as safe as in a crash.
        self._thread = threading.Thread(
            target=self._work, args=(run,), name="twisted_sendmail.queue", daemon=True
        )
        self._thread.start()

    def submit(self, operation: Operation) -> None:
        """See ``Worker.submit``; operations of one reactor turn are handed over together.

        The thread is then woken once, not once for each, and its commits serve more operations.
        """
        self._turn.append(operation)
        if len(self._turn) == 1:
            self._reactor.callLater(0, self._hand_over)

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        if turn:
            self._queue.put(turn)

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
                if len(group) >= MAX_GROUP:
                    break
                try:
                    some = self._queue.get_nowait()
                except Empty:
                    break
            else:
                going = False
            if group:
                run(group)
                self._reactor.callFromThread(self._deliver, group)
        self._reactor.callFromThread(self._thread_stopped)

    def _thread_stopped(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._stopped is not None:
            self._stopped.callback(None)
