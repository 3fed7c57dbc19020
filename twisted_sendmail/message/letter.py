"""A message ready to be sent: its envelope, what it needs, and its canonical octets.

Preparing looks at everything that can be looked at before a connection is made: the
addresses, the header, and for anything that can be read twice the whole content.

RFC 6409 section 8, RFC 5321 section 2.3.8.
"""

from __future__ import annotations

import os
from email.message import Message as MIMEMessage
from typing import TYPE_CHECKING, Any

from twisted_sendmail.message.header import Header, header_end
from twisted_sendmail.message.mime import seven_bit, written
from twisted_sendmail.message.source import OctetsSource, RunBlocking, Source, run_inline, source_of
from twisted_sendmail.message.submission import completed, message_id, recipients_of, sender_of
from twisted_sendmail.smtp.envelope import AnyRecipient, Envelope
from twisted_sendmail.smtp.root_error import InvalidInput
from twisted_sendmail.smtp.transparency import Canonical, Repair

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from twisted_sendmail.message.source import Message
    from twisted_sendmail.smtp.address import ReversePath

#: Octets up to which a message is held in memory and sent in one go.
SMALL = 1024 * 1024
#: Octets up to which a message may be encoded anew for a 7-bit server.
MAX_ENCODED = 10 * 1024 * 1024


class Letter:
    """What :func:`prepare` makes; pulled with :meth:`read`, closed with :meth:`close`."""

    def __init__(
        self, envelope: Envelope, header: bytes, content: _Content, *, smtputf8: bool
    ) -> None:
        self.envelope = envelope
        self._header = header
        self._content = content
        self._header_given = False
        #: The header or an address needs SMTPUTF8.
        self.smtputf8 = smtputf8
        #: The Message-ID, with its angle brackets.
        self.message_id = message_id(Header.parse(header))
        #: It can be sent a second time.
        self.rewindable = content.source.rewindable
        #: The whole message, if it is in memory and small.
        self.small: bytes | None = None

    @property
    def size(self) -> int | None:
        """Octets to be sent; None if that can be known only when they are."""
        size = self._content.size
        return None if size is None else len(self._header) + size - self._content.skip

    @property
    def eight_bit(self) -> bool | None:
        """Are there octets above 127?  None if not known yet."""
        return True if not self._header.isascii() else self._content.eight_bit

    async def read(self) -> bytes:
        """The next canonical octets; ``b""`` at the end.

        :raises InvalidMessage: a bare CR or a NUL, in what could not be looked at before.
        :raises Exception: what the message's source raises.
        """
        if not self._header_given:
            self._header_given = True
            if self._header:
                return self._header
        return await self._content.read()

    def rewind(self) -> None:
        """Begin again; only if it is ``rewindable``."""
        self._header_given = False
        self._content.rewind()

    async def close(self) -> None:
        """Close what was opened for it."""
        await self._content.source.close()

    def seven_bit(self) -> Letter | None:
        """The same with its 8-bit parts encoded; None where that cannot be done."""
        octets = self._content.octets
        if octets is None or len(octets) > MAX_ENCODED:
            return None
        encoded = seven_bit(self._header + octets[self._content.skip :])
        if encoded is None:
            return None
        content = _Content.of_octets(encoded, Repair.REFUSE)
        letter = Letter(self.envelope, b"", content, smtputf8=self.envelope.needs_smtputf8)
        letter.message_id = self.message_id
        letter.small = content.octets if len(encoded) <= SMALL else None
        return letter


class _Content:
    """A source and its canonical form, of which the first *skip* octets are left out."""

    def __init__(self, source: Source, policy: Repair, run_blocking: RunBlocking[Any]) -> None:
        self.source = source
        self._policy = policy
        self._run_blocking = run_blocking
        self.size: int | None = None
        self.eight_bit: bool | None = None
        self.octets: bytes | None = None
        self.skip = 0
        self._reset()

    def _reset(self) -> None:
        self._canonical = Canonical(self._policy)
        self._skipped = 0
        self._pending: list[bytes] = []
        self._done = False

    @classmethod
    def of_octets(cls, octets: bytes, policy: Repair) -> _Content:
        """Content in memory, made canonical at once."""
        canonical = Canonical(policy)
        clean = canonical.feed(octets) + canonical.finish()
        content = cls(OctetsSource(clean), policy, run_inline)
        content.octets, content.size, content.eight_bit = clean, len(clean), canonical.eight_bit
        return content

    async def next(self) -> bytes:
        """The next canonical octets, nothing left out; ``b""`` at the end."""
        while not self._done:
            if self.source.blocking:
                octets: bytes = await self._run_blocking(self._step)
            else:
                octets = self._canonize(await self.source.read())
            if octets:
                return octets
        return b""

    def _step(self) -> bytes:
        return self._canonize(self.source.read_now())

    def _canonize(self, raw: bytes) -> bytes:
        if raw:
            return self._canonical.feed(raw)
        self._done = True
        return self._canonical.finish()

    async def head(self) -> bytes:
        """The header section; what was read beyond it is kept for :meth:`read`."""
        seen = b""
        while True:
            more = await self.next()
            seen += more
            end = header_end(seen, complete=not more)
            if end is not None:
                self.skip = self._skipped = end
                if seen[end:]:
                    self._pending.append(seen[end:])
                return seen[:end]

    async def survey(self) -> None:
        """Read everything once, to know its size and octets, and that it can be sent."""

        def pass_over() -> tuple[int, bool]:
            canonical = Canonical(self._policy)
            while raw := self.source.read_now():
                canonical.feed(raw)
            canonical.finish()
            return canonical.size, canonical.eight_bit

        run = self._run_blocking if self.source.blocking else run_inline
        self.size, self.eight_bit = await run(pass_over)
        self.rewind()

    async def read(self) -> bytes:
        """The next canonical octets behind those left out."""
        if self._pending:
            return self._pending.pop()
        while octets := await self.next():
            left = self.skip - self._skipped
            if left >= len(octets):
                self._skipped += len(octets)
                continue
            self._skipped = self.skip
            return octets[left:] if left else octets
        return b""

    def rewind(self) -> None:
        self.source.rewind()
        self._reset()


async def prepare(
    message: Message,
    *,
    sender: str | ReversePath | None = None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
    envelope: Envelope | None = None,
    now: datetime,
    domain: str = "localhost",
    complete: bool = True,
    policy: Repair = Repair.REFUSE,
    run_blocking: RunBlocking[Any] = run_inline,
) -> Letter:
    """Make *message* ready to be sent.

    :param sender: None: from the header.
    :param recipients: None: from the header.
    :param envelope: instead of both.
    :param now: for a missing ``Date``; with a time zone.
    :param domain: for a missing ``Message-ID``, if the sender has none.
    :param complete: add what is missing and take ``Bcc`` out; False sends it as it is.
    :param policy: for a bare CR or a NUL.
    :param run_blocking: runs what may block on a disk.
    :raises InvalidInput: it cannot be sent.
    :raises Exception: what the message's source raises.
    """
    if envelope is not None and not (sender is None and recipients is None):
        raise InvalidInput("envelope goes alone", remedy="leave out sender and recipients")
    content = await _content(message, policy, run_blocking)
    try:
        head = await content.head()
        header = Header.parse(head)
        if content.source.rewindable and content.octets is None:
            content.rewind()
            await content.survey()
        if envelope is None:
            envelope = Envelope(
                sender_of(header) if sender is None else sender,
                recipients_of(header) if recipients is None else recipients,
            )
        fixed = (
            bytes(completed(header, now, _domain(envelope, header, domain))) if complete else head
        )
        if complete and not head and not await _starts_with_blank_line(content):
            fixed += b"\r\n"  # there was no header: what is there is all body
        letter = Letter(
            envelope, fixed, content, smtputf8=envelope.needs_smtputf8 or _international(fixed)
        )
        if content.octets is not None:
            whole = fixed + content.octets[content.skip :]
            letter.small = whole if len(whole) <= SMALL else None
    except BaseException:
        await content.source.close()
        raise
    return letter


async def _content(message: Message, policy: Repair, run_blocking: RunBlocking[Any]) -> _Content:
    if isinstance(message, MIMEMessage):
        return await run_blocking(lambda: _Content.of_octets(written(message), policy))  # type: ignore[no-any-return]
    source: Source
    if isinstance(message, os.PathLike):
        source = await run_blocking(lambda: source_of(message))
    else:
        source = source_of(message)
    if not isinstance(source, OctetsSource):
        return _Content(source, policy, run_blocking)
    octets = b"".join(iter(source.read_now, b""))
    if len(octets) <= SMALL:
        return _Content.of_octets(octets, policy)
    return await run_blocking(lambda: _Content.of_octets(octets, policy))  # type: ignore[no-any-return]


async def _starts_with_blank_line(content: _Content) -> bool:
    """Is the empty line there that parts a header from a body?"""
    first = await content.read()
    if first:
        content._pending.append(first)  # noqa: SLF001 - put back
    return first.startswith(b"\r\n")


def _domain(envelope: Envelope, header: Header, fallback: str) -> str:
    """Where a new Message-ID belongs: to the sender, not to this machine."""
    box = envelope.sender.mailbox
    if box is None:
        try:
            box = sender_of(header).mailbox
        except InvalidInput:
            return fallback
    if box is None or box.domain.startswith("["):
        return fallback
    return box.ascii_domain


def _international(header: bytes) -> bool:
    """Is there UTF-8 in the header (RFC 6532)?  Other 8-bit octets are just that."""
    if header.isascii():
        return False
    try:
        header.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
