"""Every key of the configuration: its type, default, flag and meaning.

One class for each table of the TOML file, one attribute for each key; the class docstring describes what
the keys mean. All else is derived: :func:`read_table` reads and checks a file, ``twistd sendmail`` has
the flags and their help, and the reference page shows the keys with meaning and default.

``config`` checks the values against each other.
"""

# ruff: noqa: RUF009 - _key() and _table() make a field, as attrs.field() does

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import attrs

from twisted_sendmail.client import Timeouts
from twisted_sendmail.daemon import config_types as types
from twisted_sendmail.daemon.config_types import InvalidValue, ValueType, at_key
from twisted_sendmail.daemon.endpoints import EndpointDescription, endpoint
from twisted_sendmail.relay import pattern
from twisted_sendmail.smtp import Mailbox, printable

_T = TypeVar("_T")


@attrs.frozen
class Key:
    """A key, in the metadata of its attribute."""

    value_type: ValueType[Any]
    #: The default, as it is written in TOML; None: the key has none.
    default: object = None
    required: bool = False
    #: The flag of ``twistd sendmail`` for the key, without its dashes.
    flag: str | None = None


@overload
def _key(value_type: ValueType[_T], default: object, *, flag: str | None = None) -> _T: ...
@overload
def _key(value_type: ValueType[_T], *, required: Literal[True], flag: str | None = None) -> _T: ...
@overload
def _key(value_type: ValueType[_T], *, flag: str | None = None) -> _T | None: ...
def _key(value_type: ValueType[Any], default: object = None, **options: Any) -> Any:
    key = Key(value_type, default, **options)
    if key.required:
        return attrs.field(metadata={"key": key})
    value = None if default is None else value_type(default, Path())
    return attrs.field(default=value, metadata={"key": key})


def _table(table: type[_T]) -> _T:
    """Return a table ``[name]``; one that is not written has the defaults of its keys."""
    return attrs.field(factory=table, metadata={"table": table})


def _tables(table: type[_T]) -> tuple[_T, ...]:
    """Return a list of tables ``[[name]]``."""
    return attrs.field(default=(), metadata={"tables": table})


def _timeouts(value: object, folder: Path) -> Timeouts:
    """Return a table from phases of a session to durations; ``false`` waits without end."""
    if not isinstance(value, dict):
        remedy = 'write { connect = "10 s", data-end = "20 min" }'
        raise InvalidValue(f"the value is {types.type_name(value)}", remedy)
    known = {each.name.replace("_", "-"): each.name for each in attrs.fields(Timeouts)}
    given = {}
    for name, seconds in value.items():
        if name not in known:
            raise _unknown_key(name, list(known), "")
        with at_key(name):
            given[known[name]] = types.duration_or_never(seconds, folder)
    return Timeouts(**given)


def _senders(value: object, folder: Path) -> tuple[str, ...]:
    """Return patterns of senders: ``jane@example.org``, ``@example.org``, ``<>`` or ``*``."""
    given = types.texts(value, folder)
    if not given:
        raise InvalidValue("the list is empty", 'name a sender, "@domain" or "*"')
    return tuple(pattern(each) for each in given)


# ---------------------------------------------------------------------------------------------------------------------
# The tables


@attrs.frozen(kw_only=True)
class ListenTable:
    """``[[listen]]``: an endpoint on which the relay accepts mail.

    :param endpoint: accept mail here: ``tcp:127.0.0.1:2525``, ``tcp:[::1]:2525``, ``tcp:2525``
        (every address), ``unix:/run/relay.socket:mode=666``, ``systemd:domain=INET:name=smtp``, or
        any other description of a Twisted server endpoint
    :param certificate: a PEM file with certificate and key, for STARTTLS; then clients that are not
        trusted can send nothing in clear. Each reload reads the file again
    :param key: the private key of the certificate, if it is in a file of its own
    :param implicit_tls: TLS from the first octet (:rfc:`8314`) instead of STARTTLS
    :param accounts: a :doc:`password file </how-to/receive-mail>`: its users may send from anywhere.
        Each reload reads the file again
    :param trusted: networks whose machines need neither TLS nor AUTH; ``unix`` stands for clients of
        a Unix socket
    :param allow_early_input: networks whose clients may send content before the ``354``, as some
        broken clients do; all others get ``554 5.5.0`` and lose the connection
        (:doc:`why </how-to/receive-mail>`)
    :param local: the clients are programs of this machine: addresses without a domain get one in the
        header of their mail (:ref:`unqualified`). Without this key they are on a Unix socket and on
        the loopback interface, unless they have signed in
    :param repair: repair bare CR, bare LF and NUL in content, instead of refusing it: ``true``, or a list
        of networks whose clients may send it, such as those in ``trusted``
    """

    endpoint: EndpointDescription = _key(endpoint, required=True, flag="listen")
    certificate: Path | None = _key(types.readable_file, flag="certificate")
    key: Path | None = _key(types.readable_file, flag="key")
    implicit_tls: bool = _key(types.boolean, default=False)
    accounts: Path | None = _key(types.readable_file, flag="accounts")
    trusted: tuple[str, ...] = _key(
        types.trusted_networks, ["127.0.0.0/8", "::1", "unix"], flag="trusted"
    )
    allow_early_input: tuple[str, ...] = _key(types.early_input_networks, [])
    local: bool | None = _key(types.boolean)
    repair: bool | tuple[str, ...] = _key(types.repaired_networks, default=False)


@attrs.frozen(kw_only=True)
class SmarthostTable:
    """``[[smarthost]]`` and ``[[route.smarthost]]``: a server that the relay delivers to.

    :param url: deliver here: ``smtps://USER@HOST[:PORT]`` (implicit TLS, 465),
        ``smtp+starttls://USER@HOST`` (587), ``smtp+opportunistic://HOST`` (in clear if the server
        offers no TLS), ``smtp://HOST`` (in clear; 25; both without a user), or
        ``submission:USER@DOMAIN``: the servers that DNS names for a mail domain. Never a password
    :param user: the user, if the URL has none
    :param password_file: a file that holds the password in its only line; others may not read it
    :param password_credential: the name of a systemd credential (``LoadCredential=``) with the password
    :param password_command: a program and its arguments, as a list, that prints the password; run for
        each connection, 30 s at most
    :param password_shell: a line for the shell that prints the password; run for each connection,
        30 s at most
    :param password_environment: the name of an environment variable with the password
    :param bearer: the password is an OAuth bearer token
    :param oauth_provider: log in with OAuth, by tokens of ``microsoft``, ``google``, ``yahoo`` or
        ``fastmail`` (:doc:`/how-to/log-in-with-oauth`); needs the extra ``oauth``
    :param oauth_token_url: the URL of the token endpoint, if it is not that of the provider
    :param oauth_client_id: the client, as registered at the provider
    :param oauth_client_secret_file: a file that holds the secret of the client in its only line
    :param oauth_client_secret_credential: the name of a systemd credential with it
    :param oauth_auth_method: how the client sends its secret to the token endpoint: ``client_secret_post``,
        in the form, or ``client_secret_basic``, in a header
    :param oauth_refresh_token_file: a file that holds the refresh token in its only line. A new one
        replaces the file, so its directory must be writable; without this key the tokens are for the
        client itself
    :param oauth_refresh_token_command: a program, with its arguments, that prints the refresh token,
        instead of the file
    :param oauth_store_command: a program, with its arguments, that reads a new refresh token from its standard
        input
    :param oauth_scope: the scopes to ask for, separated by spaces, if they are not those of the provider
    :param oauth_ca_file: the certificate authorities of the token endpoint (PEM) instead of the system's
    :param mechanisms: SASL mechanisms to use, and no others, best first
    :param ca_file: the certificate authorities to trust (PEM) instead of the system's
    :param ca_directory: a directory of them, with the names that ``openssl rehash`` gives; besides ``ca-file``,
        if that is given
    :param fingerprint: trust the certificate with this SHA-256, and no other; a list trusts each
        of them, so that a certificate can be replaced
    :param public_key: trust the certificates with a public key with this SHA-256, or with one of a list
    :param dane: trust the server by its TLSA records (:rfc:`7672`) and no authority
        (:ref:`dane`); needs ``name-servers`` whose validation by DNSSEC counts
    :param server_name: the name that the certificate must have, if it is not the host's; with ``dane``
        the host that the TLSA records belong to
    :param minimum_tls_version: ``TLSv1.2`` or ``TLSv1.3``
    :param client_certificate: the relay's own certificate (PEM or PKCS#12)
    :param client_key: its private key, if it is in a file of its own
    :param client_key_password_file: a file that holds the password of the key in its only line
    :param ignore_extensions: EHLO keywords to treat as not offered, such as ``CHUNKING``, and the
        parameters ``RET``, ``ENVID`` and ``ORCPT``, to be left out
    :param source_address: the IP address of this machine to connect from
    :param name_servers: ask these name servers for the servers of ``submission:DOMAIN``, instead of
        the system's, and for TLSA records: ``127.0.0.1``, ``127.0.0.1:53`` or ``tls://ADDRESS#NAME``; what they validate by
        DNSSEC counts if they are all on the loopback interface or asked over TLS
    :param timeouts: how long phases of a session may take, as a table such as
        ``{ connect = "10 s", data-end = "20 min" }``; ``false`` is without end. The phases are
        ``connect``, ``greeting``, ``command`` (EHLO, STARTTLS, RSET), ``tls``, ``auth`` (each
        reply), ``mail``, ``rcpt``, ``data-init``, ``data-block`` (each piece of the content),
        ``data-end`` (the reply to it), ``quit``, and ``total`` (a message). The others have the
        minimum of :rfc:`5321#section-4.5.3.2`, and ``connect`` 30 s, ``tls`` 60 s, ``total`` 1 h
    :param priority: the server with the lowest number is tried first; equal ones in the order of
        the file
    """

    url: str = _key(types.text, required=True, flag="smarthost")
    user: str | None = _key(types.text)
    password_file: Path | None = _key(types.path, flag="password-file")
    password_credential: str | None = _key(types.text, flag="password-credential")
    password_command: tuple[str, ...] | None = _key(types.command)
    password_shell: str | None = _key(types.text, flag="password-command")
    password_environment: str | None = _key(types.text, flag="password-environment")
    bearer: bool = _key(types.boolean, default=False)
    oauth_provider: str | None = _key(types.text)
    oauth_token_url: str | None = _key(types.text)
    oauth_client_id: str | None = _key(types.text)
    oauth_client_secret_file: Path | None = _key(types.path)
    oauth_client_secret_credential: str | None = _key(types.text)
    oauth_auth_method: str | None = _key(types.text)
    oauth_refresh_token_file: Path | None = _key(types.path)
    oauth_refresh_token_command: tuple[str, ...] | None = _key(types.command)
    oauth_store_command: tuple[str, ...] | None = _key(types.command)
    oauth_scope: str | None = _key(types.text)
    oauth_ca_file: Path | None = _key(types.readable_file)
    mechanisms: tuple[str, ...] | None = _key(types.texts)
    ca_file: Path | None = _key(types.readable_file, flag="ca-file")
    ca_directory: Path | None = _key(types.path)
    fingerprint: tuple[str, ...] | None = _key(types.text_or_texts)
    public_key: tuple[str, ...] | None = _key(types.text_or_texts)
    dane: bool = _key(types.boolean, default=False)
    server_name: str | None = _key(types.host_name)
    minimum_tls_version: str = _key(types.text, "TLSv1.2")
    client_certificate: Path | None = _key(types.readable_file)
    client_key: Path | None = _key(types.readable_file)
    client_key_password_file: Path | None = _key(types.readable_file)
    ignore_extensions: tuple[str, ...] = _key(types.texts, [])
    source_address: str | None = _key(types.text)
    name_servers: tuple[str, ...] = _key(types.texts, [])
    timeouts: Timeouts = _key(_timeouts, {})
    priority: int = _key(types.natural_number, 0)


@attrs.frozen(kw_only=True)
class DeliveryTable:
    """``[delivery]``: connections to the servers of a route.

    :param connections: connections at once, to all servers of a route
    :param messages_per_connection: messages over one connection
    :param idle: how long a connection is kept open without a message
    :param age: how long a connection is used for new messages
    :param window: messages on a connection that wait for their replies at once. So many may be sent
        twice if the connection is lost
    :param pipeline_after_data: without CHUNKING, write the next envelope right after the final dot,
        before its reply. One round trip a message instead of two, but there are servers that lose
        the message, hang or crash
    :param rate: messages a second; not limited if the key is missing
    :param burst: messages that may go out before the rate applies
    :param down_first: delay before a route that is down is tried again
    :param down_most: each such delay is twice the one before, up to this
    """

    connections: int = _key(types.positive_integer, 4)
    messages_per_connection: int = _key(types.positive_integer, 1000)
    idle: float = _key(types.duration, "30 s")
    age: float = _key(types.duration, "300 s")
    window: int = _key(types.positive_integer, 8)
    pipeline_after_data: bool = _key(types.boolean, default=False)
    rate: float | None = _key(types.positive_number)
    burst: int = _key(types.positive_integer, 1)
    down_first: float = _key(types.duration, "4 s")
    down_most: float = _key(types.duration, "15 min")


@attrs.frozen(kw_only=True)
class RouteTable(DeliveryTable):
    """``[[route]]``: other servers for some senders; has also every key of ``[delivery]``.

    :param name: its name, in the queue and in logs. The route of ``[[smarthost]]`` is called
        ``default``
    :param senders: the senders whose mail takes it: ``"jane@example.org"``, ``"@example.org"``,
        ``"<>"`` (reports), ``"*"`` (all others)
    """

    name: str = _key(types.text, required=True)
    senders: tuple[str, ...] = _key(_senders, required=True)
    smarthost: tuple[SmarthostTable, ...] = _tables(SmarthostTable)


@attrs.frozen(kw_only=True)
class RetryTable:
    """``[retry]``: when mail is tried again.

    :param first: delay before a recipient with a transient failure is tried again
    :param most: each delay is twice the one before, up to this
    :param lifetime: age at which a failure is final: the sender gets a report
    :param report_lifetime: the same for reports
    :param warn_after: age at which the sender gets a warning that the message is late; ``false``: never
    :param jitter: part of a delay that is added or taken away at random
    """

    first: float = _key(types.duration, "300 s")
    most: float = _key(types.duration, "4000 s")
    lifetime: float = _key(types.duration, "5 days")
    report_lifetime: float = _key(types.duration, "1 day")
    warn_after: float | None = _key(types.duration_or_never, "4 hours")
    jitter: float = _key(types.fraction, 0.15)


@attrs.frozen(kw_only=True)
class BounceTable:
    """``[bounce]``: reports of failure.

    :param postmaster: send mail that can neither be delivered nor reported to this address; without
        this key such mail is set aside in the queue
    :param postmaster_sender: the sender of mail to the postmaster, for a provider that refuses mail
        without a sender; without this key it has none. Mail from or to this address is never reported
    :param keep_undeliverable: how long a running relay keeps mail that it has set aside so; then the
        relay removes it, with a line in the log. Mail on hold stays. ``false``: for ever
    :param rate: reports a second, in the long run
    :param burst: reports before that rate applies; a failure beyond it is tried again
    """

    postmaster: Mailbox | None = _key(types.mail_address)
    postmaster_sender: Mailbox | None = _key(types.mail_address)
    keep_undeliverable: float | None = _key(types.duration_or_never, "5 days")
    rate: float = _key(types.positive_number, 1)
    burst: int = _key(types.positive_integer, 100)


@attrs.frozen(kw_only=True)
class RewriteTable:
    """``[rewrite]``: changes of addresses and headers.

    :param complete: add ``Date``, ``Message-ID`` and ``From`` where they are missing, and remove
        ``Bcc``
    :param all_mail_from: make this address the sender of all mail (reports stay without a sender)
    :param set_from_header: with ``all-mail-from``: make it the address in ``From`` of all mail too,
        whatever address is there; the name stays. Without this key only a ``From`` that is the sender changes
    :param senders: a table from a sender, or ``"@domain"``, to the new address
    :param masquerade: domains that replace the names of the hosts below them
    :param append_domain: the domain for addresses without one, instead of ``name``, in the envelope
        of the ``sendmail`` command and in the header of local mail
    :param local_mail_to: send the mail for local recipients to this address: for those at a domain
        without a dot, at ``localhost``, at this host, and at ``local-domains``
    :param local_domains: more domains of local recipients
    """

    complete: bool = _key(types.boolean, default=True)
    all_mail_from: Mailbox | None = _key(types.mail_address, flag="all-mail-from")
    set_from_header: bool = _key(types.boolean, default=False)
    senders: dict[str, str] = _key(types.text_map, {})
    masquerade: tuple[str, ...] = _key(types.texts, [])
    append_domain: str | None = _key(types.host_name)
    local_mail_to: Mailbox | None = _key(types.mail_address, flag="local-mail-to")
    local_domains: tuple[str, ...] = _key(types.texts, [])


@attrs.frozen(kw_only=True)
class DKIMKeyTable:
    """``[[dkim.key]]``: a key of a domain.

    :param selector: its name in the DNS: the public key is the TXT record ``SELECTOR._domainkey.DOMAIN``
    :param key_file: a file with the private key in PEM: RSA of 2,048 bits or more, or Ed25519. It is
        read again for each message; others may not read it
    :param key_credential: the name of a systemd credential (``LoadCredential=``) with it
    """

    selector: str = _key(types.selector, required=True)
    key_file: Path | None = _key(types.path)
    key_credential: str | None = _key(types.text)


@attrs.frozen(kw_only=True)
class DKIMTable:
    """``[[dkim]]``: a domain whose mail is signed.

    :param domain: sign mail whose ``From`` has addresses of this domain, and of no other. A domain below
        it has a table of its own
    :param users: users of this machine who may send it, by names or numbers: the mail of all others is
        not signed. ``"*"`` means all of them, and for programs of this machine whose user is not
        known, such as those on the loopback interface
    :param accounts: users of the ``accounts`` of listeners who may; ``"*"`` for all
    :param allow_unsigned: send mail unsigned, with a line in the log, while a key cannot be read. Without
        this key it is refused with ``451``, or waits
    """

    domain: str = _key(types.host_name, required=True)
    users: tuple[str, ...] = _key(types.users, [])
    accounts: tuple[str, ...] = _key(types.texts, [])
    allow_unsigned: bool = _key(types.boolean, default=False)
    key: tuple[DKIMKeyTable, ...] = _tables(DKIMKeyTable)


@attrs.frozen(kw_only=True)
class LimitsTable:
    """``[limits]``: bounds for clients that send mail to the relay.

    :param message_size: octets of a message
    :param header_size: octets of its header, which may have 2,000 fields
    :param recipients: its recipients
    :param hops: its ``Received`` fields; more mean a mail loop
    :param connections: connections at once, for each endpoint
    :param connections_per_address: connections at once from one address, over all endpoints
    :param connections_per_user: connections at once of one user of this machine on Unix sockets, over
        all of them
    :param user_rate: connections and messages a second of one user on Unix sockets, in the long run.
        A message beyond it waits for the reply to ``MAIL``, up to 60 s; a connection gets ``421``
    :param user_burst: connections and messages of a user before that rate applies
    :param backlog: connections that may wait until the relay accepts them, for each endpoint that names
        no ``backlog`` itself; the kernel has a limit too, ``net.core.somaxconn``
    :param failed_login: delay of the reply to the first failed login; each further one from the same
        address, or of the same user, doubles it, up to 30 s, over all listeners
        (:doc:`/how-to/receive-mail`)
    :param stop_grace: how long a relay that stops waits for messages in transit, in and out; it does
        not wait for connections without a message
    """

    message_size: int = _key(types.size, "50 MiB")
    header_size: int = _key(types.size, "256 KiB")
    recipients: int = _key(types.positive_integer, 1000)
    hops: int = _key(types.positive_integer, 100)
    connections: int = _key(types.positive_integer, 1000)
    connections_per_address: int = _key(types.positive_integer, 100)
    connections_per_user: int = _key(types.positive_integer, 50)
    user_rate: float = _key(types.positive_number, 100)
    user_burst: int = _key(types.positive_integer, 10_000)
    backlog: int = _key(types.positive_integer, 1024)
    failed_login: float = _key(types.duration, "2 s")
    stop_grace: float = _key(types.duration, "30 s")


@attrs.frozen(kw_only=True)
class AdminTable:
    """``[admin]``: health, metrics and the queue page.

    :param endpoint: show ``/healthz``, ``/metrics`` and the queue page here, on the loopback
        interface or a Unix socket: ``tcp:127.0.0.1:8025``
    :param token_file: a file whose only line, of 16 characters or more, is the token that allows
        actions on the queue; without a token there are none
    :param token_credential: the name of a systemd credential with the token
    :param token_environment: the name of an environment variable with the token
    :param private: show the page only after the token was given
    :param public: allow access from other machines; there is no TLS here
    :param names: host names of the page in browsers, besides ``localhost`` and its address
    """

    endpoint: EndpointDescription | None = _key(endpoint, flag="admin")
    token_file: Path | None = _key(types.path, flag="admin-token-file")
    token_credential: str | None = _key(types.text)
    token_environment: str | None = _key(types.text)
    private: bool = _key(types.boolean, default=False)
    public: bool = _key(types.boolean, default=False)
    names: tuple[str, ...] = _key(types.texts, [])


@attrs.frozen(kw_only=True)
class LogTable:
    """``[log]``: what is logged besides the life of each message.

    :param level: log what is at least as serious as this: ``debug``, ``info``, ``warn`` or
        ``error``. ``twistd --syslog`` and ``--logger`` get everything
    :param dialogue: log every line to and from the smarthosts at ``info``, without secrets
    :param json_file: log also to this file, as one JSON object a line, besides the log of ``twistd``
    """

    level: str = _key(types.log_level, default="info")

    dialogue: bool = _key(types.boolean, default=False)
    json_file: Path | None = _key(types.path)


@attrs.frozen(kw_only=True)
class RootTable:
    """The whole file.

    :param name: the name of this host, for the greeting, ``Received`` fields and reports; without
        this key the full name of the machine
    :param queue: keep the mail in this directory, made if need be; only its owner may look into it. Or
        in a database that several relays share: ``postgresql://relay@host1,host2/mail``
        (:doc:`/how-to/use-several-machines`)
    :param submission_socket: a Unix socket on which programs of this machine submit mail, in clear
        and without AUTH; without this key ``submission`` in the directory of the queue, or in ``spool`` if
        the queue is in a database
    :param submission_mode: its permissions, in octal and quotes; users who may open it may send
    :param spool: a directory for mail of the ``sendmail`` command: it holds ``drop``, which root makes
        for all users, and files of the relay (:doc:`/how-to/replace-sendmail`); without this key the
        directory of the queue, where only root and the relay's own user can send. Required if the queue
        is in a database
    :param operator_group: a group whose members see and flush the mail of all users by ``mailq`` and
        ``sendmail -q``, as root and the relay's user do; others see their own. Without this key the
        group of the relay's user
    :param world_readable_secrets: accept files with secrets that everybody may read, such as those
        that Docker and Kubernetes mount: accounts, keys, passwords, tokens. Even so only the owner
        may have write permission
    """

    name: str | None = _key(types.host_name, flag="name")
    queue: Path | str = _key(types.queue_place, required=True, flag="queue")
    submission_socket: Path | None = _key(types.path)
    submission_mode: int = _key(types.file_mode, "0600")
    spool: Path | None = _key(types.path)
    operator_group: int | None = _key(types.group)
    world_readable_secrets: bool = _key(types.boolean, default=False)
    listen: tuple[ListenTable, ...] = _tables(ListenTable)
    smarthost: tuple[SmarthostTable, ...] = _tables(SmarthostTable)
    delivery: DeliveryTable = _table(DeliveryTable)
    route: tuple[RouteTable, ...] = _tables(RouteTable)
    retry: RetryTable = _table(RetryTable)
    bounce: BounceTable = _table(BounceTable)
    rewrite: RewriteTable = _table(RewriteTable)
    dkim: tuple[DKIMTable, ...] = _tables(DKIMTable)
    limits: LimitsTable = _table(LimitsTable)
    admin: AdminTable = _table(AdminTable)
    log: LogTable = _table(LogTable)


# ---------------------------------------------------------------------------------------------------------------------
# Uses of the schema


def read_table(
    table: type[_T], given: object, folder: Path, where: str = "", *, header: str = ""
) -> _T:
    """Make *table* of the tree that TOML gives.

    :param folder: relative paths start here.
    :param where: the dotted name of the table.
    :param header: how it is written, if not as ``[where]``.
    :raises InvalidValue: naming the first key that cannot be used.
    """
    if table is ListenTable and isinstance(given, str):
        given = {"endpoint": given}
    if not isinstance(given, dict):
        why = f"the value is {types.type_name(given)}"
        raise InvalidValue(why, f"write it as a table, {header or f'[{where}]'}", where)
    before = f"{where}." if where else ""
    attributes = {each.name.replace("_", "-"): each for each in attrs.fields(table)}  # type: ignore[arg-type]  # an attrs class
    for name in given:
        if name not in attributes:
            raise _unknown_key(name, list(attributes), before)
    values: dict[str, Any] = {}
    for name, attribute in attributes.items():
        if name in given:
            about = attribute.metadata
            values[attribute.name] = _read_value(about, given[name], folder, before + name)
        elif attribute.default is attrs.NOTHING:
            raise InvalidValue("missing", "this key is required", before + name)
    return table(**values)


def _read_value(about: Mapping[Any, Any], given: object, folder: Path, where: str) -> object:
    if "key" in about:
        with at_key(where):
            return about["key"].value_type(given, folder)
    if "table" in about:
        return read_table(about["table"], given, folder, where)
    header = f"[[{_without_numbers(where)}]]"
    if not isinstance(given, list):
        raise InvalidValue(f"the value is {types.type_name(given)}", f"write it as {header}", where)
    return tuple(
        read_table(
            about["tables"], each, folder, numbered(where, number, len(given)), header=header
        )
        for number, each in enumerate(given, 1)
    )


def numbered(where: str, number: int, count: int) -> str:
    """Return the name of one of *count* tables in errors: ``listen#2``."""
    return f"{where}#{number}" if count > 1 else where


def _without_numbers(where: str) -> str:
    return re.sub("#[0-9]+", "", where)


#: Names that users try for a secret itself, which a file that others may read must not contain.
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


def all_keys() -> Iterator[tuple[str, str, Key, str]]:
    """Iterate over the keys: name of the table (empty outside one), of the key, key, meaning."""
    tables: dict[str, type[Any]] = {"": RootTable}
    for attribute in attrs.fields(RootTable):
        table = attribute.metadata.get("table") or attribute.metadata.get("tables")
        if table is not None:
            tables[attribute.name] = table
            for below in attrs.fields(table):
                # The keys of [[route.smarthost]] are those of [[smarthost]].
                if below.metadata.get("tables") not in {None, *tables.values()}:
                    tables[f"{attribute.name}.{below.name}"] = below.metadata["tables"]
    for name, table in tables.items():
        meanings = _meanings(table)
        for attribute in attrs.fields(table):
            if "key" in attribute.metadata and not attribute.inherited:
                key: Key = attribute.metadata["key"]
                yield name, attribute.name.replace("_", "-"), key, meanings[attribute.name]


def _meanings(table: type[Any]) -> dict[str, str]:
    docstrings = "\n".join(inspect.getdoc(each) or "" for each in table.__mro__)
    found = re.findall(r"^:param (\w+): (.*(?:\n +.*)*)", docstrings, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
