"""Who has to be told what about a message: pure decisions, and when too much is too much.

A sender is told of what failed, of what is late, and where he asked for it of what was
handed to a server that will not tell him.  Never of mail without a sender, of mail that a
machine wrote by its own account, or of a report: such mail is set aside for the operator
when it fails, or returned to a postmaster, once.

The octets of reports are ``message.report``'s.

RFC 3461 section 4.1 and 5.2, RFC 3464, RFC 3834 section 2 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted_sendmail.queue import RecipientState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.queue import QueuedMessage
    from twisted_sendmail.relay.conclusion import Fate
    from twisted_sendmail.relay.retry_policy import RetryPolicy


@dataclass(frozen=True)
class Duties:
    """Who has to be reported about."""

    #: To the sender: it failed.
    failed: tuple[Fate, ...] = ()
    #: To the sender: it is late.
    delayed: tuple[Fate, ...] = ()
    #: To the sender: it went to a server that does not report.
    relayed: tuple[Fate, ...] = ()
    #: The message is at its end, and somebody failed of whom nobody can be told.
    orphaned: bool = False

    def __bool__(self) -> bool:
        return bool(self.failed or self.delayed or self.relayed or self.orphaned)


def duties(
    message: QueuedMessage,
    fates: Sequence[Fate],
    now: float,
    schedule: RetryPolicy,
    *,
    dsn: bool,
) -> Duties:
    """What is due after a try.

    :param fates: of those who were tried.
    :param dsn: the server they were given to reports itself.
    """
    if not has_reader(message):
        return Duties(orphaned=_orphaned(message, fates))
    failed, relayed, delayed = [], [], []
    for fate in fates:
        if fate.state is RecipientState.DELIVERED:
            if not dsn and "SUCCESS" in fate.queued.recipient.notify:
                relayed.append(fate)
        elif fate.state is RecipientState.FAILED:
            if wants(fate, "FAILURE"):
                failed.append(fate)
        elif wants(fate, "DELAY"):
            delayed.append(fate)
    if delayed and (message.warned or not schedule.late(message.draft.arrived, now)):
        delayed = []
    return Duties(tuple(failed), tuple(delayed), tuple(relayed))


def has_reader(message: QueuedMessage) -> bool:
    """Is there anybody to report to?"""
    draft = message.draft
    return draft.envelope.sender.mailbox is not None and not draft.automatic


def wants(fate: Fate, report: str) -> bool:
    """Was this report asked for, or nothing said about it?"""
    notify = fate.queued.recipient.notify
    return not notify or report in notify


def stays(message: QueuedMessage, fates: Sequence[Fate]) -> bool:
    """Is somebody pending still?"""
    settled = {f.queued.number for f in fates if f.state is not RecipientState.PENDING}
    return any(
        r.state is RecipientState.PENDING and r.number not in settled for r in message.recipients
    )


def _orphaned(message: QueuedMessage, fates: Sequence[Fate]) -> bool:
    if stays(message, fates):
        return False
    # Those who failed before could not be told of either.
    before = (r for r in message.recipients if r.state is RecipientState.FAILED)
    now = (f.queued for f in fates if f.state is RecipientState.FAILED)
    return any("NEVER" not in r.recipient.notify for r in (*before, *now))
