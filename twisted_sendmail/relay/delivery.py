"""Delivery attempts: from leased messages to the mailer, and from its results to records.

A message is leased durably before it comes here, so that no octet of it goes out without a trace.
The caller of ``deliver`` gets the record of each attempt, and makes it durable before the message is
tried again.

A message goes to ``RECIPIENTS_AT_ONCE`` of its recipients at a time, one part after the other, so that
other mail does not wait while thousands of results are handled.  When a part ends in anything but
replies of the server, the recipients after it are not tried, and stay due.

RFC 5321 section 4.5.4, RFC 3461 section 5.2.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.client import Job, JobResult
from twisted_sendmail.message import Content, PreparedMessage
from twisted_sendmail.queue import AttemptRecord, MessageDamaged, RecipientState, SetAsideReason
from twisted_sendmail.relay.attempt_result import (
    AttemptOutcome,
    classify_attempt,
    classify_unexpected_error,
    due_recipients,
    expired,
    given_up,
)
from twisted_sendmail.relay.bounce import reports_due
from twisted_sendmail.relay.events import (
    STATUS,
    Attempted,
    Delays,
    SetAside,
    unexpected_error,
)
from twisted_sendmail.relay.retry_policy import elapsed
from twisted_sendmail.smtp import DeliveryReport, MailerClosed, SendmailError, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from twisted_sendmail.queue import DKIMDomain, LeasedMessage, Queue, QueuedRecipient
    from twisted_sendmail.relay.bounce import BounceService
    from twisted_sendmail.relay.events import Event, Observer
    from twisted_sendmail.relay.retry_policy import Chance
    from twisted_sendmail.relay.route import Route, Slot

_log = Logger(namespace="twisted_sendmail.relay")

#: Largest number of recipients of one message that are sent to in one job, and whose results are
#: handled in one turn of the reactor.  Postfix takes as many in one transaction.
RECIPIENTS_AT_ONCE = 1000


@attrs.define(eq=False)
class Attempt:
    """A delivery attempt of one message."""

    route: Route
    #: Called once with its end.
    on_end: OnEnd
    leased: LeasedMessage
    slot: Slot
    #: The recipients that are to be tried.
    recipients: tuple[QueuedRecipient, ...]
    #: Time at which the part under way started.
    since: float
    #: None for a message that the operator expired: it is not sent.
    job: Job | None = None
    #: The results of the parts that have ended, for the record.
    results: list[QueuedRecipient] = attrs.field(factory=list)
    counts: bool = False
    in_doubt: bool = False
    #: Servers that report by themselves what they accepted, as in ``QueuedRecipient.relay``.
    reporting: set[str | None] = attrs.field(factory=set)

    @property
    def part(self) -> tuple[QueuedRecipient, ...]:
        """The recipients that are tried now; empty: all were tried."""
        start = len(self.results)
        return self.recipients[start : start + RECIPIENTS_AT_ONCE]

    def record(self, at: float) -> AttemptRecord:
        """Return the record of the parts that have ended."""
        return AttemptRecord(
            self.leased.message.id,
            at,
            tuple(self.results),
            tried=self.counts,
            in_doubt=self.in_doubt,
            lease=self.leased.lease,
        )


#: Called with an attempt, its record, and the events to announce when the record is durable.  Without
#: a record the message was not tried, and only its lease ends.
OnEnd: TypeAlias = "Callable[[Attempt, AttemptRecord | None, Sequence[Event]], None]"


class DeliveryAgent:
    """All delivery attempts under way.

    :param bounce: adds delivery status notifications to records.
    :param dkim: the domains whose mail is signed.
    :param notify: called with each event.
    """

    def __init__(
        self,
        reactor: Any,
        queue: Queue,
        bounce: BounceService,
        *,
        dkim: Sequence[DKIMDomain],
        notify: Observer,
        chance: Chance,
    ) -> None:
        self._reactor = reactor
        self._queue = queue
        self._bounce = bounce
        self._notify = notify
        self._chance = chance
        self.configure(dkim)
        #: Attempts that have not ended yet.
        self.under_way: set[Attempt] = set()
        self._waiting: list[Deferred[None]] = []

    def configure(self, dkim: Sequence[DKIMDomain]) -> None:
        """Sign mail of these domains from now on, as far as it is to be signed."""
        self._signers = {each.domain: each.signer for each in dkim}

    def deliver(
        self, route: Route, leases: Sequence[tuple[LeasedMessage, Slot]], on_end: OnEnd
    ) -> None:
        """Try messages that were leased for *route*, each with its slot.

        :param on_end: called once for each, with its record.
        """
        now = self._reactor.seconds()
        jobs = []
        route.starting()
        for leased, slot in leases:
            message = leased.message
            tried = (
                message.pending
                if message.expired
                else due_recipients(message, now, route.policy.horizon(now))
            )
            attempt = Attempt(route, on_end, leased, slot, tried, now)
            self.under_way.add(attempt)
            # The message must not stay leased, whatever the error is.
            try:
                if message.expired:
                    self._give_up(attempt)
                else:
                    jobs.append(self._new_job(attempt))
            except Exception as e:  # noqa: BLE001
                self._unexpected(Failure(), attempt, e)
        if jobs:
            route.add(jobs)

    def _new_job(self, attempt: Attempt) -> Job:
        """Return the job that sends the message to the next part of its recipients."""
        leased = attempt.leased
        prepared = stored_message(leased, attempt.part, self._queue)
        domain = leased.message.info.dkim
        if domain is not None:
            # A domain that is not configured any more does not sign.
            prepared.dkim = self._signers.get(domain)
        lease = leased.lease
        attempt.job = Job(
            prepared,
            partial(self._on_result, attempt),
            attempt.since,
            may_end=None if lease.term is None else lease.valid,
        )
        return attempt.job

    # -- the end of an attempt -----------------------------------------------------------

    def _on_result(self, attempt: Attempt, result: JobResult) -> None:
        try:
            self._process(attempt, result)
        except Exception:  # noqa: BLE001 - as above
            self._unexpected(Failure(), attempt, result)

    def _process(self, attempt: Attempt, result: JobResult) -> None:
        message, route, part = attempt.leased.message, attempt.route, attempt.part
        if attempt.leased.content is None and attempt.job is not None:
            _ = Deferred.fromCoroutine(attempt.job.message.close())
        now = self._reactor.seconds()
        rows, outcome, counts, in_doubt, error = classify_attempt(
            message, part, result, now=now, policy=route.policy, chance=self._chance
        )
        if error is not None and not isinstance(error, SendmailError):
            _log.failure("{id} could not be sent", Failure(error), id=message.id)
        route.report_outcome(
            attempt.slot,
            outcome,
            rows[0].reply or "" if rows else "",
            expired=any(map(expired, rows)),
        )
        if outcome is not AttemptOutcome.NOT_TRIED:
            report = result if isinstance(result, DeliveryReport) else None
            self._announce(attempt, rows, now, report, in_doubt=in_doubt)
            if outcome is AttemptOutcome.DAMAGED:
                self._end(attempt, *_damaged(attempt.record(now)))
                return
            attempt.results += rows
            attempt.counts |= counts
            attempt.in_doubt |= in_doubt
            if report is not None and report.dsn:
                attempt.reporting.add(report.host)
            if outcome is AttemptOutcome.REPLIED and attempt.part:
                attempt.since = now
                route.add([self._new_job(attempt)])
                return
        if attempt.results or not part:
            self._report(attempt, now, result)
        else:
            self._end(attempt, None, ())

    def _give_up(self, attempt: Attempt) -> None:
        """End a message that the operator expired, without an attempt."""
        rows = given_up(attempt.part)
        now = self._reactor.seconds()
        self._announce(attempt, rows, now, None, in_doubt=False)
        attempt.results += rows
        if attempt.part:
            _ = self._reactor.callLater(0, self._give_up_rest, attempt)
        else:
            self._report(attempt, now, MailerClosed("expired by the operator"))

    def _give_up_rest(self, attempt: Attempt) -> None:
        try:
            self._give_up(attempt)
        except Exception as e:  # noqa: BLE001 - as above
            self._unexpected(Failure(), attempt, e)

    def _announce(
        self,
        attempt: Attempt,
        rows: Sequence[QueuedRecipient],
        now: float,
        report: DeliveryReport | None,
        *,
        in_doubt: bool,
    ) -> None:
        message = attempt.leased.message
        info = message.info
        sender = info.envelope.sender.mailbox
        taken = None if attempt.job is None else attempt.job.taken_at
        delays = Delays(
            elapsed(info.arrived, attempt.since),
            0.0,  # a leased message is given to the mailer at once
            elapsed(attempt.since, now if taken is None else taken),
            0.0 if taken is None else elapsed(taken, now),
        )
        if report is not None and report.tls is not None:
            attempt.route.note_tls(report.host or "", report.tls)
        for row in rows:
            recipient = row.recipient
            status = "expired" if expired(row) else STATUS[row.state]
            deferred = status == "deferred"
            self._notify(
                Attempted(
                    message.id,
                    attempt.route.name,
                    printable(str(sender), 320) if sender else "",
                    printable(str(recipient.path), 320),
                    _original(recipient.orcpt),
                    row.state,
                    status,
                    row.status or "",
                    row.relay or "none",
                    row.reply or "",
                    delays,
                    due=row.due if deferred else None,
                    in_doubt=in_doubt and deferred,
                    doubles=message.interrupted,
                    tls=None if report is None else report.tls,
                    signature_broken=report is not None and report.signature_broken,
                )
            )

    # -- its record ----------------------------------------------------------------------

    def _report(self, attempt: Attempt, now: float, result: JobResult) -> None:
        """Make the reports that are due, and end the attempt with them."""
        record, policy = attempt.record(now), attempt.route.policy
        due = reports_due(
            attempt.leased.message,
            record,
            policy,
            self._bounce.postmaster,
            reporting=attempt.reporting,
        )
        if not any(due):
            self._end(attempt, record, ())
            return
        making = Deferred.fromCoroutine(self._bounce.report(attempt.leased, record, due, policy))
        _ = making.addErrback(self._not_reported, attempt, record)
        _ = making.addCallback(lambda made: self._end(attempt, *made))
        _ = making.addErrback(self._unexpected, attempt, result)

    def _not_reported(
        self, failure: Failure, attempt: Attempt, record: AttemptRecord
    ) -> tuple[AttemptRecord, Sequence[Event]]:
        """Record no failure that cannot be reported."""
        if failure.check(MessageDamaged):
            return _damaged(record)
        why = "the report could not be made"
        return self._bounce.postpone(record, attempt.route.policy, why, failure)

    def _end(self, attempt: Attempt, record: AttemptRecord | None, events: Sequence[Event]) -> None:
        attempt.on_end(attempt, record, events)
        self._forget(attempt)

    def _unexpected(
        self, failure: Failure, attempt: Attempt, result: JobResult | BaseException
    ) -> None:
        """End an attempt that an error of the relay itself prevents from its end.

        :param result: result of the mailer, or the error that came before it.
        """
        message, policy = attempt.leased.message, attempt.route.policy
        then = "set aside" if message.expired else "tried again later"
        self._notify(unexpected_error(f"{message.id}: unexpected error, {then}", failure))
        now = self._reactor.seconds()
        if message.expired:
            # No wait applies to a message that the operator expired: it would be tried in a loop.
            aside = SetAsideReason.UNDELIVERABLE
            self._end(attempt, attrs.evolve(attempt.record(now), changes=(), aside=aside), ())
            return
        tried = attempt.recipients[: len(attempt.results)] + attempt.part
        rows, _, _, in_doubt, _ = classify_unexpected_error(
            tried, result, now=now, policy=policy, chance=self._chance
        )
        delivered = {row.number: row for row in _delivered(attempt.results)}
        attempt.results = [delivered.get(row.number, row) for row in rows]
        attempt.counts = True
        attempt.in_doubt |= in_doubt
        self._end(attempt, attempt.record(now), ())

    def _forget(self, attempt: Attempt) -> None:
        self.under_way.discard(attempt)
        if not self.under_way:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def stop(self) -> Deferred[None]:
        """Return a Deferred that fires when all attempts have ended."""
        if not self.under_way:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting


def stored_message(
    leased: LeasedMessage, recipients: Sequence[QueuedRecipient], queue: Queue
) -> PreparedMessage:
    """Return a queued message for the mailer: nothing of it is parsed or changed again."""
    message = leased.message
    info = message.info
    envelope = info.envelope
    if len(recipients) != len(envelope.recipients):
        envelope = envelope.to(tuple(each.recipient for each in recipients))
    content: bytes | Content | None = leased.content
    if content is None:
        content = StoredContent(queue, message.id, message.size, info.eight_bit)
    prepared = PreparedMessage(
        envelope, content, smtputf8=info.smtputf8, message_id=info.message_id
    )
    prepared.binary, prepared.encodes_long_lines = info.binary, info.long_lines
    return prepared


class StoredContent(Content):
    """The content of a queued message, read while it is sent; it can be read again."""

    def __init__(
        self,
        queue: Queue,
        id: str,  # noqa: A002 - the field's name
        size: int,
        eight_bit: bool | None,  # noqa: FBT001 - an attribute of the base class
    ) -> None:
        self._queue = queue
        self._id = id
        self._reading: AsyncIterator[bytes] | None = None
        self._abandoned: list[AsyncIterator[bytes]] = []
        self.size = size
        self.eight_bit = eight_bit

    @property
    def rewindable(self) -> bool:
        """True."""
        return True

    async def read(self) -> bytes:
        """Return the next octets; ``b""`` at the end.

        :raises MessageDamaged: they differ from what was written.
        """
        if self._reading is None:
            self._reading = self._queue.content(self._id)
        async for octets in self._reading:
            if octets:
                return octets
        return b""

    def rewind(self) -> None:
        """Start again from the beginning."""
        if self._reading is not None:
            self._abandoned.append(self._reading)
            self._reading = None

    async def close(self) -> None:
        """Stop reading."""
        self.rewind()
        abandoned, self._abandoned = self._abandoned, []
        for reading in abandoned:
            if isinstance(reading, AsyncGenerator):
                await reading.aclose()


def _original(orcpt: str | None) -> str | None:
    """Return ORCPT for ``orig_to=``."""
    if not orcpt:
        return None
    kind, separator, address = orcpt.partition(";")
    return printable(address if separator and kind.lower() == "rfc822" else orcpt, 320)


def _damaged(record: AttemptRecord) -> tuple[AttemptRecord, list[Event]]:
    """Return *record* for a message that is damaged, and the event for it: no failure is reported."""
    changes = _delivered(record.changes)
    aside = SetAsideReason.DAMAGED
    event = SetAside(record.id, "the stored message is damaged")
    return attrs.evolve(record, changes=changes, aside=aside), [event]


def _delivered(rows: Iterable[QueuedRecipient]) -> tuple[QueuedRecipient, ...]:
    return tuple([row for row in rows if row.state is RecipientState.DELIVERED])
