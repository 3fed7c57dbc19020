"""What has happened to mail since the start: counts, and the last failures.

It is told by who watches the relay, and read by the page.  Bounded: a hundred failures,
each a line.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, replace

from twisted_sendmail.smtp import printable

#: Failures that are kept.
KEPT = 100


class Kind(enum.Enum):
    """What went wrong, as the page names it."""

    BOUNCED = "Bounced"
    EXPIRED = "Expired"
    AUTH_REFUSED = "Password refused"
    ROUTE_DOWN = "Way out down"
    DUPLICATE = "Possible duplicate"
    SET_ASIDE = "Set aside"
    TROUBLE = "Trouble"


@dataclass(frozen=True)
class Failed:
    """One failure."""

    at: float
    kind: Kind
    #: What was said, one line.
    said: str
    #: Of which message; None where it concerns none.
    id: str | None = None
    recipient: str | None = None
    #: Who said it, or which way out it is.
    where: str | None = None


@dataclass
class Counts:
    """Recipients, since the start."""

    delivered: int = 0
    bounced: int = 0
    expired: int = 0
    #: Tries that left a recipient waiting.
    deferred: int = 0


class Ledger:
    """Keeps both."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._failures: deque[Failed] = deque(maxlen=KEPT)

    @property
    def failures(self) -> tuple[Failed, ...]:
        """The last ones, the latest first."""
        return tuple(reversed(self._failures))

    def failed(self, failed: Failed) -> None:
        """Note one; its line is cut to what a person reads.

        What is no message's is noted once while it goes on: a way out that is down for a
        night must not drive everything else out.
        """
        failed = replace(failed, said=printable(failed.said, 300))
        if failed.id is None:
            for before in self._failures:
                if (before.kind, before.where, before.said) == (
                    failed.kind,
                    failed.where,
                    failed.said,
                ):
                    self._failures.remove(before)
                    break
        self._failures.append(failed)
