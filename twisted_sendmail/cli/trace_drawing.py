"""The route of a message as a drawing: SVG that needs nothing else, and a graph for Graphviz."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from twisted_sendmail.cli.trace_format import (
    date_text,
    delay_text,
    host_text,
    shown,
    tls_text,
    total_text,
    utc_text,
)
from twisted_sendmail.received import HopLink
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.received import Hop, Trace, TraceHost


class _Step(NamedTuple):
    """A host, and the way to it from the host of the step before it."""

    host: TraceHost | None
    #: The hop that the host wrote; None at the origin, and where a link is missing.
    hop: Hop | None = None
    #: True if no field shows how the message came to the host.
    missing: bool = False


def _steps(trace: Trace) -> Iterator[_Step]:
    first = trace.hops[0].field
    if first.from_ is not None:
        yield _Step(first.from_)
    for hop in trace.hops:
        if hop.link is HopLink.MISSING:
            yield _Step(hop.field.from_, missing=True)
        yield _Step(hop.host, hop)


def _edge_text(hop: Hop) -> str:
    field = hop.field
    parts = [shown(field.with_)] if field.with_ else []
    if field.encrypted:
        parts.append(tls_text(field.tls))
    if not parts and field.comments:
        parts.append(shown(field.comments[0]))
    return " · ".join(parts)


# -- Graphviz ---------------------------------------------------------------------


def dot(trace: Trace) -> str:
    """Return a directed graph in which a server is one node, however often the message came to it."""
    nodes: dict[str, str] = {}
    lines = [
        "digraph trace {",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans-serif"];',
        '  edge [fontname="sans-serif", fontsize=10];',
    ]
    edges = []
    before: str | None = None
    for at, step in enumerate(_steps(trace)):
        key = (step.host.key if step.host is not None else "") or f"step {at}"
        if key not in nodes:
            nodes[key] = f"n{len(nodes)}"
            lines.append(f"  {nodes[key]} [label={_quoted(host_text(step.host))}];")
        if before is not None:
            edges.append(f"  {before} -> {nodes[key]} [{_edge_attributes(step.hop)}];")
        before = nodes[key]
    return "\n".join([*lines, *edges, "}"])


def _edge_attributes(hop: Hop | None) -> str:
    if hop is None:
        return f"style=dashed, color=red, label={_quoted('no field')}"
    late = ", color=red" if hop.delay is not None and hop.delay < 0 else ""
    label = "\n".join(
        part for part in (f"{hop.number}: {delay_text(hop.delay)}", _edge_text(hop)) if part
    )
    return f"label={_quoted(label)}{late}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# -- SVG --------------------------------------------------------------------------

_WIDTH = 800
_MARGIN, _LINE_X, _TEXT_X = 24, 40, 64
#: The column where the bars begin, and the longest bar.
_BAR_X, _BAR_LENGTH = 560, 130
_HEAD, _ROW, _FINDING_ROW = 96, 76, 20
#: Characters that fit beside the bars, or in the whole width, by the class of the text, in a wide font.
_CHARS = {"title": 60, "written": 100, "host": 48, "detail": 66, "tls": 66, "delay": 12, "late": 12}
_CHARS |= {"finding": 92, "number": 4}
_BESIDE_BARS = {"host", "detail", "tls"}
_STYLE = """
svg { color-scheme: light dark; --ground: #fffefa; --ink: #1d2421; --quiet: #59625d; --rule: #858b86;
  --bar: #8d4f07; --dot: #0a6a5c; --good: #1c6a34; --bad: #a2271b; }
@media (prefers-color-scheme: dark) { svg { --ground: #191f24; --ink: #e7ebe8; --quiet: #a0aba6;
  --rule: #6d7780; --bar: #e2b061; --dot: #5cc6b0; --good: #7fcb92; --bad: #f2938a; } }
text { font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--ink); }
.title { font-size: 20px; font-weight: 600; } .host { font-size: 15px; font-weight: 600; }
.written, .detail { fill: var(--quiet); font-size: 12px; } .tls { fill: var(--good); font-size: 12px; }
.late, .finding { fill: var(--bad); } .ground { fill: var(--ground); } .bar { fill: var(--bar); }
.number { fill: var(--ground); font-size: 11px; font-weight: 600; text-anchor: middle; }
.dot { fill: var(--dot); } .way { stroke: var(--rule); stroke-width: 2; }
.gap { stroke: var(--bad); stroke-width: 2; stroke-dasharray: 4 5; }
"""


def svg(trace: Trace) -> str:
    """Return a drawing, 800 pixels wide, that follows the light or dark scheme of its reader."""
    root = ET.Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-labelledby": "title"}
    )
    ET.SubElement(root, "title", {"id": "title"}).text = f"Route of a message: {total_text(trace)}"
    ET.SubElement(root, "style").text = _STYLE
    ground = ET.SubElement(root, "rect", {"class": "ground", "width": "100%", "height": "100%"})
    clip = ET.SubElement(root, "clipPath", {"id": "beside"})
    ET.SubElement(clip, "rect", {"width": str(_BAR_X - 8), "height": "100%"})
    _text(root, _MARGIN, 36, total_text(trace), "title")
    if trace.written is not None:
        _text(root, _MARGIN, 56, f"written {utc_text(trace.written)}", "written")
    longest = max((hop.delay or 0 for hop in trace.hops), default=0)
    y = _HEAD
    last: int | None = None
    for step in _steps(trace):
        if last is not None:
            y += _ROW
            _line(root, last + 10, y - 10, "gap" if step.missing else "way")
        _step(root, step, y, longest)
        last = y
    y += 56
    for finding in trace.findings:
        text = f"{finding.problem.value}: {printable(finding.text)}"
        for line in wrap(text, _CHARS["finding"], subsequent_indent="\N{NO-BREAK SPACE}" * 4):
            _text(root, _MARGIN, y, line, "finding")
            y += _FINDING_ROW
    height = y
    root.set("width", str(_WIDTH))
    root.set("height", str(height))
    root.set("viewBox", f"0 0 {_WIDTH} {height}")
    ground.set("height", str(height))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def _step(root: ET.Element, step: _Step, y: int, longest: float) -> None:
    hop, host = step.hop, step.host
    ET.SubElement(root, "circle", {"class": "dot", "cx": str(_LINE_X), "cy": str(y), "r": "10"})
    if hop is not None:
        _text(root, _LINE_X, y + 4, str(hop.number), "number")
    name = (host.name or host.address) if host is not None else None
    _text(root, _TEXT_X, y + 5, shown(name) if name else host_text(None), "host")
    details = [date_text(hop.field)] if hop is not None else []
    if host is not None:
        found = (host.reverse_name, host.address)
        details += [shown(each) for each in found if each and each != name]
    _text(root, _TEXT_X, y + 22, " · ".join(details), "detail")
    if hop is None:
        if step.missing:
            _text(root, _TEXT_X, y - 16, "missing link", "late")
        return
    edge = _edge_text(hop)
    if edge:
        _text(root, _TEXT_X, y - 16, edge, "tls" if hop.field.encrypted else "detail")
    late = hop.delay is not None and hop.delay < 0
    x = _BAR_X
    if hop.delay is not None and hop.delay > 0 and longest > 0:
        length = max(2, round(hop.delay / longest * _BAR_LENGTH))
        box = {"x": str(x), "y": str(y - 6), "width": str(length), "height": "12", "rx": "2"}
        ET.SubElement(root, "rect", {"class": "bar", **box})
        x += length + 8
    if hop.delay is not None:
        _text(root, x, y + 5, delay_text(hop.delay), "late" if late else "delay")


def _line(root: ET.Element, begin: int, end: int, kind: str) -> None:
    x = str(_LINE_X)
    ET.SubElement(root, "line", {"class": kind, "x1": x, "x2": x, "y1": str(begin), "y2": str(end)})


def _text(root: ET.Element, x: int, y: int, text: str, kind: str) -> None:
    """Add a line of text; one that is too long is cut, and shown whole on hovering."""
    limit = _CHARS[kind]
    # XML has no such characters.
    text = text.translate({0xFFFE: "\ufffd", 0xFFFF: "\ufffd"})
    # Letters may be wider than most are.
    clip = {"clip-path": "url(#beside)"} if kind in _BESIDE_BARS else {}
    element = ET.SubElement(root, "text", {"x": str(x), "y": str(y), "class": kind, **clip})
    if len(text) > limit:
        ET.SubElement(element, "title").text = text
        element[0].tail = text[: limit - 1] + "…"
    else:
        element.text = text
