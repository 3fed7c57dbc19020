"""Conformance: leasing messages and recording results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_twisted import ensureDeferred

from twisted_sendmail.queue import (
    AttemptRecord,
    QueueAction,
    QueueActionResult,
    RecoveryReport,
    Selection,
    SetAsideReason,
)
from twisted_sendmail.smtp import Envelope
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
    content_of,
    info_of,
    recipient_row,
)

if TYPE_CHECKING:
    from twisted_sendmail.queue import Queue


class ConformanceOfDelivering:
    """Leases and settlements."""

    @ensureDeferred
    async def test_a_message_is_leased_once(self, queue: Queue) -> None:
        first, second = await add_message(queue, b"1"), await add_message(queue, b"2")
        taken = await leased(queue)
        assert [(first.id, b"1"), (second.id, b"2")] == [(t.message.id, t.content) for t in taken]
        assert all(t.message.leased for t in taken)
        assert await leased(queue) == []
        await queue.release(taken[:1])
        assert [first.id] == [t.message.id for t in await leased(queue)]

    @ensureDeferred
    async def test_the_oldest_new_ones_and_the_longest_due_others_come_first(
        self, queue: Queue
    ) -> None:
        names = [(await add_message(queue, b"x")).id for _ in range(6)]
        first = await leased(queue)
        for id_, due in zip(names[:3], (300.0, 100.0, 200.0), strict=True):
            await queue.settle(AttemptRecord(id_, 50.0, (recipient_row(0, PENDING, due),)))
        await queue.release(first[3:])
        taken = await leased(queue, now=250.0, fresh=2, retries=2)
        expected = [names[3], names[4], names[1], names[2]]
        assert [t.message.id for t in taken] == expected
        assert [names[5]] == [t.message.id for t in await leased(queue, now=250.0)]
        assert [names[0]] == [t.message.id for t in await leased(queue, now=300.0)]

    @ensureDeferred
    async def test_a_lease_takes_no_more_than_it_is_asked_for_and_no_other_route(
        self, queue: Queue
    ) -> None:
        a, b = info_of(queue, route="a"), info_of(queue, route="b")
        for info in (a, b):
            await add_message(queue, b"x", info)
        assert await leased(queue, "a", fresh=0) == []
        assert await leased(queue, "c") == []
        assert [a.id] == [t.message.id for t in await leased(queue, "a")]

    @ensureDeferred
    async def test_a_due_time_beyond_the_horizon_counts_as_due(self, queue: Queue) -> None:
        """A clock that ran ahead and was set back must not keep mail waiting for years."""
        message = await on_its_way(queue)
        await queue.settle(
            AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 2_000_000.0),))
        )
        early = await queue.lease("out", 60.0, fresh=5, retries=5, horizon=3_000_000.0)
        late = await queue.lease("out", 60.0, fresh=5, retries=5, horizon=1_000_000.0)
        assert ([], [message.id]) == (early, [t.message.id for t in late])

    @ensureDeferred
    async def test_next_due_names_each_route_that_has_something_to_do(self, queue: Queue) -> None:
        infos = [info_of(queue, route=route) for route in ("a", "b", "b", "c", "d")]
        for info in infos:
            await add_message(queue, b"x", info)
        for route in ("a", "b"):
            await leased(queue, route)
        for info, due in zip(infos[1:3], (700.0, 600.0), strict=True):
            await queue.settle(AttemptRecord(info.id, 50.0, (recipient_row(0, PENDING, due),)))
        await queue.act(QueueAction.HOLD, Selection(route="d"), 0.0)
        assert await queue.next_due() == {"b": 600.0, "c": 0.0}

    @ensureDeferred
    async def test_leases_of_a_crash_end_when_it_is_opened_and_are_counted(
        self, home: QueueHome
    ) -> None:
        queue, _ = await home.open()
        names = [(await add_message(queue, b"x")).id for _ in range(3)]
        await leased(queue, fresh=2)
        await queue.act(QueueAction.DELETE, Selection(ids=(names[1],)), 0.0)
        await home.kill()
        queue, recovered = await home.open()
        assert RecoveryReport(2, (names[0],)) == recovered
        found = [(m.id, m.leased, m.interrupted) for m in await queue.list(ALL)]
        assert [(names[0], False, 1), (names[2], False, 0)] == found
        await queue.close()

    @ensureDeferred
    async def test_leases_that_end_with_the_queue_are_not_counted(self, home: QueueHome) -> None:
        queue, _ = await home.open()
        message = await on_its_way(queue)
        await queue.close()
        queue, recovered = await home.open()
        assert RecoveryReport(1, ()) == recovered
        assert ((m := await one(queue, message.id)).leased, m.interrupted) == (False, 0)
        await queue.close()

    @ensureDeferred
    async def test_a_message_leaves_when_no_recipient_is_pending(self, queue: Queue) -> None:
        message = await on_its_way(queue, info_of(queue, to=["a@x.org", "b@x.org", "c@x.org"]))
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
        left = await queue.settle(first)
        assert left is not None
        assert left == await one(queue, message.id)
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
        (again,) = await leased(queue, now=60.0)
        assert left.pending == again.message.pending
        left = await queue.settle(AttemptRecord(message.id, 60.0, (recipient_row(2, FAILED),)))
        assert left is not None
        assert (left.due, left.attempts) == (350.0, 2)
        assert await leased(queue, now=349.0) == []
        await leased(queue, now=350.0)
        assert await queue.settle(delivered(message.id, 1)) is None
        assert (await ids(queue), await queue.next_due()) == ([], {})

    @ensureDeferred
    async def test_an_attempt_that_reached_no_server_is_not_counted(self, queue: Queue) -> None:
        message = await on_its_way(queue)
        down = recipient_row(0, PENDING, 90.0, "connection refused", "4.4.1", "mx")
        left = await queue.settle(AttemptRecord(message.id, 50.0, (down,), tried=False))
        assert left is not None
        (recipient,) = left.recipients
        assert (left.attempts, recipient.attempts, recipient.tried) == (0, 0, None)
        assert (left.due, recipient.reply) == (90.0, "connection refused")
        await leased(queue, now=100.0)
        left = await queue.settle(
            AttemptRecord(message.id, 100.0, (recipient_row(0, PENDING, 200.0),), tried=False)
        )
        assert left is not None
        assert (left.due, left.recipients[0].reply) == (200.0, "connection refused")

    @ensureDeferred
    async def test_a_delivered_recipient_never_becomes_pending_again(self, queue: Queue) -> None:
        message = await on_its_way(queue, info_of(queue, to=["a@x.org", "b@x.org"]))
        await queue.settle(delivered(message.id, 0))
        await leased(queue)
        left = await queue.settle(
            AttemptRecord(
                message.id,
                60.0,
                (recipient_row(0, PENDING, 70.0), recipient_row(1, PENDING, 80.0)),
            )
        )
        assert left is not None
        assert [r.state for r in left.recipients] == [DELIVERED, PENDING]

    @ensureDeferred
    async def test_settling_twice_changes_nothing_the_second_time(self, queue: Queue) -> None:
        message = await on_its_way(queue)
        settlement = AttemptRecord(message.id, 50.0, (recipient_row(0, PENDING, 90.0),))
        first = await queue.settle(settlement)
        assert first == await queue.settle(settlement)
        await leased(queue)
        await queue.settle(delivered(message.id))
        assert await queue.settle(delivered(message.id)) is None

    @ensureDeferred
    async def test_reports_are_committed_with_the_failure_they_report(
        self, home: QueueHome
    ) -> None:
        queue, _ = await home.open()
        message = await on_its_way(queue)
        queue.observer = observer = Observer(claims=False)
        report = info_of(queue, envelope=Envelope(None, "ann@example.org"))
        settlement = AttemptRecord(
            message.id, 50.0, (recipient_row(0, FAILED),), reports=((report, b"a report"),)
        )
        assert await queue.settle(settlement) is None
        await observer.notified(1)
        assert [("arrived", report.id, False, None)] == observer.events
        await home.kill()
        queue, _ = await home.open()
        assert [report.id] == await ids(queue)
        assert await content_of(queue, report.id) == b"a report"
        await queue.close()

    @ensureDeferred
    async def test_a_message_that_is_set_aside_is_kept_and_not_leased(self, queue: Queue) -> None:
        message = await on_its_way(queue)
        left = await queue.settle(undeliverable(message.id))
        assert left is not None
        assert (left.aside, left.queue_name) == (SetAsideReason.UNDELIVERABLE, "undeliverable")
        assert (await leased(queue), await queue.next_due()) == ([], {})
        for action in (
            QueueAction.FLUSH,
            QueueAction.HOLD,
            QueueAction.RELEASE,
            QueueAction.EXPIRE,
        ):
            assert await queue.act(action, ALL, 0.0) == []
        assert [QueueActionResult(message.id)] == await queue.act(QueueAction.REQUEUE, ALL, 0.0)
        (taken,) = await leased(queue)
        assert [r.state for r in taken.message.recipients] == [PENDING]
        assert taken.message.aside is None
