"""One message on its way into the SQLite store.

A small one is kept in memory until its commit, and written with it.  Of a larger one
pieces are written as they come; who brings it waits while too many are on their way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from twisted_sendmail.queue.interface import SMALL, Intake
from twisted_sendmail.queue.sqlite.arriving import PIECE, Pieces
from twisted_sendmail.queue.sqlite.operations import Arrival, Piece
from twisted_sendmail.queue.trouble import QueueError

if TYPE_CHECKING:
    from twisted_sendmail.queue.models import MessageInfo, QueuedMessage
    from twisted_sendmail.queue.sqlite.spool import SQLiteQueue

#: Pieces on their way to the disk, of one message, at the most.
_ON_THE_WAY = 2
_log = Logger(namespace="twisted_sendmail.queue")


class SQLiteIntake(Intake):
    """A message of *spool*."""

    def __init__(self, spool: SQLiteQueue) -> None:
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
            return fail(QueueError("the message has ended"))
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
        self._spool.submit(Piece(self, self._spool.room, (self._body, self._count), data))
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

    def commit(self, draft: MessageInfo) -> Deferred[QueuedMessage]:
        """See ``Intake.commit``."""
        if self._ended:
            return fail(QueueError("the message has ended"))
        self._ended = True
        if self._error is not None:
            self._forget()
            return fail(self._error)
        parts, self._parts = self._parts, []
        rest = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._size <= SMALL:
            return self._spool.bring(Arrival(self._spool, draft, rest, self))
        if rest:
            self._put(rest)
        body = self._body if self._body is not None else 0
        pieces = Pieces(body, self._count, self._size)
        return self._spool.bring(Arrival(self._spool, draft, pieces, self))

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
