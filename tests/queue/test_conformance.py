"""Every implementation of the queue passes the conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from tests.queue.conformance import Conformance
from tests.queue.conformance_base import Home
from tests.queue.engines import MemoryHome, SqliteHome

if TYPE_CHECKING:
    from pathlib import Path


class TestMemory(Conformance):
    @pytest.fixture
    def home(self) -> Home:
        return MemoryHome(Clock())


class TestSqliteOnAThread(Conformance):
    @pytest.fixture
    def home(self, tmp_path: Path) -> Home:
        from twisted.internet import reactor

        return SqliteHome(reactor, tmp_path / "queue", inline=False)


class TestSqliteInline(Conformance):
    @pytest.fixture
    def home(self, tmp_path: Path) -> Home:
        return SqliteHome(Clock(), tmp_path / "queue", inline=True)
