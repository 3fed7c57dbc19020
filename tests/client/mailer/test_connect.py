"""Connections that are opened before there are messages."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import DNSLookupError

from tests.client.mailer.conftest import Post, a_message
from tests.client.scripted_server import CLOSE, PASSWORD, USER
from tests.deferreds import Result
from twisted_sendmail import (
    AuthenticationFailed,
    ConnectionFailed,
    Credentials,
    InvalidInput,
    Mailer,
    MailerClosed,
    TLSPolicy,
)


def connect(post: Post, mailer: Mailer, count: int) -> Result:
    result = Result(mailer.connect(count))
    post.pump.run()
    return result


def test_so_many_are_opened_and_are_ready_when_it_fires(post: Post) -> None:
    mailer = post.mailer(connections=5)
    assert connect(post, mailer, 3).fired == 1
    assert (mailer.stats().idle, mailer.stats().opening) == (3, 0)
    assert post.world.open == 3


def test_messages_go_over_them_and_open_no_other(post: Post) -> None:
    mailer = post.mailer(connections=3)
    _ = connect(post, mailer, 3)
    _ = post.many(mailer, [a_message(n) for n in range(50)]).get()
    assert len(post.pump.links) == 3


def test_what_is_open_already_counts(post: Post) -> None:
    mailer = post.mailer(connections=5)
    for wanted, there in ((2, 2), (1, 2), (2, 2), (4, 4)):
        assert connect(post, mailer, wanted).fired == 1
        assert there == len(post.pump.links)


def test_several_may_wait_for_them(post: Post) -> None:
    mailer = post.mailer(connections=5)
    results = [Result(mailer.connect(count)) for count in (2, 4, 3)]
    post.pump.run()
    assert [result.fired for result in results] == [1, 1, 1]
    assert post.world.open == 4


def test_they_rest_no_longer_than_others(post: Post) -> None:
    mailer = post.mailer(connections=2, idle=30)
    _ = connect(post, mailer, 2)
    post.pump.advance(31)
    assert post.world.open == 0
    assert post.clock.getDelayedCalls() == []


def test_it_fails_when_no_server_can_be_reached(post: Post) -> None:
    mailer = post.mailer(DNSLookupError("no such host"), connections=3)
    first, second = (connect(post, mailer, 2) for _ in range(2))
    assert isinstance(first.error, ConnectionFailed)
    assert isinstance(second.error, ConnectionFailed)
    assert first.error is not second.error
    assert mailer.stats().opening == 0


def test_it_fails_at_once_when_the_password_was_refused(post: Post) -> None:
    secure: dict[str, Any] = {"tls": TLSPolicy.STARTTLS, "credentials": Credentials(USER, PASSWORD)}
    server = post.world.server(
        {"AUTH": "535 5.7.8 no"}, offers=("STARTTLS",), secure=("AUTH PLAIN",)
    )
    mailer = post.mailer(server, settings=secure, connections=3)
    for _ in range(2):
        assert isinstance(connect(post, mailer, 3).error, AuthenticationFailed)
    assert post.endpoint.attempts == 1


def test_another_server_takes_its_place(post: Post) -> None:
    down = post.place(DNSLookupError("no such host"))
    mailer = post.mailer(down, post.place(post.world.server()), connections=3)
    assert connect(post, mailer, 2).fired == 1
    assert mailer.stats().idle == 2


def test_one_that_is_lost_meanwhile_is_opened_again(post: Post) -> None:
    servers = [post.world.server({"EHLO": ("250 mx", CLOSE)}), post.world.server()]
    mailer = post.mailer(*servers, connections=2)
    assert connect(post, mailer, 2).fired == 1


@pytest.mark.parametrize("count", [0, -1, 5, 1.0, "2", None])
def test_a_number_that_cannot_be_is_refused(post: Post, count: Any) -> None:
    mailer = post.mailer(connections=4)
    result = connect(post, mailer, count)
    assert isinstance(result.error, InvalidInput)
    assert "from 1 to 4" in result.error.remedy


def test_a_mailer_that_is_closed_opens_none(post: Post) -> None:
    mailer = post.mailer(connections=4)
    waiting = Result(mailer.connect(4))
    _ = post.close(mailer, grace=0.0)
    post.pump.advance(1)
    assert waiting.fired == 1
    assert isinstance(connect(post, mailer, 1).error, MailerClosed)
    assert post.world.open == 0


def test_cancelling_stops_the_waiting(post: Post) -> None:
    mailer = post.mailer(connections=4)
    result = Result(mailer.connect(4))
    result.deferred.cancel()
    post.pump.run()
    assert result.fired == 1
    assert mailer.stats().idle == 1
