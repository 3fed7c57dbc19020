"""Conformance: the operator's actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.names import (
    AttemptRecord,
    QueueAction,
    QueueActionResult,
    Selection,
    SetAsideReason,
)
from tests.queue.conformance_base import (
    ALL,
    DELIVERED,
    FAILED,
    PENDING,
    Home,
    delivered,
    ids,
    leased,
    on_its_way,
    one,
    undeliverable,
)
from tests.queue.messages import Observer, info_of, take_in
from tests.rows import recipient_row

if TYPE_CHECKING:
    from tests.names import Queue


class Operating:
    """Lists, actions and numbers."""

    @ensureDeferred
    async def test_messages_are_selected_by_all_that_is_given(self, spool: Queue) -> None:
        to_bob = info_of(spool, to=["Bob@Example.net"], sender="ann@example.org")
        to_both = info_of(spool, to=["bob@example.net", "joe@example.com"], route="a")
        bounce = info_of(spool, to=["joann@example.org"], sender=None)
        for info in (to_bob, to_both, bounce):
            await take_in(spool, b"x", info)
        assert [to_bob.id, to_both.id, bounce.id] == await ids(spool)
        assert [to_bob.id, to_both.id] == await ids(spool, limit=2)
        assert await ids(spool, limit=0) == []
        assert [to_both.id, bounce.id] == await ids(spool, offset=1)
        assert [to_both.id] == await ids(spool, offset=1, limit=1)
        assert await ids(spool, offset=3) == []
        assert [to_bob.id, to_both.id] == await ids(spool, recipient="BOB@example.NET")
        assert [to_both.id] == await ids(spool, recipient="@example.com")
        assert [bounce.id] == await ids(spool, recipient="ann")
        assert await ids(spool, recipient="ann@example.org") == []
        assert [bounce.id] == await ids(spool, sender="")
        assert [to_bob.id] == await ids(spool, sender="ann@example.org", route="out")
        assert [to_both.id] == await ids(spool, route="a")
        wanted = (bounce.id.lower(), to_bob.id, "nonsense", spool.new_id())
        assert [to_bob.id, bounce.id] == await ids(spool, ids=wanted)
        assert await ids(spool, ids=(bounce.id,), route="a") == []
        assert [to_both.id, bounce.id] == await ids(spool, after=to_bob.id)
        assert [to_both.id] == await ids(spool, after=to_bob.id, limit=1)
        await leased(spool, "a")
        assert [to_both.id] == await ids(spool, queue="active")
        await spool.settle(delivered(to_both.id, 1))
        assert await ids(spool, recipient="joe@example.com") == []
        assert [to_both.id] == await ids(spool, queue="deferred")
        assert [to_bob.id, bounce.id] == await ids(spool, queue="incoming")

    @ensureDeferred
    async def test_the_messages_of_one_user_are_selected(self, spool: Queue) -> None:
        infos = [info_of(spool, uid=uid) for uid in (1000, 1001, None, 0, 1000)]
        for info in infos:
            await take_in(spool, b"x", info)
        assert [infos[0].id, infos[4].id] == await ids(spool, uid=1000)
        assert [infos[3].id] == await ids(spool, uid=0)
        assert await ids(spool, uid=65534) == []
        assert (await one(spool, infos[1].id)).info == infos[1]
        flushed = await spool.act(QueueAction.FLUSH, Selection(uid=1000), 100.0)
        assert [infos[0].id, infos[4].id] == [result.id for result in flushed]

    @ensureDeferred
    async def test_a_long_list_comes_whole_and_in_order(self, spool: Queue) -> None:
        names = [spool.new_id() for _ in range(450)]
        taking = [take_in(spool, b"x", info_of(spool, id_=n)) for n in reversed(names)]
        await gatherResults([Deferred.fromCoroutine(coroutine) for coroutine in taking])
        assert names == await ids(spool)
        assert names[:399] == await ids(spool, limit=399)
        assert names[20:420] == await ids(spool, offset=20, limit=400)
        assert names == await ids(spool, ids=tuple(reversed(names)))

    @ensureDeferred
    async def test_flush_makes_what_waits_due_and_tells_who_delivers(self, spool: Queue) -> None:
        message = await on_its_way(spool)
        await spool.settle(AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 500.0),)))
        spool.observer = observer = Observer(claims=False)
        assert await leased(spool, now=100.0) == []
        assert [QueueActionResult(message.id)] == await spool.act(QueueAction.FLUSH, ALL, 100.0)
        assert observer.events == [("queue_changed",)]
        (taken,) = await leased(spool, now=100.0)
        assert [r.due for r in taken.message.recipients] == [100.0]

    @ensureDeferred
    async def test_a_held_message_is_not_tried_until_it_is_released(self, spool: Queue) -> None:
        message = await take_in(spool, b"x")
        assert [QueueActionResult(message.id)] == await spool.act(QueueAction.HOLD, ALL, 0.0)
        assert (
            await leased(spool),
            [m.queue_name for m in await spool.list(ALL)],
        ) == ([], ["hold"])
        assert [QueueActionResult(message.id)] == await spool.act(QueueAction.RELEASE, ALL, 0.0)
        assert await spool.act(QueueAction.RELEASE, ALL, 0.0) == []
        assert [message.id] == [t.message.id for t in await leased(spool)]

    @ensureDeferred
    async def test_an_expired_message_is_due_at_once_whatever_else_is_said(
        self, spool: Queue
    ) -> None:
        message = await take_in(spool, b"x", info_of(spool, held=True))
        assert [QueueActionResult(message.id)] == await spool.act(QueueAction.EXPIRE, ALL, 0.0)
        (taken,) = await leased(spool, now=0.0)
        assert taken.message.expired
        await spool.settle(AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 900.0),)))
        assert await spool.next_due() == {"out": 0.0}

    @ensureDeferred
    async def test_requeue_makes_it_as_new(self, spool: Queue) -> None:
        message = await on_its_way(spool, info_of(spool, to=["a@x.org", "b@x.org"]))
        changes = (recipient_row(0, FAILED), recipient_row(1, PENDING, 900.0))
        await spool.settle(AttemptRecord(message.id, 50.0, changes, warned=True))
        assert [QueueActionResult(message.id)] == await spool.act(QueueAction.REQUEUE, ALL, 0.0)
        found = await one(spool, message.id)
        assert (found.attempts, found.warned, found.due) == (0, False, 0.0)
        # Who failed was reported: he does not get it again.
        assert [(r.state, r.attempts) for r in found.recipients] == [(FAILED, 1), (PENDING, 0)]
        assert [message.id] == [t.message.id for t in await leased(spool, now=0.0, retries=0)]

    @ensureDeferred
    async def test_a_deleted_message_is_gone_and_one_on_its_way_when_its_try_ends(
        self, spool: Queue
    ) -> None:
        names = [(await take_in(spool, b"x")).id for _ in range(4)]
        taken = await leased(spool, fresh=3)
        acted = await spool.act(QueueAction.DELETE, ALL, 0.0)
        assert [
            *(QueueActionResult(n, on_its_way=True) for n in names[:3]),
            QueueActionResult(names[3]),
        ] == acted
        assert names[:3] == await ids(spool)
        assert (
            await spool.settle(AttemptRecord(names[0], 9.0, (recipient_row(0, PENDING, 99.0),)))
            is None
        )
        assert await spool.settle(delivered(names[1])) is None
        await spool.release(taken[2:])
        assert await ids(spool) == []

    @ensureDeferred
    async def test_what_is_said_during_a_try_takes_effect_at_its_end(self, spool: Queue) -> None:
        names = [(await take_in(spool, b"x")).id for _ in range(2)]
        await leased(spool)
        for action, id_ in ((QueueAction.HOLD, names[0]), (QueueAction.EXPIRE, names[1])):
            acted = await spool.act(action, Selection(ids=(id_,)), 0.0)
            assert [QueueActionResult(id_, on_its_way=True)] == acted
            await spool.settle(AttemptRecord(id_, 9.0, (recipient_row(0, PENDING, 99.0),)))
        taken = await leased(spool, now=10.0)
        assert [(names[1], True)] == [(t.message.id, t.message.expired) for t in taken]

    @ensureDeferred
    async def test_a_message_ages_by_the_time_that_is_counted_and_not_on_hold(
        self, home: Home
    ) -> None:
        spool, _ = await home.open()
        one_, two = [(await take_in(spool, b"x", info_of(spool, arrived=1.0))).id for _ in range(2)]
        held = (await take_in(spool, b"x", info_of(spool, held=True))).id

        async def ages() -> list[float]:
            return [(await one(spool, id_)).age for id_ in (one_, two, held)]

        await spool.count_running(60.0)
        assert await ages() == [60.0, 60.0, 0.0]
        for action, id_ in (
            (QueueAction.HOLD, one_),
            (QueueAction.HOLD, one_),
            (QueueAction.REQUEUE, two),
            (QueueAction.RELEASE, held),
        ):
            await spool.act(action, Selection(ids=(id_,)), 0.0)
        await spool.count_running(5.0)
        assert await ages() == [60.0, 5.0, 5.0]
        await spool.act(QueueAction.RELEASE, Selection(ids=(one_,)), 0.0)
        await spool.close()
        spool, _ = await home.open()
        assert await ages() == [60.0, 5.0, 5.0]
        assert [60.0, 5.0, 5.0] == [taken.message.age for taken in await leased(spool)]
        await spool.count_running(1.0)
        new = await take_in(spool, b"x")
        assert (new.age, (await one(spool, new.id)).age) == (0.0, 0.0)
        assert await ages() == [61.0, 6.0, 6.0]
        await spool.close()

    @ensureDeferred
    async def test_what_failed_with_nobody_to_tell_goes_when_it_was_kept_for_its_time(
        self, home: Home
    ) -> None:
        """Its age is the time that relays ran, across restarts, whatever the clock says."""
        spool, _ = await home.open()
        names = [(await take_in(spool, b"x")).id for _ in range(2)]
        await leased(spool)
        for name in names[:1]:
            await spool.settle(undeliverable(name))
        await spool.count_running(60.0)
        assert await spool.clear_aside(100.0) == []
        await spool.settle(undeliverable(names[1]))
        await spool.close()
        spool, _ = await home.open()
        assert await spool.clear_aside(100.0) == []
        await spool.count_running(40.0)
        assert [names[0]] == await spool.clear_aside(100.0)
        assert [names[1]] == await ids(spool, queue="undeliverable")
        assert [QueueActionResult(names[1])] == await spool.act(QueueAction.REQUEUE, ALL, 0.0)
        await leased(spool)
        await spool.settle(undeliverable(names[1]))
        await spool.count_running(99.0)
        assert await spool.clear_aside(100.0) == []
        await spool.count_running(1.0)
        assert [names[1]] == await spool.clear_aside(100.0)
        await spool.count_running(1e6)
        assert (await ids(spool), await spool.clear_aside(100.0)) == ([], [])
        await spool.close()

    @ensureDeferred
    async def test_nothing_else_goes_by_its_age_and_not_what_the_operator_holds(
        self, spool: Queue
    ) -> None:
        names = [(await take_in(spool, b"x", info_of(spool, arrived=1.0))).id for _ in range(5)]
        await leased(spool, fresh=4)
        await spool.act(QueueAction.HOLD, Selection(ids=(names[0],)), 0.0)
        await spool.settle(undeliverable(names[0]))
        damaged = AttemptRecord(names[1], 50.0, tried=False, aside=SetAsideReason.DAMAGED)
        await spool.settle(damaged)
        await spool.settle(AttemptRecord(names[2], 50.0, (recipient_row(0, PENDING, 99.0),)))
        await spool.count_running(1e9)
        assert await spool.clear_aside(1.0) == []
        assert names == await ids(spool)

    @ensureDeferred
    async def test_much_that_is_to_go_goes_in_parts(self, spool: Queue) -> None:
        names = [(await take_in(spool, b"x")).id for _ in range(150)]
        await leased(spool, fresh=200)
        for name in names:
            await spool.settle(undeliverable(name))
        await spool.count_running(9.0)
        gone = list(await spool.clear_aside(9.0))
        assert 0 < len(gone) < 150
        while some := await spool.clear_aside(9.0):
            gone += some
        assert (names, []) == (gone, await ids(spool))

    @ensureDeferred
    async def test_routes_are_renamed_all_at_once(self, spool: Queue) -> None:
        infos = [info_of(spool, route=route) for route in ("a", "b", "c")]
        for info in infos:
            await take_in(spool, b"x", info)
        await leased(spool, "a")
        await spool.reroute({})
        await spool.reroute({"a": "b", "b": "a"})
        assert [m.info.route for m in await spool.list(ALL)] == ["b", "a", "c"]

    @ensureDeferred
    async def test_the_totals_count_what_is_there(self, spool: Queue) -> None:
        nothing = await spool.totals()
        assert (
            nothing.queues,
            nothing.deferred,
            nothing.oldest,
            nothing.octets,
        ) == ({}, {}, None, 0)
        for n in range(5):
            to = ["a@x.org", "b@x.org"]
            await take_in(spool, b"12345", info_of(spool, to=to, arrived=100.0 - n))
        names = [t.message.id for t in await leased(spool, fresh=4)]
        changes = (
            recipient_row(0, DELIVERED),
            recipient_row(1, PENDING, 9.0, "450 x", "4.2.0"),
        )
        await spool.settle(AttemptRecord(names[0], 9.0, changes))
        await spool.settle(AttemptRecord(names[1], 9.0, (recipient_row(0, PENDING, 9.0),)))
        aside = AttemptRecord(
            names[2], 9.0, (recipient_row(0, FAILED),), aside=SetAsideReason.UNDELIVERABLE
        )
        await spool.settle(aside)
        await spool.act(QueueAction.HOLD, Selection(ids=(names[1],)), 0.0)
        totals = await spool.totals()
        expected = {"deferred": 1, "hold": 1, "undeliverable": 1, "active": 1, "incoming": 1}
        assert totals.queues == expected
        assert totals.deferred == {"4.2.0": 1, "": 1}
        assert (totals.oldest, totals.octets) == (96.0, 25)
