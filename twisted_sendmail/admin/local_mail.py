"""Mail of local programs that is not in the queue yet: figures of the drop directory."""

from __future__ import annotations

import attrs

from twisted_sendmail.admin.format import count, duration


@attrs.frozen
class LocalMail:
    """Figures of the mail in the drop directory."""

    messages: int
    #: The age of the oldest message, in seconds.
    oldest: float
    octets: int
    #: Files whose message is in the queue, and that cannot be removed.
    stuck: int = 0

    @property
    def line(self) -> str | None:
        """A line for people; None if nothing waits."""
        parts = []
        if self.messages:
            waits = "waits" if self.messages == 1 else "wait"
            of = "" if self.messages == 1 else ", the oldest"
            what = f"{count(self.messages, 'message')} {waits} in the drop directory{of}"
            parts.append(f"{what} for {duration(self.oldest)}")
        if self.stuck:
            was = "was" if self.stuck == 1 else "were"
            parts.append(
                f"{count(self.stuck, 'file')} of the drop directory {was} taken and cannot be removed"
            )
        return "; ".join(parts) or None
