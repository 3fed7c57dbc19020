"""The conformance suite of every engine of the queue, for pytest with pytest-twisted.

An engine passes when a class that inherits :class:`QueueConformance` does::

    class TestMyQueue(QueueConformance):
        @pytest.fixture
        def home(self, tmp_path):
            return MyHome(tmp_path)

``MyHome`` is a :class:`QueueHome`: it opens the queue in one place, and ends it as a crash would.
An engine that several relays share passes :class:`SharedQueueConformance` as well.
"""

from __future__ import annotations

from twisted_sendmail.testing.queue_conformance.base import QueueHome
from twisted_sendmail.testing.queue_conformance.shared import (
    SharedQueueConformance,
    SharedQueueHome,
)
from twisted_sendmail.testing.queue_conformance.suite import QueueConformance

__all__ = ["QueueConformance", "QueueHome", "SharedQueueConformance", "SharedQueueHome"]
