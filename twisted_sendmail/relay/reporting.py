"""Reports on their way into the queue: committed together with what they report.

How many are made is bounded, or a forged sender could turn the relay against him: who
fails beyond that stays pending, and is tried again.  Nothing is ticked off untold.

Who has to be told is ``bounce``'s; the octets are ``message.report``'s.

RFC 3461 section 4.3 and 6, RFC 3464, RFC 5321 section 6.1.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from attrs import evolve

from twisted_sendmail.client import TokenBucket, off_reactor
from twisted_sendmail.message import DSNAction, Report, ReportedRecipient, new_message_id
from twisted_sendmail.queue import MessageInfo, RecipientState, SetAsideReason
from twisted_sendmail.relay.conclusion import Fate, changes_of
from twisted_sendmail.relay.events import Event, Reported, SetAside, Trouble
from twisted_sendmail.relay.ledger import Ending
from twisted_sendmail.smtp import Envelope, ForwardPath, Mailbox, ReversePath, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.queue import LeasedMessage, Queue, QueuedMessage
    from twisted_sendmail.relay.bounce import Duties
    from twisted_sendmail.relay.retry_policy import Chance, RetryPolicy
    from twisted_sendmail.relay.routing import Routing
    from twisted_sendmail.relay.settings import RelaySettings

#: What could not go out would not come back either, but for its header: too big, or of a kind
#: that the next server does not take (RFC 3463 sections 3.4 and 3.7).
_STAYS_HERE = frozenset({"5.3.4", "5.6.1", "5.6.3"})
_Said = tuple[Fate, DSNAction]


class Reporter:
    """See the module."""

    def __init__(
        self,
        reactor: Any,
        spool: Queue,
        settings: RelaySettings,
        routing: Routing,
        chance: Chance,
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self._chance = chance
        self.configure(settings, routing)

    def configure(self, settings: RelaySettings, routing: Routing) -> None:
        """Use these settings from now on."""
        self._settings = settings
        self._routing = routing
        self._bucket = TokenBucket(self._reactor, settings.report_rate, settings.report_burst)
        self._postmaster = (
            ForwardPath.parse(settings.postmaster).mailbox if settings.postmaster else None
        )

    async def report(
        self, leased: LeasedMessage, ending: Ending, due: Duties, schedule: RetryPolicy
    ) -> Ending:
        """*ending* with the report that is due.

        :raises QueueError: the message cannot be read.
        """
        message = leased.message
        work = _Work(ending)
        if due.orphaned:
            await self._orphaned(leased, work)
            return work.ending()
        sender = message.draft.envelope.sender.mailbox
        # What the operator gives up is told of, however much it is.
        if sender is not None and (message.expired or self._bucket.take()):
            said = [
                *_said(due.failed, DSNAction.FAILED),
                *_said(due.delayed, DSNAction.DELAYED),
                *_said(due.relayed, DSNAction.RELAYED),
            ]
            until = message.draft.arrived + schedule.lifetime
            await self._add(leased, said, sender, work, until)
            work.warned = bool(due.delayed)
        elif due.failed:
            work.postpone("too many reports are being made", schedule, self._chance)
        return work.ending()

    def unreported(self, ending: Ending, schedule: RetryPolicy) -> Ending:
        """*ending*, where nobody can be told just now: who failed is tried again later."""
        work = _Work(ending)
        work.postpone("the report could not be made", schedule, self._chance)
        return work.ending()

    async def _orphaned(self, leased: LeasedMessage, work: _Work) -> None:
        """Nobody can be told but the postmaster; nor he, of what was for himself."""
        message = leased.message
        to = self._postmaster
        known = {r.recipient.path.mailbox for r in message.recipients}
        if to is None or to in known or not self._bucket.take():
            work.set_aside("it failed, and there is nobody to tell")
            return
        before = [
            Fate(r, RecipientState.FAILED, r.status or "5.0.0", r.reply or "", r.relay)
            for r in message.recipients
            if r.state is RecipientState.FAILED
        ]
        now = [fate for fate in work.fates if fate.state is RecipientState.FAILED]
        await self._add(leased, _said([*before, *now], DSNAction.FAILED), to, work, None)

    async def _add(
        self,
        leased: LeasedMessage,
        said: list[_Said],
        to: Mailbox,
        work: _Work,
        until: float | None,
    ) -> None:
        message, now = leased.message, work.settlement.at
        draft = message.draft
        content = leased.content
        stays = any(fate.status in _STAYS_HERE for fate, _ in said)
        report = Report(
            self._settings.name,
            to,
            tuple(
                ReportedRecipient(
                    fate.queued.recipient,
                    action,
                    fate.status,
                    fate.reply,
                    fate.relay,
                    _time(now),
                    None if until is None else _time(until),
                )
                for fate, action in said
            ),
            arrived=_time(draft.arrived),
            now=_time(now),
            content=await self._begin(message) if content is None else content,
            whole=content is not None,
            ret="HDRS" if stays else draft.envelope.ret,
            envid=draft.envelope.envid,
            queue_id=message.id,
            message_id=new_message_id(self._settings.name),
        )
        octets = await off_reactor(self._reactor, report.to_bytes)
        made = MessageInfo(
            id=self._spool.new_id(),
            envelope=Envelope(None, ForwardPath(to)),
            arrived=now,
            route=self._routing.of_report(ReversePath(to)),
            origin=f"report on {message.id}",
            smtputf8=report.international,
            eight_bit=not octets.isascii(),
            message_id=report.message_id,
            automatic=True,
        )
        work.reports.append((made, octets))
        shown = printable(str(to), 320)
        work.events.append(Reported(message.id, made.id, report.action.value, shown))

    async def _begin(self, message: QueuedMessage) -> bytes:
        """The first octets of a large message: its header, for nothing more is returned."""
        pieces = self._spool.content(message.id)
        try:
            async for octets in pieces:
                if octets:
                    return octets
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        return b""


def _said(fates: Sequence[Fate], action: DSNAction) -> list[_Said]:
    return [(fate, action) for fate in fates]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc).astimezone()


class _Work:
    """An ending in the making."""

    def __init__(self, ending: Ending) -> None:
        self.settlement = ending.settlement
        self.fates = list(ending.fates)
        self.events: list[Event] = list(ending.events)
        self.reports: list[tuple[MessageInfo, bytes]] = []
        self.warned = False
        self._aside: SetAsideReason | None = None

    def set_aside(self, why: str) -> None:
        self._aside = SetAsideReason.UNDELIVERABLE
        self.events.append(SetAside(self.settlement.id, why))

    def postpone(self, why: str, schedule: RetryPolicy, chance: Chance) -> None:
        """Who failed stays pending."""
        self.events.append(
            Trouble(f"nobody can be told yet that {self.settlement.id} failed: tried again", why)
        )
        now = self.settlement.at
        self.fates = [
            fate._replace(
                state=RecipientState.PENDING,
                due=schedule.due(now, fate.queued.attempts, chance),
                expired=False,
            )
            if fate.state is RecipientState.FAILED
            else fate
            for fate in self.fates
        ]

    def ending(self) -> Ending:
        settlement = evolve(
            self.settlement,
            changes=changes_of(self.fates),
            reports=tuple(self.reports),
            warned=self.warned,
            aside=self._aside or self.settlement.aside,
        )
        return Ending(settlement, self.fates, self.events)
