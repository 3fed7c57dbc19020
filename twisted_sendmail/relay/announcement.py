"""One result that any number of others wait for, each by a Deferred of his own."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Announcement(Generic[T]):
    """Waits for :meth:`tell`; a failure that nobody waits for is nobody's."""

    def __init__(self) -> None:
        self._told: T | Failure | None = None
        self._waiting: list[Deferred[T]] = []

    def wait(self) -> Deferred[T]:
        """Fires with what is told, or was; cancelling it is no matter of others."""
        waiting: Deferred[T] = Deferred(self._waiting_no_more)
        if self._told is None:
            self._waiting.append(waiting)
        else:
            _fire(waiting, self._told)
        return waiting

    def tell(self, told: T | Failure) -> None:
        """Tell all; once."""
        self._told = told
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            _fire(each, told)

    def _waiting_no_more(self, waiting: Deferred[T]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)


def _fire(waiting: Deferred[T], told: T | Failure) -> None:
    if isinstance(told, Failure):
        waiting.errback(told)
    else:
        waiting.callback(told)
