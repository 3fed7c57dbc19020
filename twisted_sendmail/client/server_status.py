"""Status of one server of a pool: its connections, and whether another may be opened now.

A server that could not be reached, or whose connection is not ready in time, is passed over for a
while if there is another server.  A server that refused the credentials is not tried again until
:meth:`~twisted_sendmail.client.mailer.Mailer.unlock`: repeated attempts lock accounts.

A server is *proven* while a connection to it is open and no attempt has failed since that
connection became ready.  Any number of connections may be opened to a proven server.  To another
one connections are attempted one by one, each when the attempt before is overdue: that is after
``OVERDUE_SECONDS`` at first, and after twice as long with each attempt of the series.  A series
ends when a connection is ready, or when the last attempt failed.  No attempt is overdue within
twice the time that the connection took which became ready last, up to ``MAX_OVERDUE_SECONDS``.
"""

from __future__ import annotations

from attrs import define

from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.smtp import AuthenticationError, SendmailError

#: Seconds a server that could not be reached is passed over, if there is another.
PASSED_OVER_SECONDS = 30.0
#: Seconds after which an attempt to connect is overdue, for the first of a series.
OVERDUE_SECONDS = 6.0
#: The same at most, for a server whose connections are known to take long.
MAX_OVERDUE_SECONDS = 30.0
#: Connections opening at once to a server that is not proven.
MAX_UNPROVEN_OPENING = 3
#: Attempts of one series.  The oldest is dropped if a new one needs its place.
MAX_ATTEMPTS = 5


@define(eq=False)
class ServerStatus:
    """Status of *server*; times are the pool's clock."""

    server: SubmissionServer
    #: Connections that have become ready and are not closed yet.
    open: int = 0
    #: Connections that are not ready yet.
    opening: int = 0
    #: The refusal of the credentials, until they may be tried again.
    locked: SendmailError | None = None
    proven: bool = False
    passed_over_until: float = float("-inf")
    #: Attempts of this series.
    attempts: int = 0
    next_attempt: float = float("-inf")
    #: Seconds after which the first attempt of a series is overdue.
    overdue_seconds: float = OVERDUE_SECONDS

    def may_attempt(self, now: float) -> bool:
        """Return whether another connection may be opened now, while others are opening."""
        return self.proven or (self.attempts < MAX_ATTEMPTS and now >= self.next_attempt)

    def passed_over(self, now: float) -> bool:
        """Return whether other servers are preferred."""
        return self.passed_over_until > now

    def pass_over(self, now: float) -> None:
        """Prefer other servers for a while."""
        self.passed_over_until = now + PASSED_OVER_SECONDS

    def attempted(self, now: float) -> float:
        """Count an attempt to connect; return the seconds after which it is overdue."""
        seconds = self.overdue_seconds * 2.0**self.attempts
        if not self.proven:
            self.attempts += 1
        self.next_attempt = now + seconds
        return seconds

    def ready(self, seconds: float) -> None:
        """Record a connection that became ready after *seconds*."""
        self.passed_over_until = float("-inf")
        self.proven = True
        self.attempts = 0
        self.overdue_seconds = min(max(OVERDUE_SECONDS, 2 * seconds), MAX_OVERDUE_SECONDS)

    def overdue(self, now: float) -> None:
        """Record a connection that is not ready in time."""
        self.proven = False
        self.pass_over(now)

    def failed(self, now: float, error: SendmailError) -> None:
        """Record a connection that could not be made ready: this series ends."""
        if isinstance(error, AuthenticationError) and not error.temporary:
            self.locked = error
        self.proven = False
        self.attempts = MAX_ATTEMPTS
        self.pass_over(now)
        self.next_attempt = self.passed_over_until
