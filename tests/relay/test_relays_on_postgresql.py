"""Relays that share a queue in PostgreSQL, between next hops in memory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.names import (
    Attempted,
    InlineWorker,
    Interrupted,
    QueueAction,
    RelaysChanged,
    RouteDown,
    RouteUp,
    Selection,
    TakenOver,
    refuse,
)
from tests.postgresql import PostgreSQL
from tests.relay.world import Host, World
from twisted_sendmail import PoolLimits, RelayService
from twisted_sendmail.queue.postgresql.queue import PostgreSQLQueue
from twisted_sendmail.testing import faults

#: Seconds between two looks at what the other relays do, and more.
POLL = 20.0


class Cluster:
    """Relays on one database, with the clock of the test; each keeps its events apart."""

    def __init__(self, world: World, server: PostgreSQL, database: str) -> None:
        self.world = world
        self._server = server
        self._database = database
        self.events: dict[str, list[Any]] = {}

    def relay(self, name: str, *routes: Any, lease: float = 60.0) -> RelayService:
        url = self._server.url(self._database, node=name, lease_time=f"{lease:g}")
        queue = PostgreSQLQueue(self.world.clock, url, worker=InlineWorker())
        relay = self.world.relay(*routes, spool=queue)
        self.events[name] = []
        relay.observers.append(self.events[name].append)
        self.world.pump.run()
        return relay

    def sql(self, statement: str, *values: object) -> list[Any]:
        return self._server.sql(statement, *values, database=self._database)

    def lose(self, name: str) -> None:
        """Let the leases of a relay run out, which does not notice."""
        _ = self.sql(
            "UPDATE twisted_sendmail.node SET alive_until = '-infinity', process = '' "
            "WHERE name = %s",
            name,
        )

    def of(self, name: str, kind: type[Any]) -> list[Any]:
        return [event for event in self.events[name] if isinstance(event, kind)]


@pytest.fixture
def cluster(postgresql: PostgreSQL, database: str, world: World) -> Cluster:
    return Cluster(world, postgresql, database)


@pytest.fixture
def host(world: World) -> Host:
    return world.host()


def test_each_relay_delivers_what_it_accepts(cluster: Cluster, host: Host) -> None:
    relays = [cluster.relay(name, host) for name in ("a", "b", "c")]
    for number, relay in enumerate(relays):
        cluster.world.send(relay, f"r{number}@x.example")
    assert sorted(to for _, to in host.got) == [f"r{n}@x.example" for n in range(3)]
    assert cluster.sql("SELECT number FROM twisted_sendmail.message") == []
    assert cluster.of("a", RelaysChanged) == []
    cluster.world.advance(POLL)
    assert cluster.of("a", RelaysChanged)[-1].relays == ("a", "b", "c")
    assert [node.name for node in relays[0].stats().relays] == ["a", "b", "c"]


def test_mail_that_one_relay_does_not_deliver_is_delivered_by_another(
    cluster: Cluster, host: Host
) -> None:
    busy, idle = cluster.relay("busy", host), cluster.relay("idle", host)
    cluster.world.run(busy.drain())
    cluster.world.send(busy, "bob@example.net")
    assert host.got == []
    cluster.world.advance(POLL)
    assert [to for _, to in host.got] == ["bob@example.net"]
    assert [event.status for event in cluster.of("idle", Attempted)] == ["sent"]
    assert idle.running


def test_the_relay_that_delivers_a_message_is_shown(cluster: Cluster) -> None:
    host = cluster.world.host(faults=[faults.stall("DATA"), faults.stall("BDAT")])
    relays = [cluster.relay(name, host) for name in ("a", "b")]
    _ = cluster.world.send(relays[0], "bob@example.net")
    (message,) = cluster.world.queue(relays[1])
    assert (message.leased, message.owner) == (True, "a")


@pytest.mark.parametrize("refused", [False, True])
def test_a_route_found_down_by_one_relay_is_tried_by_that_one_alone(
    cluster: Cluster, refused: bool
) -> None:
    world = cluster.world
    if refused:
        host = world.host(
            users={"u": "secret"}, clear=False, faults=[refuse("AUTH", "535 5.7.8 no")]
        )
        route = world.route(host.server(user="u"), first=100.0, most=100.0)
    else:
        host = world.host()
        host.up = False
        route = world.route(host, first=100.0)
    a, b = cluster.relay("a", route), cluster.relay("b", route)
    world.send(a, "one@example.net")
    assert len(host.attempts) == 1
    world.advance(POLL)
    (down,) = cluster.of("b", RouteDown)
    assert (down.elsewhere, down.refused) == (True, refused)
    assert [route.locked for route in b.stats().routes] == [refused]
    world.send(b, "two@example.net")
    world.advance(60)
    assert len(host.attempts) == 1
    # The next attempt is made by the relay that found it down.
    world.advance(60)
    assert not [event for event in cluster.of("b", RouteDown) if not event.elsewhere]
    assert len(host.attempts) == 2


def test_a_route_found_up_by_one_relay_is_used_by_all(cluster: Cluster, host: Host) -> None:
    world = cluster.world
    host.up = False
    route = world.route(host, first=100.0)
    a, b = cluster.relay("a", route), cluster.relay("b", route)
    world.send(a, "one@example.net")
    world.advance(POLL)
    assert not b.stats().routes[0].up
    host.up = True
    world.run(a.flush())
    world.pump.run()
    world.advance(POLL)
    assert b.stats().routes[0].up
    assert [event.elsewhere for event in cluster.of("b", RouteUp)] in ([True], [False])
    assert cluster.sql("SELECT name FROM twisted_sendmail.route_down") == []


def test_a_message_taken_over_goes_twice_at_most_and_is_named_by_both(cluster: Cluster) -> None:
    """The first relay is suspended between the end of the content and its record."""
    world = cluster.world
    slow = world.host(faults=[faults.delay("dot", 300.0), faults.delay("BDAT", 300.0)])
    fast = world.host()
    a, b = cluster.relay("a", slow), cluster.relay("b", fast)
    queued = world.send(a, "bob@example.net")
    assert [to for _, to in slow.got] == ["bob@example.net"]
    cluster.lose("a")
    world.run(b.queue._renew())  # type: ignore[attr-defined]
    world.advance(POLL)
    assert [to for _, to in fast.got] == ["bob@example.net"]
    assert cluster.of("b", Interrupted) == [Interrupted((queued.id,), "a")]
    (second,) = cluster.of("b", Attempted)
    assert (second.status, second.doubles) == ("sent", 1)
    world.advance(300)
    assert cluster.of("a", TakenOver) == [TakenOver(queued.id, "out", in_doubt=True)]
    assert world.queue(a) == []
    # It goes on as a new relay.
    world.send(a, "carol@example.net")
    assert [to for _, to in slow.got] == ["bob@example.net", "carol@example.net"]


def test_an_operator_s_flush_reaches_every_relay(cluster: Cluster, host: Host) -> None:
    world = cluster.world
    host.up = False
    route = world.route(host, first=600.0, most=600.0)
    a, b = cluster.relay("a", route), cluster.relay("b", route)
    world.send(a, "one@example.net")
    world.advance(POLL)
    host.up = True
    world.run(b.queue.act(QueueAction.FLUSH, Selection(), world.clock.seconds()))
    world.advance(POLL)
    assert [to for _, to in host.got] == ["one@example.net"]
    assert a.stats().routes[0].up
    assert b.stats().routes[0].up


def test_the_limits_are_divided(cluster: Cluster, host: Host) -> None:
    route = cluster.world.route(host, limits=PoolLimits(connections=6))
    relays = [cluster.relay(name, route) for name in ("a", "b", "c")]
    cluster.world.advance(POLL)
    for relay in relays:
        assert relay._parts is not None
        (route_queue,) = relay._parts.manager.route_queues.values()
        assert route_queue.route.mailer.pool.limits.connections == 2
    cluster.world.stop(relays.pop())
    cluster.world.advance(POLL)
    assert [len(relay.stats().relays) for relay in relays] == [2, 2]
