"""A relay in memory for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.relay.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "queue"
    directory.mkdir(0o700)
    made = World(directory)
    yield made
    made.close()
