"""One connection of a pool, from its opening to its end.

It takes jobs from the pool as long as there are any and its bounds allow, keeps the
connection while there is nothing to do, and retires.  Whether it lives is known from
the connection's end, never asked.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client.flow import Flow
from twisted_sendmail.client.opening import open_session
from twisted_sendmail.smtp.root_error import SendmailError

if TYPE_CHECKING:
    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.mailer.job import Job
    from twisted_sendmail.mailer.pool import Pool
    from twisted_sendmail.mailer.submission_server import SubmissionServer
    from twisted_sendmail.smtp.outcome import DeliveryReport


#: Seconds with nothing to do after which a connection may be dead without our knowing: the
#: next content waits for the reply to its envelope, so that the message can go elsewhere.
STALE = 5.0


class Stage(enum.Enum):
    """What a carrier is counted as."""

    __hash__ = object.__hash__  # by identity, and cheap

    OPENING = "opening"
    IDLE = "idle"
    LEASED = "leased"
    CLOSING = "closing"


class Carrier:
    """One connection to *server*, which is number *place* in the pool's list."""

    def __init__(self, pool: Pool, server: SubmissionServer, place: int) -> None:
        self._pool = pool
        self.server = server
        self.place = place
        self.stage = Stage.OPENING
        #: Messages taken.
        self.taken = 0
        #: Messages whose verdict was heard.
        self.heard = 0
        self._protocol: SubmissionProtocol | None = None
        self._flow: Flow | None = None
        self._most = pool.limits.messages
        self._born = 0.0
        self._wake: Deferred[None] | None = None
        self._retiring = False
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Open the connection and carry what there is."""
        self._running = Deferred.fromCoroutine(self._run())
        _ = self._running.addErrback(self._pool.broken, self)

    def nudge(self) -> None:
        """There may be something to do."""
        if self.stage is Stage.IDLE:
            self._pool.move(self, Stage.LEASED)
            wake, self._wake = self._wake, None
            if wake is not None:
                wake.callback(None)
        elif self.stage is Stage.LEASED and self._flow is not None:
            self._flow.fill()

    def retire(self) -> None:
        """Take nothing more, and close when what is under way is done."""
        self._retiring = True
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def abort(self) -> None:
        """Close at once; what is under way fails, or is in doubt."""
        self._retiring = True
        if self._protocol is not None:
            self._protocol.abort()
        elif self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        pool = self._pool
        try:
            self._protocol = protocol = await open_session(
                pool.reactor, self.server.connector(pool.reactor), self.server.opening()
            )
        except (SendmailError, CancelledError) as error:
            pool.not_opened(self, error)
            return
        self._born = pool.reactor.seconds()
        self._most = min(
            pool.limits.messages, protocol.session.capabilities.limits.get("MAILMAX", self._most)
        )
        self._flow = flow = Flow(
            protocol,
            self._take,
            self._done,
            depth=pool.limits.window,
            octets=pool.limits.window_octets,
        )
        _ = protocol.lost().addCallback(lambda _: self.retire())
        pool.move(self, Stage.LEASED)
        pool.opened(self)
        while self._fresh():
            flow.fill()
            await flow.drained()
            if self._fresh() and not await self._idled():
                break
        # Its last message may have begun before the loop did.
        await flow.drained()
        pool.move(self, Stage.CLOSING)
        try:
            await protocol.close()
        finally:
            pool.closed(self)

    async def _idled(self) -> bool:
        """Wait for something to do; False when it took too long, or it is over."""
        pool = self._pool
        if pool.has_work_for(self):
            return True
        pool.move(self, Stage.IDLE)
        wake: Deferred[None] = Deferred()
        self._wake = wake
        timer = pool.reactor.callLater(pool.limits.idle, self.retire)
        since = pool.reactor.seconds()
        try:
            await wake
        finally:
            if timer.active():
                timer.cancel()
        if self._flow is not None and pool.reactor.seconds() - since >= STALE:
            self._flow.stale = True
        return not self._retiring

    def _fresh(self) -> bool:
        """Good for another message?"""
        return self._good_at(self._pool.reactor.seconds())

    def _good_at(self, now: float) -> bool:
        protocol, flow = self._protocol, self._flow
        return (
            not self._retiring
            and protocol is not None
            and protocol.usable
            and not (flow is not None and flow.spoiled)
            and self.taken < self._most
            and now - self._born < self._pool.limits.age
        )

    def cancel(self, why: SendmailError) -> bool:
        """Close the connection for the sake of the one message on it; False if there are more."""
        if self._flow is None or self._flow.inflight != 1 or self._protocol is None:
            return False
        self._protocol.abort(why)
        return True

    def _take(self) -> Job | None:
        now = self._pool.reactor.seconds()
        job = self._pool.take(self) if self._good_at(now) else None
        if job is not None:
            self.taken += 1
            job.carrier, job.begun_at = self, self.heard
            job.begun_time = now
        return job

    def _done(self, job: Any, result: DeliveryReport | Failure | None) -> None:
        job.carrier = None
        if result is not None and not isinstance(result, Failure) and result.error is None:
            self.heard += 1
        self._pool.done(self, job, result)
