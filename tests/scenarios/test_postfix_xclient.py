"""An extension from outside against a real Postfix: `examples/xclient.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.scenarios.postfix import Postfix

EXAMPLE = Path(__file__).parents[2] / "examples/xclient.py"


def run(postfix: Postfix, service: str, address: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(postfix.ports[service]), address, "alice@example.test", "bob@example.test"]
    return subprocess.run(
        [sys.executable, EXAMPLE, "127.0.0.1", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_postfix_logs_the_address_that_xclient_gives(postfix: Postfix) -> None:
    done = run(postfix, "xclient", "192.0.2.77")
    assert (done.returncode, done.stdout[:4]) == (0, "250 "), done.stderr
    assert postfix.logged("client=unknown[192.0.2.77]")


def test_postfix_without_xclient_gets_no_message(postfix: Postfix) -> None:
    done = run(postfix, "no_tls", "192.0.2.77")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not offer XCLIENT" in done.stderr
