"""Start relays quickly: a process with all imports forks one for each case.

Run as a program it takes commands, a line of JSON each, and answers with a line: it is the
parent of every relay, and each of these is a whole `twistd -n sendmail`, which ends itself
before or after the n-th call of the storage if it is told to.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

#: How a relay ends itself.
EXITED = 99


class Zygote:
    """The parent, seen from the test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.durability.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent.parent,
        )

    def ask(self, **command: Any) -> Any:
        """Give a command, and take the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


class Forked:
    """A relay of a zygote's, with the face of a `Popen`."""

    def __init__(self, zygote: Zygote, **command: Any) -> None:
        self._zygote = zygote
        self.pid = int(zygote.ask(**command))
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        if self._status is None:
            self._status = self._zygote.ask(poll=self.pid)
        return self._status

    def wait(self) -> int:
        """The same, waited for."""
        if self._status is None:
            self._status = int(self._zygote.ask(wait=self.pid))
        return self._status

    def send_signal(self, number: int) -> None:
        """As `Popen` does."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """As `Popen` does."""
        self.send_signal(signal.SIGTERM)


def _serve() -> None:

    import twisted_sendmail.daemon.service
    import twisted_sendmail.daemon.tap
    import twisted_sendmail.queue.postgresql.queue  # noqa: F401

    for line in sys.stdin:
        command = json.loads(line)
        if "argv" in command:
            answer: Any = os.fork()
            if not answer:
                _run(command)
        elif "wait" in command:
            answer = os.waitstatus_to_exitcode(os.waitpid(command["wait"], 0)[1])
        else:
            pid, status = os.waitpid(command["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(command: dict[str, Any]) -> None:
    from twisted.scripts.twistd import run

    log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if command["at"]:
        _end_at(command["at"], before=command["before"])
    if command.get("full"):
        _full_while(Path(command["full"]))
    sys.argv = command["argv"]
    status: Any = 70
    try:
        run()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        status = 0
    except SystemExit as e:
        status = e.code
    finally:
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _end_at(number: int, *, before: bool) -> None:
    """End this process at the n-th call of the storage."""
    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

    execute = SQLiteConnection.execute
    calls = 0

    def counted(self: SQLiteConnection, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        last = calls == number
        if last and before:
            os._exit(EXITED)
        result = execute(self, *arguments)
        if last:
            os._exit(EXITED)
        return result

    SQLiteConnection.execute = counted  # type: ignore[method-assign,assignment]


def _full_while(there: Path) -> None:
    """Let the disk be full as long as there is a file of this name."""
    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

    execute = SQLiteConnection.execute

    def refused(self: SQLiteConnection, sql: str, *arguments: Any) -> Any:
        if sql.split(None, 1)[0] in {"INSERT", "UPDATE", "DELETE", "COMMIT"} and there.exists():
            raise sqlite3.OperationalError("database or disk is full")
        return execute(self, sql, *arguments)

    SQLiteConnection.execute = refused  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    _serve()
