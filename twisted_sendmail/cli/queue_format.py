"""Messages of a queue as text: a table, all details of one, and JSON.

Everything that others wrote is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from rich.cells import cell_len, chop_cells
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from twisted_sendmail.admin.format import (
    count,
    duration,
    last_reply,
    local_cause,
    next_attempt,
    size,
    until,
)
from twisted_sendmail.queue import (
    DownRoute,
    QueuedMessage,
    QueuedRecipient,
    QueueTotals,
    RecipientState,
    RelayNode,
    delay_reason,
    message_json,
    reply_text,
)
from twisted_sendmail.smtp import MAX_HEADER, ReversePath, printable

_STYLES = {
    "active": "green",
    "incoming": "green",
    "deferred": "yellow",
    "hold": "cyan",
    "undeliverable": "bold red",
    "corrupt": "bold red",
}
#: Recipients that the table names; the others are counted.
_RECIPIENTS_SHOWN = 3
#: Columns of the table without a terminal.
_TABLE_WIDTH = 160
_LABEL_WIDTH = 13
#: The columns of the table but the last, and whether each is aligned to the left.
_COLUMNS = {"id": True, "state": True, "size": False, "age": False, "next try": False}
_LAST_COLUMN = "from, to, why"
#: Columns of a terminal that the last column has at least.
_LAST_COLUMN_MIN = 12
_GAP = "  "
#: Octets of a header that are shown.
_HEADER_SHOWN = 64 * 1024


# -- for people: list ---------------------------------------------------------------


class RelayState(NamedTuple):
    """The relay of a queue, or the relays that share it, at a moment."""

    now: float
    running: bool = True
    #: Routes that are down, by name.
    down: Mapping[str, DownRoute] = {}
    #: The relays that share the queue; empty if it is the queue of one relay alone.
    relays: Sequence[RelayNode] = ()

    @property
    def waits(self) -> dict[str, float]:
        """The time of the next attempt of each route that is down."""
        return {name: route.next_attempt for name, route in self.down.items()}

    def lines(self) -> Iterator[str]:
        """Yield the relays that share the queue, and the reasons why no mail goes out, if there are any."""
        for relay in self.relays:
            under_way = f"{count(relay.leased, 'message')} under way"
            state = f"runs, {under_way}"
            if not relay.alive:
                state = f"gives no sign of life, {under_way}: another relay takes them over"
            yield f"relay {printable(relay.name, 60)} {state}"
        if not self.running:
            yield "the relay is not running: no message is tried until it is started"
        for route in self.down.values():
            when = until(route.next_attempt, self.now)
            yield (
                f"route {printable(route.name, 60)} is down, next attempt {when}: "
                f"{printable(route.reason, 300)}"
            )


def table(messages: Iterable[QueuedMessage], relay: RelayState, width: int | None = None) -> str:
    """Return a table of *messages*.

    :param width: columns of the terminal; None without a terminal.
    """
    # rich's Table takes milliseconds for each row, of which there may be thousands.
    rows = [(tuple(_COLUMNS), "bold", [_LAST_COLUMN], 1)]
    for message in messages:
        state = message.queue_name
        age = duration(relay.now - message.info.arrived)
        cells = (message.id, state, size(message.size), age, _next_try(message, relay))
        addresses = _addresses(message)
        lines = [*addresses, *_reasons(message, relay)]
        rows.append((cells, _STYLES[state], lines, len(addresses)))
    widths = [max(len(cells[at]) for cells, *_ in rows) for at in range(len(_COLUMNS))]
    margin = sum(widths) + len(_GAP) * len(widths)
    space = max((_TABLE_WIDTH if width is None else width) - margin, _LAST_COLUMN_MIN)
    console = Console()
    colored = console.color_system is not None and not console.no_color

    def styled(text: str, style: str) -> str:
        return (
            Style.parse(style).render(text, color_system=ColorSystem.STANDARD) if colored else text
        )

    printed = []
    for row, style, lines, plain in rows:
        padded = [
            cell.ljust(size) if left else cell.rjust(size)
            for cell, size, left in zip(row, widths, _COLUMNS.values(), strict=True)
        ]
        begin = _GAP.join((padded[0], styled(padded[1], style), *padded[2:]))
        for at, line in enumerate(lines):
            for piece in (line,) if cell_len(line) <= space else chop_cells(line, space):
                printed.append(f"{begin}{_GAP}{piece if at < plain else styled(piece, 'dim')}")
                begin = " " * (margin - len(_GAP))
    return "\n".join(printed)


def _addresses(message: QueuedMessage) -> list[str]:
    lines = [f"from {_sender_text(message.info.envelope.sender)}"]
    recipients = message.pending or message.recipients
    lines += [
        f"to {printable(str(each.recipient), 320)}" for each in recipients[:_RECIPIENTS_SHOWN]
    ]
    if len(recipients) > _RECIPIENTS_SHOWN:
        lines.append(f"and {count(len(recipients) - _RECIPIENTS_SHOWN, 'more recipient')}")
    return lines


def totals_line(totals: QueueTotals, now: float, *, of: int | None = None) -> str:
    """Return the queue, or a part of it, in one line.

    :param of: number of messages in the queue, of which *totals* are a part.
    """
    number = sum(totals.queues.values())
    if of is None and not number:
        return "the queue is empty"
    line = count(number, "message") if of is None else f"{number:,} of {count(of, 'message')}"
    if number:
        parts = ", ".join(
            f"{totals.queues[state]:,} {state}" for state in _STYLES if totals.queues.get(state)
        )
        line += f" ({parts}), {size(totals.octets)}"
    if totals.oldest is not None:
        line += f", the oldest {duration(now - totals.oldest)} old"
    return line


class ListedTotals:
    """The totals of the messages that are listed, for :func:`totals_line`."""

    def __init__(self) -> None:
        self._queues: Counter[str] = Counter()
        self._octets = 0
        self._oldest: float | None = None

    def add(self, messages: Iterable[QueuedMessage]) -> None:
        """Count *messages*."""
        for message in messages:
            self._queues[message.queue_name] += 1
            self._octets += message.size
            if message.aside is None:
                arrived = message.info.arrived
                self._oldest = arrived if self._oldest is None else min(arrived, self._oldest)

    @property
    def totals(self) -> QueueTotals:
        """The figures so far."""
        return QueueTotals(dict(self._queues), {}, self._oldest, self._octets)


def _reasons(message: QueuedMessage, relay: RelayState) -> list[str]:
    """Return the reasons why the message is in the queue: the relay's, and the last reply of a server."""
    ours, last = local_cause(message, relay.waits, relay.now), last_reply(message)
    lines = [] if ours is None else [ours]
    if message.owner is not None:
        lines.append(f"Being delivered by {printable(message.owner, 60)}.")
    if last is not None:
        lines.append(reply_text(last))
    elif not lines:
        lines.append("Not tried yet.")
    if message.interrupted:
        lines.append("A try was interrupted: a copy may have been sent already.")
    return lines


def _sender_text(path: ReversePath) -> str:
    return printable(str(path), 320) if path.mailbox is not None else "<> (a report)"


def _next_try(message: QueuedMessage, relay: RelayState) -> str:
    if message.leased:
        return "under way" if relay.running else "interrupted"
    at = next_attempt(message, relay.waits)
    return "never" if at is None else until(at, relay.now)


# -- for people: show ---------------------------------------------------------------


def header_lines(content: bytes) -> list[str]:
    """Return the lines of the header at the beginning of *content*, escaped."""
    end = content.find(b"\r\n\r\n", 0, MAX_HEADER)
    header = content[: min(end if end >= 0 else len(content), _HEADER_SHOWN)]
    return [printable(line, 1000) for line in header.split(b"\r\n") if line]


def message_lines(message: QueuedMessage, header: list[str], relay: RelayState) -> Iterator[str]:
    """Yield all details of a message.

    :param header: its lines; empty if the content cannot be read.
    """
    info, envelope, now = message.info, message.info.envelope, relay.now
    yield _line("message", message.id)
    yield _line("state", message.queue_name)
    yield from (_line("", line) for line in _reasons(message, relay))
    yield _line("next try", _next_try(message, relay))
    if not relay.running:
        yield _line("relay", "not running: no message is tried until it is started")
    yield _line("tries", str(message.attempts))
    yield _line("size", f"{message.size} octets ({size(message.size)})")
    yield _line("arrived", _past(info.arrived, now))
    if info.origin:
        yield _line("came from", printable(info.origin, 300))
    yield _line("route", printable(info.route, 100))
    if info.message_id:
        yield _line("Message-ID", printable(info.message_id, 300))
    yield _line("sender", _sender_text(envelope.sender))
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
        yield _line("  original", printable(recipient.recipient.orcpt, 500))
    if recipient.recipient.notify:
        yield _line("  NOTIFY", ",".join(sorted(recipient.recipient.notify)))
    yield _line("  tries", str(recipient.attempts))
    if recipient.tried is not None:
        yield _line("  last try", _past(recipient.tried, now))
    if recipient.reply is not None:
        yield _line("  last reply", reply_text(recipient))
    if recipient.state is RecipientState.PENDING:
        yield _line("  due", until(recipient.due, now))


def _line(label: str, text: str) -> str:
    return f"{label:<{_LABEL_WIDTH}} {text}".rstrip()


def _past(at: float, now: float) -> str:
    try:
        moment = f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        moment = f"{at:.0f} seconds after 1970"
    return f"{moment}, {duration(now - at)} ago"


# -- for programs -------------------------------------------------------------------


def show_json(message: QueuedMessage, header: list[str], relay: RelayState) -> dict[str, Any]:
    """Return the names of :func:`~twisted_sendmail.queue.postqueue_json.message_json`, and more."""
    info, envelope = message.info, message.info.envelope
    return {
        **message_json(message),
        "recipients": [_recipient_json(each) for each in message.recipients],
        "route": info.route,
        "origin": info.origin,
        "message_id": info.message_id,
        "attempts": message.attempts,
        "next_try": max(message.due, relay.waits.get(info.route, 0.0))
        if message.aside is None
        else None,
        "leased_by": message.owner,
        "held": message.held,
        "aside": message.aside.value if message.aside else None,
        "delay_notified": message.warned,
        "delete_after_try": message.doomed,
        "possible_copies": message.interrupted,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "require_tls": envelope.require_tls,
        "header": header,
    }


def _recipient_json(recipient: QueuedRecipient) -> dict[str, Any]:
    return {
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
        **delay_reason(recipient),
    }
