"""``twisted-sendmail password``: make one line of a password file, with keys instead of the password."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from twisted_sendmail.cli.options import PASSWORD_VARIABLE, add_password_options, new_password
from twisted_sendmail.cli.output import print_error, print_result
from twisted_sendmail.exit_status import ExitStatus
from twisted_sendmail.sasl import (
    ITERATIONS,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    SCRAM_HASHES,
    min_iterations,
)
from twisted_sendmail.server import password_entry
from twisted_sendmail.smtp import InvalidInput


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Print one line for a password file (listen.accounts, PasswordFile): the user and the "
        "SCRAM keys of the password, from which the password cannot be computed. The "
        f"password comes from a file, a command, the variable {PASSWORD_VARIABLE} or a prompt. "
        "Example: twisted-sendmail password jane >> accounts"
    )
    parser.add_argument("user", metavar="USER", help="the login name")
    add_password_options(parser)
    parser.add_argument(
        "--hash",
        choices=list(SCRAM_HASHES),
        default="sha256",
        help="the hash of SCRAM; sha256. A mechanism is offered only if every user has a line for its hash",
    )
    parser.add_argument(
        "--iterations",
        metavar="N",
        type=_iterations,
        default=ITERATIONS,
        help=f"rounds of hashing; {ITERATIONS}. More rounds make each guess slower for a thief of "
        "the file, but clients that use Cyrus SASL, such as Postfix, cannot log in",
    )


def _iterations(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 12:
        number = int(text)
        if MIN_ITERATIONS <= number <= MAX_ITERATIONS:
            return number
    raise ArgumentTypeError(f"it is a number from {MIN_ITERATIONS} to {MAX_ITERATIONS}")


def execute(args: Namespace) -> int:
    """Print the entry; the exit status."""
    least = min_iterations(args.hash)
    if args.iterations < least:
        raise InvalidInput(
            f"{args.iterations} iterations are too few",
            remedy=f"with {args.hash} give {least} or more",
        )
    print_result(
        password_entry(
            args.user,
            new_password(args, args.user),
            iterations=args.iterations,
            hash_name=args.hash,
        )
    )
    if args.iterations > ITERATIONS:
        print_error(
            f"warning: clients that use Cyrus SASL, such as Postfix, accept {ITERATIONS} "
            "iterations at most, and cannot log in with this entry"
        )
    return ExitStatus.OK
