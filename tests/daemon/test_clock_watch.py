"""Timers are kept when the clock is set."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_sendmail.daemon import clock_watch
from twisted_sendmail.daemon.clock_watch import ClockWatch

DAY = 86400.0
LIBRARY = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), "")


class Machine(Clock):
    """A reactor whose clock somebody sets; ``monotonic`` goes on as it should."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 1e9
        self.monotonic = 500.0
        self.jumps: list[float] = []
        self.watch = ClockWatch(
            self, self.jumps.append, wall=self.seconds, monotonic=lambda: self.monotonic
        )

    def callFromThread(self, call: Any) -> None:
        call()

    def pass_(self, seconds: float) -> None:
        """Time goes on."""
        self.monotonic += seconds
        self.advance(seconds)
        self.watch.compare()

    def set(self, seconds: float) -> None:
        """Somebody sets the clock, forward or back."""
        self.rightNow += seconds
        self.watch.compare()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(clock_watch, "COMPARE_INTERVAL", 1e6)
    machine = Machine()
    machine.watch.start()
    yield machine
    machine.watch.stop()


@pytest.mark.parametrize("jump", [3600, -3600, 6 * DAY, -6 * DAY, -1e9])
def test_a_timer_fires_after_its_delay(machine: Machine, jump: float) -> None:
    fired: list[str] = []
    machine.callLater(10, fired.append, "soon")
    machine.callLater(300, fired.append, "later")
    machine.pass_(4)
    machine.set(jump)
    assert ([jump], []) == (machine.jumps, fired)
    machine.pass_(5.9)
    assert [] == fired
    machine.pass_(0.2)
    assert ["soon"] == fired
    machine.pass_(289.8)
    assert ["soon"] == fired
    machine.pass_(0.2)
    assert ["soon", "later"] == fired


def test_a_clock_set_forward_in_a_busy_moment_fires_nothing_that_is_not_due(
    machine: Machine,
) -> None:
    """The reactor runs its timers before the thread could wake it."""
    fired: list[str] = []
    machine.callLater(300, fired.append, "timeout")
    machine.callLater(5, fired.append, "soon")
    machine.pass_(1)
    machine.advance(6 * DAY)
    assert ([6 * DAY], []) == (machine.jumps, fired)
    machine.pass_(3.9)
    assert [] == fired
    machine.pass_(0.2)
    assert ["soon"] == fired
    machine.pass_(294.8)
    assert ["soon"] == fired
    machine.pass_(0.2)
    assert ["soon", "timeout"] == fired


def test_it_leaves_no_timer(machine: Machine) -> None:
    assert 1 == len(machine.getDelayedCalls())
    machine.set(3600)
    assert 1 == len(machine.getDelayedCalls())
    machine.watch.stop()
    assert [] == machine.getDelayedCalls()


def test_small_steps_and_slow_adjustment_are_no_jump(machine: Machine) -> None:
    machine.callLater(1000, int)
    for _ in range(20):
        machine.pass_(1)
        machine.set(0.5)
        machine.set(-2.5)
    assert [] == machine.jumps


def test_each_jump_counts_once(machine: Machine) -> None:
    for jump in (100, -50, -50):
        machine.set(jump)
        machine.pass_(1)
    assert [100, -50, -50] == machine.jumps


def test_after_the_end_nothing_is_moved(machine: Machine) -> None:
    fired: list[str] = []
    machine.callLater(10, fired.append, "soon")
    machine.watch.stop()
    machine.set(3600)
    assert [] == machine.jumps


def test_the_thread_ends_with_it() -> None:
    machine = Machine()
    machine.watch.start()
    assert "clock watch" in [thread.name for thread in threading.enumerate()]
    machine.watch.stop()
    assert "clock watch" not in [thread.name for thread in threading.enumerate()]


@ensureDeferred
async def test_the_thread_wakes_a_reactor_that_sleeps(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the wall clock of the watch jumps; the real reactor's timer is an hour away."""
    monkeypatch.setattr(clock_watch, "COMPARE_INTERVAL", 0.01)
    ahead = [0.0]
    jumped: Deferred[float] = Deferred()
    watch = ClockWatch(reactor, jumped.callback, wall=lambda: time.time() + ahead[0])
    timer = reactor.callLater(3600, int)
    try:
        due = timer.getTime()
        watch.start()
        ahead[0] = -3000.0
        assert -3000 == round(await jumped)
        assert -3000 == round(timer.getTime() - due)
    finally:
        watch.stop()
        timer.cancel()


FAKED = """
import os, sys, threading, time
from twisted.internet import reactor
from twisted_sendmail.daemon.clock_watch import ClockWatch

begun = time.monotonic()
watch = ClockWatch(reactor, lambda jump: print("jump", round(jump / 86400), flush=True))
watch.start()
reactor.callLater(3, lambda: print("fired", time.monotonic() - begun < 60, flush=True) or reactor.stop())
change = os.rename, sys.argv[1] + ".new", sys.argv[1]
if sys.argv[2] == "awake":
    reactor.callLater(0.3, *change)
else:
    threading.Timer(0.3, change[0], change[1:]).start()
reactor.callLater(6 * 86400 + 30, print, "too early")
reactor.run()
watch.stop()
"""


@pytest.mark.skipif(not LIBRARY, reason="there is no libfaketime")
@pytest.mark.parametrize("days", [6, -6])
@pytest.mark.parametrize("reactor_is", ["awake", "asleep"])
def test_with_the_clock_of_a_real_process(tmp_path: Path, days: int, reactor_is: str) -> None:
    stamp = tmp_path / "stamp"
    stamp.write_text("+0\n")
    (tmp_path / "stamp.new").write_text(f"{days:+d}d\n")
    environment = {
        **os.environ,
        "LD_PRELOAD": LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", FAKED, str(stamp), reactor_is],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"jump {days}\nfired True\n" == done.stdout, done.stderr
