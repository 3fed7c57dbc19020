"""The choice of a connection, and the detection of dead ones; each test has the name of its rule."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import CHUNKING, NOTHING, PIPELINING
from tests.client.scripted_server import CLOSE, RESET, SILENT
from twisted_sendmail import (
    ConnectionClosed,
    ConnectionFailed,
    DeliveryInDoubt,
    RecipientStatus,
    SendTimeout,
    ServiceClosing,
    Timeouts,
)

BOTH = pytest.mark.parametrize("offers", [CHUNKING, PIPELINING], ids=["BDAT", "DATA"])


def test_a_connection_is_leased_at_assignment(post: Post) -> None:
    """Two messages given in the same moment do not both count on the same idle connection."""
    mailer = post.mailer(window=1)
    _ = post.send(mailer, a_message(1))
    assert (mailer.stats().idle, mailer.stats().leased) == (1, 0)
    two, three = post.start(mailer, a_message(2), a_message(3))
    assert (mailer.stats().idle, mailer.stats().leased) == (0, 1)
    post.pump.run()
    assert (two.fired, three.fired) == (1, 1)
    assert 2 >= post.endpoint.attempts


def test_a_connection_is_used_again(post: Post) -> None:
    mailer = post.mailer()
    for n in range(5):
        (result,) = post.send(mailer, a_message(n))
        assert result.get().accepted
    assert post.endpoint.attempts == 1


def test_nobody_is_asked_whether_he_lives(post: Post) -> None:
    """Liveness comes from connectionLost: no NOOP, and no RSET where nothing was refused."""
    mailer = post.mailer()
    for n in range(4):
        _ = post.send(mailer, a_message(n))
        post.pump.advance(20)
    expected = {"EHLO": 1, "MAIL": 4, "RCPT": 4, "BDAT": 4}
    assert post.world.counts == expected
    assert 0 == post.close(mailer).get() or {**expected, "QUIT": 1} == post.world.counts


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_connection_lost_while_idle_is_known_at_once(post: Post, end: Any) -> None:
    mailer = post.mailer()
    _ = post.send(mailer, a_message(1))
    post.world.servers[0].say(end)
    post.pump.run()
    assert mailer.stats().idle == 0
    (result,) = post.send(mailer, a_message(2))
    assert result.get().accepted
    assert [server.verbs.count("MAIL") for server in post.world.servers] == [1, 1]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("421 4.3.2 shutting down", id="421"),
        pytest.param(b"250 ok\r\n", id="a reply nobody waits for"),
        pytest.param(b"2", id="half a reply"),
        pytest.param(b"\0\xff", id="garbage"),
        pytest.param((b"421 4.3.2 shutting down\r\n", CLOSE), id="421 and the end"),
    ],
)
def test_octets_on_an_idle_connection_discard_it(post: Post, said: Any) -> None:
    mailer = post.mailer()
    _ = post.send(mailer, a_message(1))
    post.world.servers[0].say(said)
    post.pump.run()
    assert (mailer.stats().idle, post.world.open) == (0, 0)
    (result,) = post.send(mailer, a_message(2))
    assert result.get().accepted
    assert post.endpoint.attempts == 2


def test_octets_that_came_just_before_the_lease_are_seen_before_mail(post: Post) -> None:
    mailer = post.mailer()
    _ = post.send(mailer, a_message(1))
    post.world.servers[0].say("250 2.0.0 Ok: queued as EVIL")
    (result,) = post.send(mailer, a_message(2))
    assert result.get().queue_id == "2"
    assert post.world.servers[0].verbs.count("MAIL") == 1


@BOTH
@pytest.mark.parametrize("fault", [CLOSE, RESET, "421 4.3.2 going down"])
@pytest.mark.parametrize("key", ["MAIL", "RCPT"])
def test_a_reused_connection_that_dies_before_the_content_is_replaced_once(
    post: Post, offers: Any, fault: Any, key: str
) -> None:
    """Behind a pause the content waits for the envelope's replies, so that it is known."""
    first = post.world.server({f"{key}#2": fault}, offers=offers)
    mailer = post.mailer(first, post.world.server(offers=offers))
    assert post.send(mailer, a_message(1))[0].get().accepted
    post.pump.advance(6)
    (result,) = post.send(mailer, a_message(2))
    assert result.get().accepted
    assert post.endpoint.attempts == 2
    assert post.world.subjects == ["1", "2"]


@pytest.mark.parametrize("fault", [CLOSE, RESET])
def test_a_content_that_went_along_with_the_envelope_is_in_doubt(post: Post, fault: Any) -> None:
    """So it is without a pause: nobody knows what the server has taken."""
    first = post.world.server({"MAIL#2": fault})
    mailer = post.mailer(first, post.world.server())
    _ = post.send(mailer, a_message(1))
    (result,) = post.send(mailer, a_message(2))
    with pytest.raises(DeliveryInDoubt):
        result.get()
    assert (post.world.subjects, post.endpoint.attempts) == (["1"], 1)


def test_a_421_says_that_nothing_behind_it_is_done(post: Post) -> None:
    first = post.world.server({"MAIL#4": ("421 4.7.0 enough", CLOSE)})
    mailer = post.mailer(first, post.world.server(), connections=1)
    reports = post.many(mailer, [a_message(n) for n in range(10)]).get()
    assert [report.error for report in reports] == [None] * 10
    assert [f"{n}" for n in range(10)] == sorted(post.world.subjects)
    assert post.endpoint.attempts == 2


def test_a_server_that_goes_on_behind_its_421_is_heard_out(post: Post) -> None:
    """It should have closed; what it accepts all the same must not go out again."""
    first = post.world.server({"MAIL#4": "421 4.7.0 slow down"})
    mailer = post.mailer(first, post.world.server(), connections=1)
    reports = post.many(mailer, [a_message(n) for n in range(10)]).get()
    assert [report.error for report in reports] == [None] * 10
    assert [f"{n}" for n in range(10)] == sorted(post.world.subjects)
    assert post.world.subjects[:7] == ["0", "1", "2", "4", "5", "6", "7"]
    assert post.endpoint.attempts == 2


def test_a_421_to_one_recipient_and_no_end_is_a_refusal(post: Post) -> None:
    mailer = post.mailer(post.world.server({"RCPT#2": "421 4.7.0 slow down"}))
    (result,) = post.send(mailer, a_message(1, ["bob@example.net", "carol@example.net"]))
    assert statuses(result.get()) == [RecipientStatus.ACCEPTED, RecipientStatus.REFUSED]
    assert post.world.subjects == ["1"]


@pytest.mark.parametrize("key", ["MAIL", "RCPT"])
def test_it_is_not_replaced_twice(post: Post, key: str) -> None:
    """The second one dies as well: those who wait get the error, and nobody tries for ever."""
    dying = post.world.server({f"{key}#2": CLOSE}, offers=PIPELINING)
    mailer = post.mailer(dying, connections=2, window=1)
    assert [r.fired for r in post.send(mailer, a_message(1))] * 2 == [1, 1]
    # The second connection serves one message, and then the one that comes from the first.
    post.world.fault = lambda server, k, line: CLOSE if k == key and "again" in line else None
    (result,) = post.send(mailer, a_message(2, ["again@example.net"], sender="again@example.org"))
    assert result.fired == 1
    with pytest.raises(ConnectionFailed):
        result.get()
    assert statuses(result.error.report) == [RecipientStatus.UNTOUCHED]
    assert post.endpoint.attempts == 2
    assert result.error.transient


@pytest.mark.parametrize("key", ["MAIL", "RCPT", "DATA"])
def test_a_fresh_connection_that_dies_is_not_replaced(post: Post, key: str) -> None:
    mailer = post.mailer(post.world.server({key: CLOSE}, offers=NOTHING))
    (result,) = post.send(mailer, a_message(1))
    with pytest.raises(ConnectionClosed):
        result.get()
    assert statuses(result.error.report) == [RecipientStatus.UNTOUCHED]
    assert post.endpoint.attempts == 1


def test_421_recycles_the_connection(post: Post) -> None:
    """A server that has enough after each third message is connected to again."""
    first = {"MAIL#4": ("421 4.7.0 enough", CLOSE)}
    mailer = post.mailer(post.world.server(first, offers=PIPELINING), connections=1)
    reports = post.many(mailer, [a_message(n) for n in range(10)]).get()
    assert [report.error for report in reports] == [None] * 10
    assert [f"{n}" for n in range(10)] == post.world.subjects
    assert post.endpoint.attempts == 4


def test_421_on_a_fresh_connection_is_the_servers_answer(post: Post) -> None:
    mailer = post.mailer(post.world.server({"MAIL": ("421 4.7.0 not today", CLOSE)}))
    (result,) = post.send(mailer, a_message(1))
    with pytest.raises(ServiceClosing, match=r"421 4\.7\.0 not today") as caught:
        result.get()
    assert statuses(caught.value.report) == [RecipientStatus.UNTOUCHED]
    assert (caught.value.transient, post.endpoint.attempts) == (True, 1)


def test_a_connection_that_fell_silent_costs_its_own_message_only(post: Post) -> None:
    timeouts = Timeouts(mail=10)
    first = post.world.server({"MAIL#2": SILENT}, offers=PIPELINING)
    mailer = post.mailer(first, post.world.server(), settings={"timeouts": timeouts}, connections=2)
    _ = post.send(mailer, a_message(1))
    (slow,) = post.send(mailer, a_message(2))
    (quick,) = post.send(mailer, a_message(3))
    assert (slow.fired, quick.fired) == (0, 1)
    post.pump.advance(11)
    with pytest.raises(SendTimeout):
        slow.get()
