"""Connections and the messages that wait for them.

Connections are counted by stage when they change it, and messages are given to one
the moment it can take them.  A failure to open is everybody's who waits for it: it is
not tried anew for each.  A password that was refused is not tried again until told.

A connection that is not ready in time does not hold up the messages: another one is
tried, at the next server if there is one, as ``server_status`` allows.  Such an overdue
connection is dropped when others are ready, or when a new one takes its place.

What was accepted stays accepted; what is in doubt is never sent again from here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.client.beforehand import Beforehand
from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.fleet import NOT_READY, READY, Fleet, Stage
from twisted_sendmail.client.pipeline import Share
from twisted_sendmail.client.pooled_connection import PooledConnection
from twisted_sendmail.client.rate import TokenBucket
from twisted_sendmail.client.server_status import MAX_UNPROVEN_OPENING, ServerStatus
from twisted_sendmail.client.tls import MAX_HANDSHAKES
from twisted_sendmail.client.verdict import may_go_again
from twisted_sendmail.smtp import (
    AuthenticationError,
    ConnectFailed,
    DeliveryInDoubt,
    DeliveryReport,
    MailerBusy,
    MailerClosed,
    ProtocolBreach,
    RecipientStatus,
    SendmailError,
    SendTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.client.job import Job
    from twisted_sendmail.client.limits import PoolLimits
    from twisted_sendmail.client.server_config import SubmissionServer

#: How often a message is given back unheard before there must be something wrong.
RETURNS = 3


class Pool:
    """The connections to *servers*, best first."""

    log = Logger(namespace="twisted_sendmail.client")

    def __init__(
        self, reactor: Any, servers: Sequence[SubmissionServer], limits: PoolLimits
    ) -> None:
        self.reactor = reactor
        self.servers = tuple(servers)
        self.limits = limits
        self.share = Share(limits.octets)
        self._status = ServerStatus(reactor, len(self.servers))
        self._beforehand = Beforehand()
        self._queue: deque[Job] = deque()
        self.fleet = Fleet()
        self._bucket = TokenBucket(reactor, limits.rate, limits.burst)
        self._next_token: IDelayedCall | None = None
        self._impatience: IDelayedCall | None = None
        #: Told of each server that could not be made ready, be there another or not.
        self.not_ready: Callable[[SubmissionServer, SendmailError], None] | None = None
        #: Called when there is no connection any more.
        self.deserted: Callable[[], None] = lambda: None
        self._closing = False
        # While closing: what waits is not sent any more.
        self._refuses_waiting = False
        self._watching: list[Deferred[None]] = []
        self._opened_so_far = 0
        # The server of the connection that takes the place of a dropped one, until that is gone.
        self._replacement: int | None = None

    @property
    def waiting(self) -> int:
        """Messages that wait for a connection."""
        return len(self._queue)

    # -- jobs --------------------------------------------------------------------

    def add(self, jobs: Iterable[Job]) -> None:
        """Let *jobs* go out as soon as can be; their results say what became of them."""
        for job in jobs:
            if self._closing:
                job.settle(MailerClosed("the mailer is closed"))
            elif len(self._queue) >= self.limits.waiters:
                job.settle(MailerBusy(f"{self.limits.waiters} messages are waiting already"))
            else:
                self._queue.append(job)
        self._distribute()
        self._watch_the_first()

    def has_work_for(self, carrier: PooledConnection) -> bool:
        """Is there a job *carrier* could take now?"""
        allowed = self._next_token is None
        return allowed and any(carrier.place not in job.tried for job in self._queue)

    def take(self, carrier: PooledConnection) -> Job | None:
        """The next job for *carrier*, if there is one and the rate allows."""
        queue = self._queue
        while queue and queue[0].settled:
            queue.popleft()
        if not queue:
            self.fleet.hunger(carrier)
            return None
        if not self._bucket.take():
            self.fleet.hunger(carrier)
            if self._next_token is None:
                self._next_token = self.reactor.callLater(
                    self._bucket.seconds_to_next(), self._token
                )
            return None
        if carrier.place not in queue[0].tried:
            return queue.popleft()
        for job in queue:
            if carrier.place not in job.tried and not job.settled:
                queue.remove(job)
                return job
        self._bucket.give_back()
        self.fleet.hunger(carrier)
        return None

    def done(
        self, carrier: PooledConnection, job: Job, result: DeliveryReport | Failure | None
    ) -> None:
        """*carrier* is through with *job*: settle it, or let it go to another connection."""
        if isinstance(result, Failure):
            job.settle(result)
        elif result is None and job.returned >= RETURNS:
            error = ProtocolBreach(f"{carrier.server} hears of no message behind another")
            error.report = job.report(RecipientStatus.UNTOUCHED, error)
            job.settle(error)
        elif result is None:
            job.returned += 1
            self._again(job)
        elif self._may_go_again(carrier, job, result):
            self._again(job)
        else:
            job.settle(result)
        self._changed()

    def _may_go_again(self, carrier: PooledConnection, job: Job, report: DeliveryReport) -> bool:
        if not may_go_again(report, job.letter):
            return False
        if carrier.heard > job.begun_at:
            return True  # others got through before it: a limit of the server, or bad luck
        if carrier.heard and not job.replaced:
            # A connection that had served before may have been dead already; once.
            job.replaced = True
            return True
        job.tried |= {carrier.place}
        self._status.pass_over(carrier.place)
        return len(job.tried) < len(self.servers)

    def _again(self, job: Job) -> None:
        if self._refuses_waiting:
            job.settle(MailerClosed("the mailer was closed before the message could go again"))
        if job.settled:
            return
        job.letter.rewind()
        self._queue.appendleft(job)
        self._watch_the_first()
        # Not from here: the connection it comes from is still saying good-bye.
        self.reactor.callLater(0, self._distribute)

    def cancel(self, job: Job, why: SendmailError | None = None) -> None:
        """Nobody waits for *job* any more.

        A message that waits is taken back.  One that is on its way alone takes its
        connection with it; one among others cannot be called back, and is in doubt.
        """
        error = why or Cancelled("cancelled")
        if job in self._queue:
            self._queue.remove(job)
            error.report = job.report(RecipientStatus.UNTOUCHED, error)
        elif job.carrier is None or not job.carrier.cancel(error):
            error.remedy = DeliveryInDoubt.remedy
            error.report = job.report(RecipientStatus.IN_DOUBT, error)
        job.settle(error)
        self._changed()

    # -- connections -------------------------------------------------------------

    def opened(self, carrier: PooledConnection) -> None:
        """A connection is ready."""
        self._status.ready(carrier.place, self.reactor.seconds() - carrier.began)
        self.share.among(len(self.fleet))
        self._beforehand.ready(self.fleet.count(*READY))
        self.log.debug("{pool}", pool=self)
        self.fleet.hunger(carrier)
        self._drop_overdue()
        self._distribute()

    def overdue(self, carrier: PooledConnection) -> None:
        """A connection takes long to be ready: it may go on, and others are tried."""
        self.fleet.move(carrier, Stage.OVERDUE)
        self._status.overdue(carrier.place)
        self.log.info(
            "{server}: the connection is not ready after {seconds:g} s",
            server=carrier.server,
            seconds=self.reactor.seconds() - carrier.began,
        )
        self._drop_overdue()
        self._distribute()

    def _drop_overdue(self) -> None:
        """Drop the overdue connections if enough others are ready."""
        if self.fleet.count(*READY) < max(1, self._beforehand.wanted):
            return
        if self._queue:
            tried = self._queue[0].tried
            if all(carrier.place in tried for carrier in self.fleet.of(*READY)):
                return
        for overdue in self.fleet.of(Stage.OVERDUE):
            overdue.abort()

    def not_opened(self, carrier: PooledConnection, error: Exception) -> None:
        """A connection could not be made ready: so it is for everybody who waits for it."""
        place = carrier.place
        self._remove(carrier)
        if not isinstance(error, SendmailError) or (
            # Refused credentials are remembered even so.
            (carrier.dropped or isinstance(error, CancelledError))
            and not isinstance(error, AuthenticationError)
        ):
            self._distribute()
            self._changed()
            return
        self.log.info("no connection to {server}: {error}", server=carrier.server, error=error)
        self._status.failed(place, error)
        if self.not_ready is not None:
            self.not_ready(carrier.server, error)
        open_here = self.fleet.open_at(place)
        if not open_here and self._may_succeed_after(carrier):
            self._changed()
            return
        if self._status.hopeless:
            self._beforehand.fail(error)
        if not open_here:  # else those that are open go on
            self._fail_waiting(place, error)
        for other in self.fleet.of(*NOT_READY):
            # It is older, and waits for what the newer one was refused.
            if other.place == place and (
                other.stage is Stage.OVERDUE or self._status.is_locked(place)
            ):
                other.abort()
        if not self.fleet.opening_at(place):
            self._status.series_over(place)
        if not open_here:
            self._distribute()
        self._changed()

    def _fail_waiting(self, place: int, error: SendmailError) -> None:
        """No message goes to this server: each that waits goes to another one, or fails."""
        waiting, self._queue = self._queue, deque()
        hopeless: list[Job] = []
        for job in waiting:
            job.tried |= {place}
            (hopeless if len(job.tried) == len(self.servers) else self._queue).append(job)
        for job in hopeless:
            job.settle(error.copy())

    def _may_succeed_after(self, failed: PooledConnection) -> bool:
        """Return whether a newer connection to the same server, or one in time, is opening."""
        place = failed.place
        if self._status.is_locked(place) or not self.fleet.opening_at(place):
            return False
        return any(
            other.place == place and (other.stage is Stage.OPENING or other.number > failed.number)
            for other in self.fleet.of(*NOT_READY)
        )

    def closing(self) -> None:
        """A connection takes no more messages; nobody waits until it is gone."""
        self._changed()

    def closed(self, carrier: PooledConnection) -> None:
        """A connection is gone."""
        self._remove(carrier)
        self._distribute()
        self._changed()

    def broken(self, failure: Failure, carrier: PooledConnection) -> None:
        """A connection failed with an unexpected error."""
        self.log.failure("a connection of {pool} broke down", failure, pool=self)
        if carrier in self.fleet and carrier.stage in NOT_READY:
            what, why = f"no connection to {carrier.server}", type(failure.value).__name__
            self.not_opened(carrier, ConnectFailed(what, detail=f"unexpected {why}"))
            return
        carrier.abort()
        if carrier in self.fleet:
            self.closed(carrier)

    def unlock(self) -> None:
        """Passwords that were refused may be tried again."""
        self._status.unlock()
        self._distribute()

    async def close(self, grace: float | None, *, send_waiting: bool) -> None:
        """Let messages under way end, then close; after *grace* seconds close at once.

        A connection without a message is closed at once: one that is opening as soon as
        no message waits.

        :param send_waiting: let out the messages that wait for a connection, too.
        """
        self._closing = True
        self._beforehand.fail(MailerClosed("the mailer was closed"))
        if not send_waiting:
            self._refuse_waiting()
        timer = None if grace is None else self.reactor.callLater(grace, self.abort)
        try:
            # A connection that is closing is not waited for.
            while self._queue or self.fleet.count(*NOT_READY, *READY):
                if not self._queue:
                    for opening in self.fleet.of(*NOT_READY):
                        opening.abort()
                    for carrier in self.fleet.of(*READY):
                        carrier.retire()
                    if not self.fleet.count(*NOT_READY, *READY):
                        break
                change: Deferred[None] = Deferred()
                self._watching.append(change)
                await change
        except BaseException:
            self.abort()
            raise
        finally:
            for call in (timer, self._next_token, self._impatience):
                if call is not None and call.active():
                    call.cancel()

    def connect(self, count: int) -> Deferred[None]:
        """Open connections until there are *count*; fires when so many are ready."""
        ready = self._beforehand.want(count)
        self._beforehand.ready(self.fleet.count(*READY))
        self._distribute()
        return ready

    def abort(self) -> None:
        """Close every connection at once; what waits is not sent."""
        self._closing = True
        self._refuse_waiting()
        for carrier in self.fleet:
            carrier.abort()
        self._changed()

    def _refuse_waiting(self) -> None:
        """Send no message that is on no connection."""
        self._refuses_waiting = True
        waiting, self._queue = self._queue, deque()
        for job in waiting:
            job.settle(MailerClosed("the mailer was closed before the message's turn"))

    # -- inside ------------------------------------------------------------------

    def _distribute(self) -> None:
        """Give what waits to connections that can take it, and open more if that is not enough."""
        if self._queue:
            # Who rested last first: the others may rest until they are not needed any more.
            for carrier in (*reversed(self.fleet.of(Stage.IDLE)), *self.fleet.hungry()):
                if not self._queue:
                    break
                carrier.nudge()
        while self._lacking():
            if not self._open_one():
                return
        self._replacement = None

    def _lacking(self) -> bool:
        """Would another connection be of use?"""
        count, waiting = self.fleet.count, len(self._queue)
        opening = count(Stage.OPENING)
        if count(*READY) + opening < self._beforehand.wanted:
            return True
        if opening >= waiting or self._next_token is not None:
            return False
        # They stand in line for their handshakes, or each takes at once all it may: more of
        # them would not be sooner.
        line = opening >= MAX_HANDSHAKES or self.limits.messages <= self.limits.window
        return not (line and opening and self._enough(waiting))

    def _open_one(self) -> bool:
        replacing = self._replacement is not None
        full = len(self.fleet) >= self.limits.connections
        if full and (replacing or not self.fleet.count(Stage.OVERDUE)):
            return False
        place = self._replacement if replacing else self._place()
        if place is None:
            return False
        crowded = not self._status.proven(place) and (
            self.fleet.opening_at(place) >= MAX_UNPROVEN_OPENING
        )
        if full or crowded:
            if not replacing:
                self._make_room(place, anywhere=not crowded)
            return False
        self._replacement = None
        if not (replacing or self.fleet.count(*NOT_READY)):
            for each in range(len(self.servers)):
                self._status.series_over(each)
        self._opened_so_far += 1
        carrier = PooledConnection(self, self.servers[place], place, self._opened_so_far)
        self.fleet.add(carrier)
        carrier.start(self._status.attempt(place))
        return True

    def _make_room(self, place: int, *, anywhere: bool) -> None:
        """Drop the oldest overdue connection for one to *place*, which is opened when it is gone."""
        for overdue in self.fleet.of(Stage.OVERDUE):
            if anywhere or overdue.place == place:
                self._replacement = place
                overdue.abort()
                return

    def _enough(self, waiting: int) -> bool:
        """Can the connections there are and will be take all that is *waiting*?"""
        each = self.limits.messages
        left = waiting - each * self.fleet.count(Stage.OPENING)
        return left <= 0 or left <= sum(
            each - carrier.taken for carrier in self.fleet.of(Stage.LEASED)
        )

    def _place(self) -> int | None:
        """Return the server to connect to; None if there is none to connect to now."""
        every = range(len(self.servers))
        places: Sequence[int] = every
        while self._queue:
            job = self._queue[0]
            places = [place for place in every if place not in job.tried]
            if not self._all_locked(places) or any(map(self.fleet.open_at, places)):
                break
            self._queue.popleft()
            job.settle(self._status.refusal)
            places = every
        if not self._queue and self._all_locked(every):
            self._beforehand.fail(self._status.refusal)
        for place in self._status.preferred(places):
            if self._may_attempt(place):
                return place
            if not self._status.is_passed_over(place):
                return None  # the connection that is opening there is in time
        return None

    def _all_locked(self, places: Sequence[int]) -> bool:
        return all(map(self._status.is_locked, places))

    def _may_attempt(self, place: int) -> bool:
        status, fleet = self._status, self.fleet
        if self._queue and status.is_passed_over(place) and fleet.open_at(place):
            return False  # those that are open go on
        return not fleet.count(*NOT_READY) or status.may_attempt(place)

    def _remove(self, carrier: PooledConnection) -> None:
        self.fleet.remove(carrier)
        if not self.fleet.open_at(carrier.place):
            self._status.unproven(carrier.place)
        self.share.among(len(self.fleet))

    def _token(self) -> None:
        self._next_token = None
        self._distribute()

    def _watch_the_first(self) -> None:
        """The first in the queue waits longest: one timer is enough, and it may come for nothing."""
        if self._queue and self._impatience is None and self.limits.wait is not None:
            due = self._queue[0].since + self.limits.wait - self.reactor.seconds()
            self._impatience = self.reactor.callLater(max(0.0, due), self._too_long)

    def _too_long(self) -> None:
        self._impatience = None
        wait = self.limits.wait or 0
        now = self.reactor.seconds()
        while self._queue and self._queue[0].since + wait <= now:
            job = self._queue.popleft()
            error = SendTimeout(f"no connection was free for the message within {wait:g} s")
            error.report = job.report(RecipientStatus.UNTOUCHED, error)
            job.settle(error)
        self._watch_the_first()
        self._changed()

    def _changed(self) -> None:
        """Let :meth:`close` see whether it is over."""
        if not self.fleet:
            self.deserted()
        watching, self._watching = self._watching, []
        for waiting in watching:
            waiting.callback(None)

    def __str__(self) -> str:
        counts = [f"{self.fleet.count(stage)} {stage.value}" for stage in READY]
        counts.append(f"{self.fleet.count(*NOT_READY)} opening")
        return f"{self.servers[0]}: {', '.join(counts)}, {self.waiting} waiting"
