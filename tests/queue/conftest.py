"""An open queue for tests that need one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_twisted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.names import Queue
    from twisted_sendmail.testing.queue_conformance import QueueHome


@pytest_twisted.async_yield_fixture
async def spool(home: QueueHome) -> AsyncIterator[Queue]:
    """The one that lives in *home*, which the test's class has to give."""
    opened, _ = await home.open()
    yield opened
    await opened.close()
