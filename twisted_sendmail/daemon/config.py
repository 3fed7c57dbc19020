"""``Configuration``: all that an operator has said, whole and checked, before anything is opened.

From a TOML file or from flags; either is a tree for ``reading``, and what the values
mean together is judged here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.admin.sessions import MIN_TOKEN_LENGTH
from twisted_sendmail.client import check_secret_file
from twisted_sendmail.daemon.configuration_error import ConfigSource, Wrong
from twisted_sendmail.daemon.endpoint_text import EndpointText, parse_endpoint, server_endpoint
from twisted_sendmail.daemon.host_name import host_name
from twisted_sendmail.daemon.limits import Limits
from twisted_sendmail.daemon.reading import checked, read_toml
from twisted_sendmail.daemon.rewrite_rules import rewriting_of
from twisted_sendmail.daemon.smarthosts import explained, routes_of, secret_source
from twisted_sendmail.queue import CleanupPolicy
from twisted_sendmail.relay import RelaySettings, RetryPolicy, Routing
from twisted_sendmail.sasl import Secret
from twisted_sendmail.server import PasswordFile, ServerTLS
from twisted_sendmail.smtp import InvalidInput, printable

if TYPE_CHECKING:
    from twisted_sendmail.daemon.reading import Values

#: A warning that never comes.
_NEVER = 1e12
#: Bytes of a Unix socket's path; the kernel takes no longer one.
_MAX_SOCKET = 107


@dataclass(frozen=True)
class Listener:
    """One endpoint to take mail in by."""

    endpoint: EndpointText
    certificate: Path | None
    key: Path | None
    implicit_tls: bool
    accounts: Path | None
    trusted: tuple[str, ...]
    #: Bare CR, bare LF and NUL in content are repaired; else such mail is refused.
    repair: bool
    #: Networks whose clients may send content before the reply to DATA.
    early_input: tuple[str, ...] = ()
    #: Accounts may be a file that everybody may read.
    world_readable_secrets: bool = False


@dataclass(frozen=True)
class Admin:
    """Where health, metrics and the queue page are."""

    endpoint: EndpointText
    #: What lets somebody act on the queue; None: nobody can.
    token: Secret | None
    #: The page is for those alone who have shown it.
    private: bool
    #: Others than this machine may come.
    public: bool
    #: What the page is called besides ``localhost``.
    names: tuple[str, ...]


@dataclass(frozen=True)
class Configuration:
    """All of it."""

    #: Where it is written, for people.
    source: str
    #: Our host name.
    name: str
    #: The folder of the queue.
    queue: Path
    #: The Unix socket that programs of this machine submit to, and its permissions.
    submission_socket: Path
    submission_mode: int
    listeners: tuple[Listener, ...]
    relay: RelaySettings
    admission: CleanupPolicy
    limits: Limits
    admin: Admin | None
    #: A file for the log as JSON; None: none.
    json_log: Path | None
    #: What is good and yet to be mended, a line each.
    warnings: tuple[str, ...]


def read_configuration(path: Path, reactor: Any) -> Configuration:
    """Read a TOML file.  Blocks: a reactor that runs has it done by a thread.

    :raises ConfigurationError: naming the file, the key and the remedy.
    """
    source = ConfigSource(str(path))
    return configuration_of(read_toml(path, source), path.absolute().parent, source, reactor)


def configuration_of(
    tree: Values, folder: Path, source: ConfigSource, reactor: Any
) -> Configuration:
    """Make it of a tree as TOML gives it.

    :param folder: where relative paths begin.
    :raises ConfigurationError: naming the key and the remedy.
    """
    values = checked(tree, folder, source)
    name = values["name"] or _host_name(source)
    queue: Path = values["queue"]
    listeners = _listeners(values, source, reactor)
    relay = _relay(values, name, source, reactor)
    limits = Limits.of(values["limits"])
    return Configuration(
        source=source.name,
        name=name,
        queue=queue,
        submission_socket=_submission(values["submission-socket"], queue, source),
        submission_mode=values["submission-mode"],
        listeners=listeners,
        relay=relay,
        admission=CleanupPolicy(
            name,
            Routing(relay.routes).of,
            rewriting_of(values["rewrite"], name, source),
            complete=values["rewrite"]["complete"],
            max_hops=limits.hops,
        ),
        limits=limits,
        admin=_admin(values, source, reactor),
        json_log=values["log"]["json-file"],
        warnings=_warnings(listeners, reactor),
    )


def _host_name(source: ConfigSource) -> str:
    try:
        return host_name()
    except InvalidInput:
        why = "the name of this machine cannot be used as a mail host's"
        raise source.error("name", why, "write it as relay.example.org") from None


def _submission(given: Path | None, queue: Path, source: ConfigSource) -> Path:
    path = given or queue / "submission"
    if len(str(path).encode()) > _MAX_SOCKET:
        why = f"the path of the socket is longer than {_MAX_SOCKET} octets"
        raise source.error("submission-socket", why, "write a shorter one, below /run")
    return path


def _relay(values: Values, name: str, source: ConfigSource, reactor: Any) -> RelaySettings:
    routes = routes_of(values, source, reactor)
    retry, bounce = values["retry"], values["bounce"]
    if retry["most"] < retry["first"]:
        raise source.error("retry.most", "it is less than retry.first", "write it larger")
    postmaster = bounce["postmaster"]
    try:
        return RelaySettings(
            name,
            routes,
            RetryPolicy(
                first=retry["first"],
                most=retry["most"],
                lifetime=retry["lifetime"],
                report_lifetime=retry["report-lifetime"],
                warn_after=retry["warn-after"] or _NEVER,
                jitter=retry["jitter"],
            ),
            postmaster=None if postmaster is None else str(postmaster),
            report_rate=bounce["rate"],
            report_burst=bounce["burst"],
            grace=values["limits"]["stop-grace"],
            keep_undeliverable=bounce["keep-undeliverable"],
        )
    except InvalidInput as e:
        # Each value by itself is right: it is about who goes where.
        raise source.error("route.senders", explained(e), e.remedy) from None


def _listeners(values: Values, source: ConfigSource, reactor: Any) -> tuple[Listener, ...]:
    tables, open_files = values["listen"], values["world-readable-secrets"]
    listeners: list[Listener] = []
    for n, table in enumerate(tables, 1):
        where = f"listen#{n}" if len(tables) > 1 else "listen"
        listener = _listener(table, where, source, reactor, world_readable=open_files)
        if listener.endpoint in [each.endpoint for each in listeners]:
            raise source.error(f"{where}.endpoint", "it is there twice", "leave one of them out")
        listeners.append(listener)
    return tuple(listeners)


def _warnings(listeners: tuple[Listener, ...], reactor: Any) -> tuple[str, ...]:
    files = {each.accounts: each for each in listeners if each.accounts is not None}
    lines = []
    for path, listener in files.items():
        readable = listener.world_readable_secrets
        warning = PasswordFile(path, reactor, world_readable=readable).warning
        if warning is not None:
            lines.append(f"{printable(str(path))}: {warning}")
    return ("; ".join(lines),) if lines else ()


def _listener(  # noqa: C901 - one key after another
    values: Values, where: str, source: ConfigSource, reactor: Any, *, world_readable: bool
) -> Listener:
    def wrong(key: str, why: str, remedy: str) -> Exception:
        return source.error(f"{where}.{key}", why, remedy)

    endpoint = _endpoint(values["endpoint"], f"{where}.endpoint", source, reactor)
    certificate, key, accounts = values["certificate"], values["key"], values["accounts"]
    if endpoint.kind == "ssl" and certificate is not None:
        why = "the endpoint has a certificate of its own"
        raise wrong("certificate", why, 'write "tcp:…" and implicit-tls = true')
    if key is not None and certificate is None:
        raise wrong("key", "there is no certificate", "give both")
    if values["implicit-tls"] and certificate is None:
        raise wrong("implicit-tls", "there is no certificate", "give certificate and key")
    if accounts is not None and certificate is None and endpoint.kind != "ssl":
        why = "there is no certificate, and passwords go over TLS only"
        raise wrong("accounts", why, "give certificate and key")
    if accounts is None and not values["trusted"]:
        why = "nobody is trusted, and there are no accounts"
        raise wrong("trusted", why, "name a network or a file of accounts")
    try:
        name = "endpoint"
        if endpoint.private_key is not None:
            check_secret_file(endpoint.private_key, world_readable=world_readable)
        name = "certificate"
        if certificate is not None:
            ServerTLS(certificate, key)
            name = "certificate" if key is None else "key"
            check_secret_file(key or certificate, world_readable=world_readable)
        name = "accounts"
        if accounts is not None:
            PasswordFile(accounts, reactor, world_readable=world_readable)
    except InvalidInput as e:
        raise wrong(name, explained(e), e.remedy) from None
    return Listener(
        endpoint,
        certificate,
        key,
        implicit_tls=values["implicit-tls"],
        accounts=accounts,
        trusted=values["trusted"],
        repair=values["repair"],
        early_input=values["allow-early-input"],
        world_readable_secrets=world_readable,
    )


def _endpoint(text: str, key: str, source: ConfigSource, reactor: Any) -> EndpointText:
    try:
        endpoint = parse_endpoint(text)
        server_endpoint(reactor, endpoint)
    except Wrong as e:
        raise source.error(key, e.why, e.remedy) from None
    return endpoint


def _admin(tree: Values, source: ConfigSource, reactor: Any) -> Admin | None:
    values, open_files = tree["admin"], tree["world-readable-secrets"]
    secret = secret_source(values, "token", "admin", source, world_readable=open_files)
    if values["endpoint"] is None:
        if secret is not None:
            raise source.error("admin.endpoint", "there is a token and no endpoint", "give both")
        return None
    endpoint = _endpoint(values["endpoint"], "admin.endpoint", source, reactor)
    if not (endpoint.local or endpoint.kind == "systemd" or values["public"]):
        why = "others than this machine could see who writes to whom"
        remedy = 'write it as "tcp:127.0.0.1:8025", or say public = true'
        raise source.error("admin.endpoint", why, remedy)
    if values["private"] and secret is None:
        raise source.error("admin.private", "there is no token", "give token-file")
    token = None
    if secret is not None:
        token = Secret(secret.read())
        if len(token.reveal()) < MIN_TOKEN_LENGTH:
            key = next(key for key in values if key.startswith("token-") and values[key])
            why = f"the token has less than {MIN_TOKEN_LENGTH} characters"
            raise source.error(f"admin.{key}", why, "make one with: openssl rand -hex 16")
    return Admin(endpoint, token, values["private"], values["public"], values["names"])
