"""The suite: all tests of the package in one class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_twisted

pytest.register_assert_rewrite(
    *[
        f"{__package__}.{name}"
        for name in ("adding", "concurrent", "delivering", "operators", "shared")
    ]
)

from twisted_sendmail.testing.queue_conformance.adding import ConformanceOfAdding  # noqa: E402
from twisted_sendmail.testing.queue_conformance.base import QueueHome  # noqa: E402
from twisted_sendmail.testing.queue_conformance.concurrent import (  # noqa: E402
    ConformanceOfConcurrency,
)
from twisted_sendmail.testing.queue_conformance.delivering import (  # noqa: E402
    ConformanceOfDelivering,
)
from twisted_sendmail.testing.queue_conformance.operators import (  # noqa: E402
    ConformanceForOperators,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from twisted_sendmail.queue import Queue


class QueueConformance(
    ConformanceOfAdding, ConformanceOfDelivering, ConformanceForOperators, ConformanceOfConcurrency
):
    """The promises of ``twisted_sendmail.queue.Queue``, each as a test.

    A subclass defines the fixture ``home``, with a :class:`QueueHome` that is empty for each test.
    """

    @pytest_twisted.async_yield_fixture
    async def queue(self, home: QueueHome) -> AsyncIterator[Queue]:
        """Open the queue in *home*."""
        opened, _ = await home.open()
        yield opened
        await opened.close()
