"""What the sender in this process holds of a queued message: its name, and its end.

A handle lives as long as the process.  The message outlives it: after a restart it is
delivered all the same, and nobody in here is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from twisted_sendmail.queue import RecipientState
from twisted_sendmail.smtp import MailerClosed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from twisted_sendmail.queue import QueuedMessage
    from twisted_sendmail.relay.conclusion import Fate
    from twisted_sendmail.smtp import Envelope, Recipient


@dataclass(frozen=True)
class FinalOutcome:
    """One recipient's."""

    recipient: Recipient
    #: DELIVERED, FAILED, or PENDING for one who was taken out of the queue by an operator.
    state: RecipientState
    #: The enhanced status, such as ``2.0.0``; None when he was never tried.
    status: str | None = None
    #: What was said last, in one printable line.
    reply: str | None = None
    #: Who said it: ``name[address]:port``.
    relay: str | None = None


@dataclass(frozen=True)
class FinalReport:
    """What became of a message, over all tries."""

    #: Its name in the queue.
    id: str
    outcomes: tuple[FinalOutcome, ...]
    #: It is kept in the queue for the operator, and not tried any more.
    aside: bool = False

    @property
    def delivered(self) -> tuple[FinalOutcome, ...]:
        """Those the next hop answers for."""
        return self._with(RecipientState.DELIVERED)

    @property
    def failed(self) -> tuple[FinalOutcome, ...]:
        """Those who will not get it."""
        return self._with(RecipientState.FAILED)

    @property
    def removed(self) -> tuple[FinalOutcome, ...]:
        """Those who were not decided when the message was taken out of the queue."""
        return self._with(RecipientState.PENDING)

    def _with(self, state: RecipientState) -> tuple[FinalOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.state is state)


class Queued:
    """A message that is durably queued."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        """Its name in the queue and the log."""
        return self._handle.id

    @property
    def delivered(self) -> Deferred[FinalReport]:
        """A new Deferred each time: fires with the report when every recipient is settled.

        That may take days.  Cancelling it stops the waiting, not the mail.

        :raises MailerClosed: the relay stopped before; the mail stays in the queue.
        """
        return self._handle.wait()

    def __repr__(self) -> str:
        return f"<Queued {self.id}>"


class Handle:
    """The inside of ``Queued``: notes what becomes of each recipient."""

    def __init__(self, id: str, envelope: Envelope) -> None:  # noqa: A002 - that is its name
        self.id = id
        #: It is in the queue.
        self.committed = False
        self._outcomes = [FinalOutcome(r, RecipientState.PENDING) for r in envelope.recipients]
        self._waiting: list[Deferred[FinalReport]] = []
        self._report: FinalReport | None = None
        self._closed = False

    def wait(self) -> Deferred[FinalReport]:
        """See :attr:`Queued.delivered`."""
        waiting: Deferred[FinalReport] = Deferred(self._waiting_no_more)
        if self._report is not None:
            waiting.callback(self._report)
        elif self._closed:
            waiting.errback(_closed())
        else:
            self._waiting.append(waiting)
        return waiting

    def _waiting_no_more(self, waiting: Deferred[FinalReport]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def note(self, fates: Sequence[Fate]) -> None:
        """Take in where recipients stand."""
        for fate in fates:
            number = fate.queued.number
            self._outcomes[number] = FinalOutcome(
                self._outcomes[number].recipient, fate.state, fate.status, fate.reply, fate.relay
            )

    def end(self, *, aside: bool) -> None:
        """Nothing more becomes of it."""
        if self._report is not None:
            return
        self._report = FinalReport(self.id, tuple(self._outcomes), aside)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(self._report)

    def close(self) -> None:
        """The relay stops."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(_closed())


class Handles:
    """The handles of all messages that are not settled yet."""

    def __init__(self) -> None:
        self._handles: dict[str, Handle] = {}

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the messages in the queue that somebody holds."""
        return tuple(handle.id for handle in self._handles.values() if handle.committed)

    def open(self, id: str, envelope: Envelope) -> Handle:  # noqa: A002 - that is its name
        """A handle for a message that is about to be committed."""
        handle = self._handles[id] = Handle(id, envelope)
        return handle

    def forget(self, id: str) -> None:  # noqa: A002 - that is its name
        """It was not committed after all."""
        _ = self._handles.pop(id, None)

    def ended(
        self,
        id: str,  # noqa: A002 - that is its name
        fates: Sequence[Fate],
        left: QueuedMessage | None,
    ) -> None:
        """A try was written down."""
        handle = self._handles.get(id)
        if handle is None:
            return
        handle.note(fates)
        if left is None or left.aside is not None:
            del self._handles[id]
            handle.end(aside=left is not None)

    def only(self, asked: Collection[str], there: Collection[str]) -> None:
        """Of the messages *asked* for, these are still in the queue."""
        for id in set(asked) - set(there):  # noqa: A001 - that is its name
            handle = self._handles.pop(id, None)
            if handle is not None:
                handle.end(aside=False)

    def close(self) -> None:
        """The relay stops."""
        handles, self._handles = self._handles, {}
        for handle in handles.values():
            handle.close()


def _closed() -> MailerClosed:
    error = MailerClosed(
        "the relay stopped",
        remedy="the message is in the queue, and goes out after the next start: do not send it again",
    )
    # Another try of the same would be a second message.
    error.temporary = False
    return error
