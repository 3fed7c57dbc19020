"""Messages of a queue as JSON, with the names and values of Postfix's ``postqueue -j``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.models import RecipientState
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted_sendmail.queue.models import QueuedMessage, QueuedRecipient


def message_json(message: QueuedMessage) -> dict[str, Any]:
    """Return a message as an object for JSON; texts of others are escaped, except addresses."""
    info = message.info
    undelivered = [r for r in message.recipients if r.state is not RecipientState.DELIVERED]
    return {
        "queue_name": message.queue_name,
        "queue_id": message.id,
        "arrival_time": int(info.arrived),
        "message_size": message.size,
        "forced_expire": message.expired,
        "sender": str(info.envelope.sender) if info.envelope.sender.mailbox else "MAILER-DAEMON",
        "recipients": [
            {"address": str(each.recipient), **delay_reason(each)} for each in undelivered
        ],
    }


def delay_reason(recipient: QueuedRecipient) -> dict[str, str]:
    """Return ``delay_reason`` of a recipient that was tried without success; else nothing."""
    if recipient.reply is None or recipient.state is RecipientState.DELIVERED:
        return {}
    return {"delay_reason": reply_text(recipient)}


def reply_text(recipient: QueuedRecipient) -> str:
    """Return the reply of the last attempt, and the server that sent it, in one printable line."""
    reply = printable(recipient.reply or "nothing", 600)
    status = recipient.status
    if status and status not in reply:
        reply = f"{status} {reply}"
    return f"{printable(recipient.relay, 200)}: {reply}" if recipient.relay else reply
