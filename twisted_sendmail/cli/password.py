"""Where the command gets a password or token from: a file, a command, the environment, a prompt.

Never from the command line itself, which every process of the machine may read.  What
is read here is handed to ``Credentials`` at once, and no error quotes it.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

from twisted_sendmail.cli.exit_status import Complaint, ExitStatus
from twisted_sendmail.client import check_secret_file
from twisted_sendmail.sasl import Credentials
from twisted_sendmail.smtp import InvalidServer, printable

#: The environment variable that may hold the password.
VARIABLE = "TWISTED_SENDMAIL_PASSWORD"
#: How to give a secret; every complaint about one ends with it.
REMEDY = f"use --password-file, --password-command or the variable {VARIABLE}"
#: Octets; no password or token is as long.
MAX_SECRET = 65536


def credentials_of(args: Namespace, user: str | None) -> Credentials | None:
    """Who we are, from the options; None when no user is named.

    :raises Complaint: there is no secret, or it cannot be read.
    :raises InvalidInput: it cannot be used.
    """
    if user is None:
        if args.password_file is not None or args.password_command is not None:
            raise Complaint(
                "there is a password but no user; add --user, or write user@ in the URL"
            )
        return None
    secret = _secret(args, user)
    password, token = (None, secret) if args.bearer else (secret, None)
    return Credentials(user, password, token=token, mechanisms=args.mechanism)


def new_password(args: Namespace, user: str) -> str:
    """A password that is to be *user*'s, from the options; a prompt asks for it twice.

    :raises Complaint: there is none, or it cannot be read.
    """
    password = _secret(args, user)
    given = args.password_file is not None or args.password_command is not None
    if not given and VARIABLE not in os.environ and _from_prompt(user, "again") != password:
        raise Complaint("the two passwords differ", ExitStatus.DATAERR)
    if not password or not password.isprintable():
        raise Complaint("the password is empty, or holds control characters", ExitStatus.DATAERR)
    return password


def _secret(args: Namespace, user: str) -> str:
    if args.password_file is not None:
        return _from_file(args.password_file, world_readable=args.world_readable_secrets)
    if args.password_command is not None:
        return _from_command(args.password_command)
    if VARIABLE in os.environ:
        return os.environ[VARIABLE]
    return _from_prompt(user)


def _from_file(name: str, *, world_readable: bool) -> str:
    shown = printable(name, 200)
    try:
        with Path(name).open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_SECRET + 1)
    except OSError as e:
        raise Complaint(
            f"password file {shown} cannot be read: {e.strerror or type(e).__name__}",
            ExitStatus.NOINPUT,
        ) from None
    try:
        check_secret_file(name, status, world_readable=world_readable)
    except InvalidServer as e:
        raise Complaint(f"password file {e.detail}; {e.remedy}", ExitStatus.CONFIG) from None
    return _text(content, f"password file {shown}")


def _from_command(command: str) -> str:
    # Not from our stdin, where the message may be.
    done = subprocess.run(  # noqa: S603 - the caller's own command, for the shell as documented
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise Complaint(
            f"the password command failed with status {done.returncode}", ExitStatus.NOINPUT
        )
    return _text(done.stdout, "what the password command printed")


def _from_prompt(user: str, again: str = "") -> str:
    shown = printable(user, 200)
    missing = Complaint(f"there is no password for {shown}; {REMEDY}")
    if sys.stderr is None or not sys.stderr.isatty():
        raise missing
    try:
        with warnings.catch_warnings():
            # It warns before it would show what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"Password for {shown}{f' {again}' if again else ''}: ")
    except (EOFError, getpass.GetPassWarning):
        raise missing from None


def _text(content: bytes, what: str) -> str:
    if len(content) > MAX_SECRET:
        raise Complaint(f"{what} is longer than {MAX_SECRET} octets", ExitStatus.DATAERR)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise Complaint(f"{what} is not UTF-8", ExitStatus.DATAERR) from None
    for end in ("\r\n", "\n"):
        if text.endswith(end):
            return text[: -len(end)]
    return text
