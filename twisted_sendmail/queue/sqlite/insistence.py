"""Records that have to be written: repeated until they are.

What went out to the next hop must not go out again because the disk was full when it
was to be ticked off.  So its lease is kept, the record too, and it is written when there
is room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_sendmail.queue.sqlite.group_commit import Operation
from twisted_sendmail.queue.trouble import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_sendmail.queue.sqlite.store import SQLiteStore

#: Seconds until it is tried again: at first, and at the most.
FIRST, LAST = 0.5, 30.0


class Insistence:
    """Writes records, in spite of all.

    :param clock: for the time between two tries.
    :param submit: has an operation done.
    """

    _log = Logger(namespace="twisted_sendmail.queue")

    def __init__(self, clock: IReactorTime, submit: Callable[[Operation], None]) -> None:
        self._clock = clock
        self._submit = submit
        self._waiting: list[Record] = []
        self._delay = FIRST
        self._timer: IDelayedCall | None = None

    def do(self, record: Record) -> Deferred[Any]:
        """Write *record*; fires when it is durable.

        Cancelling stops the waiting, never the work.
        """
        self._submit(record)
        return record.done

    def heard(self, record: Record) -> None:
        """The end of one try."""
        error = record.error
        if error is None:
            self._written(record)
        elif getattr(error, "temporary", False):
            self._failed(record, error)
        else:
            # Not the disk's fault: no other time is better.
            record.done.errback(error)

    def _written(self, record: Record) -> None:
        if self._waiting and self._delay > FIRST:
            # It works again: all the others at once.
            self.all_again()
        self._delay = FIRST
        record.done.callback(record.result)

    def _failed(self, record: Record, error: Exception) -> None:
        if not self._waiting:
            self._log.error(
                "what became of {ids} could not be recorded, it is tried again: {error}",
                ids=", ".join(record.ids),
                error=str(error),
            )
        self._waiting.append(record)
        if self._timer is None:
            self._timer = self._clock.callLater(self._delay, self._probe)

    def _probe(self) -> None:
        """Try one; the others when it could be written."""
        self._timer = None
        self._delay = min(2 * self._delay, LAST)
        if self._waiting:
            self._submit(self._waiting.pop(0))

    def all_again(self) -> None:
        """Try all of them at once."""
        waiting, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for record in waiting:
            self._submit(record)

    def give_up(self) -> set[str]:
        """Stop, and tell who waits; gives the messages whose end is not recorded."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            record.done.errback(
                QueueError(
                    f"what became of {', '.join(record.ids)} could not be recorded",
                    detail="the queue was closed",
                )
            )
        return {id_ for record in waiting for id_ in record.ids}


class Record(Operation):
    """One of them.

    :param insistence: is told how it went.
    :param ids: the messages it is about.
    :param does: writes it, where a subclass has no :meth:`work` of its own.
    """

    __slots__ = ("_insistence", "done", "ids")

    def __init__(
        self,
        insistence: Insistence,
        ids: tuple[str, ...],
        does: Callable[[SQLiteStore], Any] | None = None,
    ) -> None:
        super().__init__(does, doing="record what became of a message")
        self._insistence = insistence
        self.ids = ids
        #: Fires when it is durable.
        self.done: Deferred[Any] = Deferred()

    def fire(self) -> None:
        """See ``Operation.fire``."""
        self._insistence.heard(self)
