"""One relay per queue: a lock that the kernel keeps, and drops when the process is gone.

There is no stale lock after a crash: the file may stay, the lock does not.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from twisted_sendmail.queue.sqlite.premises import LOCK, refusal
from twisted_sendmail.queue.trouble import QueueBusy

if TYPE_CHECKING:
    from pathlib import Path


class RelayLock:
    """The lock of the queue in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take it, and hold it until ``release`` or the end of the process.

        :raises QueueBusy: another has it.
        :raises QueueUnusable: its file cannot be made.
        """
        path = self._directory / LOCK
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as e:
            raise refusal(path, f"{e.strerror}", "make it a file that can be written") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise QueueBusy(
                f"the queue {self._directory} is in use",
                detail=f"process {holder} has it" if holder.isdigit() else "",
                remedy="stop the relay that is running, or give another directory",
            ) from None
        self._descriptor = descriptor
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError:
            # No room for a few digits: the lock holds, only its holder is not named.
            pass

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
