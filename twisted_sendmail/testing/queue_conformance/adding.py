"""Conformance: adding messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail.queue import (
    INLINE_SIZE,
    QueueAction,
    QueueError,
    RecoveryReport,
    Selection,
    id_number,
)
from twisted_sendmail.smtp import Envelope, Recipient
from twisted_sendmail.testing.queue_conformance.base import (
    ALL,
    QueueHome,
    delivered,
    ids,
    leased,
)
from twisted_sendmail.testing.queue_conformance.messages import (
    Observer,
    add_message,
    content_of,
    info_of,
)

if TYPE_CHECKING:
    from twisted_sendmail.queue import Queue


class ConformanceOfAdding:
    """Intakes, and the notifications of the observer."""

    @ensureDeferred
    async def test_an_open_queue_has_space_for_a_message_that_can_wait(
        self, home: QueueHome
    ) -> None:
        queue, _ = await home.open()
        await queue.check_space(1000)
        await queue.close()
        with pytest.raises(QueueError):
            await queue.check_space(1000)

    @ensureDeferred
    async def test_a_message_that_was_committed_is_still_there_after_a_crash(
        self, home: QueueHome
    ) -> None:
        queue, _ = await home.open()
        envelope = Envelope(
            "Ann@exämple.org",
            [
                Recipient("bob@example.net", ["SUCCESS", "DELAY"], "rfc822;b@example.net"),
                Recipient('"a b"@example.com', "NEVER"),
                "postmaster",
                "jürgen@example.net",
            ],
            ret="HDRS",
            envid="x y",
            require_tls=True,
        )
        info = info_of(
            queue,
            envelope=envelope,
            origin="SMTP from [192.0.2.1]",
            smtputf8=True,
            eight_bit=True,
            binary=True,
            message_id="<1@example.org>",
            automatic=True,
        )
        first = await add_message(queue, b"Subject: 1\r\n\r\nHello\r\n", info)
        await home.kill()
        queue, recovered = await home.open()
        (found,) = await queue.list(ALL)
        assert RecoveryReport(1, ()) == recovered
        assert (info, first) == (found.info, found)
        assert await content_of(queue, found.id) == b"Subject: 1\r\n\r\nHello\r\n"
        await queue.close()

    @pytest.mark.parametrize(
        "size", [0, 1, INLINE_SIZE, INLINE_SIZE + 1, 300_000, 1_048_576, 1_048_577]
    )
    @ensureDeferred
    async def test_content_of_any_size_is_read_as_it_was_written(
        self, queue: Queue, size: int
    ) -> None:
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        for step in (size + 1, 65_536, 10_007):
            message = await add_message(queue, data, step=step)
            assert size == message.size
            assert data == await content_of(queue, message.id)
        held = [taken.content for taken in await leased(queue)]
        assert [data if size <= INLINE_SIZE else None] * 3 == held

    @ensureDeferred
    async def test_a_message_that_was_aborted_or_never_committed_is_absent(
        self, home: QueueHome
    ) -> None:
        queue, _ = await home.open()
        for size in (100, INLINE_SIZE * 10):
            aborted, forgotten = queue.intake(), queue.intake()
            for intake in (aborted, forgotten):
                waiting = intake.write(bytes(size))
                if waiting is not None:
                    await waiting
            aborted.abort()
            with pytest.raises(QueueError):
                await aborted.commit(info_of(queue))
        await home.kill()
        queue, recovered = await home.open()
        assert (RecoveryReport(0, ()), []) == (recovered, await ids(queue))
        await queue.close()

    @ensureDeferred
    async def test_ids_rise_and_no_id_names_two_messages(self, queue: Queue) -> None:
        names = [queue.new_id() for _ in range(100)]
        assert sorted(set(names)) == names
        assert all(id_number(name) is not None for name in names)
        info = info_of(queue)
        await add_message(queue, b"first", info)
        with pytest.raises(QueueError):
            await add_message(queue, b"second", info)
        assert await content_of(queue, info.id) == b"first"

    @ensureDeferred
    async def test_a_file_is_taken_once_also_after_its_message_left(self, home: QueueHome) -> None:
        queue, _ = await home.open()
        first = await add_message(queue, b"first", info_of(queue, file_key="1000:7:name"))
        with pytest.raises(QueueError):
            await add_message(queue, b"again", info_of(queue, file_key="1000:7:name"))
        await add_message(queue, b"other", info_of(queue, file_key="1000:8:name"))
        assert await ids(queue) == [first.id, (await queue.list(ALL))[1].id]
        _ = await queue.act(QueueAction.DELETE, Selection(ids=(first.id,)), 0.0)
        await home.kill()
        queue, _ = await home.open()
        assert sorted(await queue.taken_files()) == ["1000:7:name", "1000:8:name"]
        with pytest.raises(QueueError):
            await add_message(queue, b"again", info_of(queue, file_key="1000:7:name"))
        await queue.forget_files(["1000:7:name", "absent"])
        assert list(await queue.taken_files()) == ["1000:8:name"]
        await add_message(queue, b"another file", info_of(queue, file_key="1000:7:name"))
        await queue.close()

    @ensureDeferred
    async def test_reading_the_content_of_an_absent_message_fails(self, queue: Queue) -> None:
        with pytest.raises(QueueError, match="is not in the queue"):
            await content_of(queue, queue.new_id())

    @ensureDeferred
    async def test_operations_on_a_closed_queue_fail(self, home: QueueHome) -> None:
        queue, _ = await home.open()
        intake = queue.intake()
        await queue.close()
        with pytest.raises(QueueError, match="not open"):
            await intake.commit(info_of(queue))
        with pytest.raises(QueueError, match="not open"):
            await leased(queue)

    @ensureDeferred
    async def test_a_claimed_message_is_inserted_leased(self, queue: Queue) -> None:
        queue.observer = observer = Observer(claims=True)
        small = await add_message(queue, b"small")
        await observer.notified(2)
        large = await add_message(queue, bytes(INLINE_SIZE + 1))
        await observer.notified(4)
        expected = [
            ("claim", small.id),
            ("arrived", small.id, True, b"small"),
            ("claim", large.id),
            ("arrived", large.id, True, None),
        ]
        assert observer.events == expected
        assert small.leased
        assert await leased(queue) == []
        assert await queue.settle(delivered(small.id)) is None
        assert [large.id] == await ids(queue)

    @ensureDeferred
    async def test_an_unclaimed_message_waits_for_its_lease(self, queue: Queue) -> None:
        queue.observer = observer = Observer(claims=False)
        message = await add_message(queue, b"x")
        await observer.notified(2)
        assert [("claim", message.id), ("arrived", message.id, False, None)] == observer.events
        assert [message.id] == [taken.message.id for taken in await leased(queue)]

    @ensureDeferred
    async def test_the_claim_on_a_message_whose_commit_failed_is_released(
        self, queue: Queue
    ) -> None:
        info = info_of(queue)
        queue.observer = observer = Observer(claims=True)
        await add_message(queue, b"x", info)
        await observer.notified(2)
        with pytest.raises(QueueError):
            await add_message(queue, b"x", info)
        await observer.notified(4)
        assert [("claim", info.id), ("unclaimed", info.id)] == observer.events[2:]

    @ensureDeferred
    async def test_a_held_message_is_not_offered_for_a_claim(self, queue: Queue) -> None:
        queue.observer = observer = Observer(claims=True)
        message = await add_message(queue, b"x", info_of(queue, held=True))
        await observer.notified(1)
        assert [("arrived", message.id, False, None)] == observer.events
        assert (await leased(queue), await queue.next_due()) == ([], {})
