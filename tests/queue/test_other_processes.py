"""Other processes that use the queue of a running relay: commands and `sendmail`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from tests.names import (
    AttemptRecord,
    QueueAction,
    QueueError,
    QueueIds,
    RecipientState,
    Selection,
    SQLiteQueue,
    SQLiteStore,
    id_number,
)
from tests.queue.messages import Observer, content_of, info_of, take_in
from tests.rows import recipient_row
from twisted_sendmail.queue import PIECE_SIZE, Pieces, wake
from twisted_sendmail.queue.stored_queue import POLL_INTERVAL

ALL = Selection()
# Ids of the real time: two generators on a Clock that stands still make the same id now and then.
_new_id = QueueIds(time.time)
LEASE: dict[str, Any] = {"fresh": 100, "retries": 100, "horizon": 1e9}


def put(directory: Path, *contents: bytes) -> None:
    """As `sendmail` does when no relay answers."""
    with SQLiteStore(directory) as store:
        for content in contents:
            with store.transaction():
                store.put(info_of(SQLiteQueue(Clock(), directory), id_=_new_id()), content)


def test_nobody_hears_where_no_relay_runs(tmp_path: Path) -> None:
    assert not wake(tmp_path)
    assert not wake(tmp_path / "nowhere")


@ensureDeferred
async def test_a_datagram_makes_the_relay_look_again(tmp_path: Path) -> None:
    from twisted.internet import reactor

    spool = SQLiteQueue(reactor, tmp_path / "queue")
    # One that was killed left its socket behind.
    (tmp_path / "queue").mkdir(0o700)
    (tmp_path / "queue" / "wakeup").touch()
    (tmp_path / "queue" / "queue.sqlite3").touch()
    await spool.open()
    spool.observer = observer = Observer(claims=False)
    assert wake(tmp_path / "queue")
    await observer.notified(1)
    assert observer.events == [("queue_changed",)]
    await spool.close()
    assert not wake(tmp_path / "queue")


@ensureDeferred
async def test_a_directory_with_a_long_name_is_heard_of_by_looking(tmp_path: Path) -> None:
    """The address of a socket has 108 octets."""
    from twisted.internet import reactor

    directory = tmp_path / ("long" * 30)
    spool = SQLiteQueue(reactor, directory)
    await spool.open()
    assert not (directory / "wakeup").exists()
    assert not wake(directory)
    await spool.close()


@ensureDeferred
async def test_what_another_process_brings_in_is_noticed_without_a_word(tmp_path: Path) -> None:
    clock = Clock()
    spool = SQLiteQueue(clock, tmp_path)
    await spool.open()
    spool.observer = observer = Observer(claims=False)
    await take_in(spool, b"ours")
    clock.advance(POLL_INTERVAL)
    assert [event[0] for event in observer.events] == ["claim", "arrived"]
    put(tmp_path, b"theirs")
    clock.advance(POLL_INTERVAL - 1)
    assert len(observer.events) == 2
    clock.advance(1)
    assert observer.events[2:] == [("queue_changed",)]
    clock.advance(POLL_INTERVAL)
    assert len(observer.events) == 3
    taken = await spool.lease("out", 20.0, **LEASE)
    assert {leased.content for leased in taken} == {b"ours", b"theirs"}
    await spool.close()


@ensureDeferred
async def test_a_large_message_of_another_process_comes_in_by_pieces(tmp_path: Path) -> None:
    spool = SQLiteQueue(Clock(), tmp_path)
    await spool.open()
    info = info_of(spool)
    body = id_number(spool.new_id())
    assert body is not None
    data = bytes(PIECE_SIZE) + b"end"
    with SQLiteStore(tmp_path) as store:
        for place, piece in enumerate((data[:PIECE_SIZE], data[PIECE_SIZE:])):
            with store.transaction():
                store.put_piece(body, place, piece)
        with store.transaction():
            store.put(info, Pieces(body, 2, len(data)))
        assert [data[:PIECE_SIZE], data[PIECE_SIZE:]] == list(store.content(info.id))
    assert data == await content_of(spool, info.id)
    await spool.close()


@ensureDeferred
async def test_pieces_of_no_message_are_removed_little_by_little(tmp_path: Path) -> None:
    clock = Clock()
    clock.advance(1e9)
    spool = SQLiteQueue(clock, tmp_path)
    await spool.open()

    def pieces() -> int:
        with SQLiteStore(tmp_path) as store:
            return int(store.connection.value("SELECT count(*) FROM piece"))

    data = bytes(20 * PIECE_SIZE)
    aborted = spool.intake()
    aborted.write(data)
    aborted.abort()
    assert pieces() == 0
    # Delivered, and deleted by another process.
    for _ in range(2):
        await take_in(spool, data)
    (first, second) = await spool.lease("out", 1e9, **LEASE)
    await spool.settle(
        AttemptRecord(first.message.id, 1e9, (recipient_row(0, RecipientState.DELIVERED),))
    )
    await spool.release([second])
    with SQLiteStore(tmp_path) as store, store.transaction():
        store.act(QueueAction.DELETE, ALL, 0.0)
    assert pieces() == 40
    clock.advance(POLL_INTERVAL)
    assert pieces() == 0
    # Never committed: it may still come, until an hour has gone by.
    forgotten = spool.intake()
    forgotten.write(data)
    await spool.close()
    for hours, left in ((0.9, 20), (0.2, 0)):
        clock.advance(hours * 3600)
        spool = SQLiteQueue(clock, tmp_path)
        await spool.open()
        assert left == pieces()
        await spool.close()


@ensureDeferred
async def test_commands_work_while_mail_comes_and_goes(tmp_path: Path) -> None:
    """No traceback, nothing lost: lists, totals, holds and flushes beside the traffic."""
    from twisted.internet import reactor

    spool = SQLiteQueue(reactor, tmp_path)
    await spool.open()
    stopped = threading.Event()

    def command() -> int:
        rounds = 0
        while not stopped.is_set():
            with SQLiteStore(tmp_path) as store:
                with store.transaction(write=False):
                    store.list(Selection(limit=20))
                    store.totals()
                for action in (QueueAction.HOLD, QueueAction.RELEASE, QueueAction.FLUSH):
                    with store.transaction():
                        store.act(action, Selection(limit=5), 20.0)
            rounds += 1
            stopped.wait(0.05)
        return rounds

    commanding = deferToThread(command)
    names: set[str] = set()
    done: set[str] = set()
    for _ in range(20):
        taking = [Deferred.fromCoroutine(take_in(spool, bytes(500))) for _ in range(20)]
        names |= {message.id for message in await gatherResults(taking)}
        taken = await spool.lease("out", 20.0, **LEASE)
        for leased in taken:
            settlement = AttemptRecord(
                leased.message.id, 20.0, (recipient_row(0, RecipientState.DELIVERED),)
            )
            await spool.settle(settlement)
            assert leased.message.id not in done
            done.add(leased.message.id)
    stopped.set()
    assert await commanding > 0
    await spool.act(QueueAction.RELEASE, ALL, 0.0)
    done |= {leased.message.id for leased in await spool.lease("out", 20.0, **LEASE)}
    assert names == done
    await spool.close()


@ensureDeferred
async def test_a_writer_that_holds_on_is_waited_for(tmp_path: Path) -> None:
    from twisted.internet import reactor

    spool = SQLiteQueue(reactor, tmp_path)
    await spool.open()
    with SQLiteStore(tmp_path) as store:
        with store.transaction():
            taking = Deferred.fromCoroutine(take_in(spool, b"x"))
            # The reactor's thread is not held up meanwhile.
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.2, waited.callback, None)
            await waited
            assert not taking.called
        message = await taking
    assert [message.id] == [m.id for m in await spool.list(ALL)]
    await spool.close()


def test_a_transaction_that_fails_does_nothing_and_says_what_it_could_not(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match="the queue is not open"):
        SQLiteStore(tmp_path).count()
    store = SQLiteStore(tmp_path, patience=0.0)
    store.open(create=True)
    other = SQLiteStore(tmp_path, patience=0.0)
    other.open()
    with store.transaction():
        store.put(info_of(SQLiteQueue(Clock(), tmp_path)), b"x")
        with (
            pytest.raises(QueueError, match=r"the queue could not be changed: .* is locked"),
            other.transaction(doing="be changed"),
        ):
            other.act(QueueAction.DELETE, ALL, 0.0)
    with pytest.raises(AttributeError), store.transaction():
        # The messages are gone when it fails.
        (store.act(QueueAction.DELETE, ALL, 0.0), store.no_such_thing)  # type: ignore[attr-defined]
    assert (store.count(), other.count()) == (1, 1)
    store.close()
    other.close()


@pytest.mark.parametrize(
    ("most", "expected"), [(2, ["ab", "cd", "e"]), (5, ["abcde"]), (9, ["abcde"])]
)
def test_a_long_queue_is_read_page_by_page(tmp_path: Path, most: int, expected: list[str]) -> None:
    store = SQLiteStore(tmp_path)
    store.open(create=True)
    spool = SQLiteQueue(Clock(), tmp_path)
    with store.transaction():
        assert list(store.pages(ALL, most)) == []
        for letter in "abcde":
            store.put(info_of(spool, sender=f"{letter}@x.example"), b"x")
    pages = store.pages(Selection(sender="@x.example"), most)
    assert [
        "".join(str(message.info.envelope.sender)[0] for message in page) for page in pages
    ] == expected
    store.close()


def test_ids_rise_when_the_clock_goes_back() -> None:
    seconds = iter([100.0, 50.0, 50.0, 2e12, 0.0])
    ids = QueueIds(lambda: next(seconds))
    made = [ids() for _ in range(4)]
    assert sorted(set(made)) == made


def test_ids_are_read_in_either_case_and_nothing_else_is_one() -> None:
    id_ = QueueIds(lambda: 1.5e9)()
    number = id_number(id_)
    assert number is not None
    assert (number, number) == (id_number(id_.lower()), number)
    for wrong in (
        "",
        id_[:-1],
        id_ + "0",
        id_[:-1] + "\n",
        id_[:-1] + "U",
        "+" + id_[1:],
        "_" * 12,
    ):
        assert id_number(wrong) is None


@ensureDeferred
async def test_a_command_leaves_the_log_to_the_relay_that_has_read_its_queue(
    tmp_path: Path, reactor: Any
) -> None:
    """The locks of a process on a file end when it closes any descriptor of that file."""
    directory = tmp_path / "queue"
    queue = SQLiteQueue(reactor, directory)
    await queue.open()
    await take_in(queue, b"x")
    # Opens the second connection of the relay.
    await queue.totals()
    log = directory / "queue.sqlite3-wal"
    inode = log.stat().st_ino
    assert await _listed(directory) == 1
    assert log.stat().st_ino == inode
    await take_in(queue, b"y")
    assert await _listed(directory) == 2
    await queue.close()


async def _listed(directory: Path) -> int:
    """Return the number of messages that the command lists in a process of its own."""
    command = ["queue", "list", "--json", "--queue", str(directory)]
    done = await deferToThread(
        subprocess.run,
        [str(Path(sys.executable).with_name("twisted-sendmail")), *command],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return len(done.stdout.splitlines())
