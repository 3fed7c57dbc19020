"""Records that have to be written: repeated until they are.

What went out to the next hop must not go out again because the disk was full when it
was to be ticked off.  So its lease is kept, the record too, and it is written when there
is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_sendmail.spool.trouble import SpoolTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from twisted_sendmail.spool.sqlite_store import Store

#: Seconds until it is tried again: at first, and at the most.
FIRST, LAST = 0.5, 30.0


class Record:
    """One of them.

    :param ids: the messages it is about.
    :param work: writes it.
    """

    def __init__(self, ids: tuple[str, ...], work: Callable[[Store], Any]) -> None:
        self.ids = ids
        self.work = work
        #: Fires when it is durable.
        self.done: Deferred[Any] = Deferred()


class Insistence:
    """Writes records, in spite of all.

    :param clock: for the time between two tries.
    :param write: tries once.
    """

    _log = Logger(namespace="twisted_sendmail.spool")

    def __init__(
        self, clock: IReactorTime, write: Callable[[Callable[[Store], Any]], Deferred[Any]]
    ) -> None:
        self._clock = clock
        self._write = write
        self._waiting: list[Record] = []
        self._delay = FIRST
        self._timer: IDelayedCall | None = None

    def do(self, ids: tuple[str, ...], work: Callable[[Store], Any]) -> Deferred[Any]:
        """Write a record about *ids*; fires when it is durable.

        Cancelling stops the waiting, never the work.
        """
        record = Record(ids, work)
        self._try(record)
        return record.done

    def _try(self, record: Record) -> None:
        _ = self._write(record.work).addCallbacks(
            self._written, self._failed, callbackArgs=(record,), errbackArgs=(record,)
        )

    def _written(self, result: Any, record: Record) -> None:
        if self._waiting and self._delay > FIRST:
            # It works again: all the others at once.
            self._again()
        self._delay = FIRST
        record.done.callback(result)

    def _failed(self, failure: Failure, record: Record) -> None:
        if not getattr(failure.value, "transient", False):
            # Not the disk's fault: no other time is better.
            record.done.errback(failure)
            return
        if not self._waiting:
            self._log.error(
                "what became of {ids} could not be recorded, it is tried again: {error}",
                ids=", ".join(record.ids),
                error=failure.getErrorMessage(),
            )
        self._waiting.append(record)
        if self._timer is None:
            self._timer = self._clock.callLater(self._delay, self._probe)

    def _probe(self) -> None:
        """Try one; the others when it could be written."""
        self._timer = None
        self._delay = min(2 * self._delay, LAST)
        if self._waiting:
            self._try(self._waiting.pop(0))

    def _again(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for record in waiting:
            self._try(record)

    def last_try(self) -> None:
        """Try all of them once more, before the end."""
        self._again()

    def give_up(self) -> set[str]:
        """Stop, and tell who waits; gives the messages whose end is not recorded."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            record.done.errback(
                SpoolTrouble(
                    f"what became of {', '.join(record.ids)} could not be recorded",
                    detail="the queue was closed",
                )
            )
        return {id_ for record in waiting for id_ in record.ids}
