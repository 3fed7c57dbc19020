"""Messages for a queue, and an observer of arrivals: those of the public conformance suite."""

from __future__ import annotations

from twisted_sendmail.testing.queue_conformance.messages import (
    RECIPIENT,
    SENDER,
    Observer,
    content_of,
    info_of,
)
from twisted_sendmail.testing.queue_conformance.messages import add_message as take_in

__all__ = ["RECIPIENT", "SENDER", "Observer", "content_of", "info_of", "take_in"]
