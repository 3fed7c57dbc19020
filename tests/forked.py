"""Run the installed commands quickly: each in a process forked from one that has imported their modules.

The start of an interpreter and the imports cost more than most commands do.  Tests of the start itself,
of terminals and of signals run the commands as they are.
"""

from __future__ import annotations

import atexit
import builtins
import io
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import IO

from twisted_sendmail.cli.main import SUBCOMMANDS

_BIN = Path(sys.executable).parent
_CONTEXT = multiprocessing.get_context("forkserver")
# None of them may choose a reactor, or start a thread.
_CONTEXT.set_forkserver_preload(
    [
        "__main__",
        "tests.forked",
        "twisted.application.reactors",
        "twisted.internet.endpoints",
        "twisted.internet.epollreactor",
        "twisted.internet.ssl",
        "twisted.scripts.twistd",
        "twisted_sendmail.daemon.service",
        "twisted_sendmail.daemon.tap",
        *[f"twisted_sendmail.cli.{name}" for name in SUBCOMMANDS],
    ]
)


def run_forked(
    program: str,
    *words: str,
    folder: Path,
    env: dict[str, str],
    stdin: bytes = b"",
    seconds: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run an installed command to its end.

    :param program: its name, such as ``twistd``.
    :param folder: its working directory.
    :param env: its whole environment; of the interpreter's own variables, ``PYTHONWARNINGS`` and
        ``PYTHONIOENCODING`` have an effect.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin)
        given.seek(0)
        arguments = [str(_BIN / program), *words]
        streams = [_path(file) for file in (given, out, err)]
        process = _CONTEXT.Process(target=_run, args=(arguments, str(folder), env, streams))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, seconds)
        status, printed = process.exitcode, [_text(out), _text(err)]
        process.close()
    return subprocess.CompletedProcess(arguments, status, *printed)


def _path(file: IO[bytes]) -> str:
    # Another process of this user opens the file by it, although it has no name.
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _run(arguments: list[str], folder: str, env: dict[str, str], streams: list[str]) -> None:
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
    sys.argv = arguments
    atexit._clear()
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        # The end of an interpreter, which a forked process does not have.
        atexit._run_exitfuncs()
