"""Connections and the messages that wait for them.

Connections are counted by stage when they change it, and messages are given to one
the moment it can take them.  A failure to open is everybody's who waits for it: it is
not tried anew for each.  A password that was refused is not tried again until told.

What was accepted stays accepted; what is in doubt is never sent again from here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.flow import Share
from twisted_sendmail.client.handshake_gate import ABREAST
from twisted_sendmail.mailer.beforehand import Beforehand
from twisted_sendmail.mailer.carrier import Carrier
from twisted_sendmail.mailer.fleet import READY, Fleet, Stage
from twisted_sendmail.mailer.rate import TokenBucket
from twisted_sendmail.mailer.standing import Standing, copied
from twisted_sendmail.smtp.errors import (
    ConnectionFailed,
    MailerBusy,
    MailerClosed,
    ProtocolBreach,
    SendTimeout,
)
from twisted_sendmail.smtp.outcome import DeliveryReport, Status
from twisted_sendmail.smtp.root_error import SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.mailer.job import Job
    from twisted_sendmail.mailer.limits import PoolLimits
    from twisted_sendmail.mailer.submission_server import SubmissionServer

#: How often a message is given back unheard before there must be something wrong.
RETURNS = 3


class Pool:
    """The connections to *servers*, best first."""

    log = Logger(namespace="twisted_sendmail.mailer")

    def __init__(
        self, reactor: Any, servers: Sequence[SubmissionServer], limits: PoolLimits
    ) -> None:
        self.reactor = reactor
        self.servers = tuple(servers)
        self.limits = limits
        self.share = Share(limits.octets)
        self._standing = Standing(reactor, len(self.servers))
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
        # A connection was opened since the last failure: more may be opened at once.
        self._proven = False
        self._closing = self._aborted = False
        self._watching: list[Deferred[None]] = []

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

    def has_work_for(self, carrier: Carrier) -> bool:
        """Is there a job *carrier* could take now?"""
        allowed = self._next_token is None
        return allowed and any(carrier.place not in job.tried for job in self._queue)

    def take(self, carrier: Carrier) -> Job | None:
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

    def done(self, carrier: Carrier, job: Job, result: DeliveryReport | Failure | None) -> None:
        """*carrier* is through with *job*: settle it, or let it go to another connection."""
        if isinstance(result, Failure):
            job.settle(result)
        elif result is None and job.returned >= RETURNS:
            error = ProtocolBreach(f"{carrier.server} hears of no message behind another")
            error.report = job.report(Status.UNTOUCHED, error)
            job.settle(error)
        elif result is None:
            job.returned += 1
            self._again(job)
        elif self._may_go_again(carrier, job, result):
            self._again(job)
        else:
            job.settle(result)
        self._changed()

    def _may_go_again(self, carrier: Carrier, job: Job, report: DeliveryReport) -> bool:
        died = isinstance(report.error, (ConnectionFailed, ProtocolBreach))
        if not died or not report.resendable or not job.letter.rewindable:
            return False
        if carrier.heard > job.begun_at:
            return True  # others got through before it: a limit of the server, or bad luck
        if carrier.heard and not job.replaced:
            # A connection that had served before may have been dead already; once.
            job.replaced = True
            return True
        job.tried |= {carrier.place}
        self._standing.shun(carrier.place)
        return len(job.tried) < len(self.servers)

    def _again(self, job: Job) -> None:
        if self._aborted:
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
            error.report = job.report(Status.UNTOUCHED, error)
        elif job.carrier is None or not job.carrier.cancel(error):
            error.remedy = "the message may have been delivered"
            error.report = job.report(Status.IN_DOUBT, error)
        job.settle(error)
        self._changed()

    # -- connections -------------------------------------------------------------

    def opened(self, carrier: Carrier) -> None:
        """A connection is ready."""
        self._proven = True
        self._standing.ready(carrier.place)
        self.share.among(len(self.fleet))
        self._beforehand.ready(self.fleet.count(*READY))
        self.log.debug("{pool}", pool=self)
        self.fleet.hunger(carrier)
        self._distribute()

    def not_opened(self, carrier: Carrier, error: Exception) -> None:
        """A connection could not be made ready: so it is for everybody who waits for it."""
        self._remove(carrier)
        place = carrier.place
        if not isinstance(error, SendmailError) or isinstance(error, CancelledError):
            self._changed()
            return
        self.log.info("no connection to {server}: {error}", server=carrier.server, error=error)
        self._proven = False
        self._standing.failed(place, error)
        if self.not_ready is not None:
            self.not_ready(carrier.server, error)
        if self._standing.hopeless:
            self._beforehand.fail(error)
        if self.fleet.open_at(place):
            return  # those that are open go on
        waiting, self._queue = self._queue, deque()
        hopeless: list[Job] = []
        for job in waiting:
            job.tried |= {place}
            (hopeless if len(job.tried) == len(self.servers) else self._queue).append(job)
        for job in hopeless:
            job.settle(copied(error))
        self._distribute()
        self._changed()

    def closed(self, carrier: Carrier) -> None:
        """A connection is gone."""
        self._remove(carrier)
        self._distribute()
        self._changed()

    def broken(self, failure: Failure, carrier: Carrier) -> None:
        """A carrier failed in a way nobody thought of."""
        self.log.failure("a connection of {pool} broke down", failure, pool=self)
        carrier.abort()
        if carrier in self.fleet:
            self.closed(carrier)

    def unlock(self) -> None:
        """Passwords that were refused may be tried again."""
        self._standing.unlock()
        self._distribute()

    async def close(self, grace: float | None) -> None:
        """Let out what waits, then close; after *grace* seconds close at once."""
        self._closing = True
        self._beforehand.fail(MailerClosed("the mailer was closed"))
        timer = None if grace is None else self.reactor.callLater(grace, self.abort)
        try:
            while self._queue or self.fleet:
                if not self._queue:
                    for carrier in self.fleet.of(Stage.OPENING, *READY):
                        carrier.retire()
                    if not self.fleet:
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
        self._closing = self._aborted = True
        waiting, self._queue = self._queue, deque()
        for job in waiting:
            job.settle(MailerClosed("the mailer was closed before the message's turn"))
        for carrier in self.fleet:
            carrier.abort()
        self._changed()

    # -- inside ------------------------------------------------------------------

    def _distribute(self) -> None:
        """Give what waits to connections that can take it, and open more if that is not enough."""
        if self._queue:
            # Who rested last first: the others may rest until they are not needed any more.
            for carrier in (*reversed(self.fleet.of(Stage.IDLE)), *self.fleet.hungry()):
                if not self._queue:
                    break
                carrier.nudge()
        while self._lacking() and self._open_one():
            pass

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
        line = opening >= ABREAST or self.limits.messages <= self.limits.window
        return not (line and opening and self._enough(waiting))

    def _open_one(self) -> bool:
        if len(self.fleet) >= self.limits.connections:
            return False
        if self.fleet.count(Stage.OPENING) and not self._proven:
            return False  # one must get through before more knock
        place = self._place()
        if place is None or (
            self._queue and self._standing.is_shunned(place) and self.fleet.open_at(place)
        ):
            return False
        carrier = Carrier(self, self.servers[place], place)
        self.fleet.add(carrier)
        carrier.start()
        return True

    def _enough(self, waiting: int) -> bool:
        """Can the connections there are and will be take all that is *waiting*?"""
        each = self.limits.messages
        left = waiting - each * self.fleet.count(Stage.OPENING)
        return left <= 0 or left <= sum(
            each - carrier.taken for carrier in self.fleet.of(Stage.LEASED)
        )

    def _place(self) -> int | None:
        """Which server to connect to; None when the jobs that wait can go nowhere now."""
        while self._queue:
            job = self._queue[0]
            places = [p for p in range(len(self.servers)) if p not in job.tried]
            best = self._standing.best(places)
            if best is not None:
                return best
            if any(map(self.fleet.open_at, places)):
                return None  # those that are open go on
            self._queue.popleft()
            job.settle(self._standing.refusal)
        best = self._standing.best(range(len(self.servers)))
        if best is None:
            self._beforehand.fail(self._standing.refusal)
        return best

    def _remove(self, carrier: Carrier) -> None:
        self.fleet.remove(carrier)
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
            error.report = job.report(Status.UNTOUCHED, error)
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
        counts = [f"{self.fleet.count(stage)} {stage.value}" for stage in (*READY, Stage.OPENING)]
        return f"{self.servers[0]}: {', '.join(counts)}, {self.waiting} waiting"
