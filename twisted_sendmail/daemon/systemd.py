"""Notifications to systemd: ready, reloading, stopping, alive.

Each is one datagram of text to the socket that ``NOTIFY_SOCKET`` names; without that variable nothing
is sent. A service needs no more of sd_notify(3), so no library is used. Socket activation
(``LISTEN_FDS``) is Twisted's endpoint ``systemd:``.
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
    """Sends notifications to systemd.

    :param environ: the environment variables.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_timeout = _watchdog_timeout(environ)
        self._watchdog: LoopingCall | None = None

    def ready(self, status: str) -> None:
        """Notify that the service is up, or has reloaded; *status* is a line for ``systemctl status``."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Notify that a reload has begun; :meth:`ready` ends it."""
        # Type=notify-reload needs the time; time.monotonic is CLOCK_MONOTONIC.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Notify that the service has begun to stop."""
        self._send("STOPPING=1")

    def start_watchdog(self, reactor: Any) -> None:
        """Feed the watchdog, if systemd has one, from the reactor; one that hangs does not."""
        if self._watchdog_timeout is not None and self._watchdog is None:
            self._watchdog = LoopingCall(self._send, "WATCHDOG=1")
            self._watchdog.clock = reactor
            # The Deferred fires when the LoopingCall stops.
            _ = self._watchdog.start(self._watchdog_timeout / 2)

    def stop_watchdog(self) -> None:
        """Feed the watchdog no more."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None and watchdog.running:
            watchdog.stop()

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        # If systemd does not listen any more, mail goes on.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client,
        ):
            client.setblocking(False)
            client.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)


def _socket_address(written: str) -> str | None:
    if written.startswith("@"):
        return "\0" + written[1:]
    return written if written.startswith("/") else None


def _watchdog_timeout(environ: Mapping[str, str]) -> float | None:
    """Return the seconds after which systemd kills a service that sent nothing; None: there is no watchdog."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0):
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
