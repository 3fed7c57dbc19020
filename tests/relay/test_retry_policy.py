"""Retry delays: growth, random spread, wrong clocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import InvalidInput, RetryPolicy
from twisted_sendmail.relay.retry_policy import elapsed, remaining
from twisted_sendmail.relay.route import BackOff, Window

times = st.floats(min_value=-1e11, max_value=1e11)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)


def middle() -> float:
    return 0.5


def test_the_defaults_are_those_that_are_promised() -> None:
    waits = [RetryPolicy().wait(attempts, middle) for attempts in range(7)]
    assert waits == [300, 600, 1200, 2400, 4000, 4000, 4000]


@given(st.integers(-3, 10**9), chances)
def test_no_wait_is_negative_or_huge(attempts: int, chance: float) -> None:
    wait = RetryPolicy().wait(attempts, lambda: chance)
    assert 300 * 0.85 <= wait <= 4000 * 1.15


@given(times, st.integers(0, 1000), chances)
def test_what_a_try_gave_is_within_the_horizon(now: float, attempts: int, chance: float) -> None:
    schedule = RetryPolicy()
    assert schedule.due(now, attempts, lambda: chance) <= schedule.horizon(now)


@given(times, times)
def test_no_age_is_negative(arrived: float, now: float) -> None:
    assert elapsed(arrived, now) >= 0


@given(times, st.floats(min_value=0, max_value=1e6), times)
def test_no_wait_that_began_in_the_future_is_waited_for(
    since: float, wait: float, now: float
) -> None:
    left = remaining(since, wait, now)
    assert 0 <= left <= wait
    assert now >= since or left == 0


def test_reports_have_less_time() -> None:
    schedule = RetryPolicy()
    assert (
        schedule.expired(86400, report=True),
        schedule.expired(86400),
    ) == (True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 0},
        {"most": -1},
        {"lifetime": float("inf")},
        {"warn_after": float("nan")},
        {"jitter": 1},
        {"jitter": -0.1},
        {"first": "5"},
        {"first": True},
    ],
    ids=str,
)
def test_what_is_no_time_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        RetryPolicy(**wrong)


def gate(chance: Callable[[], float] = middle) -> BackOff:
    return BackOff(4, 900, chance)


def test_a_gate_closes_for_longer_each_time_and_opens_at_once() -> None:
    back_off = gate()
    assert [back_off.failed(now) for now in (0, 4, 12)] == [4, 8, 16]
    assert (back_off.closed, back_off.left(12)) == (True, 16)
    back_off.succeeded()
    assert (back_off.closed, back_off.left(12)) == (False, 0)
    assert back_off.failed(100) == 4


def test_a_gate_asked_to_ask_now_stays_closed_and_begins_anew() -> None:
    back_off = gate()
    for now in (0, 4, 12):
        back_off.failed(now)
    back_off.end_wait()
    assert (back_off.closed, back_off.left(12)) == (True, 0)
    assert back_off.failed(12) == 4


def test_a_failure_behind_somebodys_word_is_asked_about_a_second_time_and_once() -> None:
    """It may have been that of a connection begun before."""
    back_off = gate()
    back_off.failed(0)
    back_off.end_wait(second_chance=True)
    assert [back_off.failed(now) for now in (1, 1.1, 5.1)] == [0.1, 4, 8]
    back_off.end_wait(second_chance=True)
    back_off.succeeded()
    assert back_off.failed(20) == 4
    back_off.end_wait(second_chance=True)
    assert back_off.failed(30, longest=True) == 900


@given(st.lists(st.tuples(times, chances), min_size=1, max_size=20), times)
def test_a_gate_never_keeps_anybody_waiting_for_longer_than_its_longest(
    failures: list[tuple[float, float]], now: float
) -> None:
    chance = [0.0]
    back_off = gate(lambda: chance[0])
    for at, chance[0] in failures:
        assert 0 < back_off.failed(at) <= 900 * 1.2
    assert 0 <= back_off.left(now) <= 900 * 1.2


def test_the_first_question_comes_within_five_seconds() -> None:
    assert gate(lambda: 0.999).failed(0) <= 5


def test_a_window_doubles_with_each_round_and_falls_to_one() -> None:
    window = Window(5, 64)
    rounds = []
    for _ in range(5):
        rounds.append(window.size)
        for _ in range(window.size):
            window.succeeded()
    assert rounds == [5, 10, 20, 40, 64]
    window.failed()
    assert window.size == 1


def test_a_window_is_never_wider_than_its_most() -> None:
    assert Window(5, 2).size == 2
