"""Few TLS handshakes with one server run at a time, and none waits for long."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.client.certificates import NAME
from tests.client.conftest import Net
from twisted_sendmail import Cancelled, TLSTrust
from twisted_sendmail.client.tls import MAX_HANDSHAKE_WAIT, MAX_HANDSHAKES, Handshake


class Slot:
    """One connection's handshake, which ends when it is told to."""

    def __init__(self, clock: Clock, name: str = "mx.example.net", port: int = 465) -> None:
        self._end: Deferred[None] = Deferred()
        self.begun = False
        handshake = Handshake(clock, TRUST, name, port, context=TRUST.context())
        self.running = Deferred.fromCoroutine(self._run(handshake))

    async def _run(self, handshake: Handshake) -> None:
        async with handshake:
            self.begun = True
            await self._end

    def end(self) -> None:
        self._end.callback(None)


TRUST = TLSTrust()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def full(clock: Clock) -> list[Slot]:
    slots = [Slot(clock) for _ in range(MAX_HANDSHAKES)]
    assert all(slot.begun for slot in slots)
    return slots


def test_one_too_many_waits_until_another_has_ended(clock: Clock) -> None:
    slots = full(clock)
    first, second = Slot(clock), Slot(clock)
    assert [first.begun, second.begun] == [False, False]
    slots[0].end()
    assert [first.begun, second.begun] == [True, False]
    slots[1].end()
    assert second.begun
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("other", [{"name": "mx.example.org"}, {"port": 587}])
def test_another_server_has_slots_of_its_own(clock: Clock, other: Any) -> None:
    slots = full(clock)
    assert Slot(clock, **other).begun
    assert not Slot(clock).begun
    slots[0].end()


def test_a_handshake_begins_after_the_longest_wait(clock: Clock) -> None:
    """A server whose handshakes hang does not stop others."""
    slots = full(clock)
    waiting = [Slot(clock) for _ in range(3)]
    clock.advance(MAX_HANDSHAKE_WAIT - 0.1)
    assert not any(slot.begun for slot in waiting)
    clock.advance(0.1)
    assert all(slot.begun for slot in waiting)
    # The number of slots stays the same.
    for slot in waiting:
        slot.end()
    late = Slot(clock)
    assert not late.begun
    slots[0].end()
    assert late.begun


def test_a_cancelled_handshake_takes_no_slot(clock: Clock) -> None:
    slots = full(clock)
    first, second = Slot(clock), Slot(clock)
    errors: list[Any] = []
    _ = first.running.addErrback(errors.append)
    first.running.cancel()
    assert [CancelledError] == [error.type for error in errors]
    slots[0].end()
    assert (first.begun, second.begun) == (False, True)
    assert clock.getDelayedCalls() == []


def test_any_number_of_handshakes_that_end_at_once_pass_their_slot_on(clock: Clock) -> None:
    """As of connections that were lost while they waited."""
    slots = full(clock)
    waiting = [Slot(clock) for _ in range(500)]
    last = Slot(clock)
    for slot in waiting:
        slot.end()
    assert not any(slot.begun for slot in waiting)
    slots[0].end()
    assert all(slot.begun for slot in [*waiting, last])
    assert [slot.running.called for slot in waiting] == [True] * 500


def test_cancelling_a_message_whose_handshake_waits_is_an_error_with_a_transcript(net: Net) -> None:
    others = [
        Handshake(net.clock, net.trust, NAME, None, context=net.trust.context())
        for _ in range(MAX_HANDSHAKES)
    ]
    for other in others:
        _ = Deferred.fromCoroutine(other.__aenter__())
    result = net.send(net.server())
    assert not result.fired
    result.deferred.cancel()
    net.pump.run()
    assert isinstance(result.error, Cancelled)
    assert "EHLO client.example.org" in str(result.error.transcript)
    assert net.link.over
