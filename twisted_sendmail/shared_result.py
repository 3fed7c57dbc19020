"""One result that any number of callers wait for."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

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
            # Given a Failure, it calls the errbacks.
            each.callback(result)

    def _cancel(self, waiting: Deferred[_T]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
