"""Skip or fail a scenario whose program is missing."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def require(peer: str, why_not: str | None) -> None:
    """Skip the test if it cannot; with TWISTED_SENDMAIL_REQUIRE_PEERS=1 that is a failure.

    :param why_not: None: it can.
    """
    if why_not is None:
        return
    if os.environ.get("TWISTED_SENDMAIL_REQUIRE_PEERS") == "1":
        pytest.fail(f"no {peer}, and TWISTED_SENDMAIL_REQUIRE_PEERS=1: {why_not}")
    pytest.skip(f"no {peer}: {why_not}")


def python_of(environment: str) -> Path:
    """The interpreter of `.venv-peers/<environment>`, which tests/install-peers makes from tests/peers/.

    It is the present one if that has the program: `tox -e scrapy-oldest` installs a certain version.
    """
    if find_spec(environment) is not None:
        return Path(sys.executable)
    python = Path(__file__).parents[2] / ".venv-peers" / environment / "bin" / "python"
    require(
        environment, None if python.exists() else f"{python} is missing; run tests/install-peers"
    )
    return python


def fake_time_library() -> Path:
    """The library that sets the clock of a process that preloads it, by the variable FAKETIME."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    require("libfaketime", None if found else "run tests/install-peers")
    assert found is not None
    return found
