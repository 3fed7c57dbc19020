"""The spool of a relay: the SQLite store on a thread of its own, with group commit.

Nothing here waits for the disk in the reactor's thread.  What is asked for becomes an
operation; the worker does it; the Deferred fires when it is durable.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_sendmail.queue.ids import QueueIds, id_number
from twisted_sendmail.queue.interface import Queue, RecoveryReport
from twisted_sendmail.queue.models import LeasedMessage, Selection
from twisted_sendmail.queue.notify import Wakeup
from twisted_sendmail.queue.sqlite.group_commit import GroupCommit, Kind
from twisted_sendmail.queue.sqlite.insistence import Insistence, Record
from twisted_sendmail.queue.sqlite.intake import SQLiteIntake
from twisted_sendmail.queue.sqlite.operations import Asked, Settled
from twisted_sendmail.queue.sqlite.plain_settlement import is_plain
from twisted_sendmail.queue.sqlite.premises import check_directory
from twisted_sendmail.queue.sqlite.relay_lock import RelayLock
from twisted_sendmail.queue.sqlite.room import LEAST_FREE, Room
from twisted_sendmail.queue.sqlite.store import SQLiteStore
from twisted_sendmail.queue.sqlite.worker import InlineWorker, ThreadWorker, Worker
from twisted_sendmail.queue.trouble import MessageDamaged, QueueError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from twisted_sendmail.queue.interface import Intake
    from twisted_sendmail.queue.models import (
        AttemptRecord,
        QueueAction,
        QueueActionResult,
        QueuedMessage,
        QueueTotals,
    )
    from twisted_sendmail.queue.sqlite.group_commit import Operation
    from twisted_sendmail.queue.sqlite.operations import Arrival
    from twisted_sendmail.queue.sqlite.reading import Where

#: Seconds between two looks whether another process has changed the queue.
POLL = 5.0
#: Seconds after which what is left of a message that never came is removed.
_FORGOTTEN = 3600
# Messages of a list that are read in one go.
_PAGE = 200


class SQLiteQueue(Queue):
    """The queue in *directory*, which is made where it is missing.

    :param reactor: an ``IReactorTime``; with threads, the work is done in one.
    :param worker: who does the work, if not that.
    :param least_free: octets on the file system that mail leaves free; 0: all may be taken.
    """

    _log = Logger(namespace="twisted_sendmail.queue")

    def __init__(
        self,
        reactor: Any,
        directory: str | Path,
        *,
        worker: Worker | None = None,
        least_free: int = LEAST_FREE,
    ) -> None:
        self.directory = Path(directory)
        self._reactor = reactor
        if worker is None:
            threads = IReactorFromThreads.providedBy(reactor)
            worker = ThreadWorker(reactor) if threads else InlineWorker()
        self._worker = worker
        self._store = SQLiteStore(self.directory, damaged=self._found_damaged)
        self._lock = RelayLock(self.directory)
        self.room = Room(self.directory, least_free, self._store.unused)
        self._ids = QueueIds(reactor.seconds)
        self._insistence = Insistence(reactor, self.submit)
        self._wakeup = Wakeup(self.directory, self._disturbed)
        self._poll = LoopingCall(self._look)
        self._poll.clock = reactor
        #: What came in with the commit that is being told: the messages, and if they are claimed.
        self.arrivals: list[tuple[LeasedMessage, bool]] = []
        self._version: int | None = None
        self._swept: set[int] = set()
        self._damaged: set[str] = set()
        self._open = False
        self._opening: Deferred[Any] | None = None
        self._closing: Deferred[None] | None = None

    # Opening and closing

    def open(self) -> Deferred[RecoveryReport]:
        """See ``Queue.open``."""
        self._worker.start(GroupCommit(self._store).run, self._all_told)
        operation = Asked(self._open_store, Kind.ALONE, "be opened")
        _ = operation.done.addCallback(self._opened)
        opened: Deferred[RecoveryReport] = Deferred()
        _ = operation.done.addCallbacks(opened.callback, self._not_opened, errbackArgs=(opened,))
        self._opening = operation.done
        self._worker.submit(operation)
        return opened

    def _open_store(self, store: SQLiteStore) -> RecoveryReport:
        forgotten = int((self._reactor.seconds() - _FORGOTTEN) * 1_000_000) << 8
        try:
            check_directory(self.directory, create=True, root_may=False)
            self._lock.acquire()
            store.open(create=True, relay=True)
            with store.transaction(doing="be opened"):
                interrupted = store.end_leases(interrupted=True)
                store.throw_away_orphans(forgotten)
                # A clock that was set back would give ids for a second time.
                self._ids.go_beyond(store.newest())
                return RecoveryReport(store.count(), interrupted)
        except BaseException:
            store.close()
            self._lock.release()
            raise

    def _opened(self, recovered: RecoveryReport) -> RecoveryReport:
        self._open = True
        self._wakeup.listen(self._reactor)
        _ = self._poll.start(POLL, now=True).addErrback(self._complain)
        return recovered

    def _not_opened(self, failure: Any, opened: Deferred[RecoveryReport]) -> Deferred[Any]:
        return self._worker.stop().addCallback(lambda _: opened.errback(failure))

    def close(self) -> Deferred[None]:
        """See ``Queue.close``."""
        if self._closing is None:
            self._closing = Deferred()
            # What is begun is ended first, even the opening.
            _ = (self._opening or succeed(None)).addBoth(self._close)
        closed: Deferred[None] = Deferred()

        def tell(_: None) -> None:
            # Each may cancel his own, and none the others'.
            closed.callback(None)

        _ = self._closing.addCallback(tell)
        return closed

    def _close(self, _: object) -> None:
        if not self._open:
            self._say_closed(None)
            return
        self._wakeup.stop()
        if self._poll.running:
            self._poll.stop()
        # In this order: what was begun, the last try of what has to be written, the end.
        self._insistence.all_again()
        _ = self._ask(lambda _: None, Kind.ALONE).addCallback(self._close_store)

    def _close_store(self, _: object) -> None:
        self._open = False
        unrecorded = self._insistence.give_up()

        def close(store: SQLiteStore) -> None:
            try:
                with store.transaction(doing="be closed"):
                    store.end_leases(interrupted=False, but=unrecorded)
            finally:
                store.close()
                self._lock.release()

        operation = Asked(close, Kind.ALONE, "be closed")
        _ = operation.done.addErrback(self._complain)
        self._worker.submit(operation)
        _ = self._worker.stop().addCallback(self._say_closed)

    def _say_closed(self, _: object) -> None:
        if self._closing is not None:
            self._closing.callback(None)

    # Work

    def submit(self, operation: Operation) -> None:
        """Have *operation* done."""
        if not self._open:
            operation.error = QueueError("the queue is not open")
            operation.fire()
            operation.after()
        else:
            self._worker.submit(operation)

    def _ask(
        self, work: Callable[[SQLiteStore], Any], kind: Kind, doing: str = "do it"
    ) -> Deferred[Any]:
        operation = Asked(work, kind, doing)
        self.submit(operation)
        return operation.done

    def _read(self, work: Callable[[SQLiteStore], Any]) -> Deferred[Any]:
        return self._ask(work, Kind.READ, "be read")

    def _write(self, work: Callable[[SQLiteStore], Any]) -> Deferred[Any]:
        return self._ask(work, Kind.WRITE, "be written")

    # Bringing in

    def new_id(self) -> str:
        """See ``Queue.new_id``."""
        return self._ids()

    def intake(self) -> Intake:
        """See ``Queue.intake``."""
        return SQLiteIntake(self)

    def bring(self, arrival: Arrival) -> Deferred[QueuedMessage]:
        """The end of an intake."""
        arrival.claim()
        self.submit(arrival)
        return arrival.done

    def _all_told(self) -> None:
        arrivals, self.arrivals = self.arrivals, []
        if arrivals and self.observer is not None:
            try:
                self.observer.arrived_together(arrivals)
            except Exception:  # noqa: BLE001 - the queue is well
                self._log.failure("an observer of the queue failed")

    def new_body(self) -> int:
        """A number for the pieces of a large content."""
        return id_number(self.new_id()) or 0

    def forget(self, body: int) -> None:
        """No message has it: remove it, little by little."""
        self._swept.add(body)
        swept = self._write(lambda store: store.sweep(body))
        _ = swept.addCallbacks(
            lambda ended: self._swept.discard(body) if ended else self.forget(body),
            # What is left is removed when the spool is opened again.
            lambda _: self._swept.discard(body),
        )

    # Taking out

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> Deferred[list[LeasedMessage]]:
        """See ``Queue.lease``."""
        return self._write(
            lambda store: store.lease(route, now, fresh=fresh, retries=retries, horizon=horizon)
        )

    def next_due(self) -> Deferred[dict[str, float]]:
        """See ``Queue.next_due``."""
        return self._read(lambda store: store.next_due())

    async def content(self, id: str) -> AsyncIterator[bytes]:  # noqa: A002 - that is its name
        """See ``Queue.content``."""
        at: Where = await self._intact(id, lambda store: store.where(id))
        following = self._piece(id, at, 0)
        try:
            for place in range(1, at.pieces):
                data = await following
                # One ahead, so that the disk works while the network does.
                following = self._piece(id, at, place)
                yield data
            yield await following
        finally:
            # Who reads may stop before the end.
            _ = following.addErrback(lambda _: None)

    def _piece(self, id_: str, at: Where, place: int) -> Deferred[bytes]:
        return self._intact(id_, lambda store: store.piece(at, place))

    def _intact(self, id_: str, read: Callable[[SQLiteStore], Any]) -> Deferred[Any]:
        def aside(failure: Any) -> Any:
            failure.trap(MessageDamaged)
            return self._write(lambda store: store.set_aside(id_)).addBoth(lambda _: failure)

        return self._read(read).addErrback(aside)

    def settle(self, settlement: AttemptRecord) -> Deferred[QueuedMessage | None]:
        """See ``Queue.settle``; while it cannot be written it is tried again and again."""
        if is_plain(settlement):
            return self._insist(Settled(self._insistence, settlement))
        settled = self._insist_on((settlement.id,), lambda store: store.settle(settlement))
        if settlement.reports:
            _ = settled.addCallback(self._reported, settlement)
        return settled

    def _reported(self, left: QueuedMessage | None, settlement: AttemptRecord) -> Any:
        ids = tuple(draft.id for draft, _ in settlement.reports)

        def tell(reports: list[QueuedMessage]) -> None:
            for report in reports:
                if self.observer is not None:
                    self.observer.arrived(LeasedMessage(report), claimed=False)

        found = self._read(lambda store: store.list(Selection(ids=ids)))
        _ = found.addCallback(tell).addErrback(self._complain)
        return left

    def release(self, ids: Sequence[str]) -> Deferred[None]:
        """See ``Queue.release``."""
        released = tuple(ids)
        return self._insist_on(released, lambda store: store.release(released))

    def _insist_on(self, ids: tuple[str, ...], work: Callable[[SQLiteStore], Any]) -> Deferred[Any]:
        return self._insist(Record(self._insistence, ids, work))

    def _insist(self, record: Record) -> Deferred[Any]:
        if self._closing is not None or not self._open:
            return fail(QueueError("the queue is not open"))
        return self._insistence.do(record)

    def reroute(self, routes: dict[str, str]) -> Deferred[None]:
        """See ``Queue.reroute``."""
        renamed = dict(routes)
        return self._write(lambda store: store.reroute(renamed))

    # For the operator

    async def _listed(self, selection: Selection) -> list[QueuedMessage]:
        found: list[QueuedMessage] = []
        after: str | None = None
        limit = selection.limit
        # Page by page: a long list must not keep new mail waiting.
        while limit is None or len(found) < limit:
            most = _PAGE if limit is None else min(_PAGE, limit - len(found))

            def page(store: SQLiteStore, after: str | None = after, most: int = most) -> Any:
                return store.list(selection, after=after, most=most)

            some = await self._read(page)
            found += some
            if len(some) < most:
                break
            after = some[-1].id
        return found

    def list(self, selection: Selection) -> Deferred[Sequence[QueuedMessage]]:
        """See ``Queue.list``."""
        return Deferred.fromCoroutine(self._listed(selection))

    def act(
        self, action: QueueAction, selection: Selection, now: float
    ) -> Deferred[Sequence[QueueActionResult]]:
        """See ``Queue.act``."""
        acted = self._write(lambda store: store.act(action, selection, now))
        return acted.addCallback(self._acted)

    def _acted(self, acted: Any) -> Any:
        if acted:
            self._disturbed()
        return acted

    def clear_aside(self, passed: float, keep: float) -> Deferred[Sequence[str]]:
        """See ``Queue.clear_aside``."""
        return self._write(lambda store: store.clear_aside(passed, keep))

    def totals(self) -> Deferred[QueueTotals]:
        """See ``Queue.totals``."""
        return self._read(lambda store: store.totals())

    def probe(self) -> Deferred[None]:
        """See ``Queue.probe``."""

        def probe(store: SQLiteStore) -> None:
            self.room.ask(0)
            store.probe()

        return self._write(probe)

    # What others do

    def _look(self) -> Deferred[None]:
        looked = self._read(lambda store: (store.data_version(), store.rubbish()))
        return looked.addCallbacks(self._looked, lambda _: None)

    def _looked(self, found: tuple[int, Sequence[int]]) -> None:
        version, rubbish = found
        for body in rubbish:
            if body not in self._swept:
                self.forget(body)
        before, self._version = self._version, version
        if before is not None and before != version:
            self._disturbed()

    def _disturbed(self) -> None:
        if self.observer is not None and self._open:
            try:
                self.observer.disturbed()
            except Exception:  # noqa: BLE001 - the queue is well
                self._log.failure("an observer of the queue failed")

    def _found_damaged(self, id_: str) -> None:
        """In the worker's thread; the logger may be used in any."""
        if id_ not in self._damaged:
            self._damaged.add(id_)
            self._log.warn("message {id} is damaged and set aside: it is not tried", id=id_)

    def _complain(self, failure: Any) -> None:
        self._log.failure("the queue is in trouble", failure=failure)
