"""What the spool knows of a message, and what may be told it: values.

Times are seconds since 1970.  A message is *leased* while somebody tries to deliver it;
that is durable before the first octet of it goes out, so that after a crash every copy
that may exist beside ours can be named (``interrupted``).

RFC 3461 (what a sender may ask for), RFC 3464 (what is reported of a recipient).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import Envelope, value

if TYPE_CHECKING:
    from twisted_sendmail.smtp import Recipient


class RecipientState(enum.Enum):
    """One recipient's."""

    #: He is still to get it.
    PENDING = "pending"
    #: The next hop answers for it.
    DELIVERED = "delivered"
    #: It cannot be delivered, and who had to know was told in the same transaction.
    FAILED = "failed"


class SetAsideReason(enum.Enum):
    """Why a message is not tried any more, though it is kept for the operator."""

    #: It failed, and there is nobody to tell: a report, or mail without a sender.
    UNDELIVERABLE = "undeliverable"
    #: It is not what was written: never delivered.
    DAMAGED = "damaged"


@value
class MessageInfo:
    """A message as it is committed: everything but its content."""

    id: str
    envelope: Envelope
    #: When it was taken in.
    arrived: float
    #: The name of the way out it has to take.
    route: str
    #: Where it came from, one printable line.
    origin: str = ""
    #: An address or the header needs SMTPUTF8.
    smtputf8: bool = False
    #: Its content has octets above 127; None: not looked at.
    eight_bit: bool | None = None
    #: Its content has no lines, and goes by BINARYMIME or not at all.
    binary: bool = False
    #: The Message-ID, with its angle brackets.
    message_id: str | None = None
    #: A machine wrote it: no report is made of it (RFC 3834 section 5, ``Auto-Submitted``).
    automatic: bool = False
    #: Not tried before the operator releases it.
    held: bool = False


@value
class QueuedRecipient:
    """One recipient and how it stands with him."""

    #: His place in the envelope.
    number: int
    recipient: Recipient
    state: RecipientState = RecipientState.PENDING
    #: Not tried before.
    due: float = 0.0
    #: Tries that reached a verdict.
    attempts: int = 0
    #: The last one; None before the first.
    tried: float | None = None
    #: What was said then, or what went wrong: one printable line.
    reply: str | None = None
    #: Its enhanced status, such as ``4.4.1``.
    status: str | None = None
    #: Who said it: ``name[address]:port``.
    relay: str | None = None


@value
class QueuedMessage:
    """A message in the queue."""

    draft: MessageInfo
    #: Octets of content.
    size: int
    recipients: tuple[QueuedRecipient, ...]
    #: The next time it is tried: the earliest of its pending recipients.  Of what is
    #: undeliverable: how many seconds it has been kept (``Spool.clear_aside``).
    due: float = 0.0
    #: How often it was tried.
    attempts: int = 0
    leased: bool = False
    held: bool = False
    #: The operator wants it reported and gone, without another try.
    expired: bool = False
    #: It is removed when the try under way has ended.
    doomed: bool = False
    #: The sender was told that it is late.
    warned: bool = False
    #: Tries whose end nobody saw: so many copies more than one may have gone out.
    interrupted: int = 0
    aside: SetAsideReason | None = None

    @property
    def id(self) -> str:
        """Its name."""
        return self.draft.id

    @property
    def pending(self) -> tuple[QueuedRecipient, ...]:
        """Those who are still to get it."""
        pending = RecipientState.PENDING
        return tuple([r for r in self.recipients if r.state is pending])

    @property
    def queue_name(self) -> str:
        """``active``, ``incoming``, ``deferred``, ``hold`` or ``corrupt``, as operators know them."""
        if self.aside is not None:
            return "corrupt"
        if self.held:
            return "hold"
        if self.leased:
            return "active"
        return "deferred" if self.deferred else "incoming"

    @property
    def deferred(self) -> bool:
        """Somebody was tried, or stood behind a route that was."""
        return self.attempts > 0 or any(r.status is not None for r in self.recipients)


@value
class LeasedMessage:
    """A message that was taken out to be tried."""

    message: QueuedMessage
    #: All of it, where it is small (``spool.SMALL``); else it is read by ``Spool.content``.
    content: bytes | None = field(default=None, repr=False)


@value
class RecipientUpdate:
    """What a try means for one recipient."""

    number: int
    state: RecipientState
    #: The next try, for one who stays pending.
    due: float = 0.0
    reply: str | None = None
    status: str | None = None
    relay: str | None = None


@value
class AttemptRecord:
    """The end of a try: all of it becomes durable together, or nothing does."""

    id: str
    at: float
    #: Of those who were tried; the others stay as they are.
    changes: tuple[RecipientUpdate, ...] = ()
    #: It counts as a try of the message.
    tried: bool = True
    #: The end of the content was on its way and no reply came: a copy may exist.
    in_doubt: bool = False
    #: The sender is told now that it is late.
    warned: bool = False
    #: Keep it, but try it no more.
    aside: SetAsideReason | None = None
    #: Reports about it, with their content: durable before the failure is.
    reports: tuple[tuple[MessageInfo, bytes], ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which messages an operator means; everything that is given has to fit."""

    #: Ids; empty: any.
    ids: tuple[str, ...] = ()
    #: An address, ``@domain``, or a part of one, in either case.
    recipient: str | None = None
    #: The same; ``""`` is the null reverse-path.
    sender: str | None = None
    #: ``active``, ``incoming``, ``deferred``, ``hold`` or ``corrupt``.
    queue: str | None = None
    route: str | None = None
    #: At most so many, the oldest first; None: all.
    limit: int | None = None


class QueueAction(enum.Enum):
    """What an operator may do to messages."""

    #: Due at once, for those who are pending.
    FLUSH = "flush"
    #: Not tried until released.
    HOLD = "hold"
    #: The end of HOLD.
    RELEASE = "release"
    #: Reported to the sender and removed, without another try.
    EXPIRE = "expire"
    #: Removed without a word.
    DELETE = "delete"
    #: As if it were new: due at once, tries counted from zero, no longer undeliverable.
    REQUEUE = "requeue"


@dataclass(frozen=True)
class QueueActionResult:
    """What an action did to one message."""

    id: str
    #: It is being tried at this moment: it may still go out, and is not tried again
    #: (DELETE), or it takes effect when the try has ended.
    on_its_way: bool = False


@dataclass(frozen=True)
class QueueTotals:
    """The queue in numbers."""

    #: Messages by ``QueuedMessage.queue_name``.
    queues: dict[str, int]
    #: Pending recipients that were tried, by enhanced status (``""``: none was said).
    deferred: dict[str, int]
    #: When the oldest message that is not aside arrived; None: there is none.
    oldest: float | None
    #: Octets of content.
    octets: int = 0
