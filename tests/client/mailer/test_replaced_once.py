"""A message whose connection died before its content is sent over one other, and no third."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import CHUNKING, PIPELINING
from tests.client.scripted_server import CLOSE, RESET
from twisted_sendmail import ConnectionFailed, Mailer, RecipientStatus

AGAIN = "again@example.org"


def warm(post: Post, count: int, **limits: Any) -> Mailer:
    """A mailer with so many idle connections, each of which has served."""
    mailer = post.mailer(
        post.world.server(offers=PIPELINING), connections=count, window=1, **limits
    )
    for result in post.send(mailer, *[a_message(n) for n in range(count)]):
        assert result.get().accepted
    assert (count, count) == (mailer.stats().idle, post.endpoint.attempts)
    post.pump.advance(6)
    assert count == mailer.stats().idle
    return mailer


def sendings(post: Post) -> int:
    """The number of times that a server got the message."""
    return sum(f"<{AGAIN}>" in line for server in post.world.servers for line in server.lines)


@pytest.mark.parametrize("end", [CLOSE, RESET, "421 4.3.2 going down"])
@pytest.mark.parametrize("key", ["MAIL", "RCPT"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_it_is_sent_twice_and_not_more_often(post: Post, key: str, count: int, end: Any) -> None:
    """However many idle connections there are, all of them as dead."""
    mailer = warm(post, count)
    post.world.fault = lambda server, k, line: (
        end if k == key and f"<{AGAIN}>" in server.lines[-(1 if k == "MAIL" else 2)] else None
    )
    (result,) = post.send(mailer, a_message("again", sender=AGAIN))
    post.pump.advance(60)
    assert result.fired == 1
    assert result.error is not None
    assert sendings(post) == 2
    assert [RecipientStatus.ACCEPTED] != statuses(result.error.report)
    assert [str(n) for n in range(count)] == sorted(post.world.subjects)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_second_connection_delivers_it(post: Post, count: int) -> None:
    mailer = warm(post, count)
    seen: list[str] = []

    def fault(server: Any, key: str, line: str) -> Any:
        if key == "MAIL" and AGAIN in line:
            seen.append(line)
            return CLOSE if len(seen) == 1 else None
        return None

    post.world.fault = fault
    (result,) = post.send(mailer, a_message("again", sender=AGAIN))
    assert result.get().accepted
    assert sendings(post) == 2
    assert post.world.subjects.count("again") == 1


def test_each_of_many_messages_is_sent_twice_at_the_most(post: Post) -> None:
    mailer = warm(post, 4)
    post.world.fault = lambda server, key, line: CLOSE if key == "MAIL" and "gone" in line else None
    names = [f"gone{n}@example.org" for n in range(12)]
    results = post.send(mailer, *[a_message(name, sender=name) for name in names])
    post.pump.advance(60)
    told = [line for server in post.world.servers for line in server.lines]
    for name, result in zip(names, results, strict=True):
        assert result.fired == 1
        assert isinstance(result.error, ConnectionFailed)
        assert 1 <= sum(f"<{name}>" in line for line in told) <= 2


@pytest.mark.parametrize("offers", [CHUNKING, PIPELINING], ids=["BDAT", "DATA"])
def test_a_content_that_was_begun_is_sent_once(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=3, window=1)
    for result in post.send(mailer, *[a_message(n) for n in range(3)]):
        assert result.get().accepted
    post.world.fault = lambda server, key, line: CLOSE if key in {".", "BDAT_LAST"} else None
    (result,) = post.send(mailer, a_message("again", sender=AGAIN))
    post.pump.advance(60)
    assert statuses(result.error.report) == [RecipientStatus.IN_DOUBT]
    assert sendings(post) == 1


@pytest.mark.parametrize("offers", [CHUNKING, PIPELINING], ids=["BDAT", "DATA"])
def test_a_refusal_counts_when_the_connection_ends_after_it(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=3, window=1)
    for result in post.send(mailer, *[a_message(n) for n in range(3)]):
        assert result.get().accepted
    faults = {"RCPT": "550 5.1.1 no such user", "DATA": CLOSE, "BDAT_LAST": CLOSE}
    post.world.fault = lambda server, key, line: faults.get(key)
    (result,) = post.send(mailer, a_message("again", sender=AGAIN))
    assert sendings(post) == 1
    assert [RecipientStatus.REFUSED] == statuses(result.error.report)
