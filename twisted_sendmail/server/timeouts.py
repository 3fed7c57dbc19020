"""The time that a client may take, and the timer of a connection.

A deadline is set when waiting begins.  Arriving octets do not move it: only a whole command does,
and for content the octets at a least rate.  RFC 5321 section 4.5.3.2.7 (five minutes at least).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import fields, frozen

from twisted_sendmail.smtp import check_positive

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime


@frozen
class ServerTimeouts:
    """The timeouts of a server, in seconds."""

    #: For a TLS handshake.
    handshake: float = 60
    #: From one command to the end of the next.
    command: float = 300
    #: For content, besides the time that :attr:`rate` allows.
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


class Timer:
    """One deadline at a time, identified by a key.

    It is set several times a message and hardly ever passes: so a delayed call that comes early is
    left where it is, and compares the time when it comes.

    :param late: called with the key when a deadline has passed.
    """

    def __init__(self, clock: IReactorTime, late: Callable[[Hashable], None]) -> None:
        self._clock = clock
        self._late = late
        self._key: Hashable = None
        self._at = 0.0
        self._call: IDelayedCall | None = None
        self._comes = 0.0

    def set(self, key: Hashable, seconds: float) -> None:
        """Set a deadline in *seconds*; the deadline of the same key stays as it is."""
        if key == self._key:
            return
        self._key, self._at = key, self._clock.seconds() + seconds
        if self._call is not None and self._comes > self._at:
            self._call.cancel()
            self._call = None
        if self._call is None:
            self._wait()

    def clear(self) -> None:
        """No deadline."""
        self._key = None

    def stop(self) -> None:
        """No deadline any more; cancel the delayed call."""
        call, self._call = self._call, None
        self._key = None
        if call is not None:
            call.cancel()

    def _wait(self) -> None:
        self._comes = self._at
        left = max(self._at - self._clock.seconds(), 0)
        self._call = self._clock.callLater(left, self._fire)

    def _fire(self) -> None:
        self._call = None
        key = self._key
        if key is None:
            return
        if self._clock.seconds() < self._at:
            self._wait()
            return
        self._key = None
        self._late(key)


class ContentClock:
    """Measures how long the client has been sending a content, without our own pauses."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since: float | None = None
        self._used = 0.0
        #: Octets so far.
        self.octets = 0

    def run(self) -> None:
        """The client's time runs."""
        if self._since is None:
            self._since = self._clock.seconds()

    def stop(self) -> None:
        """The client's time stops."""
        if self._since is not None:
            self._used += self._clock.seconds() - self._since
            self._since = None

    def left(self, deadlines: ServerTimeouts) -> float:
        """Seconds that the client has left; negative: it was too slow."""
        running = 0.0 if self._since is None else self._clock.seconds() - self._since
        return deadlines.content + self.octets / deadlines.rate - self._used - running
