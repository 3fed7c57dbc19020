"""Many messages at once: bounded memory, no duplicates, no starvation."""

from __future__ import annotations

from tests.names import MessageInfo, SQLiteStore
from tests.relay.world import SENDER, START, World
from twisted_sendmail import Envelope


def fill(world: World, count: int, *, route: str = "out") -> None:
    """Put messages into the queue while no relay runs."""
    store = SQLiteStore(world.directory)
    store.open(create=True, relay=True)
    spool = world.spool()
    with store.transaction(doing="be filled"):
        for number in range(count):
            envelope = Envelope(SENDER, f"r{number}@x.example")
            info = MessageInfo(spool.new_id(), envelope, START, route)
            _ = store.put(info, b"Subject: x\r\n\r\nx\r\n")
    store.close()


def test_of_ten_thousand_that_wait_few_are_in_memory_and_each_goes_once(world: World) -> None:
    fill(world, 10_000)
    host = world.host()
    host.up = False
    relay = world.relay(host)
    world.advance(2)
    stats = relay.stats()
    assert (stats.under_way, stats.routes[0].mailer.waiting) == (0, 0)
    host.up = True
    world.clock.advance(2)
    most = 0
    # Turn by turn, as otherwise all of them would go.
    while len(host.got) < 300:
        assert world.turn()
        most = max(most, relay.stats().under_way)
    assert world.clock.seconds() == START + 4
    assert most <= 64
    world.stop(relay)
    gone = len(host.got)
    assert gone < 600
    assert len(set(host.got)) == gone
    # The others are where they were.
    host.up = False
    relay = world.relay(host)
    assert 10_000 - gone == sum(world.run(relay.queue.totals()).queues.values())


def test_new_mail_does_not_wait_behind_old_mail(world: World) -> None:
    host = world.host()
    host.refusals = {f"old{number}@x.example": ["450 4.2.0 later"] for number in range(200)}
    relay = world.relay(host)
    for number in range(200):
        world.send(relay, f"old{number}@x.example")
    host.messages.clear()
    # All the old ones are due, and new ones come in at the same time.
    world.clock.advance(299)
    world.pump.run()
    world.clock.rightNow += 2
    relay.look()
    for number in range(50):
        _ = relay.send(
            b"Subject: x\r\n\r\nx\r\n", sender=SENDER, recipients=f"new{number}@x.example"
        )
    world.until(lambda: len(host.got) == 250)
    order = [to.startswith("new") for _, to in host.got]
    assert sum(order[:150]) == 50
    assert not all(order[:50])
