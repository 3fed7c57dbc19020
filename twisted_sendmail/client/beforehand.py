"""Connections that are asked for before there is a message for them.

It knows how many are wanted and who waits for them.  Opening them, and giving them
messages, is the pool's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted_sendmail.smtp import SendmailError


class Beforehand:
    """How many connections are wanted, and by whom."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Deferred[None]]] = []

    @property
    def wanted(self) -> int:
        """Connections that somebody waits for."""
        return max((count for count, _ in self._waiting), default=0)

    def want(self, count: int) -> Deferred[None]:
        """Fires when *count* connections are ready; cancelling it leaves them to whom they are of use."""

        def forget(waiting: Deferred[None]) -> None:
            self._waiting = [pair for pair in self._waiting if pair[1] is not waiting]

        waiting: Deferred[None] = Deferred(forget)
        self._waiting.append((count, waiting))
        return waiting

    def ready(self, count: int) -> None:
        """*count* connections are ready."""
        content = [waiting for wanted, waiting in self._waiting if wanted <= count]
        self._waiting = [pair for pair in self._waiting if pair[0] > count]
        for waiting in content:
            waiting.callback(None)

    def fail(self, error: SendmailError) -> None:
        """There will be no more of them, because of *error*."""
        waiting, self._waiting = self._waiting, []
        for _, each in waiting:
            each.errback(error.copy())
