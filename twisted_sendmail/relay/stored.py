"""A queued message as a letter for the mailer: nothing of it is parsed, or changed, again.

A small content is in memory.  A large one is read out of the spool as it is sent, and
can be begun again, so that it may go to another server when one is lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from twisted_sendmail.message import Content, PreparedMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_sendmail.queue import LeasedMessage, Queue, QueuedRecipient


class StoredContent(Content):
    """The content of the message *id*: canonical already, and read as it lies."""

    def __init__(
        self,
        spool: Queue,
        id: str,  # noqa: A002 - that is its name
        *,
        size: int,
        eight_bit: bool | None,
    ) -> None:
        self._spool = spool
        self._id = id
        self._reading: AsyncIterator[bytes] | None = None
        self._left: list[AsyncIterator[bytes]] = []
        self.size = size
        self.eight_bit = eight_bit

    @property
    def rewindable(self) -> bool:
        """Always."""
        return True

    async def read(self) -> bytes:
        """The next octets; ``b""`` at the end.

        :raises MessageDamaged: it is not what was written.
        """
        if self._reading is None:
            self._reading = self._spool.content(self._id)
        async for octets in self._reading:
            if octets:
                return octets
        return b""

    def rewind(self) -> None:
        """Begin again."""
        if self._reading is not None:
            self._left.append(self._reading)
            self._reading = None

    async def close(self) -> None:
        """Stop reading."""
        self.rewind()
        left, self._left = self._left, []
        for reading in left:
            if isinstance(reading, AsyncGenerator):
                await reading.aclose()


def letter_of(
    leased: LeasedMessage, recipients: Sequence[QueuedRecipient], spool: Queue
) -> PreparedMessage:
    """The letter of a message, to those of its *recipients* who are tried."""
    message = leased.message
    draft = message.draft
    envelope = draft.envelope
    if len(recipients) != len(envelope.recipients):
        envelope = envelope.to(tuple(each.recipient for each in recipients))
    content: bytes | Content | None = leased.content
    if content is None:
        content = StoredContent(spool, message.id, size=message.size, eight_bit=draft.eight_bit)
    letter = PreparedMessage(
        envelope, content, smtputf8=draft.smtputf8, message_id=draft.message_id
    )
    letter.binary = draft.binary
    return letter
