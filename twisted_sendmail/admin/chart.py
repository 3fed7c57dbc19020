"""A curve over time, drawn as SVG: no script, no style of its own, nothing fetched.

The drawing is stretched to the width there is, lines keep their weight; what is to be
read stands beside it as text, in a table for those who cannot see it.  Pure: samples in,
tags out.  The page owns the colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from twisted.web.template import Tag, tags

from twisted_sendmail.admin.shown import clock, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: The drawing's own measures; it is stretched from there.
WIDTH, HEIGHT = 600, 160
#: Strips that say their value when pointed at, and rows of the table.
STRIPS = 60
#: Steps a person counts in: of numbers, and of seconds.
_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY = 86400


@dataclass(frozen=True)
class Axis:
    """From zero up, in *steps* equal steps of *step*."""

    step: float
    steps: int

    @property
    def top(self) -> float:
        """The upper end."""
        return self.step * self.steps

    @property
    def ticks(self) -> list[float]:
        """Where its lines are, from the top down."""
        return [self.step * n for n in range(self.steps, -1, -1)]


def counting(most: float) -> Axis:
    """An axis for whole numbers up to *most*: 1, 2 or 5 times a power of ten a step."""
    if most <= 4:
        return Axis(1, max(2, ceil(most)))
    rough = most / 4
    power = 10.0 ** floor(log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
    return _fitting(step, most)


def lasting(most: float) -> Axis:
    """An axis for seconds up to *most*: steps of a clock and a calendar."""
    rough = max(most, 4) / 4
    step: float | None = next((s for s in _SECONDS if s >= rough), None)
    if step is None:
        step = counting(most / _DAY).step * _DAY
    return _fitting(step, most)


def _fitting(step: float, most: float) -> Axis:
    """As few steps as hold *most*, and two at the least."""
    steps = max(2, int(-(-most // step)))
    return Axis(step, steps)


@dataclass(frozen=True)
class Curve:
    """What is drawn.

    :param points: time and value, in order of time.
    :param gap: seconds without a sample after which the line breaks.
    """

    #: Its id in the page, ``[a-z]+``.
    name: str
    title: str
    points: Sequence[tuple[float, float]]
    begin: float
    end: float
    gap: float
    axis: Callable[[float], Axis]
    #: How a value reads.
    said: Callable[[float], str]


def panel(curve: Curve) -> Tag:
    """The whole of one: its title, the drawing with its axes, the table."""
    points = [point for point in curve.points if curve.begin <= point[0] <= curve.end]
    axis = curve.axis(max((value for _, value in points), default=0.0))
    last = curve.said(points[-1][1]) if points else "not known yet"
    worst = curve.said(max(value for _, value in points)) if points else "not known yet"
    return tags.figure(
        tags.figcaption(
            tags.h3(curve.title, id=f"{curve.name}-title"),
            tags.p(tags.b(last), " now, ", worst, " at most", class_="said"),
        ),
        tags.div(
            tags.div([tags.span(curve.said(t)) for t in axis.ticks], class_="y", **_HIDDEN),
            tags.div(
                _drawing(curve, points, axis, f"{curve.title}: {last} now, {worst} at most."),
                class_="plot",
            ),
            tags.div([tags.span(text) for text in _times(curve)], class_="x", **_HIDDEN),
            class_="axes",
        ),
        _table(curve, points),
        class_=f"panel {curve.name}",
    )


# A screen reader has the table.
_HIDDEN = {"aria-hidden": "true"}


def _times(curve: Curve) -> list[str]:
    """What stands below: five moments, evenly apart, from *begin* to *end*."""
    span = curve.end - curve.begin
    return [f"{duration(span * part / 4)} ago" for part in (4, 3, 2, 1)] + ["now"]


def _drawing(curve: Curve, points: Sequence[tuple[float, float]], axis: Axis, said: str) -> Tag:
    def x(at: float) -> float:
        return (at - curve.begin) / (curve.end - curve.begin) * WIDTH

    def y(value: float) -> float:
        return HEIGHT - value / axis.top * HEIGHT

    drawing = Tag(
        "svg",
        attributes={
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "preserveAspectRatio": "none",
            "role": "img",
            "aria-label": said,
        },
    )
    for tick in axis.ticks:
        drawing(_line(0, y(tick), WIDTH, y(tick), "grid"))
    for part in (1, 2, 3):
        drawing(_line(WIDTH * part / 4, 0, WIDTH * part / 4, HEIGHT, "grid"))
    for run in _runs(points, curve.gap):
        path = "L".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
        area = f"M{x(run[0][0]):.1f},{HEIGHT}L{path}L{x(run[-1][0]):.1f},{HEIGHT}Z"
        drawing(_shape("path", "area", d=area), _shape("path", "line", d=f"M{path}"))
    if points:
        # A line without length and with round ends: a dot that no stretching makes an ellipse.
        at, value = points[-1]
        drawing(_shape("path", "dot", d=f"M{x(at):.1f},{y(value):.1f}h0"))
    for begin, end, most in _strips(curve, points):
        strip = _shape(
            "rect",
            "strip",
            x=f"{x(begin):.1f}",
            y="0",
            width=f"{max(0.0, x(end) - x(begin)):.1f}",
            height=str(HEIGHT),
        )
        drawing(strip(Tag("title")(f"{clock(begin)}: {curve.said(most)}")))
    return drawing


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Tag:
    return _shape("line", kind, x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}")


def _shape(name: str, kind: str, **attributes: str) -> Tag:
    return Tag(name)(class_=kind, **{"vector-effect": "non-scaling-stroke"}, **attributes)


def _runs(points: Iterable[tuple[float, float]], gap: float) -> Iterator[list[tuple[float, float]]]:
    """The points, parted where too much time lies between two."""
    run: list[tuple[float, float]] = []
    for point in points:
        if run and point[0] - run[-1][0] > gap:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _strips(
    curve: Curve, points: Iterable[tuple[float, float]]
) -> Iterator[tuple[float, float, float]]:
    """The worst value of each sixtieth of the time, where there is any."""
    width = (curve.end - curve.begin) / STRIPS
    worst: dict[int, float] = {}
    for at, value in points:
        number = min(STRIPS - 1, int((at - curve.begin) / width))
        worst[number] = max(value, worst.get(number, 0.0))
    for number in sorted(worst):
        begin = curve.begin + number * width
        yield begin, begin + width, worst[number]


def _table(curve: Curve, points: Sequence[tuple[float, float]]) -> Tag:
    rows = [
        tags.tr(tags.th(clock(begin), scope="row"), tags.td(curve.said(most)))
        for begin, _, most in _strips(curve, points)
    ]
    return tags.details(
        tags.summary("As a table"),
        tags.div(
            tags.table(
                tags.caption(f"{curve.title}, the worst of each part of the time"),
                tags.thead(
                    tags.tr(tags.th("From, UTC", scope="col"), tags.th("Value", scope="col"))
                ),
                tags.tbody(rows),
            ),
            class_="scroll",
            tabindex="0",
            role="region",
            **{"aria-labelledby": f"{curve.name}-title"},
        ),
    )
