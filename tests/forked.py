"""Run the installed commands quickly: each in a process forked from one that has imported their modules.

The start of an interpreter and the imports cost more than most commands do.  Tests of the start itself
and of terminals run the commands as they are.
"""

from __future__ import annotations

import atexit
import builtins
import io
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

_BIN = Path(sys.executable).parent
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["__main__", "tests.preloaded"])


class ForkedProcess:
    """A process with the methods of a `Popen`, which is killed when the tests end.

    :param work: a function of a module, perhaps with arguments by `partial`: ``partial(run_command, "twistd")``.
    :param folder: its working directory.
    :param env: its whole environment; of the interpreter's own variables, ``PYTHONWARNINGS`` and
        ``PYTHONIOENCODING`` have an effect.
    :param streams: the paths of stdin, stdout and stderr.
    """

    def __init__(
        self,
        work: Callable[[], object],
        *,
        folder: Path,
        env: Mapping[str, str],
        streams: Sequence[str],
    ) -> None:
        arguments = (work, str(folder), dict(env), streams)
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        # Before multiprocessing waits for the end of its processes.
        atexit.register(self.kill)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit status.

        :raises subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run_forked(
    program: str,
    *words: str,
    folder: Path,
    env: Mapping[str, str],
    stdin: bytes = b"",
    stdout: str = "",
    seconds: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run an installed command to its end in a `ForkedProcess`.

    :param stdout: the path of a file that is its stdout; otherwise what it prints is in the result.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin)
        given.seek(0)
        streams = [_path(given), stdout or _path(out), _path(err)]
        work = partial(run_command, program, *words)
        process = ForkedProcess(work, folder=folder, env=env, streams=streams)
        try:
            status = process.wait(seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess([program, *words], status, _text(out), _text(err))


def run_command(program: str, *words: str) -> None:
    """Run an installed command in this process.

    :param program: its name, such as ``twistd``, or its path.
    """
    sys.argv = [str(_BIN / program), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _path(file: IO[bytes]) -> str:
    # Another process of this user opens the file by it, although it has no name.
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _run(
    work: Callable[[], object], folder: str, env: dict[str, str], streams: Sequence[str]
) -> None:
    assert "twisted.internet.reactor" not in sys.modules
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    # As an interpreter makes them for LANG=C.UTF-8.
    encoding = env.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, closefd=False)), encoding, "surrogateescape"
    )
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding, "surrogateescape"
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding,
        "backslashreplace",
        write_through=True,
    )
    for option in filter(None, env.get("PYTHONWARNINGS", "").split(",")):
        action, text, category = [*option.split(":"), "", ""][:3]
        kind = getattr(builtins, category or "Warning")
        warnings.filterwarnings(action, re.escape(text), kind)  # type: ignore[arg-type]
    atexit._clear()
    try:
        work()
    finally:
        # The end of an interpreter, which a forked process does not have.
        atexit._run_exitfuncs()
