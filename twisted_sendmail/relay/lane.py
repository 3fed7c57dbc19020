"""The mail of one route on its way out of the spool: what is leased, and when.

New mail does not wait behind old, nor the other way round: of what may be under way, each
has half where both wait, and all where the other does not.  There is never more taken
out than there is room for, and never a loop: after trouble, and when there was nothing,
it waits.

What becomes of a message that is taken out is ``attempt``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.relay.events import Trouble
from twisted_sendmail.relay.retry_policy import grown
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import LeasedMessage, Queue, QueuedMessage
    from twisted_sendmail.relay.events import Observer
    from twisted_sendmail.relay.retry_policy import RetryPolicy
    from twisted_sendmail.relay.transport import Transport

#: Seconds after which it looks again in any case: clocks jump, and others change the queue.
ANYWAY = 60.0
#: Messages that are taken out together, where there is room for so many.
_TOGETHER = 8
#: Seconds until it looks again when there was nothing, whatever a due time says.
_PAUSE = 1.0


class RouteQueue:
    """See the module.

    :param carry: given what was leased, and what to end it with (:meth:`ended`).
    :param survey: called when nobody knows when the next message is due; has
        :meth:`surveyed` called.
    """

    def __init__(
        self,
        reactor: Any,
        spool: Queue,
        route: Transport,
        schedule: RetryPolicy,
        *,
        carry: Callable[[RouteQueue, Sequence[LeasedMessage]], None],
        survey: Callable[[], None],
        tell: Observer,
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self._carry = carry
        self._survey = survey
        self._tell = tell
        self.route = route
        self.schedule = schedule
        #: When the next message in the spool is due, as far as is known.
        self.due: float | None = None
        # New messages that wait in the spool and are not being taken out; None: some may.
        self._fresh: int | None = None
        self._retries_wait = True
        # Since the lease under way was asked for: new messages that came to wait, others
        # that did; and if anything may have.
        self._fresh_came = 0
        self._retries_came = self._changed = False
        self._fresh_under_way = 0
        self._leasing = False
        self._odd = False
        self._stopped = False
        self._troubles = 0
        self._stale = 0
        self._looked = reactor.seconds()
        self._paused = False
        self._timer: IDelayedCall | None = None

    # -- what comes in -------------------------------------------------------------------

    def claim(self) -> bool:
        """Is a new message tried at once?  If so it is counted as under way."""
        route = self.route
        if self._stopped or self._fresh != 0 or not route.up:
            return False
        now = self._reactor.seconds()
        if route.room(now) <= 0:
            return False
        half = (route.allowance(now) + 1) // 2
        if self._retries_wait and self._fresh_under_way >= half:
            return False
        _ = route.reserve(1)
        self._fresh_under_way += 1
        return True

    def unclaimed(self) -> None:
        """A claimed one did not come in after all."""
        self._fresh_under_way -= 1
        self.route.give_back(1, self.route.generation)
        self.look()

    def arrived(self) -> None:
        """There is a new message in the spool."""
        self._one_fresh()
        self.look()

    def stirred(self) -> None:
        """Somebody changed the queue."""
        self._anything_may_wait()
        self._paused = False
        self.look()

    def _one_fresh(self) -> None:
        self._fresh_came += 1
        if self._fresh is not None:
            self._fresh += 1

    def _anything_may_wait(self) -> None:
        self._fresh = None
        self._changed = self._retries_wait = self._retries_came = True

    @property
    def _something_waits(self) -> bool:
        return self._fresh != 0 or self._retries_wait

    # -- what goes out -------------------------------------------------------------------

    def look(self) -> None:
        """Take out what there is room for."""
        if self._stopped or self._leasing:
            return
        now = self._reactor.seconds()
        if self._paused or not self._something_waits:
            self.wait()
            return
        route = self.route
        if route.room(now) <= 0:
            _ = route.silence(now)
        room, allowance = route.room(now), route.allowance(now)
        fresh, retries = self._shares(room, allowance)
        # One by one would cost a commit each; those under way come back and look again.
        if room < min(_TOGETHER, allowance // 4) or not fresh + retries:
            self.wait()
            return
        generation = route.reserve(fresh + retries)
        if self._fresh is not None:
            # What comes in from now on is behind them, and may be claimed.
            self._fresh -= fresh
        self._leasing = True
        self._fresh_came, self._retries_came, self._changed = 0, False, False
        leasing = self._spool.lease(
            route.name, now, fresh=fresh, retries=retries, horizon=self.schedule.horizon(now)
        )
        _ = leasing.addCallbacks(
            self._leased,
            self._not_leased,
            callbackArgs=(fresh, retries, generation),
            errbackArgs=(fresh + retries, generation),
        )
        _ = leasing.addErrback(self._broken)

    def _shares(self, room: int, allowance: int) -> tuple[int, int]:
        if room <= 0:
            return 0, 0
        waiting = room if self._fresh is None else self._fresh
        if not self._retries_wait:
            return min(room, waiting), 0
        # A quarter is kept for new mail that comes: old mail may be slow.
        under_way = max(0, allowance - room - self._fresh_under_way)
        most = min(room, max(1, allowance - allowance // 4) - under_way)
        if not waiting:
            return 0, max(0, most)
        # The odd one goes to either in turn, or one of two would starve in a room for one.
        self._odd = not self._odd
        half = (allowance + self._odd) // 2
        fresh = min(room, waiting, max(0, half - self._fresh_under_way))
        return fresh, max(0, min(most, room - fresh))

    def _leased(
        self, found: Sequence[LeasedMessage], fresh: int, retries: int, generation: int
    ) -> None:
        self._leasing = False
        self._troubles = 0
        route = self.route
        route.give_back(fresh + retries - len(found), generation)
        if self._stopped or (generation != route.generation and not route.up):
            self._anything_may_wait()
            self._release(found, generation)
            self.wait()
            return
        new = sum(not leased.message.attempts for leased in found)
        old = len(found) - new
        if new < fresh and not self._changed and self._fresh is None:
            # That was all; what came meanwhile waits, or was among it.
            self._fresh = self._fresh_came
        if old < retries and not self._retries_came:
            self._retries_wait = False
        if found:
            self._stale = 0
            self._fresh_under_way += new
            self._carry(self, found)
        if old < retries or (new < fresh and self.due is None):
            self._survey()
        self.look()

    def _not_leased(self, failure: Failure, room: int, generation: int) -> None:
        self._leasing = False
        self._anything_may_wait()
        self.route.give_back(room, generation)
        self._troubles += 1
        self._tell(Trouble("mail cannot be taken out of the queue", printable(str(failure.value))))
        self._pause(grown(_PAUSE, ANYWAY, self._troubles - 1))

    def _broken(self, failure: Failure) -> None:
        """Nobody thought of that; what was leased stays so until the next start."""
        self._tell(Trouble(f"route {self.route.name} stumbled", printable(str(failure.value))))
        self._pause(ANYWAY)

    def _release(self, found: Sequence[LeasedMessage], generation: int) -> None:
        if found:
            self.route.give_back(len(found), generation)
            _ = self._spool.release([leased.message.id for leased in found]).addErrback(
                lambda failure: self._tell(
                    Trouble("leases could not be ended", printable(str(failure.value)))
                )
            )

    def lend(self, leased: LeasedMessage) -> None:
        """Count one as under way that was leased by somebody else."""
        _ = self.route.reserve(1)
        if not leased.message.attempts:
            self._fresh_under_way += 1

    def ended(self, leased: LeasedMessage, generation: int, message: QueuedMessage | None) -> None:
        """A message that was carried is back in the spool, or gone."""
        self.route.give_back(1, generation)
        if not leased.message.attempts:
            self._fresh_under_way -= 1
        if message is not None and message.aside is None and not message.held:
            now = self._reactor.seconds()
            if message.due <= now:
                if message.attempts:
                    self._retries_wait = self._retries_came = True
                else:
                    self._one_fresh()
            elif self.due is None or message.due < self.due:
                self.due = message.due
                self.wait()
        if self._stopped:
            # The route has changed: the message goes out by another lane.
            self._survey()
        elif self._something_waits:
            self.look()

    def surveyed(self, due: float | None) -> None:
        """Take in when the next message in the spool is due; None: there is none."""
        now = self._reactor.seconds()
        self.due = due
        if due is not None and due <= now:
            # It became so just now; or it is one that cannot be had, and is no reason to spin.
            self.due = now + grown(_PAUSE, ANYWAY, self._stale)
            self._stale += 1
        self.wait()

    # -- waiting -------------------------------------------------------------------------

    def wait(self) -> None:
        """See to it that it looks again in time."""
        if self._stopped:
            return
        now = self._reactor.seconds()
        when = now + ANYWAY
        if self._something_waits:
            closed = self.route.back_off.left(now)
            if closed > 0:
                when = min(when, now + closed)
            elif self.route.room(now) <= 0:
                when = min(when, now + self.route.silence(now))
        elif self.due is not None:
            when = min(when, max(self.due, now + self.route.back_off.left(now)))
        if self._paused:
            return  # the pause has its own end
        self._set_timer(max(0.0, when - now))

    def _pause(self, seconds: float) -> None:
        self._paused = True
        self._set_timer(seconds)

    def _set_timer(self, seconds: float) -> None:
        timer = self._timer
        if timer is not None and timer.active():
            # Early is no harm; and the clock may have been set back under it.
            if 0 <= timer.getTime() - self._reactor.seconds() <= seconds:
                return
            timer.reset(seconds)
        else:
            self._timer = self._reactor.callLater(seconds, self._tick)

    def _tick(self) -> None:
        self._paused = False
        now = self._reactor.seconds()
        come = self.due is not None and self.due <= now
        if come:
            self.due = None
        if come or not 0 <= now - self._looked < ANYWAY - 1:
            self._looked = now
            self._anything_may_wait()
        self.look()

    def stop(self) -> None:
        """Take nothing more out."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
