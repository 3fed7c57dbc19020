"""Operations of the same moment share a transaction, are reported when durable, and fail alone."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from tests.names import (
    AttemptRecord,
    InlineWorker,
    LeasedMessage,
    QueueAction,
    QueueError,
    RecipientState,
    Selection,
    SQLiteQueue,
    id_number,
)
from tests.queue.failing_store import Choke, choked
from tests.queue.messages import Observer, info_of, take_in
from tests.rows import recipient_row
from twisted_sendmail.queue.group_commit import MAX_GROUP, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.names import QueuedMessage


class PatientWorker(InlineWorker):
    """Lets operations pile up until it is told to go."""

    patient = False

    def submit(self, operation: Operation) -> None:
        if self.patient:
            self._waiting.append(operation)
        else:
            super().submit(operation)

    def go(self) -> None:
        self.patient = False
        waiting, self._waiting = self._waiting, []
        assert self._run is not None
        self._run(waiting)
        self._deliver(waiting)


class Patient:
    """A spool whose operations pile up, and what its store was asked."""

    def __init__(self, directory: Path) -> None:
        self.worker = PatientWorker()
        self.spool = SQLiteQueue(Clock(), directory, worker=self.worker)
        _ = self.spool.open()
        self.worker.patient = True
        self.events: list[str] = []

    def bring(self, content: bytes, **given: Any) -> Deferred[QueuedMessage]:
        intake = self.spool.intake()
        intake.write(content)
        return intake.commit(info_of(self.spool, **given))

    def go(self) -> list[str]:
        """What the store was asked, and what was told, in this order."""
        with choked(Choke(after=lambda _, sql: self.events.append(sql.split()[0]))):
            self.worker.go()
        return self.events


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    patient = Patient(tmp_path)
    yield patient
    patient.worker.patient = False
    _ = patient.spool.close()


def test_what_piled_up_shares_one_commit_and_is_told_when_it_returned(patient: Patient) -> None:
    patient.spool.observer = observer = Observer(claims=True)
    for n in range(20):
        told = patient.bring(b"x" * n)
        _ = told.addCallback(lambda _: patient.events.append("250"))
    events = patient.go()
    assert (events.count("BEGIN"), events.count("COMMIT")) == (1, 1)
    assert events[-21:] == ["COMMIT", *["250"] * 20]
    # All who wait are told before anybody goes on with it.
    assert [event[0] for event in observer.events] == ["claim"] * 20 + ["arrived"] * 20


def test_settlements_that_piled_up_do_each_what_it_says(patient: Patient) -> None:
    """Gone, still waiting, partly done, deleted meanwhile, not leased, not there: in one commit."""
    patient.spool.observer = Observer(claims=True)
    to = ["a@example.net", "b@example.net"]
    taken: list[QueuedMessage] = []
    for _ in range(40):
        _ = patient.bring(b"x", to=to).addCallback(taken.append)
    patient.go()
    _ = patient.spool.act(QueueAction.DELETE, Selection(ids=(taken[2].id,)), 0.0)
    _ = patient.spool.release([LeasedMessage(taken[3])])
    done, later = RecipientState.DELIVERED, RecipientState.PENDING
    verdicts = [(done, done)] * 40
    verdicts[0] = (later, done)
    verdicts[1] = (later, later)
    verdicts[2] = (later, later)
    ids = [message.id for message in taken]
    ids.append(patient.spool.new_id())
    results: list[Any] = []
    patient.worker.patient = True
    for id_, (first, second) in zip(ids, [*verdicts, (done, done)], strict=True):
        changes = (recipient_row(0, first, 90.0), recipient_row(1, second, 90.0))
        _ = patient.spool.settle(AttemptRecord(id_, 50.0, changes)).addCallback(results.append)
    del patient.events[:]
    events = patient.go()
    assert (events.count("BEGIN"), events.count("COMMIT")) == (1, 1)
    # Most go together; a few statements serve all of those.
    assert 40 > len(events)
    left = [(ids[0], 1), (ids[1], 2), None, (ids[3], 2), *[None] * 37]
    assert left == [result and (result.id, len(result.pending)) for result in results]
    # What is not leased was settled before, and stays as it is.
    assert tuple(r.attempts for r in results if r is not None) == (1, 1, 0)


def test_only_the_guilty_one_of_a_group_fails(patient: Patient) -> None:
    first, twin = patient.spool.new_id(), patient.spool.new_id()
    asked = [patient.bring(b"1", id_=id_) for id_ in (first, twin, twin)]
    # One that changes something and fails then, and one that no table takes.
    asked.append(patient.bring(b"2", origin="\ud800"))
    results: list[Any] = []
    for deferred in asked:
        _ = deferred.addCallbacks(
            lambda message: results.append(message.id), lambda f: results.append(type(f.value))
        )
    events = patient.go()
    assert [first, twin, QueueError, QueueError] == results
    # The group is taken back, and each is written by itself; both faulty ones are taken back.
    assert (events.count("ROLLBACK"), events.count("COMMIT")) == (3, 2)
    found: list[Any] = []
    _ = patient.spool.list(Selection()).addCallback(found.extend)
    assert [first, twin] == [message.id for message in found]


def test_an_operation_that_is_refused_after_a_change_leaves_nothing(patient: Patient) -> None:
    for content in (b"1", b"2"):
        _ = patient.bring(content)
    _ = patient.go()
    patient.worker.patient = True
    results: list[Any] = []
    for asked in (
        patient.spool.act(QueueAction.DELETE, Selection(), 0.0),
        patient.spool.act(QueueAction.HOLD, Selection(), 0.0),
    ):
        _ = asked.addCallbacks(results.append, lambda f: results.append(type(f.value)))

    def refuse(_: int, sql: str) -> None:
        # In the group, and alone.
        if sql.startswith("DELETE FROM message"):
            raise QueueError("refused")

    with choked(Choke(after=refuse)):
        patient.worker.go()
    assert results[0] is QueueError
    found: list[Any] = []
    _ = patient.spool.list(Selection()).addCallback(found.extend)
    assert [True, True] == [message.held for message in found]


def test_a_commit_that_fails_is_told_to_all_of_the_group(patient: Patient) -> None:
    asked = [patient.bring(b"x") for _ in range(3)]
    results: list[Any] = []
    for deferred in asked:
        _ = deferred.addErrback(lambda f: results.append(type(f.value)))

    def fail(_: int, sql: str) -> None:
        if sql == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")

    with choked(Choke(before=fail)):
        patient.worker.go()
    assert [QueueError] * 3 == results
    found: list[Any] = []
    _ = patient.spool.list(Selection()).addCallback(found.extend)
    assert found == []


def test_cancelling_stops_the_waiting_and_not_the_work(patient: Patient) -> None:
    patient.spool.observer = observer = Observer(claims=True)
    asked = patient.bring(b"x")
    failures: list[Any] = []
    _ = asked.addErrback(failures.append)
    asked.cancel()
    patient.go()
    assert len(failures) == 1
    assert [event[0] for event in observer.events] == ["claim", "arrived"]


def test_an_observer_that_fails_harms_nobody(patient: Patient) -> None:
    class Failing(Observer):
        def arrived(self, arrivals: Any) -> None:
            super().arrived(arrivals)
            raise ZeroDivisionError

        def claim(self, info: Any) -> bool:
            super().claim(info)
            raise ZeroDivisionError

    patient.spool.observer = observer = Failing(claims=True)
    told: list[Any] = []
    for _ in range(2):
        _ = patient.bring(b"x").addCallback(told.append)
    patient.go()
    assert [message.leased for message in told] == [False, False]
    assert [event[0] for event in observer.events] == ["claim", "claim", "arrived", "arrived"]


@ensureDeferred
async def test_on_a_thread_nothing_is_told_before_its_commit_returned(tmp_path: Path) -> None:
    from twisted.internet import reactor

    spool = SQLiteQueue(reactor, tmp_path)
    await spool.open()
    here = threading.get_ident()
    threads, told_early = set(), []
    written: set[str] = set()
    durable: set[int | None] = set()

    def after(_: int, sql: str) -> None:
        threads.add(threading.get_ident())
        if sql == "COMMIT":
            found = spool._store.connection._execute("SELECT number FROM message").fetchall()
            durable.update(number for (number,) in found)

    def told(message: QueuedMessage) -> None:
        written.add(message.id)
        if id_number(message.id) not in durable:
            told_early.append(message.id)

    with choked(Choke(after=after)) as choke:
        taking = [take_in(spool, bytes(n * 100)) for n in range(3 * MAX_GROUP)]
        await gatherResults([Deferred.fromCoroutine(t).addCallback(told) for t in taking])
    assert (len(written), told_early) == (3 * MAX_GROUP, [])
    assert here not in threads
    assert choke.calls > 0
    await spool.close()


@ensureDeferred
async def test_threads_end_when_it_is_closed_or_was_never_opened(tmp_path: Path) -> None:
    from twisted.internet import reactor

    before = set(threading.enumerate())
    for _ in range(3):
        spool = SQLiteQueue(reactor, tmp_path / "queue")
        opening = spool.open()
        # Even while it is being opened.
        closing, again = spool.close(), spool.close()
        assert (await opening).messages == 0
        await gatherResults([closing, again])
        await spool.close()
        assert before == set(threading.enumerate())
    await SQLiteQueue(reactor, tmp_path / "queue").close()
    (tmp_path / "file").touch()
    unusable = SQLiteQueue(reactor, tmp_path / "file")
    with pytest.raises(QueueError, match="the path is not a directory"):
        await unusable.open()
    await unusable.close()
    assert before == set(threading.enumerate())


@ensureDeferred
async def test_what_was_begun_is_ended_before_it_is_closed(tmp_path: Path) -> None:
    from twisted.internet import reactor

    spool = SQLiteQueue(reactor, tmp_path)
    await spool.open()
    taking = [Deferred.fromCoroutine(take_in(spool, bytes(100))) for _ in range(300)]
    closed = spool.close()
    taken = await gatherResults(taking)
    await closed
    spool = SQLiteQueue(reactor, tmp_path)
    recovered = await spool.open()
    assert (len(taken), recovered.messages) == (300, 300)
    await spool.close()
