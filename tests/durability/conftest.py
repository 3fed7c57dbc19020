"""A next hop, and a relay that delivers to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from tests.durability.audit import Ledger
from tests.durability.forked_relay import ForkedRelay
from tests.durability.next_hop import NextHop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest_twisted.async_yield_fixture
async def hop(reactor: Any, ledger: Ledger) -> AsyncIterator[NextHop]:
    """One that listens."""
    made = NextHop(reactor, ledger)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def relay(reactor: Any, tmp_path: Path, hop: NextHop) -> Iterator[ForkedRelay]:
    """One that is not started yet."""
    made = ForkedRelay(reactor, tmp_path, hop)
    yield made
    made.kill()
