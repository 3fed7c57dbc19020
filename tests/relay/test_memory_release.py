"""A delivered message is freed at once, without the garbage collector."""

from __future__ import annotations

import gc

from tests.names import QueuedMessage
from tests.relay.world import World
from twisted_sendmail.client import Job
from twisted_sendmail.queue.group_commit import Operation
from twisted_sendmail.relay.delivery import Attempt


def test_what_was_delivered_leaves_nothing_for_the_garbage_collector(world: World) -> None:
    relay = world.relay(world.host())
    world.run(world.send(relay, "bob@example.net").delivered())
    gc.collect()
    gc.disable()
    # What other tests have left is not this one's.
    others = {id(each): each for each in alive()}
    try:
        for _ in range(3):
            world.run(world.send(relay, "bob@example.net").delivered())
        found = [type(each).__name__ for each in alive() if id(each) not in others]
    finally:
        gc.enable()
    assert found == []


def alive() -> list[object]:
    kinds = (Attempt, Job, Operation, QueuedMessage)
    return [each for each in gc.get_objects() if isinstance(each, kinds)]
