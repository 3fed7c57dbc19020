"""From the verdict of one try to where each recipient stands now: pure.

Here it is decided when a recipient is tried again, and whether that was the last time.
Age alone ends nothing: only a try that failed now may be the last, so that a clock that
jumped, or a machine that slept, cannot bounce mail that was not tried since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from twisted_sendmail.queue import RecipientState, RecipientUpdate
from twisted_sendmail.relay.classify import Blame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.queue import QueuedMessage, QueuedRecipient
    from twisted_sendmail.relay.classify import Judgement
    from twisted_sendmail.relay.retry_policy import Chance, RetryPolicy

#: Delivery time expired (RFC 3463 section 3.5).
EXPIRED = "4.4.7"
# What our own trouble ends is nobody's failure.
_NOT_FINAL = frozenset({Blame.OURS, Blame.DAMAGED, Blame.UNTRIED})


class Fate(NamedTuple):
    """One recipient, behind a try."""

    queued: QueuedRecipient
    state: RecipientState
    status: str
    reply: str
    relay: str | None
    #: The next try, for one who stays pending.
    due: float = 0.0
    #: The last try failed, and he is given up.
    expired: bool = False

    @property
    def word(self) -> str:
        """``sent``, ``deferred``, ``bounced`` or ``expired``."""
        if self.expired:
            return "expired"
        return _WORDS[self.state]

    def change(self) -> RecipientUpdate:
        """The same for the spool."""
        return RecipientUpdate(
            self.queued.number, self.state, self.due, self.reply, self.status, self.relay
        )


_WORDS = {
    RecipientState.DELIVERED: "sent",
    RecipientState.PENDING: "deferred",
    RecipientState.FAILED: "bounced",
}


def changes_of(fates: Sequence[Fate]) -> tuple[RecipientUpdate, ...]:
    """The same for the spool."""
    return tuple([fate.change() for fate in fates])


def conclude(
    message: QueuedMessage,
    tried: Sequence[QueuedRecipient],
    judgement: Judgement,
    *,
    now: float,
    schedule: RetryPolicy,
    chance: Chance,
) -> list[Fate]:
    """Where the recipients who were *tried* stand now.

    :param judgement: has a verdict for each of them, in their order.
    """
    relay = judgement.relay
    fates = []
    gone: bool | None = None
    for queued, verdict in zip(tried, judgement.verdicts, strict=True):
        if verdict.state is not RecipientState.PENDING:
            fates.append(Fate(queued, verdict.state, verdict.status, verdict.reply, relay))
            continue
        if gone is None:
            gone = judgement.blame not in _NOT_FINAL and past_its_time(message, now, schedule)
        if gone and not verdict.at_once:
            fates.append(
                Fate(queued, RecipientState.FAILED, EXPIRED, verdict.reply, relay, expired=True)
            )
            continue
        # Where it was not about him he keeps his place in the row.
        due = min(queued.due, now)
        if verdict.counts:
            due = schedule.due(now, queued.attempts, chance)
        fates.append(
            Fate(queued, RecipientState.PENDING, verdict.status, verdict.reply, relay, due)
        )
    return fates


def past_its_time(message: QueuedMessage, now: float, schedule: RetryPolicy) -> bool:
    """Is a try that failed now the last?"""
    draft = message.draft
    report = draft.envelope.sender.mailbox is None
    return schedule.expired(draft.arrived, now, report=report)


def given_up(message: QueuedMessage) -> list[Fate]:
    """The recipients of a message that the operator wants to be gone: nobody is tried."""
    return [
        Fate(
            queued,
            RecipientState.FAILED,
            EXPIRED,
            "given up by the operator" + (f"; last: {queued.reply}" if queued.reply else ""),
            queued.relay,
            expired=True,
        )
        for queued in message.pending
    ]


def due_recipients(
    message: QueuedMessage, now: float, horizon: float
) -> tuple[QueuedRecipient, ...]:
    """Those who are to be tried now: pending, and due."""
    pending = message.pending
    due = tuple([each for each in pending if each.due <= now or each.due > horizon])
    if due or not pending:
        return due
    # It was leased, so somebody was due, by another clock: the first of them.
    first = min(each.due for each in pending)
    return tuple(each for each in pending if each.due == first)
