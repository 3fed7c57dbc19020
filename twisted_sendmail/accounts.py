"""Accounts: servers that a person submits mail to, by name, from one TOML file.

Read with the standard library alone, without Twisted: the ``sendmail`` command uses an account where
no relay is installed. The keys are those of a smarthost in the configuration of the relay, and
``from``, ``password``, ``local-mail-to`` and the endpoints for ``twisted-sendmail login``. Commands in
the file run as the user who reads it, so only this user or root may own the file, and no other may
change it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted_sendmail.secret_file import check_secret_file
from twisted_sendmail.smtp import InvalidServer, Mailbox, full_url, printable

if TYPE_CHECKING:
    from collections.abc import Callable

#: The environment variable that names the file.
ACCOUNTS_VARIABLE = "TWISTED_SENDMAIL_ACCOUNTS"
#: The file of a user, in the directory for configurations, and that of the machine.
USER_FILE, SYSTEM_FILE = "twisted-sendmail/accounts.toml", "/etc/twisted_sendmail/accounts.toml"

#: Octets of the file.
_MAX_SIZE = 1024 * 1024
#: The keys that give a password.
SECRETS = (
    "password",
    "password-file",
    "password-command",
    "password-shell",
    "password-environment",
)


class Account(NamedTuple):
    """A server with a user, as the file has it; values that are not given are None or empty."""

    #: The name of the table.
    name: str
    #: The file.
    file: str
    #: ``smtps://USER@HOST[:PORT]``, ``smtp+starttls://…``; without a password.
    url: str
    #: The user, if the URL has none.
    user: str | None = None
    #: For From, with or without a display name.
    from_: str | None = None
    #: The address for mail to local users, such as cron's to root.
    local_mail_to: str | None = None
    #: The key that gives the password, and its value: text, a path, the words of a command, a line for
    #: the shell, a variable; None: no key gives it.
    secret: tuple[str, Any] | None = None
    bearer: bool = False
    oauth_provider: str | None = None
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret_file: str | None = None
    oauth_auth_method: str | None = None
    oauth_refresh_token_file: str | None = None
    oauth_refresh_token_command: tuple[str, ...] | None = None
    oauth_store_command: tuple[str, ...] | None = None
    oauth_scope: str | None = None
    oauth_ca_file: str | None = None
    #: Endpoints for ``twisted-sendmail login``.
    oauth_device_url: str | None = None
    oauth_authorization_url: str | None = None
    mechanisms: tuple[str, ...] | None = None
    ca_file: str | None = None
    ca_directory: str | None = None
    fingerprint: tuple[str, ...] | None = None
    public_key: tuple[str, ...] | None = None
    dane: bool = False
    name_servers: tuple[str, ...] | None = None
    server_name: str | None = None
    minimum_tls_version: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    client_key_password_file: str | None = None
    #: The IP address to connect from.
    source_address: str | None = None
    ignore_extensions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.file!r})"


def accounts_file() -> str | None:
    """Return the file of accounts: that of the variable, of the user, or of the machine.

    :returns: None if there is none.
    """
    named = os.environ.get(ACCOUNTS_VARIABLE)
    if named:
        return named
    files = (f"{_config_directory()}/{USER_FILE}", SYSTEM_FILE)
    return next((file for file in files if os.path.lexists(file)), None)


def _config_directory() -> str:
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return given if given.startswith("/") else os.path.expanduser("~/.config")  # noqa: PTH111 - pathlib costs 1 MB


def find_account(name: str | None = None) -> Account | None:
    """Return the account *name*, or the default one.

    :param name: None: the account that the key ``default`` names, or the only one.
    :returns: None if *name* is None and there is no file, or no default in it.
    :raises InvalidServer: there is no such account, or the file cannot be used.
    """
    file = accounts_file()
    if file is None:
        if name is None:
            return None
        raise InvalidServer(
            f"there is no account {printable(name, 80)}",
            detail="there is no file of accounts",
            remedy=f"write it into {_config_directory()}/{USER_FILE}",
        )
    accounts, default = read_accounts(file)
    chosen = default if name is None else name
    if chosen is None:
        return next(iter(accounts.values())) if len(accounts) == 1 else None
    if chosen not in accounts:
        names = ", ".join(printable(each, 40) for each in accounts) or "no account"
        raise InvalidServer(
            f"there is no account {printable(chosen, 80)}",
            detail=f"{printable(file, 300)} has {names}",
            remedy="correct the name",
        )
    return accounts[chosen]


def read_accounts(file: str) -> tuple[dict[str, Account], str | None]:
    """Read a file; return its accounts by name, and the value of its key ``default``.

    :raises InvalidServer: it cannot be read or used, or others may change it, or read a password in it.
    """
    found = _parse(file)
    default, tables = found.pop("default", None), found.pop("account", {})
    shown = printable(file, 300)
    if found:
        raise _unknown(f"{shown}:", next(iter(found)), ["default", "account"])
    if default is not None:
        _text(default, f"{shown}: default", file)
    if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise InvalidServer(
            f"{shown}: account cannot be used",
            detail="it holds no table",
            remedy="write [account.NAME] before the keys of each account",
        )
    return {name: _account(name, table, file) for name, table in tables.items()}, default


def _parse(file: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    shown = printable(file, 300)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            status, content = os.fstat(descriptor), opened.read(_MAX_SIZE + 1)
    except OSError as e:
        raise InvalidServer(
            f"{shown} cannot be read",
            detail=e.strerror or type(e).__name__,
            remedy="check the name and its permissions",
        ) from None
    if status.st_uid not in {0, os.geteuid()}:
        raise InvalidServer(
            f"{shown} cannot be used",
            detail="it belongs to another user, whose commands would be run",
            remedy="use a file of your own",
        )
    if len(content) > _MAX_SIZE:
        raise InvalidServer(
            f"{shown} cannot be used",
            detail=f"it has more than {_MAX_SIZE} octets",
            remedy="name the file of accounts",
        )
    try:
        found = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidServer(f"{shown} is not UTF-8", remedy="save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as e:
        raise InvalidServer(
            f"{shown} is no TOML", detail=str(e), remedy="correct that line"
        ) from None
    except ValueError:
        # Python limits the digits of a number.
        raise InvalidServer(
            f"{shown} cannot be used", detail="a number in it is too long", remedy="correct it"
        ) from None
    except RecursionError:
        raise InvalidServer(
            f"{shown} cannot be used", detail="its tables are nested too deeply"
        ) from None
    accounts = found.get("account")
    tables = accounts.values() if isinstance(accounts, dict) else ()
    holds_secret = any(isinstance(table, dict) and "password" in table for table in tables)
    check_secret_file(file, status, world_readable=not holds_secret)
    return found


def _account(name: str, table: dict[str, Any], file: str) -> Account:
    what = f"{printable(file, 300)}: account.{printable(name, 40)}"
    values: dict[str, Any] = {}
    secrets: list[tuple[str, Any]] = []
    for key, value in table.items():
        if key not in _KEYS:
            raise _unknown(f"{what}.", key, list(_KEYS))
        read = _KEYS[key](value, f"{what}.{key}", file)
        if key in SECRETS:
            secrets.append((key, read))
        else:
            values["from_" if key == "from" else key.replace("-", "_")] = read
    if "url" not in values:
        raise InvalidServer(f"{what}.url is missing", remedy="write smtps://USER@HOST")
    if len(secrets) > 1:
        raise InvalidServer(
            f"{what}.{secrets[0][0]} cannot be used",
            detail=f"there is a {secrets[1][0]} too",
            remedy="give one of them",
        )
    oauth = [key for key in table if key.startswith("oauth-")]
    if oauth and (secrets or "oauth_client_id" not in values):
        raise InvalidServer(
            f"{what}.{oauth[0]} cannot be used",
            detail=f"there is a {secrets[0][0]} too" if secrets else "there is no oauth-client-id",
            remedy="give one of them"
            if secrets
            else "write the client, as registered at the provider",
        )
    return Account(name=name, file=file, secret=secrets[0] if secrets else None, **values)


def _unknown(what: str, key: str, known: list[str]) -> InvalidServer:
    import difflib

    near = difflib.get_close_matches(key, known, 1)
    remedy = f"write {near[0]}" if near else f"the keys are {', '.join(known)}"
    return InvalidServer(f"{what}{printable(key, 60)} is no key", remedy=remedy)


# -- types of values; no error quotes a value ----------------------------------


def _text(value: object, what: str, _file: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidServer(f"{what} cannot be used", remedy="write one line of text in quotes")
    return value


def _texts(value: object, what: str, file: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidServer(f"{what} cannot be used", remedy='write a list such as ["one", "two"]')
    return tuple(_text(each, what, file) for each in value)


def _text_or_texts(value: object, what: str, file: str) -> tuple[str, ...]:
    return _texts(value if isinstance(value, list) else [value], what, file)


def _flag(value: object, what: str, _file: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidServer(f"{what} cannot be used", remedy="write true or false, without quotes")
    return value


def _path(value: object, what: str, file: str) -> str:
    """Return a path; a relative one starts at the folder of the file."""
    path = os.path.expanduser(_text(value, what, file))  # noqa: PTH111 - pathlib costs 1 MB
    return os.path.join(os.path.dirname(file), path)  # noqa: PTH118, PTH120 - the same


def _url(value: object, what: str, file: str) -> str:
    url = full_url(_text(value, what, file))
    if ":" in url.partition("://")[2].rpartition("@")[0]:
        raise InvalidServer(
            f"{what} cannot be used",
            detail="it holds a password",
            remedy="write password-command, password-file or password, and leave it out of the URL",
        )
    if "://" not in url:
        raise InvalidServer(f"{what} cannot be used", remedy="write smtps://USER@HOST")
    return url


def _address(value: object, what: str, file: str) -> str:
    text = _text(value, what, file)
    try:
        Mailbox.parse(text)
    except ValueError:
        raise InvalidServer(f"{what} cannot be used", remedy="write jane@example.org") from None
    return text


_TYPES: dict[str, Callable[[object, str, str], Any]] = {
    "url": _url,
    "local-mail-to": _address,
    "bearer": _flag,
    "dane": _flag,
    "fingerprint": _text_or_texts,
    "public-key": _text_or_texts,
    **dict.fromkeys(("mechanisms", "name-servers", "ignore-extensions"), _texts),
}


def _type_of(key: str) -> Callable[[object, str, str], Any]:
    if key.endswith("-command"):
        return _texts
    if key.endswith(("-file", "ca-directory", "client-certificate", "client-key")):
        return _path
    return _TYPES.get(key, _text)


# The fields of an account, and the keys that its field ``secret`` stands for.
_KEYS = {
    key: _type_of(key)
    for field in Account._fields
    if field not in {"name", "file"}
    for key in (SECRETS if field == "secret" else [field.rstrip("_").replace("_", "-")])
}
