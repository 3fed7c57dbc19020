"""A spool that keeps in memory what is committed, and does what a test says."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from twisted_sendmail.spool.record import Draft, QueuedMessage, QueuedRecipient
from twisted_sendmail.spool.spool import Intake, Spool


class MemoryIntake(Intake):
    """One message on its way."""

    def __init__(self, spool: MemorySpool) -> None:
        self.spool = spool
        self.content = b""
        self.aborted = 0
        self.committed: Draft | None = None

    def write(self, data: bytes) -> Deferred[None] | None:
        """Waits for ``spool.writing``, if a test put one there."""
        assert not self.aborted
        self.content += data
        waiting, self.spool.writing = self.spool.writing, None
        if isinstance(waiting, Exception):
            return fail(waiting)
        return waiting

    def commit(self, draft: Draft) -> Deferred[QueuedMessage]:
        """Waits for ``spool.committing``, if a test put one there."""
        assert not self.aborted
        self.committed = draft
        waiting = self.spool.committing
        if isinstance(waiting, Exception):
            return fail(waiting)
        if waiting is None:
            return succeed(self._kept(draft))
        return waiting.addCallback(lambda _: self._kept(draft))

    def abort(self) -> None:
        """Forget it."""
        self.aborted += 1

    def _kept(self, draft: Draft) -> QueuedMessage:
        self.spool.kept.append((draft, self.content))
        recipients = (QueuedRecipient(n, r) for n, r in enumerate(draft.envelope.recipients))
        return QueuedMessage(draft, len(self.content), tuple(recipients))


class _Ways(Spool):
    """The other half of the interface: nobody takes anything out."""

    def _none(self) -> Any:
        raise NotImplementedError

    open = close = lease = next_due = content = settle = _none  # type: ignore[assignment]
    release = reroute = list = act = totals = _none  # type: ignore[assignment]


class MemorySpool(_Ways):
    """What was kept, and what is to go wrong."""

    def __init__(self) -> None:
        self.kept: list[tuple[Draft, bytes]] = []
        self.intakes: list[MemoryIntake] = []
        self.writing: Deferred[None] | Exception | None = None
        self.committing: Deferred[None] | Exception | None = None
        self._last = 0

    def new_id(self) -> str:
        self._last += 1
        return f"ID{self._last}"

    def intake(self) -> MemoryIntake:
        self.intakes.append(MemoryIntake(self))
        return self.intakes[-1]
