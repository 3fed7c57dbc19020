"""Clock jumps: no message waits for ever, or fails without an attempt, and the relay does not spin."""

from __future__ import annotations

import secrets

import pytest

from tests.names import Attempted
from tests.relay.world import DAY, HOUR, SENDER, START, World

JUMPS = [HOUR, -HOUR, 6 * DAY, -6 * DAY, -START]


@pytest.mark.parametrize("jump", JUMPS)
def test_mail_is_tried_soon_after_the_clock_jumped(world: World, jump: float) -> None:
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    queued = world.send(relay, "full@x.example")
    world.advance(10)
    world.jump(jump)
    relay.look()
    before = world.clock.seconds()
    report = world.run(queued.delivered)
    assert [str(o.recipient) for o in report.delivered] == ["full@x.example"]
    assert 0 <= world.clock.seconds() - before <= 4700


@pytest.mark.parametrize("jump", JUMPS)
def test_mail_is_tried_soon_by_a_relay_that_starts_with_another_clock(
    world: World, jump: float
) -> None:
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    world.send(relay, "full@x.example")
    world.stop(relay)
    world.jump(jump)
    before = world.clock.seconds()
    relay = world.relay(host)
    world.until(lambda: host.got)
    assert 0 <= world.clock.seconds() - before <= 4700
    assert {status for _, status in world.tried} == {"deferred", "sent"}


@pytest.mark.parametrize("restart", [False, True])
def test_nothing_is_given_up_without_one_more_try(world: World, *, restart: bool) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    for number in range(10):
        world.send(relay, f"r{number}@x.example")
    if restart:
        world.stop(relay)
    world.jump(6 * DAY)
    host.up = True
    if restart:
        relay = world.relay(host)
    relay.look()
    world.until(lambda: len(host.got) == 10, patience=HOUR)
    assert "expired" not in {event.status for event in world.of(Attempted)}


def test_a_try_that_fails_after_the_jump_is_the_last(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host)
    queued = world.send(relay, "full@x.example")
    world.jump(6 * DAY)
    relay.look()
    report = world.run(queued.delivered, patience=HOUR)
    assert [outcome.status for outcome in report.failed] == ["4.4.7"]
    assert world.tried[:2] == [("full@x.example", "deferred"), ("full@x.example", "expired")]


@pytest.mark.parametrize("jump", [-HOUR, -6 * DAY, -START])
def test_a_route_that_is_down_is_asked_soon_though_the_clock_was_set_back(
    world: World, jump: float
) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    world.send(relay, "bob@example.net")
    world.advance(HOUR)
    host.up = True
    world.jump(jump)
    relay.look()
    before = world.clock.seconds()
    world.until(lambda: host.got)
    assert 0 <= world.clock.seconds() - before <= 60


def test_it_looks_again_by_itself_though_the_clock_was_set_forward(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    world.send(relay, "full@x.example")
    world.jump(HOUR)
    world.advance(60)
    assert host.got == [(SENDER, "full@x.example")]


def test_no_id_is_given_twice_by_a_relay_that_starts_with_a_clock_set_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "randbits", lambda bits: 0)
    host = world.host()
    host.up = False
    relay = world.relay(host)
    before = [world.send(relay, "bob@example.net").id for _ in range(3)]
    world.stop(relay)
    world.jump(START - world.clock.seconds())
    relay = world.relay(host)
    after = [world.send(relay, "bob@example.net").id for _ in range(3)]
    assert sorted({*before, *after}) == [*before, *after]
