"""The chart: round axes, lines inside the drawing, visible gaps."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tests.admin.parsed_html import Node, render
from twisted_sendmail.admin.chart import HEIGHT, STRIPS, WIDTH, Chart, count_axis, seconds_axis
from twisted_sendmail.admin.pages import chart_part

END = 1_700_003_600.0
BEGIN = END - 3600


def curve(*points: tuple[float, float], name: str = "depth") -> Chart:
    """One of an hour."""
    return Chart(
        name, "Messages", points, BEGIN, END, 35.0, count_axis, lambda value: f"{value:,.0f}"
    )


def steps(labels: list[float]) -> tuple[float, int]:
    """The step and the number of steps of an axis."""
    return labels[1], len(labels) - 1


def lines(page: Node) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    found = [path.attributes["d"] for path in page.all("path", class_="line")]
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+),([-\d.]+)", path)]
        for path in found
    ]


def test_an_axis_of_numbers_has_round_steps() -> None:
    expected = {
        0: (1, 2),
        1: (1, 2),
        3: (1, 3),
        7: (2, 4),
        11: (5, 3),
        99: (50, 2),
        1200: (500, 3),
        9999: (5000, 2),
    }
    assert {most: steps(count_axis(most)) for most in expected} == expected


def test_an_axis_of_time_has_the_steps_of_a_clock() -> None:
    expected = {
        0: (1, 2),
        50: (15, 4),
        200: (60, 4),
        3000: (900, 4),
        11000: (3600, 4),
        86400: (21600, 4),
        400_000: (172_800, 3),
    }
    assert {most: steps(seconds_axis(most)) for most in expected} == expected


@given(st.floats(0, 1e9))
def test_an_axis_holds_the_highest_value_in_two_to_five_steps(most: float) -> None:
    for labels in (count_axis(most), seconds_axis(most)):
        assert most <= labels[-1]
        assert 2 <= len(labels) - 1 <= 5


@given(
    st.lists(st.tuples(st.floats(BEGIN - 100, END + 100), st.floats(0, 1e9)), max_size=60).map(
        sorted
    )
)
def test_all_lines_are_inside_the_drawing(points: list[tuple[float, float]]) -> None:
    page = render(chart_part(curve(*points)))
    for line in lines(page):
        for x, y in line:
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_the_line_connects_the_samples() -> None:
    page = render(chart_part(curve((BEGIN, 0), (BEGIN + 30, 4), (BEGIN + 60, 2))))
    assert lines(page) == [[(0.0, HEIGHT), (5.0, 0.0), (10.0, HEIGHT / 2)]]


def test_the_line_is_broken_where_samples_are_missing() -> None:
    page = render(
        chart_part(curve((BEGIN, 1), (BEGIN + 10, 1), (BEGIN + 100, 2), (BEGIN + 110, 2)))
    )
    assert [len(line) for line in lines(page)] == [2, 2]


def test_samples_before_the_chart_are_left_out() -> None:
    page = render(chart_part(curve((BEGIN - 10, 900), (BEGIN + 10, 1))))
    assert [len(line) for line in lines(page)] == [1]
    assert page.one("p", class_="said").text == "1 now, 1 at most"


def test_the_chart_has_a_text_for_screen_readers() -> None:
    page = render(chart_part(curve((BEGIN, 9), (END, 3))))
    drawing = page.one("svg")
    assert drawing.attributes["role"] == "img"
    assert drawing.attributes["aria-label"] == "Messages: 3 now, 9 at most."
    assert page.one("h3").text == "Messages"


def test_the_axes_are_labelled() -> None:
    page = render(chart_part(curve((BEGIN, 9), (END, 3))))
    ys = [span.text for span in page.one("div", class_="y").all("span")]
    xs = [span.text for span in page.one("div", class_="x").all("span")]
    assert ys == ["10", "5", "0"]
    assert xs == ["1 h ago", "45 min ago", "30 min ago", "15 min ago", "now"]
    # One line for each label, and three across.
    assert len(ys) + 3 == page.one("path", class_="grid").attributes["d"].count("M")


def test_the_table_has_the_highest_value_of_each_minute() -> None:
    points = [(BEGIN + 5 * n, 7.0 if n == 13 else 2.0) for n in range(24)]
    page = render(chart_part(curve(*points)))
    rows = [[cell.text for cell in row.children] for row in page.one("tbody").all("tr")]  # type: ignore[union-attr]
    assert rows == [["2023-11-14 22:13:20", "2"], ["2023-11-14 22:14:20", "7"]]
    titles = [title.text for title in page.all("title")]
    assert titles == ["2023-11-14 22:13:20: 2", "2023-11-14 22:14:20: 7"]


def test_the_chart_stays_small_with_many_samples() -> None:
    points = [(BEGIN + n, float(n)) for n in range(3600)]
    page = render(chart_part(curve(*points)))
    assert len(page.all("rect")) == STRIPS


def test_a_chart_without_samples_has_a_text() -> None:
    page = render(chart_part(curve()))
    assert page.one("p", class_="said").text == "not known yet now, not known yet at most"
    assert lines(page) == []
