"""Where mail is submitted and how: the server's address, TLS, identity and patience.

A value.  From a URL: ``smtps://user@host`` (implicit TLS, port 465),
``smtp+starttls://user@host`` (STARTTLS, port 587), ``smtp+opportunistic://host`` and
``smtp://host`` (in clear, port 25), the last two only where they are asked for.

RFC 8314 (ports and TLS), RFC 6409 (submission), RFC 3986 (URLs).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint

from twisted_sendmail.client.connect import Opening
from twisted_sendmail.client.timeouts import Timeouts
from twisted_sendmail.client.tls import TLSPolicy, TLSTrust
from twisted_sendmail.sasl import Credentials
from twisted_sendmail.smtp import InvalidInput, InvalidServer, domain_name, printable, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IStreamClientEndpoint

    from twisted_sendmail.sasl import MechanismFactory

_SCHEMES = {
    "smtps": TLSPolicy.IMPLICIT,
    "smtp+starttls": TLSPolicy.STARTTLS,
    "smtp+opportunistic": TLSPolicy.OPPORTUNISTIC,
    "smtp": TLSPolicy.NONE,
}
_PORTS = {TLSPolicy.IMPLICIT: 465, TLSPolicy.STARTTLS: 587}
_USAGE = "write smtps://user@host or smtp+starttls://user@host:587"


@dataclass(frozen=True)
class SubmissionServer:
    """One submission server.

    :param host: its name, or IP address; IPv6 without brackets.
    :param port: None for 465 with implicit TLS, 587 with STARTTLS, else 25.
    :param tls: when TLS begins; None for implicit on port 465 and STARTTLS elsewhere.
    :param trust: what proves the server; the system's CAs and its name by default.
    :param credentials: who we are; None for no AUTH.
    :param mechanisms: SASL mechanisms by name, instead of the built-in ones.
    :param helo_name: what to say in EHLO.
    :param timeouts: how long each phase may take.
    :param endpoint: how to connect, if not to host and port: a proxy, a Unix socket.
    :param watch: called with each line of the redacted dialogue, as it happens.
    :param ignore_extensions: EHLO keywords to take for not offered, such as ``CHUNKING``,
        where the server, or something before it, is known to get them wrong.
    :raises InvalidInput: for what cannot be used, or would send credentials in clear.
    """

    host: str
    port: int | None = None
    tls: TLSPolicy | None = None
    trust: TLSTrust = field(default_factory=TLSTrust)
    credentials: Credentials | None = None
    mechanisms: Mapping[str, MechanismFactory] | None = None
    helo_name: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    endpoint: IStreamClientEndpoint | None = field(default=None, compare=False)
    watch: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    ignore_extensions: tuple[str, ...] = ()
    _opening: Opening = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "host", _host(self.host) if self.host or self.endpoint is None else "")
        if self.tls is None:
            put(self, "tls", TLSPolicy.IMPLICIT if self.port == 465 else TLSPolicy.STARTTLS)
        if self.port is None:
            put(self, "port", _PORTS.get(self.policy, 25))
        if not isinstance(self.port, int) or not 0 < self.port < 65536:
            msg = f"port {printable(str(self.port), 20)} of {self.host} cannot be used"
            raise InvalidServer(msg, remedy="give a number from 1 to 65535")
        put(self, "_opening", self._how())
        put(self, "ignore_extensions", self._opening.ignore_extensions)

    @property
    def policy(self) -> TLSPolicy:
        """When TLS begins; never None."""
        return self.tls or TLSPolicy.STARTTLS

    @classmethod
    def from_url(
        cls, url: str, *, password: str | None = None, **settings: Any
    ) -> SubmissionServer:
        """Read a URL.

        :param url: see the module; reserved characters in the user name are percent-encoded.
        :param password: the user's, when it is not in the URL.
        :param settings: any other parameter of the class.
        :raises InvalidServer: for anything else; the text never holds a password.
        """
        scheme, user, secret, host, port = _split(url)
        if user is not None and "credentials" not in settings:
            if password is None:
                password = secret
            if password is None:
                msg = f"there is no password for {printable(user, 80)}"
                raise InvalidServer(msg, remedy="give password=, or credentials=")
            settings["credentials"] = Credentials(user, password)
        return cls(host, port, _SCHEMES[scheme], **settings)

    @classmethod
    def of(cls, server: str | SubmissionServer) -> SubmissionServer:
        """*server* itself, or what the URL says."""
        if isinstance(server, SubmissionServer):
            return server
        if isinstance(server, str):
            return cls.from_url(server)
        msg = f"server cannot be {type(server).__name__}"
        raise InvalidServer(msg, remedy="give a URL or a SubmissionServer")

    def opening(self) -> Opening:
        """What to do between connecting and the first MAIL."""
        return self._opening

    def _how(self) -> Opening:
        return Opening(
            server_name=self.host,
            port=None if self.endpoint is not None else self.port,
            tls=self.policy,
            trust=self.trust,
            credentials=self.credentials,
            mechanisms=self.mechanisms,
            helo_name=self.helo_name,
            timeouts=self.timeouts,
            watch=self.watch,
            ignore_extensions=self.ignore_extensions,
        )

    def connector(self, reactor: Any) -> IStreamClientEndpoint:
        """Where to connect; the addresses of a name race (RFC 8305)."""
        if self.endpoint is not None:
            return self.endpoint
        # One limit over all addresses is Timeouts.connect's; the endpoint's own is for each.
        limit = self.timeouts.connect if self.timeouts.connect is not None else 1e6
        port = self.port or 0
        # An address needs no thread to look it up.
        if isIPAddress(self.host):
            return TCP4ClientEndpoint(reactor, self.host, port, timeout=limit)
        if isIPv6Address(self.host):
            return TCP6ClientEndpoint(reactor, self.host, port, timeout=limit)
        return HostnameEndpoint(reactor, self.host, port, timeout=limit)

    def with_timeouts(self, timeouts: Timeouts) -> SubmissionServer:
        """The same with other patience."""
        return replace(self, timeouts=timeouts)

    def __str__(self) -> str:
        scheme = next(name for name, policy in _SCHEMES.items() if policy is self.policy)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


def _host(host: str) -> str:
    if not isinstance(host, str) or not host:
        msg = "the server has no host name"
        raise InvalidServer(msg, remedy=_USAGE)
    name = _host_name(host)
    if name is None:
        # It may be a URL with a password in it.
        msg = f"host '{shown_url(host)}' cannot be used"
        raise InvalidServer(msg, detail="it is neither a name nor an IP address")
    return name


def _host_name(host: str) -> str | None:
    try:
        name = domain_name(f"[IPv6:{host}]" if ":" in host else host)
    except InvalidInput:
        return None
    return host if ":" in host else name


def _split(url: str) -> tuple[str, str | None, str | None, str, int | None]:
    parts = _parts(url)
    if isinstance(parts, str):
        # Not raised where it was found: the errors of the library quote the URL.
        what = f"server URL '{shown_url(url)}' cannot be used"
        raise InvalidServer(what, detail=parts, remedy=_USAGE)
    return parts


def _parts(url: str) -> tuple[str, str | None, str | None, str, int | None] | str:
    """Scheme, user, password, host and port; or what is wrong with it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "its host or port cannot be read"
    if not url.isprintable() or any(c.isspace() for c in url):
        return "it holds blanks or control characters"
    scheme = parts.scheme.lower()
    if scheme not in _SCHEMES or "://" not in url:
        return f"it does not begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}"
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        return "there is something behind the host"
    if not parts.hostname:
        return "it has no host"
    host = _host_name(parts.hostname)
    if host is None:
        return "its host is neither a name nor an IP address"
    user = unquote(parts.username) if parts.username else None
    secret = unquote(parts.password) if parts.password is not None else None
    return scheme, user, secret, host, port
