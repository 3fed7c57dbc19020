"""The URL of a queue in PostgreSQL: parsed, completed, and shown without its secrets.

It is a connection URI of libpq, which may name several hosts, with a few parameters of our own.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import attrs

from twisted_sendmail.queue.errors import QueueUnusable
from twisted_sendmail.smtp import printable

_SCHEMES = ("postgresql://", "postgres://")
#: Seconds after which other relays take the messages of a relay over that did not renew its leases.
LEASE_TIME = 60.0
#: Smallest such time, for tests: a relay that waits for the database as long loses its leases.
MIN_LEASE_TIME = 1.0
#: The name of the tables' schema, if the URL gives no other.
SCHEMA = "twisted_sendmail"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}\Z")
#: Values of ``synchronous_commit``; those after the first two may lose mail that was accepted.
DURABLE, WEAKER = ("on", "remote_apply"), ("remote_write", "local", "off")
# Seconds, and milliseconds for tcp_user_timeout, until a lost connection is noticed.
_DEFAULTS = {
    "target_session_attrs": "read-write",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "twisted_sendmail",
}
# Characters of a URL that are shown.
_MAX_SHOWN = 1000
# Parameters of libpq whose values are secrets.
_SECRET = ("password", "sslpassword", "oauth_client_secret")


def is_database_url(place: object) -> bool:
    """Return whether *place* is the URL of a queue in PostgreSQL, and not a directory."""
    return isinstance(place, str) and place.startswith(_SCHEMES)


@attrs.frozen
class DatabaseAddress:
    """A database that holds a queue."""

    #: Parameters of libpq; they may hold a password.
    parameters: dict[str, str] = attrs.field(repr=False)
    #: The URL without passwords.
    shown: str
    #: Name of the schema with the tables of the queue.
    schema: str = SCHEMA
    #: When a commit is durable: ``on`` waits for the synchronous standby, if there is one.
    synchronous_commit: str = DURABLE[0]
    lease_time: float = LEASE_TIME
    #: Name of this relay among those that share the queue; None: the name of the machine.
    node: str | None = None

    def __str__(self) -> str:
        return self.shown

    @classmethod
    def parse(cls, url: str) -> DatabaseAddress:
        """Return the address of *url*, such as ``postgresql://host1,host2/mail``.

        Parameters of our own: ``schema``, ``synchronous_commit``, ``lease_time`` in seconds, and
        ``node``.  The parameters of libpq have defaults that find a lost connection, and the host that takes
        writes.

        :raises QueueUnusable: it cannot be parsed, or a value cannot be used; the text holds no
            secret.
        """
        base, _, query = url.partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise _unusable("its parameters are not of the form name=value") from None
        given = dict(pairs)
        if len(given) != len(pairs):
            raise _unusable("a parameter is given twice")
        own = {name: given.pop(name) for name in _OWN if name in given}
        rest = f"{base}?{urlencode(given, quote_via=quote)}" if given else base
        parameters = {**_DEFAULTS, **_libpq(rest, given)}
        if {"=", ":"} & set(parameters.get("dbname", "")):
            # libpq takes a URL there in some calls; it would be shown with its password.
            raise _unusable("the name of the database holds = or :")
        return cls(
            parameters,
            _shown(parameters, {**given, **own}),
            **{name: _OWN[name](value) for name, value in own.items()},
        )

    @property
    def hosts(self) -> str:
        """The hosts, for an error."""
        names = self.parameters.get("host") or self.parameters.get("hostaddr")
        return printable(names or "the local socket", _MAX_SHOWN)


def _libpq(url: str, given: dict[str, str]) -> dict[str, str]:
    """Return the parameters of *url* as libpq parses it."""
    from twisted_sendmail.queue.postgresql.driver import psycopg

    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    unknown = sorted(set(given) - known)
    # After an @ it may be a password with a question mark that was cut.
    if unknown and "@" not in "".join([*given, *given.values()]):
        raise _unusable(f"there is no parameter {printable(unknown[0], 60)}")
    try:
        found: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error as e:
        text = str(e).strip()
        secrets = [given[name] for name in _SECRET if given.get(name)]
        # A user name may be followed by a password, even one with a question mark.
        if "@" in unquote(url) or any(secret in text for secret in secrets):
            text = "libpq cannot parse it"
        raise _unusable(text) from None
    return {name: str(value) for name, value in found.items()}


def _shown(parameters: dict[str, str], given: dict[str, str]) -> str:
    names = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    hosts = ",".join(
        f"{name}:{port}" if port else name for name, port in zip(names, ports, strict=False)
    )
    user = f"{parameters['user']}@" if "user" in parameters else ""
    query = urlencode({n: v for n, v in given.items() if n not in _SECRET}, safe="/,:")
    shown = f"postgresql://{user}{hosts}/{parameters.get('dbname', '')}"
    return printable(f"{shown}?{query}" if query else shown, _MAX_SHOWN)


def _schema(value: str) -> str:
    if _NAME.match(value) is None:
        raise _unusable("schema is not a name of lower case letters, digits and underscores")
    return value


def _synchronous_commit(value: str) -> str:
    if value not in DURABLE + WEAKER:
        raise _unusable(f"synchronous_commit is none of {', '.join(DURABLE + WEAKER)}")
    return value


def _lease_time(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not MIN_LEASE_TIME <= seconds <= 86400:
        raise _unusable(f"lease_time is not a number of seconds from {MIN_LEASE_TIME:g} to 86400")
    return seconds


def _node(value: str) -> str:
    if not value or not value.isprintable() or len(value) > 255:
        raise _unusable("node is not a printable name")
    return value


_OWN: dict[str, Any] = {
    "schema": _schema,
    "synchronous_commit": _synchronous_commit,
    "lease_time": _lease_time,
    "node": _node,
}


def _unusable(why: str) -> QueueUnusable:
    return QueueUnusable(
        "the URL of the queue cannot be used",
        detail=why,
        remedy="give one such as postgresql://user@host1,host2/database",
    )
