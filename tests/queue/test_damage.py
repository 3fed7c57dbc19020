"""Changes on the disk are detected: the file is refused, or the message set aside, never sent."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import implementer

from tests.names import (
    AttemptRecord,
    MessageDamaged,
    QueueAction,
    QueueActionResult,
    QueueError,
    QueueUnusable,
    RecipientState,
    Selection,
    SetAsideReason,
    SQLiteQueue,
    id_number,
)
from tests.queue.messages import content_of, info_of, take_in
from tests.rows import recipient_row

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from twisted.logger import LogEvent

    from tests.names import MessageInfo

ALL = Selection()
LEASE: dict[str, Any] = {"fresh": 100, "retries": 100, "horizon": 1e9}


def result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Of one that never waits."""
    results: list[Any] = []
    _ = Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (result,) = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


class Original:
    """A queue as it was written, and what is in it."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.contents: dict[str, bytes] = {}
        self.infos: dict[str, MessageInfo] = {}
        result_of(self._write())
        self.octets = (self.place / "queue.sqlite3").read_bytes()

    async def _write(self) -> None:
        spool = SQLiteQueue(Clock(), self.place)
        await spool.open()
        chance = random.Random(1)
        for size in (10, 900, 5_000, 30_000, 70_000):
            to = [f"user{n}@example.net" for n in range(chance.choice([1, 3]))]
            info = info_of(spool, to=to, message_id=f"<{size}@example.org>")
            data = chance.randbytes(size)
            self.infos[info.id], self.contents[info.id] = info, data
            await take_in(spool, data, info)
        # One was tried, one recipient of it has it already.
        await spool.lease("out", 20.0, **{**LEASE, "fresh": 2})
        for id_ in list(self.infos)[:2]:
            change = recipient_row(0, RecipientState.PENDING, 40.0, "450 later", "4.2.0", "mx")
            await spool.settle(AttemptRecord(id_, 30.0, (change,)))
        await spool.close()

    async def look_at(self, octets: bytes) -> str:
        """Take everything out of a queue of these *octets*; says how it was."""
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(self.place, place, dirs_exist_ok=True)
            (Path(place) / "queue.sqlite3").write_bytes(octets)
            spool = SQLiteQueue(Clock(), place)
            refusal = None
            try:
                await spool.open()
            except QueueUnusable as e:
                refusal = str(e)
            if refusal is not None:
                assert all(refusal.partition("; "))
                assert refusal.isprintable()
                return "refused"
            try:
                return await self._look_at(spool)
            finally:
                await spool.close()

    async def _look_at(self, spool: SQLiteQueue) -> str:
        listed = {m.id: m for m in await spool.list(ALL)}
        taken: list[str] = []
        for route in await spool.next_due():
            for leased in await spool.lease(route, 1e8, **LEASE):
                id_ = leased.message.id
                info = leased.message.info
                try:
                    content = leased.content or await content_of(spool, id_)
                except MessageDamaged:
                    continue
                # The one thing that must never be: another message than was written.
                expected = self.infos[id_]
                assert (expected.envelope, expected.arrived) == (info.envelope, info.arrived)
                assert (expected.origin, expected.message_id) == (info.origin, info.message_id)
                assert self.contents[id_] == content
                assert all(r.state is RecipientState.PENDING for r in leased.message.recipients)
                taken.append(id_)
        left = {m.id: m for m in await spool.list(ALL)}
        aside = {i for i, m in left.items() if m.aside is not None}
        held = {i for i, m in left.items() if m.held}
        assert set(listed) == set(left)
        # None has vanished: it goes out, is held, or is shown as damaged.  (A damaged id is another id.)
        assert len(self.infos) == len({*taken, *aside, *held})
        return "set aside" if aside else "intact"


@pytest.fixture(scope="module")
def original() -> Iterator[Original]:
    original = Original()
    yield original
    shutil.rmtree(original.place)


def flipped(octets: bytes, position: int, value: int) -> bytes:
    changed = bytearray(octets)
    changed[position % len(octets)] ^= value
    return bytes(changed)


def test_what_was_not_changed_is_intact(original: Original) -> None:
    assert result_of(original.look_at(original.octets)) == "intact"


@settings(max_examples=150)
@given(st.integers(0, 10**9), st.integers(1, 255))
@example(24, 1)
@example(100, 255)
def test_any_octet_of_the_file_may_change(original: Original, position: int, value: int) -> None:
    found = result_of(original.look_at(flipped(original.octets, position, value)))
    assert found in {"refused", "set aside", "intact"}


def test_every_octet_of_a_page_of_messages_may_change(original: Original) -> None:
    """One bit of each octet that says who gets what: none of them changes what is sent."""
    at = original.octets.index(b"user0@example.net") // 4096 * 4096
    kinds = {"refused": 0, "set aside": 0, "intact": 0}
    for position in range(at + 3000, at + 4096, 9):
        kinds[result_of(original.look_at(flipped(original.octets, position, 1)))] += 1
    assert kinds["set aside"] > 20


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(original: Original, part: float) -> None:
    kept = original.octets[: int(len(original.octets) * part) // 100 * 100]
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(original.place, place, dirs_exist_ok=True)
        (Path(place) / "queue.sqlite3").write_bytes(kept)
        opened: list[Any] = []
        spool = SQLiteQueue(Clock(), place)
        _ = spool.open().addBoth(opened.append)
        if kept:
            assert isinstance(opened[0].value, QueueUnusable)
            assert "restore a backup, or move the file away and keep it" in str(opened[0].value)
        else:
            # Nothing at all is a queue that is to be made.
            assert opened[0].messages == 0
            _ = spool.close()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    noted: list[str] = []

    @implementer(ILogObserver)
    def note(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn:
            noted.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(note)
    yield noted
    globalLogPublisher.removeObserver(note)


def change(place: Path, sql: str, *parameters: object) -> None:
    with closing(sqlite3.connect(place / "queue.sqlite3")) as connection:
        connection.execute(sql, parameters)
        connection.commit()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE message SET sender = 'eve@example.org' WHERE number = ?",
        "UPDATE message SET parameters = '{' WHERE number = ?",
        "UPDATE message SET sender = x'ff' WHERE number = ?",
        "UPDATE message SET sender = CAST(x'ff40ff' AS TEXT) WHERE number = ?",
        "UPDATE message SET doomed = 'Doomed' WHERE number = ?",
        "UPDATE recipient SET address = 'eve@example.net' WHERE message = ?",
        "UPDATE recipient SET state = 'pendin' WHERE message = ?",
        "UPDATE recipient SET orcpt = '' WHERE message = ?",
        "UPDATE recipient SET number = number + 1 WHERE message = ?",
        "DELETE FROM recipient WHERE message = ?",
        "UPDATE content SET data = x'00' WHERE message = ?",
        "UPDATE content SET data = 'text' WHERE message = ?",
        "DELETE FROM content WHERE message = ?",
        "UPDATE message SET size = size + 1 WHERE number = ?",
    ],
)
@ensureDeferred
async def test_a_damaged_message_is_set_aside_and_holds_up_nobody(
    tmp_path: Path, warnings: list[str], sql: str
) -> None:
    spool = SQLiteQueue(Clock(), tmp_path)
    await spool.open()
    bad, good = await take_in(spool, b"bad"), await take_in(spool, b"good")
    change(tmp_path, sql, id_number(bad.id))
    taken = [t.message.id for _ in range(2) for t in await spool.lease("out", 1e8, **LEASE)]
    assert [good.id] == taken
    assert warnings == [f"message {bad.id} is damaged and set aside: it is not tried"]
    shown = {m.id: m for m in await spool.list(ALL)}
    assert shown[bad.id].aside is SetAsideReason.DAMAGED
    assert shown[bad.id].queue_name == "corrupt"
    selection = Selection(ids=(bad.id,))
    assert await spool.act(QueueAction.REQUEUE, selection, 0.0) == []
    assert [QueueActionResult(bad.id)] == await spool.act(QueueAction.DELETE, selection, 0.0)
    await spool.close()


@ensureDeferred
async def test_a_damaged_piece_is_noticed_before_it_is_given(
    tmp_path: Path, warnings: list[str]
) -> None:
    spool = SQLiteQueue(Clock(), tmp_path)
    await spool.open()
    message = await take_in(spool, bytes(600_000))
    (leased,) = await spool.lease("out", 1e8, **LEASE)
    change(tmp_path, "UPDATE piece SET data = zeroblob(262143) || x'01' WHERE place = ?", 1)
    pieces = spool.content(leased.message.id)
    assert bytes(262_144) == await anext(pieces)
    with pytest.raises(MessageDamaged, match=f"message {message.id} is damaged"):
        await anext(pieces)
    assert warnings == [f"message {message.id} is damaged and set aside: it is not tried"]
    assert [m.aside for m in await spool.list(ALL)] == [SetAsideReason.DAMAGED]
    await spool.close()


@ensureDeferred
async def test_a_message_that_was_damaged_during_its_try_is_set_aside_when_it_is_settled(
    tmp_path: Path,
) -> None:
    spool = SQLiteQueue(Clock(), tmp_path)
    await spool.open()
    await take_in(spool, b"x")
    (leased,) = await spool.lease("out", 1e8, **LEASE)
    change(tmp_path, "UPDATE recipient SET address = 'eve@example.net'")
    later = AttemptRecord(
        leased.message.id, 50.0, (recipient_row(0, RecipientState.PENDING, 90.0),)
    )
    assert await spool.settle(later) is None
    assert [m.aside for m in await spool.list(ALL)] == [SetAsideReason.DAMAGED]
    await spool.close()


@ensureDeferred
async def test_a_piece_that_is_missing_at_the_commit_is_trouble(tmp_path: Path) -> None:
    spool = SQLiteQueue(Clock(), tmp_path)
    await spool.open()
    intake = spool.intake()
    for _ in range(3):
        intake.write(bytes(262_144))
    change(tmp_path, "DELETE FROM piece WHERE place = 1")
    with pytest.raises(QueueError, match="lost a part"):
        await intake.commit(info_of(spool))
    assert await spool.list(ALL) == []
    await spool.close()
