"""What can be wrong with a spool: one tree below ``SendmailError``.

Trouble of ours is never the client's fault, and never final for the mail: 451 or 452
to who brings it, a later try for what is in.
"""

from __future__ import annotations

from twisted_sendmail.smtp import SendmailError


class QueueError(SendmailError):
    """The queue could not do what it was asked."""

    temporary = True


class QueueFull(QueueError):
    """There is no room (RFC 5321 section 4.2.3: 452)."""


class QueueUnusable(QueueError):
    """The queue cannot be opened: what is wrong, and what to do."""

    temporary = False


class QueueBusy(QueueUnusable):
    """Another process has it open."""


class MessageDamaged(QueueError):
    """What was read is not what was written."""

    temporary = False
