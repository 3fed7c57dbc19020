"""A message ready to be sent: its envelope, what it needs, and its canonical octets.

Preparing looks at everything that can be looked at before a connection is made: the
addresses, the header, and of what is small or can be read twice the whole content.  A
small message is then in memory; a large one is pulled as it is sent, and costs no more.

RFC 6409 section 8 (submission), RFC 5321 section 2.3.8 (lines).
"""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from email.message import Message as MIMEMessage
from typing import TYPE_CHECKING, Any

from twisted_sendmail.message.binary import parted
from twisted_sendmail.message.content import AHEAD, Content
from twisted_sendmail.message.downgrade import seven_bit
from twisted_sendmail.message.header import Header, header_end
from twisted_sendmail.message.mime import bulk, written
from twisted_sendmail.message.source import CHUNK, OctetsSource, RunBlocking, run_inline, source_of
from twisted_sendmail.message.submission import completed, message_id, recipients_of, sender_of
from twisted_sendmail.smtp import AnyRecipient, Envelope, InvalidInput, Recipient, Repair

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from twisted_sendmail.message.source import Message
    from twisted_sendmail.smtp import ReversePath

#: Octets up to which a message goes out in one write.
SMALL = AHEAD

#: Octets of a header from which on it is read off the reactor: a long one may take a second.
LONG_HEADER = 64 * 1024


class PreparedMessage:
    """What :func:`prepare` makes; pulled with :meth:`read`, closed with :meth:`close`."""

    __slots__ = ("_at", "_content", "_whole", "binary", "envelope", "message_id", "smtputf8")

    def __init__(
        self,
        envelope: Envelope,
        content: bytes | Content,
        *,
        smtputf8: bool,
        message_id: str | None,
    ) -> None:
        self.envelope = envelope
        #: The header or an address needs SMTPUTF8.
        self.smtputf8 = smtputf8
        #: The Message-ID, with its angle brackets.
        self.message_id = message_id
        #: Its body has no lines, and goes as it is by BINARYMIME or not at all.
        self.binary = False
        self._whole = content if isinstance(content, bytes) else None
        self._content = None if isinstance(content, bytes) else content
        self._at = 0

    @property
    def size(self) -> int | None:
        """Octets to be sent; None if that can be known only when they are."""
        return self._content.size if self._content is not None else len(self._whole or b"")

    @property
    def eight_bit(self) -> bool | None:
        """Are there octets above 127?  None if not known yet."""
        if self._content is not None:
            return self._content.eight_bit
        return not (self._whole or b"").isascii()

    @property
    def rewindable(self) -> bool:
        """It can be sent a second time."""
        return self._content is None or self._content.rewindable

    @property
    def small(self) -> bytes | None:
        """The whole message, if it is in memory and small."""
        whole = self._whole
        return whole if whole is not None and len(whole) <= SMALL + CHUNK else None

    async def read(self) -> bytes:
        """The next canonical octets; ``b""`` at the end.

        :raises InvalidMessage: a bare CR or a NUL, in what could not be looked at before; or
            a file is not what it was when it was looked at.
        :raises Exception: what the message's file or iterator raises, as it is.
        """
        if self._content is not None:
            return await self._content.read()
        piece = (self._whole or b"")[self._at : self._at + CHUNK]
        self._at += len(piece)
        return piece

    def to(self, recipients: tuple[Recipient, ...]) -> PreparedMessage:
        """The same to some of its *recipients*; the two are not to be read at once."""
        letter = copy(self)
        letter.envelope = self.envelope.to(recipients)
        return letter

    def rewind(self) -> None:
        """Begin again; only if it is ``rewindable``."""
        self._at = 0
        if self._content is not None:
            self._content.rewind()

    async def close(self) -> None:
        """Close what was opened for it, end a generator; doing it twice is no harm.

        What a generator raises while it ends is dropped: the verdict on the message is
        known by then, and nothing may change it.
        """
        if self._content is not None:
            with suppress(Exception):
                await self._content.close()

    def seven_bit(self) -> PreparedMessage | None:
        """The same in ASCII, with 8-bit bodies and fields encoded.

        :returns: None where that cannot be done: it is signed, or it is not in memory (more
            than :data:`~twisted_sendmail.message.content.KEPT` octets, or read only once).
        """
        if self.eight_bit is False:
            return self
        encoded = seven_bit(self._whole) if self._whole is not None else None
        if encoded is None:
            return None
        return PreparedMessage(
            self.envelope,
            encoded,
            smtputf8=self.envelope.needs_smtputf8,
            message_id=self.message_id,
        )


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
) -> PreparedMessage:
    """Make *message* ready to be sent.

    Cancelling it, like any error, leaves nothing open.

    :param sender: None: from the header; ``""`` is the null reverse-path.
    :param recipients: None: from the header.
    :param envelope: instead of both.
    :param now: for a missing ``Date``; with a time zone.
    :param domain: for a missing ``Message-ID``, if the sender has none.
    :param complete: add what is missing and take ``Bcc`` out; False sends it as it is, but
        for line ends.
    :param policy: for a bare CR or a NUL.
    :param run_blocking: runs what may block on a disk or take its time.
    :raises InvalidInput: it cannot be sent.
    :raises Exception: what the message's file or iterator raises, as it is.
    """
    if envelope is not None and not (sender is None and recipients is None):
        raise InvalidInput("envelope goes alone", remedy="leave out sender and recipients")
    source = await _source(message, run_blocking)
    parts = parted(source.octets) if isinstance(source, OctetsSource) else None
    if parts is not None:
        source = OctetsSource(parts[0])  # the body is none of what follows
    content = Content(source, policy, run_blocking)
    try:
        begin = await content.begin()
        end = header_end(begin, whole=content.ended)

        def read_header() -> tuple[Header, Envelope]:
            header = Header.parse(begin[:end])
            header.check_fields()
            asked = envelope or Envelope(
                sender_of(header) if sender is None else sender,
                recipients_of(header) if recipients is None else recipients,
            )
            if complete:
                header = completed(header, now, _domain(asked, header, domain))
            return header, asked

        run = run_blocking if end > LONG_HEADER else run_inline
        header, envelope = await run(read_header)
        octets = bytes(header) if complete else begin[:end]
        if complete and not end and not begin.startswith(b"\r\n"):
            octets += b"\r\n"  # there was no header: what is there is all body
        whole = await content.with_header(octets, begin[:end])
    except BaseException:
        with suppress(Exception):
            await content.close()
        raise
    if parts is not None and whole is not None:
        whole += parts[1]
    letter = PreparedMessage(
        envelope,
        content if whole is None else whole,
        smtputf8=envelope.needs_smtputf8 or header.international,
        message_id=message_id(header),
    )
    letter.binary = parts is not None
    if whole is not None:
        with suppress(Exception):
            await content.close()
    return letter


async def _source(message: Message, run_blocking: RunBlocking[Any]) -> Any:
    if not isinstance(message, MIMEMessage):
        return source_of(message)
    run = run_blocking if bulk(message) > AHEAD else run_inline
    return OctetsSource(await run(lambda: written(message)))


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
