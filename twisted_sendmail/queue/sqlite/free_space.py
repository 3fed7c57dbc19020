"""Free space for the queue: mail is refused before the disk is full.

``connection.queue_error`` makes ``QueueFull`` of the error of a disk that is full all the same.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from twisted_sendmail.queue.errors import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Octets of free space reserved for recording the results of mail that is in the queue.
LEAST_FREE = 32 * 1024 * 1024
# Seconds for which one reading of the free space is used, while there is plenty.
_FRESH = 1.0


class FreeSpace:
    """Admission by free space: mail is refused while there is still space to record results.

    Unused pages of the database count as free space, but its log needs space of its own.

    :param directory: any path on the file system.
    :param least: octets to keep free; half of them on the file system itself; 0: no limit.
    :param unused: returns the octets of unused pages in the database.
    :param monotonic: clock in seconds that does not jump.
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
        self._read_at = float("-inf")
        self._left = 0

    def reserve(self, size: int) -> None:
        """Reserve *size* octets.

        :raises QueueFull: there is too little free space.
        """
        if not self._least:
            return
        now = self._monotonic()
        self._left -= size
        # The log holds a copy of what is written: near the limit read the free space each time.
        if now - self._read_at > _FRESH or self._left < 2 * self._least:
            self._left = self._free() - size
            self._read_at = now
        if self._left < self._least:
            raise QueueFull(
                "the queue has too little free space",
                detail=f"less than {self._least >> 20} MiB would be left free",
            )

    def check(self, size: int) -> None:
        """Check the space for *size* octets of mail that can wait outside the queue.

        They leave twice as much free as other mail does, and the log holds a copy of them.

        :raises QueueFull: there is too little free space.
        """
        if self._least and self._free() < 2 * (self._least + size):
            raise QueueFull(
                "the queue has too little free space",
                detail=f"{2 * self._least >> 20} MiB are left for mail that comes by SMTP",
            )

    def _free(self) -> int:
        """Return the octets that may be used; 0 if the file system has too few of its own."""
        found = os.statvfs(self._directory)
        free = found.f_bavail * found.f_frsize
        return free + self._unused() if free >= self._least // 2 else 0
