"""Notification of a relay that another process changed its queue.

The notification is a datagram without content, sent to a socket in the queue's directory.  The
relay also checks its queue every few seconds, so a lost notification only costs time.
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

from twisted_sendmail.queue.sqlite.files import WAKEUP, acting_as, foreign_owner

if TYPE_CHECKING:
    from collections.abc import Callable

# Longest path of a socket in octets (unix(7)).
_MAX_PATH = 107
_log = Logger(namespace="twisted_sendmail.queue")


def wake(directory: str | Path) -> bool:
    """Notify the relay of the queue in *directory*; return False if none listens."""
    owner = foreign_owner(Path(directory))
    try:
        with acting_as(owner), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            sending.sendto(b"\n", str(Path(directory) / WAKEUP))
    except OSError:
        return False
    return True


def relay_runs(directory: str | Path) -> bool | None:
    """Return whether a relay has the queue in *directory* open; None: that cannot be known."""
    path = os.fsencode(Path(directory) / WAKEUP)
    if len(path) > _MAX_PATH:
        return None
    owner = foreign_owner(Path(directory))
    try:
        with acting_as(owner), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            asking.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return None
    return True


class QueueNotifications(DatagramProtocol):
    """Receiver of notifications in *directory*; the relay's lock has to be held.

    :param changed: called for each notification.
    """

    noisy = False

    def __init__(self, directory: Path, changed: Callable[[], None]) -> None:
        self._path = directory / WAKEUP
        self._changed = changed
        self._port: Any = None

    def listen(self, reactor: Any) -> None:
        """Listen, if *reactor* supports Unix datagrams."""
        if not IReactorUNIXDatagram.providedBy(reactor):
            return
        if len(os.fsencode(self._path)) > _MAX_PATH:
            _log.warn("changes of the queue are noticed with a delay: its name is too long")
            return
        try:
            # Left by a relay that was killed: this process holds the lock.
            self._path.unlink(missing_ok=True)
            self._port = reactor.listenUNIXDatagram(str(self._path), self, 64, 0o600)
        except (OSError, CannotListenError) as e:
            _log.warn("changes of the queue are noticed with a delay: {error}", error=str(e))

    def stop(self) -> None:
        """Stop listening."""
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: N802 - Twisted's
        """Handle a notification, whatever it holds."""
        self._changed()
