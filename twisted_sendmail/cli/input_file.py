"""The file that a command reads: one that is named on the command line, or stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from twisted_sendmail.cli.output import print_note
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.smtp import shown_argument

if TYPE_CHECKING:
    from io import BufferedReader


def open_input(name: str | None, noun: str) -> tuple[BufferedReader, str]:
    """Open the file *name*, or stdin; return it, and *noun* with the name of the file.

    :param name: None: stdin, which may not be a terminal. ``-``: stdin, also a terminal.
    :param noun: what is read, for errors: ``the message``.
    :raises CommandError: it cannot be opened.
    """
    if name is not None and name != "-":
        noun = f"{noun} {shown_argument(name)}"
        try:
            return Path(name).open("rb"), noun
        except (OSError, ValueError) as e:
            why = getattr(e, "strerror", None) or "no file name"
            raise CommandError(f"{noun} cannot be read: {why}", ExitStatus.NOINPUT) from None
    stream = sys.stdin
    if stream is None:
        raise CommandError(f"{noun} is missing: stdin is closed", ExitStatus.NOINPUT)
    if stream.isatty():
        if name is None:
            raise CommandError(f"{noun} is missing; name a file, or pipe it in")
        print_note(f"reading {noun} from the terminal; end it with Ctrl-D")
    return cast("BufferedReader", stream.buffer), noun
