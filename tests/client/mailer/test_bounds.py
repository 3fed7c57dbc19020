"""The limits of a pool; each test has the name of its rule."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.client.mailer.conftest import Post, a_message
from tests.client.mailer.postbox import CHUNKING, PIPELINING
from tests.client.scripted_server import SILENT
from twisted_sendmail import InvalidInput, MailerBusy, PoolLimits, RecipientStatus, SendTimeout
from twisted_sendmail.client.tls import MAX_HANDSHAKES
from twisted_sendmail.token_bucket import TokenBucket


def messages_each(post: Post) -> list[int]:
    """Messages on each connection, in the order of the connections."""
    return [server.verbs.count("MAIL") for server in post.world.servers]


@pytest.mark.parametrize("connections", [1, 2, 5])
def test_connections_are_bounded(post: Post, connections: int) -> None:
    most: list[int] = []
    post.world.fault = lambda server, key, line: most.append(post.world.open)
    mailer = post.mailer(connections=connections, window=1)
    results = post.send(mailer, *[a_message(n) for n in range(40)])
    assert connections == max(most) == post.endpoint.attempts
    assert 40 == len([result.get() for result in results]) == len(post.world.delivered)


def test_no_more_connections_are_opened_than_messages_wait(post: Post) -> None:
    mailer = post.mailer(connections=10)
    _ = post.send(mailer, a_message(1), a_message(2))
    assert 2 >= post.endpoint.attempts
    _ = post.send(mailer, a_message(3))
    assert 2 >= post.endpoint.attempts


def test_no_more_connections_are_opened_than_their_messages_need(post: Post) -> None:
    """Each takes at once all it may, so another would come too late for any."""
    mailer = post.mailer(connections=10, messages=5, window=8)
    results = post.send(mailer, *[a_message(n) for n in range(20)])
    assert [result.get().error for result in results] == [None] * 20
    assert 4 <= post.endpoint.attempts <= 5


def test_a_long_line_of_connections_is_made_no_longer_than_needed(post: Post) -> None:
    mailer = post.mailer(connections=100, window=1)
    results = post.send(mailer, *[a_message(n) for n in range(100)])
    assert [result.get().error for result in results] == [None] * 100
    # As many as may shake hands abreast at a time; those that are ready go on meanwhile.
    assert MAX_HANDSHAKES < post.endpoint.attempts < 3 * MAX_HANDSHAKES


@pytest.mark.parametrize("offers", [CHUNKING, PIPELINING])
def test_messages_per_connection_are_bounded(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1, messages=10)
    results = post.send(mailer, *[a_message(n) for n in range(25)])
    assert [result.get().error for result in results] == [None] * 25
    assert messages_each(post) == [10, 10, 5]
    assert [server.verbs[-1] for server in post.world.servers[:2]] == ["QUIT", "QUIT"]


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("offers", [CHUNKING, PIPELINING, ()])
def test_a_connection_for_each_message_is_a_bound_too(
    post: Post, offers: Any, connections: int
) -> None:
    """What it took at once, when it was opened, is delivered before it closes."""
    mailer = post.mailer(post.world.server(offers=offers), connections=connections, messages=1)
    results = post.send(mailer, *[a_message(n) for n in range(5)])
    assert [result.get().error for result in results] == [None] * 5
    assert messages_each(post) == [1] * 5


@pytest.mark.parametrize("offers", [CHUNKING, PIPELINING])
def test_limits_are_respected_before_the_server_complains(post: Post, offers: Any) -> None:
    """MAILMAX of RFC 9422."""
    made = post.world.server(offers=(*offers, "LIMITS RCPTMAX=9 MAILMAX=3"))
    mailer = post.mailer(made, connections=1)
    reports = post.many(mailer, [a_message(n) for n in range(8)]).get()
    assert [report.error for report in reports] == [None] * 8
    assert messages_each(post) == [3, 3, 2]


def test_own_bound_counts_if_it_is_less_than_the_servers(post: Post) -> None:
    made = post.world.server(offers=(*CHUNKING, "LIMITS MAILMAX=300"))
    mailer = post.mailer(made, connections=1, messages=2)
    _ = post.many(mailer, [a_message(n) for n in range(4)]).get()
    assert messages_each(post) == [2, 2]


def test_age_is_bounded(post: Post) -> None:
    mailer = post.mailer(connections=1, age=60, idle=50)
    for n in range(4):
        (result,) = post.send(mailer, a_message(n))
        assert result.get().accepted
        post.pump.advance(29)
    assert messages_each(post) == [3, 1]
    assert post.world.servers[0].verbs[-1] == "QUIT"


def test_idle_time_is_bounded(post: Post) -> None:
    mailer = post.mailer(idle=30, wait=None)
    _ = post.send(mailer, a_message(1))
    post.pump.advance(29.9)
    assert (mailer.stats().idle, post.world.open) == (1, 1)
    post.pump.advance(0.2)
    assert (mailer.stats().idle, post.world.open) == (0, 0)
    assert post.world.servers[0].verbs[-1] == "QUIT"
    assert post.clock.getDelayedCalls() == []


def test_work_in_between_begins_the_idle_time_anew(post: Post) -> None:
    mailer = post.mailer(idle=30)
    for n in range(5):
        _ = post.send(mailer, a_message(n))
        post.pump.advance(20)
    assert messages_each(post) == [5]


def test_waiters_are_bounded(post: Post) -> None:
    """Those that are too many are refused at once; those that wait go out."""
    mailer = post.mailer(connections=1, waiters=3)
    results = post.start(mailer, *[a_message(n) for n in range(5)])
    assert [result.fired for result in results] == [0, 0, 0, 1, 1]
    for result in results[3:]:
        with pytest.raises(MailerBusy, match=r"^3 messages are waiting already; send fewer"):
            result.get()
    post.pump.run()
    assert [len(result.get().accepted) for result in results[:3]] == [1, 1, 1]


def test_the_time_of_waiting_is_bounded(post: Post) -> None:
    mailer = post.mailer(post.world.server({"GREETING": SILENT}), connections=1, wait=10, window=1)
    (first,) = post.send(mailer, a_message(1))
    post.pump.advance(4)
    (second,) = post.send(mailer, a_message(2))
    post.pump.advance(5.9)
    assert (first.fired, second.fired) == (0, 0)
    post.pump.advance(0.2)
    assert (first.fired, second.fired) == (1, 0)
    with pytest.raises(SendTimeout, match="no connection was free for the message within 10 s"):
        first.get()
    report = first.error.report
    assert [outcome.status for outcome in report.outcomes] == [RecipientStatus.UNTOUCHED]
    post.pump.advance(4)
    assert (first.fired, second.fired, mailer.stats().waiting) == (1, 1, 0)


def test_a_message_that_has_a_connection_does_not_wait_any_more(post: Post) -> None:
    mailer = post.mailer(post.world.server({"MAIL": SILENT}), connections=1, wait=10)
    (result,) = post.send(mailer, a_message(1))
    post.pump.advance(100)
    assert result.fired == 0
    result.deferred.cancel()


@pytest.mark.parametrize("connections", [1, 4])
def test_the_rate_is_bounded_over_all_connections(post: Post, connections: int) -> None:
    times: list[float] = []

    def note(server: Any, key: str, line: str) -> None:
        if key == "MAIL":
            times.append(round(post.clock.seconds(), 3))

    post.world.fault = note
    mailer = post.mailer(connections=connections, rate=2, burst=3)
    results = post.send(mailer, *[a_message(n) for n in range(9)])
    post.pump.advance(10)
    assert times == [0, 0, 0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert len([result.get() for result in results]) == 9


def test_what_was_not_used_of_the_rate_is_there_up_to_the_burst(post: Post) -> None:
    mailer = post.mailer(connections=1, rate=1, burst=2, idle=1000)
    _ = post.send(mailer, a_message(1), a_message(2), a_message(3))
    assert len(post.world.delivered) == 2
    post.pump.advance(100)
    assert len(post.world.delivered) == 3
    _ = post.send(mailer, *[a_message(n) for n in range(4, 9)])
    assert len(post.world.delivered) == 5
    post.pump.advance(3)
    assert len(post.world.delivered) == 8


def test_a_cancelled_message_takes_nothing_of_the_rate(post: Post) -> None:
    mailer = post.mailer(connections=1, rate=1)
    one, two, three = post.send(mailer, a_message(1), a_message(2), a_message(3))
    two.deferred.cancel()
    post.pump.advance(1)
    assert (one.fired, two.fired, three.fired) == (1, 1, 1)
    assert post.world.subjects == ["1", "3"]


@pytest.mark.parametrize(
    "name",
    [
        "connections",
        "messages",
        "age",
        "idle",
        "waiters",
        "wait",
        "window",
        "window_octets",
        "octets",
        "rate",
    ],
)
@pytest.mark.parametrize("value", [0, -1, "4", float("nan")])
def test_a_limit_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"the limit '{name}' cannot be "):
        _ = PoolLimits(**{name: value})


@pytest.mark.parametrize("name", ["connections", "messages", "waiters", "window", "burst"])
def test_a_limit_of_something_whole_is_no_fraction(name: str) -> None:
    given: dict[str, Any] = {name: 1.5}
    with pytest.raises(InvalidInput, match=f"the limit '{name}' cannot be 1.5; give a whole"):
        _ = PoolLimits(**given)
    with pytest.raises(InvalidInput, match=f"the limit '{name}' cannot be True"):
        _ = PoolLimits(**{name: True})


def test_a_clock_that_is_set_back_costs_nothing_of_the_rate() -> None:
    class Wall:
        now = 100.0

        def seconds(self) -> float:
            return self.now

    clock: Any = Wall()
    bucket = TokenBucket(clock, 1.0, 2)
    assert [True, True, False] == [bucket.take() for _ in range(3)]
    clock.now = 40.0
    assert not bucket.take()
    clock.now = 41.0
    assert [True, False] == [bucket.take() for _ in range(2)]


def test_limits_that_are_changed_hold_from_then_on(post: Post) -> None:
    mailer = post.mailer(post.world.server({"BDAT_LAST": SILENT}), connections=1, window=1)
    results = post.send(mailer, *[a_message(n) for n in range(4)])
    assert post.endpoint.attempts == 1
    mailer.change_limits(PoolLimits(connections=3, window=1))
    post.pump.run()
    assert post.endpoint.attempts == 3
    mailer.change_limits(PoolLimits(connections=2, window=1, rate=1.0))
    post.pump.run()
    assert post.endpoint.attempts == 3
    with pytest.raises(InvalidInput):
        mailer.change_limits("many")  # type: ignore[arg-type]
    assert [result.fired for result in results] == [0] * 4
    _ = post.close(mailer, grace=0)


def test_a_rate_that_is_changed_counts_from_that_moment() -> None:
    clock = Clock()
    bucket = TokenBucket(clock, None, 1)
    clock.advance(100)
    bucket.change(1.0, 5)
    assert [True, False] == [bucket.take() for _ in range(2)]
    clock.advance(4)
    bucket.change(10.0, 2)
    assert [True, True, False] == [bucket.take() for _ in range(3)]
    clock.advance(0.1)
    assert bucket.take()
