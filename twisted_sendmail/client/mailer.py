"""``Mailer``: what an application keeps, to send mail as long as it lives.

Many messages over few connections, kept open between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail

from twisted_sendmail.client.deadline import Deadlines
from twisted_sendmail.client.fleet import NOT_READY, Stage
from twisted_sendmail.client.job import AwaitedJob, Job
from twisted_sendmail.client.limits import PoolLimits
from twisted_sendmail.client.pool import Pool
from twisted_sendmail.client.prepared_message import prepared
from twisted_sendmail.client.sending import Sending
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.verdict import require_acceptance
from twisted_sendmail.message import ready_letter
from twisted_sendmail.smtp import (
    DeliveryReport,
    Envelope,
    InvalidInput,
    InvalidServer,
    MailerClosed,
    SendmailError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Sequence

    from twisted_sendmail.client.many import Item
    from twisted_sendmail.message import Message, PreparedMessage
    from twisted_sendmail.smtp import AnyRecipient, ReversePath


@dataclass(frozen=True)
class MailerStats:
    """The state of a mailer."""

    #: Connections with nothing to do.
    idle: int
    #: Connections that have a message.
    leased: int
    #: Connections on their way to be ready.
    opening: int
    #: Messages that wait for a connection.
    waiting: int
    #: Messages with somebody accepted, since the start.
    accepted: int
    #: Messages nobody was accepted of, or that could not be sent.
    failed: int


class Mailer:
    """Sends mail over a pool of connections.

    :param reactor: connects and keeps time.
    :param server: a URL or a SubmissionServer, or several of them, best first: another
        one is used only for a message the ones before cannot have.
    :param limits: the bounds of the pool.
    :raises InvalidInput: for a server that cannot be used.

    Nothing is opened before it is needed.  Call :meth:`aclose` at the end.
    """

    def __init__(
        self,
        reactor: Any,
        server: str | SubmissionServer | Sequence[str | SubmissionServer],
        *,
        limits: PoolLimits | None = None,
    ) -> None:
        given = [server] if isinstance(server, (str, SubmissionServer)) else list(server)
        if not given:
            raise InvalidServer("there is no server", remedy="give at least one")
        self._reactor = reactor
        self._servers = [SubmissionServer.of(each) for each in given]
        self._pool = Pool(reactor, self._servers, limits or PoolLimits())
        # For a message, from when it is given to its verdict.
        first = self._servers[0]
        self._deadlines = Deadlines(reactor, first.timeouts.total, f"a message to {first}")
        self._pool.deserted = self._deadlines.rest
        self._accepted = 0
        self._failed = 0
        self._closed = False

    def connect(self, count: int = 1) -> Deferred[None]:
        """Open connections before there are messages for them.

        Without it a connection is opened when a message finds none that is free.

        :param count: connections there are to be in all; what is open already counts.  They
            are kept for ``PoolLimits.idle`` seconds with nothing to do, like any others.
        :returns: fires when *count* of them are ready.
        :raises InvalidInput: it is not from one to ``PoolLimits.connections``.
        :raises SendmailError: why there cannot be so many: no server can be made ready.
        :raises MailerClosed: the mailer was closed.

        Cancelling stops the waiting; what is being opened is of use to the messages to come.
        """
        most = self._pool.limits.connections
        if not isinstance(count, int) or not 0 < count <= most:
            return fail(
                InvalidInput(
                    f"{count!r} connections cannot be opened",
                    remedy=f"give a number from 1 to {most}",
                )
            )
        if self._closed:
            return fail(MailerClosed("the mailer is closed"))
        return self._pool.connect(count)

    def send(
        self,
        message: Message,
        *,
        sender: str | ReversePath | None = None,
        recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
        envelope: Envelope | None = None,
        all_or_nothing: bool = False,
        complete: bool = True,
    ) -> Deferred[DeliveryReport]:
        """Send one message; parameters, result and errors are those of ``submit``.

        :raises MailerBusy: too many messages wait already.
        :raises MailerClosed: the mailer was closed.

        Cancelling takes back a message that waits.  One that is on its way alone takes
        its connection with it; one among others may still be delivered.
        """
        if self._closed:
            return fail(MailerClosed("the mailer is closed"))

        if isinstance(envelope, Envelope) and sender is None and recipients is None:
            ready = ready_letter(message, envelope, complete=complete)
            if ready is not None:
                job = self.job(ready, all_or_nothing=all_or_nothing)
                self._pool.add([job])
                return self._deadlines.hold(job.result.addCallback(require_acceptance))

        async def run() -> DeliveryReport:
            letter = await prepared(
                self._reactor,
                message,
                sender=sender,
                recipients=recipients,
                envelope=envelope,
                complete=complete,
            )
            return require_acceptance(await self.carry(letter, all_or_nothing=all_or_nothing))

        return self._deadlines.hold(Deferred.fromCoroutine(run()))

    def send_many(
        self,
        messages: Iterable[Item] | AsyncIterable[Item],
        *,
        all_or_nothing: bool = False,
        complete: bool = True,
    ) -> Sending:
        """Send many messages, pulled from *messages* no faster than they go out.

        ``await`` the result for a list of reports in the order of *messages*, or iterate
        over it with ``async for`` for pairs of place and report as they come.  A message
        that fails has its error in its report, and does not stop the others.

        :param messages: messages, or pairs of an Envelope and a message.
        """
        return Sending(self, messages, all_or_nothing=all_or_nothing, complete=complete)

    async def carry(self, letter: PreparedMessage, *, all_or_nothing: bool) -> DeliveryReport:
        """Send a letter that is ready; closes it.

        :raises SendmailError: no connection could be had.
        """
        job = self.job(letter, all_or_nothing=all_or_nothing)
        try:
            self._pool.add([job])
            return await job.result
        finally:
            await letter.close()

    def job(self, letter: PreparedMessage, *, all_or_nothing: bool) -> AwaitedJob:
        """A job for *letter*, to be given to :meth:`begin`; counted when it is settled."""
        job = AwaitedJob(
            letter,
            all_or_nothing=all_or_nothing,
            since=self._reactor.seconds(),
            cancel=self._pool.cancel,
        )
        _ = job.result.addBoth(self.counted)
        return job

    def begin(self, jobs: Sequence[Job]) -> None:
        """Let *jobs* go out together."""
        self._pool.add(jobs)

    def cancel(self, job: Job) -> None:
        """Nobody waits for *job* any more."""
        self._pool.cancel(job)

    def counted(self, result: Any) -> Any:
        """Count what a job came to; it is given back."""
        if isinstance(result, DeliveryReport) and result.accepted:
            self._accepted += 1
        else:
            self._failed += 1
        return result

    @property
    def reactor(self) -> Any:
        """What keeps time."""
        return self._reactor

    @property
    def capacity(self) -> int:
        """Messages that keep every connection busy, and another round of them waiting."""
        limits = self._pool.limits
        return min(limits.waiters, limits.connections * max(2, limits.window) * 2)

    def watch(self, not_ready: Callable[[SubmissionServer, SendmailError], None]) -> None:
        """Call *not_ready* with each server that could not be made ready, and why.

        Messages that could go to another server tell nothing of it.
        """
        self._pool.not_ready = not_ready

    def unlock(self) -> None:
        """Try refused credentials again: they were corrected at the server."""
        self._pool.unlock()

    def stats(self) -> MailerStats:
        """What the mailer does just now."""
        pool = self._pool
        return MailerStats(
            idle=pool.fleet.count(Stage.IDLE),
            leased=pool.fleet.count(Stage.LEASED),
            opening=pool.fleet.count(*NOT_READY),
            waiting=pool.waiting,
            accepted=self._accepted,
            failed=self._failed,
        )

    def aclose(self, *, grace: float | None = 30.0, send_waiting: bool = True) -> Deferred[None]:
        """Take no more messages, send those that were given before, and close.

        Nothing waits for a connection that carries no message: an idle one is closed, and
        one that is still opening is dropped, as soon as no message waits for a connection.

        :param grace: seconds after which everything is closed at once, and each message
            that waits fails with ``MailerClosed``; None for as long as it takes.
        :param send_waiting: False: messages that no connection has taken yet fail with
            ``MailerClosed`` at once; only messages under way are waited for.
        :returns: fires when every connection is closed.

        Cancelling closes at once.
        """
        self._closed = True
        return Deferred.fromCoroutine(self._pool.close(grace, send_waiting=send_waiting))

    def __repr__(self) -> str:
        return f"<Mailer {self._pool}>"
