"""``twisted-sendmail``: the frame around its subcommands.

Whatever goes wrong is one line on stderr and an exit status of ``sysexits.h``; a
traceback is for ``TWISTED_SENDMAIL_DEBUG=1``.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NamedTuple, NoReturn

from OpenSSL import SSL

from twisted_sendmail.cli import catch, check, demo, password_command, queue_command, send
from twisted_sendmail.cli.exit_status import Complaint, ExitStatus, status_of_error
from twisted_sendmail.cli.terminal import NAME, complain, fault, prepare_streams, settled
from twisted_sendmail.smtp import SendmailError, may_hold_url, printable


class Subcommand(NamedTuple):
    """What the frame needs to know of one."""

    help: str
    add_options: Callable[[ArgumentParser], None]
    execute: Callable[[Namespace], int]


#: By name, in the order of the help.
SUBCOMMANDS = {
    "send": Subcommand(send.HELP, send.add_options, send.execute),
    "check": Subcommand(check.HELP, check.add_options, check.execute),
    "queue": Subcommand(queue_command.HELP, queue_command.add_options, queue_command.execute),
    "password": Subcommand(
        password_command.HELP, password_command.add_options, password_command.execute
    ),
    "catch": Subcommand(catch.HELP, catch.add_options, catch.execute),
    "demo": Subcommand(demo.HELP, demo.add_options, demo.execute),
}


class _Parser(ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        if may_hold_url(message):
            # What was given in the wrong place may have a password in it.
            message = re.split("['\"]", message)[0].rstrip(": ") + ": a URL is not expected here"
        raise Complaint(f"{message}; see {self.prog} --help")


def parser() -> ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog=NAME,
        description="Submit mail over verified TLS.",
        epilog="Exit status: 0, or a code of sysexits.h: 75 means that the same may work later.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, subcommand in SUBCOMMANDS.items():
        below = commands.add_parser(name, help=subcommand.help, allow_abbrev=False)
        subcommand.add_options(below)
        below.set_defaults(execute=subcommand.execute)
    return top


def _version() -> str:
    openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace")
    return f"{NAME} {version('twisted_sendmail')} (Twisted {version('twisted')}, {openssl})"


def _parse(words: Sequence[str] | None) -> Namespace:
    args, left = parser().parse_known_args(words)
    if left:
        # Names only: what stands behind an option nobody knows may be a secret.
        options = [word.partition("=")[0] for word in left if word.startswith("-")]
        shown = [option if option.startswith("--") else option[:2] for option in options]
        what = (
            f"option {printable(shown[0], 80)} is not known"
            if shown
            else "there are too many words"
        )
        raise Complaint(f"{what}; see {NAME} {args.command} --help")
    return args


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    :param words: the command line behind the command's name; that of the process if None.
    :returns: the exit status.
    """
    prepare_streams()
    try:
        args = _parse(words)
        return args.execute(args)  # type: ignore[no-any-return]
    except Complaint as e:
        complain(str(e))
        return e.status
    except SendmailError as e:
        complain(str(e))
        return status_of_error(e)
    except KeyboardInterrupt:
        complain("interrupted")
        return ExitStatus.INTERRUPTED
    except Exception as e:  # noqa: BLE001 - never a traceback
        complain(fault(e))
        return ExitStatus.SOFTWARE


def console() -> NoReturn:
    """The entry point of the ``twisted-sendmail`` script."""
    status: object
    try:
        status = main()
    except SystemExit as e:  # the parser's, behind --help and --version
        status = e.code
    sys.exit(settled(status) if isinstance(status, int) else status)
