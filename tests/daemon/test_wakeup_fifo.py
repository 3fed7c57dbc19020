"""The FIFO by which local programs wake the relay."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock, deferLater

from twisted_sendmail.daemon.wakeup_fifo import WAKEUP_DELAY, WakeupFifo
from twisted_sendmail.drop import DropSettings, wake_relay


def settings(folder: Path) -> DropSettings:
    names = {"name": "h", "sender_domain": "h", "recipient_domain": "h"}
    numbers = dict.fromkeys(["message_size", "header_size", "recipients", "hops"], 1)
    return DropSettings(str(folder), str(folder), **names, **numbers)  # type: ignore[arg-type]


@ensureDeferred
async def test_each_writer_wakes_the_relay(reactor: Any, tmp_path: Path) -> None:
    notified: list[int] = []
    fifo = WakeupFifo(reactor, str(tmp_path), lambda: notified.append(1))
    fifo.open()
    try:
        path = tmp_path / "sendmail.fifo"
        assert stat.S_IMODE(path.stat().st_mode) == 0o622
        for count in (1, 2):
            wake_relay(settings(tmp_path))
            await deferLater(reactor, WAKEUP_DELAY * 4)
            assert len(notified) == count
    finally:
        fifo.close()
    # Nobody reads it: the command does not wait.
    wake_relay(settings(tmp_path))


@ensureDeferred
async def test_a_flood_wakes_the_relay_now_and_then(reactor: Any, tmp_path: Path) -> None:
    notified: list[int] = []
    fifo = WakeupFifo(reactor, str(tmp_path), lambda: notified.append(1))
    fifo.open()
    writer = os.open(tmp_path / "sendmail.fifo", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(writer, b"x" * 60_000)
        await deferLater(reactor, WAKEUP_DELAY * 4)
        assert 1 <= len(notified) <= 5
    finally:
        os.close(writer)
        fifo.close()


def test_another_file_in_its_place_is_replaced(reactor: Any, tmp_path: Path) -> None:
    path = tmp_path / "sendmail.fifo"
    target = tmp_path / "target"
    target.write_text("kept")
    path.symlink_to(target)
    fifo = WakeupFifo(reactor, str(tmp_path), lambda: None)
    fifo.open()
    fifo.close()
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert target.read_text() == "kept"


def test_without_it_or_in_a_missing_directory_nothing_fails(reactor: Any, tmp_path: Path) -> None:
    wake_relay(settings(tmp_path))
    for given in (Clock(), reactor):
        fifo = WakeupFifo(given, str(tmp_path / "absent"), lambda: None)
        fifo.open()
        fifo.close()
        assert fifo.fileno() == -1
