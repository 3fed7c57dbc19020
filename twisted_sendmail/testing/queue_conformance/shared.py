"""Conformance: a queue that several relays have open."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail.queue import AttemptRecord, LeaseLost
from twisted_sendmail.testing.queue_conformance.base import (
    ALL,
    DELIVERED,
    PENDING,
    QueueHome,
    ids,
    leased,
    one,
)
from twisted_sendmail.testing.queue_conformance.messages import (
    add_message,
    content_of,
    info_of,
    recipient_row,
)

if TYPE_CHECKING:
    from twisted_sendmail.queue import Queue


class SharedQueueHome(QueueHome):
    """Place of a queue that several relays share."""

    @abstractmethod
    async def open_another(self) -> Queue:
        """Open the queue once more, for another relay."""

    @abstractmethod
    async def end_leases(self, queue: Queue, finder: Queue) -> None:
        """Let the leases of *queue* run out, and return when *finder* has taken its messages over."""


class SharedQueueConformance:
    """The promises of a ``Queue`` that several relays share, each as a test.

    A subclass defines the fixture ``home``, with a :class:`SharedQueueHome` that is empty for each test.
    """

    @ensureDeferred
    async def test_two_relays_lease_different_messages(self, home: SharedQueueHome) -> None:
        first, _ = await home.open()
        second = await home.open_another()
        names = [(await add_message(first, b"x")).id for _ in range(4)]
        taken = [await leased(queue, fresh=2) for queue in (second, first)]
        assert [each.message.id for each in taken[0]] == names[:2]
        assert [each.message.id for each in taken[1]] == names[2:]
        assert [await leased(queue) for queue in (first, second)] == [[], []]
        for queue in (first, second):
            await queue.close()

    @ensureDeferred
    async def test_leases_of_other_relays_outlive_the_start_and_the_end_of_one(
        self, home: SharedQueueHome
    ) -> None:
        first, _ = await home.open()
        message = await add_message(first, b"x")
        (taken,) = await leased(first)
        second = await home.open_another()
        assert await leased(second) == []
        await second.close()
        assert (await one(first, message.id)).leased
        record = AttemptRecord(message.id, 50.0, (recipient_row(0, DELIVERED),), lease=taken.lease)
        assert await first.settle(record) is None
        await first.close()

    @ensureDeferred
    async def test_one_relay_delivers_what_another_has_accepted(
        self, home: SharedQueueHome
    ) -> None:
        first, _ = await home.open()
        second = await home.open_another()
        data = bytes(range(256)) * 2000
        message = await add_message(first, data)
        (taken,) = await leased(second)
        assert await content_of(second, taken.message.id) == data
        record = AttemptRecord(message.id, 50.0, (recipient_row(0, DELIVERED),), lease=taken.lease)
        assert await second.settle(record) is None
        assert await ids(first) == []
        for queue in (first, second):
            await queue.close()

    @ensureDeferred
    async def test_relays_make_different_ids(self, home: SharedQueueHome) -> None:
        first, _ = await home.open()
        second = await home.open_another()
        made = [queue.new_id() for _ in range(200) for queue in (first, second)]
        assert len(set(made)) == 400
        for queue in (first, second):
            await queue.close()

    @ensureDeferred
    async def test_what_is_recorded_for_a_lease_that_ended_changes_nothing(
        self, home: SharedQueueHome
    ) -> None:
        first, _ = await home.open()
        second = await home.open_another()
        names = [(await add_message(first, b"x", info_of(first))).id for _ in range(2)]
        old = await leased(first)
        await home.end_leases(first, second)
        assert [message.interrupted for message in await second.list(ALL)] == [1, 1]
        new = await leased(second)
        assert [each.message.id for each in new] == names
        for before, after in zip(old, new, strict=True):
            assert after.lease.fence > before.lease.fence
            for state in (DELIVERED, PENDING):
                late = AttemptRecord(
                    before.message.id, 50.0, (recipient_row(0, state),), lease=before.lease
                )
                with pytest.raises(LeaseLost):
                    await first.settle(late)
        await first.release(old)
        found = [(m.id, m.leased, m.attempts) for m in await second.list(ALL)]
        assert found == [(name, True, 0) for name in names]
        for each in new:
            record = AttemptRecord(
                each.message.id, 60.0, (recipient_row(0, DELIVERED),), lease=each.lease
            )
            assert await second.settle(record) is None
        # The relay that lost its leases goes on.
        await add_message(first, b"y")
        assert len(await leased(first)) == 1
        for queue in (first, second):
            await queue.close()
