"""Recipient rows, as the record of an attempt has them."""

from __future__ import annotations

from tests.names import QueuedRecipient, RecipientState
from twisted_sendmail import Recipient

_ANYBODY = Recipient("anybody@x.example")


def recipient_row(  # noqa: PLR0917 - one row, one line
    number: int,
    state: RecipientState,
    due: float = 0.0,
    reply: str | None = None,
    status: str | None = None,
    relay: str | None = None,
) -> QueuedRecipient:
    """What became of one recipient; who it is, the queue knows."""
    return QueuedRecipient(number, _ANYBODY, state, due, reply=reply, status=status, relay=relay)
