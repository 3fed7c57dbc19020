"""Every key of the configuration: its type, default, flag and description.

One class for each table of the TOML file, one field for each key. All else is derived from them:
:func:`read_table` reads and checks a file, ``twistd sendmail`` has the flags of the keys, and the
tables of the reference page are made of the descriptions.

What keys mean together is checked in ``config``.
"""

# ruff: noqa: RUF009 - _key() and _table() make a field, as attrs.field() does

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import attrs

from twisted_sendmail.daemon import config_types as types
from twisted_sendmail.daemon.config_types import InvalidValue, ValueType, at_key
from twisted_sendmail.daemon.endpoints import EndpointDescription, endpoint
from twisted_sendmail.relay import pattern
from twisted_sendmail.smtp import Mailbox, printable

_T = TypeVar("_T")


@attrs.frozen
class Flag:
    """The flag of ``twistd sendmail`` for a key, without its dashes, and its line in the help."""

    name: str
    help: str


@attrs.frozen
class Key:
    """The description of a key, in the metadata of its field."""

    value_type: ValueType[Any]
    #: Markdown for the reference page.
    description: str
    #: The default, as it is written in TOML; None: the key has none.
    default: object = None
    required: bool = False
    #: The effect of leaving out a key that has no default, for the reference page.
    absent: str = ""
    flag: Flag | None = None


@overload
def _key(
    value_type: ValueType[_T], description: str, *, default: object, flag: Flag | None = None
) -> _T: ...
@overload
def _key(
    value_type: ValueType[_T],
    description: str,
    *,
    required: Literal[True],
    flag: Flag | None = None,
) -> _T: ...
@overload
def _key(
    value_type: ValueType[_T], description: str, *, absent: str = "", flag: Flag | None = None
) -> _T | None: ...
def _key(value_type: ValueType[Any], description: str, **options: Any) -> Any:
    key = Key(value_type, description, **options)
    if key.required:
        return attrs.field(metadata={"key": key})
    default = None if key.default is None else value_type(key.default, Path())
    return attrs.field(default=default, metadata={"key": key})


def _table(table: type[_T]) -> _T:
    """A table ``[name]``; one that is not written has the defaults of its keys."""
    return attrs.field(factory=table, metadata={"table": table})


def _tables(table: type[_T]) -> tuple[_T, ...]:
    """A list of tables ``[[name]]``."""
    return attrs.field(default=(), metadata={"tables": table})


def _senders(value: object, folder: Path) -> tuple[str, ...]:
    """Patterns of senders: ``jane@example.org``, ``@example.org``, ``<>`` or ``*``."""
    given = types.texts(value, folder)
    if not given:
        raise InvalidValue("the list is empty", 'name a sender, "@domain" or "*"')
    return tuple(pattern(each) for each in given)


# ---------------------------------------------------------------------------------------------------------------------
# The tables


@attrs.frozen(kw_only=True)
class ListenTable:
    """``[[listen]]``: an endpoint on which the relay accepts mail."""

    endpoint: EndpointDescription = _key(
        endpoint,
        "`tcp:127.0.0.1:2525`, `tcp:[::1]:2525`, `tcp:2525` (every address), `unix:/run/relay.socket:mode=666`, `systemd:domain=INET:name=smtp`, or any other description of a Twisted server endpoint",
        required=True,
        flag=Flag(
            "listen",
            "Accept mail here: tcp:127.0.0.1:2525, unix:/run/relay.socket …; may be repeated.",
        ),
    )
    certificate: Path | None = _key(
        types.readable_file,
        "a PEM file. The server offers STARTTLS, and accepts nothing in clear from clients that are not trusted. Each reload reads the file again",
        absent="no TLS",
        flag=Flag(
            "certificate",
            "STARTTLS for the --listen before it: a PEM file, with its key unless --key.",
        ),
    )
    key: Path | None = _key(
        types.readable_file,
        "the private key, if it is in a file of its own",
        absent="in the file of the certificate",
        flag=Flag("key", "The private key of the --certificate."),
    )
    implicit_tls: bool = _key(
        types.boolean, "TLS from the first octet ({rfc}`8314`) instead of STARTTLS", default=False
    )
    accounts: Path | None = _key(
        types.readable_file,
        "a [password file](../how-to/receive-mail.md): its users may send from anywhere. Each reload reads the file again",
        absent="only trusted networks may send",
        flag=Flag(
            "accounts", "For the --listen before it: a file of users who may send from anywhere."
        ),
    )
    trusted: tuple[str, ...] = _key(
        types.trusted_networks,
        'networks whose machines need neither TLS nor AUTH; `"unix"` stands for clients of a Unix socket',
        default=["127.0.0.0/8", "::1", "unix"],
        flag=Flag(
            "trusted",
            "For the --listen before it: networks that may send without AUTH, separated by commas.",
        ),
    )
    allow_early_input: tuple[str, ...] = _key(
        types.early_input_networks,
        "networks whose clients may send content before the `354`, as some broken clients do; all others get `554 5.5.0` and lose the connection ([why](../how-to/receive-mail.md#clients-that-do-not-wait))",
        default=[],
    )
    repair: bool = _key(
        types.boolean,
        "repair bare CR, bare LF and NUL in content, instead of refusing it",
        default=False,
    )


@attrs.frozen(kw_only=True)
class SmarthostTable:
    """``[[smarthost]]`` and ``[[route.smarthost]]``: a server that the relay delivers to."""

    url: str = _key(
        types.text,
        "`smtps://USER@HOST[:PORT]` (implicit TLS, 465), `smtp+starttls://…` (587), `smtp+opportunistic://HOST` (in clear if the server offers no TLS) and `smtp://HOST` (always in clear; 25; both without a user). Never a password",
        required=True,
        flag=Flag(
            "smarthost",
            "Deliver here: smtps://user@host, smtp+starttls://user@host; may be repeated.",
        ),
    )
    user: str | None = _key(types.text, "the user, if the URL has none", absent="the URL's")
    password_file: Path | None = _key(
        types.path,
        "a file that holds the password in its only line; others may not read the file",
        flag=Flag(
            "password-file", "Password of the --smarthost before it: the one line of this file."
        ),
    )
    password_credential: str | None = _key(
        types.text,
        "the name of a systemd credential (`LoadCredential=`)",
        flag=Flag(
            "password-credential",
            "Password of the --smarthost before it, from a systemd credential of this name.",
        ),
    )
    password_command: tuple[str, ...] | None = _key(
        types.command,
        "a program and its arguments, as a list, that prints the password; run for each connection, 30 s at most",
    )
    password_shell: str | None = _key(
        types.text,
        "the same as a line for the shell",
        flag=Flag(
            "password-command",
            "Password of the --smarthost before it, from what this line prints in a shell.",
        ),
    )
    password_environment: str | None = _key(
        types.text,
        "the name of an environment variable",
        flag=Flag(
            "password-environment",
            "Password of the --smarthost before it, from this variable of the environment.",
        ),
    )
    bearer: bool = _key(types.boolean, "the password is an OAuth bearer token", default=False)
    mechanisms: tuple[str, ...] | None = _key(
        types.texts, "SASL mechanisms to use, and no others, best first", absent="all that are safe"
    )
    ca_file: Path | None = _key(
        types.readable_file,
        "the certificate authorities to trust (PEM)",
        absent="the system's",
        flag=Flag(
            "ca-file",
            "For the --smarthost before it: trust these authorities instead of the system's.",
        ),
    )
    fingerprint: str | None = _key(
        types.text, "trust the certificate with this SHA-256, and no other"
    )
    server_name: str | None = _key(
        types.host_name, "the name that the certificate must have", absent="the host's"
    )
    client_certificate: Path | None = _key(types.readable_file, "the relay's own certificate (PEM)")
    client_key: Path | None = _key(
        types.readable_file,
        "its private key, if it is in a file of its own",
        absent="in the file of the certificate",
    )
    ignore_extensions: tuple[str, ...] = _key(
        types.texts, "EHLO keywords to treat as not offered, such as `CHUNKING`", default=[]
    )
    priority: int = _key(
        types.natural_number,
        "the server with the lowest number is tried first; equal ones in the order of the file",
        default=0,
    )


@attrs.frozen(kw_only=True)
class DeliveryTable:
    """``[delivery]``: connections to the servers of a route."""

    connections: int | None = _key(
        types.positive_integer, "connections at once, to all servers of a route", absent="4"
    )
    messages_per_connection: int | None = _key(
        types.positive_integer, "messages over one connection", absent="1000"
    )
    idle: float | None = _key(
        types.duration, "how long a connection is kept open without a message", absent='`"30 s"`'
    )
    age: float | None = _key(
        types.duration, "how long a connection is used for new messages", absent='`"300 s"`'
    )
    window: int | None = _key(
        types.positive_integer,
        "messages on a connection that wait for their replies at once. So many may be sent twice if the connection is lost",
        absent="8",
    )
    pipeline_after_data: bool | None = _key(
        types.boolean,
        "`true`: without CHUNKING, write the next envelope right after the final dot, before its reply. One round trip a message instead of two, but there are servers that lose the message, hang or crash",
        absent="`false`",
    )
    rate: float | None = _key(types.positive_number, "messages a second", absent="no limit")
    burst: int | None = _key(
        types.positive_integer, "messages that may go out before the rate applies", absent="1"
    )
    down_first: float | None = _key(
        types.duration, "delay before a route that is down is tried again", absent='`"4 s"`'
    )
    down_most: float | None = _key(
        types.duration, "each such delay is twice the one before, up to this", absent='`"15 min"`'
    )


@attrs.frozen(kw_only=True)
class RouteTable(DeliveryTable):
    """``[[route]]``: other servers for some senders; also has every key of ``[delivery]``."""

    name: str = _key(
        types.text,
        "its name, in the queue and in logs. The route of `[[smarthost]]` is called `default`",
        required=True,
    )
    senders: tuple[str, ...] = _key(
        _senders,
        'the senders whose mail takes it: `"jane@example.org"`, `"@example.org"`, `"<>"` (reports), `"*"` (all others)',
        required=True,
    )
    smarthost: tuple[SmarthostTable, ...] = _tables(SmarthostTable)


@attrs.frozen(kw_only=True)
class RetryTable:
    """``[retry]``: when mail is tried again."""

    first: float = _key(
        types.duration,
        "delay before a recipient with a transient failure is tried again",
        default="300 s",
    )
    most: float = _key(
        types.duration, "each delay is twice the one before, up to this", default="4000 s"
    )
    lifetime: float = _key(
        types.duration,
        "age at which a failure is final: the sender gets a report",
        default="5 days",
    )
    report_lifetime: float = _key(types.duration, "the same for reports", default="1 day")
    warn_after: float | None = _key(
        types.duration_or_never,
        "age at which the sender gets a warning that the message is late; `false`: never",
        default="4 hours",
    )
    jitter: float = _key(
        types.fraction, "part of a delay that is added or taken away at random", default=0.15
    )


@attrs.frozen(kw_only=True)
class BounceTable:
    """``[bounce]``: reports of failure."""

    postmaster: Mailbox | None = _key(
        types.mail_address,
        "gets mail that can neither be delivered nor reported",
        absent="such mail is set aside in the queue",
    )
    keep_undeliverable: float | None = _key(
        types.duration_or_never,
        "how long a running relay keeps mail that it has set aside so; then the relay removes it, with a line in the log. Mail on hold stays. `false`: for ever",
        default="5 days",
    )
    rate: float = _key(types.positive_number, "reports a second, in the long run", default=1)
    burst: int = _key(
        types.positive_integer,
        "reports before that rate applies; a failure beyond it is tried again",
        default=100,
    )


@attrs.frozen(kw_only=True)
class RewriteTable:
    """``[rewrite]``: changes of addresses and headers."""

    complete: bool = _key(
        types.boolean,
        "add `Date`, `Message-ID` and `From` where they are missing, and remove `Bcc`",
        default=True,
    )
    all_mail_from: Mailbox | None = _key(
        types.mail_address,
        "every sender becomes this address (reports stay without a sender)",
        flag=Flag("all-mail-from", "Make this address the sender of all mail."),
    )
    senders: dict[str, str] = _key(
        types.text_map, 'a table from a sender, or `"@domain"`, to the new address', default={}
    )
    masquerade: tuple[str, ...] = _key(
        types.texts, "domains that replace the names of the hosts below them", default=[]
    )
    append_domain: str | None = _key(
        types.host_name, "the domain for addresses without one", absent="`name`"
    )
    local_mail_to: Mailbox | None = _key(
        types.mail_address,
        "gets the mail for local recipients, which are those at a domain without a dot, at `localhost`, at this host, and at …",
        flag=Flag("local-mail-to", "Send mail for users of this machine to this address."),
    )
    local_domains: tuple[str, ...] = _key(types.texts, "… these domains", default=[])


@attrs.frozen(kw_only=True)
class LimitsTable:
    """``[limits]``: bounds for clients that send mail to the relay."""

    message_size: int = _key(types.size, "octets of a message", default="50 MiB")
    header_size: int = _key(
        types.size, "octets of its header, which may have 2,000 fields", default="256 KiB"
    )
    recipients: int = _key(types.positive_integer, "its recipients", default=1000)
    hops: int = _key(
        types.positive_integer, "its `Received` fields; more mean a mail loop", default=100
    )
    connections: int = _key(
        types.positive_integer, "connections at once, for each endpoint", default=1000
    )
    connections_per_address: int = _key(
        types.positive_integer, "connections at once from one address", default=100
    )
    failed_login: float = _key(
        types.duration,
        "delay of the reply to the first failed login; each further one from the same address, or of the same user, doubles it, up to 30 s, over all listeners ([](../how-to/receive-mail.md))",
        default="2 s",
    )
    stop_grace: float = _key(
        types.duration,
        "how long a relay that stops waits for messages in transit, in and out; it does not wait for connections without a message",
        default="30 s",
    )


@attrs.frozen(kw_only=True)
class AdminTable:
    """``[admin]``: health, metrics and the queue page."""

    endpoint: EndpointDescription | None = _key(
        endpoint,
        "the endpoint of `/healthz`, `/metrics` and the queue page; on the loopback interface or a Unix socket",
        absent="none",
        flag=Flag("admin", "Show health, metrics and the queue here: tcp:127.0.0.1:8025."),
    )
    token_file: Path | None = _key(
        types.path,
        "a file whose only line, of 16 characters or more, is the token that allows actions on the queue",
        absent="no actions",
        flag=Flag(
            "admin-token-file", "Allow actions on the queue to holders of the token in this file."
        ),
    )
    token_credential: str | None = _key(types.text, "the same from a systemd credential")
    token_environment: str | None = _key(types.text, "the same from an environment variable")
    private: bool = _key(
        types.boolean, "show the page only after the token was given", default=False
    )
    public: bool = _key(
        types.boolean, "allow access from other machines; there is no TLS here", default=False
    )
    names: tuple[str, ...] = _key(
        types.texts,
        "host names of the page in browsers, besides `localhost` and its address",
        default=[],
    )


@attrs.frozen(kw_only=True)
class LogTable:
    """``[log]``: what is logged besides the life of each message."""

    dialogue: bool = _key(
        types.boolean, "log every line to and from the smarthosts, without secrets", default=False
    )
    json_file: Path | None = _key(
        types.path, "log also to this file, as one JSON object a line, besides `twistd`'s own log"
    )


@attrs.frozen(kw_only=True)
class RootTable:
    """The whole file."""

    name: str | None = _key(
        types.host_name,
        "the name of this host: in the greeting, `Received` fields, reports",
        absent="the full name of this machine",
        flag=Flag("name", "The name of this host."),
    )
    queue: Path = _key(
        types.path,
        "the directory of the queue, made if need be; only its owner may look into it",
        required=True,
        flag=Flag("queue", "Keep the mail in this directory, made if need be."),
    )
    submission_socket: Path | None = _key(
        types.path,
        "a Unix socket on which programs of this machine submit mail, in clear and without AUTH",
        absent="`submission` in the directory of the queue",
    )
    submission_mode: int = _key(
        types.file_mode,
        "its permissions, in octal and quotes; users who may open it may send",
        default="0600",
    )
    world_readable_secrets: bool = _key(
        types.boolean,
        "accept files with secrets that everybody may read, such as those that Docker and Kubernetes mount: accounts, keys, passwords, tokens. Even so only the owner may have write permission",
        default=False,
    )
    listen: tuple[ListenTable, ...] = _tables(ListenTable)
    smarthost: tuple[SmarthostTable, ...] = _tables(SmarthostTable)
    route: tuple[RouteTable, ...] = _tables(RouteTable)
    delivery: DeliveryTable = _table(DeliveryTable)
    retry: RetryTable = _table(RetryTable)
    bounce: BounceTable = _table(BounceTable)
    rewrite: RewriteTable = _table(RewriteTable)
    limits: LimitsTable = _table(LimitsTable)
    admin: AdminTable = _table(AdminTable)
    log: LogTable = _table(LogTable)


# ---------------------------------------------------------------------------------------------------------------------
# Uses of the schema


def read_table(table: type[_T], given: object, folder: Path, where: str = "") -> _T:
    """Make *table* of the tree that TOML gives.

    :param folder: relative paths start here.
    :param where: the dotted name of the table.
    :raises InvalidValue: naming the first key that cannot be used.
    """
    if table is ListenTable and isinstance(given, str):
        given = {"endpoint": given}
    if not isinstance(given, dict):
        header = f"[{_without_numbers(where)}]"
        raise InvalidValue(
            f"it is {types.type_name(given)}", f"write it as a table, {header}", where
        )
    before = f"{where}." if where else ""
    fields = fields_by_key(table)
    for name in given:
        if name not in fields:
            raise _unknown_key(name, list(fields), before)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in given:
            values[field.name] = _read_field(field.metadata, given[name], folder, before + name)
        elif field.default is attrs.NOTHING:
            raise InvalidValue("it is missing", "it has to be given", before + name)
    return table(**values)


def _read_field(about: Mapping[Any, Any], given: object, folder: Path, where: str) -> object:
    if "key" in about:
        with at_key(where):
            return about["key"].value_type(given, folder)
    if "table" in about:
        return read_table(about["table"], given, folder, where)
    if not isinstance(given, list):
        header = f"[[{_without_numbers(where)}]]"
        raise InvalidValue(f"it is {types.type_name(given)}", f"write it as {header}", where)
    return tuple(
        read_table(about["tables"], each, folder, numbered(where, number, len(given)))
        for number, each in enumerate(given, 1)
    )


def numbered(where: str, number: int, count: int) -> str:
    """Return the name of one of *count* tables in errors: ``listen#2``."""
    return f"{where}#{number}" if count > 1 else where


def _without_numbers(where: str) -> str:
    return re.sub("#[0-9]+", "", where)


#: Names that users try for a secret itself, which must not stand in a file that others may read.
_SECRET_NAMES = {"password", "token", "secret", "passwd", "pass"}


def _unknown_key(name: str, known: list[str], before: str) -> InvalidValue:
    key = before + printable(name, 60)
    if name.lower() in _SECRET_NAMES:
        ways = [way for way in known if re.fullmatch("(password|token)-(file|credential)", way)]
        remedy = f"use {' or '.join(ways)}" if ways else "keep it in a file of its own"
        return InvalidValue("a secret is not written here", remedy, key)
    close = difflib.get_close_matches(name.lower().replace("_", "-"), known, 1, 0.6)
    remedy = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return InvalidValue("there is no such key", remedy, key)


def fields_by_key(table: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """Return the fields of a table by the names in the file."""
    return {field.name.replace("_", "-"): field for field in attrs.fields(table)}


def tables_by_name() -> dict[str, type[Any]]:
    """Return the classes of all tables by their names; ``""`` is the whole file."""
    found: dict[str, type[Any]] = {"": RootTable}
    for name, field in fields_by_key(RootTable).items():
        below = field.metadata.get("table") or field.metadata.get("tables")
        if below is not None:
            found[name] = below
    return found


def keys() -> Iterator[tuple[str, str, Key]]:
    """Iterate over all keys: the name of the table, of the key, and its description."""
    for table, about in tables_by_name().items():
        for name, field in fields_by_key(about).items():
            if "key" in field.metadata:
                yield table, name, field.metadata["key"]
