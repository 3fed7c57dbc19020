"""Failed mail without a sender is removed after its time, whatever the clock."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.memory_queue import MemoryQueue
from tests.names import (
    Cleared,
    QueueAction,
    QueueError,
    Selection,
    SetAsideReason,
    Trouble,
    log_event,
)
from tests.relay.world import DAY, HOUR, START, World
from twisted_sendmail import RelayService, Reply


def pass_time(world: World, seconds: float) -> None:
    """As it passes: in steps."""
    for _ in range(int(seconds // 60)):
        world.advance(60)


def set_aside(world: World, **options: Any) -> tuple[RelayService, str]:
    host = world.host()
    host.refusals = {"gone@x.example": "550 5.1.1 unknown"}
    options.setdefault("spool", MemoryQueue(world.clock))
    relay = world.relay(host, **options)
    queued = world.send(relay, "gone@x.example", sender="")
    assert [message.aside for message in world.queue(relay)] == [SetAsideReason.UNDELIVERABLE]
    return relay, queued.id


def test_it_is_removed_after_five_days_and_listed_before(world: World) -> None:
    relay, name = set_aside(world)
    pass_time(world, 5 * DAY - HOUR)
    assert [name] == [message.id for message in world.queue(relay, queue="undeliverable")]
    pass_time(world, 2 * HOUR)
    assert world.queue(relay) == []
    assert [Cleared(name, 5 * DAY)] == world.of(Cleared)


def test_the_time_is_a_setting_and_may_be_none(world: World) -> None:
    relay, name = set_aside(world, keep_undeliverable=None)
    pass_time(world, 6 * DAY)
    assert [name] == [message.id for message in world.queue(relay)]
    relay.reconfigure(world.settings(world.hosts[0], keep_undeliverable=HOUR))
    pass_time(world, 2 * HOUR)
    assert world.queue(relay) == []


def test_what_the_operator_held_is_not_removed(world: World) -> None:
    host = world.host()
    answer: Deferred[Reply] = Deferred()
    host.answer = lambda _: answer  # type: ignore[method-assign,assignment,return-value]
    relay = world.relay(host, spool=MemoryQueue(world.clock), keep_undeliverable=HOUR)
    queued = world.send(relay, "gone@x.example", sender="")
    world.run(relay.queue.act(QueueAction.HOLD, Selection(), START))
    answer.callback(Reply(550, ("5.1.1 unknown",)))
    pass_time(world, DAY)
    (left,) = world.queue(relay)
    assert (queued.id, SetAsideReason.UNDELIVERABLE, True) == (left.id, left.aside, left.held)


@pytest.mark.parametrize("jump", [6 * DAY, 400 * DAY, -6 * DAY, -START])
@pytest.mark.parametrize("told", [False, True])
def test_a_clock_that_jumps_removes_nothing_early(world: World, jump: float, *, told: bool) -> None:
    relay, name = set_aside(world)
    pass_time(world, 2 * DAY)
    world.jump(jump)
    if told:
        # As the clock watch does it.
        for call in world.clock.getDelayedCalls():
            call.delay(jump)
        relay.look()
    pass_time(world, 2 * DAY)
    assert [name] == [message.id for message in world.queue(relay)]
    if told:
        pass_time(world, DAY + 2 * HOUR)
        assert world.queue(relay) == []


@pytest.mark.parametrize("jump", [0, 400 * DAY, -400 * DAY])
def test_a_relay_that_starts_with_another_clock_goes_on_counting(world: World, jump: float) -> None:
    relay, name = set_aside(world)
    pass_time(world, 3 * DAY)
    spool = relay.queue
    world.stop(relay)
    world.jump(jump)
    relay = world.relay(world.hosts[0], spool=spool)
    pass_time(world, DAY)
    assert [name] == [message.id for message in world.queue(relay)]
    pass_time(world, DAY + 3 * HOUR)
    assert world.queue(relay) == []


def test_a_queue_that_cannot_be_written_is_told_of_and_asked_again(world: World) -> None:
    spool = MemoryQueue(world.clock)
    _, name = set_aside(world, spool=spool, keep_undeliverable=DAY)
    asked: list[float] = []
    clear = spool.clear_aside

    def broken(keep: float) -> Any:
        asked.append(world.clock.seconds() - START)
        if len(asked) < 3:
            raise QueueError("the disk is full")
        return clear(keep)

    spool.clear_aside = broken  # type: ignore[method-assign]
    pass_time(world, DAY + HOUR)
    assert asked[:4] == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]
    assert [trouble.reason for trouble in world.of(Trouble)] == ["the disk is full"] * 2
    assert [Cleared(name, DAY)] == world.of(Cleared)


def test_one_line_of_the_log_says_so() -> None:
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    log_event(Cleared("0123456789AB", 5 * DAY))
    log_event(Cleared("0123456789AB", HOUR / 2))
    globalLogPublisher.removeObserver(observe)
    said = "0123456789AB: removed: undeliverable and unreportable, kept for "
    assert lines == [f"{said}5 days", f"{said}0.5 hours"]
