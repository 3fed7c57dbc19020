"""The FIFO by which the ``sendmail`` command notifies the relay of mail in the drop directory.

A notification may be lost: the relay also scans the directory every few seconds.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from twisted_sendmail.drop import WAKEUP_FIFO

if TYPE_CHECKING:
    from collections.abc import Callable

#: Every user may write.
MODE = 0o622
#: Seconds between two reads: a user who floods the FIFO does not keep the relay busy.
WAKEUP_DELAY = 0.05

_log = Logger(namespace="twisted_sendmail.daemon.drop")


@implementer(IReadDescriptor)
class WakeupFifo:
    """The FIFO in *spool* to which the ``sendmail`` command writes; every user may.

    :param notified: called after someone wrote.
    """

    def __init__(self, reactor: Any, spool: str, notified: Callable[[], None]) -> None:
        self._reactor = reactor
        self._path = Path(spool, WAKEUP_FIFO)
        self._notified = notified
        # The writing end keeps the reading end from an end of file.
        self._descriptors: list[int] = []
        self._later: Any = None

    def open(self) -> None:
        """Make the FIFO and watch it, if the reactor can; without it, mail is found with a delay."""
        if not IReactorFDSet.providedBy(self._reactor):
            return
        try:
            if not self._exists():
                os.mkfifo(self._path, 0o600)
            self._path.chmod(MODE)
            flags = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            for end in (os.O_RDONLY, os.O_WRONLY):
                self._descriptors.append(os.open(self._path, end | flags))
        except OSError as e:
            _log.warn("mail of local programs is found with a delay: {error}", error=str(e))
            self.close()
            return
        self._reactor.addReader(self)

    def _exists(self) -> bool:
        try:
            if stat.S_ISFIFO(self._path.lstat().st_mode):
                return True
        except FileNotFoundError:
            return False
        self._path.unlink()
        return False

    def close(self) -> None:
        """Stop watching."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._descriptors:
            self._reactor.removeReader(self)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._descriptors[0] if self._descriptors else -1

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """See ``ILoggingContext``."""
        return "drop"

    def connectionLost(self, reason: Any) -> None:
        """See ``IFileDescriptor``."""
        self.close()

    def doRead(self) -> None:  # noqa: N802 - Twisted's
        """See ``IReadDescriptor``."""
        try:
            os.read(self._descriptors[0], 4096)
        except BlockingIOError:
            return
        self._reactor.removeReader(self)
        self._later = self._reactor.callLater(WAKEUP_DELAY, self._watch)
        self._notified()

    def _watch(self) -> None:
        self._later = None
        self._reactor.addReader(self)
