"""When a recipient is tried again, and when that ends: pure.

The wait grows with the tries of that recipient, so that one who is refused does not hold
up another.  The clock may be wrong: a message of the future has no age, and a due time
that no try can have given counts as come (:meth:`RetryPolicy.horizon`).

It does not say how a whole route backs off; that is ``backoff``'s.

RFC 5321 section 4.5.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Gives a number from 0 up to, but not with, 1.
    Chance = Callable[[], float]

#: Seconds by which a due time may lie beyond the longest wait: clocks are set in small steps.
_SLACK = 60.0
# Doublings after which any wait has reached its limit.
_DOUBLINGS = 60


@dataclass(frozen=True)
class RetryPolicy:
    """How patiently mail is tried; all in seconds, but for ``jitter``.

    :raises InvalidInput: for what cannot be a time, or a jitter that is no part of one.
    """

    #: The wait after the first try of a recipient; each one after is twice as long.
    first: float = 300.0
    #: The longest wait.
    most: float = 4000.0
    #: The age at which a try that fails is the last.
    lifetime: float = 5 * 86400.0
    #: The same for reports, which nobody waits for.
    report_lifetime: float = 86400.0
    #: The age at which the sender is told that his message is late.
    warn_after: float = 4 * 3600.0
    #: The part of a wait that chance adds or takes away, so that mail that failed
    #: together does not come back together.
    jitter: float = 0.15

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            share = field.name == "jitter"
            right = isinstance(value, (int, float)) and value is not True
            if not right or not (0 <= value < 1 if share else 0 < value < float("inf")):
                raise InvalidInput(
                    f"the schedule's '{field.name}' cannot be {value!r}",
                    remedy="give a part from 0 to 1" if share else "give seconds above zero",
                )

    def wait(self, attempts: int, chance: Chance) -> float:
        """Seconds until the next try.

        :param attempts: tries of the recipient before the one that failed now.
        """
        return jittered(grown(self.first, self.most, attempts), self.jitter, chance)

    def due(self, now: float, attempts: int, chance: Chance) -> float:
        """When that is."""
        return now + self.wait(attempts, chance)

    def horizon(self, now: float) -> float:
        """A due time beyond is the fruit of a clock that jumped, and counts as come."""
        return now + max(self.first, self.most) * (1 + self.jitter) + _SLACK

    def expired(self, arrived: float, now: float, *, report: bool = False) -> bool:
        """Was a try that failed now the last?  Only such a try may ask."""
        return age(arrived, now) >= (self.report_lifetime if report else self.lifetime)

    def late(self, arrived: float, now: float) -> bool:
        """Is it time to tell the sender that his message is late?"""
        return age(arrived, now) >= self.warn_after


def age(arrived: float, now: float) -> float:
    """How long a message has been here; one of the future: not at all."""
    return max(0.0, now - arrived)


def grown(first: float, most: float, times: int) -> float:
    """*first*, doubled so many *times*, up to *most*."""
    return float(min(max(first, most), first * 2.0 ** min(max(times, 0), _DOUBLINGS)))


def jittered(seconds: float, jitter: float, chance: Chance) -> float:
    """*seconds* with a part of them added or taken away by chance."""
    return seconds * (1 + jitter * (2 * chance() - 1))
