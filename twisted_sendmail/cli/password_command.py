"""``twisted-sendmail password``: one line of a password file, for a user of the relay or of a server.

The line holds keys and no password (``ingress.scram``).
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from twisted_sendmail.cli.exit_status import ExitStatus
from twisted_sendmail.cli.password import new_password
from twisted_sendmail.cli.server_options import add_password_options
from twisted_sendmail.cli.terminal import complain, say
from twisted_sendmail.server import ITERATIONS, MAX_ITERATIONS, MIN_ITERATIONS, entry

HELP = "make an entry of a password file"


def _iterations(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 12:
        number = int(text)
        if MIN_ITERATIONS <= number <= MAX_ITERATIONS:
            return number
    raise ArgumentTypeError(f"it is a number from {MIN_ITERATIONS} to {MAX_ITERATIONS}")


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Print one line for a password file (listen.accounts, PasswordFile): the user and the "
        "SCRAM-SHA-256 keys of the password, which cannot be turned back into it. The password comes from a "
        "file, a command, the variable TWISTED_SENDMAIL_PASSWORD or a prompt. "
        "Example: twisted-sendmail password jane >> accounts"
    )
    parser.add_argument("user", metavar="USER", help="the name to log in with")
    add_password_options(parser)
    parser.add_argument(
        "--iterations",
        metavar="N",
        type=_iterations,
        default=ITERATIONS,
        help=f"rounds of hashing; {ITERATIONS}. With more, each guess costs a thief of the file more, and "
        "clients that use Cyrus SASL, such as Postfix, cannot log in",
    )


def execute(args: Namespace) -> int:
    """Print the entry; the exit status."""
    line = entry(args.user, new_password(args, args.user), iterations=args.iterations)
    say(line)
    if args.iterations > ITERATIONS:
        complain(
            f"warning: clients that use Cyrus SASL, such as Postfix, accept {ITERATIONS} iterations at "
            "most, and cannot log in with this entry"
        )
    return ExitStatus.OK
