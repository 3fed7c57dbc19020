"""Corrects the reactor's timers after the machine's clock was set.

Twisted's timers follow the wall clock: set the clock back by six days, and every timeout fires six days
late; set it forward, and all fire at once. ``ClockWatch`` compares the wall clock with the monotonic
clock, and when the difference changes, moves every timer by as much with the public ``delay``.

A thread makes the reactor compare about once a second, which notices a clock that was set back. A timer
that is always due next notices a clock that was set forward, because that timer fires before all timers
that have become due by mistake. An adjustment in small steps, as by NTP, is no jump. The monotonic
clock stops in a suspended machine: the time of suspension is a jump forward, and timeouts do not count it.

Times that are stored (due times in the queue, samples of the admin page) are not timers; their owners
compare them with the wall clock.
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

#: Seconds between two comparisons.
COMPARE_INTERVAL = 1.0
#: Seconds until the timer that is due next; each comparison puts the timer off.
FIRST_TIMER_DELAY = 1.2 * COMPARE_INTERVAL
#: Seconds of change between two comparisons that are no jump.
MAX_STEP = 3.0


class ClockWatch:
    """Watches the clock from :meth:`start` to :meth:`stop`; owns one thread and one timer.

    :param reactor: the reactor whose timers are corrected.
    :param jumped: called in the reactor's thread after each jump, with its seconds: above zero
        if the clock was set forward.
    :param wall: the clock of the reactor's timers.
    :param monotonic: a clock that cannot be set.
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
        self._difference = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        #: The thread has asked for a comparison that the reactor has not yet made.
        self._comparing = False
        self._first_timer: IDelayedCall | None = None

    def start(self) -> None:
        """Start; not before a fork, which threads do not survive."""
        self._difference = self._measure_difference()
        self._stopped.clear()
        self._first_timer = self._reactor.callLater(FIRST_TIMER_DELAY, self.compare)
        self._thread = threading.Thread(target=self._run, name="clock watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; the thread has ended when this returns."""
        thread, self._thread = self._thread, None
        self._stopped.set()
        first, self._first_timer = self._first_timer, None
        if first is not None and first.active():
            first.cancel()
        if thread is not None:
            thread.join(timeout=5)

    def compare(self) -> float:
        """Compare the clocks, and correct all timers after a jump.

        :returns: the seconds of the jump; 0 for none.
        """
        self._comparing = False
        if self._stopped.is_set():
            return 0.0
        difference = self._measure_difference()
        jump, self._difference = difference - self._difference, difference
        moved = self._move_timers(jump) if abs(jump) > MAX_STEP else 0
        if self._first_timer is not None and self._first_timer.active():
            self._first_timer.reset(FIRST_TIMER_DELAY)
        else:
            self._first_timer = self._reactor.callLater(FIRST_TIMER_DELAY, self.compare)
        if abs(jump) <= MAX_STEP:
            return 0.0
        _log.warn(
            "the clock was set {way} by {seconds:.0f} s; {moved} timers were corrected",
            way="forward" if jump > 0 else "back",
            seconds=abs(jump),
            moved=moved,
        )
        self._jumped(jump)
        return jump

    def _move_timers(self, seconds: float) -> int:
        calls = [
            call
            for call in self._reactor.getDelayedCalls()
            if call.active() and call is not self._first_timer
        ]
        for call in calls:
            call.delay(seconds)
        return len(calls)

    def _run(self) -> None:
        while not self._stopped.wait(COMPARE_INTERVAL):
            # A busy reactor gets no second call.
            if not self._comparing:
                self._comparing = True
                self._reactor.callFromThread(self.compare)

    def _measure_difference(self) -> float:
        """Return wall clock minus monotonic clock, both read at nearly the same moment."""
        for _ in range(5):
            before = self._monotonic()
            wall = self._wall()
            after = self._monotonic()
            if after - before < 0.1:
                break
        return wall - after
