"""Conformance: concurrent operations succeed or fail independently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, DeferredList

from tests.names import AttemptRecord, QueueAction, QueueError, Selection
from tests.queue.conformance_base import (
    ALL,
    FAILED,
    LATER,
    PENDING,
    Home,
    delivered,
    ids,
    leased,
    on_its_way,
    one,
)
from tests.queue.messages import content_of, info_of, take_in
from tests.rows import recipient_row

if TYPE_CHECKING:
    from tests.names import MessageInfo, Queue, QueuedMessage


def commit(spool: Queue, content: bytes, info: MessageInfo) -> Deferred[QueuedMessage]:
    """Ask for the commit of one message, and do not wait."""
    intake = spool.intake()
    assert intake.write(content) is None
    return intake.commit(info)


async def ends(asked: list[Deferred[Any]]) -> list[Any]:
    """What became of each: its result, or its error."""
    results: Any = await DeferredList(asked, consumeErrors=True)
    return [result if good else result.value for good, result in results]


class Together:
    """Operations that may share one commit."""

    @ensureDeferred
    async def test_one_that_cannot_be_committed_fails_alone(self, home: Home) -> None:
        spool, _ = await home.open()
        infos = [info_of(spool) for _ in range(30)]
        infos[7] = infos[19] = infos[3]
        asked = [commit(spool, b"content %d" % n, info) for n, info in enumerate(infos)]
        results = await ends(asked)
        guilty = [n for n, result in enumerate(results) if isinstance(result, QueueError)]
        assert guilty == [7, 19]
        good = [n for n in range(30) if n not in guilty]
        assert [infos[n].id for n in good] == [results[n].id for n in good]
        await home.kill()
        spool, recovered = await home.open()
        assert recovered.messages == 28
        found = [await content_of(spool, infos[n].id) for n in good]
        assert [b"content %d" % n for n in good] == found
        await spool.close()

    @ensureDeferred
    async def test_a_settlement_that_fails_behind_its_change_leaves_no_change(
        self, home: Home
    ) -> None:
        """The failure is recorded with its report, or neither is."""
        spool, _ = await home.open()
        messages = [await on_its_way(spool) for _ in range(9)]
        namesake = info_of(spool)
        await take_in(spool, b"it has this name already", namesake)
        report = info_of(spool, sender="", to=["ann@example.org"])
        asked: list[Deferred[Any]] = []
        for n, message in enumerate(messages):
            if n % 3 == 0:
                asked.append(spool.settle(delivered(message.id)))
            elif n == 4:
                failed = AttemptRecord(
                    message.id,
                    50.0,
                    (recipient_row(0, FAILED, 0.0, "550 no", "5.1.1"),),
                    reports=((report, b"a report"), (namesake, b"another")),
                )
                asked.append(spool.settle(failed))
            else:
                later = AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 700.0 + n),))
                asked.append(spool.settle(later))
        results = await ends(asked)
        assert [n for n, each in enumerate(results) if isinstance(each, QueueError)] == [4]
        await home.kill()
        spool, _ = await home.open()
        left = {message.id: message for message in await spool.list(ALL)}
        assert report.id not in left
        assert {messages[n].id for n in (1, 2, 4, 5, 7, 8)} | {namesake.id} == set(left)
        for n in (1, 2, 5, 7, 8):
            assert 700.0 + n == left[messages[n].id].due
        (unchanged,) = left[messages[4].id].recipients
        assert (unchanged.state, unchanged.attempts, unchanged.reply) == (PENDING, 0, None)
        assert await content_of(spool, namesake.id) == b"it has this name already"
        await spool.close()

    @ensureDeferred
    async def test_what_was_asked_first_is_done_first(self, spool: Queue) -> None:
        """Each sees what those before it did, in one commit or in several."""
        message = await on_its_way(spool)
        other = info_of(spool)
        only = Selection(ids=(message.id,))
        results = await ends(
            [
                spool.settle(AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 900.0),))),
                spool.act(QueueAction.HOLD, only, 60.0),
                spool.list(only),
            ]
        )
        (held,) = results[-1]
        assert (held.held, held.due) == (True, 900.0)
        results = await ends(
            [
                commit(spool, b"other", other),
                spool.act(QueueAction.RELEASE, only, 60.0),
                spool.act(QueueAction.FLUSH, only, 60.0),
                spool.list(only),
            ]
        )
        (due,) = results[-1]
        assert (due.held, due.due) == (False, 60.0)
        results = await ends(
            [
                spool.act(QueueAction.DELETE, only, 60.0),
                spool.list(only),
                spool.lease("out", LATER, fresh=9, retries=9, horizon=LATER * 9),
            ]
        )
        assert list(results[1]) == []
        assert [other.id] == [taken.message.id for taken in results[2]]

    @ensureDeferred
    async def test_a_lease_that_was_settled_twice_counts_once(self, spool: Queue) -> None:
        message = await on_its_way(spool)
        later = AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 900.0),))
        done = delivered(message.id)
        await ends([spool.settle(later), spool.settle(done)])
        found = await one(spool, message.id)
        assert (found.attempts, found.recipients[0].state, found.leased) == (1, PENDING, False)
        assert [message.id] == [taken.message.id for taken in await leased(spool)]
        assert await spool.settle(done) is None
        assert await ids(spool) == []

    @ensureDeferred
    async def test_a_message_that_was_aborted_beside_others_is_not_there(
        self, spool: Queue
    ) -> None:
        infos = [info_of(spool) for _ in range(6)]
        asked: list[Deferred[Any]] = []
        for n, info in enumerate(infos):
            intake = spool.intake()
            assert intake.write(b"x") is None
            if n % 2:
                intake.abort()
                with pytest.raises(QueueError):
                    await intake.commit(info)
            else:
                asked.append(intake.commit(info))
        await ends(asked)
        assert [infos[n].id for n in (0, 2, 4)] == await ids(spool)
