"""The time that a client may take.

A deadline is set when waiting begins.  Arriving octets do not move it: only a whole command does,
and for content the octets at a least rate.  RFC 5321 section 4.5.3.2.7 (five minutes at least).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import fields, frozen

from twisted_sendmail.smtp import check_positive

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


@frozen
class ServerTimeouts:
    """The timeouts of a server, in seconds."""

    #: For a TLS handshake.
    handshake: float = 60
    #: From one command to the end of the next.
    command: float = 300
    #: For content, with the time between its chunks, besides the time that :attr:`rate` allows.
    content: float = 600
    #: Octets of content a second, at least, in the long run.
    rate: float = 1000
    #: For reading our replies.
    reading: float = 300
    #: For an orderly close; then the connection is dropped.
    closing: float = 30
    #: For discarding what a client still sends after a reply that ends the session, so that the
    #: reply is not lost to a reset.
    discarding: float = 5
    #: The delay of the first failed login; each further one doubles it (``auth``).
    failed_login: float = 2

    def __attrs_post_init__(self) -> None:
        for each in fields(ServerTimeouts):
            value = getattr(self, each.name)
            if value != 0 or isinstance(value, bool):
                check_positive(f"the timeout '{each.name}'", value, "seconds, zero or more")


class ContentClock:
    """Measures how long the client has been sending a content, without our own pauses."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since: float | None = None
        self._used = 0.0
        #: Octets so far.
        self.octets = 0

    def run(self) -> None:
        """Start the client's time."""
        if self._since is None:
            self._since = self._clock.seconds()

    def stop(self) -> None:
        """Stop the client's time."""
        if self._since is not None:
            self._used += self._clock.seconds() - self._since
            self._since = None

    def left(self, deadlines: ServerTimeouts) -> float:
        """Return the seconds that the client has left; negative: it was too slow."""
        running = 0.0 if self._since is None else self._clock.seconds() - self._since
        return deadlines.content + self.octets / deadlines.rate - self._used - running
