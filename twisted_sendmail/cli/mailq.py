"""The queue as ``mailq`` has printed it since there were queues; programs read it, too.

``*`` behind an id is one that is on its way, ``!`` one on hold, ``#`` one that is kept
for the operator and not tried.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from twisted_sendmail.queue import QueuedMessage, QueuedRecipient
from twisted_sendmail.smtp import printable

EMPTY = "Mail queue is empty"
_HEAD = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
_MARKS = {"active": "*", "hold": "!", "corrupt": "#"}


def lines(messages: Iterable[QueuedMessage]) -> Iterator[str]:
    """All of it, line by line."""
    number = octets = 0
    for message in messages:
        if not number:
            yield _HEAD
        number += 1
        octets += message.size
        yield from _entry(message)
        yield ""
    if number:
        kilobytes = -(-octets // 1024)
        yield f"-- {kilobytes} Kbytes in {number} Request{'' if number == 1 else 's'}."
    else:
        yield EMPTY


def _entry(message: QueuedMessage) -> Iterator[str]:
    draft = message.draft
    mark = _MARKS.get(message.queue_name, " ")
    sender = draft.envelope.sender
    name = printable(str(sender), 320) if sender.mailbox is not None else "MAILER-DAEMON"
    yield f"{message.id}{mark} {message.size:7} {_date(draft.arrived)}  {name}"
    before: str | None = None
    for recipient in message.pending or message.recipients:
        why = _why(recipient)
        # As Postfix has it: a reason stands above all those it concerns.
        if why is not None and why != before:
            yield f"{why:>80}"
        before = why
        yield f"{'':41}{printable(str(recipient.recipient), 320)}"


def _why(recipient: QueuedRecipient) -> str | None:
    if recipient.reply is None:
        return None
    who = f"{printable(recipient.relay, 200)}: " if recipient.relay else ""
    return f"({who}{printable(recipient.reply, 600)})"


def _date(at: float) -> str:
    """``Thu Jan  1 12:00:00``, in the time of this machine, and in English."""
    try:
        return time.ctime(at)[:19]
    except (OverflowError, ValueError, OSError):
        return time.ctime(0)[:19]
