"""Conformance: the operator's actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from twisted_sendmail.queue import (
    AttemptRecord,
    QueueAction,
    QueueActionResult,
    Selection,
    SetAsideReason,
)
from twisted_sendmail.testing.queue_conformance.base import (
    ALL,
    DELIVERED,
    FAILED,
    PENDING,
    QueueHome,
    delivered,
    ids,
    leased,
    on_its_way,
    one,
    undeliverable,
)
from twisted_sendmail.testing.queue_conformance.messages import (
    Observer,
    add_message,
    info_of,
    recipient_row,
)

if TYPE_CHECKING:
    from twisted_sendmail.queue import Queue


class ConformanceForOperators:
    """Lists, actions and figures."""

    @ensureDeferred
    async def test_messages_are_selected_by_all_that_is_given(self, queue: Queue) -> None:
        to_bob = info_of(queue, to=["Bob@Example.net"], sender="ann@example.org")
        to_both = info_of(queue, to=["bob@example.net", "joe@example.com"], route="a")
        bounce = info_of(queue, to=["joann@example.org"], sender=None)
        for info in (to_bob, to_both, bounce):
            await add_message(queue, b"x", info)
        assert [to_bob.id, to_both.id, bounce.id] == await ids(queue)
        assert [to_bob.id, to_both.id] == await ids(queue, limit=2)
        assert await ids(queue, limit=0) == []
        assert [to_both.id, bounce.id] == await ids(queue, offset=1)
        assert [to_both.id] == await ids(queue, offset=1, limit=1)
        assert await ids(queue, offset=3) == []
        assert [to_bob.id, to_both.id] == await ids(queue, recipient="BOB@example.NET")
        assert [to_both.id] == await ids(queue, recipient="@example.com")
        assert [bounce.id] == await ids(queue, recipient="ann")
        assert await ids(queue, recipient="ann@example.org") == []
        assert [bounce.id] == await ids(queue, sender="")
        assert [to_bob.id] == await ids(queue, sender="ann@example.org", route="out")
        assert [to_both.id] == await ids(queue, route="a")
        wanted = (bounce.id.lower(), to_bob.id, "nonsense", queue.new_id())
        assert [to_bob.id, bounce.id] == await ids(queue, ids=wanted)
        assert await ids(queue, ids=(bounce.id,), route="a") == []
        assert [to_both.id, bounce.id] == await ids(queue, after=to_bob.id)
        assert [to_both.id] == await ids(queue, after=to_bob.id, limit=1)
        await leased(queue, "a")
        assert [to_both.id] == await ids(queue, queue="active")
        await queue.settle(delivered(to_both.id, 1))
        assert await ids(queue, recipient="joe@example.com") == []
        assert [to_both.id] == await ids(queue, queue="deferred")
        assert [to_bob.id, bounce.id] == await ids(queue, queue="incoming")

    @ensureDeferred
    async def test_the_messages_of_one_user_are_selected(self, queue: Queue) -> None:
        infos = [info_of(queue, uid=uid) for uid in (1000, 1001, None, 0, 1000)]
        for info in infos:
            await add_message(queue, b"x", info)
        assert [infos[0].id, infos[4].id] == await ids(queue, uid=1000)
        assert [infos[3].id] == await ids(queue, uid=0)
        assert await ids(queue, uid=65534) == []
        assert (await one(queue, infos[1].id)).info == infos[1]
        flushed = await queue.act(QueueAction.FLUSH, Selection(uid=1000), 100.0)
        assert [infos[0].id, infos[4].id] == [result.id for result in flushed]

    @ensureDeferred
    async def test_a_long_list_is_complete_and_in_order(self, queue: Queue) -> None:
        names = [queue.new_id() for _ in range(450)]
        adding = [add_message(queue, b"x", info_of(queue, id_=n)) for n in reversed(names)]
        await gatherResults([Deferred.fromCoroutine(coroutine) for coroutine in adding])
        assert names == await ids(queue)
        assert names[:399] == await ids(queue, limit=399)
        assert names[20:420] == await ids(queue, offset=20, limit=400)
        assert names == await ids(queue, ids=tuple(reversed(names)))

    @ensureDeferred
    async def test_flush_makes_waiting_mail_due_and_notifies_the_observer(
        self, queue: Queue
    ) -> None:
        message = await on_its_way(queue)
        await queue.settle(AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 500.0),)))
        queue.observer = observer = Observer(claims=False)
        assert await leased(queue, now=100.0) == []
        assert [QueueActionResult(message.id)] == await queue.act(QueueAction.FLUSH, ALL, 100.0)
        assert observer.events == [("queue_changed",)]
        (taken,) = await leased(queue, now=100.0)
        assert [r.due for r in taken.message.recipients] == [100.0]

    @ensureDeferred
    async def test_a_held_message_is_not_tried_until_it_is_released(self, queue: Queue) -> None:
        message = await add_message(queue, b"x")
        assert [QueueActionResult(message.id)] == await queue.act(QueueAction.HOLD, ALL, 0.0)
        assert (
            await leased(queue),
            [m.queue_name for m in await queue.list(ALL)],
        ) == ([], ["hold"])
        assert [QueueActionResult(message.id)] == await queue.act(QueueAction.RELEASE, ALL, 0.0)
        assert await queue.act(QueueAction.RELEASE, ALL, 0.0) == []
        assert [message.id] == [t.message.id for t in await leased(queue)]

    @ensureDeferred
    async def test_an_expired_message_is_due_at_once(self, queue: Queue) -> None:
        await queue.count_running(9.0)
        message = await add_message(queue, b"x", info_of(queue, held=True))
        await queue.count_running(9.0)
        assert [QueueActionResult(message.id)] == await queue.act(QueueAction.EXPIRE, ALL, 0.0)
        (taken,) = await leased(queue, now=0.0)
        assert (taken.message.expired, taken.message.age) == (True, 0.0)
        await queue.settle(AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 900.0),)))
        assert await queue.next_due() == {"out": 0.0}

    @ensureDeferred
    async def test_requeue_starts_a_message_over(self, queue: Queue) -> None:
        message = await on_its_way(queue, info_of(queue, to=["a@x.org", "b@x.org"]))
        changes = (recipient_row(0, FAILED), recipient_row(1, PENDING, 900.0))
        await queue.settle(AttemptRecord(message.id, 50.0, changes, warned=True))
        assert [QueueActionResult(message.id)] == await queue.act(QueueAction.REQUEUE, ALL, 0.0)
        found = await one(queue, message.id)
        assert (found.attempts, found.warned, found.due) == (0, False, 0.0)
        # The failure of the first was reported: it does not get the message again.
        assert [(r.state, r.attempts) for r in found.recipients] == [(FAILED, 1), (PENDING, 0)]
        assert [message.id] == [t.message.id for t in await leased(queue, now=0.0, retries=0)]

    @ensureDeferred
    async def test_a_leased_message_that_is_deleted_leaves_when_its_attempt_ends(
        self, queue: Queue
    ) -> None:
        names = [(await add_message(queue, b"x")).id for _ in range(4)]
        taken = await leased(queue, fresh=3)
        acted = await queue.act(QueueAction.DELETE, ALL, 0.0)
        assert [
            *(QueueActionResult(n, on_its_way=True) for n in names[:3]),
            QueueActionResult(names[3]),
        ] == acted
        assert names[:3] == await ids(queue)
        assert (
            await queue.settle(AttemptRecord(names[0], 9.0, (recipient_row(0, PENDING, 99.0),)))
            is None
        )
        assert await queue.settle(delivered(names[1])) is None
        await queue.release(taken[2:])
        assert await ids(queue) == []

    @ensureDeferred
    async def test_actions_during_an_attempt_take_effect_at_its_end(self, queue: Queue) -> None:
        names = [(await add_message(queue, b"x")).id for _ in range(2)]
        await leased(queue)
        for action, id_ in ((QueueAction.HOLD, names[0]), (QueueAction.EXPIRE, names[1])):
            acted = await queue.act(action, Selection(ids=(id_,)), 0.0)
            assert [QueueActionResult(id_, on_its_way=True)] == acted
            await queue.settle(AttemptRecord(id_, 9.0, (recipient_row(0, PENDING, 99.0),)))
        taken = await leased(queue, now=10.0)
        assert [(names[1], True)] == [(t.message.id, t.message.expired) for t in taken]

    @ensureDeferred
    async def test_a_message_ages_by_the_time_that_is_counted_and_not_on_hold(
        self, home: QueueHome
    ) -> None:
        queue, _ = await home.open()
        one_, two = [
            (await add_message(queue, b"x", info_of(queue, arrived=1.0))).id for _ in range(2)
        ]
        held = (await add_message(queue, b"x", info_of(queue, held=True))).id

        async def ages() -> list[float]:
            return [(await one(queue, id_)).age for id_ in (one_, two, held)]

        await queue.count_running(60.0)
        assert await ages() == [60.0, 60.0, 0.0]
        for action, id_ in (
            (QueueAction.HOLD, one_),
            (QueueAction.HOLD, one_),
            (QueueAction.REQUEUE, two),
            (QueueAction.RELEASE, held),
        ):
            await queue.act(action, Selection(ids=(id_,)), 0.0)
        await queue.count_running(5.0)
        assert await ages() == [60.0, 5.0, 5.0]
        await queue.act(QueueAction.RELEASE, Selection(ids=(one_,)), 0.0)
        await queue.close()
        queue, _ = await home.open()
        assert await ages() == [60.0, 5.0, 5.0]
        assert [taken.message.age for taken in await leased(queue)] == [60.0, 5.0, 5.0]
        await queue.count_running(1.0)
        new = await add_message(queue, b"x")
        assert (new.age, (await one(queue, new.id)).age) == (0.0, 0.0)
        assert await ages() == [61.0, 6.0, 6.0]
        await queue.close()

    @ensureDeferred
    async def test_undeliverable_mail_is_removed_when_it_was_kept_long_enough(
        self, home: QueueHome
    ) -> None:
        """Its age is the time that relays ran, across restarts, whatever the clock says."""
        queue, _ = await home.open()
        names = [(await add_message(queue, b"x")).id for _ in range(2)]
        await leased(queue)
        for name in names[:1]:
            await queue.settle(undeliverable(name))
        await queue.count_running(60.0)
        assert await queue.clear_aside(100.0) == []
        await queue.settle(undeliverable(names[1]))
        await queue.close()
        queue, _ = await home.open()
        assert await queue.clear_aside(100.0) == []
        await queue.count_running(40.0)
        assert [names[0]] == await queue.clear_aside(100.0)
        assert [names[1]] == await ids(queue, queue="undeliverable")
        assert [QueueActionResult(names[1])] == await queue.act(QueueAction.REQUEUE, ALL, 0.0)
        await leased(queue)
        await queue.settle(undeliverable(names[1]))
        await queue.count_running(99.0)
        assert await queue.clear_aside(100.0) == []
        await queue.count_running(1.0)
        assert [names[1]] == await queue.clear_aside(100.0)
        await queue.count_running(1e6)
        assert (await ids(queue), await queue.clear_aside(100.0)) == ([], [])
        await queue.close()

    @ensureDeferred
    async def test_age_removes_no_other_mail_and_none_on_hold(self, queue: Queue) -> None:
        names = [(await add_message(queue, b"x", info_of(queue, arrived=1.0))).id for _ in range(5)]
        await leased(queue, fresh=4)
        await queue.act(QueueAction.HOLD, Selection(ids=(names[0],)), 0.0)
        await queue.settle(undeliverable(names[0]))
        damaged = AttemptRecord(names[1], 50.0, tried=False, aside=SetAsideReason.DAMAGED)
        await queue.settle(damaged)
        await queue.settle(AttemptRecord(names[2], 50.0, (recipient_row(0, PENDING, 99.0),)))
        await queue.count_running(1e9)
        assert await queue.clear_aside(1.0) == []
        assert names == await ids(queue)

    @ensureDeferred
    async def test_much_undeliverable_mail_is_removed_in_parts(self, queue: Queue) -> None:
        names = [(await add_message(queue, b"x")).id for _ in range(150)]
        await leased(queue, fresh=200)
        for name in names:
            await queue.settle(undeliverable(name))
        await queue.count_running(9.0)
        gone = list(await queue.clear_aside(9.0))
        assert 0 < len(gone) < 150
        while some := await queue.clear_aside(9.0):
            gone += some
        assert (names, []) == (gone, await ids(queue))

    @ensureDeferred
    async def test_routes_are_renamed_all_at_once(self, queue: Queue) -> None:
        infos = [info_of(queue, route=route) for route in ("a", "b", "c")]
        for info in infos:
            await add_message(queue, b"x", info)
        await leased(queue, "a")
        await queue.reroute({})
        await queue.reroute({"a": "b", "b": "a"})
        assert [m.info.route for m in await queue.list(ALL)] == ["b", "a", "c"]

    @ensureDeferred
    async def test_totals_count_all_mail(self, queue: Queue) -> None:
        nothing = await queue.totals()
        assert (
            nothing.queues,
            nothing.deferred,
            nothing.oldest,
            nothing.octets,
        ) == ({}, {}, None, 0)
        for n in range(5):
            to = ["a@x.org", "b@x.org"]
            await add_message(queue, b"12345", info_of(queue, to=to, arrived=100.0 - n))
        names = [t.message.id for t in await leased(queue, fresh=4)]
        changes = (
            recipient_row(0, DELIVERED),
            recipient_row(1, PENDING, 9.0, "450 x", "4.2.0"),
        )
        await queue.settle(AttemptRecord(names[0], 9.0, changes))
        await queue.settle(AttemptRecord(names[1], 9.0, (recipient_row(0, PENDING, 9.0),)))
        aside = AttemptRecord(
            names[2], 9.0, (recipient_row(0, FAILED),), aside=SetAsideReason.UNDELIVERABLE
        )
        await queue.settle(aside)
        await queue.act(QueueAction.HOLD, Selection(ids=(names[1],)), 0.0)
        totals = await queue.totals()
        expected = {"deferred": 1, "hold": 1, "undeliverable": 1, "active": 1, "incoming": 1}
        assert totals.queues == expected
        assert totals.deferred == {"4.2.0": 1, "": 1}
        assert (totals.oldest, totals.octets) == (96.0, 25)
