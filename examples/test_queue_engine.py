"""Run the conformance suite of the queue against an engine: here the package's own, in SQLite."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from twisted.internet import reactor

from twisted_sendmail.queue import Queue, RecoveryReport, SQLiteQueue
from twisted_sendmail.testing.queue_conformance import QueueConformance, QueueHome


class DirectoryHome(QueueHome):
    """A directory in which the queue is opened, and killed, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lives = 0
        self.queue: SQLiteQueue | None = None

    @property
    def directory(self) -> Path:
        return self.folder / str(self.lives)

    async def open(self) -> tuple[Queue, RecoveryReport]:
        self.queue = SQLiteQueue(reactor, self.directory)
        return self.queue, await self.queue.open()

    async def kill(self) -> None:
        # The next one finds the files as they are now; what this one writes later is lost.
        assert self.queue is not None
        left = self.directory
        self.lives += 1
        self.directory.mkdir(mode=0o700)
        for path in left.glob("queue.sqlite3*"):
            shutil.copy2(path, self.directory)
        await self.queue.close()


class TestDirectory(QueueConformance):
    """Each promise of ``Queue`` is a test."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> DirectoryHome:
        return DirectoryHome(tmp_path)
