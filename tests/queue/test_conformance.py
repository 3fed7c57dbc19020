"""Every implementation of the queue passes the conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from tests.queue.conformance import Conformance
from tests.queue.conformance_base import Home
from tests.queue.engines import MemoryHome, PostgreSQLHome, SqliteHome

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import PostgreSQL


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


class TestPostgreSQLOnThreads(Conformance):
    @pytest.fixture
    def home(self, postgresql: PostgreSQL, database: str) -> Home:
        from twisted.internet import reactor

        return PostgreSQLHome(reactor, postgresql, database, inline=False)


class TestPostgreSQLInline(Conformance):
    @pytest.fixture
    def home(self, postgresql: PostgreSQL, database: str) -> Home:
        return PostgreSQLHome(Clock(), postgresql, database, inline=True)
