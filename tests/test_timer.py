"""One deadline at a time, whatever was set and cleared before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twisted_sendmail.timer import Timer

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("ab"), st.sampled_from([1.0, 5.0, 9.0])),
        st.tuples(st.just("clear"), st.none(), st.none()),
        st.tuples(st.just("advance"), st.none(), st.sampled_from([0.5, 1.0, 4.0, 10.0])),
    ),
    max_size=20,
)


@given(STEPS)
def test_it_is_late_when_its_own_deadline_has_passed(
    steps: list[tuple[str, str | None, float | None]],
) -> None:
    clock = Clock()
    late: list[tuple[object, float]] = []
    timer = Timer(clock, lambda key: late.append((key, clock.seconds())))
    expected: list[tuple[object, float]] = []
    key: str | None = None
    at = 0.0
    for step, name, seconds in steps:
        if step == "set" and seconds is not None:
            if name != key:
                key, at = name, clock.seconds() + seconds
            timer.set(name, seconds)
        elif step == "clear":
            key = None
            timer.clear()
        elif seconds is not None:
            until = clock.seconds() + seconds
            if key is not None and at <= until:
                expected.append((key, at))
                key = None
            # In small steps, as a reactor calls what is due when it is due.
            while clock.seconds() < until:
                clock.advance(0.5)
    assert late == expected
    assert len(clock.getDelayedCalls()) <= 1
    timer.stop()
    assert clock.getDelayedCalls() == []


def test_a_later_deadline_costs_no_new_call() -> None:
    clock = Clock()
    timer = Timer(clock, lambda key: None)
    timer.set("a", 10)
    (call,) = clock.getDelayedCalls()
    for number in range(100):
        timer.set(number, 20)
        timer.clear()
    assert [call] == clock.getDelayedCalls()


def test_an_event_without_a_deadline_is_awaited_for_ever() -> None:
    clock = Clock()
    late: list[object] = []
    timer = Timer(clock, late.append)
    timer.set("a", 1)
    timer.set("b", None)
    clock.advance(1e6)
    assert (late, timer.key, clock.getDelayedCalls()) == ([], "b", [])
