"""What is written of an endpoint, read as far as we must understand it.

It is Twisted's description of a server endpoint, with one thing made easier: address and port
may stand as everybody writes them, ``tcp:127.0.0.1:2525`` or ``tcp:[::1]:2525``.

It opens nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import quoteStringArgument, serverFromString

from twisted_sendmail.daemon.configuration_error import Wrong
from twisted_sendmail.smtp import printable, shown_argument

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamServerEndpoint

REMEDY = (
    'write it as "tcp:127.0.0.1:2525", "unix:/run/relay.socket:mode=666" '
    'or "systemd:domain=INET:index=0"'
)
_EASY = re.compile(r"(tcp[46]?|ssl):(\[[0-9A-Fa-f:.]+\]|[^:=\\]*[^:=\\0-9][^:=\\]*):([0-9]+)(:.*)?")


@dataclass(frozen=True)
class EndpointText:
    """One endpoint as it is written; ``description`` is what Twisted understands."""

    description: str
    #: ``tcp``, ``ssl``, ``unix``, ``systemd`` …
    kind: str
    #: The address a TCP endpoint listens on; empty for all.
    interface: str
    #: Where a Unix socket is.
    path: str | None
    #: The file with the private key of an ``ssl`` endpoint.
    private_key: str | None = None

    @property
    def local(self) -> bool:
        """Can nobody but this machine reach it?  False where it cannot be known."""
        if self.kind == "unix":
            return True
        try:
            return ip_address(self.interface).is_loopback
        except ValueError:
            return self.interface == "localhost"


def parse_endpoint(text: str) -> EndpointText:
    """Read *text*.

    :raises Wrong: it has no kind.
    """
    easy = _EASY.fullmatch(text)
    if easy is not None:
        kind, host, port, rest = easy[1], easy[2].strip("[]"), easy[3], easy[4] or ""
        if ":" in host and kind == "tcp":
            kind = "tcp6"
        text = f"{kind}:{port}:interface={quoteStringArgument(host)}{rest}"
    kind, *words = [word.replace("\\", "") for word in re.split(r"(?<!\\):", text)]
    if not words or not kind:
        raise Wrong(f"'{shown_argument(text)}' is no endpoint", REMEDY)
    plain = [word for word in words if "=" not in word]
    named = dict(word.split("=", 1) for word in words if "=" in word)
    if kind in {"tcp", "tcp4", "tcp6", "ssl"}:
        port = named.get("port", plain[0] if plain else "")
        if not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
            why = f"'{printable(port, 40)}' is no port, which is a number from 0 to 65535"
            raise Wrong(why, REMEDY)
    interface = named.get("interface", plain[1] if len(plain) > 1 else "")
    path = named.get("address", plain[0] if plain else None) if kind == "unix" else None
    # Twisted's default, where it is not written.
    private_key = named.get("privateKey", "server.pem") if kind == "ssl" else None
    return EndpointText(text, kind, interface, path, private_key)


def server_endpoint(reactor: Any, endpoint: EndpointText) -> IStreamServerEndpoint:
    """The endpoint itself; nothing is opened yet.

    :raises Wrong: Twisted does not know it.
    """
    try:
        made: IStreamServerEndpoint = serverFromString(reactor, endpoint.description)
    except Exception as e:  # noqa: BLE001 - parsers raise what they like
        if str(e).startswith("Unknown endpoint type"):
            why = f"there are no endpoints of the kind '{endpoint.kind}'"
        elif isinstance(e, OSError):
            why = f"{e.filename}: {e.strerror}"
        elif endpoint.kind == "systemd" and isinstance(e, LookupError):
            why = "systemd has passed no such socket"
        else:
            why = "its arguments cannot be read"
        shown = shown_argument(endpoint.description)
        raise Wrong(f"'{shown}' cannot be used: {printable(why, 200)}", REMEDY) from None
    return made
