"""What is piped into the command.

A pipe is read into memory up to :data:`HEAD` octets, before there is a connection; the
rest of what is longer is a stream, read by the reactor as the server takes it.  A
regular file behind stdin is left to whoever reads files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

#: Octets held in memory before a message becomes a stream: what is in memory can be
#: looked at whole before anything is sent.
HEAD = 1024 * 1024
_CHUNK = 65536


def is_piped(descriptor: int) -> bool:
    """Is it a pipe, a socket or a terminal: something that makes its reader wait?"""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def read_head(descriptor: int) -> tuple[bytes, bool]:
    """Wait for what there is, up to :data:`HEAD` octets and a bit; and is it all?"""
    pieces: list[bytes] = []
    size = 0
    while size <= HEAD:
        piece = os.read(descriptor, _CHUNK)
        if not piece:
            return b"".join(pieces), True
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), False


@dataclass(frozen=True)
class LongPipe:
    """More than was read into memory."""

    head: bytes
    descriptor: int

    async def stream(self, reactor: Any) -> AsyncIterator[bytes]:
        """All of it, from the beginning; once."""
        yield self.head
        reader = PipeReader(reactor, self.descriptor)
        while piece := await reader.read():
            yield piece


@implementer(IReadDescriptor)
class PipeReader:
    """Reads a descriptor when there is something to read.

    :param reactor: an ``IReactorFDSet``.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._waiting: Deferred[bytes] | None = None

    def read(self) -> Deferred[bytes]:
        """The next octets; ``b""`` at the end.  Not to be called again before it fires."""
        self._waiting = Deferred(lambda _: self._reactor.removeReader(self))
        self._reactor.addReader(self)
        return self._waiting

    # -- IReadDescriptor --------------------------------------------------------

    def fileno(self) -> int:
        """See ``IReadDescriptor``."""
        return self._descriptor

    def doRead(self) -> None:  # noqa: N802
        """See ``IReadDescriptor``."""
        self._reactor.removeReader(self)
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        try:
            octets = os.read(self._descriptor, _CHUNK)
        except OSError as e:
            waiting.errback(e)
        else:
            waiting.callback(octets)

    def connectionLost(self, reason: Any) -> None:
        """See ``IReadDescriptor``: the other end is gone; what it wrote may still be there."""
        if self._waiting is not None:
            self.doRead()

    def logPrefix(self) -> str:  # noqa: N802
        """See ``ILoggingContext``."""
        return "stdin"
