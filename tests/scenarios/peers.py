"""Skip or fail a scenario whose program is missing."""

from __future__ import annotations

import os

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
