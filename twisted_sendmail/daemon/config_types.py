"""Reading of configuration files: TOML, types of values, errors that name a key.

A type is a function of the value that TOML (or a flag) gives and of the folder that relative paths
start at. It returns the value to use, or raises :class:`InvalidValue`. No error quotes a value that
may be a secret.
"""

from __future__ import annotations

import contextlib
import grp
import math
import pwd
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import attrs

from twisted_sendmail.daemon.logging import LEVELS
from twisted_sendmail.message import dkim_selector
from twisted_sendmail.queue import QueueUnusable, is_queue_url, open_store
from twisted_sendmail.secret_file import why_unreadable
from twisted_sendmail.smtp import InvalidInput, Mailbox, domain_name, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")

#: Octets of a configuration file.
MAX_FILE_SIZE = 1024 * 1024

#: A type: reads a value, given the folder that relative paths start at.
ValueType = Callable[[object, Path], _T]


class ConfigurationError(InvalidInput):
    """The relay cannot run with this configuration. Nothing was opened or changed."""


class InvalidValue(Exception):
    """A value cannot be used: why, what to do, and the dotted key as far as it is known here."""

    def __init__(self, why: str, remedy: str = "", key: str = "") -> None:
        super().__init__(why)
        self.why, self.remedy, self.key = why, remedy, key


@attrs.frozen
class ConfigSource:
    """The origin of a configuration.

    :param name: a file, or ``the command line``.
    :param flags: the flag for each key, where the user gave flags instead of keys.
    """

    name: str
    flags: Mapping[str, str] = attrs.field(factory=dict)

    def error(self, key: str, why: str, remedy: str = "") -> ConfigurationError:
        """Return the error about *key* (dotted; empty for the whole configuration)."""
        plain = ".".join(part.partition("#")[0] for part in key.split("."))
        shown = self.flags.get(plain, key)
        what = f"{self.name}: {shown}" if shown else self.name
        return ConfigurationError(what, detail=why, remedy=remedy)

    @contextlib.contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Turn an :class:`InvalidValue` into a :class:`ConfigurationError` of this source."""
        try:
            yield
        except InvalidValue as e:
            raise self.error(e.key, e.why, e.remedy) from None


@contextlib.contextmanager
def at_key(key: str, *, remedy: str = "") -> Iterator[None]:
    """Name *key* in the errors of a block; the keys of nested blocks are joined by dots.

    :param remedy: for errors that have none.
    """
    try:
        yield
    except InvalidValue as e:
        e.key = f"{key}.{e.key}" if e.key else key
        raise
    except InvalidInput as e:
        why = f"{e.what}{e.detail and ': '}{e.detail}"
        raise InvalidValue(why, e.remedy or remedy, key) from None


def read_toml(
    path: Path, source: ConfigSource, *, remedy: str = "check the name and its permissions"
) -> dict[str, Any]:
    """Parse the file at *path*.

    :param remedy: for a file that cannot be read.
    :raises ConfigurationError: the file cannot be read, or is not TOML.
    """
    with source.naming_errors():
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_SIZE + 1)
        except OSError as e:
            why = f"the file cannot be read: {e.strerror or type(e).__name__}"
            raise InvalidValue(why, remedy) from None
        if len(content) > MAX_FILE_SIZE:
            why = f"the file is longer than {MAX_FILE_SIZE} octets"
            raise InvalidValue(why, "give a configuration file")
        try:
            return tomllib.loads(content.decode("utf-8"))
        except UnicodeDecodeError:
            raise InvalidValue("the file is not UTF-8", "save the file as UTF-8") from None
        except tomllib.TOMLDecodeError as e:
            raise InvalidValue(f"invalid TOML: {e}", "correct that line") from None
        except ValueError:
            # Python limits the digits of a number.
            raise InvalidValue("a number is too long", "correct it") from None
        except RecursionError:
            raise InvalidValue(
                "tables or arrays are nested too deeply", "give a configuration file"
            ) from None


def default_host_name() -> str:
    """Return the full name of this machine, or the short one if there is no other.

    May ask the name service and block: not for the reactor's thread while the reactor runs.

    RFC 5321 section 2.3.5 (fully-qualified domain names).

    :raises InvalidInput: the name is not valid for a mail host.
    """
    name = socket.gethostname()
    if "." not in name.strip("."):
        full = socket.getfqdn()
        name = name if full.startswith("localhost") else full
    return domain_name(name)


# ---------------------------------------------------------------------------------------------------------------------
# Types


def text(value: object, folder: Path) -> str:
    """One line of text, not empty."""
    if not isinstance(value, str):
        raise InvalidValue(f"the value is {type_name(value)}", "write a text in quotes")
    if not value or not value.isprintable():
        raise InvalidValue(
            "the value is empty, or holds control characters", "write one line of text"
        )
    return value


def texts(value: object, folder: Path) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list):
        raise InvalidValue(
            f"the value is {type_name(value)}", 'write a list such as ["one", "two"]'
        )
    return tuple(text(each, folder) for each in value)


def text_or_texts(value: object, folder: Path) -> tuple[str, ...]:
    """A text, or a list of texts."""
    return texts(value if isinstance(value, list) else [value], folder)


def text_map(value: object, folder: Path) -> dict[str, str]:
    """A table from text to text."""
    if not isinstance(value, dict):
        remedy = 'write { "root@host" = "admin@example.org" }'
        raise InvalidValue(f"the value is {type_name(value)}", remedy)
    return {text(key, folder): text(target, folder) for key, target in value.items()}


def boolean(value: object, folder: Path) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise InvalidValue(
            f"the value is {type_name(value)}", "write true or false, without quotes"
        )
    return value


def log_level(value: object, folder: Path) -> str:
    """The name of a level of the log."""
    if value not in LEVELS:
        raise InvalidValue(
            f"the value is {_quoted(value)}", 'write "debug", "info", "warn" or "error"'
        )
    return str(value)


def _number(kind: Callable[[Any], _T], valid: Callable[[Any], bool], remedy: str) -> ValueType[_T]:
    def number(value: object, folder: Path) -> _T:
        accepted = int if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted) or not valid(value):
            raise InvalidValue(f"the value is {_quoted(value)}", remedy)
        return kind(value)

    return number


positive_integer = _number(int, lambda n: n >= 1, "write a whole number above zero")
natural_number = _number(int, lambda n: n >= 0, "write a whole number, 0 or more")
positive_number = _number(float, lambda n: 0 < n < math.inf, "write a number above zero")
fraction = _number(float, lambda n: 0 <= n < 1, "write a number from 0 up to 1")

_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0, "w": 604800.0, "week": 604800.0,
}  # fmt: skip
_OCTETS = {
    "": 1, "b": 1, "byte": 1, "octet": 1, "k": 1000, "kb": 1000, "kib": 1024, "m": 1000**2,
    "mb": 1000**2, "mib": 1024**2, "g": 1000**3, "gb": 1000**3, "gib": 1024**3,
}  # fmt: skip
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def duration(value: object, folder: Path) -> float:
    """Seconds: a number of them, or ``"300 s"``, ``"5 min"``, ``"1 h 30 min"``, ``"5 days"``."""
    seconds: float | None = None
    if isinstance(value, str):
        seconds = _sum_of_amounts(value, _SECONDS)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if seconds is None or not 0 < seconds < 1e9:
        remedy = 'write "300 s", "5 min", "4 hours" or "5 days", or a number of seconds'
        raise InvalidValue(f"{_quoted(value)} is no duration above zero", remedy)
    return seconds


def duration_or_never(value: object, folder: Path) -> float | None:
    """A duration, or ``false`` for never."""
    return None if value is False else duration(value, folder)


def size(value: object, folder: Path) -> int:
    """Octets: a number of them, or ``"25 MB"``, ``"10 MiB"``, ``"64 kB"``."""
    octets = _sum_of_amounts(value, _OCTETS) if isinstance(value, str) else value
    if isinstance(octets, float) and octets.is_integer():
        octets = int(octets)
    if isinstance(octets, bool) or not isinstance(octets, int) or not 0 < octets < 1 << 53:
        remedy = 'write "25 MB", "10 MiB" or a number of octets'
        raise InvalidValue(f"{_quoted(value)} is no size above zero", remedy)
    return octets


def path(value: object, folder: Path) -> Path:
    """A path. A relative one starts at *folder*."""
    return folder / Path(text(value, folder)).expanduser()


def queue_place(value: object, folder: Path) -> Path | str:
    """The place of a queue: a directory, or the URL of a database, without a password."""
    given = text(value, folder)
    if not is_queue_url(given):
        return path(value, folder)
    parts = urlsplit(given)
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if parts.password is not None or any("password" in name for name in names):
        remedy = "take it out, and name a file by ?passfile=, or use ~/.pgpass"
        raise InvalidValue("there is a password in it", remedy)
    try:
        _ = open_store(given)
    except QueueUnusable as e:
        raise InvalidValue(e.detail or e.what, e.remedy) from None
    return given


def readable_file(value: object, folder: Path) -> Path:
    """The path of a file that can be read now."""
    file = path(value, folder)
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as e:
        raise InvalidValue(*why_unreadable(file, e)) from None
    return file


def file_mode(value: object, folder: Path) -> int:
    """Permissions in octal, as a text: ``"0660"``."""
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        remedy = 'write octal digits in quotes, such as "0660"'
        raise InvalidValue(f"{_quoted(value)} is no mode", remedy)
    return int(value, 8)


def group(value: object, folder: Path) -> int:
    """A group of this machine, by its name or number; its number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value
    name = text(value, folder)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        why = f"there is no group {_quoted(name)} on this machine"
        raise InvalidValue(why, "write the name or the number of a group") from None


def users(value: object, folder: Path) -> tuple[str, ...]:
    """Users of this machine, by their names or numbers; their numbers, or ``*`` for all."""
    if not isinstance(value, list):
        why, remedy = f"the value is {type_name(value)}", 'write a list such as ["www-data"]'
        raise InvalidValue(why, remedy)
    return tuple(_user(each, folder) for each in value)


def _user(value: object, folder: Path) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return str(value)
    name = text(value, folder)
    if name == "*":
        return name
    try:
        return str(pwd.getpwnam(name).pw_uid)
    except KeyError:
        why = f"there is no user {_quoted(name)} on this machine"
        raise InvalidValue(why, "write the name or the number of a user") from None


def command(value: object, folder: Path) -> tuple[str, ...]:
    """A program and its arguments, run without a shell."""
    if isinstance(value, str):
        remedy = 'write a list such as ["pass", "mail"]; for the shell there is the key …-shell'
        raise InvalidValue("the value is a text", remedy)
    words = texts(value, folder)
    if not words:
        raise InvalidValue("the list is empty", "name the program")
    return words


def host_name(value: object, folder: Path) -> str:
    """A domain name."""
    try:
        return domain_name(text(value, folder))
    except InvalidInput:
        remedy = "write it as relay.example.org"
        raise InvalidValue(f"{_quoted(value)} is no host name", remedy) from None


def selector(value: object, folder: Path) -> str:
    """A DKIM selector."""
    try:
        return dkim_selector(text(value, folder))
    except InvalidInput as e:
        raise InvalidValue(e.what, e.remedy) from None


def mail_address(value: object, folder: Path) -> Mailbox:
    """A mail address."""
    try:
        return Mailbox.parse(text(value, folder))
    except InvalidInput:
        remedy = "write it as jane@example.org"
        raise InvalidValue(f"{_quoted(value)} is no mail address", remedy) from None


def trusted_networks(value: object, folder: Path) -> tuple[str, ...]:
    """Networks in CIDR notation, addresses, or ``unix``, whose clients may send without AUTH."""
    why = "the relay would be open to the whole world"
    return _networks(value, folder, why, "name your own networks, and give others accounts")


def early_input_networks(value: object, folder: Path) -> tuple[str, ...]:
    """Networks as in :func:`trusted_networks`, whose clients may send content before the 354."""
    why = "others could smuggle messages in by any client"
    return _networks(value, folder, why, "name the machines whose clients do not wait")


def repaired_networks(value: object, folder: Path) -> bool | tuple[str, ...]:
    """True or False, or networks as in :func:`trusted_networks`, whose content is repaired."""
    if isinstance(value, bool):
        return value
    return _networks(value, folder, "the key has a form for that", "write repair = true")


def _networks(value: object, folder: Path, why_not_all: str, remedy: str) -> tuple[str, ...]:
    given = texts(value, folder)
    for each in given:
        if each == "unix":
            continue
        try:
            network = ip_network(each)
        except ValueError:
            form = "write it as 192.0.2.0/24, 2001:db8::/32 or unix"
            raise InvalidValue(f"{_quoted(each)} is no network", form) from None
        if network.prefixlen == 0:
            raise InvalidValue(f"{each} is everybody: {why_not_all}", remedy)
    return given


def type_name(value: object) -> str:
    """Return the name of the TOML type of *value*, with its article."""
    names: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), "a date")


def _sum_of_amounts(value: str, units: Mapping[str, Any]) -> float | None:
    """Add up amounts such as ``1 h 30 min``; None if one cannot be parsed."""
    total, position = 0.0, 0
    written = value.strip()
    while position < len(written):
        match = _AMOUNT.match(written, position)
        if match is None:
            return None
        name = match[2] if match[2].lower() in units else match[2].removesuffix("s")
        unit = units.get(name.lower())
        if unit is None:
            return None
        total += float(match[1]) * unit
        position = match.end()
    return total if written else None


def _quoted(value: object) -> str:
    return f"'{printable(str(value), 60)}'"
