"""The route of a message as text: a table, and JSON.

Everything in it comes from a header, and is escaped.
"""

from __future__ import annotations

import re
import sys
from datetime import timezone
from typing import TYPE_CHECKING, Any

from attrs import asdict
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from twisted_sendmail.admin.format import count, duration
from twisted_sendmail.received import HopLink
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.console import RenderableType

    from twisted_sendmail.received import Hop, ReceivedField, Trace, TraceHost, TraceTLS

#: Columns of the table without a terminal.
_TABLE_WIDTH = 100
#: Columns from which the protocol has a column of its own.
_WIDE = 96
#: Columns of the longest bar.
_BAR_WIDTH = 12
#: Characters that are shown of a name, and of a note.
_NAME_SHOWN, _NOTE_SHOWN = 255, 300
_BLOCKS = " ▏▎▍▌▋▊▉█"
_RESULT = re.compile(r"\b(arc|bimi|dkim|dkim-atps|dmarc|iprev|spf)\s*=\s*([a-z]+)", re.IGNORECASE)


# -- for people -------------------------------------------------------------------


def table(trace: Trace, width: int | None = None) -> str:
    """Return the hops as a table, the oldest first, then the findings.

    :param width: columns of the terminal; None without a terminal.
    """
    console = Console(
        width=max(20, width or _TABLE_WIDTH), highlight=False, markup=False, emoji=False
    )
    with console.capture() as captured:
        for part in _parts(trace, console.width):
            console.print(part)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join(lines).strip("\n")


def _parts(trace: Trace, width: int) -> Iterator[RenderableType]:
    wide = width >= _WIDE
    longest = max((hop.delay or 0 for hop in trace.hops), default=0)
    bar_width = min(_BAR_WIDTH, width // 8)
    grid = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )
    grid.add_column("#", justify="right", no_wrap=True)
    grid.add_column("delay", justify="right", no_wrap=True)
    grid.add_column("", width=bar_width, no_wrap=True)
    grid.add_column("server, client, date", ratio=1, overflow="fold")
    if wide:
        grid.add_column("with", overflow="fold", max_width=24)
    for hop in trace.hops:
        late = hop.delay is not None and hop.delay < 0
        delay = Text(delay_text(hop.delay), "bold red" if late else "")
        bar = Text(_bar(hop.delay or 0, longest, bar_width), "yellow")
        lines = [*_route(hop), *_notes(hop)]
        protocol = [*_protocol(hop.field)]
        if not wide and protocol:
            lines.insert(1, Text(", ").join(protocol))
        cells: list[RenderableType] = [str(hop.number), delay, bar, Group(*lines)]
        grid.add_row(*cells, *([Group(*protocol)] if wide else []))
    yield grid
    yield Text(f"\n{total_text(trace)}")
    for finding in trace.findings:
        yield Text(f"{finding.problem.value}: {printable(finding.text)}", "bold red")


def _route(hop: Hop) -> Iterator[Text]:
    field = hop.field
    yield Text(host_text(hop.host), "bold")
    if field.from_ is not None:
        missing = hop.link is HopLink.MISSING
        yield Text(f"from {host_text(field.from_)}", "red" if missing else "")
    elif field.comments and field.by is None:
        yield Text(shown(field.comments[0]))
    if field.for_ is not None:
        yield Text(f"for {shown(field.for_)}")
    yield Text(date_text(field), "dim")


def _protocol(field: ReceivedField) -> Iterator[Text]:
    for part in (field.with_, field.via and f"via {field.via}"):
        if part:
            yield Text(shown(part))
    if field.encrypted:
        yield Text(tls_text(field.tls), "green")
    if field.id is not None:
        yield Text(f"id {shown(field.id)}", "dim")


def _notes(hop: Hop) -> Iterator[Text]:
    for name, value in reversed(hop.notes):
        text = value
        if name.endswith("authentication-results"):
            results = dict.fromkeys(f"{m[1]}={m[2]}".lower() for m in _RESULT.finditer(value))
            if not results:
                continue
            text = f"{value.partition(';')[0].strip()}: {' '.join(results)}"
            if name.startswith("arc-"):
                # The first part is the instance.
                text = " ".join(results)
        title = name.title().replace("Arc-", "ARC-")
        yield Text(f"{title}: {printable(text, _NOTE_SHOWN)}", "cyan")


def _bar(value: float, longest: float, width: int) -> str:
    """Return a bar of at most *width* columns, in eighths where the terminal can show them."""
    if value <= 0 or longest <= 0:
        return ""
    eighths = max(1, round(value / longest * width * 8))
    try:
        _ = _BLOCKS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return "#" * max(1, eighths // 8)
    return _BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def shown(text: str) -> str:
    """Return text from a header in one line."""
    return printable(text, _NAME_SHOWN)


def host_text(host: TraceHost | None) -> str:
    """Return a host in one line."""
    return "not named" if host is None else shown(str(host))


def tls_text(tls: TraceTLS | None) -> str:
    """Return version and cipher in one line."""
    parts = (tls.version, tls.cipher) if tls is not None else ()
    return shown(" ".join(part for part in parts if part)) or "TLS"


def delay_text(delay: float | None) -> str:
    """Return a delay such as ``3 min``; ``-`` if it is not known."""
    if delay is None:
        return "-"
    return f"-{duration(-delay)}" if delay < 0 else duration(delay)


def date_text(field: ReceivedField) -> str:
    """Return the date of a hop in UTC, by which hops are compared."""
    if field.date is None:
        return "no date"
    return utc_text(field.date, "(zone not known)" if field.zone_assumed else "UTC")


def utc_text(date: datetime, zone: str = "UTC") -> str:
    """Return *date* in UTC, or as it is if there is no such date in UTC."""
    try:
        return f"{date.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} {zone}"
    except OverflowError:
        return str(date)


def total_text(trace: Trace) -> str:
    """Return the number of hops and the whole time."""
    hops = count(len(trace.hops), "hop")
    return hops if trace.duration is None else f"{hops} in {delay_text(trace.duration)}"


# -- for programs -----------------------------------------------------------------


def trace_json(trace: Trace) -> dict[str, Any]:
    """Return the object of ``trace --json``; ``docs/reference/command-line.md`` describes each name."""
    return {
        "written": trace.written.isoformat() if trace.written else None,
        "duration": trace.duration,
        "hops": [_hop_json(hop) for hop in trace.hops],
        "findings": [
            {"problem": each.problem.value, "hops": list(each.hops), "text": each.text}
            for each in trace.findings
        ],
    }


def _hop_json(hop: Hop) -> dict[str, Any]:
    field = hop.field
    return {
        "number": hop.number,
        "delay": hop.delay,
        "link": hop.link.value,
        "host": _json(hop.host),
        "from": _json(field.from_),
        "by": _json(field.by),
        "via": field.via,
        "with": field.with_,
        "id": field.id,
        "for": field.for_,
        "date": field.date.isoformat() if field.date else None,
        "zone_assumed": field.zone_assumed,
        "encrypted": field.encrypted,
        "authenticated": field.authenticated,
        "tls": _json(field.tls),
        "comments": list(field.comments),
        "notes": [{"name": name, "value": value} for name, value in hop.notes],
        "raw": field.raw,
    }


def _json(value: TraceHost | TraceTLS | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)
