"""The time that a client has for a content."""

from __future__ import annotations

from twisted.internet.task import Clock

from twisted_sendmail import ServerTimeouts
from twisted_sendmail.server.timeouts import ContentClock


def test_our_own_pauses_are_no_time_of_the_client() -> None:
    clock = Clock()
    content = ContentClock(clock)
    deadlines = ServerTimeouts(content=10, rate=1)
    content.run()
    clock.advance(4)
    content.stop()
    clock.advance(100)
    content.octets = 3
    content.run()
    clock.advance(2)
    assert content.left(deadlines) == 10 + 3 - 4 - 2
