"""Conformance: concurrent operations succeed or fail independently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, DeferredList

from twisted_sendmail.queue import AttemptRecord, QueueAction, QueueError, Selection
from twisted_sendmail.testing.queue_conformance.base import (
    ALL,
    FAILED,
    LATER,
    PENDING,
    QueueHome,
    delivered,
    ids,
    leased,
    on_its_way,
    one,
)
from twisted_sendmail.testing.queue_conformance.messages import (
    add_message,
    content_of,
    info_of,
    recipient_row,
)

if TYPE_CHECKING:
    from twisted_sendmail.queue import MessageInfo, Queue, QueuedMessage


def commit(queue: Queue, content: bytes, info: MessageInfo) -> Deferred[QueuedMessage]:
    """Start the commit of one message."""
    intake = queue.intake()
    assert intake.write(content) is None
    return intake.commit(info)


async def ends(asked: list[Deferred[Any]]) -> list[Any]:
    """Return the result or the error of each request."""
    results: Any = await DeferredList(asked, consumeErrors=True)
    return [result if good else result.value for good, result in results]


class ConformanceOfConcurrency:
    """Operations that may share one commit."""

    @ensureDeferred
    async def test_only_the_message_that_cannot_be_committed_fails(self, home: QueueHome) -> None:
        queue, _ = await home.open()
        infos = [info_of(queue) for _ in range(30)]
        infos[7] = infos[19] = infos[3]
        asked = [commit(queue, b"content %d" % n, info) for n, info in enumerate(infos)]
        results = await ends(asked)
        guilty = [n for n, result in enumerate(results) if isinstance(result, QueueError)]
        assert guilty == [7, 19]
        good = [n for n in range(30) if n not in guilty]
        assert [infos[n].id for n in good] == [results[n].id for n in good]
        await home.kill()
        queue, recovered = await home.open()
        assert recovered.messages == 28
        found = [await content_of(queue, infos[n].id) for n in good]
        assert [b"content %d" % n for n in good] == found
        await queue.close()

    @ensureDeferred
    async def test_a_record_that_fails_after_its_change_leaves_no_change(
        self, home: QueueHome
    ) -> None:
        """The failure is recorded with its report, or neither is."""
        queue, _ = await home.open()
        messages = [await on_its_way(queue) for _ in range(9)]
        namesake = info_of(queue)
        await add_message(queue, b"it has this id already", namesake)
        report = info_of(queue, sender="", to=["ann@example.org"])
        asked: list[Deferred[Any]] = []
        for n, message in enumerate(messages):
            if n % 3 == 0:
                asked.append(queue.settle(delivered(message.id)))
            elif n == 4:
                failed = AttemptRecord(
                    message.id,
                    50.0,
                    (recipient_row(0, FAILED, 0.0, "550 no", "5.1.1"),),
                    reports=((report, b"a report"), (namesake, b"another")),
                )
                asked.append(queue.settle(failed))
            else:
                later = AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 700.0 + n),))
                asked.append(queue.settle(later))
        results = await ends(asked)
        assert [n for n, each in enumerate(results) if isinstance(each, QueueError)] == [4]
        await home.kill()
        queue, _ = await home.open()
        left = {message.id: message for message in await queue.list(ALL)}
        assert report.id not in left
        assert {messages[n].id for n in (1, 2, 4, 5, 7, 8)} | {namesake.id} == set(left)
        for n in (1, 2, 5, 7, 8):
            assert 700.0 + n == left[messages[n].id].due
        (unchanged,) = left[messages[4].id].recipients
        assert (unchanged.state, unchanged.attempts, unchanged.reply) == (PENDING, 0, None)
        assert await content_of(queue, namesake.id) == b"it has this id already"
        await queue.close()

    @ensureDeferred
    async def test_operations_are_done_in_the_order_of_the_requests(self, queue: Queue) -> None:
        """Each sees what those before it did, in one commit or in several."""
        message = await on_its_way(queue)
        other = info_of(queue)
        only = Selection(ids=(message.id,))
        results = await ends(
            [
                queue.settle(AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 900.0),))),
                queue.act(QueueAction.HOLD, only, 60.0),
                queue.list(only),
            ]
        )
        (held,) = results[-1]
        assert (held.held, held.due) == (True, 900.0)
        results = await ends(
            [
                commit(queue, b"other", other),
                queue.act(QueueAction.RELEASE, only, 60.0),
                queue.act(QueueAction.FLUSH, only, 60.0),
                queue.list(only),
            ]
        )
        (due,) = results[-1]
        assert (due.held, due.due) == (False, 60.0)
        results = await ends(
            [
                queue.act(QueueAction.DELETE, only, 60.0),
                queue.list(only),
                queue.lease("out", LATER, fresh=9, retries=9, horizon=LATER * 9),
            ]
        )
        assert list(results[1]) == []
        assert [other.id] == [taken.message.id for taken in results[2]]

    @ensureDeferred
    async def test_a_lease_that_is_settled_twice_counts_once(self, queue: Queue) -> None:
        message = await on_its_way(queue)
        later = AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 900.0),))
        done = delivered(message.id)
        await ends([queue.settle(later), queue.settle(done)])
        found = await one(queue, message.id)
        assert (found.attempts, found.recipients[0].state, found.leased) == (1, PENDING, False)
        assert [message.id] == [taken.message.id for taken in await leased(queue)]
        assert await queue.settle(done) is None
        assert await ids(queue) == []

    @ensureDeferred
    async def test_a_message_that_was_aborted_beside_others_is_absent(self, queue: Queue) -> None:
        infos = [info_of(queue) for _ in range(6)]
        asked: list[Deferred[Any]] = []
        for n, info in enumerate(infos):
            intake = queue.intake()
            assert intake.write(b"x") is None
            if n % 2:
                intake.abort()
                with pytest.raises(QueueError):
                    await intake.commit(info)
            else:
                asked.append(intake.commit(info))
        await ends(asked)
        assert [infos[n].id for n in (0, 2, 4)] == await ids(queue)
