"""The simple case by flags: from them to the same tree as a file's.

What is written behind ``--smarthost`` or ``--listen`` (a password file, a certificate)
belongs to the one before it; in front of the first one, to the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.daemon.configuration_error import ConfigSource

if TYPE_CHECKING:
    from twisted_sendmail.daemon.reading import Values

#: Which key a flag is, by the table it belongs to.
GENERAL = {"name": "name", "queue": "queue"}
LISTEN = {
    "listen": "endpoint",
    "certificate": "certificate",
    "key": "key",
    "accounts": "accounts",
    "trusted": "trusted",
}
SMARTHOST = {
    "smarthost": "url",
    "password-file": "password-file",
    "password-credential": "password-credential",
    "password-command": "password-shell",
    "password-environment": "password-environment",
    "ca-file": "ca-file",
}
ADMIN = {"admin": "endpoint", "admin-token-file": "token-file"}
REWRITE = {"local-mail-to": "local-mail-to", "all-mail-from": "all-mail-from"}

#: Flags that take a list, with commas.
_LISTS = {"trusted"}


def _flags() -> dict[str, str]:
    below = {
        "": GENERAL,
        "listen.": LISTEN,
        "smarthost.": SMARTHOST,
        "admin.": ADMIN,
        "rewrite.": REWRITE,
    }
    found = {
        table + key: f"--{flag}" for table, flags in below.items() for flag, key in flags.items()
    }
    return {**found, "smarthost": "--smarthost", "listen": "--listen"}


#: What errors name in place of the keys.
SOURCE = ConfigSource("the command line", _flags())


class Flags:
    """Gathers flags in the order they are given."""

    def __init__(self) -> None:
        self._general: Values = {}
        self._tables: dict[str, Values] = {"admin": {}, "rewrite": {}}
        self._lists: dict[str, list[Values]] = {"listen": [], "smarthost": []}

    @property
    def given(self) -> bool:
        """Was there any?"""
        return bool(self._general or any(self._tables.values()) or any(self._lists.values()))

    def add(self, flag: str, value: str) -> None:
        """One flag, without its dashes."""
        if flag in GENERAL:
            self._general[GENERAL[flag]] = value
        elif flag in ADMIN:
            self._tables["admin"][ADMIN[flag]] = value
        elif flag in REWRITE:
            self._tables["rewrite"][REWRITE[flag]] = value
        elif flag in LISTEN:
            self._belonging("listen", LISTEN, flag, value)
        else:
            self._belonging("smarthost", SMARTHOST, flag, value)

    def _belonging(self, name: str, keys: dict[str, str], flag: str, value: str) -> None:
        entries, first = self._lists[name], next(iter(keys.values()))
        # The table of the flags in front of the first one is waiting for its first key.
        begins = flag == name and (not entries or first in entries[-1])
        if begins or not entries:
            entries.append({})
        written: Any = value.split(",") if flag in _LISTS else value
        entries[-1][keys[flag]] = written

    def tree(self) -> Values:
        """What a file would have said."""
        return {**self._general, **self._tables, **self._lists}
