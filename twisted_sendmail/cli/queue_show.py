"""One message of the queue, with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from twisted_sendmail.admin.format import duration, size
from twisted_sendmail.cli.queue_list import as_dict, next_try, said, sender_text, why
from twisted_sendmail.message import MAX_HEADER
from twisted_sendmail.queue import QueuedMessage, QueuedRecipient, RecipientState
from twisted_sendmail.smtp import printable

_WIDTH = 13
#: Octets of a header that are shown.
HEADER = 64 * 1024


def header_lines(content: bytes) -> list[str]:
    """The header in the first octets of a content, escaped line by line."""
    end = content.find(b"\r\n\r\n", 0, MAX_HEADER)
    head = content[: min(end if end >= 0 else len(content), HEADER)]
    return [printable(line, 1000) for line in head.split(b"\r\n") if line]


def lines(message: QueuedMessage, header: list[str], now: float) -> Iterator[str]:
    """For people.

    :param header: of the content; empty where it cannot be read.
    """
    draft, envelope = message.draft, message.draft.envelope
    yield _line("message", message.id)
    yield _line("state", message.queue_name)
    yield from (_line("", line) for line in why(message))
    yield _line("next try", next_try(message, now))
    yield _line("tries", str(message.attempts))
    yield _line("size", f"{message.size} octets ({size(message.size)})")
    yield _line("arrived", f"{_moment(draft.arrived)}, {duration(now - draft.arrived)} ago")
    if draft.origin:
        yield _line("came from", printable(draft.origin, 300))
    yield _line("route", printable(draft.route, 100))
    if draft.message_id:
        yield _line("Message-ID", printable(draft.message_id, 300))
    yield _line("sender", sender_text(envelope.sender))
    for name, value in (("RET", envelope.ret), ("ENVID", envelope.envid)):
        if value:
            yield _line(name, printable(value, 200))
    if envelope.require_tls:
        yield _line("REQUIRETLS", "only over TLS all the way")
    for recipient in message.recipients:
        yield ""
        yield from _recipient_lines(recipient, now)
    if header:
        yield ""
        yield from (f"  {line}" for line in header)


def _recipient_lines(recipient: QueuedRecipient, now: float) -> Iterator[str]:
    yield _line("recipient", printable(str(recipient.recipient), 320))
    yield _line("  state", recipient.state.value)
    if recipient.recipient.orcpt:
        yield _line("  at first", printable(recipient.recipient.orcpt, 500))
    if recipient.recipient.notify:
        yield _line("  NOTIFY", ",".join(sorted(recipient.recipient.notify)))
    yield _line("  tries", str(recipient.attempts))
    if recipient.tried is not None:
        tried = f"{_moment(recipient.tried)}, {duration(now - recipient.tried)} ago"
        yield _line("  last try", tried)
    if recipient.reply is not None:
        yield _line("  last reply", said(recipient))
    if recipient.state is RecipientState.PENDING:
        due = "now" if recipient.due <= now else f"in {duration(recipient.due - now)}"
        yield _line("  due", due)


def _line(label: str, text: str) -> str:
    return f"{label:<{_WIDTH}} {text}".rstrip()


def _moment(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f} seconds after 1970"


def as_full_dict(message: QueuedMessage, header: list[str]) -> dict[str, Any]:
    """For programs: the fields of ``list --json``, and more."""
    draft, envelope = message.draft, message.draft.envelope
    return {
        **as_dict(message),
        "recipients": [_recipient_dict(each) for each in message.recipients],
        "route": draft.route,
        "origin": draft.origin,
        "message_id": draft.message_id,
        "attempts": message.attempts,
        "next_try": message.due if message.aside is None else None,
        "held": message.held,
        "aside": message.aside.value if message.aside else None,
        "delay_told": message.warned,
        "deleted_behind_try": message.doomed,
        "possible_copies": message.interrupted,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "require_tls": envelope.require_tls,
        "header": header,
    }


def _recipient_dict(recipient: QueuedRecipient) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": str(recipient.recipient),
        "state": recipient.state.value,
        "attempts": recipient.attempts,
        "last_try": recipient.tried,
        "next_try": recipient.due if recipient.state is RecipientState.PENDING else None,
        "reply": recipient.reply,
        "status": recipient.status,
        "relay": recipient.relay,
        "notify": sorted(recipient.recipient.notify),
        "orcpt": recipient.recipient.orcpt,
    }
    if recipient.reply is not None and recipient.state is not RecipientState.DELIVERED:
        found["delay_reason"] = said(recipient)
    return found
