"""From the text of a configuration to checked values, by the list of ``keys``.

It knows names and kinds, and nothing of what they mean together.
"""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Any

from twisted_sendmail.daemon.config_types import kind_of
from twisted_sendmail.daemon.configuration_error import ConfigSource, Wrong
from twisted_sendmail.daemon.keys import ROOT, Section
from twisted_sendmail.smtp import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

#: Octets of a file; nobody writes as much.
MAX_FILE = 1024 * 1024
#: Words people write for a secret itself, which has no place in a file that others may read.
_SECRETS = {"password", "token", "secret", "passwd", "pass"}

Values = dict[str, Any]


def read_toml(path: Path, source: ConfigSource) -> Values:
    """The tree in a file.

    :raises ConfigurationError: it cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as e:
        why = f"it cannot be read: {e.strerror or type(e).__name__}"
        raise source.error("", why, "check the name and its permissions") from None
    if len(content) > MAX_FILE:
        raise source.error("", f"it is longer than {MAX_FILE} octets", "it is no configuration")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise source.error("", "it is not UTF-8", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as e:
        raise source.error("", f"it is no TOML: {e}", "correct that line") from None
    except RecursionError:
        raise source.error("", "it goes too deep", "it is no configuration") from None


def checked(tree: Values, folder: Path, source: ConfigSource) -> Values:
    """*tree* with every value read, and what is not written filled in.

    :param folder: where relative paths begin.
    :raises ConfigurationError: naming the key.
    """
    return _section(ROOT, tree, "", folder, source)


def _section(
    section: Section, given: Any, where: str, folder: Path, source: ConfigSource
) -> Values:
    if section.short is not None and isinstance(given, str):
        given = {section.short: given}
    if not isinstance(given, dict):
        raise source.error(where, f"it is {kind_of(given)}", f"write it as a table, [{where}]")
    before = f"{where}." if where else ""
    for name in given:
        if name not in section.names():
            raise _unknown(section, name, before, source)
    values: Values = {}
    for name, key in section.keys.items():
        if name not in given and key.required:
            raise source.error(before + name, "it is missing", "it has to be given")
        written = given.get(name, key.default)
        try:
            values[name] = None if written is None else key.kind(written, folder)
        except Wrong as e:
            raise source.error(before + name, e.why, e.remedy) from None
    for name, below in section.tables.items():
        values[name] = _section(below, given.get(name, {}), before + name, folder, source)
    for name, below in section.arrays.items():
        values[name] = _array(below, given.get(name, []), before + name, folder, source)
    return values


def _array(
    section: Section, given: object, where: str, folder: Path, source: ConfigSource
) -> list[Values]:
    if not isinstance(given, list):
        raise source.error(where, f"it is {kind_of(given)}", f"write it as [[{where}]]")
    return [
        _section(section, each, f"{where}#{n}" if len(given) > 1 else where, folder, source)
        for n, each in enumerate(given, 1)
    ]


def _unknown(section: Section, name: str, before: str, source: ConfigSource) -> Exception:
    shown = printable(name, 60)
    if name.lower() in _SECRETS:
        ways = [key for key in section.keys if key.endswith(("-file", "-credential"))]
        ways = [key for key in ways if key.startswith(("password", "token"))]
        remedy = f"use {' or '.join(ways)}" if ways else "keep it in a file of its own"
        return source.error(before + shown, "a secret is not written here", remedy)
    close = difflib.get_close_matches(name.lower().replace("_", "-"), section.names(), 1, 0.6)
    known = ", ".join(section.names())
    remedy = f"did you mean {close[0]}?" if close else f"known here: {known}"
    return source.error(before + shown, "there is no such key", remedy)
