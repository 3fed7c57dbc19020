"""One result that any number of callers wait for, and tasks that run one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

_T = TypeVar("_T")


class SharedResult(Generic[_T]):
    """One result with any number of Deferreds; a failure without a waiting Deferred is not logged."""

    def __init__(self) -> None:
        # Empty until the result is set.
        self._result: list[_T | Failure] = []
        self._waiting: list[Deferred[_T]] = []

    def wait(self) -> Deferred[_T]:
        """Return a Deferred of the result; cancelling it does not affect others."""
        waiting: Deferred[_T] = Deferred(self._cancel)
        if self._result:
            waiting.callback(self._result[0])
        else:
            self._waiting.append(waiting)
        return waiting

    def set(self, result: _T | Failure) -> None:
        """Set the result, once."""
        self._result = [result]
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            # A callback of an earlier one may have cancelled this one.
            if not each.called:
                # Given a Failure, it calls the errbacks.
                each.callback(result)

    def _cancel(self, waiting: Deferred[_T]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)


class SharedTasks(Generic[_T]):
    """Runs one task at a time; callers that ask for the same task share its result.

    :param most_waiting: tasks that may wait.
    """

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._lock = DeferredLock()
        self._results: dict[Hashable, SharedResult[_T]] = {}

    def run(
        self, key: Hashable, task: Callable[[], Coroutine[Deferred[Any], Any, _T]]
    ) -> Deferred[_T] | None:
        """Return a Deferred of the result of *task*, or of the task of this key that waits or runs.

        Cancelling it does not stop the task.

        :returns: None if too many tasks wait.
        """
        shared = self._results.get(key)
        if shared is None:
            if len(self._lock.waiting) >= self._most_waiting:
                return None
            shared = self._results[key] = SharedResult()
            running = self._lock.run(lambda: Deferred.fromCoroutine(task()))
            _ = running.addBoth(self._ended, key, shared)
        return shared.wait()

    def forget(self) -> None:
        """Share no result of a task that was asked for before."""
        self._results.clear()

    def _ended(self, result: _T | Failure, key: Hashable, shared: SharedResult[_T]) -> None:
        if self._results.get(key) is shared:
            del self._results[key]
        shared.set(result)
