"""Stop and reload of a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.names import (
    Attempted,
    Interrupted,
    MessageInfo,
    QueueUnusable,
    RouteDown,
    Selection,
    stall,
)
from tests.relay.world import HOUR, SENDER, START, World
from twisted_sendmail import Cancelled, MailerClosed, RecipientStatus, RelayService


def test_what_is_on_its_way_ends_before_the_queue_is_closed(world: World) -> None:
    host = world.host(clear=False)
    relay = world.relay(host)
    world.send(relay, "a@x.example")
    sending = world.watch(
        relay.send(b"Subject: x\r\n\r\nx\r\n", sender=SENDER, recipients="b@x.example")
    )
    # The connection is open and has the message, and nothing has moved on the network yet.
    waiting = world.watch(sending[0].delivered())
    assert host.got == [(SENDER, "a@x.example")]
    world.stop(relay)
    assert host.got == [(SENDER, "a@x.example"), (SENDER, "b@x.example")]
    assert len(waiting) == 1
    relay = world.relay(host)
    assert world.queue(relay) == []


def test_the_repr_of_a_relay_shows_its_state(world: World) -> None:
    host = world.host()
    host.silent = True
    relay = world.relay(host)
    assert repr(relay) == "<RelayService relay.example: running, 0 under way>"
    world.send(relay, "a@x.example")
    assert repr(relay) == "<RelayService relay.example: running, 1 under way>"
    world.stop(relay)
    assert repr(relay) == "<RelayService relay.example: stopped, 0 under way>"


def test_what_waits_for_a_connection_is_in_the_queue_again_at_once(world: World) -> None:
    host = world.host()
    host.silent = True
    relay = world.relay(host)
    for number in range(8):
        world.send(relay, f"r{number}@x.example")
    world.advance(1)
    world.stop(relay)
    assert world.clock.seconds() == START + 1
    host.silent = False
    world.relay(host)
    world.until(lambda: len(host.got) == 8)
    # No attempt was made: no second copy has to be feared.
    assert world.of(Interrupted) == []


def test_what_waits_for_a_connection_goes_by_the_new_route_after_a_change(world: World) -> None:
    old, new = world.host(), world.host()
    old.silent = True
    relay = world.relay(old, grace=300.0)
    for number in range(5):
        world.send(relay, f"r{number}@x.example")
    relay.reconfigure(world.settings(new, grace=300.0))
    world.advance(5)
    assert len(new.got) == 5


def test_what_does_not_end_in_time_is_cut_off_and_stays(world: World) -> None:
    host = world.host(faults=[stall("MAIL")])
    relay = world.relay(host, grace=5.0)
    for number in range(8):
        world.send(relay, f"r{number}@x.example")
    world.stop(relay)
    assert world.clock.seconds() == START + 5
    relay = world.relay(host)
    assert len(world.queue(relay)) == 8
    # Nothing of them had gone out: no second copy has to be feared.
    assert world.of(Interrupted) == []


def test_draining_is_the_same_and_stopping_behind_it_takes_no_second_grace(world: World) -> None:
    """What comes in meanwhile is kept."""
    host = world.host(faults=[stall("MAIL")])
    relay = world.relay(host, grace=5.0)
    world.send(relay, "r0@x.example")
    draining = [world.watch(relay.drain()) for _ in range(2)]
    world.advance(4)
    world.send(relay, "r1@x.example")
    assert draining == [[], []]
    world.stop(relay)
    assert draining == [[None], [None]]
    assert world.clock.seconds() == START + 5
    assert len(host.attempts) == 1
    relay = world.relay(host)
    assert len(world.queue(relay)) == 2
    assert world.of(Interrupted) == []


def test_draining_what_does_not_run_is_over_at_once(world: World) -> None:
    relay = RelayService(world.clock, world.spool(), world.settings(world.host()))
    assert world.watch(relay.drain()) == [None]


def test_nothing_is_taken_out_while_it_stops(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    for number in range(30):
        world.send(relay, f"r{number}@x.example")
    host.up = True
    stopping = world.watch(relay.stopService())
    world.relays.remove(relay)
    world.advance(60)
    assert stopping == [None]
    assert host.got == []


def test_no_timer_is_left_behind(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 full"}
    relay = world.relay(host)
    world.send(relay, "full@x.example", "ok@x.example")
    world.stop(relay)
    world.advance(1)
    assert world.clock.getDelayedCalls() == []


def test_who_waits_for_the_end_is_told_that_the_relay_stopped(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    queued = world.send(relay, "bob@example.net")
    waiting = world.watch(queued.delivered())
    cancelled = queued.delivered()
    results = world.watch(cancelled)
    cancelled.cancel()
    assert len(results) == 1
    world.stop(relay)
    assert [MailerClosed] == [type(failure.value) for failure in waiting]
    late = world.watch(queued.delivered())
    assert [MailerClosed] == [type(failure.value) for failure in late]
    # The relay has the message: the same again would be a second copy.
    assert [failure.value.transient for failure in (*waiting, *late)] == [False, False]
    assert "do not send it again" in str(late[0].value)


def test_a_relay_that_does_not_run_takes_nothing(world: World) -> None:
    host = world.host()
    relay = RelayService(world.clock, world.directory, world.settings(host))
    for deferred in (
        relay.send(b"x", sender=SENDER, recipients="b@x.example"),
        relay.flush(),
        relay.ready(),
    ):
        with pytest.raises(MailerClosed):
            world.run(deferred)


def test_a_relay_starts_again_after_its_end(world: World) -> None:
    host = world.host()
    relay = RelayService(world.clock, world.directory, world.settings(host))
    for _ in range(2):
        relay.startService()
        world.run(relay.ready())
        world.run(world.send(relay, "bob@example.net").delivered())
        world.run(relay.stopService())
    assert len(host.got) == 2


def test_a_queue_that_cannot_be_opened_is_one_clear_error(world: World) -> None:
    (world.directory / "queue.sqlite3").write_bytes(b"this is no database, whatever it is" * 100)
    host = world.host()
    relay = RelayService(world.clock, world.directory, world.settings(host))
    relay.startService()
    with pytest.raises(QueueUnusable):
        world.run(relay.ready())
    with pytest.raises(QueueUnusable):
        world.run(relay.send(b"x", sender=SENDER, recipients="b@x.example"))
    world.run(relay.stopService())


def test_a_message_whose_end_was_not_seen_is_named_and_goes_again(
    world: World, tmp_path: Path
) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    queued = world.send(relay, "carol@example.net", sender="dora@example.net")
    world.stop(relay)
    # As if the process had died while it was being tried.
    world.tamper("UPDATE message SET leased = 1")
    host.up = True
    relay = world.relay(host)
    assert [Interrupted((queued.id,))] == world.of(Interrupted)
    world.until(lambda: host.got)
    assert world.of(Attempted)[-1].doubles == 1


def test_a_route_that_changed_gets_new_connections_and_the_old_ones_end(world: World) -> None:
    old, new = world.host(faults=[stall("dot")]), world.host()
    relay = world.relay(old, grace=10.0)
    world.send(relay, "a@x.example")
    relay.reconfigure(world.settings(new, grace=10.0))
    world.send(relay, "b@x.example")
    assert new.got == [(SENDER, "b@x.example")]
    world.until(lambda: len(new.got) == 2)
    # The old server had it, and did not say so: that is in doubt, and named.
    first, *_, last = [event for event in world.of(Attempted) if event.recipient == "a@x.example"]
    assert (first.in_doubt, last.doubles) == (True, 1)


def test_a_route_that_stays_keeps_its_connections(world: World) -> None:
    host, other = world.host(), world.host()
    server = host.server()
    relay = world.relay(world.route(server))
    world.send(relay, "a@x.example")
    relay.reconfigure(
        world.settings(
            world.route(server), world.route(other, name="more", senders=("@m.example",))
        )
    )
    world.send(relay, "b@x.example")
    world.send(relay, "c@x.example", sender="me@m.example")
    assert len(host.attempts) == 1
    assert other.got == [("me@m.example", "c@x.example")]


def test_mail_of_a_route_that_is_no_more_takes_the_one_for_everybody(world: World) -> None:
    gone, stays = world.host(), world.host()
    gone.up = False
    relay = world.relay(
        world.route(gone, name="gone", senders=(SENDER,)), world.route(stays, name="stays")
    )
    world.send(relay, "a@x.example")
    relay.reconfigure(world.settings(world.route(stays, name="stays")))
    world.pump.run()
    assert stays.got == [(SENDER, "a@x.example")]


def test_a_route_that_was_renamed_while_nothing_ran_is_found_at_the_start(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(world.route(host, name="old"))
    world.send(relay, "a@x.example")
    world.stop(relay)
    host.up = True
    world.relay(world.route(host, name="new"))
    assert host.got == [(SENDER, "a@x.example")]


def test_a_reload_asks_a_route_that_is_down(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    world.send(relay, "a@x.example")
    world.advance(HOUR)
    host.up = True
    relay.reconfigure(world.settings(host))
    world.pump.run()
    assert host.got == [(SENDER, "a@x.example")]
    assert world.of(RouteDown)


def test_cancelling_a_send_before_it_is_complete_leaves_nothing(world: World) -> None:
    host = world.host()
    relay = world.relay(host)
    never: Deferred[bytes] = Deferred()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n\r\n"
        yield await never

    sending = relay.send(pieces(), sender=SENDER, recipients="b@x.example")
    results = world.watch(sending)
    sending.cancel()
    assert len(results) == 1
    assert world.queue(relay) == []


@ensureDeferred
async def test_cancelling_a_send_while_it_is_written_to_the_disk_is_in_doubt(
    reactor: Any, tmp_path: Path
) -> None:
    """And the message is queued indeed."""
    relay = RelayService.to(
        reactor, tmp_path / "queue", "smtp://127.0.0.1:1", name="relay.example.org"
    )
    relay.startService()
    await relay.ready()
    message = b"From: a@example.org\r\nTo: b@example.net\r\n\r\nhello\r\n"
    sending = relay.send(message, held=True)
    sending.cancel()
    with pytest.raises(Cancelled, match="may be queued") as caught:
        await sending
    error = caught.value
    assert error.report is not None
    assert (
        error.in_doubt,
        error.transient,
        [outcome.status for outcome in error.report.outcomes],
    ) == (True, False, [RecipientStatus.IN_DOUBT])
    second = await relay.send(message, held=True)
    found = await relay.queue.list(Selection())
    assert len(list(found)) == 2
    assert second.id
    await relay.stopService()


def test_an_observer_that_fails_stops_nothing(world: World) -> None:
    host = world.host()
    relay = world.relay(host)

    def bad(event: object) -> None:
        raise ValueError(event)

    relay.observers.insert(0, bad)
    world.run(world.send(relay, "bob@example.net").delivered())
    assert host.got == [(SENDER, "bob@example.net")]


def test_a_relay_to_one_server_needs_a_url_and_a_directory(world: World) -> None:
    relay = RelayService.to(
        world.clock,
        world.directory,
        "smtp+starttls://user@mx.example",
        password="secret",
        name="relay.example",
    )
    (route,) = relay.settings.routes
    assert (route.name, str(route.servers[0])) == ("smarthost", "smtp+starttls://mx.example:587")
    relay.startService()
    world.run(relay.ready())
    world.run(relay.stopService())
    assert (world.directory / "queue.sqlite3").exists()
    assert "secret" not in repr(relay.settings)


def test_what_a_changed_route_did_not_send_any_more_goes_out_by_the_new_one(world: World) -> None:
    old, new = world.host(), world.host()
    old.silent = True
    relay = world.relay(old, grace=1.0)
    for number in range(5):
        world.send(relay, f"r{number}@x.example")
    relay.reconfigure(world.settings(new, grace=1.0))
    world.advance(1.5)
    assert len(new.got) == 5
    assert [route.under_way for route in relay.stats().routes] == [0]


def test_a_message_that_was_claimed_when_the_routes_changed_is_counted_right(
    world: World,
) -> None:
    old, new = world.host(), world.host()
    relay = world.relay(old)
    spool = relay.queue
    observer = spool.observer
    assert observer is not None
    claim = observer.claim

    def change(info: MessageInfo) -> bool:
        claimed = claim(info)
        relay.reconfigure(world.settings(new))
        return claimed

    observer.claim = change  # type: ignore[method-assign]
    world.send(relay, "bob@example.net")
    assert new.got == [(SENDER, "bob@example.net")]
    assert [route.under_way for route in relay.stats().routes] == [0]
