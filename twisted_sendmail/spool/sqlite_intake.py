"""One message on its way into the SQLite store.

A small one is kept in memory until its commit, and written with it.  Of a larger one
pieces are written as they come; who brings it waits while too many are on their way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from twisted_sendmail.spool.arriving import PIECE, Pieces
from twisted_sendmail.spool.group_commit import Operation
from twisted_sendmail.spool.record import Leased
from twisted_sendmail.spool.spool import SMALL, Intake
from twisted_sendmail.spool.trouble import SpoolTrouble

if TYPE_CHECKING:
    from twisted_sendmail.spool.record import Draft, QueuedMessage
    from twisted_sendmail.spool.sqlite_spool import SqliteSpool
    from twisted_sendmail.spool.sqlite_store import Store

#: Pieces on their way to the disk, of one message, at the most.
_ON_THE_WAY = 2
_log = Logger(namespace="twisted_sendmail.spool")


class SqliteIntake(Intake):
    """A message of *spool*."""

    def __init__(self, spool: SqliteSpool) -> None:
        self._spool = spool
        self._parts: list[bytes] = []
        self._held = 0
        self._size = 0
        self._ended = False
        # Of a large one.
        self._body: int | None = None
        self._count = 0
        self._writing = 0
        self._error: Exception | None = None
        self._waiter: Deferred[None] | None = None

    def write(self, data: bytes) -> Deferred[None] | None:
        """See ``Intake.write``."""
        if self._ended:
            return fail(SpoolTrouble("the message has ended"))
        if self._error is not None:
            return fail(self._error)
        self._parts.append(data)
        self._held += len(data)
        self._size += len(data)
        if self._size <= SMALL or self._held < PIECE:
            return None
        held = b"".join(self._parts)
        whole = len(held) - len(held) % PIECE
        for start in range(0, whole, PIECE):
            self._put(held[start : start + PIECE])
        self._parts, self._held = [held[whole:]], len(held) - whole
        return self._wait()

    def _put(self, data: bytes) -> None:
        if self._body is None:
            self._body = self._spool.new_body()
        self._writing += 1
        self._spool.submit(_Piece(self, self._body, self._count, data))
        self._count += 1

    def _wait(self) -> Deferred[None] | None:
        if self._error is not None:
            return fail(self._error)
        if self._writing < _ON_THE_WAY:
            return None
        self._waiter = Deferred()
        return self._waiter

    def written(self, error: Exception | None) -> None:
        """A piece is on the disk, or will never be."""
        self._writing -= 1
        self._error = self._error or error
        waiter = self._waiter
        if waiter is not None and (self._error is not None or self._writing < _ON_THE_WAY):
            self._waiter = None
            if self._error is None:
                waiter.callback(None)
            else:
                waiter.errback(self._error)

    def commit(self, draft: Draft) -> Deferred[QueuedMessage]:
        """See ``Intake.commit``."""
        if self._ended:
            return fail(SpoolTrouble("the message has ended"))
        self._ended = True
        if self._error is not None:
            self._forget()
            return fail(self._error)
        parts, self._parts = self._parts, []
        rest = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._size <= SMALL:
            return self._spool.bring(_Arrival(self._spool, draft, rest, self))
        if rest:
            self._put(rest)
        body = self._body if self._body is not None else 0
        pieces = Pieces(body, self._count, self._size)
        return self._spool.bring(_Arrival(self._spool, draft, pieces, self))

    def ended(self, error: Exception | None) -> Exception | None:
        """The commit has ended; gives the error that came first."""
        error = self._error or error
        if error is not None:
            self._forget()
        return error

    def abort(self) -> None:
        """See ``Intake.abort``."""
        if not self._ended:
            self._ended = True
            self._parts = []
            self._forget()

    def _forget(self) -> None:
        if self._body is not None:
            self._spool.forget(self._body)


class _Piece(Operation):
    __slots__ = ("_at", "_data", "_intake")

    def __init__(self, intake: SqliteIntake, body: int, place: int, data: bytes) -> None:
        super().__init__(self._write, doing="take the message in")
        self._intake = intake
        self._at = body, place
        self._data = data

    def _write(self, store: Store) -> None:
        self._intake._spool.room.ask(len(self._data))  # noqa: SLF001 - one class in two
        store.put_piece(*self._at, self._data)

    def fire(self) -> None:
        self._intake.written(self.error)


class _Arrival(Operation):
    __slots__ = ("_claimed", "_content", "_draft", "_intake", "_spool", "done")

    def __init__(
        self, spool: SqliteSpool, draft: Draft, content: bytes | Pieces, intake: SqliteIntake
    ) -> None:
        super().__init__(self._write, doing="take the message in")
        self._spool = spool
        self._draft = draft
        self._content = content
        self._intake = intake
        self._claimed = False
        self.done: Deferred[Any] = Deferred()

    def claim(self) -> None:
        """Ask whether it is tried at once."""
        observer = self._spool.observer
        if observer is not None and not self._draft.held:
            try:
                self._claimed = observer.claim(self._draft)
            except Exception:  # noqa: BLE001 - it is taken in all the same
                _log.failure("an observer of the queue failed")

    def _write(self, store: Store) -> QueuedMessage:
        if isinstance(self._content, bytes):
            self._spool.room.ask(len(self._content))
        return store.put(self._draft, self._content, leased=self._claimed)

    def fire(self) -> None:
        self.error = self._intake.ended(self.error)
        if self.error is None:
            self.done.callback(self.result)
        else:
            self.done.errback(self.error)

    def after(self) -> None:
        observer = self._spool.observer
        if observer is None:
            return
        if self.error is None:
            small = self._claimed and isinstance(self._content, bytes)
            content = self._content if small else None
            observer.arrived(Leased(self.result, content), claimed=self._claimed)  # type: ignore[arg-type]
        elif self._claimed:
            observer.unclaimed(self._draft)
