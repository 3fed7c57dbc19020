"""Waiting for a condition, but not without end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
#: Seconds. Only what is broken takes so long, also on a busy machine.
PATIENCE = 60.0


def wait_until(condition: Callable[[], T], log: Callable[[], object] = str) -> T:
    """Wait until *condition* returns something true, and return that.

    :param log: what a failure shows.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, log()
        time.sleep(0.01)
    return found


async def until(
    reactor: Any,
    condition: Callable[[], T],
    log: Callable[[], object] = str,
    *,
    interval: float = 0.01,
) -> T:
    """Do the same while the reactor runs.

    :param interval: seconds, for a condition that takes long.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, log()
        await deferLater(reactor, interval)
    return found
