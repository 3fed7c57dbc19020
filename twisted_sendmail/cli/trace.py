"""``twisted-sendmail trace``: the route of a message, as its Received fields show it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from twisted_sendmail.cli.input_file import open_input
from twisted_sendmail.cli.option_table import add_options_of
from twisted_sendmail.cli.output import as_json, print_result, terminal_width
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.received import Trace
from twisted_sendmail.smtp import MAX_HEADER

if TYPE_CHECKING:
    from io import BufferedReader


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Show the servers that a message passed, the oldest first, with the delay at each, from "
        "its Received fields. A server can forge the fields of those before it."
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="the message, or its header; stdin if absent or -",
    )
    output = parser.add_mutually_exclusive_group()
    add_options_of(
        output,
        """
        --json  print the route as one JSON object
        --dot   print a graph for Graphviz
        --svg   print a drawing (SVG)
        """,
    )


def execute(args: Namespace) -> int:
    """Print the route; the exit status."""
    trace = Trace.parse(_header(args.file))
    if not trace.hops:
        raise CommandError(
            "the message has no Received field: it has passed no server, or its header is not "
            "complete; save the message with all of its header",
            ExitStatus.DATAERR,
        )
    # Drawings and tables need modules that the others do not.
    if args.json:
        from twisted_sendmail.cli.trace_format import trace_json

        print_result(as_json(trace_json(trace)))
    elif args.dot or args.svg:
        from twisted_sendmail.cli.trace_drawing import dot, svg

        print_result(dot(trace) if args.dot else svg(trace))
    else:
        from twisted_sendmail.cli.trace_format import table

        print_result(table(trace, terminal_width()))
    return ExitStatus.OK


def _header(name: str | None) -> bytes:
    """Read the header of the file *name*, or of stdin.

    :raises CommandError: it cannot be read, or is empty.
    """
    file, noun = open_input(name, "the message")
    with file:
        try:
            header = _read(file)
        except OSError as e:
            raise CommandError(f"{noun} cannot be read: {e.strerror}", ExitStatus.IOERR) from None
    if not header.strip():
        raise CommandError(f"{noun} is empty", ExitStatus.DATAERR)
    return header


def _read(file: BufferedReader) -> bytes:
    """Read lines up to the empty one after the header, and none of the body."""
    lines: list[bytes] = []
    size = 0
    while size <= MAX_HEADER and (line := file.readline(MAX_HEADER)):
        if not line.rstrip(b"\r\n"):
            if lines:
                break
            continue  # before the header
        lines.append(line)
        size += len(line)
    return b"".join(lines)
