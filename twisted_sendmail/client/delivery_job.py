"""A message on its way: prepared, sent in one transaction or several, a result for each recipient.

A server that announces LIMITS gets the message in several transactions, one after the other, each
with as many recipients as the limits of the connection allow.  So does a server that accepts the
message for some recipients and refuses others as too many: those get it in further transactions, as
long as each accepts some.  :class:`Job` alone chooses the recipients and joins the results, for
:func:`deliver` and for the pool, where the transactions of a message may go over several connections.

RFC 9422, RFC 5321 section 4.5.3.1.10.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred

from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.client.transaction import Transaction
from twisted_sendmail.message import PreparedMessage, kept, prepare
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.smtp import (
    ChunkingFailure,
    ConnectionClosed,
    DeliveryReport,
    RecipientResult,
    RecipientStatus,
    SendmailError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.server_status import ServerStatus
    from twisted_sendmail.message import DKIMSigner, Message
    from twisted_sendmail.smtp import AnyRecipient, Envelope, Recipient, ReversePath

#: The end of a job.
JobResult: TypeAlias = DeliveryReport | BaseException


class Following(enum.Enum):
    """The transaction that follows one of a job."""

    #: None: the job has ended.
    NONE = enum.auto()
    #: An additional transaction: to the same recipients, without the extensions that the server
    #: refused as unknown, or to those that were too many.
    AGAIN = enum.auto()
    NEXT_RECIPIENTS = enum.auto()


class Job:
    """A message that is to be sent.

    A message that can be read only once, or is for all recipients or none, is sent in one
    transaction whatever the limits.

    :param message: what the next transaction sends, to its recipients.
    :param on_result: called once with the end: a report, or the error if there is none.
    :param since: when it began to wait.
    :param may_end: see :class:`~twisted_sendmail.client.transaction.Transaction`.
    """

    # Defaults of the class: one assignment less for each message.
    #: Extensions and parameters that its servers refused as unknown.
    unsupported: frozenset[str] = frozenset()
    #: Set by the connection of the pool that sends the job: ``end_connection`` ends the connection if
    #: it has no other message, and returns whether it did; the time at which it took the job; and the
    #: number of its verdicts before.
    end_connection: Callable[[SendmailError], bool] | None = None
    taken_at: float | None = None
    verdicts_before: int = 0
    #: It was sent again because a connection that had served before was dead.
    replaced: bool = False
    #: Times that it was rejected because of the message before it.
    returned: int = 0
    #: Servers that it cannot be sent to any more.
    tried: frozenset[ServerStatus] = frozenset()
    # If it takes several transactions: the message to all recipients; these in the order of their
    # transactions, to which those that were too many are added again, and the part of that order in
    # the transaction under way; the results so far; the number that the server has accepted at a
    # time, once it refused others as too many; and the first report with an accepted recipient.
    _whole: PreparedMessage | None = None
    _order: list[Recipient]
    _begin: int = 0
    _end: int = 0
    _results: dict[Recipient, RecipientResult]
    _most: int | None = None
    _accepted: DeliveryReport | None = None

    def __init__(
        self,
        message: PreparedMessage,
        on_result: Callable[[JobResult], object] | None = None,
        since: float = 0.0,
        all_or_nothing: bool = False,  # noqa: FBT001, FBT002 - an argument by name takes twice as long
        may_end: Callable[[], bool] | None = None,
    ) -> None:
        self.message = message
        self.on_result = on_result
        self.since = since
        self.all_or_nothing = all_or_nothing
        self.may_end = may_end

    @property
    def settled(self) -> bool:
        """True if its end is known."""
        return self.on_result is None

    def begin_transaction(self, limits: Mapping[str, int]) -> bool:
        """Let ``message`` be for the next recipients, as many as *limits* allow.

        :returns: whether others are left after them.
        """
        if not limits and self._whole is None:
            return False  # nearly always
        whole = self._whole or self.message
        if self.all_or_nothing or not whole.rewindable:
            return False
        if self._whole is None:
            self._order, self._results = [*whole.envelope.recipients], {}
        begin = self._begin
        end = batch_end(self._order, begin, limits)
        self._end = end = end if self._most is None else min(end, begin + self._most)
        if end - begin == len(whole.envelope.recipients):
            self.message, self._whole = whole, None
            return False
        self.message, self._whole = whole.to(tuple(self._order[begin:end])), whole
        return end < len(self._order)

    def end_transaction(self, report: DeliveryReport) -> Following:
        """Take the report of a transaction; return what has to follow.

        If nothing has to, *report* belongs in :meth:`join`; before :attr:`Following.AGAIN`,
        ``message`` has to be read from its beginning.
        """
        if report.unsupported:
            self.unsupported |= report.unsupported
            if _nobody_has_it(report) and self.message.rewindable:
                return Following.AGAIN
        alone = self._whole is None and len(report.outcomes) < 2  # nearly always
        if alone or report.error is not None:
            return Following.NONE
        too_many = self._too_many(report)
        if self._whole is None:
            if not too_many:
                return Following.NONE
            self._whole = self.message
            self._order, self._results = [*self.message.envelope.recipients], {}
            self._end = len(self._order)
        expected = self._end < len(self._order)
        if self._begin >= len(self._whole.envelope.recipients) and not report.accepted:
            return Following.NONE  # it is not their number
        if too_many:
            self._most = len(report.accepted)
            self._order += too_many
        self._begin = self._end
        if self._begin == len(self._order):
            return Following.NONE
        self._results |= {each.recipient: each for each in report.outcomes}
        if self._accepted is None and report.accepted:
            self._accepted = report
        self._whole.rewind()
        return Following.NEXT_RECIPIENTS if expected else Following.AGAIN

    def _too_many(self, report: DeliveryReport) -> list[Recipient]:
        """Return the recipients of a transaction that the server may accept in the next one."""
        if self.all_or_nothing or not (report.accepted and self.message.rewindable):
            return []
        return [each.recipient for each in report.outcomes if each.too_many]

    def join(self, last: DeliveryReport) -> DeliveryReport:
        """Return the report on all recipients, where *last* is that of the last transaction."""
        if self._whole is None:
            return _with_refused(last, self.message)
        envelope = self._whole.envelope
        results = self._results | {each.recipient: each for each in last.outcomes}
        outcomes = tuple(
            results.get(each) or RecipientResult(each, RecipientStatus.UNTOUCHED)
            for each in envelope.recipients
        )
        joined = replace(
            self._accepted or last, envelope=envelope, outcomes=outcomes, error=last.error
        )
        joined = _with_refused(joined, self._whole)
        if joined.error is not None:
            joined.error.report = joined
        return joined

    def result(self, end: JobResult) -> JobResult:
        """Return the result for all recipients, where *end* is that of the last transaction."""
        if self._whole is None and not self.message.refused:
            return end  # nearly always
        if isinstance(end, DeliveryReport):
            return self.join(end)
        if self._whole is not None and isinstance(end, SendmailError):
            joined = self.join(end.report or self.report(RecipientStatus.UNTOUCHED, end))
            return end if isinstance(end, CancelledError) else joined
        return end

    def report(self, status: RecipientStatus, error: SendmailError) -> DeliveryReport:
        """Return a report with *status* for the recipients of the transaction under way."""
        message, recipients = self.message, self.message.envelope.recipients
        if self._whole is not None:
            recipients = tuple(self._order[self._begin : self._end])
        return DeliveryReport(
            message.envelope,
            tuple(RecipientResult(each, status) for each in recipients),
            size=message.size or 0,
            error=error,
            message_id=message.message_id,
        )


def _nobody_has_it(report: DeliveryReport) -> bool:
    """Return True if the server has the message for no recipient, and did nothing with it that is known."""
    error = report.error
    undone = not isinstance(error, ChunkingFailure) or error.only_reply
    return not report.accepted and not report.in_doubt and undone


def _with_refused(report: DeliveryReport, message: PreparedMessage) -> DeliveryReport:
    """Add the addresses of the header that cannot be used."""
    if not message.refused:
        return report
    full = replace(report, outcomes=(*report.outcomes, *message.refused))
    if full.error is not None:
        full.error.report = full
    return full


async def prepare_message(
    reactor: Any,
    message: Message,
    *,
    sender: str | ReversePath | None = None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
    envelope: Envelope | None = None,
    complete: bool = True,
    fix_header: bool = True,
    all_or_nothing: bool = False,
    dkim: DKIMSigner | None = None,
) -> PreparedMessage:
    """Call :func:`~twisted_sendmail.message.prepared.prepare`; files are read in a thread.

    :param dkim: signs the message when it is sent; one that can be read only once is kept on the disk.
    :raises InvalidInput: the message cannot be sent as it is.
    :raises SigningUnavailable: it cannot be kept.
    :raises Cancelled: the caller cancelled; nothing was sent.
    """
    run_blocking = partial(off_reactor, reactor)
    try:
        prepared = await prepare(
            message,
            sender=sender,
            recipients=recipients,
            envelope=envelope,
            complete=complete,
            fix_header=fix_header,
            all_or_nothing=all_or_nothing,
            now=reactor.seconds(),
            run_blocking=run_blocking,
        )
        if dkim is not None:
            prepared = await kept(prepared, run_blocking=run_blocking)
            prepared.dkim = dkim
    except CancelledError:
        raise Cancelled("cancelled while the message was read") from None
    return prepared


def deliver(
    protocol: SubmissionProtocol,
    message: PreparedMessage,
    *,
    last: bool = False,
    all_or_nothing: bool = False,
) -> Deferred[DeliveryReport]:
    """Send one message over a session; fires with the report of all its recipients.

    :param last: QUIT follows: a session that is not ready for another message is left as it is.
    :param all_or_nothing: do not deliver to some when others are refused.
    :raises Exception: what the message's own source raises; the recipients of that transaction did
        not get the message.
    :raises Cancelled: the caller cancelled; the connection is closed, and ``report`` says whether
        the message is in doubt.
    """
    return Deferred.fromCoroutine(
        send_job(Job(message, all_or_nothing=all_or_nothing), protocol, last=last)
    )


async def send_job(
    job: Job,
    protocol: SubmissionProtocol,
    *,
    last: bool = False,
    reconnect: Callable[[], Awaitable[SubmissionProtocol]] | None = None,
) -> DeliveryReport:
    """Send *job* over a session, as :func:`deliver` does.

    :param reconnect: opens another session, where the job can go again without an extension that the
        server refused as unknown, and the session is over; not if the message was accepted for some.
    """
    while True:
        more = job.begin_transaction(protocol.session.capabilities.limits)
        try:
            report = await _transact(job, protocol, last=last and not more)
        except Cancelled as error:
            _ = job.result(error)
            raise
        following = job.end_transaction(report)
        if following is Following.NONE:
            return job.join(report)
        if not protocol.usable:
            if following is Following.NEXT_RECIPIENTS:
                why = "the connection ended before the message was sent to every recipient"
                ended = ConnectionClosed("connection closed", detail=why)
                ended.at(host=report.host, tls=report.tls, transcript=report.transcript)
                return job.join(replace(report, outcomes=(), error=ended))
            if reconnect is None or report.accepted:
                return job.join(report)
            try:
                protocol = await reconnect()
            except SendmailError as error:
                end = job.result(error)
                if isinstance(end, DeliveryReport):
                    return end  # an earlier transaction may have been accepted
                raise
        if following is Following.AGAIN:
            job.message.rewind()


def _transact(job: Job, protocol: SubmissionProtocol, *, last: bool) -> Deferred[DeliveryReport]:
    answered: Deferred[DeliveryReport] = Deferred(lambda _: transaction.cancel())
    transaction = Transaction(
        protocol,
        job.message,
        answered.callback,
        last=last,
        all_or_nothing=job.all_or_nothing,
        may_end=job.may_end,
    )
    transaction.begin()
    return answered


def batch_end(recipients: Sequence[Recipient], start: int, limits: Mapping[str, int]) -> int:
    """Return the end of the longest run of *recipients* from *start* that keeps within *limits*."""
    end = min(len(recipients), start + limits.get("RCPTMAX", len(recipients)))
    most_domains = limits.get("RCPTDOMAINMAX", len(recipients))
    if end - start <= most_domains:
        return end
    domains: set[str] = set()
    for index in range(start, end):
        box = recipients[index].path.mailbox
        domains.add(box.ascii_domain.lower() if box else "")
        if len(domains) > most_domains:
            return index
    return end
