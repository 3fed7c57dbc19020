"""``twisted-sendmail``: parse the command line, run a subcommand, end with an exit status.

Every error is one line on stderr and an exit status of ``sysexits.h``. A traceback is printed
only with ``TWISTED_SENDMAIL_DEBUG=1``.
"""

from __future__ import annotations

import re
import sys
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from twisted_sendmail.cli.output import NAME, finish, prepare_streams, print_error, print_result
from twisted_sendmail.exit_status import CommandError, status_and_line
from twisted_sendmail.smtp import may_hold_url, printable, shown_argument

#: The help of each subcommand.  Its module, of the same name, is imported when it is run: a command
#: that is used in loops must start fast.
SUBCOMMANDS = {
    "send": "send a message",
    "show": "show what a message is made of",
    "check": "check a server, and send no mail",
    "login": "log in with OAuth, and store the refresh token",
    "queue": "look at a relay's queue, and change it",
    "trace": "show the route of a message, from its Received fields",
    "password": "make an entry of a password file",
    "catch": "accept every message on the loopback interface, and deliver none",
    "demo": "run a relay between an application and a server that is down, and show every step",
}


def console() -> NoReturn:
    """Run the ``twisted-sendmail`` script, and exit with its status."""
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
    if words is None:
        words = sys.argv[1:]
    # The options before the subcommand take no value.
    command = next((word for word in words if not word.startswith("-")), None)
    args, left = parser(command).parse_known_args(words)
    if left:
        # Print names only: the value of an unknown option may be a secret.
        options = [word.partition("=")[0] for word in left if word.startswith("-")]
        shown = [option if option.startswith("--") else option[:2] for option in options]
        problem = (
            f"option {printable(shown[0], 80)} is not known"
            if shown
            else f"unexpected argument: {shown_argument(left[0])}"
        )
        raise CommandError(f"{problem}; see {NAME} {args.command} --help")
    return args


def parser(command: str | None) -> ArgumentParser:
    """Return the parser of a command line.

    :param command: the subcommand whose options it has.
    """
    top = _CommandParser(
        prog=NAME,
        description="Submit mail over verified TLS.",
        epilog="Exit status: 0, or a code of sysexits.h: 75 means that the same command may "
        "succeed later.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version, help="show the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in SUBCOMMANDS.items():
        below = commands.add_parser(name, help=text, allow_abbrev=False)
        if name == command:
            module = import_module(f"twisted_sendmail.cli.{name}")
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


class _Version(Action):
    """Prints the versions of the command, Twisted and OpenSSL."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: ArgumentParser, *_: object) -> NoReturn:
        """See ``argparse.Action``."""
        from importlib.metadata import version

        from OpenSSL import SSL

        openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace")
        print_result(
            f"{NAME} {version('twisted_sendmail')} (Twisted {version('twisted')}, {openssl})"
        )
        parser.exit()
