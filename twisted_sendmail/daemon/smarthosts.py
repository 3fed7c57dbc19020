"""From the tables ``[[smarthost]]`` and ``[[route]]`` to the ways out of the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from attrs import evolve
from twisted.logger import Logger

from twisted_sendmail.client import PoolLimits, SubmissionServer, TLSTrust, check_secret_file
from twisted_sendmail.daemon.configuration_error import ConfigSource, Wrong
from twisted_sendmail.daemon.secrets import SecretSource
from twisted_sendmail.relay import EVERYBODY, RouteSettings
from twisted_sendmail.sasl import Credentials, check_mechanisms
from twisted_sendmail.smtp import InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.daemon.configuration_error import ConfigurationError
    from twisted_sendmail.daemon.reading import Values

#: The route of those who have no other.
DEFAULT = "default"
_WAYS = ("file", "credential", "command", "shell", "environment")
_log = Logger(namespace="twisted_sendmail.relay.dialogue")


def routes_of(values: Values, source: ConfigSource, reactor: Any) -> tuple[RouteSettings, ...]:
    """All ways out, the one for everybody first.

    :raises ConfigurationError: for what cannot be used.
    """
    reader = _Reader(
        source,
        reactor,
        _watched if values["log"]["dialogue"] else None,
        world_readable=values["world-readable-secrets"],
    )
    usual = values["delivery"]
    routes = []
    if values["smarthost"]:
        servers = reader.servers(values["smarthost"], "smarthost")
        routes.append(reader.route("delivery", DEFAULT, servers, (EVERYBODY,), usual))
    tables = values["route"]
    for n, table in enumerate(tables, 1):
        where = f"route#{n}" if len(tables) > 1 else "route"
        name = table["name"]
        if not table["smarthost"]:
            remedy = "write [[route.smarthost]] with its url below it"
            raise source.error(f"{where}.smarthost", "it is missing", remedy)
        if name in {route.name for route in routes}:
            why = f"'{printable(name, 60)}' is the name of another route"
            raise source.error(f"{where}.name", why, "give each route its own name")
        servers = reader.servers(table["smarthost"], f"{where}.smarthost")
        bounds = {key: usual[key] if table[key] is None else table[key] for key in usual}
        routes.append(reader.route(where, name, servers, table["senders"], bounds))
    if not routes:
        remedy = "give it a url such as smtps://user@mail.example.net"
        raise source.error("smarthost", "it is missing", remedy)
    return tuple(routes)


def explained(error: InvalidInput) -> str:
    """What is wrong, without the remedy."""
    return f"{error.what}{error.detail and ': '}{error.detail}"


def secret_source(
    values: Values, name: str, where: str, source: ConfigSource, *, world_readable: bool
) -> SecretSource | None:
    """Where ``name``'s secret comes from, seen to be there; None if nothing is said.

    :param world_readable: a file may be one that everybody may read.
    :raises ConfigurationError: two ways are given, or it cannot be had.
    """
    given = [way for way in _WAYS if values.get(f"{name}-{way}") is not None]
    if not given:
        return None
    key = f"{where}.{name}-{given[0]}"
    if len(given) > 1:
        why = f"there is a {name}-{given[1]} too"
        raise source.error(key, why, "give one of them")
    found = SecretSource(given[0], values[f"{name}-{given[0]}"], world_readable)
    try:
        found.check()
    except Wrong as e:
        raise source.error(key, e.why, e.remedy) from None
    return found


class _Reader:
    """Reads the tables of one configuration."""

    def __init__(
        self,
        source: ConfigSource,
        reactor: Any,
        watch: Callable[[str], None] | None,
        *,
        world_readable: bool,
    ) -> None:
        self._source = source
        self._world_readable = world_readable
        self._reactor = reactor
        self._watch = watch

    def servers(self, tables: list[Values], where: str) -> tuple[SubmissionServer, ...]:
        numbered = [
            (f"{where}#{n}" if len(tables) > 1 else where, table)
            for n, table in enumerate(tables, 1)
        ]
        # sorted is stable: those of one priority stay as they are written.
        best_first = sorted(numbered, key=lambda pair: pair[1]["priority"])
        return tuple(self._server(table, place) for place, table in best_first)

    def _server(self, values: Values, where: str) -> SubmissionServer:
        def wrong(key: str, why: str, remedy: str) -> ConfigurationError:
            return self._source.error(f"{where}.{key}", why, remedy)

        if values["client-key"] is not None and values["client-certificate"] is None:
            raise wrong("client-key", "there is no client-certificate", "give both")
        try:
            server = SubmissionServer.from_url(
                values["url"],
                credentials=None,
                ignore_extensions=values["ignore-extensions"],
                watch=self._watch,
            )
        except InvalidInput as e:
            raise wrong("url", explained(e), e.remedy) from None
        user = _user(values, wrong)
        server = evolve(server, trust=_trust(values, wrong, world_readable=self._world_readable))
        secret = secret_source(
            values, "password", where, self._source, world_readable=self._world_readable
        )
        if user is None:
            if secret is not None:
                raise wrong("url", "there is a password but no user", "write user@ in it")
            return server
        if secret is None:
            remedy = "give password-file, password-credential or password-command"
            why = f"there is no password for {printable(user, 80)}"
            raise wrong("password-file", why, remedy)
        if not server.tls.required:
            why = "a password goes over TLS only"
            raise wrong("url", why, "write smtps:// or smtp+starttls://")
        provider = secret.provider(self._reactor)
        bearer = values["bearer"]
        try:
            credentials = Credentials(
                user,
                None if bearer else provider,
                token=provider if bearer else None,
                mechanisms=values["mechanisms"],
            )
            check_mechanisms(credentials)
            return evolve(server, credentials=credentials)
        except InvalidInput as e:
            key = "url" if values["mechanisms"] is None else "mechanisms"
            raise wrong(key, explained(e), e.remedy) from None

    def route(
        self,
        where: str,
        name: str,
        servers: tuple[SubmissionServer, ...],
        senders: tuple[str, ...],
        values: Values,
    ) -> RouteSettings:
        def given(**keys: str) -> dict[str, Any]:
            found = {name: values[key] for name, key in keys.items()}
            return {name: value for name, value in found.items() if value is not None}

        try:
            bounds = PoolLimits(
                **given(
                    connections="connections",
                    messages="messages-per-connection",
                    idle="idle",
                    age="age",
                    window="window",
                    pipeline_after_data="pipeline-after-data",
                    rate="rate",
                    burst="burst",
                )
            )
            waits = given(first="down-first", most="down-most")
            return RouteSettings(name, servers, senders, bounds, **waits)
        except InvalidInput as e:
            raise self._source.error(where, explained(e), e.remedy) from None


def _trust(
    values: Values,
    wrong: Callable[[str, str, str], ConfigurationError],
    *,
    world_readable: bool,
) -> TLSTrust:
    try:
        trust = TLSTrust(
            ca_file=values["ca-file"],
            fingerprint=values["fingerprint"],
            name=values["server-name"],
            client_certificate=values["client-certificate"],
            client_key=values["client-key"],
        )
        trust.context()
    except InvalidInput as e:
        given = ("fingerprint", "ca-file", "client-certificate")
        key = next((key for key in given if values[key] is not None), "url")
        raise wrong(key, explained(e), e.remedy or "give a PEM file") from None
    key = "client-certificate" if values["client-key"] is None else "client-key"
    if values[key] is not None:
        try:
            check_secret_file(values[key], world_readable=world_readable)
        except InvalidInput as e:
            raise wrong(key, explained(e), e.remedy) from None
    return trust


def _user(values: Values, wrong: Callable[[str, str, str], ConfigurationError]) -> str | None:
    parts = urlsplit(values["url"])
    if parts.password is not None:
        raise wrong("url", "there is a password in it", "take it out, and use password-file")
    written = unquote(parts.username) if parts.username else None
    user: str | None = values["user"]
    if user is not None and written is not None:
        raise wrong("user", "there is a user in the url too", "name him once")
    return written if user is None else user


def _watched(line: str) -> None:
    """One line of a dialogue; it is redacted and printable."""
    _log.info("{line}", line=line)
