"""System calls: the queue is on the disk before the 250 reply is written, every time."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from tests.durability.audit import Ledger
from tests.durability.next_hop import NextHop
from tests.durability.relay_process import RelayProcess
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

SIZES = [1, 100, 4_000, 60_000, 70_000, 1_000_000]
MESSAGES = int(os.environ.get("TWISTED_SENDMAIL_ORDER_MESSAGES", "24"))

# One thread's call, perhaps cut in two by another's.
_CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()")


class TracedRelay(RelayProcess):
    """One whose system calls are written down."""

    @property
    def command(self) -> list[str]:
        calls = "openat,close,pwrite64,fdatasync,fsync,sendto,write"
        trace = ["strace", "-D", "-f", "-s", "48", "-o", str(self.trace), "-e", f"trace={calls}"]
        return [*trace, *super().command]

    @property
    def trace(self) -> Path:
        return self.folder / "trace"


class Trace:
    """Tells for each 250 whether a commit of the queue became durable after the 250 before it.

    A commit goes to the write-ahead log, which is then synchronised.  The messages are sent one by one,
    and commits follow each other; after that of a message, the next one may be under way when its 250
    is sent: that one is about an attempt.
    """

    def __init__(self) -> None:
        #: Of each 250 that was sent.
        self.verdicts: list[bool] = []
        self._logs: set[str] = set()
        self._opening: set[str] = set()
        self._syncing: set[str] = set()
        # Written to the log; synchronised; both after the last 250.
        self._written = self._synced = False

    def read(self, line: str) -> None:
        """One line of it."""
        found = _CALL.match(line)
        if found is None:
            return
        thread, call = found.groups()
        file = re.match(r"\d+ +\w+\((\d+)", line)
        on_log = file is not None and file[1] in self._logs
        if call == "openat":
            self._open(thread, line)
        elif call in {"fdatasync", "fsync"}:
            self._sync(thread, line, on_log=on_log)
        elif '"250 2.0.0 Ok: queued as ' in line:
            self.verdicts.append(self._synced)
            self._written = self._synced = False
        elif on_log:
            self._written = True

    def _open(self, thread: str, line: str) -> None:
        if "queue.sqlite3-wal" in line:
            self._opening.add(thread)
        if thread in self._opening and (number := re.search(r"= (\d+)$", line)):
            self._opening.discard(thread)
            self._logs.add(number[1])

    def _sync(self, thread: str, line: str, *, on_log: bool) -> None:
        if on_log:
            self._syncing.add(thread)
        if thread in self._syncing and line.endswith("= 0"):
            self._syncing.discard(thread)
            self._synced = self._written


def acknowledgements(lines: list[str]) -> list[bool]:
    """The verdicts of a trace."""
    trace = Trace()
    for line in lines:
        trace.read(line)
    return trace.verdicts


def test_the_reading_of_a_trace_can_say_no() -> None:
    start = ['7 openat(AT_FDCWD, "/q/queue.sqlite3-wal", O_RDWR|O_CREAT) = 9']
    write = ["7 pwrite64(9, ..., 4096, 0) = 4096"]
    sync = ["7 fdatasync(9 <unfinished ...>", "8 close(3) = 0", "7 <... fdatasync resumed>) = 0"]
    said = ['8 sendto(11, "250 2.0.0 Ok: queued as X", 25, 0, NULL, 0) = 25']
    assert acknowledgements(start + write + sync + said) == [True]
    assert acknowledgements(start + write + said + sync) == [False]
    assert acknowledgements(start + sync + write + said) == [False]
    assert acknowledgements(start + said) == [False]
    assert acknowledgements(start + write + sync + said + said) == [True, False]


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
@pytest_twisted.ensureDeferred
async def test_the_commit_precedes_the_250_on_the_wire(reactor: Any, tmp_path: Path) -> None:
    ledger = Ledger()
    # Nobody is there: what is written is written for what comes in.
    hop = NextHop(reactor, ledger, port=free_port())
    relay = TracedRelay(reactor, tmp_path, hop)
    try:
        await relay.start()
        mailer = relay.client(1)
        for number in range(MESSAGES):
            size = SIZES[number % len(SIZES)]
            sent = ledger.send(f"o{number}", ("x@r.example",), size=size)
            await relay.give(mailer, sent)
            assert sent.acked
        await mailer.aclose()
        await relay.terminate()
        verdicts = acknowledgements(relay.trace.read_text("utf-8", "replace").splitlines())
        assert verdicts == [True] * MESSAGES
    finally:
        relay.kill()
