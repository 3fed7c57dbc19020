"""Errors of the queue.

A fault of the queue is never the client's fault and never final for the mail: a server answers
451 or 452, and a delivery is tried again.
"""

from __future__ import annotations

from twisted_sendmail.smtp import SendmailError


class QueueError(SendmailError):
    """The queue could not do what was requested."""

    temporary = True


class QueueFull(QueueError):
    """Too little free space (RFC 5321 section 4.2.3: 452).

    ``Store.admit`` raises it before a write, and ``Store.error`` makes it of the error of a disk
    that is full.  The message is refused and the client keeps it.  Records of attempts are not
    refused but retried until there is space (``stored_queue.RecordRetry``).
    """

    remedy = "free space on the file system of the queue"


class QueueUnusable(QueueError):
    """The queue cannot be opened; the text names the cause and a remedy."""

    temporary = False


class QueueMissing(QueueUnusable):
    """There is no queue yet; a relay creates it when it starts."""


class QueueBusy(QueueUnusable):
    """Another process has the queue open."""


class LeaseLost(QueueError):
    """The lease of a message ended before its attempt was recorded, and nothing was recorded.

    Another relay may deliver the message, or have delivered it: a second copy may exist.
    """

    temporary = False

    @classmethod
    def of(cls, id: str) -> LeaseLost:  # noqa: A002 - the field's name
        """Return the error for one message."""
        return cls(f"message {id} was taken over by another relay")


class MessageDamaged(QueueError):
    """Stored data differ from what was written."""

    temporary = False
