"""Cancelling, timeouts and closing at every moment leave no timer, task or connection."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import PIPELINING
from tests.client.scripted_server import SILENT
from tests.deferreds import Result
from twisted_sendmail import (
    Cancelled,
    DeliveryInDoubt,
    InvalidServer,
    Mailer,
    MailerClosed,
    MailerService,
    MailerStats,
    RecipientStatus,
    SendTimeout,
    Timeouts,
)


def state(mailer: Mailer) -> tuple[int, int, int, int]:
    stats = mailer.stats()
    return stats.idle, stats.leased, stats.opening, stats.waiting


def test_repr_tells_the_state_of_the_pool(post: Post) -> None:
    mailer = post.mailer(connections=2, window=1)
    assert (
        repr(mailer) == "<Mailer smtp://mx.example.net:25: 0 idle, 0 leased, 0 opening, 0 waiting>"
    )
    results = post.start(mailer, a_message(1), a_message(2), a_message(3))
    assert "0 idle, 0 leased, 1 opening, 3 waiting>" in repr(mailer)
    post.pump.run()
    assert [result.fired for result in results] == [1, 1, 1]
    assert "2 idle, 0 leased, 0 opening, 0 waiting>" in repr(mailer)


def test_stats_count_what_was_sent(post: Post) -> None:
    mailer = post.mailer(connections=1)
    _ = post.send(mailer, a_message(1), a_message(2, "gone@example.net"), a_message(3))
    expected = MailerStats(idle=1, leased=0, opening=0, waiting=0, accepted=2, failed=1)
    assert mailer.stats() == expected


def test_a_mailer_needs_a_server(post: Post) -> None:
    with pytest.raises(InvalidServer, match="there is no server"):
        _ = Mailer(post.clock, [])


# -- cancelling --------------------------------------------------------------------------


def test_cancelling_a_message_that_waits_takes_it_back(post: Post) -> None:
    first = post.world.server({"MAIL#1": SILENT})
    mailer = post.mailer(first, post.world.server(), connections=1, window=1)
    one, two, three = post.send(mailer, a_message(1), a_message(2), a_message(3))
    assert state(mailer) == (0, 1, 0, 2)
    two.deferred.cancel()
    assert isinstance(two.error, Cancelled)
    assert statuses(two.error.report) == [RecipientStatus.UNTOUCHED]
    assert state(mailer) == (0, 1, 0, 1)
    assert (one.fired, three.fired) == (0, 0)
    one.deferred.cancel()
    post.pump.run()
    assert (one.fired, three.fired) == (1, 1)
    assert all(b"Subject: 2" not in m for s in post.world.servers for m in s.messages)


def test_cancelling_while_the_connection_opens_leaves_the_opening_to_others(post: Post) -> None:
    opening: Deferred[Any] = Deferred()
    mailer = post.mailer(opening, post.world.server())
    one, two = post.send(mailer, a_message(1), a_message(2))
    one.deferred.cancel()
    assert (one.fired, two.fired) == (1, 0)
    assert state(mailer) == (0, 0, 1, 1)
    two.deferred.cancel()
    assert (one.fired, two.fired) == (1, 1)
    assert state(mailer) == (0, 0, 1, 0)
    closed = post.close(mailer, grace=0.001)
    post.pump.advance(1)
    assert closed.fired == 1
    assert state(mailer) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("offers", "key", "status"),
    [
        (PIPELINING, "MAIL", RecipientStatus.UNTOUCHED),
        (PIPELINING, "DATA", RecipientStatus.UNTOUCHED),
        (PIPELINING, ".", RecipientStatus.IN_DOUBT),
        (None, "BDAT_LAST", RecipientStatus.IN_DOUBT),
    ],
)
def test_cancelling_one_that_is_alone_takes_its_connection_with_it(
    post: Post, offers: Any, key: str, status: RecipientStatus
) -> None:
    settings = {} if offers is None else {"offers": offers}
    mailer = post.mailer(post.world.server({key: SILENT}, **settings), connections=1)
    (result,) = post.send(mailer, a_message(1))
    result.deferred.cancel()
    assert isinstance(result.error, Cancelled)
    assert [status] == statuses(result.error.report)
    post.pump.run()
    assert state(mailer) == (0, 0, 0, 0)
    assert post.world.open == 0


def test_cancelling_one_among_others_costs_the_others_nothing(post: Post) -> None:
    mailer = post.mailer(post.world.server({"MAIL#1": SILENT}), connections=1)
    results = post.send(mailer, *[a_message(n) for n in range(4)])
    results[2].deferred.cancel()
    assert isinstance(results[2].error, Cancelled)
    assert statuses(results[2].error.report) == [RecipientStatus.IN_DOUBT]
    assert "the message may have been delivered" in str(results[2].error)
    post.pump.run()
    assert [result.fired for result in results] == [0, 0, 1, 0]
    assert (post.world.open, state(mailer)) == (1, (0, 1, 0, 0))


def test_a_message_has_an_overall_deadline(post: Post) -> None:
    settings = {"timeouts": Timeouts(total=5)}
    mailer = post.mailer(post.world.server({"GREETING": SILENT}), settings=settings)
    (result,) = post.send(mailer, a_message(1))
    post.pump.advance(6)
    assert isinstance(result.error, SendTimeout)
    assert state(mailer) == (0, 0, 1, 0)


# -- closing -----------------------------------------------------------------------------


def test_closing_lets_out_what_waits_and_says_quit(post: Post) -> None:
    mailer = post.mailer(connections=2, window=1)
    results = post.start(mailer, *[a_message(n) for n in range(10)])
    closed = post.close(mailer)
    assert [len(result.get().accepted) for result in results] == [1] * 10
    assert (closed.fired, post.world.open) == (1, 0)
    assert all("QUIT" == server.verbs[-1] for server in post.world.servers)


def test_a_closed_mailer_takes_no_messages(post: Post) -> None:
    mailer = post.mailer()
    assert post.close(mailer).fired == 1
    (result,) = post.send(mailer, a_message(1))
    with pytest.raises(MailerClosed, match="the mailer is closed"):
        result.get()
    (report,) = post.many(mailer, [a_message(1)]).get()
    assert isinstance(report.error, MailerClosed)
    assert post.endpoint.attempts == 0


def test_closing_an_idle_mailer_closes_its_connections(post: Post) -> None:
    mailer = post.mailer()
    _ = post.send(mailer, a_message(1))
    assert post.close(mailer).fired == 1
    assert (post.world.open, [c for c in post.clock.getDelayedCalls() if c.active()]) == (0, [])


def test_grace_is_the_end_of_patience(post: Post) -> None:
    """What is under way is in doubt, or not; what waits is not sent."""
    mailer = post.mailer(post.world.server({"BDAT_LAST#1": SILENT}), connections=1, window=1)
    one, two = post.send(mailer, a_message(1), a_message(2))
    closed = post.close(mailer, grace=10)
    post.pump.advance(9.9)
    assert (closed.fired, one.fired, two.fired) == (0, 0, 0)
    post.pump.advance(0.2)
    assert (closed.fired, one.fired, two.fired) == (1, 1, 1)
    assert isinstance(one.error, DeliveryInDoubt)
    assert isinstance(two.error, MailerClosed)
    assert post.world.open == 0


def test_behind_the_grace_nothing_begins_anew(post: Post) -> None:
    """A message cut off in its content might go again over another connection: not any more."""
    mailer = post.mailer(post.world.server({"DATA#2": SILENT}, offers=PIPELINING), connections=1)
    assert len(post.send(mailer, a_message(1))[0].get().accepted) == 1
    (cut_off,) = post.send(mailer, a_message(2))
    closed = post.close(mailer, grace=10)
    post.pump.advance(10.1)
    assert (closed.fired, cut_off.fired) == (1, 1)
    assert isinstance(cut_off.error, MailerClosed)
    assert (post.endpoint.attempts, post.world.open) == (1, 0)


@pytest.mark.parametrize("grace", [10, None])
def test_cancelling_the_closing_closes_at_once(post: Post, grace: Any) -> None:
    mailer = post.mailer(post.world.server({"MAIL#1": SILENT}), connections=1, window=1)
    results = post.send(mailer, a_message(1), a_message(2))
    closed = post.close(mailer, grace=grace)
    closed.deferred.cancel()
    post.pump.run()
    assert ([result.fired for result in results], closed.fired) == ([1, 1], 1)
    assert post.world.open == 0


def test_closing_while_a_connection_opens(post: Post) -> None:
    opening: Deferred[Any] = Deferred()
    mailer = post.mailer(opening)
    (result,) = post.send(mailer, a_message(1))
    closed = post.close(mailer, grace=1)
    post.pump.advance(2)
    assert (closed.fired, result.fired) == (1, 1)
    assert isinstance(result.error, MailerClosed)


def test_closing_twice_is_no_harm(post: Post) -> None:
    mailer = post.mailer()
    results = post.start(mailer, *[a_message(n) for n in range(5)])
    one, two = Result(mailer.aclose()), Result(mailer.aclose())
    post.pump.run()
    assert (one.fired, two.fired) == (1, 1)
    assert [len(result.get().accepted) for result in results] == [1] * 5


# -- the service -------------------------------------------------------------------------


def test_a_service_closes_its_mailer_when_it_stops_and_starts_with_a_new_one(post: Post) -> None:
    service = MailerService(post.clock, post.place())
    service.startService()
    first = service.mailer
    (one,) = post.send(first, a_message(1))
    assert one.get().accepted
    (two,) = post.start(first, a_message(2))
    stopped = Result(service.stopService())
    post.pump.run()
    assert (stopped.fired, len(two.get().accepted), post.world.open) == (1, 1, 0)
    service.startService()
    assert service.mailer is not first
    (three,) = post.send(service.mailer, a_message(3))
    assert three.get().accepted
    stopped = Result(service.stopService())
    post.pump.run()
    assert (stopped.fired, post.world.open, service.running) == (1, 0, 0)


def test_a_service_stops_within_its_grace(post: Post) -> None:
    service = MailerService(post.clock, post.place(post.world.server({"MAIL": SILENT})), grace=5)
    service.startService()
    (result,) = post.send(service.mailer, a_message(1))
    stopped = Result(service.stopService())
    post.pump.advance(6)
    assert (stopped.fired, result.fired, post.world.open) == (1, 1, 0)
