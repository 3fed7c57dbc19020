"""One deadline at a time, set for every step of a connection, and seldom reached."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timer:
    """One deadline at a time, for the event that *key* identifies.

    A deadline is set several times a message and hardly ever passes: so a delayed call that comes
    too early is left where it is, and compares the time when it comes.

    :param late: called with the key when a deadline has passed.
    :param longest: seconds for which a delayed call is made at most, so that an event with a shorter
        deadline than the one before seldom needs another call.
    """

    __slots__ = ("_call", "_clock", "_due", "_longest", "key", "late")

    def __init__(
        self, clock: IReactorTime, late: Callable[[Any], object], longest: float = math.inf
    ) -> None:
        self._clock = clock
        self.late = late
        self._longest = longest
        self._call: IDelayedCall | None = None
        self._due: float | None = None
        #: Identifies the event that is awaited; None: no event is.
        self.key: object = None

    def set(self, key: object, seconds: float | None) -> None:
        """Set a deadline in *seconds*; the deadline of the same key stays as it is.

        :param seconds: None: the event is awaited without a deadline.
        """
        if key == self.key:
            return
        self.key = key
        if seconds is None:
            self._due = None
            return
        self._due = due = self._clock.seconds() + seconds
        call = self._call
        if call is not None:
            if call.getTime() <= due:
                return
            call.cancel()
        self._call = self._clock.callLater(min(seconds, self._longest), self._check)

    def clear(self) -> None:
        """Remove the deadline."""
        self.key = self._due = None

    def stop(self) -> None:
        """Remove the deadline, and cancel the delayed call."""
        self.clear()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def release(self) -> None:
        """Stop, and drop the reference to the owner, which breaks a reference cycle."""
        self.stop()
        self.late = lambda _: None

    def _check(self) -> None:
        self._call = None
        if self._due is None:
            return
        left = self._due - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(min(left, self._longest), self._check)
            return
        key = self.key
        self.clear()
        self.late(key)
