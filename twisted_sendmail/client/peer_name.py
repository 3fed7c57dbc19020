"""How to call a server in errors: by its name and its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted.internet.interfaces import ITransport


def peer_name(name: str, transport: ITransport) -> str:
    """``name[address]:port``, as far as there is one."""
    peer = transport.getPeer()
    address, port = getattr(peer, "host", None), getattr(peer, "port", None)
    if address is None:
        # A Unix socket, which may have no name either.
        return name or printable(getattr(peer, "name", None) or "server", 200)
    return f"{name}[{address}]:{port}" if name and name != address else f"[{address}]:{port}"
