"""Conformance: adding messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred

from tests.names import INLINE_SIZE, QueueAction, QueueError, RecoveryReport, Selection, id_number
from tests.queue.conformance_base import (
    ALL,
    Home,
    delivered,
    ids,
    leased,
)
from tests.queue.messages import Observer, content_of, info_of, take_in
from twisted_sendmail import Envelope, Recipient

if TYPE_CHECKING:
    from tests.names import Queue


class TakingIn:
    """Intakes, and the observer who is told of them."""

    @ensureDeferred
    async def test_a_message_that_was_committed_is_still_there_after_a_crash(
        self, home: Home
    ) -> None:
        spool, _ = await home.open()
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
            spool,
            envelope=envelope,
            origin="SMTP from [192.0.2.1]",
            smtputf8=True,
            eight_bit=True,
            binary=True,
            message_id="<1@example.org>",
            automatic=True,
        )
        first = await take_in(spool, b"Subject: 1\r\n\r\nHello\r\n", info)
        await home.kill()
        spool, recovered = await home.open()
        (found,) = await spool.list(ALL)
        assert RecoveryReport(1, ()) == recovered
        assert (info, first) == (found.info, found)
        assert await content_of(spool, found.id) == b"Subject: 1\r\n\r\nHello\r\n"
        await spool.close()

    @pytest.mark.parametrize(
        "size", [0, 1, INLINE_SIZE, INLINE_SIZE + 1, 300_000, 1_048_576, 1_048_577]
    )
    @ensureDeferred
    async def test_a_content_of_any_size_comes_out_as_it_went_in(
        self, spool: Queue, size: int
    ) -> None:
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        for step in (size + 1, 65_536, 10_007):
            message = await take_in(spool, data, step=step)
            assert size == message.size
            assert data == await content_of(spool, message.id)
        held = [taken.content for taken in await leased(spool)]
        assert [data if size <= INLINE_SIZE else None] * 3 == held

    @ensureDeferred
    async def test_what_was_aborted_or_never_committed_is_not_there(self, home: Home) -> None:
        spool, _ = await home.open()
        for size in (100, INLINE_SIZE * 10):
            aborted, forgotten = spool.intake(), spool.intake()
            for intake in (aborted, forgotten):
                waiting = intake.write(bytes(size))
                if waiting is not None:
                    await waiting
            aborted.abort()
            with pytest.raises(QueueError):
                await aborted.commit(info_of(spool))
        await home.kill()
        spool, recovered = await home.open()
        assert (RecoveryReport(0, ()), []) == (recovered, await ids(spool))
        await spool.close()

    @ensureDeferred
    async def test_names_rise_and_one_name_is_never_two_messages(self, spool: Queue) -> None:
        names = [spool.new_id() for _ in range(100)]
        assert sorted(set(names)) == names
        assert all(id_number(name) is not None for name in names)
        info = info_of(spool)
        await take_in(spool, b"first", info)
        with pytest.raises(QueueError):
            await take_in(spool, b"second", info)
        assert await content_of(spool, info.id) == b"first"

    @ensureDeferred
    async def test_a_file_is_taken_once_also_after_its_message_left(self, home: Home) -> None:
        spool, _ = await home.open()
        first = await take_in(spool, b"first", info_of(spool, file_key="1000:7:name"))
        with pytest.raises(QueueError):
            await take_in(spool, b"again", info_of(spool, file_key="1000:7:name"))
        await take_in(spool, b"other", info_of(spool, file_key="1000:8:name"))
        assert await ids(spool) == [first.id, (await spool.list(ALL))[1].id]
        _ = await spool.act(QueueAction.DELETE, Selection(ids=(first.id,)), 0.0)
        await home.kill()
        spool, _ = await home.open()
        assert sorted(await spool.taken_files()) == ["1000:7:name", "1000:8:name"]
        with pytest.raises(QueueError):
            await take_in(spool, b"again", info_of(spool, file_key="1000:7:name"))
        await spool.forget_files(["1000:7:name", "absent"])
        assert list(await spool.taken_files()) == ["1000:8:name"]
        await take_in(spool, b"another file", info_of(spool, file_key="1000:7:name"))
        await spool.close()

    @ensureDeferred
    async def test_the_content_of_a_message_that_is_not_there_is_trouble(
        self, spool: Queue
    ) -> None:
        with pytest.raises(QueueError, match="is not in the queue"):
            await content_of(spool, spool.new_id())

    @ensureDeferred
    async def test_a_closed_spool_says_so(self, home: Home) -> None:
        spool, _ = await home.open()
        intake = spool.intake()
        await spool.close()
        with pytest.raises(QueueError, match="not open"):
            await intake.commit(info_of(spool))
        with pytest.raises(QueueError, match="not open"):
            await leased(spool)

    @ensureDeferred
    async def test_a_claimed_message_comes_in_leased_and_goes_out_without_a_search(
        self, spool: Queue
    ) -> None:
        spool.observer = observer = Observer(claims=True)
        small = await take_in(spool, b"small")
        await observer.heard(2)
        large = await take_in(spool, bytes(INLINE_SIZE + 1))
        await observer.heard(4)
        expected = [
            ("claim", small.id),
            ("arrived", small.id, True, b"small"),
            ("claim", large.id),
            ("arrived", large.id, True, None),
        ]
        assert observer.events == expected
        assert small.leased
        assert await leased(spool) == []
        assert await spool.settle(delivered(small.id)) is None
        assert [large.id] == await ids(spool)

    @ensureDeferred
    async def test_an_unclaimed_message_waits_for_its_lease(self, spool: Queue) -> None:
        spool.observer = observer = Observer(claims=False)
        message = await take_in(spool, b"x")
        await observer.heard(2)
        assert [("claim", message.id), ("arrived", message.id, False, None)] == observer.events
        assert [message.id] == [taken.message.id for taken in await leased(spool)]

    @ensureDeferred
    async def test_a_claimed_message_that_did_not_come_in_is_unclaimed(self, spool: Queue) -> None:
        info = info_of(spool)
        spool.observer = observer = Observer(claims=True)
        await take_in(spool, b"x", info)
        await observer.heard(2)
        with pytest.raises(QueueError):
            await take_in(spool, b"x", info)
        await observer.heard(4)
        assert [("claim", info.id), ("unclaimed", info.id)] == observer.events[2:]

    @ensureDeferred
    async def test_a_held_message_is_not_offered_to_the_observer_for_a_try(
        self, spool: Queue
    ) -> None:
        spool.observer = observer = Observer(claims=True)
        message = await take_in(spool, b"x", info_of(spool, held=True))
        await observer.heard(1)
        assert [("arrived", message.id, False, None)] == observer.events
        assert (await leased(spool), await spool.next_due()) == ([], {})
