"""Notifications to systemd, on a socket like its own."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from twisted_sendmail.daemon.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator


class NotifySocket:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def take(self) -> list[str]:
        said = []
        while True:
            try:
                said.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return said


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[NotifySocket]:
    notify_socket = NotifySocket(str(tmp_path / "notify"))
    yield notify_socket
    notify_socket.socket.close()


def test_each_state_is_one_datagram(notify_socket: NotifySocket, tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.ready("accepting mail")
    notifier.reloading()
    notifier.stopping()
    ready, reloading, stopping = notify_socket.take()
    assert "READY=1\nSTATUS=accepting mail" == ready
    assert "STOPPING=1" == stopping
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[0-9]+", reloading)


def test_an_abstract_socket_works_too() -> None:
    name = f"twisted-sendmail-{os.getpid()}"
    notify_socket = NotifySocket(f"\0{name}")
    Notifier({"NOTIFY_SOCKET": f"@{name}"}).stopping()
    assert ["STOPPING=1"] == notify_socket.take()
    notify_socket.socket.close()


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nil/nil"}, {"NOTIFY_SOCKET": "x"}]
)
def test_without_a_listening_socket_nothing_happens(environ: dict[str, str]) -> None:
    Notifier(environ).ready("x")


def test_the_watchdog_is_fed_twice_in_its_time_until_it_stops(
    notify_socket: NotifySocket, tmp_path: Path
) -> None:
    clock = Clock()
    notifier = Notifier(
        {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "10000000",
            "WATCHDOG_PID": str(os.getpid()),
        }
    )
    notifier.start_watchdog(clock)
    clock.pump([1] * 11)
    assert ["WATCHDOG=1"] * 3 == notify_socket.take()
    notifier.stop_watchdog()
    clock.pump([1] * 11)
    assert ([], []) == (notify_socket.take(), clock.getDelayedCalls())


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {},
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(environ: dict[str, str]) -> None:
    clock = Clock()
    Notifier(environ).start_watchdog(clock)
    assert [] == clock.getDelayedCalls()
