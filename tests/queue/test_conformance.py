"""Every implementation of the queue passes the conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from tests.queue.engines import MemoryHome, PostgreSQLHome, SqliteHome
from twisted_sendmail.testing.queue_conformance import (
    QueueConformance,
    QueueHome,
    SharedQueueConformance,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import PostgreSQL


class TestMemory(QueueConformance):
    @pytest.fixture
    def home(self) -> QueueHome:
        return MemoryHome(Clock())


class TestSqliteOnAThread(QueueConformance):
    @pytest.fixture
    def home(self, tmp_path: Path) -> QueueHome:
        from twisted.internet import reactor

        return SqliteHome(reactor, tmp_path / "queue", inline=False)


class TestSqliteInline(QueueConformance):
    @pytest.fixture
    def home(self, tmp_path: Path) -> QueueHome:
        return SqliteHome(Clock(), tmp_path / "queue", inline=True)


class TestPostgreSQL(QueueConformance, SharedQueueConformance):
    @pytest.fixture
    def home(self, postgresql: PostgreSQL, database: str) -> PostgreSQLHome:
        from twisted.internet import reactor

        return PostgreSQLHome(reactor, postgresql, database)
