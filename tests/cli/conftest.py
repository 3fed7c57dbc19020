"""Fixtures of the tests of the commands."""

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
    """A server without TLS that sends scripted replies."""
    server = ScriptedServer(reactor)
    yield server
    server.stop()


@pytest.fixture
def sendmail_command() -> str:
    """The installed sendmail command."""
    return str(Path(sys.executable).parent / "twisted-sendmail-sendmail")
