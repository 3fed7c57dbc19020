"""Where the command speaks: results on stdout, everything else on stderr.

One line is one line: text of others is escaped before it gets here, by whoever
knows that it is others'; complaints are escaped here once more, for they may quote
the command line.  A reader that went away (``| head``) is no error of ours; a disk that is full is one, and
is told of once.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from typing import TextIO

from twisted_sendmail.smtp import printable

NAME = "twisted-sendmail"
#: The environment variable that asks for tracebacks of our own faults.
DEBUG = "TWISTED_SENDMAIL_DEBUG"

_IOERR = 74
#: Why a result could not be written; empty: it could.
_lost: list[OSError] = []


def prepare_streams() -> None:
    """Let no character of a message or a server's reply end the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write a line of the result to stdout."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Write a line to stderr as it is."""
    _write(sys.stderr, text)


def complain(text: str) -> None:
    """Write one line to stderr that says who complains."""
    note(f"{NAME}: {printable(text, limit=2048)}")


def fault(error: Exception) -> str:
    """What is said of a fault of ours; who asked for it, is shown where it was."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    # Not its text: nobody knows what is in it.
    return (
        f"a fault of this program: {type(error).__name__}; "
        f"set {DEBUG}=1 to see where, and please report it"
    )


def width() -> int | None:
    """Columns of the terminal that the result is shown on; None: it is not."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def settled(status: int) -> int:
    """The exit status of a program that has said all: 74 (``EX_IOERR``) where only that went wrong.

    Nothing is held back any more behind this.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except OSError as e:
                unwritten(stream, e)
    lost, _lost[:] = bool(_lost), []
    return _IOERR if lost and not status else status


def unwritten(stream: TextIO, error: OSError) -> None:
    """Nothing can be written to *stream* any more: complain, unless its reader went away.

    What is written to it now goes nowhere, so that there is one complaint; see :func:`settled`.
    """
    hush(stream)
    # A full disk behind stderr: there is nobody left to tell.
    if stream is sys.stdout and not isinstance(error, BrokenPipeError):
        _lost.append(error)
        complain(f"the result could not be written: {error.strerror or type(error).__name__}")


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # started with the stream closed
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as e:
        unwritten(stream, e)


def hush(stream: TextIO) -> None:
    """Write what comes now to nowhere: a broken pipe is mentioned at most never."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)
