"""A prepared message with its DKIM signature: two passes over the content, whose hash precedes it.

A content that can be read again is read again; any other is kept in a temporary file meanwhile
(:func:`kept`). :func:`signed` comes after everything that changes the octets.

RFC 6376 section 5.
"""

from __future__ import annotations

import hashlib
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted_sendmail.message.dkim import SigningInput, SigningUnavailable
from twisted_sendmail.message.prepared import Content, WrappedContent, content_changed
from twisted_sendmail.message.source import READ_SIZE, RunBlocking, SharedFile, run_inline

if TYPE_CHECKING:
    from twisted_sendmail.message.dkim import DKIMSigner
    from twisted_sendmail.message.prepared import PreparedMessage


async def signed(
    message: PreparedMessage,
    signer: DKIMSigner,
    now: float,
    *,
    run_blocking: RunBlocking[Any] = run_inline,
) -> PreparedMessage:
    """Return *message* with its signature before it; reads its content once, and rewinds.

    :param message: as it is sent, and ``rewindable``.
    :param now: for the signature, in seconds since the epoch.
    :param run_blocking: runs work that may take long.
    :raises UnsignableMessage: there is no key for it.
    :raises SigningUnavailable: a key cannot be read.
    :raises Exception: what the message's file or iterator raises.
    """
    read = SigningInput()
    while octets := await message.read():
        await run_blocking(partial(read.feed, octets))
    read.finish()
    message.rewind()
    fields = await run_blocking(partial(signer.sign, read, now))
    small = message.small
    if small is not None:
        return message.with_content(fields + small)
    return message.with_content(_SignedContent(message, fields, read))


async def kept(
    message: PreparedMessage, *, run_blocking: RunBlocking[Any] = run_inline
) -> PreparedMessage:
    """Return *message* in a form that can be read again, from a temporary file without a name.

    The source is read to its end, and closed.

    :raises SigningUnavailable: there is no space.
    :raises Exception: what the message's file or iterator raises.
    """
    if message.rewindable:
        return message
    content = _KeptContent(run_blocking)
    try:
        while octets := await message.read():
            await run_blocking(partial(content.write, octets))
    except BaseException:
        await content.close()
        raise
    finally:
        await message.close()
    content.end(message.long_line)
    return message.with_content(content)


class _KeptContent(Content):
    """Octets in a temporary file."""

    def __init__(self, run_blocking: RunBlocking[Any]) -> None:
        self._run_blocking = run_blocking
        self._shared = SharedFile(lambda: tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - close() does
        self._written = 0
        self._long_line: int | None = None
        self._at = 0
        self.eight_bit = False

    @property
    def rewindable(self) -> bool:
        return True

    @property
    def long_line(self) -> int | None:
        return self._long_line

    def write(self, octets: bytes) -> None:
        """Write the next octets.

        :raises SigningUnavailable: they cannot be written.
        """
        try:
            with self._shared.used() as file:
                file.write(octets)
        except OSError as e:
            raise SigningUnavailable(
                "the message cannot be kept on the disk to be signed",
                detail=e.strerror or type(e).__name__,
                remedy="make space for temporary files, or set TMPDIR to another directory",
            ) from e
        self._written += len(octets)
        self.eight_bit = self.eight_bit or not octets.isascii()

    def end(self, long_line: int | None) -> None:
        """End writing, and begin to read."""
        self.size = self._written
        self._long_line = long_line

    async def read(self) -> bytes:
        octets: bytes = await self._run_blocking(self._read)
        return octets

    def _read(self) -> bytes:
        with self._shared.used() as file:
            _ = file.seek(self._at)
            octets = file.read(READ_SIZE)
            self._at += len(octets)
            return octets

    def rewind(self) -> None:
        self._at = 0

    async def close(self) -> None:
        self._shared.close()


class _SignedContent(WrappedContent):
    """A content with its signature before it; it is read as it was when it was signed, or not at all."""

    def __init__(self, message: PreparedMessage, fields: bytes, read: SigningInput) -> None:
        super().__init__(message)
        self._fields = fields
        self._expected = read.octets_hash
        self.size = len(fields) + read.size
        self.eight_bit = read.eight_bit
        self._begin()

    def _begin(self) -> None:
        self._ahead = self._fields
        self._hash = hashlib.sha256()

    async def read(self) -> bytes:
        if self._ahead:
            octets, self._ahead = self._ahead, b""
            return octets
        octets = await self._content.read()
        if octets:
            self._hash.update(octets)
        elif self._hash.digest() != self._expected:
            raise content_changed()
        return octets

    def rewind(self) -> None:
        super().rewind()
        self._begin()
