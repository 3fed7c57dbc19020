"""Delivery status notifications: the reports about a message, and their recipients.

The sender gets a report about recipients that failed or are late, and, where NOTIFY requests it,
about those that were relayed to a server that does not report.  No report is made about mail with a
null sender, such as a report, or about mail that a program generated: when such mail fails it is set
aside for the operator, or sent to the postmaster, once.  The postmaster's mail has a null sender
too, or one of its own, for providers that refuse a null one; mail from or to that address is never
reported, whatever else it is.

A report comes into the queue as any mail does (``Cleanup``): one to a local user goes where the mail
of local users goes.

A report is committed in the transaction that records the failure (``AttemptRecord.reports``).
The number of reports is limited, because reports about mail with a forged sender go to a third
party: a failure beyond the limit is retried instead.  Nothing is recorded as failed without its report.

``BounceService`` decides and records; ``message.dsn`` composes the reports.

RFC 3461 sections 4 to 6, RFC 3464, RFC 3834 sections 2 and 5, RFC 5321 section 6.1.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import evolve

from twisted_sendmail.message import DSNAction, Report, ReportedRecipient, new_message_id
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import (
    Cleanup,
    CleanupPolicy,
    MessageInfo,
    QueuedRecipient,
    RecipientState,
    SetAsideReason,
)
from twisted_sendmail.relay.events import Event, Reported, SetAside, Trouble
from twisted_sendmail.smtp import (
    Envelope,
    ForwardPath,
    InvalidInput,
    Mailbox,
    ReversePath,
    printable,
)
from twisted_sendmail.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from twisted.python.failure import Failure

    from twisted_sendmail.queue import AttemptRecord, LeasedMessage, Queue, QueuedMessage
    from twisted_sendmail.relay.retry_policy import Chance, RetryPolicy
    from twisted_sendmail.relay.routing import Routing
    from twisted_sendmail.relay.settings import RelaySettings


class ReportsDue(NamedTuple):
    """Recipients to be reported after an attempt; empty: there is nothing to report."""

    failed: tuple[QueuedRecipient, ...] = ()
    delayed: tuple[QueuedRecipient, ...] = ()
    #: Delivered to a server that does not report.
    relayed: tuple[QueuedRecipient, ...] = ()
    #: No recipient is pending, a recipient failed, and there is no sender to report to.
    undeliverable: bool = False


class PostmasterMail:
    """The addresses of the mail to the postmaster.

    :raises InvalidInput: there is no postmaster, or mail to the sender's address goes there too, or
        other mail has that sender: there would be a report about a report.
    """

    def __init__(self, settings: RelaySettings, policy: CleanupPolicy) -> None:
        to, sender = settings.postmaster, settings.postmaster_sender
        #: The postmaster, as given; None: there is none.
        self.to = ForwardPath.parse(to).mailbox if to else None
        #: The sender of the mail to the postmaster; None: the null one.
        self.sender = Mailbox.parse(sender) if sender else None
        self._policy = policy
        self._goes_to = self._recipient(self.to)
        if self.sender is not None:
            self._check(self.sender)

    def _recipient(self, box: Mailbox | None) -> Mailbox | None:
        """Return the address that mail to *box* goes to."""
        rewriting = self._policy.rewriting
        if box is None or rewriting is None:
            return box
        return rewriting.envelope(Envelope(None, ForwardPath(box))).recipients[0].path.mailbox

    def _check(self, sender: Mailbox) -> None:
        rewriting, why, remedy = self._policy.rewriting, "", ""
        if self.to is None:
            why, remedy = "there is no postmaster", "give the postmaster too"
        elif _same(self._recipient(sender), self._goes_to):
            why = "mail to it goes to the postmaster"
            remedy = "name an address that is neither the postmaster's nor a local one"
        elif rewriting is not None:
            found = rewriting.sender(ReversePath(sender)).mailbox
            other = rewriting.sender(ReversePath(Mailbox("nobody", "invalid"))).mailbox
            if not _same(found, sender):
                why = f"it is rewritten to {found}"
                remedy = f'keep it by a rule of its own: "{sender}" = "{sender}" in rewrite.senders'
            elif _same(other, sender):
                why, remedy = "it is the sender of all mail", "name an address of its own"
        if why:
            raise InvalidInput(
                f"mail to the postmaster cannot be sent from '{sender}'", detail=why, remedy=remedy
            )

    def is_for_postmaster(self, row: QueuedRecipient) -> bool:
        """Return True for the postmaster as a recipient."""
        box = row.recipient.path.mailbox
        return _same(box, self.to) or _same(box, self._goes_to)

    def silences(self, message: QueuedMessage) -> bool:
        """Return True for mail that is only from, or only to, the sender of the postmaster's mail."""
        if self.sender is None:
            return False
        return self.is_sender(message.info.envelope.sender.mailbox) or all(
            self.is_sender(row.recipient.path.mailbox) for row in message.recipients
        )

    def is_sender(self, box: Mailbox | None) -> bool:
        """Return True for the address of the mail to the postmaster."""
        return self.sender is not None and _same(box, self.sender)


def _same(one: Mailbox | None, other: Mailbox | None) -> bool:
    return one is not None and other is not None and one.folded == other.folded


def reports_due(
    message: QueuedMessage,
    record: AttemptRecord,
    policy: RetryPolicy,
    postmaster: PostmasterMail,
    *,
    reporting: Collection[str | None],
) -> ReportsDue:
    """Return the recipients to report after an attempt.

    :param record: the attempt.
    :param postmaster: the mail from and to its sender is not reported.
    :param reporting: servers that report by themselves what they accepted.
    """
    info = message.info
    if info.envelope.sender.mailbox is None or info.automatic or postmaster.silences(message):
        return ReportsDue(undeliverable=_undeliverable(message, record.changes))
    failed, delayed, relayed = [], [], []
    for row in record.changes:
        if postmaster.is_sender(row.recipient.path.mailbox):
            continue
        notify = row.recipient.notify
        if row.state is RecipientState.DELIVERED:
            if "SUCCESS" in notify and row.relay not in reporting:
                relayed.append(row)
        elif row.state is RecipientState.FAILED:
            if not notify or "FAILURE" in notify:
                failed.append(row)
        elif not notify or "DELAY" in notify:
            delayed.append(row)
    if message.warned or not policy.late(message.age):
        delayed = []
    return ReportsDue(tuple(failed), tuple(delayed), tuple(relayed))


def _undeliverable(message: QueuedMessage, changes: Sequence[QueuedRecipient]) -> bool:
    after = {row.number: row for row in (*message.recipients, *changes)}.values()
    if any(row.state is RecipientState.PENDING for row in after):
        return False
    return any(
        row.state is RecipientState.FAILED and "NEVER" not in row.recipient.notify for row in after
    )


class BounceService:
    """Adds the reports that are due to the record of an attempt; ``message.dsn`` composes them."""

    def __init__(
        self,
        reactor: Any,
        queue: Queue,
        settings: RelaySettings,
        routing: Routing,
        policy: CleanupPolicy,
        *,
        chance: Chance,
    ) -> None:
        self._reactor = reactor
        self._queue = queue
        self._chance = chance
        self.configure(settings, routing, policy)

    def configure(self, settings: RelaySettings, routing: Routing, policy: CleanupPolicy) -> None:
        """Use these settings from now on.

        :raises InvalidInput: see :class:`PostmasterMail`.
        """
        #: The addresses of the mail to the postmaster.
        self.postmaster = PostmasterMail(settings, policy)
        self._policy = policy
        self._settings = settings
        self._routing = routing
        self._bucket = TokenBucket(self._reactor, settings.report_rate, settings.report_burst)

    async def report(
        self, leased: LeasedMessage, record: AttemptRecord, due: ReportsDue, policy: RetryPolicy
    ) -> tuple[AttemptRecord, list[Event]]:
        """Return *record* with its reports, and the events to announce when it is durable.

        :raises QueueError: the message cannot be read.
        """
        message = leased.message
        if due.undeliverable:
            return await self._undeliverable(leased, record)
        sender = message.info.envelope.sender.mailbox
        # The limit does not apply to messages that the operator expires.
        if sender is not None and (message.expired or self._bucket.take()):
            rows = [
                *_with(due.failed, DSNAction.FAILED),
                *_with(due.delayed, DSNAction.DELAYED),
                *_with(due.relayed, DSNAction.RELAYED),
            ]
            until = record.at + max(0.0, policy.lifetime - message.age)
            record, event = await self._add(leased, record, rows, sender, until=until)
            return evolve(record, warned=bool(due.delayed)), [event]
        if due.failed:
            return self.postpone(record, policy, "too many reports are being sent")
        return record, []

    def postpone(
        self, record: AttemptRecord, policy: RetryPolicy, why: str, failure: Failure | None = None
    ) -> tuple[AttemptRecord, list[Event]]:
        """Return *record* with those who failed pending: they cannot be reported now.

        :param failure: the error for the log, if there was one.
        """
        changes = tuple(
            evolve(
                row,
                state=RecipientState.PENDING,
                due=policy.due(record.at, max(0, row.attempts - 1), self._chance),
            )
            if row.state is RecipientState.FAILED
            else row
            for row in record.changes
        )
        what = f"{record.id} failed, cannot be reported yet, and is tried again"
        event = Trouble(what, why, failure)
        return evolve(record, changes=changes), [event]

    async def _undeliverable(
        self, leased: LeasedMessage, record: AttemptRecord
    ) -> tuple[AttemptRecord, list[Event]]:
        message = leased.message
        postmaster = self.postmaster
        to = postmaster.to
        # Mail to the postmaster is not reported to the postmaster, nor mail from or to its sender.
        never = postmaster.silences(message) or any(
            map(postmaster.is_for_postmaster, message.recipients)
        )
        if to is None or never or not self._bucket.take():
            event = SetAside(record.id, "undeliverable, and there is no sender to notify")
            return evolve(record, aside=SetAsideReason.UNDELIVERABLE), [event]
        # Recipients that failed before could not be reported either.
        rows = [
            row
            for row in (*message.recipients, *record.changes)
            if row.state is RecipientState.FAILED
        ]
        failed = _with(rows, DSNAction.FAILED)
        record, made = await self._add(leased, record, failed, to, sender=postmaster.sender)
        return record, [made]

    async def _add(
        self,
        leased: LeasedMessage,
        record: AttemptRecord,
        rows: list[tuple[QueuedRecipient, DSNAction]],
        to: Mailbox,
        *,
        until: float | None = None,
        sender: Mailbox | None = None,
    ) -> tuple[AttemptRecord, Event]:
        """Return *record* with a report to *to* about *rows*.

        :param until: time until which mail is retried.
        :param sender: of the report; None: the null one.
        """
        message, info = leased.message, leased.message.info
        content = await self._header(message) if leased.content is None else leased.content
        id_, settings, routing = self._queue.new_id(), self._settings, self._routing
        envelope = Envelope(
            ReversePath(sender), ForwardPath(to), require_tls=info.envelope.require_tls
        )
        cleanup = Cleanup(
            self._policy, envelope, id_, record.at, origin=f"report on {message.id}", own=True
        )

        def compose() -> tuple[MessageInfo, bytes, DSNAction]:
            """Compose the report, and prepare it for the queue as any mail; in a thread."""
            tried = _time(record.at)
            retried_until = None if until is None else _time(until)
            report = Report(
                settings.name,
                to,
                tuple(
                    [
                        ReportedRecipient(
                            row.recipient,
                            action,
                            row.status or "5.0.0",
                            row.reply or "",
                            row.relay,
                            tried,
                            retried_until,
                        )
                        for row, action in rows
                    ]
                ),
                arrived=_time(info.arrived),
                now=tried,
                content=content,
                whole=leased.content is not None,
                # RFC 8689 section 5: neither the content nor less protection than it had.
                ret="HDRS" if info.envelope.require_tls else info.envelope.ret,
                envid=info.envelope.envid,
                queue_id=message.id,
                message_id=new_message_id(settings.name),
                sender=sender,
            )
            octets = cleanup.feed(report.to_bytes()) + cleanup.finish()
            cleaned = cleanup.message_info()
            goes_to = cleaned.envelope.recipients[0].path.mailbox
            made = evolve(
                cleaned,
                # A null sender has no provider: the recipient's accepts their address.
                route=cleaned.route if sender else routing.of_report(ReversePath(goes_to)),
                smtputf8=cleaned.smtputf8 or report.international,
                automatic=True,
            )
            return made, octets, report.action

        made, octets, action = await off_reactor(self._reactor, compose)
        found = str(made.envelope.recipients[0])
        event = Reported(message.id, made.id, action.value, printable(found, 320))
        return evolve(record, reports=((made, octets),)), event

    async def _header(self, message: QueuedMessage) -> bytes:
        """Return the first octets of a large message: only its header is returned."""
        pieces = self._queue.content(message.id)
        try:
            async for octets in pieces:
                if octets:
                    return octets
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        return b""


def _with(
    rows: Sequence[QueuedRecipient], action: DSNAction
) -> list[tuple[QueuedRecipient, DSNAction]]:
    return [(row, action) for row in rows]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc).astimezone()
