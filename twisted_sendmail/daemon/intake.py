"""Limits and changes that the configuration sets for incoming mail.

The relay applies them to mail from its listeners; the sendmail command applies them to mail that it
writes to the queue itself, and reads no other part of the configuration for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted_sendmail.daemon.config_schema import (
    LimitsTable,
    RewriteTable,
    RootTable,
    RouteTable,
    read_table,
)
from twisted_sendmail.daemon.config_types import ConfigSource, InvalidValue, at_key
from twisted_sendmail.message import Rewriting
from twisted_sendmail.queue import CleanupPolicy
from twisted_sendmail.relay import EVERYBODY, Routing
from twisted_sendmail.smtp import ServerSettings

#: The name of the route of ``[[smarthost]]``.
DEFAULT_ROUTE = "default"

_ROOT_KEYS = ("name", "queue", "submission-socket", "rewrite")
_LIMITS_KEYS = ("message-size", "header-size", "recipients", "hops")
_ROUTE_KEYS = ("name", "senders")


def read_intake(tree: dict[str, Any], folder: Path, source: ConfigSource) -> RootTable:
    """Read the keys that concern incoming mail, and no others.

    Users who may not read the relay's certificates and secrets can use this, and an error in
    another part of the file does no harm.

    :param tree: the file as TOML gives it.
    :raises ConfigurationError: naming the key that cannot be used.
    """
    part: dict[str, Any] = _only(_ROOT_KEYS, tree)
    if isinstance(tree.get("limits"), dict):
        part["limits"] = _only(_LIMITS_KEYS, tree["limits"])
    if isinstance(tree.get("route"), list):
        part["route"] = [
            _only(_ROUTE_KEYS, each) for each in tree["route"] if isinstance(each, dict)
        ]
    with source.naming_errors():
        return read_table(RootTable, part, folder)


def _only(keys: tuple[str, ...], tree: dict[str, Any]) -> dict[str, Any]:
    return {key: tree[key] for key in keys if key in tree}


def cleanup_policy(tables: RootTable, name: str) -> CleanupPolicy:
    """Make the policy for incoming mail.

    :param name: our host name.
    :raises InvalidValue: naming the key that cannot be used.
    """
    routes = list(tables.route)
    if not any(EVERYBODY in route.senders for route in routes):
        routes.append(RouteTable(name=DEFAULT_ROUTE, senders=(EVERYBODY,)))
    return CleanupPolicy(
        name,
        Routing(routes).of,
        _rewriting(tables.rewrite, name),
        complete=tables.rewrite.complete,
        max_hops=tables.limits.hops,
    )


def _rewriting(table: RewriteTable, name: str) -> Rewriting | None:
    senders = dict(table.senders)
    if table.all_mail_from is not None:
        if "*" in senders:
            why = "there is a '*' in rewrite.senders too"
            raise InvalidValue(why, "write one of them", "rewrite.all-mail-from")
        senders["*"] = str(table.all_mail_from)
    admin = table.local_mail_to
    if not (senders or table.masquerade or admin):
        return None
    with at_key("rewrite"):
        return Rewriting(
            senders=senders,
            masquerade=table.masquerade,
            admin=None if admin is None else str(admin),
            name=name,
            local_domains=table.local_domains,
        )


def server_settings(
    limits: LimitsTable, host: str, *, repair: bool, starttls: bool | None = None
) -> ServerSettings:
    """Make the settings of a server named *host* that accepts mail for the queue.

    RFC 5321 section 4.5.3.1 (sizes and limits).
    """
    return ServerSettings(
        host=host,
        require_hello=False,
        starttls=starttls,
        max_size=limits.message_size,
        max_header=limits.header_size,
        max_hops=limits.hops,
        max_recipients=limits.recipients,
        repair=repair,
    )
