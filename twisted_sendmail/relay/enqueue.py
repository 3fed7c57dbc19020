"""Mail of this process into the queue: ``RelayService.send``.

The message passes the same cleanup as all mail, and is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from twisted_sendmail.client import Cancelled
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import Cleanup, CleanupPolicy
from twisted_sendmail.smtp import DeliveryReport, RecipientStatus, recipient_results

if TYPE_CHECKING:
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.queue import Queue
    from twisted_sendmail.relay.tracker import Queued, Tracker
    from twisted_sendmail.smtp import Envelope

#: Origin of mail of this process, as the queue shows it.
ORIGIN = "this process"


async def enqueue(
    reactor: Any,
    queue: Queue,
    tracker: Tracker,
    policy: CleanupPolicy,
    message: PreparedMessage,
    *,
    held: bool,
) -> Queued:
    """Queue *message* and close it; return when it is durable.

    :raises InvalidInput: it cannot be sent.
    :raises QueueError: it is not in the queue.
    :raises SigningUnavailable: nor if a key that signs it cannot be read.
    :raises Cancelled: the result is in doubt: a commit under way cannot be taken back.
    """
    id_ = queue.new_id()
    intake = queue.intake()
    try:
        cleanup = Cleanup(
            policy,
            message.envelope,
            id_,
            reactor.seconds(),
            origin=ORIGIN,
            own=True,
            binary=message.binary,
            held=held,
        )
        octets = None
        while octets != b"":
            octets = await message.read()
            kept = cleanup.feed(octets) if octets else cleanup.finish()
            waiting = intake.write(kept) if kept else None
            if waiting is not None:
                await waiting
        info = cleanup.message_info()
        if cleanup.dkim is not None:
            await off_reactor(reactor, cleanup.check_keys)
    except BaseException:
        intake.abort()
        raise
    finally:
        await message.close()
    queued = tracker.add(id_, info.envelope)
    queued.refused = message.refused
    try:
        _ = await intake.commit(info)
    except CancelledError:
        tracker.forget(id_)
        raise _in_doubt(info.envelope) from None
    except BaseException:
        tracker.forget(id_)
        raise
    tracker.committed(id_)
    return queued


def _in_doubt(envelope: Envelope) -> Cancelled:
    error = Cancelled(
        "cancelled while the message was written to the queue",
        remedy="the message may be queued; sending it again may make a second copy",
    )
    results = recipient_results(envelope.recipients, {}, RecipientStatus.IN_DOUBT, None)
    error.report = DeliveryReport(envelope, results, error=error)
    return error
