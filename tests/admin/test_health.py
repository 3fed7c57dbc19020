"""Health: well while mail can be taken in and is taken out, and in a line why not."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.admin.queue_contents import FakeRelay, route
from tests.memory_queue import MemoryQueue
from tests.names import QueueFull
from twisted_sendmail.admin.health import Health


class Patient:
    def __init__(self) -> None:
        self.clock = Clock()
        self.relay = FakeRelay(MemoryQueue(self.clock), self.clock)
        self.probes = 0
        self.result: Any = succeed
        self.health = Health(self.clock, self.probe, self.relay)

    def probe(self) -> Deferred[None]:
        self.probes += 1
        result: Deferred[None] = self.result(None)
        return result

    def ask(self) -> list[str | None]:
        said: list[str | None] = []
        _ = self.health.problem().addCallback(said.append)
        return said


@pytest.fixture
def patient() -> Patient:
    return Patient()


def test_it_is_well_when_the_queue_can_be_written_and_the_relay_runs(patient: Patient) -> None:
    assert patient.ask() == [None]


def test_it_says_why_the_queue_cannot_be_written(patient: Patient) -> None:
    patient.result = lambda _: fail(QueueFull("the queue is short of room\x1b[31m"))
    expected = "the queue cannot be written: the queue is short of room\\x1b[31m"
    assert patient.ask() == [expected]


def test_it_says_that_the_relay_does_not_run(patient: Patient) -> None:
    patient.relay.stopping = True
    assert patient.ask() == ["the relay is stopping"]


def test_a_way_out_that_is_down_is_no_illness(patient: Patient) -> None:
    patient.relay.routes = (route("default", wait=99.0, locked=True),)
    assert patient.ask() == [None]


def test_the_queue_is_written_once_however_often_somebody_asks(patient: Patient) -> None:
    for _ in range(100):
        assert patient.ask() == [None]
        patient.clock.advance(0.04)
    assert patient.probes == 1
    patient.clock.advance(1.5)
    patient.ask()
    assert patient.probes == 2


def test_many_who_ask_at_once_wait_for_the_same_answer(patient: Patient) -> None:
    pending: Deferred[None] = Deferred()
    patient.result = lambda _: pending
    asked = [patient.ask() for _ in range(10)]
    assert asked == [[]] * 10
    pending.callback(None)
    assert asked == [[None]] * 10
    assert patient.probes == 1


def test_a_queue_that_does_not_answer_is_an_illness(patient: Patient) -> None:
    pending: Deferred[None] = Deferred()
    patient.result = lambda _: pending
    asked = patient.ask()
    patient.clock.advance(4)
    assert asked == ["the queue has not answered for 4 s"]
    patient.clock.advance(5)
    # It is not asked again before it has answered: they would pile up.
    again = patient.ask()
    assert patient.probes == 1
    pending.callback(None)
    assert again == [None]
    assert patient.clock.getDelayedCalls() == []


def test_who_goes_away_stops_nobody_else(patient: Patient) -> None:
    pending: Deferred[None] = Deferred()
    patient.result = lambda _: pending
    first = patient.health.problem()
    _ = first.addErrback(lambda _: None)
    second = patient.ask()
    first.cancel()
    pending.callback(None)
    assert second == [None]


def test_a_clock_that_is_set_back_makes_no_answer_last(patient: Patient) -> None:
    patient.clock.advance(1000)
    patient.ask()
    patient.clock.rightNow -= 500
    patient.ask()
    assert patient.probes == 2


def test_it_stops_and_leaves_nothing_behind(patient: Patient) -> None:
    patient.result = lambda _: Deferred()
    asked = patient.ask()
    patient.health.stop()
    assert asked == ["the relay is stopping"]
    assert patient.clock.getDelayedCalls() == []
