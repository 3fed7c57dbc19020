"""DNS queries, and which answers count as validated by DNSSEC.

An answer counts as validated only if it has the AD bit (RFC 4035 section 3.2.3), and is that of a name server
that was configured for this, and that is reached over the loopback interface or by TLS with a verified name:
otherwise the answer could be changed on its way. The queries are dnspython's, in daemon threads, for which a
stop does not wait.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError

from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.extras import missing_extra
from twisted_sendmail.off_reactor import in_daemon_thread
from twisted_sendmail.smtp import ConnectFailed, InvalidServer, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable

#: Seconds that a query may take, with all its repetitions, and that it may take once more by TCP.
QUERY_TIMEOUT, TCP_TIMEOUT = 7.0, 4.0

_SERVER = re.compile(r"(?:(tls)://)?(\[[0-9A-Fa-f:.]+\]|[0-9.]+)(?::(\d{1,5}))?(?:#(\S+))?")


@frozen
class DNSAnswer:
    """The records of one name and type."""

    #: Of dnspython: ``dns.rdtypes.IN.SRV.SRV`` and so on.  Empty if there are none.
    records: tuple[Any, ...]
    #: DNSSEC has proved the records, or that there are none.
    validated: bool = False
    #: The name at the end of the aliases (CNAME) of the name that was asked for; None: the same name.
    canonical_name: str | None = None


class Resolver(Protocol):
    """Answers DNS queries."""

    def lookup(self, reactor: Any, name: str, kind: str) -> Awaitable[DNSAnswer]:
        """Return the records of *name* of one type, such as ``SRV``.

        :raises ConnectFailed: there is no answer, or a server says that the records are forged.
        """
        ...


async def look_up(reactor: Any, resolver: Resolver, name: str, kind: str) -> DNSAnswer:
    """Return the answer of *resolver*; see its ``lookup``.

    :raises Cancelled: the caller cancelled while it waited.
    """
    try:
        return await resolver.lookup(reactor, name, kind)
    except CancelledError:
        raise Cancelled("cancelled", phase="connect") from None


class DNSResolver:
    """Queries name servers; answers are kept as long as their time to live.

    :param servers: IP addresses, ``address:port`` (IPv6 in brackets), or
        ``tls://address#name`` for DNS over TLS (RFC 7858) with a certificate for *name*; empty for
        those of the system, whose word on DNSSEC does not count.
    :raises InvalidServer: a server is not written in such a way, or the system names none.
    :raises ImportError: the extra ``dns`` is not installed.
    """

    def __init__(self, servers: str | list[str] | tuple[str, ...] = ()) -> None:
        try:
            import dns.exception
            import dns.flags
            import dns.nameserver
            import dns.resolver
        except ImportError as error:
            raise missing_extra("dns", error) from None
        given = [servers] if isinstance(servers, str) else servers
        if not isinstance(given, (list, tuple)) or not all(isinstance(s, str) for s in given):
            raise InvalidServer("servers cannot be used", remedy="give a list of name servers")
        try:
            self._resolver = dns.resolver.Resolver(configure=not given)
        except dns.resolver.NoResolverConfiguration:
            raise InvalidServer(
                "the system names no name server", remedy="name one, such as 127.0.0.1"
            ) from None
        # DNSSEC records are requested, so that the reply has the AD bit if they were validated.
        self._resolver.use_edns(0, dns.flags.DO, 1232)
        self._resolver.flags = dns.flags.RD | dns.flags.AD
        self._resolver.cache = dns.resolver.LRUCache(1000)
        self._trusted = bool(given)
        nameservers: list[dns.nameserver.Nameserver] = []
        for text in given:
            tls, address, port, name = _parts(text)
            if tls:
                kind = _lenient(dns.nameserver.DoTNameserver)
                nameservers.append(kind(address, port or 853, hostname=name))
            else:
                nameservers.append(_lenient(dns.nameserver.Do53Nameserver)(address, port or 53))
                self._trusted = self._trusted and ip_address(address).is_loopback
        if given:
            self._resolver.nameservers = nameservers
        self._ad = dns.flags.AD
        # Its subclasses are failures of servers, and names too long for the prefix of a service.
        self._error = dns.exception.DNSException
        self._no_name = dns.resolver.NXDOMAIN
        self._no_answer = dns.resolver.LifetimeTimeout

    @property
    def validates(self) -> bool:
        """True if answers can count as validated by DNSSEC."""
        return self._trusted

    def lookup(self, reactor: Any, name: str, kind: str) -> Awaitable[DNSAnswer]:
        """See `Resolver`."""
        return in_daemon_thread(reactor, lambda: self._lookup(name, kind))

    def _lookup(self, name: str, kind: str) -> DNSAnswer:
        try:
            answer = self._answer(name, kind)
        except self._no_name as error:
            responses = list(error.kwargs["responses"].values())
            return DNSAnswer((), self._is_validated(responses[-1]) if responses else False)
        except self._error as error:
            raise ConnectFailed(
                f"the {kind} records of {printable(name)} cannot be looked up",
                phase="connect",
                detail=printable(str(error)),
                remedy="check the name servers and the records; a wrong signature (DNSSEC) is a failure, too",
            ) from None
        records = tuple(answer.rrset or ())
        canonical = answer.canonical_name.to_text(omit_final_dot=True)
        return DNSAnswer(records, self._is_validated(answer.response), canonical)

    def _answer(self, name: str, kind: str) -> Any:
        resolve = partial(
            self._resolver.resolve, name, kind, search=False, raise_on_no_answer=False
        )
        try:
            return resolve(lifetime=QUERY_TIMEOUT)
        except self._no_answer:
            # By UDP an answer that cannot be parsed counts as a forged one, and the right one is waited for; by
            # TCP the rest of it counts.
            return resolve(tcp=True, lifetime=TCP_TIMEOUT)

    def _is_validated(self, response: Any) -> bool:
        return self._trusted and bool(response.flags & self._ad)


def _lenient(kind: Any) -> Any:
    """Return a kind of name server for which a record that cannot be parsed does not disable the others.

    One malformed TLSA record is ignored (RFC 7671); dnspython's queries reject the whole answer then.
    """
    import dns.exception

    class Lenient(kind):  # type: ignore[misc]  # a class of dnspython
        def query(self, request: Any, timeout: float, *args: Any, **options: Any) -> Any:
            try:
                return super().query(request, timeout, *args, **options)
            except dns.exception.FormError:
                response = _what_parses(self, request, timeout)
                if not response.answer or not request.is_response(response):
                    raise
                return response

    return Lenient


def _what_parses(server: Any, request: Any, timeout: float) -> Any:
    """Ask once more by TCP, or TLS; return the answer without the records that cannot be parsed."""
    import dns.message
    import dns.query

    end = time.monotonic() + timeout
    with socket.create_connection((server.address, server.port), timeout) as connection:
        if (name := getattr(server, "hostname", None)) is not None:
            context = ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=name)  # noqa: PLW2901 - the same, by TLS
        with connection:
            _ = dns.query.send_tcp(connection, request)
            size = int.from_bytes(_received(connection, 2, end), "big")
            answer = _received(connection, size, end)
    return dns.message.from_wire(answer, continue_on_error=True)


def _received(connection: socket.socket, size: int, end: float) -> bytes:
    """Receive *size* octets until *end*, which octets that come slowly do not extend.

    :raises OSError: they did not come.
    """
    octets = b""
    while len(octets) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        connection.settimeout(left)
        more = connection.recv(size - len(octets))
        if not more:
            raise ConnectionError("the answer is not complete")
        octets += more
    return octets


def _parts(text: str) -> tuple[bool, str, int | None, str | None]:
    """Return whether it is TLS, the address, the port, and the name in the certificate."""
    match = _SERVER.fullmatch(text)
    if match is not None and bool(match[1]) == bool(match[4]):
        address = match[2].strip("[]")
        port = None if match[3] is None else int(match[3])
        try:
            _ = ip_address(address)
        except ValueError:
            pass
        else:
            if port is None or 0 < port < 65536:
                return bool(match[1]), address, port, match[4]
    raise InvalidServer(
        f"name server '{printable(text, 80)}' cannot be used",
        remedy="write 127.0.0.1, 127.0.0.1:53, [::1]:53 or tls://9.9.9.9#dns.quad9.net",
    )
