"""``Mailer``: many messages over few connections, kept open between messages.

``send`` for one message, ``send_many`` for a stream of them, ``many`` for a list over one
connection, and ``MailerService`` to close a mailer with its application.  ``MailSender`` is the type
of all objects with such a ``send``, for annotations.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, Union

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from twisted_sendmail.client.delivery_job import Job, JobResult, prepare_message
from twisted_sendmail.client.pool import NOT_READY, ConnectionState, Pool, PoolLimits
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.submission import close_after
from twisted_sendmail.client.timeouts import Cancelled, Deadlines
from twisted_sendmail.message import DKIMSigner, prepare_small
from twisted_sendmail.smtp import (
    DeliveryReport,
    Envelope,
    InvalidInput,
    InvalidMessage,
    InvalidServer,
    MailerClosed,
    RecipientResult,
    RecipientStatus,
    SendmailError,
    check_flag,
    check_positive,
    check_reactor,
    check_type,
    printable,
    require_acceptance,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Callable,
        Generator,
        Iterable,
        Sequence,
    )

    from twisted_sendmail.message import DKIMKey, Message, PreparedMessage
    from twisted_sendmail.smtp import AnyRecipient, ReversePath

#: A message whose header names its sender and recipients, or an envelope and a message.
Item = Union["Message", "tuple[Envelope, Message]"]

#: Seconds and messages beyond all use.
_UNLIMITED = 10**9
_ONE_CONNECTION = PoolLimits(
    connections=1,
    window=1,
    messages=_UNLIMITED,
    age=_UNLIMITED,
    idle=_UNLIMITED,
    wait=None,
)


@frozen
class MailerStats:
    """The state of a mailer."""

    #: Connections with nothing to do.
    idle: int
    #: Connections that have a message.
    leased: int
    #: Connections that are not ready yet.
    opening: int
    #: Messages that wait for a connection.
    waiting: int
    #: Messages with an accepted recipient, since the start.
    accepted: int
    #: Messages without an accepted recipient, or that could not be sent.
    failed: int


class Mailer:
    """Sends mail over a pool of connections.

    :param reactor: connects and keeps time.
    :param server: a URL or a SubmissionServer, or several of them, best first: another
        one is used only for a message that cannot be sent to the ones before.
    :param limits: the limits of the pool.
    :param dkim: the keys that sign its mail, as for ``submit``; None: mail is not signed.
    :raises InvalidInput: a server, the limits or a key cannot be used.

    Connections are opened when messages need them.  Call :meth:`aclose` at the end.
    """

    def __init__(
        self,
        reactor: Any,
        server: str | SubmissionServer | Sequence[str | SubmissionServer],
        *,
        limits: PoolLimits | None = None,
        dkim: DKIMKey | Sequence[DKIMKey] | None = None,
    ) -> None:
        check_reactor("reactor", reactor)
        servers = SubmissionServer.all_of(server)
        if not servers:
            raise InvalidServer("there is no server", remedy="give at least one")
        if limits is None:
            limits = PoolLimits()
        check_type("limits", limits, PoolLimits, "a PoolLimits, such as PoolLimits(connections=8)")
        self.reactor = reactor
        #: Signs the mail; None: it is not signed.
        self.dkim = DKIMSigner.of(dkim)
        #: The connections, and the jobs that wait for them.
        self.pool = Pool(reactor, servers, limits)
        # Deadlines of messages, from ``send`` to the verdict.
        total = servers[0].timeouts.total
        self._deadlines = Deadlines(reactor, total, f"a message to {servers[0]}")
        self.pool.on_empty = self._deadlines.stop_if_idle
        self._closed = False

    def connect(self, count: int = 1) -> Deferred[None]:
        """Open connections before there are messages for them.

        Without it a connection is opened when a message finds none that is free.

        :param count: connections there are to be in all; those that are open already count.
            They are kept until so many are ready, and then for ``PoolLimits.idle`` seconds with
            nothing to do.
        :returns: fires when *count* of them are ready.
        :raises InvalidInput: *count* is not from one to ``PoolLimits.connections``.
        :raises SendmailError: no server could be made ready.
        :raises MailerClosed: the mailer was closed.

        Cancelling ends the waiting; the connections that are opening may serve later messages.
        """
        most = self.pool.limits.connections
        if not isinstance(count, int) or not 0 < count <= most:
            return fail(
                InvalidInput(
                    f"{count!r} connections cannot be opened",
                    remedy=f"give a number from 1 to {most}",
                )
            )
        if self._closed:
            return fail(MailerClosed("the mailer is closed"))
        return self.pool.connect(count)

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

        A message that waits is not sent if it is cancelled.  A message that is alone on its
        connection ends the connection; one among others may still be delivered.
        """

        async def run() -> DeliveryReport:
            prepared = await prepare_message(
                self.reactor,
                message,
                sender=sender,
                recipients=recipients,
                envelope=envelope,
                complete=complete,
                all_or_nothing=all_or_nothing,
                dkim=self.dkim,
            )
            try:
                report = await self.deliver(prepared, all_or_nothing=all_or_nothing)
            finally:
                await prepared.close()
            return require_acceptance(report)

        if self._closed:
            return fail(MailerClosed("the mailer is closed"))
        return self.apply_deadline(Deferred.fromCoroutine(run()))

    def send_many(
        self,
        messages: Iterable[Item] | AsyncIterable[Item],
        *,
        all_or_nothing: bool = False,
        complete: bool = True,
    ) -> Sending:
        """Send many messages, pulled from *messages* no faster than they go out.

        ``await`` the result for a list of reports in the order of *messages*, or iterate
        over it with ``async for`` for pairs of index and report as they come.  A message
        that fails has its error in its report, and does not stop the others.

        :param messages: messages, or pairs of an Envelope and a message.
        """
        return Sending(self, messages, all_or_nothing=all_or_nothing, complete=complete)

    def apply_deadline(self, sending: Deferred[DeliveryReport]) -> Deferred[DeliveryReport]:
        """Cancel *sending*, of one message, when it takes more than ``timeouts.total``.

        :raises SendTimeout: it did.
        """
        return self._deadlines.apply(sending)

    def deliver(
        self, prepared: PreparedMessage, *, all_or_nothing: bool
    ) -> Deferred[DeliveryReport]:
        """Send a prepared message; a report without acceptance is no error.

        :raises SendmailError: no connection could be opened.
        """
        result: Deferred[DeliveryReport] = Deferred(lambda _: self.pool.cancel(job))

        def ended(end: JobResult) -> None:
            if isinstance(end, DeliveryReport):
                result.callback(end)
            else:
                result.errback(end)

        job = Job(prepared, ended, self.reactor.seconds(), all_or_nothing)
        self.pool.add([job])
        return result

    @property
    def capacity(self) -> int:
        """Messages that keep every connection busy, and as many again that wait."""
        limits = self.pool.limits
        return min(limits.waiters, limits.connections * max(2, limits.window) * 2)

    def change_limits(self, limits: PoolLimits) -> None:
        """Use *limits* from now on, except for windows of connections that are open.

        Connections beyond the limit close when their messages have ended.

        :raises InvalidInput: they are no PoolLimits.
        """
        check_type("limits", limits, PoolLimits, "a PoolLimits, such as PoolLimits(connections=8)")
        self.pool.change_limits(limits)

    def watch(self, not_ready: Callable[[SubmissionServer, SendmailError], None]) -> None:
        """Call *not_ready* with each server that no connection could be made ready to, and why.

        A message that could go to another server does not report this.
        """
        self.pool.on_not_ready = not_ready

    def unlock(self) -> None:
        """Try refused credentials again: they were corrected at the server."""
        self.pool.unlock()

    def stats(self) -> MailerStats:
        """Return the present state."""
        pool = self.pool
        return MailerStats(
            idle=pool.count(ConnectionState.IDLE),
            leased=pool.count(ConnectionState.LEASED),
            opening=pool.count(*NOT_READY),
            waiting=pool.waiting,
            accepted=pool.accepted,
            failed=pool.failed,
        )

    def aclose(self, *, grace: float | None = 30.0, send_waiting: bool = True) -> Deferred[None]:
        """Take no more messages, send those that were given before, and close.

        A connection that carries no message is not waited for: an idle one is closed, and
        one that is still opening is dropped, as soon as no message waits for a connection.
        Messages that wait for a server which does not let connections become ready in time
        fail with ``MailerClosed``.

        :param grace: seconds after which everything is closed at once, and each message
            that waits fails with ``MailerClosed``; None for as long as it takes.
        :param send_waiting: False: messages that no connection has taken yet fail with
            ``MailerClosed`` at once; only messages under way are waited for.
        :returns: fires when every connection is closed.
        :raises InvalidInput: *grace* is not a time.

        Cancelling closes at once.
        """
        _check_grace(grace)
        check_flag("send_waiting", send_waiting)
        self._closed = True
        self._deadlines.stop_if_idle()
        return Deferred.fromCoroutine(self.pool.close(grace, send_waiting=send_waiting))

    def __repr__(self) -> str:
        return f"<Mailer {self.pool}>"


def _check_grace(grace: object) -> None:
    if grace is not None and (grace != 0 or isinstance(grace, bool)):
        check_positive("grace", grace, "seconds, zero or more, or None")


class Sending:
    """The result of ``Mailer.send_many``: await it, or iterate over it; once.

    Its source is pulled only as fast as connections take messages and the caller takes reports.

    :param one_by_one: pull a message when the one before has ended, with a deadline for each, and
        end with the error of the first message if no connection could be made ready for it.
    """

    def __init__(
        self,
        mailer: Mailer,
        messages: Iterable[Item] | AsyncIterable[Item],
        *,
        all_or_nothing: bool,
        complete: bool,
        one_by_one: bool = False,
    ) -> None:
        self._mailer = mailer
        self._messages = messages
        self._all_or_nothing = all_or_nothing
        self._complete = complete
        self._one_by_one = one_by_one
        self._capacity = 1 if one_by_one else mailer.capacity
        self._begun = 0
        # By index of a message: how to cancel it.
        self._in_flight: dict[int, Callable[[], object]] = {}
        self._ready: deque[tuple[int, DeliveryReport]] = deque()
        # All reports are awaited at once: the caller need not be resumed for each.
        self._collecting = False
        self._news: Deferred[None] | None = None
        # The caller is resumed once for all reports that come together.
        self._resumption_due = False
        self._space_wanted: Deferred[None] | None = None
        self._exhausted = False
        self._failure: Failure | None = None

    def __await__(self) -> Generator[Any, Any, list[DeliveryReport]]:
        return self.reports().__await__()

    async def reports(self) -> list[DeliveryReport]:
        """Return all reports, in the order of the messages.

        :raises Cancelled: with the reports of the messages that were begun.
        """
        self._collecting = True
        found = []
        try:
            async for pair in self:
                found.append(pair)  # noqa: PERF401 - needed if the iteration is cut off
        except CancelledError:
            error = Cancelled("cancelled")
            error.reports = tuple(_in_order([*found, *self._ready]))
            raise error from None
        return _in_order(found)

    def deferred(self) -> Deferred[list[DeliveryReport]]:
        """Return the same as a Deferred.

        Cancelling it cancels every message not sent yet, and fails with a
        :class:`~twisted_sendmail.client.timeouts.Cancelled`, whose ``reports`` are those of
        the messages begun.
        """
        return Deferred.fromCoroutine(self.reports())

    async def __aiter__(self) -> AsyncIterator[tuple[int, DeliveryReport]]:
        """Yield index and report of each message, as they come."""
        feeding = Deferred.fromCoroutine(self._feed())
        _ = feeding.addErrback(self._source_failed)
        try:
            while True:
                while self._ready and not (self._collecting and self._busy):
                    yield self._ready.popleft()
                    self._freed()
                if not self._busy:
                    if self._failure is not None:
                        self._failure.raiseException()
                    return
                self._news = Deferred()
                await self._news
        finally:
            feeding.cancel()
            for cancel in list(self._in_flight.values()):
                cancel()

    @property
    def _busy(self) -> bool:
        return bool(self._in_flight) or not (self._exhausted or self._failure)

    async def _feed(self) -> None:
        if hasattr(self._messages, "__aiter__"):
            async for item in self._messages:
                self._begin([item])
                await self._wait_for_space()
                if self._failure is not None:
                    break
        else:
            items = iter(_checked(self._messages))
            while self._failure is None:
                batch: list[Item] = []
                try:
                    batch.extend(islice(items, self._space))
                finally:
                    # Messages that were pulled are sent, also if the source fails after them.
                    self._begin(batch)
                if not batch:
                    break
                await self._wait_for_space()
        self._exhausted = True
        self._resume_caller()

    @property
    def _space(self) -> int:
        """The number of messages that may be pulled now."""
        waiting = 0 if self._collecting else len(self._ready)
        return max(0, self._capacity - len(self._in_flight) - waiting)

    async def _wait_for_space(self) -> None:
        while not self._space:
            self._space_wanted = Deferred()
            await self._space_wanted

    def _freed(self) -> None:
        # Wait for a good deal of space: messages that are pulled together go out together.
        if self._space_wanted is not None and self._space * 2 >= self._capacity:
            wanted, self._space_wanted = self._space_wanted, None
            wanted.callback(None)

    def _begin(self, items: list[Item]) -> None:
        """Send *items*; those that need no preparation go out together."""
        jobs = []
        now = self._mailer.reactor.seconds()
        for item in items:
            index, self._begun = self._begun, self._begun + 1
            envelope, message = item if isinstance(item, tuple) else (None, item)
            prepared = envelope and prepare_small(
                message, envelope, now=now, complete=self._complete
            )
            if prepared:
                prepared.dkim = self._mailer.dkim
            if prepared and not self._one_by_one:
                job = Job(
                    prepared, partial(self._settled, index, envelope), now, self._all_or_nothing
                )
                jobs.append(job)
                self._in_flight[index] = partial(self._mailer.pool.cancel, job)
                continue
            if prepared:
                sending = self._mailer.deliver(prepared, all_or_nothing=self._all_or_nothing)
            else:
                sending = Deferred.fromCoroutine(self._send(envelope, message))
            if self._one_by_one:
                sending = self._mailer.apply_deadline(sending)
            self._in_flight[index] = sending.cancel
            _ = sending.addBoth(partial(self._settled, index, envelope))
        if jobs:
            self._mailer.pool.add(jobs)

    async def _send(self, envelope: Envelope | None, message: Message) -> DeliveryReport:
        """Send one message and return its report, which holds the error if it failed."""
        mailer = self._mailer
        try:
            prepared = await prepare_message(
                mailer.reactor,
                message,
                envelope=envelope,
                complete=self._complete,
                all_or_nothing=self._all_or_nothing,
                dkim=mailer.dkim,
            )
            envelope = prepared.envelope
            try:
                return await mailer.deliver(prepared, all_or_nothing=self._all_or_nothing)
            finally:
                await prepared.close()
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - one bad message must not stop the others
            return _failed(error, envelope)

    def _settled(self, index: int, envelope: Envelope | None, result: JobResult | Failure) -> None:
        """Take the report of a message; an error other than a cancellation is in its report."""
        _ = self._in_flight.pop(index, None)
        if not isinstance(result, DeliveryReport):
            failure = result if isinstance(result, Failure) else Failure(result)
            error = failure.value
            if isinstance(error, CancelledError) or not isinstance(error, Exception):
                if isinstance(error, Cancelled) and error.report is not None:
                    self._ready.append((index, replace(error.report, error=error)))
                self._source_failed(failure)
                return
            result = _failed(error, envelope)
        pool = self._mailer.pool
        if self._one_by_one and result.error is not None and pool.attempted and not pool.was_ready:
            self._source_failed(Failure(result.error))
            return
        self._ready.append((index, result))
        if self._collecting:
            self._freed()
        if not self._resumption_due:
            self._resumption_due = True
            pool.after_results(self._resume_caller)

    def _source_failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self._freed()
        self._resume_caller()

    def _resume_caller(self) -> None:
        """Resume the caller, if there is something to take."""
        self._resumption_due = False
        if self._news is not None and not (self._collecting and self._busy):
            news, self._news = self._news, None
            news.callback(None)


def many(
    reactor: Any,
    server: str | SubmissionServer,
    messages: Iterable[Item] | AsyncIterable[Item],
    *,
    all_or_nothing: bool = False,
    complete: bool = True,
    dkim: DKIMKey | Sequence[DKIMKey] | None = None,
) -> Deferred[list[DeliveryReport]]:
    """Send several messages one after the other, by a mailer with one connection.

    :param reactor: connects and keeps time.
    :param server: a URL or a :class:`~twisted_sendmail.client.server_config.SubmissionServer`.
    :param messages: messages, or pairs of an :class:`~twisted_sendmail.smtp.envelope.Envelope`
        and a message; pulled one at a time.
    :param all_or_nothing: each message to all of its recipients, or to none.
    :param complete: add ``Date`` and ``Message-ID`` where missing, remove ``Bcc``.
    :param dkim: the keys that sign the messages, as for ``submit``.
    :returns: fires with a report for each message, in order.  A report has the result of each
        recipient in ``outcomes``, and in ``error`` why a recipient has no reply, or why the
        message could not be sent at all.
    :raises SendmailError: no connection could be made ready for the first message.
    :raises Exception: any error that *messages* itself raises.

    When no connection can be made ready later, the messages left are not sent.
    ``timeouts.total`` holds for each message.  Cancelling closes the connection and
    fails with a :class:`~twisted_sendmail.client.timeouts.Cancelled`, whose ``reports``
    are those of the messages begun.
    """
    try:
        check_flag("all_or_nothing", all_or_nothing)
        check_flag("complete", complete)
        mailer = Mailer(reactor, SubmissionServer.of(server), limits=_ONE_CONNECTION, dkim=dkim)
    except SendmailError:
        return fail()
    pool = mailer.pool
    mailer.watch(lambda _server, error: pool.refuse(error))
    sending = Sending(
        mailer, messages, all_or_nothing=all_or_nothing, complete=complete, one_by_one=True
    )
    return close_after(sending.deferred(), mailer.aclose)


def _checked(messages: Iterable[Item]) -> Iterable[Item]:
    if isinstance(messages, (str, bytes)) or not hasattr(messages, "__iter__"):
        raise InvalidMessage(
            f"messages cannot be {type(messages).__name__}",
            remedy="give a list of messages, or use submit() for one",
        )
    return messages


def _failed(error: Exception, envelope: Envelope | None) -> DeliveryReport:
    """Return the report of a message that failed with *error*."""
    if not isinstance(error, SendmailError):
        detail = f"{type(error).__name__}: {printable(str(error))}"
        unreadable = InvalidMessage("the message could not be read", detail=detail)
        unreadable.__cause__ = error
        error = unreadable
    if error.report is not None:
        return replace(error.report, error=error)
    recipients = envelope.recipients if envelope is not None else ()
    return DeliveryReport(
        envelope,
        tuple(RecipientResult(each, RecipientStatus.UNTOUCHED) for each in recipients),
        host=error.host,
        tls=error.tls,
        transcript=error.transcript,
        error=error,
    )


def _in_order(pairs: Iterable[tuple[int, DeliveryReport]]) -> list[DeliveryReport]:
    return [report for _, report in sorted(pairs, key=itemgetter(0))]


class MailerService(Service):
    """A Twisted service that owns a :class:`Mailer` and closes it when it stops.

    :param grace: seconds that stopping may take.
    :param send_waiting: let stopping send the messages that wait for a connection; if False
        they fail with ``MailerClosed`` at once, and only messages under way are waited for.

    The other parameters are the mailer's.
    """

    def __init__(
        self,
        reactor: Any,
        server: str | SubmissionServer | Sequence[str | SubmissionServer],
        *,
        limits: PoolLimits | None = None,
        dkim: DKIMKey | Sequence[DKIMKey] | None = None,
        grace: float | None = 30.0,
        send_waiting: bool = True,
    ) -> None:
        self._make: Callable[[], Mailer] = partial(
            Mailer, reactor, server, limits=limits, dkim=dkim
        )
        _check_grace(grace)
        check_flag("send_waiting", send_waiting)
        self._grace = grace
        self._send_waiting = send_waiting
        #: The mailer; a new one after each start.
        self.mailer = self._make()
        self._used = False

    def startService(self) -> None:
        """See ``IService``."""
        if self._used:
            self.mailer = self._make()
        self._used = True
        super().startService()  # type: ignore[no-untyped-call]

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
        """Send one message by :attr:`mailer`; see :meth:`Mailer.send`."""
        return self.mailer.send(
            message,
            sender=sender,
            recipients=recipients,
            envelope=envelope,
            all_or_nothing=all_or_nothing,
            complete=complete,
        )

    def stopService(self) -> Deferred[None]:
        """See ``IService``; fires when the mailer is closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self.mailer.aclose(grace=self._grace, send_waiting=self._send_waiting)


class MailSender(Protocol):
    """An object with the ``send`` of a mailer.

    :class:`~twisted_sendmail.Mailer`, :class:`~twisted_sendmail.MailerService`,
    :class:`~twisted_sendmail.RelayService` and
    :class:`~twisted_sendmail.testing.stub.StubMailer` are such objects: a program that is written
    for a ``MailSender`` works with each, and its tests with the stub.
    """

    def send(
        self,
        message: Message,
        *,
        sender: str | ReversePath | None = None,
        recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
        envelope: Envelope | None = None,
        complete: bool = True,
    ) -> Deferred[Any]:
        """Send one message; the parameters are those of :func:`~twisted_sendmail.submit`.

        :returns: fires when responsibility for the message was taken over: with a
            :class:`~twisted_sendmail.DeliveryReport` by a server, or with a
            :class:`~twisted_sendmail.Queued` by a relay's queue.
        :raises SendmailError: it was not.

        Cancelling is that of the object's own ``send``.
        """
