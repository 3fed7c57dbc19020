"""What systemd wants to know of a service: that it is ready, reloading, stopping, alive.

One datagram of text to the socket that ``NOTIFY_SOCKET`` names; without it nothing is
said.  This is all of sd_notify(3) that a service needs, so that no library is.  Socket
activation (``LISTEN_FDS``) is Twisted's endpoint ``systemd:``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Tells systemd.

    :param environ: where its variables are.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._interval = _watchdog(environ)
        self._alive: LoopingCall | None = None

    def ready(self, status: str) -> None:
        """The service is up, or has reloaded."""
        self._say("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._say(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; :meth:`ready` ends it."""
        # Type=notify-reload wants to know when: time.monotonic is CLOCK_MONOTONIC.
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service goes down."""
        self._say("STOPPING=1")

    def watch(self, reactor: Any) -> None:
        """Feed the watchdog, if there is one, from the reactor: a reactor that hangs does not."""
        if self._interval is not None and self._alive is None:
            self._alive = LoopingCall(self._say, "WATCHDOG=1")
            self._alive.clock = reactor
            # LoopingCall gives a Deferred that fires when it is stopped.
            _ = self._alive.start(self._interval / 2)

    def rest(self) -> None:
        """End :meth:`watch`."""
        alive, self._alive = self._alive, None
        if alive is not None and alive.running:
            alive.stop()

    def _say(self, *lines: str) -> None:
        if self._address is None:
            return
        # Nobody may be listening any more: that is systemd's concern, not the mail's.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to,
        ):
            to.setblocking(False)
            to.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)


def _address(written: str) -> str | None:
    if written.startswith("@"):
        return "\0" + written[1:]
    return written if written.startswith("/") else None


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Seconds systemd waits for a sign of life; None when it does not."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0):
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
