"""What is known of the servers of a pool: which of them may be connected to just now.

A server that could not be reached is passed over for a while, if there is another.  One
that refused the credentials is not tried again until told: guessing on locks accounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.smtp.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.smtp.root_error import SendmailError

#: Seconds a server that could not be reached is passed over, if there is another.
SHUNNED = 30.0


class Standing:
    """The servers, by their places in the list of *count*."""

    def __init__(self, clock: Any, count: int) -> None:
        self._clock = clock
        self._count = count
        # Why no connection with these credentials is opened any more.
        self._locked: dict[int, SendmailError] = {}
        self._shunned: dict[int, float] = {}

    def ready(self, place: int) -> None:
        """A connection to it is ready."""
        self._shunned.pop(place, None)

    def failed(self, place: int, error: SendmailError) -> None:
        """A connection to it could not be made ready."""
        if isinstance(error, AuthenticationError) and not error.transient:
            self._locked[place] = error
        self.shun(place)

    def shun(self, place: int) -> None:
        """Pass it over for a while."""
        self._shunned[place] = self._clock.seconds() + SHUNNED

    def is_shunned(self, place: int) -> bool:
        """Is it passed over?"""
        until = self._shunned.get(place)
        return until is not None and until > self._clock.seconds()

    def best(self, places: Iterable[int]) -> int | None:
        """Which of *places* to connect to; None if the credentials were refused at all of them."""
        free = [place for place in places if place not in self._locked]
        return min(free, key=lambda place: (self.is_shunned(place), place), default=None)

    @property
    def hopeless(self) -> bool:
        """Did every server fail lately?"""
        return all(place in self._locked or self.is_shunned(place) for place in range(self._count))

    @property
    def refusal(self) -> SendmailError:
        """Why there is no best one; each who is told has his own."""
        return copied(next(iter(self._locked.values())))

    def unlock(self) -> None:
        """Passwords that were refused may be tried again."""
        self._locked.clear()


def copied(error: SendmailError) -> SendmailError:
    """The same error for one more who waited: each has a report of his own."""
    copy = type(error).__new__(type(error))
    copy.__dict__.update(error.__dict__)
    copy.args = error.args
    copy.report = None
    copy.__cause__ = error
    return copy
