"""How a whole route backs off, and how carefully it begins: pure.

A route that cannot be used is asked again soon, then less and less often; what waits for
it waits in the queue.  One that can be used gets few messages at once, and more with each
that gets through, so that a server that just came back is not run over.

Times are what a clock says that may jump: a wait is over when it is, or when the clock
shows a time before it began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.relay.retry_policy import grown, jittered

if TYPE_CHECKING:
    from twisted_sendmail.relay.retry_policy import Chance

_JITTER = 0.2
# Seconds until a second question, behind somebody's word that it works now: the first may have
# been answered by a connection that was begun before.
_TWICE = 0.1
# Seconds that are as good as none.
_SOON = 0.001


class BackOff:
    """A gate: open, or closed for a while that grows.

    :param first: seconds of the first wait; chance changes it by a fifth.
    :param most: of the longest.
    """

    def __init__(self, first: float, most: float, chance: Chance) -> None:
        self._first = first
        self._most = most
        self._chance = chance
        self._times = 0
        self._since = 0.0
        self._wait = 0.0
        self._twice = False
        #: Nothing has succeeded since the last failure.
        self.closed = False

    def failed(self, now: float, *, long: bool = False) -> float:
        """Close it, and return for how many seconds.

        :param long: as long as it may be: asking soon would make it worse.
        """
        twice, self._twice = self._twice, False
        if twice and not long:
            wait = min(_TWICE, self._first)
        else:
            wait = self._most if long else grown(self._first, self._most, self._times)
            self._times += 1
        self.closed = True
        self._since, self._wait = now, jittered(wait, _JITTER, self._chance)
        return self._wait

    def succeeded(self) -> None:
        """Open it."""
        self.closed = self._twice = False
        self._times = 0
        self._wait = 0.0

    def ask_now(self, *, twice: bool = False) -> None:
        """End the wait; it stays closed until something succeeds, and begins to grow anew.

        :param twice: do not believe the next failure at once, but ask a second time.
        """
        self._twice = twice and self.closed
        self._times = 0
        self._wait = 0.0

    def left(self, now: float) -> float:
        """Seconds until somebody may ask again; 0 when it is open."""
        passed = now - self._since
        if not self.closed or passed < 0:
            return 0.0
        left = self._wait - passed
        # What is less than a clock of today can tell apart would be waited for again and again.
        return left if left > _SOON else 0.0


class Window:
    """How many messages may be under way at once.

    :param first: at the beginning.
    :param most: at the most.
    """

    def __init__(self, first: int, most: int) -> None:
        self._first = min(first, most)
        self.most = most
        self.size = self._first

    def succeeded(self) -> None:
        """One got through: with each round of them there are twice as many."""
        if self.size < self.most:
            self.size += 1

    def troubled(self) -> None:
        """The server had enough, or is gone: one at a time."""
        self.size = 1

    def unheard(self) -> None:
        """Nothing was heard for long of those under way: let others try to get past them."""
        self.size = min(self.most, max(2 * self.size, self.size + self._first))

    def renew(self) -> None:
        """Begin again as at the beginning."""
        self.size = max(self.size, self._first)
