"""One connection of a pool, from its opening to its end.

It takes jobs from the pool as long as there are any and its bounds allow, keeps the
connection while there is nothing to do, and retires.  Whether it lives is known from
the connection's end, never asked.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.pipeline import Pipeline
from twisted_sendmail.client.transaction import split_recipients
from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.client.pool import Job, Pool
    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.server_status import ServerStatus
    from twisted_sendmail.smtp import DeliveryReport


#: Seconds with nothing to do after which a connection may be dead without our knowing: the
#: next content waits for the reply to its envelope, so that the message can go elsewhere.
STALE = 5.0


class ConnectionState(enum.Enum):
    """State of a pool's connection."""

    __hash__ = object.__hash__  # by identity, and cheap

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
        #: Messages taken, and the transactions that they are.
        self.taken = self._transactions = 0
        #: Messages that the server accepted or refused.
        self.verdicts = 0
        self._protocol: SubmissionProtocol | None = None
        self._flow: Pipeline | None = None
        # The server's LIMITS (RFC 9422).
        self._server_limits: Mapping[str, int] = {}
        self._born = 0.0
        # Fires when it is to be closed, and nothing is under way.
        self._over: Deferred[None] = Deferred()
        self._resting_since = 0.0
        self._impatience: IDelayedCall | None = None
        self._retiring = False
        self._running: Deferred[None] | None = None
        #: When it began to open.
        self.began = pool.reactor.seconds()
        self._overdue: IDelayedCall | None = None

    @property
    def dropped(self) -> bool:
        """Was it told to end?"""
        return self._retiring

    def start(self, overdue: float) -> None:
        """Open the connection and carry what there is.

        :param overdue: seconds after which the pool is told that it is not ready yet.
        """
        pool = self._pool
        self._overdue = pool.reactor.callLater(overdue, pool.overdue, self)
        self._running = Deferred.fromCoroutine(self._run())
        _ = self._running.addErrback(self._pool.broken, self)

    def nudge(self) -> None:
        """There may be something to do."""
        flow = self._flow
        if flow is None:
            return
        if self.state is ConnectionState.LEASED:
            flow.fill()
        elif self.state is ConnectionState.IDLE:
            if self._pool.reactor.seconds() - self._resting_since >= STALE:
                flow.stale = True
            self._pool.moved(self, ConnectionState.LEASED)
            flow.fill()
            if not flow.inflight:
                self._emptied()

    def retire(self) -> None:
        """Take nothing more, and close when what is under way is done."""
        self._retiring = True
        if self.state is ConnectionState.IDLE:
            self._end()

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
            self._protocol = protocol = await open_session(pool.reactor, self.status.server)
        except (SendmailError, CancelledError) as error:
            pool.not_opened(self, error)
            return
        finally:
            if self._overdue is not None and self._overdue.active():
                self._overdue.cancel()
        self._born = pool.reactor.seconds()
        self._server_limits = protocol.session.capabilities.limits
        self._flow = flow = Pipeline(
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
        if not flow.inflight:
            self._emptied()
        await self._over
        if self._impatience is not None:
            self._impatience.cancel()
        pool.moved(self, ConnectionState.CLOSING)
        protocol.leave()
        pool.closing()
        try:
            await protocol.lost()
        finally:
            pool.closed(self)

    def _emptied(self) -> None:
        """Nothing is under way: take something, wait for something, or end."""
        pool, flow = self._pool, self._flow
        while flow is not None and not flow.inflight:
            taken = self.taken
            if not self._fresh():
                self._end()
                return
            if pool.has_work_for(self):
                flow.fill()
            if taken == self.taken:
                self._rest()
                return

    def _rest(self) -> None:
        """Wait for something to do, but not for ever."""
        pool = self._pool
        self._resting_since = pool.reactor.seconds()
        pool.moved(self, ConnectionState.IDLE)
        # It rests behind every message that comes alone: one timer serves for many rests.
        if self._impatience is None:
            self._impatience = pool.reactor.callLater(pool.limits.idle, self._rested)

    def _rested(self) -> None:
        self._impatience = None
        if self.state is not ConnectionState.IDLE:
            return
        pool = self._pool
        left = self._resting_since + pool.limits.idle - pool.reactor.seconds()
        if left > 0:
            self._impatience = pool.reactor.callLater(left, self._rested)
        else:
            self.retire()

    def _end(self) -> None:
        if not self._over.called:
            self._over.callback(None)

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
            and self.taken < self._pool.limits.messages
            and self._transactions_left > 0
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
            job.connection, job.verdicts_before = self, self.verdicts
            job.taken_at = now
            if self._server_limits:
                self._keep_within_limits(job)
        return job

    @property
    def _transactions_left(self) -> float:
        return self._server_limits.get("MAILMAX", math.inf) - self._transactions

    def _keep_within_limits(self, job: Job) -> None:
        """Count the transactions of *job*; let those that are too many go over other connections."""
        letter, parts = job.letter, 1
        if letter.rewindable and not job.all_or_nothing:
            split_up = split_recipients(letter.envelope.recipients, self._server_limits)
            parts = len(split_up)
            if parts > self._transactions_left:
                parts = int(self._transactions_left)
                job.narrow(sum(map(len, split_up[:parts])))
        self._transactions += parts

    def _done(self, job: Any, result: DeliveryReport | Failure | None) -> None:
        job.connection = None
        if result is not None and not isinstance(result, Failure) and result.error is None:
            self.verdicts += 1
        self._pool.done(self, job, result)
