"""``SubmissionServer``: address, TLS, credentials and timeouts of a server that mail is submitted to.

From a URL: ``smtps://user@host`` (implicit TLS, port 465), ``smtp+starttls://user@host`` (STARTTLS,
port 587), and, where mail may go in clear, ``smtp+opportunistic://host`` and ``smtp://host`` (port 25).
``submission:example.org`` names a mail domain, whose DNS records name the server (``discovery``).

RFC 8314 (ports and TLS), RFC 6409 (submission), RFC 6186 (SRV records), RFC 3986 (URLs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IStreamClientEndpoint

from twisted_sendmail.client.dns_lookup import DNSResolver, Resolver
from twisted_sendmail.client.timeouts import Timeouts
from twisted_sendmail.client.tls import TLSPolicy, TLSTrust, is_address
from twisted_sendmail.sasl import Credentials
from twisted_sendmail.smtp import (
    Extension,
    InvalidInput,
    InvalidServer,
    check_flag,
    check_type,
    domain_name,
    full_url,
    printable,
    shown_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.sasl import MechanismFactory, TokenSource

_SCHEMES = {
    "smtps": TLSPolicy.IMPLICIT,
    "smtp+starttls": TLSPolicy.STARTTLS,
    "smtp+opportunistic": TLSPolicy.OPPORTUNISTIC,
    "smtp": TLSPolicy.NONE,
    # Until the records are known; without TLS no server is used.
    "submission": TLSPolicy.STARTTLS,
}
_DISCOVERED = "submission"
_PORTS = {TLSPolicy.IMPLICIT: 465, TLSPolicy.STARTTLS: 587}
# The default of ``credentials``: those of the URL. None means no login.
_OF_URL: Any = object()
_USAGE = "write smtps://user@host, smtp+starttls://user@host:587 or submission:user@domain"
_ZONE = re.compile(r"[A-Za-z0-9._~-]+\Z")
#: Seconds for a notification of an application whose settings have no timeouts: it waits for them when it stops.
_NOTIFICATION_TIMEOUT = 300.0


# The last step of making a server replaces None.
def _port(given: int | None) -> int:
    return given  # type: ignore[return-value]


def _policy(given: TLSPolicy | None) -> TLSPolicy:
    return given  # type: ignore[return-value]


def _trust(given: TLSTrust | None) -> TLSTrust:
    return TLSTrust() if given is None else given


def _timeouts(given: Timeouts | None) -> Timeouts:
    return Timeouts() if given is None else given


def _keywords(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, (tuple, list, set, frozenset)) and all(
        isinstance(word, str) and word for word in given
    ):
        return tuple(sorted({word.upper() for word in given}))
    raise InvalidServer(
        "ignore_extensions cannot be used", remedy='give EHLO keywords, such as ("CHUNKING",)'
    )


def _extensions(given: Iterable[Extension]) -> tuple[Extension, ...]:
    if isinstance(given, Iterable):
        extensions = tuple(given)
        if all(isinstance(each, Extension) for each in extensions):
            return extensions
    raise InvalidServer("extensions cannot be used", remedy="give a list of Extension objects")


@frozen
class SubmissionServer:
    r"""One submission server.

    :param host: its name, or IP address (IPv6 without brackets, and with a zone if it is link-local:
        ``fe80::1%eth0``); may be empty with an *endpoint* and without TLS, or with a name or pin in
        *trust*.
    :param port: by default 465 with implicit TLS, 587 with STARTTLS, else 25.
    :param tls: when TLS begins; by default implicit on port 465 and STARTTLS on others.
    :param trust: how the server proves its identity; by default the system's CAs and *host*.
    :param credentials: user and password or token; None for no AUTH.
    :param mechanisms: SASL mechanisms by name, instead of the built-in ones.
    :param helo_name: the name in EHLO; by default the machine's name if it has a dot, else the
        address of this end of the connection (RFC 5321 section 4.1.4).
    :param timeouts: how long each phase may take.
    :param endpoint: how to connect, if not to host and port: a proxy, a Unix socket.  With implicit
        TLS, an endpoint that begins TLS itself (``wrapClientTLS``) is used as it is, if its context
        verifies the server.
    :param watch: called with each line of the redacted dialogue, as it happens.
    :param ignore_extensions: EHLO keywords to ignore, such as ``CHUNKING``, where the server, or
        something before it, is known to get them wrong; also the parameters ``RET``, ``ENVID`` and
        ``ORCPT``, to be left out.
    :param extensions: an application's :class:`~twisted_sendmail.Extension`\s, whose parameters
        envelopes and recipients may have in ``others``.
    :param discover: *host* is a mail domain, whose SRV records name host, port and TLS of the server
        (RFC 6186); needs the extra ``dns``.
    :param resolver: looks up these records, by default with the system's name servers, and those of
        DANE (``TLSTrust(dane=True)``), with name servers whose validation counts.
    :param source_address: the IP address of this machine to connect from.
    :raises InvalidInput: an argument cannot be used, or credentials would be sent in clear.

    ``attrs.evolve(server, …)`` returns a changed copy.
    """

    host: str
    port: int = field(default=None, converter=_port)
    tls: TLSPolicy = field(default=None, converter=_policy)
    trust: TLSTrust = field(default=None, converter=_trust, kw_only=True)
    credentials: Credentials | None = field(default=None, kw_only=True)
    mechanisms: Mapping[str, MechanismFactory] | None = field(default=None, kw_only=True)
    helo_name: str | None = field(default=None, kw_only=True)
    timeouts: Timeouts = field(default=None, converter=_timeouts, kw_only=True)
    endpoint: IStreamClientEndpoint | None = field(default=None, eq=False, kw_only=True)
    watch: Callable[[str], None] | None = field(default=None, eq=False, repr=False, kw_only=True)
    ignore_extensions: tuple[str, ...] = field(default=(), converter=_keywords, kw_only=True)
    extensions: tuple[Extension, ...] = field(default=(), converter=_extensions, kw_only=True)
    discover: bool = field(default=False, kw_only=True)
    resolver: Resolver | None = field(default=None, eq=False, repr=False, kw_only=True)
    source_address: str | None = field(default=None, kw_only=True)
    #: Extensions and parameters that the server offered and refused as unknown (``report.unsupported``):
    #: every session with this object leaves them out from then on.
    unsupported: set[str] = field(factory=set, init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._find_defaults()
        check_type("trust", self.trust, TLSTrust, 'a TLSTrust, such as TLSTrust(ca_file="ca.pem")')
        check_type("timeouts", self.timeouts, Timeouts, "a Timeouts, such as Timeouts(total=60.0)")
        if self.credentials is not None:
            check_type(
                "credentials", self.credentials, Credentials, "Credentials(user, password), or None"
            )
        if self.mechanisms is not None:
            _check_mechanisms(self.mechanisms)
        self._check_route()
        if self.watch is not None and not callable(self.watch):
            raise InvalidServer(
                f"watch cannot be {type(self.watch).__name__}",
                remedy="give a function that takes a line of the dialogue",
            )
        if self.credentials is not None and not self.tls.required:
            raise InvalidServer(
                f"credentials cannot be used with TLSPolicy.{self.tls.name}",
                remedy="use IMPLICIT or STARTTLS: a password goes over TLS only",
            )
        if self.tls is not TLSPolicy.NONE:
            if not (self.host or self.trust.name or self.trust.pinned):
                raise InvalidServer(
                    "the server's certificate cannot be verified without a name",
                    remedy="give the server's host name, or the fingerprint of its certificate",
                )
            # A file that cannot be used is an error here, not at the first message.
            self.trust.context()
        if self.helo_name is not None:
            check_type("helo_name", self.helo_name, str, "a host name, or None")
            domain_name(self.helo_name)

    def _find_defaults(self) -> None:
        """Check host, port and TLS, which depend on each other, and set those that are not given."""
        host = _host(self.host) if self.host or self.endpoint is None else ""
        port, tls = self.port, self.tls
        if tls is None:
            tls = TLSPolicy.IMPLICIT if port == 465 else TLSPolicy.STARTTLS
        if not isinstance(tls, TLSPolicy):
            raise InvalidServer(
                f"'{tls}' is no TLS policy",
                remedy="give a TLSPolicy: IMPLICIT, STARTTLS, OPPORTUNISTIC or NONE",
            )
        if port is None:
            port = _PORTS.get(tls, 25)
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise InvalidServer(
                f"port {printable(str(port), 20)} of {host} cannot be used",
                remedy="give a number from 1 to 65535",
            )
        for name, value in (("host", host), ("port", port), ("tls", tls)):
            object.__setattr__(self, name, value)

    def _check_route(self) -> None:
        """Check how the server is found and connected to."""
        if self.endpoint is not None and not IStreamClientEndpoint.providedBy(self.endpoint):
            raise InvalidServer(
                f"endpoint cannot be {type(self.endpoint).__name__}",
                remedy="give an IStreamClientEndpoint, or leave it out",
            )
        if self.source_address is not None:
            check_type("source_address", self.source_address, str, "an IP address, or None")
            if not is_address(self.source_address):
                raise InvalidServer(
                    f"source_address '{printable(self.source_address, 80)}' cannot be used",
                    remedy="give an IP address of this machine",
                )
        if self.trust.dane:
            self._check_dane()
        if self.resolver is not None and not callable(getattr(self.resolver, "lookup", None)):
            raise InvalidServer(
                f"resolver cannot be {type(self.resolver).__name__}",
                remedy="give a DNSResolver, or leave it out",
            )
        check_flag("discover", self.discover)
        if not self.discover:
            return
        if not self.tls.required or self.endpoint is not None or is_address(self.host):
            raise InvalidServer(
                "discover is for a mail domain, and its servers have TLS",
                remedy="leave out tls and endpoint, and give a domain such as example.org",
            )
        if self.resolver is None:
            # Without the extra it is an error here, not at the first message.
            object.__setattr__(self, "resolver", DNSResolver())

    def _check_dane(self) -> None:
        """Check that the TLSA records of the server can be looked up and believed."""
        if not self.tls.required:
            raise InvalidServer(
                f"DANE cannot be used with TLSPolicy.{self.tls.name}",
                remedy="use IMPLICIT or STARTTLS: the server has to have TLS",
            )
        if self.resolver is None or getattr(self.resolver, "validates", True) is False:
            raise InvalidServer(
                "DANE needs a name server whose validation by DNSSEC counts",
                remedy="name one on the loopback interface, such as 127.0.0.1, or tls://address#name",
            )
        if not self.trust.name and (not self.host or is_address(self.host)):
            raise InvalidServer(
                "DANE needs the name of the server",
                remedy="give its host name, to which the TLSA records belong",
            )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        password: str | None = None,
        tokens: Callable[[str], TokenSource] | None = None,
        trust: TLSTrust | None = None,
        credentials: Credentials | None = _OF_URL,
        mechanisms: Mapping[str, MechanismFactory] | None = None,
        helo_name: str | None = None,
        timeouts: Timeouts | None = None,
        endpoint: IStreamClientEndpoint | None = None,
        watch: Callable[[str], None] | None = None,
        ignore_extensions: Iterable[str] = (),
        extensions: Iterable[Extension] = (),
        resolver: Resolver | None = None,
        source_address: str | None = None,
    ) -> SubmissionServer:
        """Read a URL.

        :param url: see the module; reserved characters in the user name are percent-encoded. Its scheme
            decides when TLS begins.
        :param password: the user's, when it is not in the URL.
        :param tokens: reads the settings of OAuth after the ``?`` of a URL, and the files that they name:
            ``oauth.url_tokens(reactor)``; None: a URL with settings is refused.
        :param credentials: instead of the user and password of the URL; None: without a login.
        :raises InvalidInput: an argument cannot be used; the text never holds a password.

        The other parameters are those of the class.
        """
        check_type("url", url, str, "text such as smtps://user@host")
        reads_settings = tokens is not None and credentials is _OF_URL
        server = url.partition("?")[0] if reads_settings else url
        scheme, user, secret, host, port = _split(server)
        if password is None:
            password = secret
        if credentials is _OF_URL:
            credentials = None
        else:
            user = None
        if tokens is not None and server != url:
            if user is None:
                raise InvalidServer(
                    "the server's URL has settings of OAuth and no user",
                    remedy="write smtps://USER@HOST?oauth-provider=…",
                )
            if password is not None:
                raise InvalidServer(
                    "there are a password and settings of OAuth", remedy="give one of them"
                )
            credentials = Credentials(user, token=tokens(url))
        elif user is not None:
            if password is None:
                raise _no_password(user)
            credentials = Credentials(user, password)
        return cls(
            host,
            port,
            _SCHEMES[scheme],
            trust=trust,
            credentials=credentials,
            mechanisms=mechanisms,
            helo_name=helo_name,
            timeouts=timeouts,
            endpoint=endpoint,
            watch=watch,
            ignore_extensions=ignore_extensions,
            extensions=extensions,
            discover=scheme == _DISCOVERED,
            resolver=resolver,
            source_address=source_address,
        )

    @classmethod
    def from_settings(
        cls,
        server: str | SubmissionServer | None = None,
        *,
        host: str = "localhost",
        port: int = 25,
        user: str | None = None,
        password: str | None = None,
        starttls: bool = False,
        implicit_tls: bool = False,
    ) -> SubmissionServer:
        """Read the settings of a program that was written for ``twisted.mail``.

        :param server: a URL or a SubmissionServer, instead of all others; *password* is that of the user
            in the URL.
        :param user: for AUTH; ``""`` and None mean without.
        :param starttls: require STARTTLS. It is required without it too, if there is a *user* or *host* is
            another machine: mail in clear to one is asked for by the URL ``smtp://host``.
        :param implicit_tls: TLS from the first octet.
        :raises InvalidInput: a value cannot be used; the text never holds a password.

        A message may take five minutes in all, unless *server* is a SubmissionServer, which has its own
        timeouts.
        """
        if isinstance(server, SubmissionServer):
            return server
        timeouts = Timeouts(total=_NOTIFICATION_TIMEOUT)
        if server:
            return cls.from_url(server, password=password or None, timeouts=timeouts)
        if user and not password:
            raise _no_password(user)
        if implicit_tls:
            tls = TLSPolicy.IMPLICIT
        elif starttls or user or not is_loopback(_host(host)):
            tls = TLSPolicy.STARTTLS
        else:
            tls = TLSPolicy.NONE
        credentials = Credentials(user, password) if user and password else None
        return cls(host, port, tls, credentials=credentials, timeouts=timeouts)

    @classmethod
    def of(cls, server: str | SubmissionServer) -> SubmissionServer:
        """Return *server* itself, or the server of a URL."""
        if isinstance(server, SubmissionServer):
            return server
        if isinstance(server, str):
            return cls.from_url(server)
        raise InvalidServer(
            f"server cannot be {type(server).__name__}", remedy="give a URL or a SubmissionServer"
        )

    @classmethod
    def all_of(
        cls, servers: str | SubmissionServer | Iterable[str | SubmissionServer]
    ) -> tuple[SubmissionServer, ...]:
        """Return the servers of one URL or SubmissionServer, or of several."""
        if isinstance(servers, (list, tuple)):
            return tuple(cls.of(each) for each in servers)
        return (cls.of(servers),)  # type: ignore[arg-type]  # it reports any other type

    def with_timeouts(self, timeouts: Timeouts) -> SubmissionServer:
        """Return a copy with other timeouts."""
        return evolve(self, timeouts=timeouts)

    def __str__(self) -> str:
        if self.discover:
            return f"{_DISCOVERED}:{self.host}"
        scheme = next(name for name, policy in _SCHEMES.items() if policy is self.tls)
        # RFC 6874 section 2, for the zone of an address.
        return f"{scheme}://{self.host_and_port.replace('%', '%25')}"

    @property
    def host_and_port(self) -> str:
        """``mail.example.org:587``, or ``[2001:db8::1]:587``."""
        return host_and_port(self.host, self.port)


def host_and_port(host: str, port: int) -> str:
    """Return both as in a URL, where an IPv6 address has brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(host: str) -> str:
    if not isinstance(host, str) or not host:
        raise InvalidServer("the server has no host name", remedy=_USAGE)
    name = _host_name(host)
    if name is None:
        # It may be a URL with a password in it.
        raise InvalidServer(
            f"host '{shown_url(host)}' cannot be used",
            detail="it is neither a name nor an IP address",
        )
    return name


def _host_name(host: str) -> str | None:
    # The zone of a link-local address (RFC 4007 section 11): an interface of this machine.
    address, percent, zone = host.partition("%")
    if percent and (":" not in address or not _ZONE.match(zone)):
        return None
    try:
        name = domain_name(f"[IPv6:{address}]" if ":" in address else host)
    except InvalidInput:
        return None
    return host if ":" in host else name


def is_loopback(host: str) -> bool:
    """Return True if *host* is this machine, by its name ``localhost`` or its address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _no_password(user: str) -> InvalidServer:
    return InvalidServer(
        f"there is no password for {printable(user, 80)}",
        remedy="give the password, as password= or in credentials=",
    )


def _check_mechanisms(given: object) -> None:
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) and callable(make) for name, make in given.items()
    ):
        raise InvalidServer(
            "mechanisms cannot be used",
            remedy="give a dict of names and mechanisms, such as twisted_sendmail.MECHANISMS",
        )


def _split(url: str) -> tuple[str, str | None, str | None, str, int | None]:
    parts = _parts(url)
    if isinstance(parts, str):
        # Raised outside of `except`: the library's errors quote the URL.
        raise InvalidServer(
            f"server URL '{shown_url(url)}' cannot be used", detail=parts, remedy=_USAGE
        )
    return parts


def _parts(url: str) -> tuple[str, str | None, str | None, str, int | None] | str:
    """Return scheme, user, password, host and port; or what is wrong with *url*."""
    try:
        parts = urlsplit(full_url(url))
        port = parts.port
    except ValueError:
        return "its host or port cannot be read"
    if not url.isprintable() or any(c.isspace() for c in url):
        return "it holds blanks or control characters"
    scheme = parts.scheme.lower()
    if scheme not in _SCHEMES or "://" not in full_url(url):
        return f"it does not begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}"
    if scheme == _DISCOVERED and port is not None:
        return "the records of the domain name the port"
    if parts.query.startswith(("oauth-", "bearer=", "password-file=")):
        return "it has settings of OAuth, which are keys, or are read by tokens=oauth.url_tokens(…)"
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        return "there is something after the host"
    if not parts.hostname:
        return "it has no host"
    host = _host_name(parts.hostname.replace("%25", "%", 1))
    if host is None:
        return "its host is neither a name nor an IP address"
    user = unquote(parts.username) if parts.username else None
    secret = unquote(parts.password) if parts.password is not None else None
    return scheme, user, secret, host, port
