"""``StoredQueue``: a queue in a ``Store``, which one thread drives, with group commit.

Every request becomes an operation, which the worker runs; its Deferred fires when the result is
durable.  Nothing waits for the store in the reactor's thread.  Reads for people and programs that
look at the queue, which may be long, run in another thread (``reader``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_sendmail.queue.errors import LeaseLost, MessageDamaged, QueueError, QueueFull
from twisted_sendmail.queue.group_commit import (
    GroupCommit,
    InlineWorker,
    Operation,
    OperationKind,
    Request,
    ThreadWorker,
    Worker,
)
from twisted_sendmail.queue.ids import QueueIds, id_number
from twisted_sendmail.queue.interface import INLINE_SIZE, Intake, Queue, RecoveryReport
from twisted_sendmail.queue.models import LASTING_LEASE, ClusterState, LeasedMessage, Selection
from twisted_sendmail.queue.reader import StoreReader
from twisted_sendmail.queue.store import PIECE_SIZE, Pieces
from twisted_sendmail.shared_result import SharedResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_sendmail.queue.interface import QueueObserver
    from twisted_sendmail.queue.models import (
        AttemptRecord,
        DownRoute,
        Lease,
        MessageInfo,
        QueueAction,
        QueueActionResult,
        QueuedMessage,
        QueueTotals,
    )
    from twisted_sendmail.queue.store import ContentPlace, Store, StoreState

#: Seconds between two checks whether another process changed the queue.
POLL_INTERVAL = 5.0
#: Seconds after which pieces without a message are removed.
_ORPHAN_AGE = 3600
#: Messages of a list that are read in one operation.
_PAGE = 200
#: Pieces of one message that may be waiting for the disk.
_MAX_PIECES_WAITING = 2
#: Seconds until a record that could not be written is tried again: first and largest delay.
FIRST_DELAY, MAX_DELAY = 0.5, 30.0
_log = Logger(namespace="twisted_sendmail.queue")


class StoredQueue(Queue):
    """The queue in *store*.

    :param reactor: an ``IReactorTime``; with ``IReactorFromThreads`` the work is done in a thread.
    :param store: not open yet; used by this queue alone.
    :param reading: another store of the same queue, for long reads; used by this queue alone.
    :param worker: runs the operations, if given; then long reads run in the caller's thread.
    """

    def __init__(
        self, reactor: Any, store: Store, reading: Store, *, worker: Worker | None = None
    ) -> None:
        self.reactor = reactor
        threads = worker is None and IReactorFromThreads.providedBy(reactor)
        reader: Worker = ThreadWorker(reactor) if threads else InlineWorker()
        if worker is None:
            worker = ThreadWorker(reactor) if threads else InlineWorker()
        self._worker = worker
        self._reader = StoreReader(reading, reader)
        self._store = store
        self._ids = QueueIds(reactor.seconds)
        self._retry = RecordRetry(reactor, self.submit)
        self._poll = LoopingCall(self._check)
        self._poll.clock = reactor
        #: Messages of the commit being delivered, and whether each was claimed.
        self.arrivals: list[tuple[LeasedMessage, bool]] = []
        self._state: StoreState | None = None
        # The last notification of the observer.
        self._announced = ClusterState()
        self._swept: set[int] = set()
        self._damaged: set[str] = set()
        self._open = False
        self._opening: Deferred[Any] | None = None
        self._closing: SharedResult[None] | None = None

    # -- opening and closing -----------------------------------------------------------

    def open(self) -> Deferred[RecoveryReport]:
        """See ``Queue.open``."""
        self._worker.start(GroupCommit(self._store).run, self._commit_delivered)
        request = Request(self._open_store, OperationKind.ALONE, "be opened")
        _ = request.done.addCallback(self._opened)
        opened: Deferred[RecoveryReport] = Deferred()
        _ = request.done.addCallbacks(opened.callback, self._not_opened, errbackArgs=(opened,))
        self._opening = request.done
        self._worker.submit(request)
        return opened

    def _open_store(self, store: Store) -> RecoveryReport:
        oldest_kept = int((self.reactor.seconds() - _ORPHAN_AGE) * 1_000_000) << 8
        try:
            store.open(create=True, relay=True)
            with store.transaction(doing="be opened"):
                recovered = store.begin_relay(oldest_kept)
                _ = store.take_flushed()  # at its start a relay waits for nothing
                # A clock that was set back would generate ids that exist.
                self._ids.go_beyond(store.newest())
                return recovered
        except BaseException:
            store.close()
            raise

    def _opened(self, recovered: RecoveryReport) -> RecoveryReport:
        self._open = True
        self.start_watching()
        _ = self._poll.start(POLL_INTERVAL, now=True).addErrback(self.log_failure)
        return recovered

    def start_watching(self) -> None:
        """Start to receive notifications: the queue is open.  For engines that have them."""

    def stop_watching(self) -> None:
        """Stop to receive notifications."""

    def _not_opened(self, failure: Any, opened: Deferred[RecoveryReport]) -> Deferred[Any]:
        return self._worker.stop().addCallback(lambda _: opened.errback(failure))

    def close(self) -> Deferred[None]:
        """See ``Queue.close``."""
        if self._closing is None:
            self._closing = SharedResult()
            # An opening under way ends first.
            _ = (self._opening or succeed(None)).addBoth(self._close)
        return self._closing.wait()

    def _close(self, _: object) -> None:
        if not self._open:
            self._closed(None)
            return
        self.stop_watching()
        if self._poll.running:
            self._poll.stop()
        # Operations under way first, then a last try of records that could not be written.
        self._retry.retry_all()
        nothing = Request(lambda _: None, OperationKind.ALONE)
        self.submit(nothing)
        _ = nothing.done.addCallback(self._close_store)

    def _close_store(self, _: object) -> None:
        self._open = False
        unrecorded = self._retry.give_up()
        # Last of all the connection that writes: that of SQLite removes the log of the database.
        _ = self._reader.close().addCallback(lambda _: self._close_writer(unrecorded))

    def _close_writer(self, unrecorded: set[str]) -> None:
        def close(store: Store) -> None:
            try:
                with store.transaction(doing="be closed"):
                    store.end_relay(unrecorded)
            finally:
                store.close()

        request = Request(close, OperationKind.ALONE, "be closed")
        _ = request.done.addErrback(self.log_failure)
        self._worker.submit(request)
        _ = self._worker.stop().addCallback(self._closed)

    def _closed(self, _: object) -> None:
        if self._closing is not None:
            self._closing.set(None)

    # -- operations --------------------------------------------------------------------

    def submit(self, operation: Operation) -> None:
        """Run *operation*, or fail it when the queue is closed."""
        if not self._open:
            operation.error = QueueError("the queue is not open")
            operation.fire()
            operation.after()
        else:
            self._worker.submit(operation)

    def read(self, work: Callable[[Store], Any]) -> Deferred[Any]:
        """Return the result of *work*, which changes nothing."""
        request = Request(work, OperationKind.READ, "be read")
        self.submit(request)
        return request.done

    def _look(self, work: Callable[[Store], Any]) -> Deferred[Any]:
        """Read in the other thread, after what was requested before has been done."""
        return self.read(lambda _: None).addCallback(lambda _: self._look_now(work))

    def _look_now(self, work: Callable[[Store], Any]) -> Deferred[Any]:
        return self._reader.read(work) if self._open else fail(QueueError("the queue is not open"))

    def write(self, work: Callable[[Store], Any]) -> Deferred[Any]:
        """Return the result of *work* when its changes are durable."""
        request = Request(work, OperationKind.WRITE, "be written")
        self.submit(request)
        return request.done

    # -- arrival -----------------------------------------------------------------------

    def new_id(self) -> str:
        """See ``Queue.new_id``."""
        return self._ids()

    def intake(self) -> Intake:
        """See ``Queue.intake``."""
        return StoredIntake(self)

    def check_space(self, size: int) -> Deferred[None]:
        """See ``Queue.check_space``."""
        return self.read(lambda store: store.check_space(size))

    def _commit_delivered(self) -> None:
        arrivals, self.arrivals = self.arrivals, []
        if arrivals:
            # Also the messages of the last commit before the queue is closed.
            self._call_observer(lambda observer: observer.arrived(arrivals))

    def new_body(self) -> int:
        """Return a number for the pieces of large content."""
        return id_number(self.new_id()) or 0

    def remove_body(self, body: int) -> None:
        """Remove pieces without a message, in small steps."""
        self._swept.add(body)
        swept = self.write(lambda store: store.sweep(body))
        _ = swept.addCallbacks(
            lambda swept: self._swept.discard(body) if swept else self.remove_body(body),
            # The rest is removed after the next start.
            lambda _: self._swept.discard(body),
        )

    # -- delivery ----------------------------------------------------------------------

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> Deferred[list[LeasedMessage]]:
        """See ``Queue.lease``."""
        return self.write(
            lambda store: store.lease(route, now, fresh=fresh, retries=retries, horizon=horizon)
        )

    def next_due(self) -> Deferred[dict[str, float]]:
        """See ``Queue.next_due``."""
        return self.read(lambda store: store.next_due())

    async def content(self, id: str) -> AsyncIterator[bytes]:  # noqa: A002 - the field's name
        """See ``Queue.content``."""
        at: ContentPlace = await self._verified(id, lambda store: store.where(id))
        following = self._piece(id, at, 0)
        try:
            for place in range(1, at.pieces):
                data = await following
                # Read ahead by one piece: the disk works while the network does.
                following = self._piece(id, at, place)
                yield data
            yield await following
        finally:
            # The reader may stop before the end.
            _ = following.addErrback(lambda _: None)

    def _piece(self, id_: str, at: ContentPlace, place: int) -> Deferred[bytes]:
        return self._verified(id_, lambda store: store.piece(at, place))

    def _verified(self, id_: str, read: Callable[[Store], Any]) -> Deferred[Any]:
        def set_aside(failure: Any) -> Any:
            failure.trap(MessageDamaged)
            return self.write(lambda store: store.set_aside(id_)).addBoth(lambda _: failure)

        return self.read(read).addErrback(set_aside)

    def settle(self, settlement: AttemptRecord) -> Deferred[QueuedMessage | None]:
        """See ``Queue.settle``; retried until it is written."""
        settled = self._record(SettleAttempt(self._retry, settlement))
        _ = settled.addErrback(self._hold_unrecorded, settlement)
        if settlement.reports:
            _ = settled.addCallback(self._reports_queued, settlement)
        return settled

    def _hold_unrecorded(self, failure: Any, settlement: AttemptRecord) -> Any:
        """Hold a message whose record was refused permanently; it may have been delivered."""
        if not self._open or self._closing is not None or failure.value.temporary:
            return failure
        if failure.check(LeaseLost):
            return failure
        id_, lease = settlement.id, settlement.lease
        _log.error(
            "the result for {id} cannot be recorded, and the message is put on hold: release it to "
            "send it again",
            id=id_,
        )
        holding = self.write(lambda store: store.hold_unrecorded(id_, lease))
        return holding.addErrback(self.log_failure).addCallback(lambda _: failure)

    def _reports_queued(self, left: QueuedMessage | None, settlement: AttemptRecord) -> Any:
        ids = tuple(info.id for info, _ in settlement.reports)

        def notify(reports: list[QueuedMessage]) -> None:
            if self.observer is not None:
                self.observer.arrived([(LeasedMessage(report), False) for report in reports])

        found = self.read(lambda store: store.list(Selection(ids=ids)))
        _ = found.addCallback(notify).addErrback(self.log_failure)
        return left

    def release(self, leased: Sequence[LeasedMessage]) -> Deferred[None]:
        """See ``Queue.release``; retried until it is written."""
        released = tuple(leased)
        ids = tuple([each.message.id for each in released])
        return self._record(Record(self._retry, ids, lambda store: store.release(released)))

    def _record(self, record: Record) -> Deferred[Any]:
        if self._closing is not None or not self._open:
            return fail(QueueError("the queue is not open"))
        self.submit(record)
        return record.done

    def reroute(self, routes: dict[str, str]) -> Deferred[None]:
        """See ``Queue.reroute``."""
        renamed = dict(routes)
        return self.write(lambda store: store.reroute(renamed))

    # -- operators ---------------------------------------------------------------------

    async def _list(self, selection: Selection) -> list[QueuedMessage]:
        found: list[QueuedMessage] = []
        after, limit = selection.after, selection.limit
        # Page by page: a long list must not delay other reads.
        while limit is None or len(found) < limit:
            most = _PAGE if limit is None else min(_PAGE, limit - len(found))
            offset = 0 if found else selection.offset
            page = attrs.evolve(selection, after=after, limit=most, offset=offset)
            some = await self._look(lambda store, page=page: store.list(page))  # type: ignore[misc]
            found += some
            if len(some) < most:
                break
            after = some[-1].id
        return found

    def list(self, selection: Selection) -> Deferred[Sequence[QueuedMessage]]:
        """See ``Queue.list``."""
        return Deferred.fromCoroutine(self._list(selection))

    def act(
        self, action: QueueAction, selection: Selection, now: float
    ) -> Deferred[Sequence[QueueActionResult]]:
        """See ``Queue.act``."""

        def notify(result: tuple[Any, frozenset[str]]) -> Any:
            changed, flushed = result
            if changed or flushed:
                self._changed(flushed)
            return changed

        return self.write(
            lambda store: (store.act(action, selection, now), store.take_flushed())
        ).addCallback(notify)

    def count(self, selection: Selection) -> Deferred[int]:
        """See ``Queue.count``."""
        return self._look(lambda store: store.count(selection))

    def record_route(self, name: str, down: DownRoute | None) -> Deferred[None]:
        """See ``Queue.record_route``."""
        return self.write(lambda store: store.record_route(name, down))

    def count_running(self, passed: float) -> Deferred[None]:
        """See ``Queue.count_running``."""
        return self.write(lambda store: store.count_running(passed))

    def clear_aside(self, keep: float) -> Deferred[Sequence[str]]:
        """See ``Queue.clear_aside``."""
        return self.write(lambda store: store.clear_aside(keep))

    def taken_files(self) -> Deferred[Sequence[str]]:
        """See ``Queue.taken_files``."""
        return self.read(lambda store: store.taken_files())

    def forget_files(self, keys: Sequence[str]) -> Deferred[None]:
        """See ``Queue.forget_files``."""
        forgotten = list(keys)
        return self.write(lambda store: store.forget_files(forgotten))

    def totals(self) -> Deferred[QueueTotals]:
        """See ``Queue.totals``."""
        return self._look(lambda store: store.totals())

    def probe(self) -> Deferred[None]:
        """See ``Queue.probe``."""

        def probe(store: Store) -> None:
            store.admit(0)
            store.probe()

        return self.write(probe)

    # -- changes by other processes ----------------------------------------------------

    def _check(self) -> Deferred[None]:
        return self.read(lambda store: store.state()).addCallbacks(self._checked, lambda _: None)

    def _checked(self, state: StoreState) -> None:
        for body in state.rubbish:
            if body not in self._swept:
                self.remove_body(body)
        before, self._state = self._state, state
        # The first state may be read before there is an observer.
        if self.observer is not None and self._announced != state.cluster:
            self._announced = state.cluster
            self.notify_observer(lambda observer: observer.cluster_changed(state.cluster))
        if before is not None and before.version != state.version:
            self.read_flushed()
        elif before is not None and before.others != state.others:
            self.notify_observer(lambda observer: observer.mail_waits())

    def read_flushed(self) -> None:
        """Notify the observer: another process changed the queue."""
        reading = self.write(lambda store: store.take_flushed())
        _ = reading.addErrback(lambda _: frozenset()).addCallback(self._changed)

    def _changed(self, flushed: frozenset[str]) -> None:
        if flushed:
            self.notify_observer(lambda observer: observer.queue_flushed(flushed))
        else:
            self.notify_observer(lambda observer: observer.queue_changed())

    def notify_observer(self, notification: Callable[[QueueObserver], None]) -> None:
        """Call *notification* with the observer, if there is one and the queue is open."""
        if self._open:
            self._call_observer(notification)

    def _call_observer(self, notification: Callable[[QueueObserver], None]) -> None:
        if self.observer is not None:
            try:
                notification(self.observer)
            except Exception:  # noqa: BLE001 - an observer's error must not stop the queue
                _log.failure("an observer of the queue failed")

    def found_damaged(self, id_: str) -> None:
        """Log that the store found a damaged message; called in the worker's thread."""
        # Loggers may be used in any thread.
        if id_ not in self._damaged:
            self._damaged.add(id_)
            _log.warn("message {id} is damaged and set aside: it is not tried", id=id_)

    def log_failure(self, failure: Any) -> None:
        """Log an error that nobody waits for: in one line if it is one of the queue, as when it is gone."""
        if failure.check(QueueError):
            _log.error("an operation of the queue failed: {error}", error=str(failure.value))
            return
        _log.failure("an operation of the queue failed", failure=failure)


class StoredIntake(Intake):
    """A message being written to *queue*.

    Small content stays in memory until the commit.  Large content is written in pieces as it
    arrives; the writer waits while too many of them are pending.
    """

    def __init__(self, queue: StoredQueue) -> None:
        self._queue = queue
        self._parts: list[bytes] = []
        self._held = 0
        self._size = 0
        self._closed = False
        # Of large content.
        self._body: int | None = None
        self._count = 0
        self._writing = 0
        self._error: Exception | None = None
        self._waiter: Deferred[None] | None = None

    def write(self, data: bytes) -> Deferred[None] | None:
        """See ``Intake.write``."""
        if self._closed:
            return fail(QueueError("the message has ended"))
        if self._error is not None:
            return fail(self._error)
        self._parts.append(data)
        self._held += len(data)
        self._size += len(data)
        if self._size <= INLINE_SIZE or self._held < PIECE_SIZE:
            return None
        held = b"".join(self._parts)
        whole = len(held) - len(held) % PIECE_SIZE
        for start in range(0, whole, PIECE_SIZE):
            self._write_piece(held[start : start + PIECE_SIZE])
        self._parts, self._held = [held[whole:]], len(held) - whole
        if self._error is not None:
            return fail(self._error)
        if self._writing < _MAX_PIECES_WAITING:
            return None
        self._waiter = Deferred()
        return self._waiter

    def _write_piece(self, data: bytes) -> None:
        if self._body is None:
            self._body = self._queue.new_body()
        self._writing += 1
        self._queue.submit(WritePiece(self, self._queue, (self._body, self._count), data))
        self._count += 1

    def piece_written(self, error: Exception | None) -> None:
        """Handle the end of one write."""
        self._writing -= 1
        self._error = self._error or error
        waiter = self._waiter
        if waiter is not None and (self._error is not None or self._writing < _MAX_PIECES_WAITING):
            self._waiter = None
            if self._error is None:
                waiter.callback(None)
            else:
                waiter.errback(self._error)

    def commit(self, info: MessageInfo) -> Deferred[QueuedMessage]:
        """See ``Intake.commit``."""
        if self._closed:
            return fail(QueueError("the message has ended"))
        self._closed = True
        if self._error is not None:
            self._remove()
            return fail(self._error)
        parts, self._parts = self._parts, []
        rest = parts[0] if len(parts) == 1 else b"".join(parts)
        content: bytes | Pieces = rest
        if self._size > INLINE_SIZE:
            if rest:
                self._write_piece(rest)
            content = Pieces(self._body or 0, self._count, self._size)
        commit = CommitMessage(self._queue, info, content, self)
        self._queue.submit(commit)
        return commit.done

    def committed(self, error: Exception | None) -> Exception | None:
        """Handle the end of the commit; return the first error of the message."""
        error = self._error or error
        if error is not None:
            self._remove()
        return error

    def abort(self) -> None:
        """See ``Intake.abort``."""
        if not self._closed:
            self._closed = True
            self._parts = []
            self._remove()

    def _remove(self) -> None:
        if self._body is not None:
            self._queue.remove_body(self._body)


class WritePiece(Operation):
    """Write one piece of large content."""

    __slots__ = ("_at", "_data", "_intake", "_queue")

    def __init__(
        self, intake: StoredIntake, queue: StoredQueue, at: tuple[int, int], data: bytes
    ) -> None:
        super().__init__(doing="take the message in")
        self._intake = intake
        self._queue = queue
        self._at = at
        self._data = data

    def work(self, store: Store) -> None:
        """See ``Operation.work``."""
        store.admit(len(self._data))
        store.put_piece(*self._at, self._data)

    def fire(self) -> None:
        """See ``Operation.fire``."""
        self._intake.piece_written(self.error)


class CommitMessage(Operation):
    """Commit a message; the observer is asked first whether it is to be inserted leased."""

    batched = True
    __slots__ = ("_intake", "claimed", "content", "done", "info", "lease", "leased", "queue")

    def __init__(
        self, queue: StoredQueue, info: MessageInfo, content: bytes | Pieces, intake: StoredIntake
    ) -> None:
        super().__init__(doing="take the message in")
        self.queue = queue
        self.info = info
        self.content = content
        self._intake = intake
        self.done: Deferred[Any] = Deferred()
        self.claimed = self.leased = False
        self.lease: Lease = LASTING_LEASE
        observer = queue.observer
        if observer is not None and not info.held:
            try:
                self.claimed = observer.claim(info)
            except Exception:  # noqa: BLE001 - the message is queued all the same
                _log.failure("an observer of the queue failed")

    @classmethod
    def run_batch(cls, store: Store, batch: Sequence[CommitMessage]) -> None:
        """See ``Operation.run_batch``."""
        admitted = []
        for commit in batch:
            # Large content asked for its space when it was written.
            try:
                if isinstance(commit.content, bytes):
                    store.admit(len(commit.content))
                admitted.append(commit)
            except QueueFull as e:
                commit.error = e
        may_lease = store.may_lease
        for commit in admitted:
            commit.leased = commit.claimed and may_lease
        messages = store.put_all([(each.info, each.content, each.leased) for each in admitted])
        lease = store.first_lease
        for commit, message in zip(admitted, messages, strict=True):
            commit.result, commit.lease = message, lease

    def fire(self) -> None:
        """See ``Operation.fire``."""
        self.error = self._intake.committed(self.error)
        if self.error is None:
            self.done.callback(self.result)
        else:
            self.done.errback(self.error)

    def after(self) -> None:
        """See ``Operation.after``."""
        observer = self.queue.observer
        if observer is None:
            return
        if self.claimed and not (self.leased and self.error is None):
            observer.unclaimed(self.info)
        if self.error is None:
            content = self.content if self.leased and isinstance(self.content, bytes) else None
            leased = LeasedMessage(self.result, content, self.lease)
            self.queue.arrivals.append((leased, self.leased))


class Record(Operation):
    """A write that is retried until it succeeds.

    A message that was delivered must not go out again because the disk was full when the result
    was to be recorded: its lease is kept, and the record is written when there is space.

    :param ids: the messages concerned.
    """

    __slots__ = ("_retry", "done", "ids")

    def __init__(
        self,
        retry: RecordRetry,
        ids: tuple[str, ...],
        work: Callable[[Store], Any] | None = None,
    ) -> None:
        super().__init__(work, doing="record the result of an attempt")
        self._retry = retry
        self.ids = ids
        #: Fires when the record is durable.
        self.done: Deferred[Any] = Deferred()

    def fire(self) -> None:
        """See ``Operation.fire``."""
        self._retry.on_written(self)


class SettleAttempt(Record):
    """Record the end of an attempt; many are recorded together."""

    batched = True
    __slots__ = ("settlement",)

    def __init__(self, retry: RecordRetry, settlement: AttemptRecord) -> None:
        super().__init__(retry, (settlement.id,))
        self.settlement = settlement

    @classmethod
    def run_batch(cls, store: Store, batch: Sequence[SettleAttempt]) -> None:
        """See ``Operation.run_batch``."""
        results = store.settle_all([each.settlement for each in batch])
        for settle, result in zip(batch, results, strict=True):
            if isinstance(result, QueueError):
                settle.error = result
            else:
                settle.result = result


class RecordRetry:
    """Retries records that could not be written.

    :param clock: time between two attempts.
    :param submit: runs an operation.
    """

    def __init__(self, clock: IReactorTime, submit: Callable[[Operation], None]) -> None:
        self._clock = clock
        self._submit = submit
        self._waiting: list[Record] = []
        self._delay = FIRST_DELAY
        self._timer: IDelayedCall | None = None

    def on_written(self, record: Record) -> None:
        """Handle the end of one attempt to write *record*."""
        error = record.error
        if error is None:
            if self._waiting and self._delay > FIRST_DELAY:
                self.retry_all()
            self._delay = FIRST_DELAY
            record.done.callback(record.result)
        elif getattr(error, "temporary", False):
            self._wait(record, error)
        else:
            # The data are the cause: a retry would not help.
            record.done.errback(error)

    def _wait(self, record: Record, error: Exception) -> None:
        if not self._waiting:
            _log.error(
                "the results of {ids} could not be recorded, and are tried again: {error}",
                ids=", ".join(record.ids),
                error=str(error),
            )
        self._waiting.append(record)
        if self._timer is None:
            self._timer = self._clock.callLater(self._delay, self._retry_one)

    def _retry_one(self) -> None:
        """Retry one record; its success retries the others."""
        self._timer = None
        self._delay = min(2 * self._delay, MAX_DELAY)
        if self._waiting:
            self._submit(self._waiting.pop(0))

    def _take(self) -> list[Record]:
        waiting, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return waiting

    def retry_all(self) -> None:
        """Retry every record now."""
        for record in self._take():
            self._submit(record)

    def give_up(self) -> set[str]:
        """Fail every waiting record; return the ids of their messages."""
        waiting = self._take()
        for record in waiting:
            record.done.errback(
                QueueError(
                    f"the results of {', '.join(record.ids)} could not be recorded",
                    detail="the queue was closed",
                )
            )
        return {id_ for record in waiting for id_ in record.ids}
