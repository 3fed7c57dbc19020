"""Room for mail: it is refused before there is none left to record what went out.

What the database has and does not use is room too; but its log needs room of its own.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from twisted_sendmail.queue.trouble import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Octets that are left to the records of the mail that is in.
LEAST_FREE = 32 * 1024 * 1024
# Seconds for which one look serves, where there is much room.
_FRESH = 1.0


class Room:
    """How much may still come in.

    :param directory: on this file system.
    :param least: octets that stay free; half of them on the file system itself.
    :param unused: octets that the database has and does not use.
    :param monotonic: seconds of a clock that does not jump.
    """

    def __init__(
        self,
        directory: Path,
        least: int,
        unused: Callable[[], int] = lambda: 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._least = least
        self._unused = unused
        self._monotonic = monotonic
        self._looked = float("-inf")
        self._left = 0

    def ask(self, size: int) -> None:
        """Is there room for *size* octets more?

        :raises QueueFull: there is not.
        """
        if not self._least:
            return
        now = self._monotonic()
        self._left -= size
        # The log holds a copy of what comes in: when it gets tight, look each time.
        if now - self._looked > _FRESH or self._left < 2 * self._least:
            found = os.statvfs(self._directory)
            free = found.f_bavail * found.f_frsize
            self._left = free + self._unused() - size if free >= self._least // 2 else 0
            self._looked = now
        if self._left < self._least:
            raise QueueFull(
                "the queue is short of room",
                detail=f"less than {self._least >> 20} MiB would be left free",
                remedy="make room on its file system",
            )
