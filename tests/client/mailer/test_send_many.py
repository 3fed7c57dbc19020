"""``send_many``: any source, read no faster than it is sent; reports as they arrive, or in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import PIPELINING
from tests.client.scripted_server import SILENT
from tests.deferreds import Result
from twisted_sendmail import (
    Cancelled,
    InvalidAddress,
    InvalidMessage,
    MailerClosed,
    RecipientStatus,
    Timeouts,
)

ACCEPTED, REFUSED, IN_DOUBT, UNTOUCHED = RecipientStatus


def collect(post: Post, sending: Any, seen: list[Any]) -> Result:
    async def run() -> None:
        async for index, report in sending:
            seen.append((index, report))

    result = Result(Deferred.fromCoroutine(run()))
    post.pump.run()
    return result


def test_a_list_is_in_the_order_of_input(post: Post) -> None:
    """Also where they were not sent in that order."""
    settings = {"timeouts": Timeouts(mail=5)}
    slow = post.world.server({"MAIL#1": SILENT})
    mailer = post.mailer(slow, post.world.server(), connections=2, window=1, settings=settings)
    result = post.many(mailer, [a_message(n) for n in range(20)])
    assert result.fired == 0
    post.pump.advance(6)
    first, *reports = result.get()
    assert first.in_doubt
    for n, report in enumerate(reports, 1):
        assert post.world.subjects[int(report.queue_id, 16) - 1] == f"{n}"


def test_async_for_gives_reports_as_they_come(post: Post) -> None:
    mailer = post.mailer(post.world.server({"MAIL#1": SILENT}), post.world.server(), connections=2)
    seen: list[Any] = []
    sending = mailer.send_many([a_message(n) for n in range(4)], complete=False)
    result = collect(post, sending, seen)
    assert result.fired == 0
    assert 4 > len(seen)
    result.deferred.cancel()
    post.pump.run()
    assert isinstance(result.error, CancelledError)


def test_async_for_tells_places_and_reports(post: Post) -> None:
    seen: list[Any] = []
    mailer = post.mailer(connections=2)
    messages = [a_message(n, "gone@example.net" if n == 2 else "bob@example.net") for n in range(5)]
    assert collect(post, mailer.send_many(messages, complete=False), seen).fired == 1
    assert sorted(index for index, _ in seen) == [0, 1, 2, 3, 4]
    assert [index for index, report in seen if report.refused] == [2]


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("window", [1, 8])
def test_the_source_is_never_pulled_more_than_the_capacity_ahead(
    post: Post, connections: int, window: int
) -> None:
    pulled: list[int] = []

    def source() -> Iterator[Any]:
        for n in range(300):
            pulled.append(n)
            ahead.append(len(pulled) - len(seen) - len(refused))
            yield a_message(n)

    seen: list[Any] = []
    refused: list[Any] = []
    ahead: list[int] = []
    mailer = post.mailer(connections=connections, window=window)
    assert collect(post, mailer.send_many(source(), complete=False), seen).fired == 1
    assert (len(pulled), len(seen)) == (300, 300)
    assert mailer.capacity >= max(ahead)


def test_the_source_waits_for_a_caller_who_takes_his_time(post: Post) -> None:
    pulled: list[int] = []

    def source() -> Iterator[Any]:
        for n in range(1000):
            pulled.append(n)
            yield a_message(n)

    async def run() -> None:
        async for _ in mailer.send_many(source(), complete=False):
            await deferLater(post.clock, 1.0)

    mailer = post.mailer(connections=1)
    result = Result(Deferred.fromCoroutine(run()))
    post.pump.run()
    assert mailer.capacity >= len(pulled)
    post.pump.advance(10)
    assert mailer.capacity + 11 >= len(pulled)
    assert len(post.world.delivered) <= len(pulled)
    result.deferred.cancel()
    post.pump.run()
    assert result.fired == 1


def test_the_source_waits_while_no_connection_can_be_had(post: Post) -> None:
    pulled: list[int] = []

    def source() -> Iterator[Any]:
        for n in range(1000):
            pulled.append(n)
            yield a_message(n)

    mailer = post.mailer(Deferred(), connections=1)
    result = post.many(mailer, source())
    assert (0, mailer.capacity) == (result.fired, len(pulled))
    result.deferred.cancel()


def test_an_asynchronous_source_is_pulled_as_it_comes(post: Post) -> None:
    async def source() -> AsyncIterator[Any]:
        for n in range(5):
            await deferLater(post.clock, 10.0)
            yield a_message(n)

    mailer = post.mailer()
    result = post.many(mailer, source())
    post.pump.advance(35)
    assert (post.world.subjects, result.fired) == (["0", "1", "2"], 0)
    post.pump.advance(30)
    assert [statuses(report) for report in result.get()] == [[ACCEPTED]] * 5


class _BrokenError(Exception):
    pass


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("after", [0, 1, 30, 100])
def test_a_source_that_raises_ends_it_when_what_was_begun_is_done(
    post: Post, asynchronous: bool, after: int
) -> None:
    def source() -> Iterator[Any]:
        yield from (a_message(n) for n in range(after))
        raise _BrokenError

    async def asynchronously() -> AsyncIterator[Any]:
        for each in source():
            yield each

    seen: list[Any] = []
    mailer = post.mailer(connections=1)
    given = asynchronously() if asynchronous else source()
    result = collect(post, mailer.send_many(given, complete=False), seen)
    assert isinstance(result.error, _BrokenError)
    assert [f"{n}" for n in range(after)] == post.world.subjects
    assert after == len(seen)


def test_bad_messages_in_between_stop_nobody(post: Post) -> None:
    bad: list[Any] = [
        b"From: a@example.org\r\nTo: b@example.net\r\n\r\n\0\r\n",
        b"no recipients\r\n",
        b"From: a@example.org\r\nTo: x@@y\r\n\r\n\r\n",
        object(),
        (a_message(0)[0], object()),
        None,
    ]
    items: list[Any] = []
    for n, each in enumerate(bad):
        items += [a_message(n), each]
    mailer = post.mailer(connections=1)
    reports = post.many(mailer, [*items, a_message("last")]).get()
    assert len(reports) == 13
    assert [report.error for report in reports[::2]] == [None] * 7
    for report in reports[1::2]:
        assert isinstance(report.error, InvalidMessage | InvalidAddress)
        assert not report.accepted
    assert post.world.subjects == [*"012345", "last"]


def test_cancelling_cancels_what_was_not_sent(post: Post) -> None:
    first = post.world.server({"BDAT_LAST#3": SILENT})
    mailer = post.mailer(first, connections=1)
    result = post.many(mailer, (a_message(n) for n in range(1000)))
    assert result.fired == 0
    result.deferred.cancel()
    post.pump.run()
    assert isinstance(result.error, CancelledError)
    assert mailer.stats().waiting == 0
    assert post.world.subjects == ["0", "1"]


def test_cancelling_tells_what_became_of_those_begun(post: Post) -> None:
    """Some are accepted, some in doubt: the same again would be a second copy for them."""
    mailer = post.mailer(post.world.server({"BDAT_LAST#3": SILENT}), connections=1)
    result = post.many(mailer, (a_message(n) for n in range(20)))
    result.deferred.cancel()
    post.pump.run()
    error = result.error
    assert isinstance(error, Cancelled)
    assert (error.in_doubt, error.transient) == (True, False)
    found = [statuses(report)[0] for report in error.reports]
    assert found[:2] == [RecipientStatus.ACCEPTED] * 2
    assert found[2] is RecipientStatus.IN_DOUBT
    assert {RecipientStatus.IN_DOUBT, RecipientStatus.UNTOUCHED} >= set(found[2:])
    assert [report.error is not None for report in error.reports] == [
        status is not RecipientStatus.ACCEPTED for status in found
    ]


def test_cancelling_before_anything_was_sent_leaves_no_doubt(post: Post) -> None:
    mailer = post.mailer(post.world.server({"GREETING": SILENT}), connections=1)
    result = post.many(mailer, [a_message(n) for n in range(3)])
    result.deferred.cancel()
    assert isinstance(result.error, Cancelled)
    assert (result.error.in_doubt, result.error.transient) == (False, True)
    assert [statuses(report) for report in result.error.reports] == [
        [RecipientStatus.UNTOUCHED]
    ] * 3


def test_leaving_the_loop_cancels_the_rest(post: Post) -> None:
    async def run() -> int:
        sending = mailer.send_many([a_message(n) for n in range(500)], complete=False)
        iterator = sending.__aiter__()
        found = 0
        async for _ in iterator:
            found += 1
            if found == 5:
                break
        await iterator.aclose()  # type: ignore[attr-defined]
        return found

    mailer = post.mailer(connections=1)
    result = Result(Deferred.fromCoroutine(run()))
    post.pump.run()
    assert result.get() == 5
    assert 500 > len(post.world.delivered)
    assert mailer.stats().waiting == 0


def test_closing_the_mailer_in_the_middle(post: Post) -> None:
    mailer = post.mailer(connections=1)
    result = Result(mailer.send_many([a_message(n) for n in range(200)], complete=False).deferred())
    for _ in range(6):
        post.pump.turn()
    closed = post.close(mailer)
    reports = result.get()
    sent = [n for n, report in enumerate(reports) if report.accepted]
    assert (len(reports), closed.fired) == (200, 1)
    assert sent == list(range(len(sent)))
    assert all(isinstance(report.error, MailerClosed) for report in reports[len(sent) :])
    assert len(sent) == len(post.world.delivered)


@pytest.mark.parametrize("given", ["text", b"octets", 7, None])
def test_what_is_no_source_is_refused(post: Post, given: Any) -> None:
    mailer = post.mailer()
    result = post.many(mailer, given)
    with pytest.raises(InvalidMessage, match="messages cannot be "):
        result.get()


def test_nothing_to_send(post: Post) -> None:
    assert post.many(post.mailer(), []).get() == []


def test_all_connections_work(post: Post) -> None:
    mailer = post.mailer(post.world.server(offers=PIPELINING), connections=4)
    reports = post.many(mailer, [a_message(n) for n in range(400)]).get()
    assert len({report.queue_id for report in reports}) == 400
    assert post.endpoint.attempts == 4
    assert all(50 < server.verbs.count("MAIL") for server in post.world.servers)


def test_only_the_recipient_that_needs_smtputf8_is_refused_without_it(post: Post) -> None:
    mailer = post.mailer(post.world.server(offers=PIPELINING), connections=1)
    to = ["a@example.net", "j\u00fcrgen@example.net", "bob@example.net"]
    result = post.many(mailer, [a_message(1, to), a_message(2, to[1:2]), a_message(3)])
    first, second, third = result.get()
    assert statuses(first) == [ACCEPTED, REFUSED, ACCEPTED]
    assert "5.6.7 j\u00fcrgen@example.net" in str(first.refused[0].reply)
    assert (statuses(second), statuses(third)) == ([UNTOUCHED], [ACCEPTED])
    assert "the recipient is j\u00fcrgen@example.net" in str(second.error)
