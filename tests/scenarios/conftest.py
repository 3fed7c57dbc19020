"""The peers of the scenarios. Where one cannot run, what needs it is skipped, or fails: see `postfix`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from tests.scenarios.postfix import Postfix, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def running_postfix() -> Iterator[Postfix]:
    """A private Postfix. With TWISTED_SENDMAIL_REQUIRE_PEERS=1, not to have one is a failure."""
    why = why_not()
    if why is not None and os.environ.get("TWISTED_SENDMAIL_REQUIRE_PEERS") == "1":
        pytest.fail(f"no Postfix, and TWISTED_SENDMAIL_REQUIRE_PEERS=1: {why}")
    if why is not None:
        pytest.skip(f"no Postfix: {why}")
    with Postfix() as running:
        yield running


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest_twisted.async_fixture
async def postfix(reactor: Any, running_postfix: Postfix) -> Postfix:
    """The same Postfix for all, and at rest: what it logs from here on is of this test."""
    await running_postfix.quiet(reactor)
    return running_postfix
