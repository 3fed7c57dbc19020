"""The reactor, for those who drive real processes, and a parent for many of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.durability.zygote import Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()
