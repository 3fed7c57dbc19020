"""Keeps timers right when somebody sets the machine's clock.

Twisted's timers follow the wall clock: set it back by six days, and every timeout
comes six days late; set it forward, and all of them come at once.  Here the wall clock is
compared with the monotonic one, and when they have moved apart, every timer is moved along
with the public ``delay``.

A thread wakes the reactor about once a second to look: it notices a clock that was set back.  A timer
that is always among the next to come sees to a clock that was set forward: it comes before all those that
are due by mistake.

It owns that thread and that timer, which end with :meth:`ClockWatch.stop`.  A clock that is adjusted
slowly, as NTP does, is no jump.  To the monotonic clock a suspended machine stands still:
its sleep is a jump forward, and timeouts count the time awake.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

_log = Logger(namespace="twisted_sendmail.daemon.clock")

#: Seconds between two looks.
TICK = 1.0
#: Seconds until the timer that comes first; each look puts it off.
AHEAD = 1.2 * TICK
#: Seconds that the clocks may move apart between two looks.
TOLERANCE = 3.0


class ClockWatch:
    """Watches from :meth:`start` to :meth:`stop`.

    :param reactor: whose timers are kept right.
    :param jumped: called in the reactor's thread after each jump, with its seconds:
        above zero for a clock that was set forward.
    :param wall: what the reactor's timers follow.
    :param monotonic: what nobody can set.
    """

    def __init__(
        self,
        reactor: Any,
        jumped: Callable[[float], object],
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._jumped = jumped
        self._wall = wall
        self._monotonic = monotonic
        self._apart = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        #: A look was asked for, and the reactor has not had the time yet.
        self._asked = False
        self._first: IDelayedCall | None = None

    def start(self) -> None:
        """Begin; after a fork, if there is one."""
        self._apart = self._measured()
        self._over.clear()
        self._first = self._reactor.callLater(AHEAD, self._came)
        self._thread = threading.Thread(target=self._run, name="clock watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; the thread is gone when this returns."""
        thread, self._thread = self._thread, None
        self._over.set()
        first, self._first = self._first, None
        if first is not None and first.active():
            first.cancel()
        if thread is not None:
            thread.join(timeout=5)

    def look(self) -> float:
        """See whether the clocks have moved apart, and if so move all timers.

        :returns: the seconds of the jump; 0 for none.
        """
        self._asked = False
        if self._over.is_set():
            return 0.0
        apart = self._measured()
        jump, self._apart = apart - self._apart, apart
        moved = self._move(jump) if abs(jump) > TOLERANCE else 0
        if self._first is not None and self._first.active():
            self._first.reset(AHEAD)
        else:
            self._first = self._reactor.callLater(AHEAD, self._came)
        if abs(jump) <= TOLERANCE:
            return 0.0
        _log.warn(
            "the clock was set {way} by {seconds:.0f} s; {moved} timers were moved along",
            way="forward" if jump > 0 else "back",
            seconds=abs(jump),
            moved=moved,
        )
        self._jumped(jump)
        return jump

    def _move(self, jump: float) -> int:
        calls = [
            call
            for call in self._reactor.getDelayedCalls()
            if call.active() and call is not self._first
        ]
        for call in calls:
            call.delay(jump)
        return len(calls)

    def _came(self) -> None:
        """Rarely: the thread is late, or the clock is ahead."""
        self.look()

    def _run(self) -> None:
        while not self._over.wait(TICK):
            # A reactor that is busy is not told twice.
            if not self._asked:
                self._asked = True
                self._reactor.callFromThread(self.look)

    def _measured(self) -> float:
        """Wall clock minus monotonic clock, both of the same moment."""
        for _ in range(5):
            before = self._monotonic()
            wall = self._wall()
            after = self._monotonic()
            if after - before < 0.1:
                break
        return wall - after
