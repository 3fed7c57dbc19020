"""Endpoints to listen on, as they are written in a configuration.

They are Twisted's descriptions of server endpoints. In addition, address and port may be written as
``tcp:127.0.0.1:2525`` or ``tcp:[::1]:2525``. Nothing is opened here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.endpoints import quoteStringArgument, serverFromString

from twisted_sendmail.client import is_loopback
from twisted_sendmail.daemon.config_types import InvalidValue, text
from twisted_sendmail.smtp import printable, shown_argument

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamServerEndpoint

_REMEDY = (
    'write it as "tcp:127.0.0.1:2525", "unix:/run/relay.socket:mode=666" '
    'or "systemd:domain=INET:index=0"'
)
_ADDRESS_AND_PORT = re.compile(
    r"(tcp[46]?|ssl):(\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\]|[^:=\\]*[^:=\\0-9][^:=\\]*):([0-9]+)(:.*)?"
)


@attrs.frozen
class EndpointDescription:
    """An endpoint to listen on."""

    #: The description for Twisted's ``serverFromString``.
    description: str
    #: ``tcp``, ``ssl``, ``unix``, ``systemd`` …
    kind: str
    #: The address a TCP endpoint listens on; empty for all.
    interface: str = ""
    #: The port of a TCP endpoint.
    port: int | None = None
    #: The path of a Unix socket.
    path: str | None = None
    #: The file with the private key of an ``ssl`` endpoint.
    private_key: str | None = None
    #: Connections that may wait to be accepted; None: as described.
    backlog: int | None = None

    def __str__(self) -> str:
        return self.description if self.path is None else f"unix:{self.path}"

    def with_backlog(self, backlog: int) -> EndpointDescription:
        """Let *backlog* connections wait, if the description is silent about that and can name it."""
        named = re.search(r"(?<!\\):backlog=", self.description)
        if named or self.kind not in {"tcp", "tcp6", "ssl", "unix"}:
            return self
        return attrs.evolve(self, backlog=backlog)

    def may_share_address(self, other: EndpointDescription) -> bool:
        """Return True if both may need one address, so that only one of them can be open."""
        if self.path is not None or other.path is not None:
            return self.path == other.path
        return bool(self.port) and self.port == other.port

    @property
    def local(self) -> bool:
        """True if only this machine can connect; False if that is not known."""
        if self.kind == "unix":
            return True
        return is_loopback(self.interface)

    def server(self, reactor: Any) -> IStreamServerEndpoint:
        """Make Twisted's endpoint; nothing is opened yet.

        :raises InvalidValue: Twisted cannot make it.
        """
        try:
            backlog = "" if self.backlog is None else f":backlog={self.backlog}"
            made: IStreamServerEndpoint = serverFromString(reactor, self.description + backlog)
        except Exception as e:  # noqa: BLE001 - endpoint parsers raise any exception
            if str(e).startswith("Unknown endpoint type"):
                why = f"there are no endpoints of the kind '{self.kind}'"
            elif isinstance(e, OSError):
                why = f"{e.filename}: {e.strerror}"
            elif self.kind == "systemd" and isinstance(e, LookupError):
                why = "systemd has passed no such socket"
            else:
                why = "its arguments cannot be read"
            shown = shown_argument(self.description)
            raise InvalidValue(
                f"'{shown}' cannot be used: {printable(why, 200)}", _REMEDY
            ) from None
        return made


def endpoint(value: object, folder: Path) -> EndpointDescription:
    """Return an endpoint to listen on; a type of configuration values."""
    written = text(value, folder)
    match = _ADDRESS_AND_PORT.fullmatch(written)
    if match is not None:
        kind, host, port, rest = match[1], match[2].strip("[]"), match[3], match[4] or ""
        if ":" in host and kind == "tcp":
            kind = "tcp6"
        written = f"{kind}:{port}:interface={quoteStringArgument(host)}{rest}"
    kind, *words = [word.replace("\\", "") for word in re.split(r"(?<!\\):", written)]
    if not words or not kind:
        raise InvalidValue(f"'{shown_argument(written)}' is no endpoint", _REMEDY)
    positional = [word for word in words if "=" not in word]
    named = dict(word.split("=", 1) for word in words if "=" in word)
    number = None
    if kind in {"tcp", "tcp4", "tcp6", "ssl"}:
        port = named.get("port", positional[0] if positional else "")
        if not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
            why = f"'{printable(port, 40)}' is no port, which is a number from 0 to 65535"
            raise InvalidValue(why, _REMEDY)
        number = int(port)
    return EndpointDescription(
        written,
        kind,
        interface=named.get("interface", positional[1] if len(positional) > 1 else ""),
        port=number,
        path=named.get("address", positional[0] if positional else None)
        if kind == "unix"
        else None,
        # Twisted's default, if it is not written.
        private_key=named.get("privateKey", "server.pem") if kind == "ssl" else None,
    )


def unix_endpoint(path: str, mode: int) -> EndpointDescription:
    """Describe a Unix socket with the permissions *mode*, without Twisted's lock file."""
    quoted = quoteStringArgument(path)
    return EndpointDescription(f"unix:address={quoted}:mode={mode:o}:lockfile=0", "unix", path=path)
