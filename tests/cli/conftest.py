"""What the tests of the command share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.scripted import ScriptedServer
from tests.cli.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def scripted(reactor: Any) -> Iterator[ScriptedServer]:
    """A server in clear that says what it is told to; stopped by the test's own reactor."""
    server = ScriptedServer(reactor)
    yield server
    server.stop()


@pytest.fixture
def sendmail_command() -> str:
    """The stand-in for sendmail, as it is installed."""
    return str(Path(sys.executable).parent / "twisted-sendmail-sendmail")
