"""Waking the relay of a queue: a datagram that says "look again", and nothing else.

It is sent by who changed the queue from another process; the relay looks by itself too,
a few seconds later, so nothing is lost where it cannot be sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorUNIXDatagram
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from twisted_sendmail.queue.sqlite.premises import WAKEUP

if TYPE_CHECKING:
    from collections.abc import Callable

# Octets of the address of a socket (unix(7)), less the one that ends it.
_LONGEST = 107
_log = Logger(namespace="twisted_sendmail.queue")


def wake(directory: str | Path) -> bool:
    """Tell the relay of the queue in *directory* to look again; False: none heard it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            sending.sendto(b"\n", str(Path(directory) / WAKEUP))
    except OSError:
        return False
    return True


class Wakeup(DatagramProtocol):
    """Listens in *directory*, and calls *woken*; the relay's lock has to be held."""

    def __init__(self, directory: Path, woken: Callable[[], None]) -> None:
        self._path = directory / WAKEUP
        self._woken = woken
        self._port: Any = None

    def listen(self, reactor: Any) -> None:
        """Listen, where *reactor* can."""
        if not IReactorUNIXDatagram.providedBy(reactor):
            return
        if len(os.fsencode(self._path)) > _LONGEST:
            _log.warn("changes of the queue are noticed with a delay: its name is too long")
            return
        try:
            # Of a relay that was killed; the one that lives is us, we have the lock.
            self._path.unlink(missing_ok=True)
            self._port = reactor.listenUNIXDatagram(str(self._path), self, 64, 0o600)
        except (OSError, CannotListenError) as e:
            _log.warn("changes of the queue are noticed with a delay: {error}", error=str(e))

    def stop(self) -> None:
        """Listen no more."""
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: N802 - Twisted's
        """Whatever it says, it means one thing."""
        self._woken()
