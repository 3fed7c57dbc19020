"""Mail from this process into the queue: prepared as for sending, admitted like all mail.

It ends when the message is durable, or nothing of it is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import CancelledError

from twisted_sendmail.client import Cancelled, prepared
from twisted_sendmail.queue import Cleanup, CleanupPolicy
from twisted_sendmail.smtp import DeliveryReport, RecipientResult, RecipientStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.message import Message, PreparedMessage
    from twisted_sendmail.queue import Queue
    from twisted_sendmail.relay.tracker import Handle, Handles
    from twisted_sendmail.smtp import AnyRecipient, Envelope, ReversePath

#: Where the mail of this process comes from, as the queue shows it.
ORIGIN = "this process"


async def take(
    reactor: Any,
    spool: Queue,
    handles: Handles,
    policy: CleanupPolicy,
    message: Message,
    *,
    sender: str | ReversePath | None = None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
    envelope: Envelope | None = None,
    complete: bool = True,
    held: bool = False,
) -> Handle:
    """Queue *message*; gives its handle.

    :raises InvalidInput: it cannot be sent.
    :raises QueueError: it is not in the queue.
    :raises Cancelled: in doubt, for what is written to the disk cannot be taken back.
    """
    letter = await prepared(
        reactor,
        message,
        sender=sender,
        recipients=recipients,
        envelope=envelope,
        complete=False,  # the cleanup completes the header
    )
    if not complete:
        policy = evolve(policy, complete=False)
    try:
        return await _queue(reactor, spool, handles, policy, letter, held=held)
    finally:
        await letter.close()


async def _queue(
    reactor: Any,
    spool: Queue,
    handles: Handles,
    policy: CleanupPolicy,
    letter: PreparedMessage,
    *,
    held: bool,
) -> Handle:
    id = spool.new_id()  # noqa: A001 - that is its name
    admission = Cleanup(
        policy,
        letter.envelope,
        id,
        reactor.seconds(),
        origin=ORIGIN,
        binary=letter.binary,
        held=held,
    )
    intake = spool.intake()
    try:
        ended = False
        while not ended:
            octets = await letter.read()
            ended = not octets
            kept = admission.finish() if ended else admission.feed(octets)
            waiting = intake.write(kept) if kept else None
            if waiting is not None:
                await waiting
        draft = admission.draft()
    except BaseException:
        intake.abort()
        raise
    handle = handles.open(id, draft.envelope)
    try:
        _ = await intake.commit(draft)
    except CancelledError:
        handles.forget(id)
        raise _in_doubt(draft.envelope) from None
    except BaseException:
        handles.forget(id)
        raise
    handle.committed = True
    return handle


def _in_doubt(envelope: Envelope) -> Cancelled:
    """The end of a wait for a commit that cannot be taken back."""
    error = Cancelled(
        "cancelled while the message was written to the queue",
        remedy="the message may be queued; sending it again may make a second copy",
    )
    outcomes = tuple(
        RecipientResult(each, RecipientStatus.IN_DOUBT) for each in envelope.recipients
    )
    error.report = DeliveryReport(envelope, outcomes, error=error)
    return error
