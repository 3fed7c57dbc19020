"""Networks of clients: those that are trusted (RFC 6409 section 3.3), and the unit of counting."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from twisted_sendmail.smtp import InvalidServer, check_each

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from twisted.internet.interfaces import IAddress

    from twisted_sendmail.local_users import LocalPeer


class Networks:
    """A set of networks.

    :param networks: ``192.0.2.0/24``, ``2001:db8::/32``, ``192.0.2.1``, or ``unix`` for clients on
        a Unix socket.
    :raises InvalidServer: one cannot be parsed; the text names it.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        check_each("networks", networks, str, "a list of texts, such as 192.0.2.0/24 or unix")
        self._unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in networks:
            if text == "unix":
                self._unix = True
                continue
            try:
                self._networks.append(ip_network(text))
            except ValueError as e:
                raise InvalidServer(
                    f"network '{text}' cannot be used",
                    detail=str(e),
                    remedy="write it as 192.0.2.0/24 or 2001:db8::/32",
                ) from None

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, address: IAddress) -> bool:
        host: str | None = getattr(address, "host", None)
        if host is None:
            return self._unix
        try:
            ip = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)


class UserOrigin(NamedTuple):
    """A user of this machine, on a Unix socket."""

    uid: int


def client_origin(address: IAddress, local: LocalPeer | None = None) -> Hashable:
    """Return the unit for which connections and failed logins are counted.

    It is the user on a Unix socket, if known, else a network: an IPv6 network of 64 bits is one, an
    IPv4-mapped address is the IPv4 address, and all unknown users of Unix sockets are one.

    :param local: the user at the other end of a Unix socket.
    """
    if local is not None and local.uid is not None:
        return UserOrigin(local.uid)
    host: str | None = getattr(address, "host", None)
    if host is None:
        # A Unix socket: all come from this machine.
        return type(address)
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped or ip_network((ip, 64), strict=False)
    return ip
