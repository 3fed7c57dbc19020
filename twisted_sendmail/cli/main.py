"""``twisted-sendmail``: parse the command line, run a subcommand, end with an exit status.

Every error is one line on stderr and an exit status of ``sysexits.h``. A traceback is printed
only with ``TWISTED_SENDMAIL_DEBUG=1``.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from OpenSSL import SSL

from twisted_sendmail.cli import catch, check, demo, password, queue, send
from twisted_sendmail.cli.output import NAME, finish, prepare_streams, print_error
from twisted_sendmail.exit_status import CommandError, status_and_line
from twisted_sendmail.smtp import may_hold_url, printable

#: The module of each subcommand, in the order of the help.
SUBCOMMANDS = {
    "send": send,
    "check": check,
    "queue": queue,
    "password": password,
    "catch": catch,
    "demo": demo,
}


def console() -> NoReturn:
    """The entry point of the ``twisted-sendmail`` script."""
    status: object
    try:
        status = main()
    except SystemExit as e:  # argparse raises it after --help and --version
        status = e.code
    sys.exit(finish(status) if isinstance(status, int) else status)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    :param words: the command line without the command's name; None: that of the process.
    :returns: the exit status.
    """
    prepare_streams()
    try:
        args = _parse(words)
        return int(args.execute(args))
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - never a traceback
        status, line = status_and_line(e)
        print_error(line)
        return status


def _parse(words: Sequence[str] | None) -> Namespace:
    args, left = parser().parse_known_args(words)
    if left:
        # Print names only: the value of an unknown option may be a secret.
        options = [word.partition("=")[0] for word in left if word.startswith("-")]
        shown = [option if option.startswith("--") else option[:2] for option in options]
        problem = (
            f"option {printable(shown[0], 80)} is not known"
            if shown
            else "there are too many words"
        )
        raise CommandError(f"{problem}; see {NAME} {args.command} --help")
    return args


def parser() -> ArgumentParser:
    """The parser of the whole command line."""
    top = _CommandParser(
        prog=NAME,
        description="Submit mail over verified TLS.",
        epilog="Exit status: 0, or a code of sysexits.h: 75 means that the same command may "
        "succeed later.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in SUBCOMMANDS.items():
        below = commands.add_parser(name, help=module.HELP, allow_abbrev=False)
        module.add_options(below)
        below.set_defaults(execute=module.execute)
    return top


class _CommandParser(ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        if may_hold_url(message):
            # A word in the wrong place may hold a password.
            message = re.split("['\"]", message)[0].rstrip(": ") + ": a URL is not expected here"
        raise CommandError(f"{message}; see {self.prog} --help")


def _version() -> str:
    openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace")
    return f"{NAME} {version('twisted_sendmail')} (Twisted {version('twisted')}, {openssl})"
