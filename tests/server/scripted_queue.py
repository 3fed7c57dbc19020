"""A queue in memory with scripted results, that records its calls."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.memory_queue import MemoryQueue as _MemorySpool
from tests.names import Intake, MessageInfo, QueuedMessage


class MemoryIntake(Intake):
    """One message on its way."""

    def __init__(self, spool: MemorySpool, intake: Intake) -> None:
        self.spool = spool
        self.content = b""
        self.aborted = 0
        self.committed: MessageInfo | None = None
        self._intake = intake

    def write(self, data: bytes) -> Deferred[None] | None:
        """Waits for ``spool.writing``, if a test put one there."""
        assert not self.aborted
        self.content += data
        waiting, self.spool.writing = self.spool.writing, None
        if isinstance(waiting, Exception):
            return fail(waiting)
        return self._intake.write(data) or waiting

    def commit(self, info: MessageInfo) -> Deferred[QueuedMessage]:
        """Waits for ``spool.committing``, if a test put one there."""
        assert not self.aborted
        self.committed = info
        waiting = self.spool.committing
        if isinstance(waiting, Exception):
            return fail(waiting)
        if waiting is None:
            return self._intake.commit(info)
        return waiting.addCallback(lambda _: self._intake.commit(info))

    def abort(self) -> None:
        """Forget it."""
        self.aborted += 1
        self._intake.abort()


class MemorySpool(_MemorySpool):
    """One that is open, with names that are easily read, and what is to go wrong."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.intakes: list[MemoryIntake] = []
        self.writing: Deferred[None] | Exception | None = None
        self.committing: Deferred[None] | Exception | None = None
        self._last = 0
        _ = self.open()

    @property
    def kept(self) -> list[tuple[MessageInfo, bytes]]:
        """What was committed, in its order."""
        return [(each.info, self.contents[each.id]) for each in self.messages.values()]

    def new_id(self) -> str:
        self._last += 1
        return f"ID{self._last}"

    def intake(self) -> MemoryIntake:
        self.intakes.append(MemoryIntake(self, super().intake()))
        return self.intakes[-1]
