"""A line chart over time as values for ``templates/chart.xml``: SVG without script, and a table.

The drawing is stretched to the width of the page; labels are HTML text beside it.
"""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING, Any

from attrs import frozen

from twisted_sendmail.admin.format import clock, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Size of the drawing in its own units.
WIDTH, HEIGHT = 600, 160
#: Parts of the time whose highest value is shown on hovering, and in a row of the table.
STRIPS = 60
_CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY = 86400


def count_axis(highest: float) -> list[float]:
    """Return the labels of an axis from 0 to *highest*, whole numbers, in 2 to 5 equal steps."""
    if highest <= 4:
        return _axis(1.0, highest)
    rough = highest / 4
    power = 10.0 ** floor(log10(rough))
    return _axis(next(f * power for f in (1, 2, 5, 10) if f * power >= rough), highest)


def seconds_axis(highest: float) -> list[float]:
    """Return the labels of an axis in seconds: steps of a clock, then whole days."""
    rough = max(highest, 4) / 4
    step = next((float(s) for s in _CLOCK_STEPS if s >= rough), None)
    return _axis(count_axis(highest / _DAY)[1] * _DAY if step is None else step, highest)


def _axis(step: float, highest: float) -> list[float]:
    return [step * n for n in range(max(2, int(-(-highest // step))) + 1)]


@frozen
class Chart:
    """One line over time.

    :param name: its id in the page, ``[a-z]+``.
    :param points: time and value, in order of time.
    :param gap: seconds without a point after which the line is broken.
    :param axis: returns the labels of the vertical axis for the highest value.
    :param text: returns a value as text.
    """

    name: str
    title: str
    points: Sequence[tuple[float, float]]
    begin: float
    end: float
    gap: float
    axis: Callable[[float], list[float]]
    text: Callable[[float], str]

    def values(self) -> dict[str, Any]:
        """Return the values for the template."""
        points = [point for point in self.points if self.begin <= point[0] <= self.end]
        highest = max((value for _, value in points), default=0.0)
        labels = self.axis(highest)
        span = self.end - self.begin

        def x(at: float) -> str:
            return f"{(at - self.begin) / span * WIDTH:.1f}"

        def y(value: float) -> str:
            return f"{HEIGHT - value / labels[-1] * HEIGHT:.1f}"

        grid = [f"M0,{y(label)}H{WIDTH}" for label in labels]
        grid += [f"M{WIDTH * part / 4:.1f},0V{HEIGHT}" for part in (1, 2, 3)]
        runs = []
        for run in self._runs(points):
            line = "L".join(f"{x(at)},{y(value)}" for at, value in run)
            area = f"M{x(run[0][0])},{HEIGHT}L{line}L{x(run[-1][0])},{HEIGHT}Z"
            runs.append({"line": f"M{line}", "area": area})
        strips = [
            {"x": x(begin), "time": clock(begin), "value": self.text(value)}
            for begin, value in self._strips(points)
        ]
        return {
            "name": self.name,
            "title": self.title,
            "last": self.text(points[-1][1]) if points else "not known yet",
            "highest": self.text(highest) if points else "not known yet",
            "values": [{"label": self.text(label)} for label in reversed(labels)],
            "times": [{"label": f"{duration(span * n / 4)} ago"} for n in (4, 3, 2, 1)]
            + [{"label": "now"}],
            "grid": "".join(grid),
            "runs": runs,
            # A line without length and with round ends: a dot that keeps its shape when stretched.
            "dot": f"M{x(points[-1][0])},{y(points[-1][1])}h0" if points else None,
            "strips": strips,
            "strip_width": f"{WIDTH / STRIPS:.1f}",
        }

    def _runs(self, points: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
        """Divide the points where too much time lies between two."""
        run: list[tuple[float, float]] = []
        for point in points:
            if run and point[0] - run[-1][0] > self.gap:
                yield run
                run = []
            run.append(point)
        if run:
            yield run

    def _strips(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Return begin and highest value of each part of the time that has points."""
        width = (self.end - self.begin) / STRIPS
        highest: dict[int, float] = {}
        for at, value in points:
            number = min(STRIPS - 1, int((at - self.begin) / width))
            highest[number] = max(value, highest.get(number, 0.0))
        return [(self.begin + n * width, highest[n]) for n in sorted(highest)]
