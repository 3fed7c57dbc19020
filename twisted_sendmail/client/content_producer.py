"""Content onto the wire with back-pressure: a gigabyte costs what a kilobyte costs.

Pulls one chunk after the other from a letter and waits whenever the transport is
full.  It knows when the transport is not taking anything, for the timeout of
RFC 5321 section 4.5.3.2.5; a source that is slow is not the server's fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Readable(Protocol):
    """What can be pulled: canonical octets, chunk by chunk, ``b""`` at the end."""

    def read(self) -> Awaitable[bytes]:
        """The next chunk."""


@implementer(IPushProducer)
class ContentProducer:
    """Writes everything of *source* by calling *write*, unless paused."""

    def __init__(
        self, source: Readable, write: Callable[[bytes], None], paused: Callable[[bool], None]
    ) -> None:
        self._source = source
        self._write = write
        self._tell = paused
        self._gate: Deferred[None] | None = None
        #: The transport wants no more: the connection is gone.
        self.stopped = False

    async def run(self) -> None:
        """Write it all.

        :raises Exception: whatever the source raises.
        :raises CancelledError: when the transport stops the producer.
        """
        while chunk := await self._source.read():
            if self._gate is not None:
                await self._gate
            if self.stopped:
                raise CancelledError
            self._write(chunk)
        if self._gate is not None:
            # The end waits too: its reply is owed from when the server can have it.
            await self._gate
        if self.stopped:
            raise CancelledError

    def pauseProducing(self) -> None:
        """The transport is full."""
        if self._gate is None:
            self._gate = Deferred()
            self._tell(True)

    def resumeProducing(self) -> None:
        """The transport took what it had."""
        gate, self._gate = self._gate, None
        if gate is not None:
            self._tell(False)
            gate.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.stopped = True
        self.resumeProducing()
