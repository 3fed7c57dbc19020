"""That a message that was delivered is gone from memory at once, and not when it is swept."""

from __future__ import annotations

import gc

from tests.relay.world import World
from twisted_sendmail.relay.carried import Attempt, CarriedJob
from twisted_sendmail.spool.group_commit import Operation
from twisted_sendmail.spool.record import QueuedMessage


def test_what_was_delivered_leaves_nothing_for_the_garbage_collector(world: World) -> None:
    relay = world.relay(world.host())
    world.run(world.send(relay, "bob@example.net").delivered)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            world.run(world.send(relay, "bob@example.net").delivered)
        kinds = (Attempt, CarriedJob, Operation, QueuedMessage)
        found = [type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)]
    finally:
        gc.enable()
    assert [] == found
