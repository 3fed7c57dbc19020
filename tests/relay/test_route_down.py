"""A route that is down: its mail waits as a whole, and no message fails because of it."""

from __future__ import annotations

import pytest

from tests.names import (
    Attempted,
    AuthenticationAlarm,
    MessageInfo,
    QueueAction,
    RouteDown,
    RouteUp,
    Selection,
    SQLiteStore,
    Trouble,
    close,
    expired_certificate,
    refuse,
    send,
    without,
)
from tests.relay.world import HOUR, SENDER, START, World
from twisted_sendmail import Envelope, PoolLimits, RetryPolicy


def test_while_it_is_down_mail_is_taken_in_and_one_message_at_a_time_asks(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    for number in range(50):
        world.send(relay, f"r{number}@x.example")
    world.advance(60)
    assert len(world.queue(relay)) == 50
    # 0, 4, 12, 28, 60: each wait twice as long.
    assert [at - START for at in host.attempts] == [0, 4, 12, 28, 60]
    assert len(world.of(Attempted)) == 5
    assert [message.recipients[0].attempts for message in world.queue(relay)] == [0] * 50


def test_the_success_of_one_opens_the_gate_for_all(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    for number in range(50):
        world.send(relay, f"r{number}@x.example")
    world.advance(10)
    host.up = True
    world.until(lambda: host.got)
    world.pump.run()
    assert sorted(f"r{number}@x.example" for number in range(50)) == sorted(
        to for _, to in host.got
    )
    assert world.clock.seconds() == START + 12
    assert [route.up for route in relay.stats().routes] == [True]
    assert len(world.of(RouteUp)) == 1


def test_a_flush_ends_the_back_off_at_once(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    for number in range(10):
        world.send(relay, f"r{number}@x.example")
    world.advance(HOUR)
    host.up = True
    before = world.clock.seconds()
    world.run(relay.flush())
    world.pump.run()
    assert len(host.got) == 10
    assert world.clock.seconds() < before + 0.1


def test_a_flush_tries_those_again_who_were_refused_for_now(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    world.send(relay, "full@x.example")
    world.run(relay.flush())
    world.pump.run()
    assert host.got == [(SENDER, "full@x.example")]
    assert world.clock.seconds() < START + 0.1


def test_somebody_who_stirs_the_queue_makes_it_ask_but_not_in_a_storm(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    world.send(relay, "bob@example.net")
    world.advance(HOUR)
    before = len(host.attempts)
    for _ in range(10):
        relay.look()
        world.pump.run()
    assert before + 1 == len(host.attempts)


def test_waits_never_grow_beyond_the_longest(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(world.route(host, first=4.0, most=60.0))
    world.send(relay, "bob@example.net")
    world.advance(HOUR)
    waits = [b - a for a, b in zip(host.attempts, host.attempts[1:], strict=False)]
    assert waits[:6] == [4, 8, 16, 32, 60, 60]
    assert max(waits) == 60


@pytest.mark.parametrize("reply", ["535 5.7.8 no", "534 5.7.9 no", "538 5.7.11 no", "530 5.7.0 no"])
def test_a_refused_password_defers_and_alarms_and_is_not_tried_in_a_storm(
    world: World, reply: str
) -> None:
    host = world.host(users={"u": "secret"}, clear=False, faults=[refuse("AUTH", reply)])
    relay = world.relay(world.route(host.server(user="u")))
    for number in range(20):
        world.send(relay, f"r{number}@x.example")
    world.advance(HOUR)
    assert len(world.queue(relay)) == 20
    assert [status for _, status in world.tried if status != "deferred"] == []
    (first, *_) = alarms = world.of(AuthenticationAlarm)
    assert reply in first.reason
    assert "secret" not in str(first)
    # At the beginning, and every quarter of an hour.
    assert 5 == len(alarms) == len(host.attempts)
    assert [route.locked for route in relay.stats().routes] == [True]


def test_a_corrected_password_is_tried_by_a_flush(world: World) -> None:
    host = world.host(
        users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no", nth=1)]
    )
    relay = world.relay(world.route(host.server(user="u")))
    world.send(relay, "bob@example.net")
    assert host.got == []
    world.run(relay.flush())
    world.pump.run()
    assert host.got == [(SENDER, "bob@example.net")]
    assert [route.locked for route in relay.stats().routes] == [False]


def _by_another_process(world: World, action: QueueAction, selection: Selection) -> None:
    """As ``twisted-sendmail queue`` does."""
    with SQLiteStore(world.directory) as store, store.transaction():
        _ = store.act(action, selection, world.clock.seconds())


@pytest.mark.parametrize("way", ["flush", "signal", "flush ID", "requeue ID", "other process"])
def test_a_flush_tries_a_refused_password_once_and_waits_again(world: World, way: str) -> None:
    host = world.host(users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no")])
    relay = world.relay(world.route(host.server(user="u")))
    ids = [world.send(relay, f"r{number}@x.example").id for number in range(20)]
    world.advance(60)
    assert len(host.attempts) == 1
    one, now = Selection(ids=(ids[7],)), world.clock.seconds()
    if way == "signal":
        world.run(relay.flush())
    elif way == "other process":
        _by_another_process(world, QueueAction.FLUSH, Selection())
    else:
        action, *named = way.split()
        selection = one if named else Selection()
        world.run(relay.queue.act(QueueAction(action), selection, now))
    world.advance(600)
    assert 2 == len(host.attempts) == len(world.of(AuthenticationAlarm))
    world.advance(400)
    assert len(host.attempts) == 3


def _down_routes(world: World) -> dict[str, tuple[str, float]]:
    with SQLiteStore(world.directory) as store:
        found = store.down_routes()
    return {name: (down.reason, down.next_attempt - START) for name, down in found.items()}


def test_the_queue_has_the_state_of_each_route_for_commands(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    assert _down_routes(world) == {}
    _ = world.send(relay, "bob@example.net")
    ((reason, next_attempt),) = _down_routes(world).values()
    assert "Connection was refused" in reason
    assert next_attempt == 4
    world.advance(5)
    assert _down_routes(world)["out"][1] == 12
    host.up = True
    world.until(lambda: host.got)
    world.pump.run()
    assert _down_routes(world) == {}


def test_the_state_of_a_route_ends_with_the_relay_and_with_the_route(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    _ = world.send(relay, "bob@example.net")
    assert list(_down_routes(world)) == ["out"]
    relay.reconfigure(world.settings(world.route(world.host(), name="other")))
    world.pump.run()
    assert _down_routes(world) == {}
    relay.reconfigure(world.settings(host))
    _ = world.send(relay, "bob@example.net")
    assert list(_down_routes(world)) == ["out"]
    world.stop(relay)
    _ = world.relay(world.route(world.host(), name="other"))
    assert _down_routes(world) == {}


def test_a_flush_of_one_route_does_not_try_the_password_of_another(world: World) -> None:
    first, second = (
        world.host(users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no")])
        for _ in range(2)
    )
    relay = world.relay(
        world.route(first.server(user="u"), name="one", senders=("@one.example",)),
        world.route(second.server(user="u"), name="two"),
    )
    _ = world.send(relay, "bob@example.net", sender="a@one.example")
    queued = world.send(relay, "bob@example.net", sender="a@two.example")
    world.advance(60)
    _by_another_process(world, QueueAction.FLUSH, Selection(ids=(queued.id,)))
    world.advance(60)
    assert (len(first.attempts), len(second.attempts)) == (1, 2)


@pytest.mark.parametrize("action", ["hold", "release", "expire", "delete"])
def test_other_actions_do_not_try_a_refused_password(world: World, action: str) -> None:
    host = world.host(users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no")])
    relay = world.relay(world.route(host.server(user="u")))
    queued = [world.send(relay, f"r{number}@x.example") for number in range(3)]
    world.advance(60)
    selection = Selection(ids=(queued[1].id,))
    world.run(relay.queue.act(QueueAction(action), selection, world.clock.seconds()))
    _by_another_process(world, QueueAction(action), Selection(ids=(queued[2].id,)))
    world.advance(60)
    assert len(host.attempts) == 1


def test_a_user_who_flushes_their_own_mail_does_not_try_a_refused_password(world: World) -> None:
    host = world.host(users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no")])
    relay = world.relay(world.route(host.server(user="u")))
    envelope, id_ = Envelope(SENDER, "bob@example.net"), relay.queue.new_id()
    intake = relay.queue.intake()
    _ = intake.write(b"Subject: x\r\n\r\nhello\r\n")
    _ = world.run(intake.commit(MessageInfo(id_, envelope, START, "out", uid=1000)))
    world.advance(60)
    done = world.run(relay.queue.act(QueueAction.FLUSH, Selection(uid=1000), world.clock.seconds()))
    world.advance(60)
    assert (len(done), len(host.attempts)) == (1, 1)


def test_a_flush_without_mail_lets_new_mail_try_the_password(world: World) -> None:
    host = world.host(
        users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no", nth=1)]
    )
    relay = world.relay(world.route(host.server(user="u")))
    queued = world.send(relay, "bob@example.net")
    world.run(relay.queue.act(QueueAction.DELETE, Selection(ids=(queued.id,)), START))
    _by_another_process(world, QueueAction.FLUSH, Selection())
    world.advance(10)
    _ = world.send(relay, "bob@example.net")
    world.advance(1)
    assert host.got == [(SENDER, "bob@example.net")]


def test_a_refused_password_alarms_though_the_second_host_takes_the_mail(world: World) -> None:
    first = world.host(users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no")])
    second = world.host()
    relay = world.relay(world.route(first.server(user="u"), second.server()))
    world.send(relay, "bob@example.net")
    world.send(relay, "bob@example.net")
    assert len(second.got) == 2
    assert len(world.of(AuthenticationAlarm)) == 1
    assert [route.up for route in relay.stats().routes] == [True]


@pytest.mark.parametrize("moment", ["MAIL", "RCPT", "dot"])
def test_a_server_that_wants_a_password_it_did_not_ask_for_bounces_nothing(
    world: World, moment: str
) -> None:
    host = world.host(faults=[refuse(moment, "530 5.7.0 Authentication required")])
    relay = world.relay(host)
    for number in range(10):
        world.send(relay, f"r{number}@x.example")
    world.advance(60)
    assert len(world.queue(relay)) == 10
    assert len(world.of(Attempted)) == 3
    assert {status for _, status in world.tried} == {"deferred"}
    assert len(world.of(RouteDown)) == 1
    assert world.of(AuthenticationAlarm)


@pytest.mark.parametrize(
    "fault",
    [
        refuse("greeting", "554 5.3.2 not here"),
        refuse("greeting", "421 4.3.2 busy"),
        refuse("EHLO", "550 5.7.1 go away"),
        close("greeting"),
        without("STARTTLS"),
        refuse("STARTTLS", "454 4.7.0 no TLS now"),
        expired_certificate(),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_opening_is_never_held_against_a_recipient(
    world: World, fault: object
) -> None:
    host = world.host(clear=False, faults=[fault])  # type: ignore[list-item]
    relay = world.relay(host)
    world.send(relay, "bob@example.net")
    world.advance(60)
    (message,) = world.queue(relay)
    assert message.recipients[0].attempts == 0
    assert message.recipients[0].reply
    assert (message.recipients[0].status or "").startswith("4.")
    assert {status for _, status in world.tried} == {"deferred"}
    assert world.of(RouteDown)


def test_a_certificate_file_that_is_gone_is_trouble_of_ours_and_defers(world: World) -> None:
    host = world.host(clear=False)
    relay = world.relay(host)
    world.send(relay, "bob@example.net")
    world.advance(HOUR)
    assert len(host.got) == 1
    import pathlib

    pathlib.Path(host.ca_file).rename(pathlib.Path(host.ca_file + ".old"))
    world.send(relay, "bob@example.net")
    assert len(world.queue(relay)) == 1
    assert world.tried[-1][1] == "deferred"
    pathlib.Path(host.ca_file + ".old").rename(pathlib.Path(host.ca_file))
    world.until(lambda: len(host.got) == 2)


def test_mail_past_its_time_is_given_up_though_nothing_gets_through(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host, schedule=RetryPolicy(lifetime=6 * HOUR))
    for number in range(100):
        world.send(relay, f"r{number}@x.example", fields="Auto-Submitted: auto-generated\r\n")
    world.advance(8 * HOUR)
    expired = [to for to, status in world.tried if status == "expired"]
    assert 100 == len(set(expired)) == len(expired)


def test_what_the_operator_expires_ends_though_the_route_is_down(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host)
    one = world.send(relay, "a@x.example", fields="Auto-Submitted: auto-generated\r\n")
    two = world.send(relay, "b@x.example")
    attempts = len(host.attempts)
    world.run(relay.queue.act(QueueAction.EXPIRE, Selection(ids=(one.id,)), START))
    world.pump.run()
    report = world.run(one.delivered())
    assert [str(o.recipient) for o in report.failed] == ["a@x.example"]
    assert [two.id] == [m.id for m in world.queue(relay, queue="incoming")]
    assert attempts == len(host.attempts)


def test_421_in_the_middle_defers_and_begins_anew_with_one(world: World) -> None:
    host = world.host(faults=[refuse("dot", "421 4.3.2 closing", nth=3)])
    relay = world.relay(world.route(host, limits=PoolLimits(connections=1, window=1)))
    for number in range(6):
        world.send(relay, f"r{number}@x.example")
    world.until(lambda: len(host.got) == 6)
    assert len(set(host.got)) == 6
    assert world.of(Trouble) == []


@pytest.mark.parametrize("count", [1, 5])
def test_a_250_to_the_content_of_a_message_whose_recipients_were_refused_is_no_trouble(
    world: World, count: int
) -> None:
    """Such mail bounces by the replies to its recipients, and other mail goes on."""
    yes = b"250 2.0.0 Ok: queued as nobody's\r\n"
    host = world.host(faults=[send("BDAT", yes, nth=n) for n in range(1, count + 1)])
    host.refusals = {f"gone{n}@x.example": "550 5.1.1 unknown" for n in range(count)}
    relay = world.relay(world.route(host, limits=PoolLimits(connections=1)))
    to = [Envelope(SENDER, f"gone{n}@x.example") for n in range(count)]
    made = [relay.send(b"Subject: x\r\n\r\nhello\r\n", envelope=each) for each in to]
    sent = [world.run(each) for each in made]
    failed = [world.run(each.delivered()).failed for each in sent]
    assert ["550 5.1.1 unknown"] * count == [outcome.reply for (outcome,) in failed]
    world.until(lambda: len(host.reports) == count)
    world.run(world.send(relay, "bob@example.net").delivered())
    assert (world.of(RouteDown), [route.up for route in relay.stats().routes]) == ([], [True])
    assert (world.queue(relay), world.clock.seconds()) == ([], START)
    assert len(host.attempts) == 1
