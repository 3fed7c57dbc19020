"""Delivery attempts: from leased messages to the mailer, and from its results to records.

A message is leased durably before it comes here, so that no octet of it goes out without a trace.
The caller of ``deliver`` gets the record of each attempt, and makes it durable before the message is
tried again.

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
from twisted_sendmail.queue import AttemptRecord, MessageDamaged, SetAsideReason
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
    from collections.abc import AsyncIterator

    from twisted_sendmail.queue import DKIMDomain, LeasedMessage, Queue, QueuedRecipient
    from twisted_sendmail.relay.bounce import BounceService
    from twisted_sendmail.relay.events import Event, Observer
    from twisted_sendmail.relay.retry_policy import Chance
    from twisted_sendmail.relay.route import Route, Slot

_log = Logger(namespace="twisted_sendmail.relay")


@attrs.define(eq=False)
class Attempt:
    """A delivery attempt of one message."""

    route: Route
    #: Called once with its end.
    on_end: OnEnd
    leased: LeasedMessage
    slot: Slot
    #: The recipients that are tried.
    recipients: tuple[QueuedRecipient, ...]
    #: Time at which it started.
    since: float
    #: None for a message that the operator expired: it is not sent.
    job: Job | None = None


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
            tried = due_recipients(leased.message, now, route.policy.horizon(now))
            attempt = Attempt(route, on_end, leased, slot, tried, now)
            self.under_way.add(attempt)
            # Whatever the error is, the message must not stay leased.
            try:
                if leased.message.expired:
                    self._give_up(attempt)
                    continue
                prepared = stored_message(leased, tried, self._queue)
                domain = leased.message.info.dkim
                if domain is not None:
                    # A domain that is not configured any more does not sign.
                    prepared.dkim = self._signers.get(domain)
                lease = leased.lease
                attempt.job = job = Job(
                    prepared,
                    partial(self._on_result, attempt),
                    now,
                    may_end=None if lease.term is None else lease.valid,
                )
                jobs.append(job)
            except Exception as e:  # noqa: BLE001
                self._unexpected(Failure(), attempt, e)
        if jobs:
            route.add(jobs)

    # -- the end of an attempt -----------------------------------------------------------

    def _on_result(self, attempt: Attempt, result: JobResult) -> None:
        try:
            self._process(attempt, result)
        except Exception:  # noqa: BLE001 - as above
            self._unexpected(Failure(), attempt, result)

    def _process(self, attempt: Attempt, result: JobResult) -> None:
        message, route = attempt.leased.message, attempt.route
        if attempt.leased.content is None and attempt.job is not None:
            _ = Deferred.fromCoroutine(attempt.job.message.close())
        now = self._reactor.seconds()
        classified = classify_attempt(
            message,
            attempt.recipients,
            result,
            now=now,
            policy=route.policy,
            chance=self._chance,
        )
        if classified.error is not None and not isinstance(classified.error, SendmailError):
            _log.failure("{id} could not be sent", Failure(classified.error), id=message.id)
        rows = classified.recipients
        route.report_outcome(
            attempt.slot,
            classified.outcome,
            rows[0].reply or "" if rows else "",
            expired=any(map(expired, rows)),
        )
        if classified.outcome is AttemptOutcome.NOT_TRIED:
            self._end(attempt, None, ())
            return
        report = result if isinstance(result, DeliveryReport) else None
        self._announce(attempt, rows, now, report, in_doubt=classified.in_doubt)
        if classified.outcome is AttemptOutcome.DAMAGED:
            self._end(attempt, *_damaged(attempt.leased, now))
            return
        record = AttemptRecord(
            message.id,
            now,
            rows,
            tried=classified.counts,
            in_doubt=classified.in_doubt,
            lease=attempt.leased.lease,
        )
        self._report(attempt, record, result, dsn=report is not None and report.dsn)

    def _give_up(self, attempt: Attempt) -> None:
        """End a message that the operator expired, without an attempt."""
        message = attempt.leased.message
        rows = given_up(message)
        now = self._reactor.seconds()
        self._announce(attempt, rows, now, None, in_doubt=False)
        record = AttemptRecord(message.id, now, rows, tried=False, lease=attempt.leased.lease)
        self._report(attempt, record, MailerClosed("expired by the operator"), dsn=False)

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

    def _report(
        self, attempt: Attempt, record: AttemptRecord, result: JobResult, *, dsn: bool
    ) -> None:
        """Make the reports that are due, and end the attempt with them."""
        policy = attempt.route.policy
        due = reports_due(attempt.leased.message, record, policy, self._bounce.postmaster, dsn=dsn)
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
            return _damaged(attempt.leased, record.at)
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
            record = AttemptRecord(
                message.id, now, tried=False, aside=aside, lease=attempt.leased.lease
            )
            self._end(attempt, record, ())
            return
        rows, _, _, in_doubt, _ = classify_unexpected_error(
            attempt.recipients, result, now=now, policy=policy, chance=self._chance
        )
        record = AttemptRecord(message.id, now, rows, in_doubt=in_doubt, lease=attempt.leased.lease)
        self._end(attempt, record, ())

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


def _damaged(leased: LeasedMessage, now: float) -> tuple[AttemptRecord, list[Event]]:
    id_, aside = leased.message.id, SetAsideReason.DAMAGED
    record = AttemptRecord(id_, now, tried=False, aside=aside, lease=leased.lease)
    return record, [SetAside(id_, "the stored message is damaged")]
