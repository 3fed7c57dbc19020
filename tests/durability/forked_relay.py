"""A relay in a forked process, which can be told to end at a call of the storage, or that the disk is full."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.durability.relay_process import RelayProcess
from tests.forked import ForkedProcess, run_command
from tests.queue.failing_store import Choke, exiting


class ForkedRelay(RelayProcess):
    """One that is forked, which takes less time than a start.

    :ivar at: end the process at this call of the storage; 0: at none.
    :ivar before: before the call, not after it.
    """

    at = 0
    before = True

    @property
    def full(self) -> Path:
        """While there is such a file, nothing can be written to the queue."""
        return self.folder / "full"

    def launch(self, **environment: str) -> ForkedProcess:
        """Start the process; it is not ready yet."""
        log = self.folder / "log"
        log.touch()
        command = partial(run_command, *self.command)
        self.process = ForkedProcess(
            partial(_run, command, self.at, before=self.before, full=self.full),
            folder=self.folder,
            env={**os.environ, **environment},
            streams=[os.devnull, str(log), str(log)],
        )
        return self.process


def _run(command: Callable[[], None], at: int, *, before: bool, full: Path) -> None:
    if at:
        exiting(at, before=before).install()
    else:
        _full_while(full)
    command()


def _full_while(there: Path) -> None:
    """Let the disk be full as long as there is a file of this name."""

    def refuse(number: int, sql: str) -> None:
        if sql.split(None, 1)[0] in {"INSERT", "UPDATE", "DELETE", "COMMIT"} and there.exists():
            raise sqlite3.OperationalError("database or disk is full")

    Choke(before=refuse).install()
