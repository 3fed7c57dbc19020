"""Events of a relay, for observers such as the log, metrics and the queue page.

Every text in them can be shown as it is: foreign text is escaped before.  None holds a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
from twisted.python.failure import Failure

from twisted_sendmail.queue import RecipientState
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted_sendmail.smtp import TLSFacts

#: ``status=`` by the state of a recipient; one that was given up is ``expired``.
STATUS = {
    RecipientState.DELIVERED: "sent",
    RecipientState.PENDING: "deferred",
    RecipientState.FAILED: "bounced",
}
# Values of every message are not frozen: setting a field of a frozen class takes nine times as
# long.


@attrs.define
class Arrived:
    """A message was committed."""

    id: str
    sender: str
    size: int
    recipients: int
    route: str
    origin: str = ""
    message_id: str | None = None


@attrs.define(unsafe_hash=True)
class Delays:
    """The seconds that a message spent in each stage; as ``delays=`` of Postfix."""

    #: From its arrival to the start of this attempt.
    queued: float
    #: Until the mailer had it.
    preparing: float
    #: Until a connection took it.
    connecting: float
    #: Until the reply.
    sending: float

    @property
    def total(self) -> float:
        """From its arrival to now."""
        return self.queued + self.preparing + self.connecting + self.sending

    @property
    def seconds(self) -> tuple[float, ...]:
        """The stages in order."""
        return (self.queued, self.preparing, self.connecting, self.sending)

    def __str__(self) -> str:
        return "/".join(map(seconds_text, self.seconds))


def seconds_text(value: float) -> str:
    """Return seconds with two significant digits: ``0.0042``, ``3.1``, ``303``."""
    if not value:
        return "0"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


@attrs.define
class Attempted:
    """An attempt for one recipient ended; one line in the log."""

    id: str
    route: str
    sender: str
    recipient: str
    #: Original recipient (``ORCPT``), without its type if that is ``rfc822``.
    original: str | None
    state: RecipientState
    #: ``sent``, ``deferred``, ``bounced`` or ``expired``.
    status: str
    #: Enhanced status code, such as ``4.4.1``.
    dsn: str
    #: ``name[address]:port``; ``none`` without a connection.
    relay: str
    reply: str
    delays: Delays
    #: Time of the next attempt; None: there is none.
    due: float | None = None
    #: The server may have the message, and it is sent again.
    in_doubt: bool = False
    #: Earlier attempts whose end is unknown: this copy may be a duplicate.
    doubles: int = 0
    #: None in clear, or without a connection.
    tls: TLSFacts | None = None
    #: The message is signed, and was encoded for a server without 8BITMIME or SMTPUTF8.
    signature_broken: bool = False


@attrs.frozen
class Reported:
    """A report was committed together with what it reports."""

    id: str
    #: Queue id of the report.
    report: str
    #: ``failed``, ``delayed`` or ``relayed``.
    kind: str
    #: Recipient of the report.
    to: str


@attrs.frozen
class SetAside:
    """A message is kept for the operator, and not tried any more."""

    id: str
    why: str


@attrs.frozen
class Cleared:
    """A message that was set aside is removed: it was kept long enough."""

    id: str
    #: Seconds it was kept.
    kept: float


@attrs.define
class Removed:
    """A message left the queue: no recipient is pending."""

    id: str
    #: Every recipient was delivered at the first attempt, as events before this one show.
    at_once: bool = False


@attrs.frozen
class TLSEstablished:
    """TLS with a server is in use for the first time, or is not as it was before."""

    route: str
    #: ``name[address]:port``.
    relay: str
    tls: TLSFacts


@attrs.frozen
class RouteDown:
    """A route cannot be used; its mail waits in the queue."""

    route: str
    reason: str
    #: Seconds until it is tried again.
    wait: float
    #: It was down already, and an attempt to use it failed.
    again: bool = False
    #: The server refuses the credentials.
    refused: bool = False
    #: Another relay that shares the queue found it down.
    elsewhere: bool = False


@attrs.frozen
class RouteUp:
    """A route can be used again."""

    route: str
    #: Another relay that shares the queue found it up.
    elsewhere: bool = False


@attrs.frozen
class AuthenticationAlarm:
    """A server refuses the credentials: the operator has to act."""

    route: str
    server: str
    reason: str


@attrs.frozen
class Trouble:
    """A local fault; the operation is tried again."""

    what: str
    reason: str
    #: The error, for the log, where it was not expected.
    failure: Failure | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class Interrupted:
    """Messages whose last attempt did not end; a second copy may go out.

    After a start those of this relay, later those of another that shares the queue.
    """

    ids: tuple[str, ...]
    #: Name of the other relay.
    relay: str | None = None


@attrs.frozen
class TakenOver:
    """The lease of a message ended during its attempt, whose result is not recorded.

    Another relay sends the message.
    """

    id: str
    route: str
    #: A server has the message, or may have it: a second copy may go out.
    in_doubt: bool


@attrs.frozen
class RelaysChanged:
    """A relay began or ceased to share the queue."""

    #: Names of those that share it now.
    relays: tuple[str, ...]


Event = (
    Arrived
    | Attempted
    | Reported
    | SetAside
    | Cleared
    | Removed
    | TLSEstablished
    | RouteDown
    | RouteUp
    | AuthenticationAlarm
    | Trouble
    | Interrupted
    | TakenOver
    | RelaysChanged
)
#: Called with each event.
Observer = Callable[[Event], None]


def trouble(what: str, failure: Failure) -> Trouble:
    """Return the event for a known error."""
    return Trouble(what, printable(str(failure.value)))


def unexpected_error(what: str, failure: Failure) -> Trouble:
    """Return the event for an error that nothing in the relay expects."""
    # The text of an unknown exception may be anything, and long.
    return Trouble(
        what, printable(f"{type(failure.value).__name__}: {failure.value}", 300), failure
    )
