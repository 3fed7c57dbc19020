"""Status of the servers of a pool: which of them may be connected to now.

A server that could not be reached, or that lets a connection wait, is passed over for a
while if there is another one.  A server that refused the credentials is not tried again
until told: repeated guesses lock accounts.

A server is *proven* while a connection to it is open and no attempt has failed since that
connection became ready.  Any number of connections may be opened to a proven server.  To
another one they are attempted one by one, each when the attempt before is overdue: that
takes ``OVERDUE_SECONDS`` at first, and twice as long with each attempt of the series.  A
series ends when a connection is ready, or when the last attempt failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted_sendmail.smtp import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.smtp import SendmailError

#: Seconds a server that could not be reached is passed over, if there is another.
PASSED_OVER_SECONDS = 30.0
#: Seconds after which an attempt to connect is overdue, for the first of a series.
OVERDUE_SECONDS = 6.0
#: The same at most, for a server whose connections are known to take long.
MAX_OVERDUE_SECONDS = 30.0
#: Connections opening at once to a server that is not proven.
MAX_UNPROVEN_OPENING = 3
#: Attempts of one series.  The oldest is dropped where it takes the place of a new one.
MAX_ATTEMPTS = 5


@dataclass
class _Status:
    """The status of one server."""

    #: Why no connection with these credentials is opened any more.
    locked: SendmailError | None = None
    passed_over_until: float = float("-inf")
    proven: bool = False
    #: Attempts of the series, and when the next one may begin.
    attempts: int = 0
    next_attempt: float = float("-inf")
    #: Seconds after which the first attempt of a series is overdue.
    overdue_seconds: float = OVERDUE_SECONDS


class ServerStatus:
    """The status of *count* servers, by their places in the list."""

    def __init__(self, clock: Any, count: int) -> None:
        self._clock = clock
        self._servers = [_Status() for _ in range(count)]

    # -- attempts to connect -------------------------------------------------------------

    def may_attempt(self, place: int) -> bool:
        """Return whether another connection to the server may be opened now."""
        server = self._servers[place]
        return server.proven or (
            server.attempts < MAX_ATTEMPTS and self._clock.seconds() >= server.next_attempt
        )

    def proven(self, place: int) -> bool:
        """Return whether the server lets connections become ready, as far as is known."""
        return self._servers[place].proven

    def attempt(self, place: int) -> float:
        """Count an attempt to connect; return the seconds after which it is overdue."""
        server = self._servers[place]
        seconds: float = server.overdue_seconds * 2**server.attempts
        if not server.proven:
            server.attempts += 1
        server.next_attempt = self._clock.seconds() + seconds
        return seconds

    def ready(self, place: int, seconds: float) -> None:
        """A connection is ready, and it took *seconds*."""
        server = self._servers[place]
        server.passed_over_until = float("-inf")
        server.proven = True
        server.attempts = 0
        server.overdue_seconds = min(max(OVERDUE_SECONDS, 2 * seconds), MAX_OVERDUE_SECONDS)

    def overdue(self, place: int) -> None:
        """A connection is not ready in time, and still opening."""
        self._servers[place].proven = False
        self.pass_over(place)

    def failed(self, place: int, error: SendmailError) -> None:
        """A connection could not be made ready: no further attempt in this series."""
        server = self._servers[place]
        if isinstance(error, AuthenticationError) and not error.temporary:
            server.locked = error
        server.proven = False
        server.attempts = MAX_ATTEMPTS
        self.pass_over(place)
        server.next_attempt = server.passed_over_until

    def unproven(self, place: int) -> None:
        """No connection to the server is open any more."""
        self._servers[place].proven = False

    def series_over(self, place: int) -> None:
        """No connection to the server is opening any more; the next attempt begins a series."""
        self._servers[place].attempts = 0

    # -- choice of a server --------------------------------------------------------------

    def pass_over(self, place: int) -> None:
        """Prefer other servers for a while."""
        self._servers[place].passed_over_until = self._clock.seconds() + PASSED_OVER_SECONDS

    def is_passed_over(self, place: int) -> bool:
        """Return whether other servers are preferred."""
        now: float = self._clock.seconds()
        return self._servers[place].passed_over_until > now

    def is_locked(self, place: int) -> bool:
        """Return whether the server refused the credentials."""
        return self._servers[place].locked is not None

    def preferred(self, places: Iterable[int]) -> list[int]:
        """Return *places*, the best first, without those whose credentials were refused."""
        free = [place for place in places if not self.is_locked(place)]
        return sorted(free, key=lambda place: (self.is_passed_over(place), place))

    @property
    def hopeless(self) -> bool:
        """Whether every server failed lately."""
        places = range(len(self._servers))
        return all(self.is_locked(place) or self.is_passed_over(place) for place in places)

    @property
    def refusal(self) -> SendmailError:
        """Why the credentials cannot be used; a copy for each caller."""
        return next(each.locked for each in self._servers if each.locked is not None).copy()

    def unlock(self) -> None:
        """Allow refused credentials to be tried again."""
        for server in self._servers:
            server.locked = None
