"""When a recipient is tried again, and when that ends; and how waits behave when a clock jumps.

The wait grows with the attempts of that recipient, so that a recipient who is refused does not
delay another.  ``route.BackOff`` decides how a whole route backs off.

Clocks may jump.  The age of mail is no difference of times, but the time that a relay ran since it
arrived (``RunningTime``).  Everything else in the relay that compares times does so with
:func:`elapsed`, :func:`remaining` and :meth:`RetryPolicy.horizon`: a wait that began in the future
is over, and a due time that no attempt can have given counts as due.
``daemon.clock_watch`` adjusts timers.

RFC 5321 section 4.5.4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from twisted_sendmail.smtp import InvalidInput, check_positive

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Returns a number from 0 up to, but not including, 1.
    Chance = Callable[[], float]

#: Seconds by which a due time may lie beyond the longest wait: clocks are adjusted in small steps.
_CLOCK_TOLERANCE = 60.0
# Doublings after which any wait has reached its limit.
_MAX_DOUBLINGS = 60


@attrs.frozen
class RetryPolicy:
    """Retry intervals and lifetimes, in seconds; ``jitter`` is a fraction.

    :raises InvalidInput: a value is not a time, or the jitter is not between 0 and 1.
    """

    #: Wait after a recipient's first attempt; it doubles with each further attempt.
    first: float = 300.0
    #: Longest wait.
    most: float = 4000.0
    #: Age at which an attempt that fails is the last.
    lifetime: float = 5 * 86400.0
    #: The same for mail with a null sender, such as reports.
    report_lifetime: float = 86400.0
    #: Age at which the sender gets a report of the delay.
    warn_after: float = 4 * 3600.0
    #: Fraction of a wait that is added or subtracted at random, so that mail that failed at one
    #: time is not retried at one time.
    jitter: float = 0.15

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(RetryPolicy):
            what, value = f"the schedule's '{field.name}'", getattr(self, field.name)
            if field.name != "jitter":
                check_positive(what, value, "seconds above zero")
            elif value != 0 or isinstance(value, bool):
                check_positive(what, value, "a part from 0 to 1")
        if self.jitter >= 1:
            raise InvalidInput(
                f"the schedule's 'jitter' cannot be {self.jitter!r}",
                remedy="give a part from 0 to 1",
            )

    def wait(self, attempts: int, chance: Chance) -> float:
        """Return the seconds until the next attempt.

        :param attempts: attempts of the recipient before the one that failed now.
        """
        return jittered(grown(self.first, self.most, attempts), self.jitter, chance)

    def due(self, now: float, attempts: int, chance: Chance) -> float:
        """Return the time of the next attempt."""
        return now + self.wait(attempts, chance)

    def horizon(self, now: float) -> float:
        """Return the latest due time that an attempt can have given; a later one counts as due."""
        return now + max(self.first, self.most) * (1 + self.jitter) + _CLOCK_TOLERANCE

    def expired(self, age: float, *, report: bool = False) -> bool:
        """Return True if an attempt that failed now is the last."""
        return age >= (self.report_lifetime if report else self.lifetime)

    def late(self, age: float) -> bool:
        """Return True if a report of the delay is due."""
        return age >= self.warn_after


def elapsed(since: float, now: float) -> float:
    """Return the seconds since *since*; 0 if that is in the future."""
    return max(0.0, now - since)


def remaining(since: float, wait: float, now: float) -> float:
    """Return the seconds left of a *wait* that began at *since*; 0 if that is in the future."""
    passed = now - since
    return wait - passed if 0 <= passed < wait else 0.0


def grown(first: float, most: float, times: int) -> float:
    """Return *first*, doubled *times* times, but not more than *most*."""
    return float(min(max(first, most), first * 2.0 ** min(max(times, 0), _MAX_DOUBLINGS)))


def jittered(seconds: float, jitter: float, chance: Chance) -> float:
    """Return *seconds*, changed at random by up to the fraction *jitter*."""
    return seconds * (1 + jitter * (2 * chance() - 1))
