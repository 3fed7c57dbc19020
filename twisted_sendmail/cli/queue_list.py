"""The messages of a queue, for people in a table, for programs one JSON object a line.

Pure but for the width of the terminal; everything that others wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from twisted_sendmail.admin.format import count, duration, last_reply, local_cause, size
from twisted_sendmail.queue import QueuedMessage, QueuedRecipient, QueueTotals, RecipientState
from twisted_sendmail.smtp import ReversePath, printable

_STYLES = {
    "active": "green",
    "incoming": "green",
    "deferred": "yellow",
    "hold": "cyan",
    "corrupt": "bold red",
}
#: Recipients that are named; the others are counted.
_NAMED = 3
#: Columns where there is no terminal to ask.
_WIDTH = 160


def table(messages: Iterable[QueuedMessage], now: float, width: int | None = None) -> str:
    """A table of *messages*.

    :param width: columns of the terminal; None: there is none.
    """
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "state"):
        made.add_column(name, no_wrap=True)
    for name in ("size", "age", "next try"):
        made.add_column(name, no_wrap=True, justify="right")
    made.add_column("from, to, why", overflow="fold")
    for message in messages:
        state = message.queue_name
        made.add_row(
            Text(message.id),
            Text(state, style=_STYLES[state]),
            Text(size(message.size)),
            Text(duration(now - message.draft.arrived)),
            Text(next_try(message, now)),
            _people(message),
        )
    console = Console(
        highlight=False, markup=False, emoji=False, width=_WIDTH if width is None else width
    )
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def _people(message: QueuedMessage) -> Text:
    lines = Text(f"from {sender_text(message.draft.envelope.sender)}")
    waiting = message.pending or message.recipients
    for recipient in waiting[:_NAMED]:
        lines.append(f"\nto {printable(str(recipient.recipient), 320)}")
    if len(waiting) > _NAMED:
        lines.append(f"\nand {count(len(waiting) - _NAMED, 'more recipient')}")
    for line in why(message):
        lines.append(f"\n{line}", style="dim")
    return lines


def why(message: QueuedMessage) -> list[str]:
    """What keeps it: what is ours, and what was said last."""
    ours, last = local_cause(message), last_reply(message)
    lines = [] if ours is None else [ours]
    if last is not None:
        lines.append(said(last))
    elif ours is None:
        lines.append("Not tried yet.")
    if message.interrupted:
        lines.append("A copy of it may have gone out already: the end of a try was not seen.")
    return lines


def said(recipient: QueuedRecipient) -> str:
    """What was said at the last try, and by whom."""
    reply = printable(recipient.reply or "nothing", 600)
    status = recipient.status
    if status and status not in reply:
        reply = f"{status} {reply}"
    return f"{printable(recipient.relay, 200)}: {reply}" if recipient.relay else reply


def sender_text(path: ReversePath) -> str:
    """The sender; reports have none."""
    return printable(str(path), 320) if path.mailbox is not None else "<> (a report)"


def next_try(message: QueuedMessage, now: float) -> str:
    """When."""
    if message.leased:
        return "under way"
    if message.held or message.aside is not None:
        return "never"
    return "now" if message.due <= now else f"in {duration(message.due - now)}"


def totals_line(totals: QueueTotals, now: float) -> str:
    """The whole queue in one line."""
    number = sum(totals.queues.values())
    if not number:
        return "the queue is empty"
    parts = ", ".join(
        f"{totals.queues[state]:,} {state}" for state in _STYLES if totals.queues.get(state)
    )
    line = f"{count(number, 'message')} ({parts}), {size(totals.octets)}"
    if totals.oldest is not None:
        line += f", the oldest {duration(now - totals.oldest)} old"
    return line


def as_dict(message: QueuedMessage) -> dict[str, Any]:
    """One message with the names of ``postqueue -j``."""
    draft = message.draft
    waiting = [r for r in message.recipients if r.state is not RecipientState.DELIVERED]
    return {
        "queue_name": message.queue_name,
        "queue_id": message.id,
        "arrival_time": int(draft.arrived),
        "message_size": message.size,
        "forced_expire": message.expired,
        "sender": str(draft.envelope.sender) if draft.envelope.sender.mailbox else "MAILER-DAEMON",
        "recipients": [_recipient(each) for each in waiting],
    }


def _recipient(recipient: QueuedRecipient) -> dict[str, Any]:
    found = {"address": str(recipient.recipient)}
    if recipient.reply is not None:
        found["delay_reason"] = said(recipient)
    return found
