"""Conformance: leasing messages and recording results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_twisted import ensureDeferred

from tests.names import (
    AttemptRecord,
    QueueAction,
    QueueActionResult,
    RecoveryReport,
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
from tests.queue.messages import Observer, content_of, info_of, take_in
from tests.rows import recipient_row
from twisted_sendmail import Envelope

if TYPE_CHECKING:
    from tests.names import Queue


class TakingOut:
    """Leases and settlements."""

    @ensureDeferred
    async def test_a_message_is_leased_once(self, spool: Queue) -> None:
        first, second = await take_in(spool, b"1"), await take_in(spool, b"2")
        taken = await leased(spool)
        assert [(first.id, b"1"), (second.id, b"2")] == [(t.message.id, t.content) for t in taken]
        assert all(t.message.leased for t in taken)
        assert await leased(spool) == []
        await spool.release(taken[:1])
        assert [first.id] == [t.message.id for t in await leased(spool)]

    @ensureDeferred
    async def test_the_oldest_new_ones_and_the_longest_due_others_come_first(
        self, spool: Queue
    ) -> None:
        names = [(await take_in(spool, b"x")).id for _ in range(6)]
        first = await leased(spool)
        for id_, due in zip(names[:3], (300.0, 100.0, 200.0), strict=True):
            await spool.settle(AttemptRecord(id_, 50.0, (recipient_row(0, PENDING, due),)))
        await spool.release(first[3:])
        taken = await leased(spool, now=250.0, fresh=2, retries=2)
        expected = [names[3], names[4], names[1], names[2]]
        assert [t.message.id for t in taken] == expected
        assert [names[5]] == [t.message.id for t in await leased(spool, now=250.0)]
        assert [names[0]] == [t.message.id for t in await leased(spool, now=300.0)]

    @ensureDeferred
    async def test_a_lease_takes_no_more_than_it_is_asked_for_and_no_other_route(
        self, spool: Queue
    ) -> None:
        a, b = info_of(spool, route="a"), info_of(spool, route="b")
        for info in (a, b):
            await take_in(spool, b"x", info)
        assert await leased(spool, "a", fresh=0) == []
        assert await leased(spool, "c") == []
        assert [a.id] == [t.message.id for t in await leased(spool, "a")]

    @ensureDeferred
    async def test_a_due_time_beyond_the_horizon_counts_as_due(self, spool: Queue) -> None:
        """A clock that ran ahead and was set back must not keep mail waiting for years."""
        message = await on_its_way(spool)
        await spool.settle(
            AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 2_000_000.0),))
        )
        early = await spool.lease("out", 60.0, fresh=5, retries=5, horizon=3_000_000.0)
        late = await spool.lease("out", 60.0, fresh=5, retries=5, horizon=1_000_000.0)
        assert ([], [message.id]) == (early, [t.message.id for t in late])

    @ensureDeferred
    async def test_next_due_names_each_route_that_has_something_to_do(self, spool: Queue) -> None:
        infos = [info_of(spool, route=route) for route in ("a", "b", "b", "c", "d")]
        for info in infos:
            await take_in(spool, b"x", info)
        for route in ("a", "b"):
            await leased(spool, route)
        for info, due in zip(infos[1:3], (700.0, 600.0), strict=True):
            await spool.settle(AttemptRecord(info.id, 50.0, (recipient_row(0, PENDING, due),)))
        await spool.act(QueueAction.HOLD, Selection(route="d"), 0.0)
        assert await spool.next_due() == {"b": 600.0, "c": 0.0}

    @ensureDeferred
    async def test_leases_of_a_crash_end_when_it_is_opened_and_are_counted(
        self, home: Home
    ) -> None:
        spool, _ = await home.open()
        names = [(await take_in(spool, b"x")).id for _ in range(3)]
        await leased(spool, fresh=2)
        await spool.act(QueueAction.DELETE, Selection(ids=(names[1],)), 0.0)
        await home.kill()
        spool, recovered = await home.open()
        assert RecoveryReport(2, (names[0],)) == recovered
        found = [(m.id, m.leased, m.interrupted) for m in await spool.list(ALL)]
        assert [(names[0], False, 1), (names[2], False, 0)] == found
        await spool.close()

    @ensureDeferred
    async def test_leases_that_are_left_at_the_end_are_not_counted(self, home: Home) -> None:
        spool, _ = await home.open()
        message = await on_its_way(spool)
        await spool.close()
        spool, recovered = await home.open()
        assert RecoveryReport(1, ()) == recovered
        assert ((m := await one(spool, message.id)).leased, m.interrupted) == (False, 0)
        await spool.close()

    @ensureDeferred
    async def test_a_message_is_gone_when_nobody_is_waiting_for_it(self, spool: Queue) -> None:
        message = await on_its_way(spool, info_of(spool, to=["a@x.org", "b@x.org", "c@x.org"]))
        first = AttemptRecord(
            message.id,
            50.0,
            (
                recipient_row(0, DELIVERED, 0.0, "250 ok", "2.0.0", "mx[192.0.2.1]:25"),
                recipient_row(1, PENDING, 350.0, "450 later", "4.2.0", "mx[192.0.2.1]:25"),
            ),
            warned=True,
            in_doubt=True,
        )
        left = await spool.settle(first)
        assert left is not None
        assert left == await one(spool, message.id)
        assert (left.leased, left.attempts, left.warned, left.interrupted) == (False, 1, True, 1)
        states = [(r.state, r.due, r.attempts, r.tried, r.reply) for r in left.recipients]
        assert states == [
            (DELIVERED, 0.0, 1, 50.0, "250 ok"),
            (PENDING, 350.0, 1, 50.0, "450 later"),
            (PENDING, 0.0, 0, None, None),
        ]
        assert (
            left.recipients[1].status,
            left.recipients[1].relay,
        ) == ("4.2.0", "mx[192.0.2.1]:25")
        assert left.due == 0.0
        (again,) = await leased(spool, now=60.0)
        assert left.pending == again.message.pending
        left = await spool.settle(AttemptRecord(message.id, 60.0, (recipient_row(2, FAILED),)))
        assert left is not None
        assert (left.due, left.attempts) == (350.0, 2)
        assert await leased(spool, now=349.0) == []
        await leased(spool, now=350.0)
        assert await spool.settle(delivered(message.id, 1)) is None
        assert (await ids(spool), await spool.next_due()) == ([], {})

    @ensureDeferred
    async def test_a_try_that_reached_nobody_is_not_counted(self, spool: Queue) -> None:
        message = await on_its_way(spool)
        down = recipient_row(0, PENDING, 90.0, "connection refused", "4.4.1", "mx")
        left = await spool.settle(AttemptRecord(message.id, 50.0, (down,), tried=False))
        assert left is not None
        (recipient,) = left.recipients
        assert (left.attempts, recipient.attempts, recipient.tried) == (0, 0, None)
        assert (left.due, recipient.reply) == (90.0, "connection refused")
        await leased(spool, now=100.0)
        left = await spool.settle(
            AttemptRecord(message.id, 100.0, (recipient_row(0, PENDING, 200.0),), tried=False)
        )
        assert left is not None
        assert (left.due, left.recipients[0].reply) == (200.0, "connection refused")

    @ensureDeferred
    async def test_one_who_has_it_never_becomes_pending_again(self, spool: Queue) -> None:
        message = await on_its_way(spool, info_of(spool, to=["a@x.org", "b@x.org"]))
        await spool.settle(delivered(message.id, 0))
        await leased(spool)
        left = await spool.settle(
            AttemptRecord(
                message.id,
                60.0,
                (recipient_row(0, PENDING, 70.0), recipient_row(1, PENDING, 80.0)),
            )
        )
        assert left is not None
        assert [r.state for r in left.recipients] == [DELIVERED, PENDING]

    @ensureDeferred
    async def test_settling_twice_changes_nothing_the_second_time(self, spool: Queue) -> None:
        message = await on_its_way(spool)
        settlement = AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 90.0),))
        first = await spool.settle(settlement)
        assert first == await spool.settle(settlement)
        await leased(spool)
        await spool.settle(delivered(message.id))
        assert await spool.settle(delivered(message.id)) is None

    @ensureDeferred
    async def test_reports_come_in_with_the_failure_they_report(self, home: Home) -> None:
        spool, _ = await home.open()
        message = await on_its_way(spool)
        spool.observer = observer = Observer(claims=False)
        report = info_of(spool, envelope=Envelope(None, "ann@example.org"))
        settlement = AttemptRecord(
            message.id, 50.0, (recipient_row(0, FAILED),), reports=((report, b"a report"),)
        )
        assert await spool.settle(settlement) is None
        await observer.heard(1)
        assert [("arrived", report.id, False, None)] == observer.events
        await home.kill()
        spool, _ = await home.open()
        assert [report.id] == await ids(spool)
        assert await content_of(spool, report.id) == b"a report"
        await spool.close()

    @ensureDeferred
    async def test_what_is_set_aside_is_kept_and_not_tried(self, spool: Queue) -> None:
        message = await on_its_way(spool)
        left = await spool.settle(undeliverable(message.id))
        assert left is not None
        assert (left.aside, left.queue_name) == (SetAsideReason.UNDELIVERABLE, "undeliverable")
        assert (await leased(spool), await spool.next_due()) == ([], {})
        for action in (
            QueueAction.FLUSH,
            QueueAction.HOLD,
            QueueAction.RELEASE,
            QueueAction.EXPIRE,
        ):
            assert await spool.act(action, ALL, 0.0) == []
        assert [QueueActionResult(message.id)] == await spool.act(QueueAction.REQUEUE, ALL, 0.0)
        (taken,) = await leased(spool)
        assert [r.state for r in taken.message.recipients] == [PENDING]
        assert taken.message.aside is None
