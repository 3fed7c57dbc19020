"""Connections to the servers of a mailer, and the messages that wait for them.

A message is a :class:`Job`.  Jobs wait in one queue; a connection takes one the moment it can send
it, as far as the rate allows.  Connections are opened as long as more jobs wait than connections are
opening, up to ``PoolLimits.connections``, and are kept for a while when they have nothing to do.

States of a connection::

    OPENING ──ready──> LEASED <──> IDLE ──> CLOSING ──> gone
       │ overdue          ^
       └────> OVERDUE ────┘

- An error while a connection opens is the error of every job that waits for its server; it is not
  repeated for each of them.  Refused credentials are not tried again until :meth:`Pool.unlock`.
- A connection that is not ready in time, OVERDUE, does not delay the jobs: another one is opened, to
  the next server if there is one, as :mod:`~twisted_sendmail.client.server_status` allows.  It is
  dropped when enough others are ready, or when a new one takes its place.
- A job that a connection did not send is sent over another one only if the first connection died,
  the server cannot have the message for any recipient, and the message can be read again.  That
  happens once if the connection had served before; if it had not, the server counts as tried.
- An accepted message is never sent again, and neither is a message in doubt.
- Closing waits for connections that send a message, and no longer for any other.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.delivery_job import Following, Job, JobResult
from twisted_sendmail.client.server_status import MAX_UNPROVEN_OPENING, ServerStatus
from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.client.tls import MAX_HANDSHAKES
from twisted_sendmail.client.transaction import Transaction
from twisted_sendmail.smtp import (
    AuthenticationError,
    ChunkingFailure,
    CommandNotAllowed,
    ConnectFailed,
    ConnectionFailed,
    DeliveryInDoubt,
    DeliveryReport,
    MailerBusy,
    MailerClosed,
    ProtocolBreach,
    RecipientStatus,
    SendmailError,
    SendTimeout,
    check_flag,
    check_positive,
)
from twisted_sendmail.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.server_config import SubmissionServer
    from twisted_sendmail.smtp import ClientSession

_log = Logger(namespace="twisted_sendmail.client")


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


READY = (ConnectionState.IDLE, ConnectionState.LEASED)
NOT_READY = (ConnectionState.OPENING, ConnectionState.OVERDUE)
#: Times that a server may reject a message because of the message before it.
MAX_RETURNS = 3


def _limit(default: float | None, *, whole: bool = False) -> Any:
    """Make a field for a number above zero; None is allowed if it is the default."""

    def check(_: object, attribute: Any, value: Any) -> None:
        if value is None and (default is None or attribute.name == "wait"):
            return
        give = f"{'a whole number' if whole else 'a number'} above zero"
        check_positive(f"the limit '{attribute.name}'", value, give, whole=whole)

    return field(default=default, validator=check)


def _true_or_false(_: object, attribute: Any, value: object) -> None:
    check_flag(attribute.name, value)


@frozen
class PoolLimits:
    """Limits of a mailer.

    :raises InvalidInput: for zero or less, a fraction of something whole, or an option that
        is neither True nor False.
    """

    #: Connections open or opening at once.
    connections: int = _limit(4, whole=True)
    #: Messages over one connection; a server's MAILMAX (RFC 9422) counts if it is less.
    messages: int = _limit(1000, whole=True)
    #: Seconds a connection is used for new messages.
    age: float = _limit(300.0)
    #: Seconds a connection is kept open with nothing to do.
    idle: float = _limit(30.0)
    #: Messages waiting for a connection; more are refused, or held back by ``send_many``.
    waiters: int = _limit(10_000, whole=True)
    #: Seconds a message waits for a connection; None: as long as its own deadline allows.
    wait: float | None = _limit(600.0)
    #: Messages in doubt at once on a connection; 1: never more than one.
    window: int = _limit(8, whole=True)
    #: Octets in doubt at once on a connection; a larger message goes alone.
    window_octets: int = _limit(1024 * 1024, whole=True)
    #: Octets in doubt at once over all connections; each may have one message even so.
    octets: int = _limit(8 * 1024 * 1024, whole=True)
    #: With DATA, write the envelope of the next message right after the final dot, before its
    #: reply: one round trip a message instead of two.  RFC 2920 allows it, but there are servers
    #: that lose what follows the dot, hang, or crash; only for a server known to be right.
    pipeline_after_data: bool = field(default=False, validator=_true_or_false)
    #: Messages a second over all connections; None for no limit.
    rate: float | None = _limit(None)
    #: Messages that may go out at once before the rate is felt.
    burst: int = _limit(1, whole=True)


class Pool:
    """The connections to *servers*, best first.

    :param on_not_ready: called with each server that no connection could be made ready to, and
        why, whether or not there is another server.
    :param on_empty: called when there is no connection any more.
    """

    def __init__(
        self, reactor: Any, servers: Iterable[SubmissionServer], limits: PoolLimits
    ) -> None:
        self.reactor = reactor
        self.limits = limits
        #: Octets that each connection may have in flight.
        self.octets_each = limits.octets
        self.on_not_ready: Callable[[SubmissionServer, SendmailError], None] | None = None
        self.on_empty: Callable[[], None] = lambda: None
        #: Jobs with an accepted recipient, and the other jobs that have ended.
        self.accepted = self.failed = 0
        self._servers = [ServerStatus(server) for server in servers]
        self._queue: deque[Job] = deque()
        # Ordered sets: the connection that changed its state last is last.
        self._by_state: dict[ConnectionState, dict[PooledConnection, None]] = {
            state: {} for state in ConnectionState
        }
        self._size = 0
        #: Connections that were opened, or tried to be.
        self.attempted = 0
        # Leased connections that can take another message; the others are not asked.
        self._with_capacity: dict[PooledConnection, None] = {}
        # The server of the connection that takes the place of a dropped one, until that is gone.
        self._replacement: ServerStatus | None = None
        # Numbers of ready connections that ``connect`` waits for.
        self._awaited: list[tuple[int, Deferred[None]]] = []
        # When so many were ready that ``connect`` waited for.
        self._connected_at = -math.inf
        self._bucket = TokenBucket(reactor, limits.rate, limits.burst)
        self._next_token: IDelayedCall | None = None
        self._wait_limit: IDelayedCall | None = None
        self._redistribution: IDelayedCall | None = None
        self._distributing = self._distribution_due = False
        #: The session whose results are being passed on.
        self.settling: SubmissionProtocol | None = None
        self._refusal: SendmailError | None = None
        #: A connection has ever been ready.
        self.was_ready = False
        self._closing = False
        # While closing: jobs that no connection has taken are not sent any more.
        self._drops_waiting = False
        self._watching: list[Deferred[None]] = []

    def change_limits(self, limits: PoolLimits) -> None:
        """Use *limits* from now on; connections beyond them close when their messages have ended."""
        self.limits = limits
        self._divide_octets()
        self._bucket.change(limits.rate, limits.burst)
        if self._next_token is not None:
            self._next_token.cancel()
            self._next_token = None
        staying = [each for each in self._in(*NOT_READY, *READY) if not each.retiring]
        for connection in staying[: max(0, len(staying) - limits.connections)]:
            if connection.state in NOT_READY:
                connection.abort()
            else:
                connection.retire()
        self._distribute()

    @property
    def waiting(self) -> int:
        """Messages that wait for a connection."""
        return len(self._queue)

    def count(self, *states: ConnectionState) -> int:
        """Return the number of connections in *states*."""
        return sum([len(self._by_state[state]) for state in states])

    def _in(self, *states: ConnectionState) -> list[PooledConnection]:
        return [connection for state in states for connection in self._by_state[state]]

    # -- jobs --------------------------------------------------------------------

    def add(self, jobs: Iterable[Job]) -> None:
        """Send *jobs* as soon as connections can take them."""
        for job in jobs:
            if self._refusal is not None:
                self._settle(job, self._refusal.copy())
            elif len(self._queue) >= self.limits.waiters:
                error = MailerBusy(f"{self.limits.waiters} messages are waiting already")
                self._settle(job, error)
            else:
                self._queue.append(job)
        self._distribute()
        self._limit_waiting()

    def refuse(self, error: SendmailError) -> None:
        """Fail every job that is added from now on with a copy of *error*."""
        self._refusal = error

    def cancel(self, job: Job) -> None:
        """End *job*, whose result is not wanted any more.

        A message that waits is not sent.  A message that is alone on its connection ends the
        connection; a message among others cannot be taken back, and is in doubt.
        """
        error = Cancelled("cancelled")
        if job in self._queue:
            self._queue.remove(job)
            error.report = job.report(RecipientStatus.UNTOUCHED, error)
        elif job.end_connection is None or not job.end_connection(error):
            error.remedy = DeliveryInDoubt.remedy
            error.report = job.report(RecipientStatus.IN_DOUBT, error)
        self._settle(job, error)
        self.changed()

    def _settle(self, job: Job, result: JobResult) -> None:
        """End *job* with *result*, if it has not ended."""
        on_result, job.on_result = job.on_result, None
        if on_result is None:
            return
        result = job.result(result)
        if isinstance(result, DeliveryReport) and result.accepted:
            self.accepted += 1
        else:
            self.failed += 1
        on_result(result)

    def after_results(self, call: Callable[[], object]) -> None:
        """Call *call* when all results that came together have been passed on."""
        if self.settling is None:
            call()
        else:
            self.settling.after_results(call)

    def take(self, connection: PooledConnection) -> Job | None:
        """Return the next job for *connection*, if there is one and the rate allows it."""
        queue = self._queue
        while queue and queue[0].on_result is None:
            queue.popleft()
        if queue:
            if not self._bucket.take():
                if self._next_token is None:
                    self._next_token = self.reactor.callLater(
                        self._bucket.seconds_to_next(), self._token
                    )
            elif connection.status not in queue[0].tried:
                return queue.popleft()
            else:
                for job in queue:
                    if connection.status not in job.tried and not job.settled:
                        queue.remove(job)
                        return job
                self._bucket.give_back()
        self.has_capacity(connection)
        return None

    def _token(self) -> None:
        self._next_token = None
        self._distribute()

    def done(
        self, connection: PooledConnection, job: Job, result: DeliveryReport | Failure | None
    ) -> bool:
        """Settle *job*, which *connection* has sent, or let another connection send it.

        :param result: None if the server rejected it because of the message before it.
        :returns: True if the connection has to send it to more recipients.
        """
        if isinstance(result, Failure):
            error: Any = result.value
            self._settle(job, error)
        elif result is None and job.returned >= MAX_RETURNS:
            breach = ProtocolBreach(
                f"{connection.status.server} repeatedly rejected pipelined messages"
            )
            breach.report = job.report(RecipientStatus.UNTOUCHED, breach)
            self._settle(job, breach)
        elif result is None:
            job.returned += 1
            self._send_again(job)
        else:
            if result.unsupported:
                self._leave_out(connection.status, result.unsupported)
            following = job.end_transaction(result)
            if following is Following.NONE and not (
                result.error and self._may_go_again(connection, job, result)
            ):
                self._settle(job, result)
            elif (
                following is Following.NEXT_RECIPIENTS
                and connection.may_begin_transaction
                and not job.settled
            ):
                return True
            else:
                self._send_again(job)
        if self._closing:
            self.changed()
        return False

    def _leave_out(self, status: ServerStatus, names: Iterable[str]) -> None:
        """Use no extension or parameter of *names* with this server from now on."""
        status.server.unsupported.update(names)
        for connection in self._in(*READY):
            if connection.status is status:
                connection.follow_server()

    def _may_go_again(self, connection: PooledConnection, job: Job, report: DeliveryReport) -> bool:
        """Return whether *job*, which failed, is sent again over another connection."""
        error = report.error
        died = isinstance(error, (ConnectionFailed, ProtocolBreach)) and not isinstance(
            error, ChunkingFailure
        )
        if not (died and report.resendable and job.message.rewindable):
            return False
        if connection.verdicts > job.verdicts_before:
            return True  # other messages were sent before it: a limit of the server, or chance
        if connection.verdicts and not job.replaced:
            # A connection that has served may have been dead before the message; once.
            job.replaced = True
            return True
        job.tried |= {connection.status}
        connection.status.pass_over(self.reactor.seconds())
        return len(job.tried) < len(self._servers)

    def _send_again(self, job: Job) -> None:
        if self._drops_waiting:
            error = MailerClosed("the mailer was closed before the message could go again")
            self._settle(job, error)
        if job.settled:
            return
        job.message.rewind()
        self._queue.appendleft(job)
        self._limit_waiting()
        if self._redistribution is None:
            # Later: the connection it comes from has not ended yet.
            self._redistribution = self.reactor.callLater(0, self._redistribute)

    def _redistribute(self) -> None:
        self._redistribution = None
        self._distribute()
        self.changed()

    def _limit_waiting(self) -> None:
        """Set the timer for the first job of the queue, which has waited longest."""
        if self._queue and self._wait_limit is None and self.limits.wait is not None:
            due = self._queue[0].since + self.limits.wait - self.reactor.seconds()
            self._wait_limit = self.reactor.callLater(max(0.0, due), self._waited_too_long)

    def _waited_too_long(self) -> None:
        self._wait_limit = None
        wait = self.limits.wait or 0
        now = self.reactor.seconds()
        while self._queue and self._queue[0].since + wait <= now:
            job = self._queue.popleft()
            error = SendTimeout(f"no connection was free for the message within {wait:g} s")
            error.report = job.report(RecipientStatus.UNTOUCHED, error)
            self._settle(job, error)
        self._limit_waiting()
        self.changed()

    # -- states of connections ---------------------------------------------------

    def moved(self, connection: PooledConnection, state: ConnectionState) -> None:
        """Record the new *state* of a connection."""
        del self._by_state[connection.state][connection]
        self._by_state[state][connection] = None
        if connection.state in NOT_READY and state not in NOT_READY:
            connection.status.opening -= 1
            connection.status.open += 1
        connection.state = state
        self._with_capacity.pop(connection, None)

    def has_capacity(self, connection: PooledConnection) -> None:
        """Record that *connection* could send more than it was given."""
        if connection.state is ConnectionState.LEASED:
            self._with_capacity[connection] = None

    def opened(self, connection: PooledConnection) -> None:
        """Use a connection that is ready."""
        self.was_ready = True
        connection.status.ready(self.reactor.seconds() - connection.began)
        self._divide_octets()
        self._tell_awaited()
        _log.debug("{pool}", pool=self)
        self.has_capacity(connection)
        self._drop_overdue()
        self._distribute()

    def overdue(self, connection: PooledConnection) -> None:
        """Try others besides a connection that is not ready in time."""
        now = self.reactor.seconds()
        self.moved(connection, ConnectionState.OVERDUE)
        connection.status.overdue(now)
        _log.info(
            "{server}: the connection is not ready after {seconds:g} s",
            server=str(connection.status.server),
            seconds=now - connection.began,
        )
        self._drop_overdue()
        self._distribute()
        self.changed()

    def _drop_overdue(self) -> None:
        """Drop the overdue connections if enough others are ready."""
        if self.count(*READY) < max(1, self._wanted):
            return
        if self._queue:
            tried = self._queue[0].tried
            if all(connection.status in tried for connection in self._in(*READY)):
                return
        for overdue in self._in(ConnectionState.OVERDUE):
            overdue.abort()

    def _log_not_ready(self, status: ServerStatus, error: SendmailError) -> None:
        # An error of the only server is that of the messages, whose sender gets it.
        if len(self._servers) > 1 or status.open:
            _log.info("{server}: {error}", server=str(status.server), error=str(error))

    def not_opened(self, connection: PooledConnection, error: Exception) -> None:
        """End a connection that could not be made ready; its error is that of all who wait for it."""
        status = connection.status
        self._remove(connection)
        if not isinstance(error, SendmailError) or (
            # Refused credentials are recorded in any case.
            (connection.retiring or isinstance(error, CancelledError))
            and not isinstance(error, AuthenticationError)
        ):
            self._distribute()
            self.changed()
            return
        self._log_not_ready(status, error)
        now = self.reactor.seconds()
        status.failed(now, error)
        if self.on_not_ready is not None:
            self.on_not_ready(status.server, error)
        if not status.open and self._may_succeed_after(connection):
            self.changed()
            return
        if all(each.locked or each.passed_over(now) for each in self._servers):
            self._fail_awaited(error)
        if not status.open:  # else the jobs wait for the connections that are open
            self._fail_waiting(status, error)
        for other in self._in(*NOT_READY):
            # An older connection would be refused as the newer one was.
            if other.status is status and (
                other.state is ConnectionState.OVERDUE or status.locked is not None
            ):
                other.abort()
        if not status.opening:
            status.attempts = 0
        if not status.open:
            self._distribute()
        self.changed()

    def _may_succeed_after(self, failed: PooledConnection) -> bool:
        """Return whether a newer connection to the same server, or one in time, is opening."""
        return failed.status.locked is None and any(
            other.status is failed.status
            and (other.state is ConnectionState.OPENING or other.number > failed.number)
            for other in self._in(*NOT_READY)
        )

    def _fail_waiting(self, status: ServerStatus, error: SendmailError) -> None:
        """Let each job go to another server than that of *status*, or fail with *error*."""
        waiting, self._queue = self._queue, deque()
        failed: list[Job] = []
        for job in waiting:
            job.tried |= {status}
            (failed if len(job.tried) == len(self._servers) else self._queue).append(job)
        for job in failed:
            self._settle(job, error.copy())

    def closed(self, connection: PooledConnection) -> None:
        """Remove a connection that is gone."""
        self._remove(connection)
        self._distribute()
        self.changed()

    def broken(self, failure: Failure, connection: PooledConnection) -> None:
        """End a connection after an unexpected error."""
        _log.failure("unexpected error of a connection of {pool}", failure, pool=self)
        present = connection in self._by_state[connection.state]
        if present and connection.state in NOT_READY:
            what, why = f"no connection to {connection.status.server}", type(failure.value).__name__
            self.not_opened(connection, ConnectFailed(what, detail=f"unexpected {why}"))
            return
        connection.abort()
        if connection in self._by_state[connection.state]:
            self.closed(connection)

    def _remove(self, connection: PooledConnection) -> None:
        status = connection.status
        del self._by_state[connection.state][connection]
        self._with_capacity.pop(connection, None)
        self._size -= 1
        if connection.state in NOT_READY:
            status.opening -= 1
        else:
            status.open -= 1
        if not status.open:
            status.proven = False
        self._divide_octets()

    def _divide_octets(self) -> None:
        self.octets_each = self.limits.octets // max(1, self._size)

    def unlock(self) -> None:
        """Allow refused credentials to be tried again."""
        for status in self._servers:
            status.locked = None
        self._distribute()

    # -- opening -----------------------------------------------------------------

    def connect(self, count: int) -> Deferred[None]:
        """Open connections until there are *count*; fires when so many are ready."""

        def forget(waiting: Deferred[None]) -> None:
            self._awaited = [pair for pair in self._awaited if pair[1] is not waiting]

        ready: Deferred[None] = Deferred(forget)
        self._awaited.append((count, ready))
        self._tell_awaited()
        self._distribute()
        return ready

    @property
    def _wanted(self) -> int:
        return max((count for count, _ in self._awaited), default=0)

    def idle_counts_from(self, now: float) -> float:
        """Return the time up to which connections were kept for :meth:`connect`."""
        return now if self._awaited else self._connected_at

    def _tell_awaited(self) -> None:
        count = self.count(*READY)
        ready = [waiting for wanted, waiting in self._awaited if wanted <= count]
        if ready:
            self._awaited = [pair for pair in self._awaited if pair[0] > count]
            self._connected_at = self.reactor.seconds()
        for waiting in ready:
            waiting.callback(None)

    def _fail_awaited(self, error: SendmailError) -> None:
        awaited, self._awaited = self._awaited, []
        for _, waiting in awaited:
            waiting.errback(error.copy())

    def _distribute(self) -> None:
        """Let connections take jobs, and open more connections if that is not enough.

        Either may end jobs or connections at once, whose callbacks call this method again: then it
        notes that distribution is due once more, so that the depth does not grow with their number.
        """
        self._distribution_due = True
        if self._distributing:
            return
        self._distributing = True
        try:
            while self._distribution_due:
                self._distribution_due = False
                self._give_jobs()
                while self._lacking() and self._open_one():
                    pass
        finally:
            self._distributing = False

    def _give_jobs(self) -> None:
        # The connection used last is used first; the others stay idle.
        idle = reversed(self._in(ConnectionState.IDLE)) if self._queue else ()
        for connection in (*idle, *self._with_capacity):
            if not self._queue:
                break
            self._with_capacity.pop(connection, None)
            connection.take_jobs()

    def _lacking(self) -> bool:
        """Return whether another connection would be of use."""
        if not (self._queue or self._awaited):
            return False
        count, waiting = self.count, len(self._queue)
        opening = count(ConnectionState.OPENING)
        if count(*READY) + opening < self._wanted:
            return True
        if opening >= waiting or self._next_token is not None:
            return False
        # More connections are no faster while all slots for handshakes are taken, or if each takes
        # at once all the messages that it may.
        line = opening >= MAX_HANDSHAKES or self.limits.messages <= self.limits.window
        return not (line and opening and self._enough(waiting))

    def _enough(self, waiting: int) -> bool:
        """Return whether the connections there are and will be can take *waiting* messages."""
        each = self.limits.messages
        left = waiting - each * self.count(ConnectionState.OPENING)
        return left <= 0 or left <= sum(
            each - connection.taken for connection in self._in(ConnectionState.LEASED)
        )

    def _open_one(self) -> bool:
        """Open a connection, or drop one for it; return whether one was opened."""
        replacing = self._replacement is not None
        full = self._size >= self.limits.connections
        if full and (replacing or not self.count(ConnectionState.OVERDUE)):
            return False
        status = self._replacement or self._choose_server()
        if status is None:
            return False
        crowded = not status.proven and status.opening >= MAX_UNPROVEN_OPENING
        if full or crowded:
            if not replacing:
                self._drop_for_another(status, anywhere=not crowded)
            return False
        self._replacement = None
        if not (replacing or self.count(*NOT_READY)):
            for each in self._servers:
                each.attempts = 0
        self.attempted += 1
        connection = PooledConnection(self, status, self.attempted)
        self._by_state[connection.state][connection] = None
        status.opening += 1
        self._size += 1
        connection.start(status.attempted(self.reactor.seconds()))
        return True

    def _drop_for_another(self, status: ServerStatus, *, anywhere: bool) -> None:
        """Drop the oldest overdue connection; one to *status* is opened when that is gone."""
        for overdue in self._in(ConnectionState.OVERDUE):
            if anywhere or overdue.status is status:
                self._replacement = status
                overdue.abort()
                return

    def _choose_server(self) -> ServerStatus | None:
        """Return the server to connect to; None if there is none to connect to now."""
        servers: Sequence[ServerStatus] = self._servers
        while self._queue:
            job = self._queue[0]
            servers = [status for status in self._servers if status not in job.tried]
            if not _all_locked(servers) or any(status.open for status in servers):
                break
            self._queue.popleft()
            self._settle(job, self._locked_error())
            servers = self._servers
        if not self._queue and _all_locked(self._servers):
            self._fail_awaited(self._locked_error())
        now = self.reactor.seconds()
        usable = [status for status in servers if status.locked is None]
        # Sorting is stable: the best server comes first.
        for status in sorted(usable, key=lambda status: status.passed_over(now)):
            if self._may_attempt(status, now):
                return status
            if not status.passed_over(now):
                return None  # the connection that is opening to it is in time
        return None

    def _locked_error(self) -> SendmailError:
        return next(each.locked for each in self._servers if each.locked is not None).copy()

    def _may_attempt(self, status: ServerStatus, now: float) -> bool:
        if self._queue and status.passed_over(now) and (status.open or self._closing):
            return False  # the connections that are open suffice
        return not self.count(*NOT_READY) or status.may_attempt(now)

    # -- closing -----------------------------------------------------------------

    async def close(self, grace: float | None, *, send_waiting: bool) -> None:
        """Let messages under way end, then close; after *grace* seconds close at once.

        :param send_waiting: also send messages that wait for a connection, unless their servers
            hang.
        """
        self._closing = True
        self._refusal = MailerClosed("the mailer is closed")
        self._fail_awaited(MailerClosed("the mailer was closed"))
        if not send_waiting:
            self._drop_waiting()
        timer = None if grace is None else self.reactor.callLater(grace, self.abort)
        try:
            # A connection in state CLOSING is not waited for.
            while self._close_unused():
                change: Deferred[None] = Deferred()
                self._watching.append(change)
                await change
        except BaseException:
            self.abort()
            raise
        finally:
            for call in (timer, self._next_token, self._wait_limit, self._redistribution):
                if call is not None and call.active():
                    call.cancel()

    def _close_unused(self) -> bool:
        """Close the connections that no message needs; return whether there is more to wait for."""
        if self._queue and not self._can_send_waiting():
            self._drop_waiting()
        if not self._queue:
            for opening in self._in(*NOT_READY):
                opening.abort()
            for connection in self._in(*READY):
                connection.retire()
        return bool(self._queue or self.count(*NOT_READY, *READY))

    def _can_send_waiting(self) -> bool:
        """Return whether a connection or a timer may let out a job soon.

        Not the connections that are overdue, nor those tried since then: their server hangs.
        """
        return (
            self._size > self.count(*NOT_READY)
            or any(
                opening.status.proven or opening.status.attempts == 1
                for opening in self._in(ConnectionState.OPENING)
            )
            or self._next_token is not None
            or self._redistribution is not None
        )

    def abort(self) -> None:
        """Close every connection at once; jobs that wait are not sent."""
        self._closing = True
        self._drop_waiting()
        for connection in self._in(*ConnectionState):
            connection.abort()
        self.changed()

    def _drop_waiting(self) -> None:
        """Fail the jobs that no connection has taken, now and later."""
        self._drops_waiting = True
        waiting, self._queue = self._queue, deque()
        for job in waiting:
            self._settle(job, MailerClosed("the mailer was closed before the message's turn"))

    def changed(self) -> None:
        """Let :meth:`close` check whether it is over."""
        if not self._size:
            self.on_empty()
        watching, self._watching = self._watching, []
        for waiting in watching:
            waiting.callback(None)

    def __str__(self) -> str:
        counts = [f"{self.count(state)} {state.value}" for state in READY]
        counts.append(f"{self.count(*NOT_READY)} opening")
        return f"{self._servers[0].server}: {', '.join(counts)}, {self.waiting} waiting"


class PooledConnection:
    """One connection to the server of *status*, from its opening to its end.

    It takes jobs from the pool as long as there are any and its limits allow, stays open while there
    is nothing to do, and closes.

    Messages follow each other as closely as is safe.  With DATA nothing is written between the final
    dot of a message and its reply: two flights a message.  RFC 2920 allows the next envelope there,
    but some servers lose it; that flight is an option.  With CHUNKING several messages are in flight
    at once, within a window: less than one flight a message.  Without PIPELINING the session holds
    back what may not be written yet.

    The window is bounded in messages and octets, because every message in it is in doubt if the
    connection dies; and in octets over all connections, because they are in memory.

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
        # The server's LIMITS, and the number of transactions that its MAILMAX still allows.
        self._limits: Mapping[str, int] = {}
        self._transactions_left: float = 0
        # Messages in doubt at once, at most.
        self._depth = 1
        # The job whose commands are not all queued yet: no other may begin.
        self._current: Job | None = None
        self._filling = False
        #: Messages in flight, and their octets.
        self.inflight = self.inflight_octets = 0
        # The server refused a message because of another: send nothing more over this connection.
        self._rejected_pipelining = False
        # Nothing was received for so long that the connection may be dead.
        self._stale = False
        # Fires when the connection is to be closed and no message is in flight.
        self._over: Deferred[None] = Deferred()

    def start(self, overdue: float) -> None:
        """Open the connection; after *overdue* seconds the pool is called if it is not ready."""
        pool = self._pool
        self._overdue = pool.reactor.callLater(overdue, self._overdue_now)
        self._running = Deferred.fromCoroutine(self._run())
        _ = self._running.addErrback(pool.broken, self)

    def _overdue_now(self) -> None:
        pool = self._pool
        left = self.began + self.status.overdue_seconds - pool.reactor.seconds()
        if left > 0:  # another one took so long meanwhile that this one is in time
            self._overdue = pool.reactor.callLater(left, self._overdue_now)
        else:
            pool.overdue(self)

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
        self.follow_server()
        self._choose_window(protocol.session)
        _ = protocol.lost().addCallback(lambda _: self.retire())
        pool.moved(self, ConnectionState.LEASED)
        pool.opened(self)
        if not self.inflight:
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

    def follow_server(self) -> None:
        """Use none of the server's extensions that are known by now not to work."""
        if self._protocol is not None:
            self._protocol.session.withhold(*self.status.server.unsupported)

    def _choose_window(self, session: ClientSession) -> None:
        limits, offered = self._pool.limits, session.capabilities
        self._limits = offered.limits
        self._transactions_left = offered.limits.get("MAILMAX", math.inf)
        session.pipelines_after_data = limits.pipeline_after_data
        # With DATA a second message may have its envelope in flight while the first is in
        # doubt; its content waits for the first one's verdict.
        chunks = offered.chunking and offered.pipelining
        self._depth = limits.window if chunks else 1 + limits.pipeline_after_data

    # -- messages ----------------------------------------------------------------

    def take_jobs(self) -> None:
        """Take jobs, if there are any."""
        if self.state is ConnectionState.LEASED:
            self._fill()
        elif self.state is ConnectionState.IDLE:
            self._stale = self._pool.reactor.seconds() - self._idle_since >= STALE_SECONDS
            self._pool.moved(self, ConnectionState.LEASED)
            self._fill()
            if not self.inflight:
                self._emptied()

    def _fill(self) -> None:
        """Begin as many messages as there are and the window allows."""
        protocol, pool = self._protocol, self._pool
        if protocol is None or self._filling or self._current is not None or not self._in_window:
            return
        self._filling = True
        protocol.hold()
        try:
            now = pool.reactor.seconds()
            while True:
                job = pool.take(self) if self._usable_at(now) else None
                if job is None:
                    return
                self.taken += 1
                job.taken_at = now
                self._begin(protocol, job)
                if self._current is not None or not self._in_window:
                    return
        finally:
            protocol.release()
            self._filling = False

    @property
    def _in_window(self) -> bool:
        pool = self._pool
        return not self.inflight or (
            self.inflight < self._depth
            and self.inflight_octets < pool.limits.window_octets
            and self.inflight_octets < pool.octets_each
        )

    @property
    def may_begin_transaction(self) -> bool:
        """True if the session and the server's MAILMAX allow another transaction."""
        return (
            self._protocol is not None
            and self._protocol.usable
            and not self._rejected_pipelining
            and self._transactions_left > 0
        )

    def _usable_at(self, now: float) -> bool:
        """Return whether the connection may take another message."""
        return (
            not self.retiring
            and self.may_begin_transaction
            and self.taken < self._pool.limits.messages
            and now - self._opened_at < self._pool.limits.age
        )

    def _begin(self, protocol: SubmissionProtocol, job: Job) -> None:
        """Begin a transaction of *job*."""
        job.end_connection, job.verdicts_before = self.cancel, self.verdicts
        more = job.begin_transaction(self._limits)
        size = job.message.size or self._pool.limits.window_octets
        self.inflight += 1
        self.inflight_octets += size
        self._transactions_left -= 1
        self._current = job
        send_content_early, self._stale = not self._stale, False
        transaction = Transaction(
            protocol,
            job.message,
            partial(self._ended, protocol, job, size),
            None if more else partial(self._queued, job),
            job.may_end,
            all_or_nothing=job.all_or_nothing,
            send_content_early=send_content_early,
        )
        transaction.begin()

    def _queued(self, job: Job) -> None:
        if self._current is job:
            self._current = None
            if not self._filling:
                self._fill()

    def _ended(
        self,
        protocol: SubmissionProtocol,
        job: Job,
        size: int,
        result: DeliveryReport | Failure | None,
    ) -> None:
        self.inflight -= 1
        self.inflight_octets -= size
        if self._current is job:
            self._current = None
        job.end_connection = None
        # Before the job's owner gets the result, and may have more to send.
        self._pool.has_capacity(self)
        if isinstance(result, DeliveryReport):
            if result.error is None:
                self.verdicts += 1
            elif (
                isinstance(result.error, CommandNotAllowed)
                and result.resendable
                and job.message.rewindable
            ):
                # Refused because of the message before it, RSET or not.
                self._rejected_pipelining = True
                result = None
        self._pool.settling = protocol
        try:
            again = self._pool.done(self, job, result)
        finally:
            self._pool.settling = None
        if again:
            self._begin(protocol, job)
            return
        if self.inflight <= self._depth // 2:
            self._fill()
        if not self.inflight and not self._filling:
            self._emptied()

    def cancel(self, why: SendmailError) -> bool:
        """Close the connection if it has one message only; return whether it did."""
        if self._protocol is None or self.inflight != 1:
            return False
        self._protocol.abort(why)
        return True

    # -- the end -----------------------------------------------------------------

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

    def _emptied(self) -> None:
        """Take another message, become idle, or end: no message is in flight."""
        pool = self._pool
        while not self.inflight:
            if not self._usable_at(pool.reactor.seconds()):
                self._end()
                return
            taken = self.taken
            self._fill()
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
        now = pool.reactor.seconds()
        left = max(self._idle_since, pool.idle_counts_from(now)) + pool.limits.idle - now
        if left > 0:
            self._idle_limit = pool.reactor.callLater(left, self._idle_over)
        else:
            self.retire()

    def _end(self) -> None:
        if not self._over.called:
            self._over.callback(None)


def _all_locked(servers: Sequence[ServerStatus]) -> bool:
    return all(status.locked is not None for status in servers)
