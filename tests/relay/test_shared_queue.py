"""A queue that several relays share: leases that run out, and routes whose state they share."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.internet.defer import fail

from tests.names import (
    Attempted,
    AuthenticationAlarm,
    ClusterState,
    DownRoute,
    InlineWorker,
    Interrupted,
    Lease,
    LeasedMessage,
    LeaseLost,
    LeaseTerm,
    QueueError,
    RelayNode,
    RelaysChanged,
    RouteDown,
    RouteUp,
    SQLiteQueue,
    TakenOver,
    Trouble,
    refuse,
)
from tests.relay.world import HOUR, START, Host, World
from twisted_sendmail import PoolLimits, RelayService
from twisted_sendmail.testing import faults


class SharedQueue(SQLiteQueue):
    """A queue whose leases end, as those of a queue that others have open as well."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._leasing: _Leasing | None = None
        self.term = LeaseTerm()
        super().__init__(*args, **options)
        self.term.extend(LeaseTerm.now() + HOUR)
        self.taken_over = False
        self.records: list[tuple[str, DownRoute | None]] = []

    @property
    def observer(self) -> Any:
        return self._leasing

    @observer.setter
    def observer(self, observer: Any) -> None:
        self._leasing = None if observer is None else _Leasing(observer, self.term)

    def lease(self, *args: Any, **options: Any) -> Any:
        if not self.term.valid:
            return fail(QueueError("the leases of this relay were not renewed"))
        found = super().lease(*args, **options)
        return found.addCallback(lambda leased: [_lease(each, self.term) for each in leased])

    def settle(self, settlement: Any) -> Any:
        if self.taken_over:
            return fail(LeaseLost.of(settlement.id))
        return super().settle(settlement)

    def record_route(self, name: str, down: DownRoute | None) -> Any:
        self.records.append((name, down))
        return super().record_route(name, down)


class _Leasing:
    """The observer of a queue; what it gets is leased until the term ends."""

    def __init__(self, observer: Any, term: LeaseTerm) -> None:
        self._observer = observer
        self._term = term

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observer, name)

    def arrived(self, arrivals: Any) -> None:
        self._observer.arrived([(_lease(each, self._term), claimed) for each, claimed in arrivals])


def _lease(leased: LeasedMessage, term: LeaseTerm) -> LeasedMessage:
    return attrs.evolve(leased, lease=Lease(term=term))


class Sharing:
    """A relay, its queue, and what the queue announces of the other relays."""

    def __init__(self, world: World, *routes: Any) -> None:
        self.world = world
        self.queue = SharedQueue(world.clock, world.directory, worker=InlineWorker(), least_free=0)
        self.relay: RelayService = world.relay(*routes, spool=self.queue)
        self.nodes = tuple(RelayNode(name, START) for name in ("a", "b"))
        self.down: dict[str, DownRoute] = {}

    def announce(self, *nodes: str, **down: DownRoute) -> None:
        state = ClusterState(tuple(RelayNode(name, START) for name in nodes), down)
        assert self.queue.observer is not None
        self.queue.observer.cluster_changed(state)
        self.world.pump.run()

    def down_for(self, seconds: float, number: int = 1, *, refused: bool = False) -> DownRoute:
        at = self.world.clock.seconds() + seconds
        return DownRoute("out", "no connection", at, refused, number)

    @property
    def stats(self) -> Any:
        (route,) = self.relay.stats().routes
        return route


@pytest.fixture
def host(world: World) -> Host:
    return world.host()


# -- leases


def test_a_message_whose_lease_ran_out_is_not_delivered_and_goes_again(
    world: World, host: Host
) -> None:
    sharing = Sharing(world, host)
    sharing.queue.term.end()
    world.send(sharing.relay, "bob@example.net", body=b"x" * 100_000 + b"\r\n")
    assert host.got == []
    (attempt, *_) = world.of(Attempted)
    assert (attempt.status, attempt.in_doubt) == ("deferred", False)
    assert "the lease of the message ran out" in attempt.reply
    assert sharing.stats.up
    sharing.queue.term.extend(LeaseTerm.now() + HOUR)
    world.until(lambda: host.got)
    assert [to for _, to in host.got] == ["bob@example.net"]
    assert not [event for event in world.of(Attempted) if event.in_doubt]


@pytest.mark.parametrize("accepted", [True, False])
def test_a_message_taken_over_during_its_attempt_is_named_and_left_to_the_other_relay(
    world: World, host: Host, accepted: bool
) -> None:
    host.refusals = {} if accepted else {"bob@example.net": "550 5.1.1 no"}
    sharing = Sharing(world, host)
    sharing.queue.taken_over = True
    queued = world.send(sharing.relay, "bob@example.net")
    assert world.of(TakenOver) == [TakenOver(queued.id, "out", in_doubt=accepted)]
    assert world.of(Trouble) == []
    world.advance(HOUR)
    # No report, and no second attempt.
    assert len(world.of(Attempted)) == 1
    assert [message.leased for message in world.queue(sharing.relay)] == [True]
    assert sharing.stats.under_way == 0


def test_the_messages_of_a_relay_that_died_are_named(world: World, host: Host) -> None:
    sharing = Sharing(world, host)
    assert sharing.queue.observer is not None
    sharing.queue.observer.interrupted("b", ["0123456789AB"])
    assert world.of(Interrupted) == [Interrupted(("0123456789AB",), "b")]


# -- limits


def test_the_limits_of_a_route_are_divided_by_the_relays(world: World, host: Host) -> None:
    limits = PoolLimits(connections=8, rate=100.0, burst=4)
    sharing = Sharing(world, world.route(host, limits=limits))
    route = sharing.relay._parts.manager.route_queues["out"].route  # type: ignore[union-attr]
    sharing.announce("a", "b", "c")
    shared = route.mailer.pool.limits
    assert (shared.connections, shared.rate, shared.burst) == (2, 100.0 / 3, 1)
    sharing.announce("a", *map(str, range(20)))
    assert route.mailer.pool.limits.connections == 1
    sharing.announce("a")
    assert route.mailer.pool.limits == limits
    assert [len(event.relays) for event in world.of(RelaysChanged)] == [3, 21, 1]


def test_the_rate_is_that_of_the_relays_together(world: World, host: Host) -> None:
    sharing = Sharing(world, world.route(host, limits=PoolLimits(rate=2.0)))
    sharing.announce("a", "b", "c", "d")
    for number in range(6):
        world.send(sharing.relay, f"r{number}@x.example")
    world.until(lambda: len(host.got) == 6)
    # The first goes at once, and one every two seconds then.
    assert world.clock.seconds() == START + 10


def test_connections_beyond_a_smaller_limit_close_when_their_messages_have_ended(
    world: World,
) -> None:
    host = world.host(faults=[faults.delay("dot", 5.0), faults.delay("BDAT", 5.0)])
    sharing = Sharing(world, world.route(host, limits=PoolLimits(connections=4, window=1)))
    for number in range(8):
        world.send(sharing.relay, f"r{number}@x.example")
    assert sharing.stats.mailer.leased == 4
    sharing.announce("a", "b", "c", "d")
    assert sharing.stats.mailer.leased == 4
    world.advance(6)
    assert sharing.stats.mailer.leased + sharing.stats.mailer.opening == 1
    world.until(lambda: len(host.got) == 8)
    assert not [event for event in world.of(Attempted) if event.status != "sent"]


# -- routes


def test_the_state_of_a_route_is_recorded_for_the_others(world: World, host: Host) -> None:
    host.up = False
    sharing = Sharing(world, host)
    world.send(sharing.relay, "bob@example.net")
    (name, down) = sharing.queue.records[0]
    assert name == "out"
    assert down is not None
    assert (down.next_attempt, down.refused) == (START + 4, False)
    host.up = True
    world.until(lambda: host.got)
    assert sharing.queue.records[-1] == ("out", None)


def test_a_refused_password_is_recorded_for_the_others(world: World) -> None:
    host = world.host(users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no")])
    sharing = Sharing(world, world.route(host.server(user="u")))
    world.send(sharing.relay, "bob@example.net")
    down = sharing.queue.records[-1][1]
    assert down is not None
    assert down.refused


@pytest.mark.parametrize("refused", [False, True])
def test_a_route_that_another_relay_found_down_is_not_tried_here(
    world: World, host: Host, refused: bool
) -> None:
    sharing = Sharing(world, host)
    sharing.announce("a", "b", out=sharing.down_for(600, refused=refused))
    assert (sharing.stats.up, sharing.stats.locked) == (False, refused)
    assert sharing.stats.reason == "no connection"
    (event,) = world.of(RouteDown)
    assert (event.elsewhere, event.refused) == (True, refused)
    # The relay that found it down tries it first.
    assert 600 < event.wait <= 630
    world.send(sharing.relay, "bob@example.net")
    world.advance(600)
    assert host.attempts == []
    world.until(lambda: host.got)
    assert sharing.queue.records == [("out", None)]
    assert world.of(AuthenticationAlarm) == []


def test_a_route_that_another_relay_finds_up_is_used_at_once(world: World, host: Host) -> None:
    sharing = Sharing(world, host)
    sharing.announce("a", "b", out=sharing.down_for(600, refused=True))
    world.send(sharing.relay, "bob@example.net")
    sharing.announce("a", "b")
    assert [to for _, to in host.got] == ["bob@example.net"]
    assert world.of(RouteUp) == [RouteUp("out", elsewhere=True)]
    # That relay has recorded it.
    assert sharing.queue.records == []


def test_credentials_refused_here_are_tried_again_when_another_relay_finds_the_route_up(
    world: World,
) -> None:
    host = world.host(
        users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no", nth=1)]
    )
    sharing = Sharing(world, world.route(host.server(user="u")))
    world.send(sharing.relay, "bob@example.net")
    assert sharing.stats.locked
    sharing.announce("a", "b", out=sharing.down_for(900, refused=True))
    sharing.announce("a", "b")
    assert [to for _, to in host.got] == ["bob@example.net"]


def test_only_the_relay_that_found_it_down_tries_it(world: World, host: Host) -> None:
    """Its failures, each with a later attempt, are followed here."""
    sharing = Sharing(world, host)
    world.send(sharing.relay, "warm@example.net")
    world.advance(HOUR)
    tried = len(host.attempts)
    for number in range(1, 6):
        sharing.announce("a", "b", out=sharing.down_for(60, number))
        world.send(sharing.relay, f"r{number}@example.net")
        world.advance(75)  # the record of the other relay takes up to 15 s
    assert len(host.attempts) == tried


def test_a_relay_whose_mail_gets_through_does_not_believe_another(world: World, host: Host) -> None:
    sharing = Sharing(world, host)
    world.send(sharing.relay, "one@example.net")
    sharing.announce("a", "b", out=sharing.down_for(600))
    world.send(sharing.relay, "two@example.net")
    assert [to for _, to in host.got] == ["one@example.net", "two@example.net"]
    assert sharing.queue.records == []


def test_a_flush_ends_a_wait_that_was_adopted(world: World, host: Host) -> None:
    sharing = Sharing(world, host)
    down = sharing.down_for(600)
    sharing.announce("a", "b", out=down)
    world.send(sharing.relay, "bob@example.net")
    host.up = False
    world.run(sharing.relay.flush())
    world.pump.run()
    assert len(host.attempts) == 1
    host.up = True
    # The record of before is followed once.
    world.run(sharing.relay.flush())
    sharing.announce("a", "b", out=down)
    assert [to for _, to in host.got] == ["bob@example.net"]


def test_a_failure_that_is_not_recorded_yet_is_not_ended_by_an_older_state(
    world: World, host: Host
) -> None:
    sharing = Sharing(world, host)
    host.up = False
    world.send(sharing.relay, "bob@example.net")
    sharing.announce("a", "b")
    assert not sharing.stats.up
    assert world.of(RouteUp) == []


def test_a_clock_that_is_ahead_does_not_make_the_wait_longer_than_the_longest(
    world: World, host: Host
) -> None:
    sharing = Sharing(world, world.route(host, most=60.0))
    sharing.announce("a", "b", out=sharing.down_for(10 * HOUR))
    world.send(sharing.relay, "bob@example.net")
    world.until(lambda: host.got)
    assert world.clock.seconds() < START + 120
