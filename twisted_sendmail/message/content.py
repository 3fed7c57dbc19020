"""The canonical octets of a source, pulled in order, with another header in front.

Reads ahead so far that the header is seen, and everything once where it can be read
twice; then the octets come again, as they are sent.  Of a large source never more than
a few chunks are in memory.

What the header says is ``header``'s and ``submission``'s.
"""

from __future__ import annotations

from typing import Any

from twisted_sendmail.message.header import MAX_HEADER
from twisted_sendmail.message.source import AsynchronousSource, ContentSource, RunBlocking
from twisted_sendmail.smtp import Canonicalizer, InvalidMessage, Repair

#: Octets read before anything is decided; what is not longer is small.
AHEAD = MAX_HEADER
#: Octets kept of 8-bit content that can be read twice, should a server need it encoded.
KEPT = 10 * 1024 * 1024


class Content:
    """What is sent of *source*.

    :param policy: for a bare CR or a NUL.
    :param run_blocking: runs what may block.
    """

    def __init__(
        self, source: ContentSource, policy: Repair, run_blocking: RunBlocking[Any]
    ) -> None:
        self.source = source
        self._policy = policy
        self._run_blocking = run_blocking
        self._canonical = Canonicalizer(policy)
        #: Everything was read.
        self.ended = False
        #: Octets that will be sent; None if not known before.
        self.size: int | None = None
        #: Are there octets above 127?  None if not known yet.
        self.eight_bit: bool | None = None
        self._begin = b""
        self._header = b""
        self._old_header = b""
        self._raw_size: int | None = None
        self._given = False
        self._skip = b""
        self._failure: BaseException | None = None

    @property
    def rewindable(self) -> bool:
        """It can be read again."""
        return self.source.rewindable

    async def begin(self) -> bytes:
        """The first :data:`AHEAD` octets and some more, or all there are."""
        source = self.source
        if isinstance(source, AsynchronousSource):
            pieces = []
            while not self.ended and self._canonical.size <= AHEAD:
                pieces.append(self._made_canonical(await source.arrive()))
            self._begin = b"".join(pieces)
        elif source.blocking:
            self._begin = await self._run_blocking(lambda: self._pulled(AHEAD))
        else:
            self._begin = self._pulled(AHEAD)
        return self._begin

    async def with_header(self, header: bytes, instead_of: bytes) -> bytes | None:
        """Put *header* in front, *instead_of* what :meth:`begin` began with.

        Reads the rest once, if it can be read again.

        :returns: all that will be sent, if it is held in memory; None if it has to be
            pulled by :meth:`read`.
        """
        self._header, self._old_header = header, instead_of
        behind = self._begin[len(instead_of) :]
        if self.ended:
            return header + behind
        if not self.source.rewindable:
            self._begin = behind
            self.eight_bit = True if self._canonical.eight_bit else None
            return None
        kept: bytes | None = await self._run_blocking(self._surveyed)
        if kept is not None:
            return header + kept[len(instead_of) :]
        self._raw_size = self._canonical.size
        self.size = self._raw_size - len(instead_of) + len(header)
        self.eight_bit = self._canonical.eight_bit or not header.isascii()
        self.rewind()
        return None

    async def read(self) -> bytes:
        """The next octets to be sent; ``b""`` at the end.

        :raises InvalidMessage: a bare CR or a NUL; or the source is not what it was.
        :raises Exception: what the source raises.
        """
        if not self._given:
            self._given = True
            octets, self._begin = self._header + self._begin, b""
            if octets:
                return octets
        while not self.ended:
            octets = await self._next()
            if self._skip:
                octets = self._skipped(octets)
            if octets:
                return octets
        return b""

    def rewind(self) -> None:
        """Begin again."""
        self.source.rewind()
        self._canonical = Canonicalizer(self._policy)
        self._begin = b""
        self._skip = self._old_header
        self._failure = None
        self.ended = self._given = False

    async def close(self) -> None:
        """Stop reading, in whatever thread, and close the source."""
        self.ended = True
        await self.source.close()

    def _skipped(self, octets: bytes) -> bytes:
        """*octets* less what *header* stands in for."""
        length = min(len(octets), len(self._skip))
        if octets[:length] != self._skip[:length]:
            raise _changed()
        self._skip = self._skip[length:]
        return octets[length:]

    async def _next(self) -> bytes:
        source = self.source
        if self._failure is not None:
            raise self._failure  # a generator that failed would now say that it is at its end
        try:
            if isinstance(source, AsynchronousSource):
                octets = self._made_canonical(await source.arrive())
            elif source.blocking:
                octets = await self._run_blocking(self._step)
            else:
                octets = self._step()
        except BaseException as e:
            self._failure = e
            raise
        if self.ended and self._raw_size not in {None, self._canonical.size}:
            raise _changed()
        return octets

    def _step(self) -> bytes:
        return self._made_canonical(self.source.read())

    def _made_canonical(self, raw: bytes) -> bytes:
        if raw:
            return self._canonical.feed(raw)
        self.ended = True
        return self._canonical.finish()

    def _pulled(self, octets: int) -> bytes:
        pieces = []
        while not self.ended and self._canonical.size <= octets:
            pieces.append(self._step())
        return b"".join(pieces)

    def _surveyed(self) -> bytes | None:
        """Read the rest; give all of it if it is 8-bit and not too much."""
        pieces, canonical = [self._begin], self._canonical
        while not self.ended:
            octets = self._step()
            if canonical.size <= KEPT:
                pieces.append(octets)
            else:
                pieces.clear()
        return b"".join(pieces) if canonical.eight_bit and canonical.size <= KEPT else None


def _changed() -> InvalidMessage:
    return InvalidMessage(
        "the message changed while it was being sent",
        remedy="send a file that nobody writes to",
    )
