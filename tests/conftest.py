"""What every test shares: how Hypothesis works here, and the reactor.

Warnings are errors by `filterwarnings` in pyproject.toml.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.postgresql import database, own_postgresql, pgbouncer, postgresql, postgresql_pair

__all__ = ["database", "own_postgresql", "pgbouncer", "postgresql", "postgresql_pair"]

# The same examples in each run, and no deadline: a test may not fail because a machine is busy.
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# Ten times as many, new ones each time: HYPOTHESIS_PROFILE=hunt pytest tests/smtp
settings.register_profile(
    "hunt", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def reactor() -> Any:
    """The real one, which pytest-twisted runs."""
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user can enter; those of pytest are private."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
