"""One connection of a pool, from its opening to its end.

It takes jobs from the pool as long as there are any and its limits allow, stays open while there is
nothing to do, and closes.  That a connection is dead is known from its end; there is no NOOP.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.pipeline import Pipeline
from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.client.job import Job
    from twisted_sendmail.client.pool import Pool
    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.server_status import ServerStatus
    from twisted_sendmail.smtp import DeliveryReport


#: Seconds with nothing to do after which a connection may have died unnoticed: the next content waits
#: for the replies to its envelope, so that the message can go over another connection.
STALE_SECONDS = 5.0


class ConnectionState(enum.Enum):
    """State of a pool's connection."""

    __hash__ = object.__hash__  # by identity, which is cheap

    OPENING = "opening"
    #: Still opening, and others are tried besides.
    OVERDUE = "overdue"
    IDLE = "idle"
    LEASED = "leased"
    CLOSING = "closing"


class PooledConnection:
    """One connection to the server of *status*.

    :param number: counts the connections of the pool.
    """

    def __init__(self, pool: Pool, status: ServerStatus, number: int) -> None:
        self._pool = pool
        self.number = number
        self.status = status
        self.state = ConnectionState.OPENING
        #: It takes no more jobs.
        self.retiring = False
        #: Messages taken.
        self.taken = 0
        #: Messages that the server accepted or refused.
        self.verdicts = 0
        #: When it began to open.
        self.began = pool.reactor.seconds()
        self._opened_at = self._idle_since = 0.0
        self._running: Deferred[None] | None = None
        self._overdue: IDelayedCall | None = None
        self._idle_limit: IDelayedCall | None = None
        self._protocol: SubmissionProtocol | None = None
        self._pipeline: Pipeline | None = None
        # Fires when it is to be closed and no message is in flight.
        self._over: Deferred[None] = Deferred()

    def start(self, overdue: float) -> None:
        """Open the connection; after *overdue* seconds the pool is called if it is not ready."""
        pool = self._pool
        self._overdue = pool.reactor.callLater(overdue, pool.overdue, self)
        self._running = Deferred.fromCoroutine(self._run())
        _ = self._running.addErrback(pool.broken, self)

    async def _run(self) -> None:
        pool = self._pool
        try:
            self._protocol = protocol = await open_session(pool.reactor, self.status.server)
        except (SendmailError, CancelledError) as error:
            pool.not_opened(self, error)
            return
        finally:
            if self._overdue is not None and self._overdue.active():
                self._overdue.cancel()
        self._opened_at = pool.reactor.seconds()
        self._pipeline = pipeline = Pipeline(
            protocol,
            self._take,
            self._done,
            self._emptied,
            lambda: pool.has_room(self),
            depth=pool.limits.window,
            octets=pool.limits.window_octets,
            share=pool.share,
            pipeline_after_data=pool.limits.pipeline_after_data,
        )
        _ = protocol.lost().addCallback(lambda _: self.retire())
        pool.moved(self, ConnectionState.LEASED)
        pool.opened(self)
        if not pipeline.inflight:
            self._emptied()
        await self._over
        if self._idle_limit is not None:
            self._idle_limit.cancel()
        pool.moved(self, ConnectionState.CLOSING)
        protocol.leave()
        pool.changed()
        try:
            await protocol.lost()
        finally:
            pool.closed(self)

    def take_jobs(self) -> None:
        """Take jobs, if there are any."""
        pipeline = self._pipeline
        if pipeline is None:
            return
        if self.state is ConnectionState.LEASED:
            pipeline.fill()
        elif self.state is ConnectionState.IDLE:
            pipeline.stale = self._pool.reactor.seconds() - self._idle_since >= STALE_SECONDS
            self._pool.moved(self, ConnectionState.LEASED)
            pipeline.fill()
            if not pipeline.inflight:
                self._emptied()

    def retire(self) -> None:
        """Take no more jobs, and close when no message is in flight."""
        self.retiring = True
        if self.state is ConnectionState.IDLE:
            self._end()

    def abort(self) -> None:
        """Close at once; messages in flight fail, or are in doubt."""
        self.retiring = True
        if self._protocol is not None:
            self._protocol.abort()
        elif self._running is not None:
            self._running.cancel()

    def cancel(self, why: SendmailError) -> bool:
        """Close the connection if it has one message only; return whether it did."""
        if self._protocol is None or self._pipeline is None or self._pipeline.inflight != 1:
            return False
        self._protocol.abort(why)
        return True

    def _emptied(self) -> None:
        """No message is in flight: take another, become idle, or end."""
        pool, pipeline = self._pool, self._pipeline
        while pipeline is not None and not pipeline.inflight:
            if not self._usable_at(pool.reactor.seconds()):
                self._end()
                return
            taken = self.taken
            pipeline.fill()
            if taken == self.taken:
                self._idle_since = pool.reactor.seconds()
                pool.moved(self, ConnectionState.IDLE)
                # One timer serves for many idle times: messages often come one by one.
                if self._idle_limit is None:
                    self._idle_limit = pool.reactor.callLater(pool.limits.idle, self._idle_over)
                return

    def _idle_over(self) -> None:
        self._idle_limit = None
        if self.state is not ConnectionState.IDLE:
            return
        pool = self._pool
        left = self._idle_since + pool.limits.idle - pool.reactor.seconds()
        if left > 0:
            self._idle_limit = pool.reactor.callLater(left, self._idle_over)
        else:
            self.retire()

    def _end(self) -> None:
        if not self._over.called:
            self._over.callback(None)

    @property
    def may_begin_transaction(self) -> bool:
        """Whether the session and the server's MAILMAX allow another transaction."""
        protocol, pipeline = self._protocol, self._pipeline
        return (
            protocol is not None
            and protocol.usable
            and pipeline is not None
            and not pipeline.rejected_pipelining
            and pipeline.transactions_left > 0
        )

    def _usable_at(self, now: float) -> bool:
        """Return whether the connection may take another message."""
        return (
            not self.retiring
            and self.may_begin_transaction
            and self.taken < self._pool.limits.messages
            and now - self._opened_at < self._pool.limits.age
        )

    def _take(self) -> Job | None:
        now = self._pool.reactor.seconds()
        job = self._pool.take(self) if self._usable_at(now) else None
        if job is not None:
            self.taken += 1
            job.connection, job.verdicts_before = self, self.verdicts
            job.taken_at = now
        return job

    def _done(self, job: Job, result: DeliveryReport | Failure | None) -> bool:
        job.connection = None
        if result is not None and not isinstance(result, Failure) and result.error is None:
            self.verdicts += 1
        goes_on = self._pool.done(self, job, result)
        if goes_on:
            job.connection, job.verdicts_before = self, self.verdicts
        return goes_on
