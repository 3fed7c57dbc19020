"""The identity of a relay's process, by which other relays of this machine find out that it has ended."""

from __future__ import annotations

import os
from pathlib import Path


def process_name() -> str:
    """Return the identity of this process among those of this start of the machine."""
    return f"{_machine()} {os.getpid()} {_start_of(os.getpid())}"


def _machine() -> str:
    """Return the start of this machine and the namespace of its process numbers; empty: unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Return the time at which a process started, in ticks since the start of the machine."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def has_ended(process: str) -> bool:
    """Return whether the process of another relay is known to have ended: it ran on this machine."""
    machine, _, pid = process.rpartition(" ")[0].rpartition(" ")
    start = process.rpartition(" ")[2]
    if not machine or machine != _machine() or not pid.isdigit() or not start:
        return False
    if found := _start_of(int(pid)):
        return found != start
    # Where systemd protects /proc (ProtectProc=) it does not show the processes of other users.
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
