"""Group commit: what was asked for while the last commit ran shares the next one.

One write to the disk then serves as many messages as arrived meanwhile.  When one
operation of a group fails, the group is taken back, and each is done again in a
transaction of its own, so that only the guilty one fails.

It runs where the worker runs it, and knows no thread and no reactor.
"""

from __future__ import annotations

import contextlib
import enum
import sqlite3
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from twisted_sendmail.queue.sqlite.connection import trouble
from twisted_sendmail.queue.trouble import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted_sendmail.queue.sqlite.store import SQLiteStore


class Kind(enum.Enum):
    """What an operation does to the store."""

    READ = enum.auto()
    WRITE = enum.auto()
    #: It opens or closes, or knows its transactions itself.
    ALONE = enum.auto()


class Operation:
    """Something to do with the store, and who is told of it.

    :param does: does it, where a subclass has no :meth:`work` of its own.
    :param doing: for the error, behind "the queue could not".
    """

    __slots__ = ("_does", "doing", "error", "kind", "result")

    def __init__(
        self,
        does: Callable[[SQLiteStore], Any] | None = None,
        kind: Kind = Kind.WRITE,
        doing: str = "do it",
    ) -> None:
        self._does = does
        self.kind = kind
        self.doing = doing
        self.result: Any = None
        self.error: Exception | None = None

    #: Does many of a kind with fewer statements, in any order; gives those that it left.
    many: ClassVar[Any] = None

    def work(self, store: SQLiteStore) -> Any:
        """Do it.  It may be done again.  What it raises is told to who asked."""
        # A bound method of its own in here would keep each operation until the next round
        # of the garbage collector.
        return self._does(store) if self._does is not None else None

    def fire(self) -> None:
        """Tell who asked; in the reactor's thread, when it is durable."""

    def after(self) -> None:
        """Tell others, when all that shared the commit have been told."""


class GroupCommit:
    """Does operations with *store*."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store

    def run(self, operations: Sequence[Operation]) -> None:
        """Do them, in this order; their results and errors are then in them."""
        group: list[Operation] = []
        for operation in operations:
            if operation.kind is Kind.ALONE:
                self._together(group)
                group = []
                self._alone(operation)
            else:
                group.append(operation)
        self._together(group)

    def _alone(self, operation: Operation) -> None:
        try:
            operation.result = operation.work(self._store)
        except Exception as e:  # noqa: BLE001 - who asked gets it
            operation.error = trouble(e, operation.doing)

    def _together(self, group: list[Operation]) -> None:
        if not group:
            return
        store = self._store
        try:
            store.begin(write=any(o.kind is Kind.WRITE for o in group))
            for operation in group if len(group) == 1 else self._many(group):
                self._one(operation)
            store.commit()
        except Exception as e:  # noqa: BLE001 - who asked gets it
            self._take_back()
            if len(group) > 1:
                for operation in group:
                    self._together([operation])
            else:
                group[0].result = None
                group[0].error = trouble(e, group[0].doing)

    def _many(self, group: list[Operation]) -> Iterator[Operation]:
        """Do together what can be; gives the others, each in its turn."""
        for can_be, run in groupby(group, lambda operation: operation.many is not None):
            if not can_be:
                yield from run
                continue
            kinds: dict[Any, list[Operation]] = {}
            for operation in run:
                operation.error = None
                kinds.setdefault(operation.many, []).append(operation)
            for many, some in kinds.items():
                yield from many(self._store, some)

    def _one(self, operation: Operation) -> None:
        operation.error = None
        before = self._store.changes
        try:
            operation.result = operation.work(self._store)
        except QueueError as e:
            if self._store.changes != before:
                raise
            # It was refused before it changed anything: the others need not suffer.
            operation.error = e

    def _take_back(self) -> None:
        try:
            self._store.rollback()
        except (sqlite3.Error, QueueError):
            # A connection that cannot even take back is of no use any more.
            # Where that fails, the next operation says so.
            with contextlib.suppress(sqlite3.Error, OSError, QueueError):
                self._store.reopen()
