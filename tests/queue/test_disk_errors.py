"""A disk that is full or fails: mail is refused, and delivered mail is not sent again."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.names import (
    AttemptRecord,
    QueueError,
    QueueFull,
    RecipientState,
    Selection,
    SQLiteQueue,
)
from tests.queue.failing_store import Choke, choked
from tests.queue.messages import Observer, content_of, info_of, take_in
from tests.rows import recipient_row
from twisted_sendmail.queue.sqlite.free_space import FreeSpace
from twisted_sendmail.queue.stored_queue import FIRST_DELAY, MAX_DELAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


FULL, EIO = "database or disk is full", "disk I/O error"
LEASE: dict[str, Any] = {"fresh": 100, "retries": 100, "horizon": 1e9}
ALL = Selection()


@contextmanager
def failing(error: str, *, at: int = 1, on: str = "") -> Iterator[Choke]:
    """From the call number *at* on, every statement that begins with *on* fails."""

    def fail(number: int, sql: str) -> None:
        if number >= at and sql.startswith(on) and sql != "ROLLBACK":
            raise sqlite3.OperationalError(error)

    with choked(Choke(before=fail)) as choke:
        yield choke


def delivered(id_: str) -> AttemptRecord:
    return AttemptRecord(id_, 50.0, (recipient_row(0, RecipientState.DELIVERED),))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(clock: Clock, tmp_path: Path) -> Iterator[SQLiteQueue]:
    spool = SQLiteQueue(clock, tmp_path / "queue", least_free=0)
    _ = spool.open()
    yield spool
    _ = spool.close()


@pytest.mark.parametrize(("error", "kind"), [(FULL, QueueFull), (EIO, QueueError)])
@pytest.mark.parametrize("size", [100, 600_000])
@ensureDeferred
async def test_mail_is_refused_wherever_the_disk_fails_and_taken_when_it_is_well(
    spool: SQLiteQueue, error: str, kind: type[QueueError], size: int
) -> None:
    """At the n-th call of the store, n = 1, 2, … until one goes through."""
    spool.observer = observer = Observer(claims=True)
    at, failures, calls = 0, 0, 0
    while calls >= at:
        at += 1
        with failing(error, at=at) as choke:
            try:
                await take_in(spool, bytes(size))
            except QueueError as e:
                failures += isinstance(e, kind)
            calls = choke.calls
    # Each but the last one was refused, and left nothing in the queue.
    assert at - 1 == failures
    assert len(await spool.list(ALL)) == 1
    told = [event[0] for event in observer.events]
    assert told.count("claim") == told.count("unclaimed") + 1
    message = await take_in(spool, b"again")
    assert await content_of(spool, message.id) == b"again"


@pytest.mark.parametrize("error", [FULL, EIO])
@ensureDeferred
async def test_what_went_out_is_not_leased_again_while_it_cannot_be_recorded(
    clock: Clock, spool: SQLiteQueue, error: str
) -> None:
    first, second = await take_in(spool, b"1"), await take_in(spool, b"2")
    await spool.lease("out", 20.0, **LEASE)
    with failing(error, on="DELETE"):
        settled = [spool.settle(delivered(message.id)) for message in (first, second)]
        for _ in range(10):
            clock.advance(MAX_DELAY)
            assert [deferred.called for deferred in settled] == [False, False]
            assert await spool.lease("out", 1e8, **LEASE) == []
            # New mail is not concerned.
    third = await take_in(spool, b"3")
    clock.advance(MAX_DELAY)
    assert [await deferred for deferred in settled] == [None, None]
    assert [third.id] == [message.id for message in await spool.list(ALL)]


@ensureDeferred
async def test_a_record_that_can_be_written_again_is_written_soon(
    clock: Clock, spool: SQLiteQueue
) -> None:
    message = await take_in(spool, b"1")
    leased = await spool.lease("out", 20.0, **LEASE)
    with failing(EIO):
        settled = spool.settle(delivered(message.id))
        released = spool.release(leased)
    assert (settled.called, released.called) == (False, False)
    clock.advance(FIRST_DELAY)
    assert (settled.called, released.called) == (True, True)
    assert await settled is None


@ensureDeferred
async def test_what_cannot_be_recorded_before_the_end_counts_as_a_try_nobody_saw_the_end_of(
    clock: Clock, tmp_path: Path
) -> None:
    spool = SQLiteQueue(clock, tmp_path)
    await spool.open()
    out, idle = await take_in(spool, b"1"), await take_in(spool, b"2")
    await spool.lease("out", 20.0, **LEASE)
    with failing(FULL, on="DELETE"):
        settled = spool.settle(delivered(out.id))
        closed = spool.close()
        with pytest.raises(QueueError, match="could not be recorded: the queue was closed"):
            await settled
        await closed
    assert clock.getDelayedCalls() == []
    spool = SQLiteQueue(clock, tmp_path)
    recovered = await spool.open()
    assert (2, (out.id,)) == (recovered.messages, recovered.interrupted)
    found = [(m.id, m.interrupted) for m in await spool.list(ALL)]
    assert [(out.id, 1), (idle.id, 0)] == found
    await spool.close()


@ensureDeferred
async def test_the_end_tries_once_more_to_record_what_it_has(clock: Clock, tmp_path: Path) -> None:
    spool = SQLiteQueue(clock, tmp_path)
    await spool.open()
    message = await take_in(spool, b"1")
    await spool.lease("out", 20.0, **LEASE)
    with failing(EIO):
        settled = spool.settle(delivered(message.id))
    await spool.close()
    assert await settled is None
    spool = SQLiteQueue(clock, tmp_path)
    recovered = await spool.open()
    assert (recovered.messages, recovered.interrupted) == (0, ())
    await spool.close()


@ensureDeferred
async def test_a_record_that_no_disk_would_take_is_not_tried_for_ever(
    clock: Clock, spool: SQLiteQueue
) -> None:
    """A report with the id of a message that is there: an error of the caller's."""
    message, other = await take_in(spool, b"1"), await take_in(spool, b"2")
    await spool.lease("out", 20.0, **LEASE)
    twice = AttemptRecord(
        message.id,
        50.0,
        (recipient_row(0, RecipientState.FAILED),),
        reports=((info_of(spool), b"good"), (info_of(spool, id_=other.id), b"bad")),
    )
    with pytest.raises(QueueError, match="cannot be queued"):
        await spool.settle(twice)
    # All of it, or nothing: the first report is not there, and the failure is not recorded.
    assert [m.recipients[0].state for m in await spool.list(ALL)] == [RecipientState.PENDING] * 2
    assert [message.id, other.id] == [m.id for m in await spool.list(ALL)]


@ensureDeferred
async def test_a_connection_that_cannot_take_back_is_replaced(spool: SQLiteQueue) -> None:
    def fail(_: int, sql: str) -> None:
        if sql in {"COMMIT", "ROLLBACK"}:
            raise sqlite3.OperationalError(EIO)

    before = spool._store.connection
    with choked(Choke(before=fail)), pytest.raises(QueueError):
        await take_in(spool, b"1")
    message = await take_in(spool, b"2")
    assert before is not spool._store.connection
    assert [message.id] == [m.id for m in await spool.list(ALL)]


def test_free_space_is_read_once_a_second_while_there_is_much(tmp_path: Path) -> None:
    seconds, looks = [0.0], []
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize

    def now() -> float:
        looks.append(seconds[0])
        return seconds[0]

    space = FreeSpace(tmp_path, 1024, monotonic=now)
    for second in (0.0, 0.5, 2.0):
        seconds[0] = second
        space.reserve(100)
    assert looks == [0.0, 0.5, 2.0]
    with pytest.raises(
        QueueFull, match="too little free space: less than 0 MiB would be left free"
    ):
        FreeSpace(tmp_path, 1024).reserve(free + 10**9)
    with pytest.raises(QueueFull):
        FreeSpace(tmp_path, free + 10**9).reserve(1)
    FreeSpace(tmp_path, 0).reserve(free + 10**9)
    # What the database does not use counts; but not all may hang on it.
    FreeSpace(tmp_path, free + 10**9, lambda: 3 * 10**9).reserve(1)
    with pytest.raises(QueueFull):
        FreeSpace(tmp_path, 3 * free, lambda: 9 * free).reserve(1)


def test_mail_that_can_wait_leaves_space_for_other_mail(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    least = free * 2 // 3
    FreeSpace(tmp_path, least).reserve(1)
    with pytest.raises(QueueFull, match="MiB are left for mail that comes by SMTP"):
        FreeSpace(tmp_path, least).check(1)
    # Unused pages of the database count as free space in both.
    FreeSpace(tmp_path, least, lambda: free).check(1)
    FreeSpace(tmp_path, 0).check(2 * free)


@ensureDeferred
async def test_mail_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    spool = SQLiteQueue(Clock(), tmp_path / "queue", least_free=2 * free)
    await spool.open()
    spool.observer = observer = Observer(claims=True)
    for size in (10, 600_000):
        with pytest.raises(QueueFull, match="free space on the file system of the queue"):
            await take_in(spool, bytes(size))
    assert [event[0] for event in observer.events] == ["claim", "unclaimed"]
    await spool.close()


def test_an_error_of_the_file_system_shows_whether_the_disk_is_full(tmp_path: Path) -> None:
    from twisted_sendmail.queue.sqlite.connection import queue_error

    full = queue_error(OSError(errno.ENOSPC, "No space left on device"), "be read")
    other = queue_error(OSError(errno.EIO, "Input/output error"), "be read")
    assert (QueueFull, QueueError) == (type(full), type(other))
    assert (full.transient, other.transient) == (True, True)
    assert not queue_error(ValueError("oh"), "be read").transient
    assert full is queue_error(full, "be read")


@ensureDeferred
async def test_a_file_that_may_not_grow_refuses_and_goes_on(tmp_path: Path) -> None:
    """A real limit of the system, on a thread: RLIMIT_FSIZE."""
    from twisted.internet import reactor

    spool = SQLiteQueue(reactor, tmp_path / "queue")
    await spool.open()
    kept = await take_in(spool, b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        for _ in range(3):
            with pytest.raises(QueueError):
                await take_in(spool, bytes(400_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    large = await take_in(spool, bytes(400_000))
    assert [kept.id, large.id] == [message.id for message in await spool.list(ALL)]
    assert bytes(400_000) == await content_of(spool, large.id)
    await spool.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "none", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all the space there is."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@ensureDeferred
async def test_a_full_disk_refuses_until_there_is_space_and_sends_nothing_twice(
    small_disk: Path,
) -> None:
    """A file system of 48 MiB, filled by mail as far as may be, and then by something else."""
    from twisted.internet import reactor

    spool = SQLiteQueue(reactor, small_disk / "queue", least_free=16_000_000)
    await spool.open()
    names = []
    refused: QueueError | None = None
    while refused is None:
        try:
            names.append((await take_in(spool, bytes(60_000))).id)
        except QueueError as e:
            refused = e
    assert isinstance(refused, QueueFull)
    assert 3 < len(names)
    taken = await spool.lease("out", 20.0, **{**LEASE, "fresh": 2})
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        fill(ballast)
    settled = [spool.settle(delivered(leased.message.id)) for leased in taken]
    with pytest.raises(QueueError):
        await take_in(spool, bytes(60_000))
    ballast.unlink()
    for deferred in settled:
        assert await deferred is None
    assert names[2:] == [message.id for message in await spool.list(ALL)]
    while await spool.lease("out", 30.0, **LEASE):
        pass
    for id_ in names[2:]:
        assert await spool.settle(delivered(id_)) is None
    again = await take_in(spool, bytes(60_000))
    assert [again.id] == [message.id for message in await spool.list(ALL)]
    await spool.close()
