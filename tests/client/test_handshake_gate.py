"""Handshakes with one server take turns, and nobody waits for ever."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from twisted_sendmail.client import handshake_gate
from twisted_sendmail.client.handshake_gate import ABREAST, PATIENCE, HandshakeGate, gate_of


@pytest.fixture
def clock() -> Clock:
    return Clock()


def enter(gate: HandshakeGate) -> Deferred[None]:
    return Deferred.fromCoroutine(gate.enter())


def full(clock: Clock, key: object = "a") -> HandshakeGate:
    gate = gate_of(clock, key)
    assert all(enter(gate).called for _ in range(ABREAST))
    return gate


def empty(gate: HandshakeGate, inside: int) -> None:
    for _ in range(inside):
        gate.leave()
    assert {} == handshake_gate._GATES


def test_who_comes_when_many_are_inside_waits_for_one_to_leave(clock: Clock) -> None:
    gate = full(clock)
    first, second = enter(gate), enter(gate)
    assert [False, False] == [first.called, second.called]
    gate.leave()
    assert [True, False] == [first.called, second.called]
    gate.leave()
    assert second.called
    empty(gate, ABREAST)
    assert [] == clock.getDelayedCalls()


def test_another_server_has_a_gate_of_its_own(clock: Clock) -> None:
    gate, other = full(clock), gate_of(clock, "b")
    assert enter(other).called
    other.leave()
    assert gate is gate_of(clock, "a")
    empty(gate, ABREAST)


def test_nobody_waits_longer_than_patience_has(clock: Clock) -> None:
    """A server that stalls in all handshakes does not keep others from theirs."""
    gate = full(clock)
    waiting = [enter(gate) for _ in range(3)]
    clock.advance(PATIENCE - 0.1)
    assert not any(each.called for each in waiting)
    clock.advance(0.1)
    assert all(each.called for each in waiting)
    # And the gate is as narrow as before: those too many must leave first.
    late = enter(gate)
    for _ in range(3):
        gate.leave()
        assert not late.called
    gate.leave()
    assert late.called
    empty(gate, ABREAST)


def test_who_gives_up_takes_nobodys_turn(clock: Clock) -> None:
    gate = full(clock)
    first, second = enter(gate), enter(gate)
    errors: list[Any] = []
    _ = first.addErrback(errors.append)
    first.cancel()
    assert [CancelledError] == [error.type for error in errors]
    gate.leave()
    assert second.called
    empty(gate, ABREAST)
    assert [] == clock.getDelayedCalls()
