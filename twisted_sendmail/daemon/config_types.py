"""Kinds of values in a configuration: what is written, and what it is read as.

A kind is a function of what TOML (or a flag) gives and of the folder that relative
paths begin at; it raises :class:`~.configuration_error.Wrong` with why and remedy.
No value is quoted that may be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from twisted_sendmail.daemon.configuration_error import Wrong
from twisted_sendmail.relay import pattern
from twisted_sendmail.smtp import InvalidInput, Mailbox, domain_name, printable

#: Reads a value.
Kind = Callable[[object, Path], Any]

_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0, "w": 604800.0, "week": 604800.0,
}  # fmt: skip
_OCTETS = {
    "": 1, "b": 1, "byte": 1, "octet": 1, "k": 1000, "kb": 1000, "kib": 1024, "m": 1000**2,
    "mb": 1000**2, "mib": 1024**2, "g": 1000**3, "gb": 1000**3, "gib": 1024**3,
}  # fmt: skip
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def kind_of(value: object) -> str:
    """What TOML calls it."""
    names: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), "a date")


def text(value: object, folder: Path) -> str:
    """One line that is not empty."""
    if not isinstance(value, str):
        raise Wrong(f"it is {kind_of(value)}", "write a text in quotes")
    if not value or not value.isprintable():
        raise Wrong("it is empty, or holds control characters", "write one line of text")
    return value


def texts(value: object, folder: Path) -> tuple[str, ...]:
    """A list of lines."""
    if not isinstance(value, list):
        raise Wrong(f"it is {kind_of(value)}", 'write a list such as ["one", "two"]')
    return tuple(text(each, folder) for each in value)


def flag(value: object, folder: Path) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Wrong(f"it is {kind_of(value)}", "write true or false, without quotes")
    return value


def whole(value: object, folder: Path) -> int:
    """A whole number above zero."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Wrong(f"it is {_shown(value)}", "write a whole number above zero")
    return value


def any_whole(value: object, folder: Path) -> int:
    """A whole number, not below zero."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Wrong(f"it is {_shown(value)}", "write a whole number, 0 or more")
    return value


def number(value: object, folder: Path) -> float:
    """A number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise Wrong(f"it is {_shown(value)}", "write a number above zero")
    return float(value)


def share(value: object, folder: Path) -> float:
    """From 0 up to 1, but not 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise Wrong(f"it is {_shown(value)}", "write a number from 0 up to 1")
    return float(value)


def duration(value: object, folder: Path) -> float:
    """Seconds: a number of them, or ``"300 s"``, ``"5 min"``, ``"1 h 30 min"``, ``"5 days"``."""
    remedy = 'write "300 s", "5 min", "4 hours" or "5 days", or a number of seconds'
    if isinstance(value, str):
        seconds = _sum(value, _SECONDS)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        seconds = None
    else:
        seconds = float(value)
    if seconds is None or not 0 < seconds < 1e9:
        raise Wrong(f"{_shown(value)} is no duration above zero", remedy)
    return seconds


def duration_or_never(value: object, folder: Path) -> float | None:
    """The same, or ``false`` for never."""
    return None if value is False else duration(value, folder)


def size(value: object, folder: Path) -> int:
    """Octets: a number of them, or ``"25 MB"``, ``"10 MiB"``, ``"64 kB"``."""
    octets = _sum(value, _OCTETS) if isinstance(value, str) else value
    if isinstance(octets, float) and octets.is_integer():
        octets = int(octets)
    if isinstance(octets, bool) or not isinstance(octets, int) or not 0 < octets < 1 << 53:
        remedy = 'write "25 MB", "10 MiB" or a number of octets'
        raise Wrong(f"{_shown(value)} is no size above zero", remedy)
    return octets


def path(value: object, folder: Path) -> Path:
    """A path; a relative one begins at the folder of the file (or the current one, for a flag)."""
    name = text(value, folder)
    return folder / Path(name).expanduser()


def readable_file(value: object, folder: Path) -> Path:
    """A path that can be read now."""
    file = path(value, folder)
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as e:
        why = f"{printable(str(file), 200)} cannot be read: {e.strerror or type(e).__name__}"
        raise Wrong(why, "check the name and its permissions") from None
    return file


def host_name(value: object, folder: Path) -> str:
    """A domain name."""
    try:
        return domain_name(text(value, folder))
    except InvalidInput:
        raise Wrong(f"{_shown(value)} is no host name", "write it as relay.example.org") from None


def address(value: object, folder: Path) -> Mailbox:
    """A mail address."""
    try:
        return Mailbox.parse(text(value, folder))
    except InvalidInput:
        raise Wrong(f"{_shown(value)} is no mail address", "write it as jane@example.org") from None


def senders(value: object, folder: Path) -> tuple[str, ...]:
    """Patterns of senders: ``jane@example.org``, ``@example.org``, ``<>`` or ``*``."""
    given = texts(value, folder)
    if not given:
        raise Wrong("the list is empty", 'name a sender, "@domain" or "*"')
    try:
        return tuple(pattern(each) for each in given)
    except InvalidInput as e:
        raise Wrong(f"{e.what}{e.detail and ': '}{e.detail}", e.remedy) from None


def text_map(value: object, folder: Path) -> dict[str, str]:
    """A table from text to text."""
    if not isinstance(value, dict):
        raise Wrong(f"it is {kind_of(value)}", 'write { "root@host" = "admin@example.org" }')
    return {text(key, folder): text(target, folder) for key, target in value.items()}


def networks(value: object, folder: Path) -> tuple[str, ...]:
    """Networks in CIDR notation, addresses, or ``unix``: those that may send without AUTH."""
    why = "the relay would be open to the whole world"
    return _networks(texts(value, folder), why, "name your own networks, and give others accounts")


def early_input(value: object, folder: Path) -> tuple[str, ...]:
    """The same: those that may send content before the reply to DATA."""
    why = "others could smuggle messages in by any client"
    return _networks(texts(value, folder), why, "name the machines whose clients do not wait")


def _networks(given: tuple[str, ...], not_all: str, remedy_for_all: str) -> tuple[str, ...]:
    for each in given:
        if each == "unix":
            continue
        try:
            network = ip_network(each)
        except ValueError:
            remedy = "write it as 192.0.2.0/24, 2001:db8::/32 or unix"
            raise Wrong(f"{_shown(each)} is no network", remedy) from None
        if network.prefixlen == 0:
            raise Wrong(f"{each} is everybody: {not_all}", remedy_for_all)
    return given


def permissions(value: object, folder: Path) -> int:
    """Permissions in octal, as a text: ``"0660"``."""
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise Wrong(f"{_shown(value)} is no mode", 'write octal digits in quotes, such as "0660"')
    return int(value, 8)


def command(value: object, folder: Path) -> tuple[str, ...]:
    """A program and its arguments, run without a shell."""
    if isinstance(value, str):
        remedy = 'write a list such as ["pass", "mail"]; for the shell there is the key …-shell'
        raise Wrong("it is a text", remedy)
    words = texts(value, folder)
    if not words:
        raise Wrong("the list is empty", "name the program")
    return words


def _sum(value: str, units: dict[str, Any]) -> float | None:
    """``1 h 30 min`` as a number; None when it is none."""
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


def _shown(value: object) -> str:
    return f"'{printable(str(value), 60)}'"
