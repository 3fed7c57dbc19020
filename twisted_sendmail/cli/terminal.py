"""Where the command speaks: results on stdout, everything else on stderr.

One line is one line: text of others is escaped before it gets here, by whoever
knows that it is others'; complaints are escaped here once more, for they may quote
the command line.  A reader that went away (``| head``) is no error of ours.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from twisted_sendmail.smtp.printable import printable

NAME = "twisted-sendmail"


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


def width() -> int | None:
    """Columns of the terminal that the result is shown on; None: it is not."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # started with the stream closed
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        hush(stream)
    except OSError:
        # A full disk behind stderr; there is nobody left to tell.
        if stream is sys.stdout:
            hush(stream)
            complain("the result could not be written")


def hush(stream: TextIO) -> None:
    """Write what comes now to nowhere: a broken pipe is mentioned at most never."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)
