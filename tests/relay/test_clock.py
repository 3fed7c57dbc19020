"""Clock jumps: no message waits for ever, or fails without an attempt, and the relay does not spin."""

from __future__ import annotations

import secrets
from email.utils import formatdate

import pytest

from tests.names import Attempted, QueueAction, Selection
from tests.relay.world import DAY, HOUR, SENDER, START, World
from twisted_sendmail import RelayService, RetryPolicy

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
    report = world.run(queued.delivered())
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


def given_up(world: World, relay: RelayService, since: float) -> bool:
    """Let time pass until the one message is given up; return True if that was after six hours."""
    world.until(lambda: ("full@x.example", "expired") in world.tried, patience=8 * HOUR)
    assert b"Status: 4.4.7" in world.hosts[0].reports[-1].content
    assert world.queue(relay) == []
    # The age is written once a minute.
    return 6 * HOUR - 60 <= world.clock.seconds() - since <= 6 * HOUR + 4700


SIX_HOURS = RetryPolicy(lifetime=6 * HOUR)


@pytest.mark.parametrize(
    ("jump", "restart", "up"),
    # Every pair of two values.
    [
        (jump, restart, restart == bool(number % 2))
        for number, jump in enumerate([START, 6 * DAY, -6 * DAY, -START])
        for restart in (False, True)
    ],
)
def test_mail_is_given_up_after_it_was_tried_for_its_time_whatever_the_clock(
    world: World, jump: float, *, restart: bool, up: bool
) -> None:
    """Queued before the jump, and tried: the server was up and deferred it, or it was down."""
    if jump == START:
        world.jump(60 - START)  # as a machine without a battery starts
    host = world.host()
    host.refusals = {"full@x.example": "450 4.2.0 greylisted"}
    host.up = up
    relay = world.relay(host, schedule=SIX_HOURS)
    world.send(relay, "full@x.example")
    world.advance(90)
    if restart:
        world.stop(relay)
    world.jump(jump)
    for call in world.clock.getDelayedCalls():
        call.delay(jump)  # as the clock watch does it
    host.up = True
    since = world.clock.seconds() - 90
    if restart:
        relay = world.relay(host, schedule=SIX_HOURS)
    relay.look()
    assert given_up(world, relay, since)
    assert len(world.tried) > 5


def test_the_time_on_hold_and_before_a_requeue_is_no_time_of_trying(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "450 4.2.0 greylisted"}
    relay = world.relay(host, schedule=SIX_HOURS)
    world.send(relay, "full@x.example")
    for action in (QueueAction.HOLD, QueueAction.RELEASE, QueueAction.REQUEUE):
        world.run(relay.queue.act(action, Selection(), world.clock.seconds()))
        since = world.clock.seconds()
        world.advance(DAY if action is QueueAction.HOLD else 2 * HOUR)
    assert given_up(world, relay, since)


@pytest.mark.parametrize("jump", [6 * DAY, START])
def test_no_delay_is_reported_before_there_was_one(world: World, jump: float) -> None:
    if jump == START:
        world.jump(60 - START)
    host = world.host()
    host.refusals = {"full@x.example": "450 4.2.0 greylisted"}
    relay = world.relay(host)
    world.send(relay, "full@x.example")
    world.jump(jump)
    relay.look()
    before = world.clock.seconds()
    world.until(lambda: host.reports)
    assert 4 * HOUR - 60 <= world.clock.seconds() - before <= 4 * HOUR + 4700
    until = formatdate(world.clock.seconds() + 5 * DAY - 4 * HOUR, localtime=False)[:14].encode()
    assert b"Will-Retry-Until: " + until in host.reports[0].content


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
