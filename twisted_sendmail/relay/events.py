"""What happens in a relay, as values for who watches: logs, figures, a page.

Every text in them can be shown as it is: what others wrote was escaped before.  No
secret is ever in one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import value

if TYPE_CHECKING:
    from twisted_sendmail.queue import RecipientState


@value
class Arrived:
    """A message was committed."""

    id: str
    sender: str
    size: int
    recipients: int
    route: str
    origin: str = ""
    message_id: str | None = None


def seconds(value: float) -> str:
    """Two digits where that says something: ``0.0042``, ``3.1``, ``303``."""
    if not value:
        return "0"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


@value
class Delays:
    """Where the time of a message went; seconds."""

    #: From its arrival to the begin of this try.
    queued: float
    #: Until it was given to the mailer.
    preparing: float
    #: Until a connection took it.
    connecting: float
    #: Until the verdict.
    sending: float

    @property
    def total(self) -> float:
        """From its arrival to now."""
        return self.queued + self.preparing + self.connecting + self.sending

    def __str__(self) -> str:
        parts = (self.queued, self.preparing, self.connecting, self.sending)
        return "/".join(map(seconds, parts))


@value
class Attempted:
    """One recipient was tried, or given up; one line in the log."""

    id: str
    route: str
    sender: str
    recipient: str
    #: ``ORCPT``, where it was given.
    original: str | None
    state: RecipientState
    #: ``sent``, ``deferred``, ``bounced`` or ``expired``.
    status: str
    #: The enhanced status, such as ``4.4.1``.
    dsn: str
    #: ``name[address]:port``; ``none`` without a connection.
    relay: str
    reply: str
    delays: Delays
    #: The next try; None when there is none.
    due: float | None = None
    #: The server may have it, and it is tried again.
    in_doubt: bool = False
    #: This copy may be a second one: so many tries before had an end that nobody saw.
    doubles: int = 0
    #: The version of TLS; None in clear, or without a connection.
    tls: str | None = None


@dataclass(frozen=True)
class Reported:
    """A report was committed together with what it reports."""

    id: str
    #: Its own name in the queue.
    report: str
    #: ``failed``, ``delayed`` or ``relayed``.
    kind: str
    #: To whom.
    to: str


@dataclass(frozen=True)
class SetAside:
    """A message is kept for the operator, and not tried any more."""

    id: str
    why: str


@dataclass(frozen=True)
class Cleared:
    """A message that was set aside is removed: nobody took care of it."""

    id: str
    #: For how long it was kept, in seconds.
    kept: float


@value
class Removed:
    """A message is gone from the queue: nobody is pending."""

    id: str
    #: Everybody got it, all at its first try: what was told of that says it already.
    at_once: bool = False


@dataclass(frozen=True)
class RouteDown:
    """Nothing gets through on a route; its mail waits in the queue."""

    route: str
    reason: str
    #: When it is asked again, in seconds.
    wait: float


@dataclass(frozen=True)
class RouteUp:
    """Mail gets through again."""

    route: str


@dataclass(frozen=True)
class AuthenticationAlarm:
    """A server does not accept our credentials: somebody has to look at it."""

    route: str
    server: str
    reason: str


@dataclass(frozen=True)
class Trouble:
    """Something of ours does not work, and is tried again."""

    what: str
    reason: str


@dataclass(frozen=True)
class Interrupted:
    """After a start: messages whose last try nobody saw the end of; they may go twice."""

    ids: tuple[str, ...]


Event = (
    Arrived
    | Attempted
    | Reported
    | SetAside
    | Cleared
    | Removed
    | RouteDown
    | RouteUp
    | AuthenticationAlarm
    | Trouble
    | Interrupted
)
#: Who is told.
Observer = Callable[[Event], None]
