"""The options that say where to submit and how, for every subcommand that connects.

Out of them comes a ``SubmissionServer``.  A password on the command line is refused
here, without repeating it.
"""

from __future__ import annotations

import math
import os
import re
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

from twisted_sendmail.cli.exit_status import Complaint, ExitStatus
from twisted_sendmail.cli.password import REMEDY, credentials_of
from twisted_sendmail.cli.password import VARIABLE as PASSWORD_VARIABLE
from twisted_sendmail.client import (
    SubmissionServer,
    Timeouts,
    TLSPolicy,
    TLSTrust,
    check_secret_file,
)
from twisted_sendmail.smtp import InvalidServer, printable, shown_url

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

#: The environment variable that names the server.
VARIABLE = "TWISTED_SENDMAIL_SERVER"
_SCHEME = re.compile(r"[A-Za-z0-9+.-]*://")


class _NotHere(Action):
    """An option that people expect, and that would show their password to everybody."""

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise Complaint(f"a password on the command line can be read by every process; {REMEDY}")


def seconds(text: str) -> float:
    """Read a number of seconds above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"'{text}' is no number of seconds above zero")
    return value


def add_server_options(parser: ArgumentParser) -> None:
    """Add them to *parser*, all but the server itself."""
    where = parser.add_argument_group("the server")
    where.add_argument(
        "--tls",
        choices=[policy.value for policy in TLSPolicy],
        help="when TLS begins, where the server is given as HOST[:PORT]; implicit on port 465, "
        "else starttls. A URL says it by its scheme",
    )
    where.add_argument("--helo", metavar="NAME", help="what to say in EHLO; this host's name")
    where.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="give up after so long altogether; 3600"
    )
    who = parser.add_argument_group(
        "who you are",
        f"The password comes from a file, a command, the variable {PASSWORD_VARIABLE} or a "
        "prompt, and never from the command line.",
    )
    who.add_argument("--user", metavar="NAME", help="authenticate as NAME; or user@ in the URL")
    add_password_options(who)
    who.add_argument("--bearer", action="store_true", help="the password is an OAuth bearer token")
    who.add_argument(
        "--mechanism",
        metavar="NAME",
        action="append",
        help="use this SASL mechanism only; may be repeated, best first",
    )
    trust = parser.add_argument_group(
        "what proves the server", "By default the system's authorities and the server's name."
    )
    trust.add_argument("--ca-file", metavar="FILE", help="trust these authorities (PEM) instead")
    trust.add_argument(
        "--fingerprint",
        metavar="SHA256",
        help="trust the certificate with this SHA-256, and no other",
    )
    trust.add_argument("--server-name", metavar="NAME", help="the name the certificate must bear")
    trust.add_argument("--client-certificate", metavar="FILE", help="our own certificate (PEM)")
    trust.add_argument(
        "--client-key", metavar="FILE", help="its key, when it is in a file of its own"
    )


def add_password_options(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the ways to give a password to *parser*."""
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument(
        "--password-file", metavar="FILE", help="read the password from FILE; one line"
    )
    secret.add_argument(
        "--password-command",
        metavar="COMMAND",
        help="run COMMAND in the shell and read what it prints",
    )
    secret.add_argument("--password", "--token", "-p", nargs="?", action=_NotHere, help=SUPPRESS)
    parser.add_argument(
        "--world-readable-secrets",
        action="store_true",
        help="take a password file or client key that everybody may read: a mounted secret",
    )


def server_of(
    args: Namespace, given: str | None, watch: Callable[[str], None] | None
) -> SubmissionServer:
    """The server that the options describe.

    :param given: URL or ``HOST[:PORT]``; None for what the environment says.
    :raises Complaint: for what argparse cannot see.
    :raises InvalidInput: for what cannot be used.
    """
    where = given if given is not None else os.environ.get(VARIABLE)
    if not where:
        raise Complaint(f"there is no server; add --server URL, or set the variable {VARIABLE}")
    if ":" in _SCHEME.sub("", where, count=1).rpartition("@")[0]:
        raise Complaint(f"a password in the server's URL can be read by every process; {REMEDY}")
    key = args.client_key or args.client_certificate
    if key is not None:
        check_secret_file(key, world_readable=args.world_readable_secrets)
    settings: dict[str, Any] = {
        "trust": TLSTrust(
            ca_file=args.ca_file,
            fingerprint=args.fingerprint,
            name=args.server_name,
            client_certificate=args.client_certificate,
            client_key=args.client_key,
        ),
        "helo_name": args.helo,
        "timeouts": Timeouts() if args.timeout is None else Timeouts(total=args.timeout),
        "watch": watch,
    }
    policy = None if args.tls is None else TLSPolicy(args.tls)
    # Whether it can be used at all is said before a password is asked for.
    bare = _server(where, policy, settings)
    user = _user(args, where)
    if user is not None and not bare.tls.required:
        raise InvalidServer(
            f"a user cannot be given with --tls {bare.tls.value} or its URL",
            remedy="use implicit TLS or STARTTLS: a password goes over TLS only",
        )
    credentials = credentials_of(args, user)
    if credentials is None:
        return bare
    return _server(where, policy, {**settings, "credentials": credentials})


def _server(where: str, policy: TLSPolicy | None, settings: dict[str, Any]) -> SubmissionServer:
    if "://" in where:
        server = SubmissionServer.from_url(where, **{"credentials": None, **settings})
        if policy is not None and policy is not server.tls:
            raise Complaint(
                f"--tls {policy.value} contradicts the URL, whose scheme says {server.tls.value}"
            )
        return server
    host, port = _host_and_port(where.rpartition("@")[2])
    return SubmissionServer(host, port, policy, **settings)


def _host_and_port(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[([^]]*)\](?::(.*))?|([^:]*)(?::([^:]*))?", text)
    if match is None:
        raise InvalidServer(
            f"server '{shown_url(text)}' cannot be used",
            remedy="write a URL or HOST:PORT, an IPv6 address in brackets",
        )
    host, port = match[1] or match[3] or "", match[2] if match[1] else match[4]
    if port is None:
        return host, None
    if not (port.isascii() and port.isdigit()):
        raise InvalidServer(
            f"the port of '{shown_url(text)}' cannot be used",
            remedy="give a number from 1 to 65535",
        )
    return host, int(port[:6])


def _user(args: Namespace, where: str) -> str | None:
    if "://" in where:
        name = urlsplit(where).username
        written = unquote(name) if name else None
    else:
        written = where.rpartition("@")[0] or None
    user: str | None = args.user
    if user is not None and written is not None and user != written:
        raise Complaint(
            f"--user {printable(user, 80)} contradicts the server's {printable(written, 80)}@",
            ExitStatus.USAGE,
        )
    return user if user is not None else written
