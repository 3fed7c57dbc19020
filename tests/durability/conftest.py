"""A next hop, a relay that delivers to it, and a parent process for many relays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from tests.durability.audit import Ledger
from tests.durability.next_hop import NextHop
from tests.durability.relay_process import RelayProcess
from tests.durability.zygote import Zygote

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
def relay(reactor: Any, tmp_path: Path, hop: NextHop) -> Iterator[RelayProcess]:
    """One that is not started yet."""
    made = RelayProcess(reactor, tmp_path, hop)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()
