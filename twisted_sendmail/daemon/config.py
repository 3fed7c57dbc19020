"""``Configuration``: everything that the operator configured, checked before anything is opened.

It comes from a TOML file or from flags; both are a tree that ``config_schema`` reads into one object
for each table. Here the values are checked against each other and against the files they name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
from twisted.logger import Logger

from twisted_sendmail.admin.sessions import MIN_TOKEN_LENGTH
from twisted_sendmail.client import DNSResolver, PoolLimits, SubmissionServer, TLSTrust
from twisted_sendmail.daemon.config_schema import (
    AdminTable,
    DeliveryTable,
    LimitsTable,
    ListenTable,
    RootTable,
    SmarthostTable,
    numbered,
    read_table,
)
from twisted_sendmail.daemon.config_types import (
    ConfigSource,
    InvalidValue,
    at_key,
    default_host_name,
    read_toml,
)
from twisted_sendmail.daemon.dkim import dkim_domains
from twisted_sendmail.daemon.endpoints import unix_endpoint
from twisted_sendmail.daemon.incoming_mail import cleanup_policy, qualification
from twisted_sendmail.daemon.secrets import oauth_tokens, secret_source
from twisted_sendmail.drop import DropSettings, durability_warning
from twisted_sendmail.local_users import all_ids_are_known
from twisted_sendmail.queue import CleanupPolicy
from twisted_sendmail.relay import (
    EVERYBODY,
    PostmasterMail,
    RelaySettings,
    RetryPolicy,
    RouteSettings,
)
from twisted_sendmail.sasl import (
    Credentials,
    Secret,
    certificate_credentials,
    certificate_only,
    check_mechanisms,
)
from twisted_sendmail.secret_file import check_secret_file
from twisted_sendmail.server import PasswordFile, ServerTLS
from twisted_sendmail.smtp import InvalidInput, Mailbox, full_url, printable

#: The name of the route of ``[[smarthost]]``.
DEFAULT_ROUTE = "default"
#: Octets of the path of a Unix socket; a limit of the kernel.
MAX_SOCKET_PATH = 107
#: ``RetryPolicy.warn_after`` for no warning, in seconds.
_NEVER = 1e12

_log = Logger(namespace="twisted_sendmail.relay.dialogue")


@attrs.frozen
class Configuration:
    """All settings of a relay."""

    #: The file, or ``the command line``.
    source: str
    #: Our host name.
    name: str
    #: The directory of the queue, or the URL of the database that holds it.
    queue: Path | str
    #: The configured listeners, without the one for programs of this machine.
    listeners: tuple[ListenTable, ...]
    #: The listener for programs of this machine, a Unix socket.
    submission: ListenTable
    #: The settings for the sendmail command.
    drop: DropSettings
    #: The group that may see all mail by ``mailq``; None: the relay's own.
    operators: int | None
    #: Listeners accept secrets in files that everybody may read.
    world_readable_secrets: bool
    relay: RelaySettings
    cleanup: CleanupPolicy
    limits: LimitsTable
    #: The endpoint for operators, and the token that allows actions there; None: none.
    admin: AdminTable | None
    admin_token: Secret | None
    #: A file for the log as JSON; None: none.
    json_log: Path | None
    #: The least level of the events that are logged.
    log_level: str
    #: Problems that do not prevent the relay from running, one line each.
    warnings: tuple[str, ...]


def read_configuration(path: Path, reactor: Any) -> Configuration:
    """Read a TOML file. Blocks: call it in a thread while the reactor runs.

    :raises ConfigurationError: naming the file, the key and the remedy.
    """
    source = ConfigSource(str(path))
    return configuration_of(read_toml(path, source), path.absolute().parent, source, reactor)


def configuration_of(
    tree: dict[str, Any], folder: Path, source: ConfigSource, reactor: Any
) -> Configuration:
    """Make the configuration of a tree as TOML gives it.

    :param folder: relative paths start here.
    :raises ConfigurationError: naming the key and the remedy.
    """
    with source.naming_errors():
        tables = read_table(RootTable, _with_inherited_keys(tree), folder)
        name = tables.name or _default_name()
        warnings: dict[Path, str] = {}
        for number, table in enumerate(tables.listen, 1):
            where = numbered("listen", number, len(tables.listen))
            with at_key(where):
                readable = tables.world_readable_secrets
                warning = _check_listener(table, reactor, world_readable=readable)
                if warning is not None and table.accounts is not None:
                    warnings[table.accounts] = f"{printable(str(table.accounts))}: {warning}"
                if table.endpoint in [each.endpoint for each in tables.listen[: number - 1]]:
                    raise InvalidValue("duplicate endpoint", "remove one of them", "endpoint")
        relay = _relay_settings(tables, name, reactor)
        cleanup = cleanup_policy(tables, relay)
        with at_key("bounce.postmaster-sender"):
            _ = PostmasterMail(relay, cleanup)
        drop = _drop_settings(tables, name)
        return Configuration(
            source=source.name,
            name=name,
            queue=tables.queue,
            listeners=tuple(
                attrs.evolve(each, endpoint=each.endpoint.with_backlog(tables.limits.backlog))
                for each in tables.listen
            ),
            submission=_submission(tables),
            drop=drop,
            operators=tables.operator_group,
            world_readable_secrets=tables.world_readable_secrets,
            relay=relay,
            cleanup=cleanup,
            limits=tables.limits,
            admin=tables.admin if tables.admin.endpoint is not None else None,
            admin_token=_admin_token(
                tables.admin, reactor, world_readable=tables.world_readable_secrets
            ),
            json_log=tables.log.json_file,
            log_level=tables.log.level,
            warnings=_warnings(warnings, drop),
        )


def _with_inherited_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """Give each ``[[route]]`` the keys of ``[delivery]`` that the route does not set itself."""
    delivery, routes = tree.get("delivery"), tree.get("route")
    if not (isinstance(delivery, dict) and isinstance(routes, list)):
        return tree
    routes = [{**delivery, **each} if isinstance(each, dict) else each for each in routes]
    return {**tree, "route": routes}


def _default_name() -> str:
    try:
        return default_host_name()
    except InvalidInput:
        why = "the name of this machine cannot be used as a mail host's"
        raise InvalidValue(why, "write it as relay.example.org", "name") from None


# ---------------------------------------------------------------------------------------------------------------------
# Listeners


def _submission(tables: RootTable) -> ListenTable:
    path = str(tables.submission_socket or _own_directory(tables) / "submission")
    if len(path.encode()) > MAX_SOCKET_PATH:
        why = f"the path of the socket is longer than {MAX_SOCKET_PATH} octets"
        raise InvalidValue(why, "write a shorter one, below /run", "submission-socket")
    return ListenTable(
        endpoint=unix_endpoint(path, tables.submission_mode).with_backlog(tables.limits.backlog),
        trusted=("unix",),
        repair=True,
        # Programs write whole dialogues to a pipe, and read the replies afterwards or never.
        allow_early_input=("unix",),
    )


def _own_directory(tables: RootTable) -> Path:
    """Return the directory for files of the relay that have no place of their own.

    :raises InvalidValue: there is none.
    """
    if not isinstance(tables.queue, str):
        return tables.queue
    if tables.spool is None:
        why = "missing; the queue is in a database, and mail of this machine needs a directory"
        raise InvalidValue(why, "name one that the relay's user can write to", "spool")
    return tables.spool


def _drop_settings(tables: RootTable, name: str) -> DropSettings:
    limits, rewrite = tables.limits, tables.rewrite
    domains = qualification(rewrite, name)
    settings = DropSettings(
        spool=str((tables.spool or _own_directory(tables)).absolute()),
        queue=tables.queue if isinstance(tables.queue, str) else str(tables.queue.absolute()),
        name=name,
        sender_domain=domains.sender,
        recipient_domain=domains.recipient,
        message_size=limits.message_size,
        header_size=limits.header_size,
        recipients=limits.recipients,
        hops=limits.hops,
    )
    if len(os.fsencode(settings.mailq_socket)) > MAX_SOCKET_PATH:
        why = f"the path of the socket in it is longer than {MAX_SOCKET_PATH} octets"
        raise InvalidValue(why, "write a shorter one, below /var/spool", "spool")
    return settings


def _check_listener(table: ListenTable, reactor: Any, *, world_readable: bool) -> str | None:
    """Check a listener; return a warning about its password file, None for none."""
    certificate, key, accounts = table.certificate, table.key, table.accounts
    with at_key("endpoint"):
        table.endpoint.server(reactor)
    if table.endpoint.kind == "ssl" and certificate is not None:
        why = "the endpoint has a certificate of its own"
        raise InvalidValue(why, 'write "tcp:…" and implicit-tls = true', "certificate")
    if key is not None and certificate is None:
        raise InvalidValue("there is no certificate", "give both", "key")
    if table.implicit_tls and certificate is None:
        raise InvalidValue("there is no certificate", "give certificate and key", "implicit-tls")
    if accounts is not None and certificate is None and table.endpoint.kind != "ssl":
        why = "there is no certificate, and passwords go over TLS only"
        raise InvalidValue(why, "give certificate and key", "accounts")
    if accounts is None and not table.trusted:
        why = "there are neither trusted networks nor accounts"
        raise InvalidValue(why, "name a network or a file of accounts", "trusted")
    if table.endpoint.private_key is not None:
        with at_key("endpoint"):
            check_secret_file(table.endpoint.private_key, world_readable=world_readable)
    if certificate is not None:
        with at_key("certificate"):
            ServerTLS(certificate, key)
        with at_key("certificate" if key is None else "key"):
            check_secret_file(key or certificate, world_readable=world_readable)
    if accounts is not None:
        with at_key("accounts"):
            return PasswordFile(accounts, reactor, world_readable=world_readable).warning
    return None


def _warnings(accounts: dict[Path, str], drop: DropSettings) -> tuple[str, ...]:
    warnings = ["; ".join(accounts.values())] if accounts else []
    if not all_ids_are_known():
        warnings.append(
            "this user namespace does not map all users of the machine: mail of the others is "
            "recorded as from uid unknown; run the relay without PrivateUsers= and outside of "
            "rootless containers to know them"
        )
    # The directory of the queue is for the relay's own mail alone.
    if drop.spool != drop.queue and (warning := durability_warning(drop.directory)):
        warnings.append(warning)
    return tuple(warnings)


def _admin_token(table: AdminTable, reactor: Any, *, world_readable: bool) -> Secret | None:
    with at_key("admin"):
        source = secret_source(table, "token", world_readable=world_readable)
        if table.endpoint is None:
            if source is not None:
                raise InvalidValue("there is a token and no endpoint", "give both", "endpoint")
            return None
        with at_key("endpoint"):
            table.endpoint.server(reactor)
            if not (table.endpoint.local or table.endpoint.kind == "systemd" or table.public):
                why = "other hosts could read senders and recipients"
                raise InvalidValue(why, 'write it as "tcp:127.0.0.1:8025", or set public = true')
        if source is None:
            if table.private:
                raise InvalidValue("there is no token", "give token-file", "private")
            return None
        token = Secret(source.read())
        if len(token.reveal()) < MIN_TOKEN_LENGTH:
            why = f"the token has less than {MIN_TOKEN_LENGTH} characters"
            raise InvalidValue(why, "make one with: openssl rand -hex 16", f"token-{source.kind}")
        return token


# ---------------------------------------------------------------------------------------------------------------------
# Routes and smarthosts


def _relay_settings(tables: RootTable, name: str, reactor: Any) -> RelaySettings:
    routes = _routes(tables, reactor)
    dkim = dkim_domains(tables)
    retry, bounce = tables.retry, tables.bounce
    if retry.most < retry.first:
        raise InvalidValue("the value is less than retry.first", "write a larger one", "retry.most")
    # Values were validated; only overlapping senders can fail here.
    with at_key("route.senders"):
        return RelaySettings(
            name,
            routes,
            RetryPolicy(
                first=retry.first,
                most=retry.most,
                lifetime=retry.lifetime,
                report_lifetime=retry.report_lifetime,
                warn_after=retry.warn_after or _NEVER,
                jitter=retry.jitter,
            ),
            postmaster=_text(bounce.postmaster),
            postmaster_sender=_text(bounce.postmaster_sender),
            report_rate=bounce.rate,
            report_burst=bounce.burst,
            grace=tables.limits.stop_grace,
            keep_undeliverable=bounce.keep_undeliverable,
            dkim=dkim,
        )


def _text(box: Mailbox | None) -> str | None:
    return None if box is None else str(box)


def _routes(tables: RootTable, reactor: Any) -> tuple[RouteSettings, ...]:
    """Make all routes, the one of ``[[smarthost]]`` first."""
    routes = []
    if tables.smarthost:
        servers = _servers(tables, tables.smarthost, "smarthost", reactor)
        with at_key("delivery"):
            routes.append(_route(DEFAULT_ROUTE, servers, (EVERYBODY,), tables.delivery))
    for number, table in enumerate(tables.route, 1):
        where = numbered("route", number, len(tables.route))
        if not table.smarthost:
            remedy = "write [[route.smarthost]] with its url below it"
            raise InvalidValue("missing", remedy, f"{where}.smarthost")
        if table.name in {route.name for route in routes}:
            why = f"'{printable(table.name, 60)}' is the name of another route"
            raise InvalidValue(why, "give each route its own name", f"{where}.name")
        servers = _servers(tables, table.smarthost, f"{where}.smarthost", reactor)
        with at_key(where):
            routes.append(_route(table.name, servers, table.senders, table))
    if not routes:
        remedy = "give it a url such as smtps://user@mail.example.net"
        raise InvalidValue("missing", remedy, "smarthost")
    return tuple(routes)


def _route(
    name: str,
    servers: tuple[SubmissionServer, ...],
    senders: tuple[str, ...],
    table: DeliveryTable,
) -> RouteSettings:
    limits = PoolLimits(
        connections=table.connections,
        messages=table.messages_per_connection,
        idle=table.idle,
        age=table.age,
        window=table.window,
        pipeline_after_data=table.pipeline_after_data,
        rate=table.rate,
        burst=table.burst,
    )
    return RouteSettings(
        name, servers, senders, limits, first=table.down_first, most=table.down_most
    )


def _servers(
    tables: RootTable, smarthosts: tuple[SmarthostTable, ...], where: str, reactor: Any
) -> tuple[SubmissionServer, ...]:
    servers = []
    for number, table in enumerate(smarthosts, 1):
        with at_key(numbered(where, number, len(smarthosts))):
            servers.append((table.priority, _server(table, tables, reactor)))
    # The sort is stable: servers of one priority stay in the order of the file.
    return tuple(server for _, server in sorted(servers, key=lambda pair: pair[0]))


def _server(table: SmarthostTable, tables: RootTable, reactor: Any) -> SubmissionServer:
    world_readable = tables.world_readable_secrets
    for of_certificate in ("client_key", "client_key_password_file"):
        if getattr(table, of_certificate) is not None and table.client_certificate is None:
            key = of_certificate.replace("_", "-")
            raise InvalidValue("there is no client-certificate", "give both", key)
    with at_key("name-servers"), _without_extra():
        resolver = DNSResolver(table.name_servers) if table.name_servers else None
    with at_key("url"), _without_extra():
        server = SubmissionServer.from_url(
            table.url,
            credentials=None,
            resolver=resolver,
            ignore_extensions=table.ignore_extensions,
            timeouts=table.timeouts,
            watch=_log_dialogue if tables.log.dialogue else None,
        )
    user = _user(table)
    with at_key("source-address"):
        server = attrs.evolve(server, source_address=table.source_address)
    trust = _trust(table, world_readable=world_readable)
    with at_key("dane" if table.dane else "url"):
        server = attrs.evolve(server, trust=trust)
    secret = secret_source(table, "password", world_readable=world_readable)
    tokens = oauth_tokens(table, reactor, world_readable=world_readable)
    if secret is not None and tokens is not None:
        raise InvalidValue("there is a password too", "give one of them", "oauth-client-id")
    if certificate_only(table.mechanisms):
        with at_key("mechanisms"):
            credentials = certificate_credentials(
                user,
                table.mechanisms or (),
                has_secret=secret is not None or tokens is not None,
                certificate=table.client_certificate,
            )
        return attrs.evolve(_over_tls(server), credentials=credentials)
    if user is None:
        if secret is not None or tokens is not None:
            what = "a password" if tokens is None else "a token"
            raise InvalidValue(f"there is {what} but no user", "write user@ in it", "url")
        return server
    if secret is None and tokens is None:
        why = f"there is no password for {printable(user, 80)}"
        remedy = "give password-file, password-credential or password-command"
        raise InvalidValue(why, remedy, "password-file")
    server = _over_tls(server)
    bearer = secret.tokens(reactor) if secret is not None and table.bearer else None
    with at_key("url" if table.mechanisms is None else "mechanisms"):
        credentials = Credentials(
            user,
            None if secret is None or bearer is not None else secret.provider(reactor),
            token=bearer or tokens,
            mechanisms=table.mechanisms,
        )
        check_mechanisms(credentials)
        return attrs.evolve(server, credentials=credentials)


def _over_tls(server: SubmissionServer) -> SubmissionServer:
    """Return *server*, where a login may follow.

    :raises InvalidValue: it may be in clear.
    """
    if not server.tls.required:
        remedy = "write smtps:// or smtp+starttls://"
        raise InvalidValue("a password goes over TLS only", remedy, "url")
    return server


@contextlib.contextmanager
def _without_extra() -> Iterator[None]:
    """Turn the error about an extra that is not installed into one of the configuration."""
    try:
        yield
    except ImportError as e:
        raise InvalidValue(str(e)) from None


def _user(table: SmarthostTable) -> str | None:
    parts = urlsplit(full_url(table.url))
    if parts.password is not None:
        raise InvalidValue("there is a password in it", "take it out, and use password-file", "url")
    in_url = unquote(parts.username) if parts.username else None
    if table.user is not None and in_url is not None:
        raise InvalidValue("there is a user in the url too", "name the user once", "user")
    return in_url if table.user is None else table.user


def _trust(table: SmarthostTable, *, world_readable: bool) -> TLSTrust:
    given = ("fingerprint", "public_key", "ca_file", "ca_directory", "client_certificate")
    key_at_fault = next((name for name in given if getattr(table, name) is not None), "url")
    with at_key("minimum-tls-version"):
        _ = TLSTrust(minimum_version=table.minimum_tls_version)
    with at_key(key_at_fault.replace("_", "-"), remedy="give a PEM file"):
        trust = TLSTrust(
            ca_file=table.ca_file,
            fingerprint=table.fingerprint,
            name=table.server_name,
            client_certificate=table.client_certificate,
            client_key=table.client_key,
            public_key=table.public_key,
            ca_directory=table.ca_directory,
            minimum_version=table.minimum_tls_version,
            client_key_password_file=table.client_key_password_file,
            dane=table.dane,
        )
        trust.context()
    if table.client_certificate is not None:
        with at_key("client-certificate" if table.client_key is None else "client-key"):
            check_secret_file(
                table.client_key or table.client_certificate, world_readable=world_readable
            )
    if table.client_key_password_file is not None:
        with at_key("client-key-password-file"):
            check_secret_file(table.client_key_password_file, world_readable=world_readable)
    return trust


def _log_dialogue(line: str) -> None:
    """Log one line of a dialogue; it is redacted and printable."""
    _log.info("{line}", line=line)
