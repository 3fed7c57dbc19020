"""Mail of this process: queued by ``RelayService.send``, and tracked until its end.

The message passes the same cleanup as all mail, and is committed.  It outlives the process: after a
restart it is delivered all the same, but no Deferred fires for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from twisted_sendmail.client import Cancelled
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import Cleanup, CleanupPolicy, QueuedRecipient, RecipientState
from twisted_sendmail.shared_result import SharedResult
from twisted_sendmail.smtp import DeliveryReport, MailerClosed, RecipientStatus, recipient_results

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.internet.defer import Deferred

    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.queue import AttemptRecord, Queue, QueuedMessage
    from twisted_sendmail.smtp import Envelope, Recipient, RecipientResult

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


@attrs.frozen
class FinalReport:
    """Result of a message, over all attempts."""

    #: Queue id.
    id: str
    #: The recipients as they were at the end, in the order of the envelope.
    outcomes: tuple[QueuedRecipient, ...]
    #: The message is kept in the queue for the operator, and not tried any more.
    aside: bool = False

    @property
    def delivered(self) -> tuple[QueuedRecipient, ...]:
        """Recipients for whom the next hop accepted responsibility."""
        return self._with(RecipientState.DELIVERED)

    @property
    def failed(self) -> tuple[QueuedRecipient, ...]:
        """Recipients to whom the message cannot be delivered."""
        return self._with(RecipientState.FAILED)

    @property
    def removed(self) -> tuple[QueuedRecipient, ...]:
        """Recipients that were pending when the message was removed from the queue.

        Where several relays share the queue, also those for whom another relay ended the message.
        """
        return self._with(RecipientState.PENDING)

    def _with(self, state: RecipientState) -> tuple[QueuedRecipient, ...]:
        return tuple(each for each in self.outcomes if each.state is state)


class Queued:
    """A message that is durably queued."""

    def __init__(self, id: str, result: SharedResult[FinalReport]) -> None:  # noqa: A002 - the field's name
        #: Queue id, as in the log.
        self.id = id
        #: Addresses of the header that cannot be used: the message is queued for the others.
        self.refused: tuple[RecipientResult, ...] = ()
        self._result = result

    def delivered(self) -> Deferred[FinalReport]:
        """Return a new Deferred, which fires with the report when no recipient is pending.

        That may take days.  Cancelling it stops the waiting, not the mail.

        :raises MailerClosed: the relay stopped before; the mail stays in the queue.
        """
        return self._result.wait()

    def __repr__(self) -> str:
        return f"<Queued {self.id}>"


@attrs.define
class _Tracked:
    recipients: tuple[Recipient, ...]
    #: The results so far, by the number of the recipient.
    rows: dict[int, QueuedRecipient] = attrs.field(factory=dict)
    result: SharedResult[FinalReport] = attrs.field(factory=SharedResult)
    committed: bool = False


class Tracker:
    """Messages queued by this process that have not ended."""

    def __init__(self) -> None:
        self._tracked: dict[str, _Tracked] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """Queue ids of those that were committed."""
        return tuple(id_ for id_, each in self._tracked.items() if each.committed)

    def add(self, id: str, envelope: Envelope) -> Queued:  # noqa: A002 - the field's name
        """Track a message that is about to be committed."""
        tracked = self._tracked[id] = _Tracked(envelope.recipients)
        return Queued(id, tracked.result)

    def committed(self, id: str) -> None:  # noqa: A002 - the field's name
        """Note that a message is in the queue; its attempt may have ended before."""
        if id in self._tracked:
            self._tracked[id].committed = True

    def forget(self, id: str) -> None:  # noqa: A002 - the field's name
        """Stop to track a message: it was not committed."""
        _ = self._tracked.pop(id, None)

    def recorded(self, record: AttemptRecord, left: QueuedMessage | None) -> None:
        """Note the durable result of an attempt.

        :param left: the message as it is in the queue now.
        """
        tracked = self._tracked.get(record.id)
        if tracked is None:
            return
        for row in record.changes:
            tracked.rows[row.number] = row
        if left is None or left.aside is not None:
            self._finish(record.id, aside=left is not None)

    def removed(self, ids: Collection[str]) -> None:
        """End messages that are no longer in the queue."""
        for id_ in ids:
            if id_ in self._tracked:
                self._finish(id_, aside=False)

    def _finish(self, id_: str, *, aside: bool) -> None:
        tracked = self._tracked.pop(id_)
        rows = tracked.rows
        outcomes = [
            rows.get(number) or QueuedRecipient(number, recipient)
            for number, recipient in enumerate(tracked.recipients)
        ]
        tracked.result.set(FinalReport(id_, tuple(outcomes), aside))

    def close(self) -> None:
        """Fail the Deferreds that wait: the relay stops."""
        all_tracked, self._tracked = self._tracked, {}
        for each in all_tracked.values():
            each.result.set(Failure(_stopped()))


def _stopped() -> MailerClosed:
    error = MailerClosed(
        "the relay stopped",
        remedy="the message is in the queue, and goes out after the next start: do not send it again",
    )
    # To send the message again would make a second one.
    error.temporary = False
    return error
