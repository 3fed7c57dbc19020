"""The options of every subcommand that connects to a server: the server, TLS, and the credentials.

A password comes from a file, a command, the environment or a prompt, and never from the command
line, which every process of the machine can read. So do the secrets of OAuth, whose settings may also
stand in the URL. No error quotes a password.
"""

from __future__ import annotations

import getpass
import math
import os
import re
import subprocess
import sys
import warnings
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

from twisted_sendmail.accounts import USER_FILE, Account, find_account
from twisted_sendmail.cli.option_table import add_options_of
from twisted_sendmail.client import (
    DNSResolver,
    SubmissionServer,
    Timeouts,
    TLSPolicy,
    TLSTrust,
)
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.sasl import (
    Credentials,
    Secret,
    TokenSource,
    certificate_credentials,
    certificate_only,
)
from twisted_sendmail.secret_file import check_secret_file, why_unreadable
from twisted_sendmail.secret_reader import shell_words
from twisted_sendmail.smtp import InvalidServer, full_url, printable, shown_url

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

    from twisted_sendmail.oauth import OAuthSettings

#: The environment variable that names the server.
SERVER_VARIABLE = "TWISTED_SENDMAIL_SERVER"
#: The environment variable that may hold the password.
PASSWORD_VARIABLE = "TWISTED_SENDMAIL_PASSWORD"  # noqa: S105 - the name of the variable
#: The description of the group of options for a login.
PASSWORD_ORIGINS = (
    f"The password comes from a file, a command, the variable {PASSWORD_VARIABLE} or a "
    "prompt, and never from the command line."
)
_PASSWORD_REMEDY = f"use --password-file, --password-command or the variable {PASSWORD_VARIABLE}"
#: No password or token is longer.
_MAX_SECRET_BYTES = 65536
_SCHEME = re.compile(r"[A-Za-z0-9+.-]*://")


# -- the options ------------------------------------------------------------------


def add_server_options(parser: ArgumentParser) -> None:
    """Add all of them but the server itself to *parser*."""
    server = parser.add_argument_group("the server")
    add_account_option(server)
    add_options_of(
        server,
        """
        --tls VALUE             when TLS begins, if the server is HOST[:PORT]; implicit on port 465, else starttls.
                                In a URL the scheme says it
        --helo NAME             the name in EHLO; else this host's name
        --source-address ADDRESS  connect from this IP address of the machine
        --name-server ADDRESS…  ask this name server for the servers of submission:DOMAIN and for TLSA records; may be
                                repeated. On the loopback interface, or written tls://ADDRESS#NAME, its word on DNSSEC counts
        --timeout SECONDS       time limit of the whole delivery; 3600
        """,
        tls={"choices": [policy.value for policy in TLSPolicy], "metavar": None},
        timeout={"type": _seconds},
    )
    user = parser.add_argument_group("authentication", PASSWORD_ORIGINS)
    add_options_of(user, "--user NAME  authenticate as NAME; or user@ in the URL")
    add_password_options(user)
    add_options_of(
        user,
        """
        --bearer                the password is an OAuth bearer token: its file is read, or its command run, again
                                if the server refuses it
        --mechanism NAME…       use this SASL mechanism only; may be repeated, best first
        """,
    )
    add_oauth_options(parser)
    trust = parser.add_argument_group(
        "the server's certificate",
        "By default it must be issued by an authority of the system for the server's name.",
    )
    add_options_of(
        trust,
        """
        --ca-file FILE          trust these authorities (PEM) instead
        --ca-directory FOLDER   trust the authorities in FOLDER instead, named by openssl rehash
        --fingerprint SHA256…   trust the certificate with this SHA-256, and no other; may be repeated
        --public-key SHA256…    trust certificates with the public key with this SHA-256; may be repeated
        --dane                  trust the server by its TLSA records (DANE), and no authority; needs --name-server
        --server-name NAME      the name that it must hold
        --minimum-tls-version VERSION  TLSv1.2 or TLSv1.3; TLSv1.2
        --client-certificate FILE  the client's certificate (PEM or PKCS#12)
        --client-key FILE       the key of the client's certificate, if it is in another file
        --client-key-password-file FILE  read the password of the key from FILE
        """,
    )


def add_account_option(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the option that names an account to *parser*."""
    parser.add_argument(
        "--account",
        metavar="NAME",
        help="use the server, user and password of this account; without a server, the default "
        f"account of ~/.config/{USER_FILE} is used",
    )


def add_oauth_options(parser: ArgumentParser) -> None:
    """Add the options that describe a source of OAuth tokens to *parser*."""
    oauth = parser.add_argument_group(
        "OAuth",
        "Tokens instead of a password: by a refresh token, which twisted-sendmail login stores, or for the "
        "client itself. The URL may have these settings too, except commands: "
        "smtps://USER@HOST?oauth-provider=NAME&oauth-client-id=ID&oauth-refresh-token-file=FILE",
    )
    add_options_of(
        oauth,
        """
        --oauth-provider NAME   microsoft, google, yahoo or fastmail
        --oauth-token-url URL   the token endpoint, instead of the provider's
        --oauth-client-id ID    the client, as registered at the provider
        --oauth-client-secret-file FILE  read the secret of the client from FILE
        --oauth-auth-method METHOD  client_secret_post (the secret is in the form) or client_secret_basic (in a header);
                                client_secret_post
        --oauth-refresh-token-file FILE  read the refresh token from FILE, and store a new one there
        --oauth-refresh-token-command COMMAND  run COMMAND in the shell for the refresh token, instead of FILE
        --oauth-store-command COMMAND  run COMMAND in the shell with a new refresh token as its standard input
        --oauth-scope SCOPES    the scopes, instead of the provider's
        --oauth-ca-file FILE    trust these authorities (PEM) at the token endpoint instead of the system's
        """,
        oauth_refresh_token_command={"type": shell_words},
        oauth_store_command={"type": shell_words},
    )


def add_password_options(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the options that give a password to *parser*."""
    secret = parser.add_mutually_exclusive_group()
    add_options_of(
        secret,
        """
        --password-file FILE    read the password from FILE; one line
        --password-command COMMAND  run COMMAND in the shell and read its output
        """,
    )
    secret.add_argument(
        "--password", "--token", "-p", nargs="?", action=_RefusePassword, help=SUPPRESS
    )
    add_world_readable_option(parser)


def add_world_readable_option(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the option that accepts mounted secrets to *parser*."""
    text = "accept a password file or client key that everybody may read: a mounted secret"
    add_options_of(parser, f"--world-readable-secrets  {text}")


class _RefusePassword(Action):
    """An option that people expect, and that would show their password to every process."""

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise CommandError(
            f"a password on the command line can be read by every process; {_PASSWORD_REMEDY}"
        )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"'{text}' is no number of seconds above zero")
    return value


# -- the server -------------------------------------------------------------------


def account_of(args: Namespace) -> Account | None:
    """Return the account that the options name, or the default one if no server is given; None: there is none.

    :raises CommandError: a server is given too.
    :raises InvalidServer: there is no such account, or the file of accounts cannot be used.
    """
    if args.account is not None and args.server is not None:
        raise CommandError("--account contradicts the server; give one of them")
    if args.account is None and (args.server is not None or os.environ.get(SERVER_VARIABLE)):
        return None
    return find_account(args.account)


def server_of_account(account: Account) -> SubmissionServer:
    """Return the server of *account*, for a program without options.

    :raises CommandError: the password cannot be read.
    :raises InvalidInput: a value of the account cannot be used.
    """
    parser = ArgumentParser()
    add_server_options(parser)
    args = parser.parse_args([])
    args.server = None
    return server_of(with_account_and_url(args, account), None, remedy="")


def server_of(
    args: Namespace, watch: Callable[[str], None] | None, *, remedy: str
) -> SubmissionServer:
    """Return the server that the options describe.

    :param args: those of `with_account_and_url`.
    :param watch: called with each line of the redacted dialogue.
    :param remedy: the way to give a server, for the error without one.
    :raises CommandError: the options contradict each other, or a secret cannot be read.
    :raises InvalidInput: a value cannot be used.
    """
    server = args.server
    if not server:
        raise CommandError(
            f"there is no server; {remedy}, or set the variable {SERVER_VARIABLE}, or write an "
            f"account into ~/.config/{USER_FILE}"
        )
    if ":" in _SCHEME.sub("", server, count=1).rpartition("@")[0]:
        raise CommandError(
            f"a password in the server's URL can be read by every process; {_PASSWORD_REMEDY}"
        )
    for secret in (args.client_key or args.client_certificate, args.client_key_password_file):
        if secret is not None:
            check_secret_file(secret, world_readable=args.world_readable_secrets)
    settings: dict[str, Any] = {
        "trust": TLSTrust(
            ca_file=args.ca_file,
            fingerprint=args.fingerprint,
            name=args.server_name,
            client_certificate=args.client_certificate,
            client_key=args.client_key,
            public_key=args.public_key,
            ca_directory=args.ca_directory,
            minimum_version=args.minimum_tls_version or "TLSv1.2",
            client_key_password_file=args.client_key_password_file,
            dane=args.dane,
        ),
        "helo_name": args.helo,
        "source_address": args.source_address,
        "resolver": _resolver(args.name_server),
        "timeouts": Timeouts() if args.timeout is None else Timeouts(total=args.timeout),
        "watch": watch,
        "ignore_extensions": args.ignore_extensions,
    }
    policy = None if args.tls is None else TLSPolicy(args.tls)
    # Check the server before a prompt asks for a password.
    without_user = _server(server, policy, settings)
    user = _user(args, server)
    login = user is not None or certificate_only(args.mechanism)
    if login and not without_user.tls.required:
        raise InvalidServer(
            f"a user cannot be given with --tls {without_user.tls.value} or its URL",
            remedy="use implicit TLS or STARTTLS: a password goes over TLS only",
        )
    credentials = _credentials(args, user)
    if credentials is None:
        return without_user
    return _server(server, policy, {**settings, "credentials": credentials})


_OAUTH = tuple(name for name in Account._fields if name.startswith("oauth_"))
#: The options that name the place of the refresh token.
_REFRESH_TOKEN = ("oauth_refresh_token_file", "oauth_refresh_token_command", "oauth_store_command")
#: The options that give a login.
LOGIN_OPTIONS = ("password_file", "password_command", *_OAUTH)
#: The options that tell which certificates are trusted.
TRUST_OPTIONS = ("ca_file", "ca_directory", "fingerprint", "public_key")
#: These, and others that are keys of an account, too.
CONNECTION_OPTIONS = (
    *TRUST_OPTIONS,
    "minimum_tls_version",
    "client_certificate",
    "client_key",
    "client_key_password_file",
    "source_address",
)
_OF_ACCOUNT = ("user", "server_name", *CONNECTION_OPTIONS)


def with_account_and_url(args: Namespace, account: Account | None) -> Namespace:
    """Return *args* with the values of *account* and of the URL for the options that are not given.

    ``server`` is a URL without settings, ``HOST[:PORT]`` or empty: that of the options, of *account*, or of
    the environment.  ``secret`` and ``ignore_extensions`` are those of *account*.

    :raises CommandError: an option contradicts the URL.
    :raises InvalidServer: the URL has a setting that cannot be used.
    """
    merged = Namespace(**vars(args), secret=None, ignore_extensions=())
    if account is not None:
        _fill_in(merged, account)
    server = merged.server if merged.server is not None else os.environ.get(SERVER_VARIABLE)
    server = full_url(server or "")
    if "?" in server:
        from twisted_sendmail.oauth import split_server_url

        server, settings = split_server_url(server)
        for key, value in settings.items():
            name = key.replace("-", "_")
            if key == "bearer":
                merged.bearer = True
                continue
            if getattr(args, name, None) not in {None, value}:
                raise CommandError(f"--{key} contradicts the server's URL; give one of them")
            setattr(merged, name, value)
        if "password-file" in settings and getattr(args, "password_command", None) is not None:
            raise CommandError("--password-command contradicts the server's URL; give one of them")
    merged.server = server
    return merged


def _fill_in(args: Namespace, account: Account) -> None:
    """Set the options that are not given to the values of *account*."""
    args.server, args.secret = account.url, account.secret
    args.ignore_extensions = account.ignore_extensions
    password = getattr(args, "password_file", None) or getattr(args, "password_command", None)
    names = _OF_ACCOUNT if password else _OF_ACCOUNT + _OAUTH
    if any(getattr(args, name, None) is not None for name in _REFRESH_TOKEN):
        # An option for a file replaces the account's commands, and the other way round.
        names = tuple(name for name in names if name not in _REFRESH_TOKEN)
    for name in names:
        if getattr(args, name, None) is None:
            setattr(args, name, getattr(account, name))
    args.mechanism = getattr(args, "mechanism", None) or account.mechanisms
    args.bearer = getattr(args, "bearer", False) or account.bearer
    args.name_server = getattr(args, "name_server", None) or account.name_servers
    args.dane = getattr(args, "dane", False) or account.dane


def _resolver(name_servers: Sequence[str] | None) -> DNSResolver | None:
    if not name_servers:
        return None
    try:
        return DNSResolver(tuple(name_servers))
    except ImportError as e:
        raise CommandError(str(e), ExitStatus.CONFIG) from None


def _server(text: str, policy: TLSPolicy | None, settings: dict[str, Any]) -> SubmissionServer:
    if "://" in text:
        server = SubmissionServer.from_url(text, **{"credentials": None, **settings})
        if policy is not None and policy is not server.tls:
            raise CommandError(
                f"--tls {policy.value} contradicts the URL, whose scheme says {server.tls.value}"
            )
        return server
    host, port = _host_and_port(text.rpartition("@")[2])
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


def _user(args: Namespace, server: str) -> str | None:
    if "://" in server:
        name = urlsplit(server).username
        written = unquote(name) if name else None
    else:
        written = server.rpartition("@")[0] or None
    user: str | None = args.user
    if user is not None and written is not None and user != written:
        raise CommandError(
            f"--user {printable(user, 80)} contradicts the server's {printable(written, 80)}@"
        )
    return user if user is not None else written


# -- the password -----------------------------------------------------------------


def _credentials(args: Namespace, user: str | None) -> Credentials | None:
    given = args.password_file is not None or args.password_command is not None
    if certificate_only(args.mechanism):
        return certificate_credentials(
            user,
            args.mechanism,
            has_secret=given or _oauth_settings(args) is not None,
            certificate=args.client_certificate,
            setting="--client-certificate",
        )
    if user is None:
        if given:
            raise CommandError(
                "there is a password but no user; add --user, or write user@ in the URL"
            )
        if args.oauth_client_id is not None:
            raise CommandError(
                "there are settings of OAuth but no user; add --user, or write user@ in the URL"
            )
        return None
    settings = _oauth_settings(args)
    if settings is not None:
        if given:
            raise CommandError("there are a password and settings of OAuth; give one of them")
        # Only those who use OAuth need the extra, and time to import it.
        from twisted.internet import reactor

        from twisted_sendmail.oauth import token_source

        try:
            return Credentials(
                user, token=token_source(reactor, settings), mechanisms=args.mechanism
            )
        except ImportError as e:
            raise CommandError(str(e), ExitStatus.CONFIG) from None
    place = _place(args)
    if args.bearer:
        token = _token_source(args, place) or _secret(args, user, place)
        return Credentials(user, token=token, mechanisms=args.mechanism)
    return Credentials(user, _secret(args, user, place), mechanisms=args.mechanism)


def _token_source(args: Namespace, place: tuple[str, Any] | None) -> TokenSource | None:
    """Return a source that reads the file, or runs the command, for each connection and after a refusal.

    :returns: None: there is neither, or what the file gives cannot be read twice, as from a pipe.
    :raises CommandError: the file cannot be read.
    """
    kind: str
    where: Any
    kind, where = place or ("", None)
    if kind not in {"password-file", "password-shell", "password-command"}:
        return None
    if kind == "password-file" and not Path(where).is_file():
        return None
    from twisted.internet import reactor

    from twisted_sendmail.oauth import CommandTokens, FileTokens

    if kind != "password-file":
        return CommandTokens(reactor, shell_words(where) if kind == "password-shell" else where)
    readable = args.world_readable_secrets
    # An error of the file comes before the connection.
    _ = _from_file(where, world_readable=readable)
    return FileTokens(reactor, where, world_readable=readable)


def _oauth_settings(args: Namespace) -> OAuthSettings | None:
    given: dict[str, Any]
    given = {name.removeprefix("oauth_"): getattr(args, name, None) for name in _OAUTH}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    if "client_id" not in given:
        raise CommandError("there is no --oauth-client-id; give it, as registered at the provider")
    from twisted_sendmail.oauth import OAuthSettings

    for name in ("device_url", "authorization_url"):
        _ = given.pop(name, None)
    file = given.pop("client_secret_file", None)
    secret = None
    if file is not None:
        readable = args.world_readable_secrets
        secret = Secret(_from_file(file, world_readable=readable, what="client secret file"))
    return OAuthSettings(client_secret=secret, **given)


def login_of(
    args: Namespace, account: Account | None
) -> tuple[OAuthSettings, str, str | None, str | None]:
    """Return the settings of OAuth, the user, and the device and authorization endpoints, for a login.

    :param args: as for ``server_of``; the server may be missing.
    :raises CommandError: the options contradict each other, or a secret cannot be read.
    :raises InvalidInput: a value cannot be used.
    """
    args = with_account_and_url(args, account)
    user = args.user
    if args.server:
        user = _user(args, args.server)
        _ = _server(args.server, None, {})
    settings = _oauth_settings(args)
    if settings is None:
        raise CommandError(
            "there are no settings of OAuth; add --oauth-provider and --oauth-client-id, or write them "
            "into the URL or an account"
        )
    return settings, user or "", args.oauth_device_url, args.oauth_authorization_url


def new_password(args: Namespace, user: str) -> str:
    """Return a new password for *user*; a prompt requests it twice.

    :raises CommandError: there is no password, or it cannot be read.
    """
    password = _secret(args, user, _place(args))
    given = args.password_file is not None or args.password_command is not None
    if not given and PASSWORD_VARIABLE not in os.environ and _prompt(user, "again") != password:
        raise CommandError("the two passwords differ", ExitStatus.DATAERR)
    if not password or not password.isprintable():
        raise CommandError("the password is empty, or holds control characters", ExitStatus.DATAERR)
    return password


def _place(args: Namespace) -> tuple[str, Any] | None:
    """Return the key of an account that gives the place of the secret, and its value; None: it is not given."""
    if args.password_file is not None:
        return "password-file", args.password_file
    if args.password_command is not None:
        return "password-shell", args.password_command
    of_account: tuple[str, Any] | None = getattr(args, "secret", None)
    return of_account


def _secret(args: Namespace, user: str, found: tuple[str, Any] | None) -> str:
    kind: str
    place: Any
    kind, place = found or ("", None)
    if kind == "password-file":
        return _from_file(place, world_readable=args.world_readable_secrets)
    if kind == "password-shell":
        return _from_command(shell_words(place))
    if kind == "password-command":
        return _from_command(place)
    if kind == "password-environment":
        return _from_environment(place)
    if kind == "password":
        return str(place)
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    return _prompt(user)


def _from_file(name: str, *, world_readable: bool, what: str = "password file") -> str:
    shown = printable(name, 200)
    try:
        with Path(name).open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as e:
        why, remedy = why_unreadable(name, e)
        raise CommandError(f"{what} {why}; {remedy}", ExitStatus.NOINPUT) from None
    try:
        check_secret_file(name, status, world_readable=world_readable)
    except InvalidServer as e:
        raise CommandError(f"{what} {e.detail}; {e.remedy}", ExitStatus.CONFIG) from None
    return _secret_text(content, f"{what} {shown}")


def _from_environment(name: str) -> str:
    if name not in os.environ:
        raise CommandError(
            f"the variable {printable(name, 60)}, which the account names, is not set; set it",
            ExitStatus.NOINPUT,
        )
    return os.environ[name]


def _from_command(words: Sequence[str]) -> str:
    # Stdin is closed to the command: the message may be there.
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command, as documented
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as e:
        raise CommandError(
            f"the password command cannot be run: {e.strerror or type(e).__name__}",
            ExitStatus.NOINPUT,
        ) from None
    with process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        output = process.stdout.read(_MAX_SECRET_BYTES + 1)
        endless = len(output) > _MAX_SECRET_BYTES
        if endless:
            process.kill()
    if process.returncode and not endless:
        raise CommandError(
            f"the password command failed with status {process.returncode}", ExitStatus.NOINPUT
        )
    return _secret_text(output, "the output of the password command")


def _prompt(user: str, again: str = "") -> str:
    shown = printable(user, 200)
    missing = CommandError(f"there is no password for {shown}; {_PASSWORD_REMEDY}")
    if sys.stderr is None or not sys.stderr.isatty():
        raise missing
    try:
        with warnings.catch_warnings():
            # getpass warns before it would show the password on the terminal.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"Password for {shown}{f' {again}' if again else ''}: ")
    except (EOFError, getpass.GetPassWarning):
        raise missing from None


def _secret_text(content: bytes, source: str) -> str:
    if len(content) > _MAX_SECRET_BYTES:
        raise CommandError(
            f"{source} is longer than {_MAX_SECRET_BYTES} octets", ExitStatus.DATAERR
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{source} is not UTF-8", ExitStatus.DATAERR) from None
    for end in ("\r\n", "\n"):
        if text.endswith(end):
            return text[: -len(end)]
    return text
