"""The relay's rules for what comes in, for a program that puts a message into its queue.

The part of the configuration that makes them, read as the relay reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from twisted_sendmail.daemon.configuration_error import ConfigSource
from twisted_sendmail.daemon.limits import Limits
from twisted_sendmail.daemon.reading import Values, checked
from twisted_sendmail.daemon.rewrite_rules import rewriting_of
from twisted_sendmail.queue import CleanupPolicy
from twisted_sendmail.relay import EVERYBODY, Routing

#: The route of those who have no other.
DEFAULT = "default"
_ROOT = ("name", "queue", "submission-socket", "rewrite")
_LIMITS = ("message-size", "header-size", "recipients", "hops")


class _Way(NamedTuple):
    """As much of a route as says who takes it."""

    name: str
    senders: tuple[str, ...]


def ours(tree: dict[str, Any], folder: Path, source: ConfigSource) -> Values:
    """The values that are not for the relay alone, checked.

    :raises ConfigurationError: naming the key.
    """
    part: dict[str, Any] = {key: tree[key] for key in _ROOT if key in tree}
    limits, routes = tree.get("limits"), tree.get("route")
    if isinstance(limits, dict):
        part["limits"] = {key: limits[key] for key in _LIMITS if key in limits}
    if isinstance(routes, list):
        part["route"] = [
            {key: each[key] for key in ("name", "senders") if key in each}
            for each in routes
            if isinstance(each, dict)
        ]
    return checked(part, folder, source)


def limits_of(tree: dict[str, Any], folder: Path, source: ConfigSource) -> Limits:
    """What those who bring mail may do; what the relay's defaults are, where there is no *tree*.

    :raises ConfigurationError: naming the key that cannot be used.
    """
    return Limits.of(ours(tree or {"queue": "."}, folder, source)["limits"])


def policy_of(tree: dict[str, Any], folder: Path, source: ConfigSource, name: str) -> CleanupPolicy:
    """The rules.

    :param tree: the configuration; empty where there is none.
    :raises ConfigurationError: naming the key that cannot be used.
    """
    if not tree:
        return CleanupPolicy(name, lambda _: DEFAULT)
    values = ours(tree, folder, source)
    ways = [_Way(each["name"], each["senders"]) for each in values["route"]]
    patterns = [pattern for way in ways for pattern in way.senders]
    if EVERYBODY not in patterns:
        ways.insert(0, _Way(DEFAULT, (EVERYBODY,)))
    return CleanupPolicy(
        name,
        Routing(ways).of,  # type: ignore[arg-type]  # it asks for no more of a route
        rewriting_of(values["rewrite"], name, source),
        complete=values["rewrite"]["complete"],
        max_hops=values["limits"]["hops"],
    )
