"""One endpoint that mail comes in by, whose server can be replaced while it listens.

A connection keeps the server it began with: a new configuration, certificate or file of
accounts is for those who come after.  What a message becomes is the receiver's business.

When descriptors run out (EMFILE), Twisted's port gives up one it holds in reserve to close who
knocks, so that nothing spins; when there are some again, it goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory

from twisted_sendmail.daemon.endpoint_text import EndpointText, server_endpoint
from twisted_sendmail.server import (
    ConnectionLimits,
    Networks,
    PasswordFile,
    ServerTLS,
    SMTPServerFactory,
)
from twisted_sendmail.smtp import SendmailError, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.internet.interfaces import (
        IAddress,
        IListeningPort,
        IProtocol,
        IProtocolFactory,
        IStreamServerEndpoint,
    )

    from twisted_sendmail.daemon.config import Configuration, Listener
    from twisted_sendmail.server import AuthThrottle, ConnectionInfo, HashingPool, Receiver


class CannotListen(SendmailError):
    """An endpoint is not to be had."""

    #: The exit status it means.
    status: int = os.EX_UNAVAILABLE


def make_server(
    reactor: Any,
    receiver: Callable[[ConnectionInfo], Receiver],
    configuration: Configuration,
    listener: Listener,
    *,
    throttle: AuthThrottle,
    pool: HashingPool,
) -> SMTPServerFactory:
    """The server that *listener* describes.

    :param throttle: delays logins, for all listeners together.
    :param pool: hashes passwords, for all listeners.
    :raises InvalidServer: its files cannot be used (any more).
    """
    certificate, accounts = listener.certificate, listener.accounts
    tls = None if certificate is None else ServerTLS(certificate, listener.key)
    users = None
    if accounts is not None:
        readable = listener.world_readable_secrets
        users = PasswordFile(accounts, reactor, pool=pool, world_readable=readable)
    limits = configuration.limits
    return SMTPServerFactory(
        reactor,
        receiver,
        tls=tls,
        accounts=users,
        settings=limits.server_settings(
            configuration.name,
            repair=listener.repair,
            starttls=False if listener.implicit_tls else None,
        ),
        limits=ConnectionLimits(limits.connections, limits.connections_per_address),
        trusted=Networks(listener.trusted),
        early_input=Networks(listener.early_input),
        throttle=throttle,
    )


class ListenerService(Factory):
    """Open from :meth:`open` to :meth:`close`.

    :param server: who serves those who come in.
    :param implicit_tls: with TLS from the first octet.
    """

    noisy = False

    def __init__(self, reactor: Any, server: SMTPServerFactory, *, implicit_tls: bool) -> None:
        self._reactor = reactor
        self._servers: list[SMTPServerFactory] = []
        self._port: IListeningPort | None = None
        self.serve(server, implicit_tls=implicit_tls)

    def serve(self, server: SMTPServerFactory, *, implicit_tls: bool) -> None:
        """From now on it is *server*; those who are there stay with theirs."""
        self._servers = [server, *(each for each in self._servers if each.connections)]
        self._outer: IProtocolFactory = server.implicit_tls() if implicit_tls else server

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]  # Twisted's Factory is generic in name only
        """The protocol of the server of now."""
        return self._outer.buildProtocol(addr)

    @property
    def connections(self) -> int:
        """Those that are open."""
        return sum(len(server.connections) for server in self._servers)

    @property
    def address(self) -> Any:
        """Where it listens, once it does."""
        return None if self._port is None else self._port.getHost()

    async def open(self, endpoint: EndpointText) -> None:
        """Listen.

        :raises CannotListen: one line that says where and why.
        """
        if endpoint.path is not None:
            remove_stale_socket(endpoint.path)
        await self._listen(server_endpoint(self._reactor, endpoint), endpoint.description)

    async def open_socket(self, path: Path, mode: int) -> None:
        """Listen on a Unix socket of ours alone, with the permissions *mode*.

        :raises CannotListen: one line that says where and why.
        """
        remove_stale_socket(str(path))
        endpoint = UNIXServerEndpoint(self._reactor, str(path), mode=mode, wantPID=0)
        # Between its making and its mode nobody else may connect.
        before = os.umask(0o177)
        try:
            listening = Deferred.fromCoroutine(self._listen(endpoint, f"unix:{path}"))
        finally:
            os.umask(before)
        await listening

    async def _listen(self, endpoint: IStreamServerEndpoint, shown: str) -> None:
        try:
            self._port = await endpoint.listen(self)
        except Exception as e:  # noqa: BLE001 - endpoints fail as they like
            raise cannot_listen(shown, e) from None

    async def close(self, grace: float) -> None:
        """Listen no more, and let those who are there end within *grace* seconds."""
        await self.shut()
        _ = await gatherResults(
            [Deferred.fromCoroutine(server.wind_up(grace)) for server in self._servers]
        )

    async def shut(self) -> None:
        """Listen no more; those who are there go on."""
        port, self._port = self._port, None
        stopped = None if port is None else port.stopListening()
        if stopped is not None:
            await stopped


def cannot_listen(endpoint: str, error: Exception) -> CannotListen:
    """One line: *endpoint* is not to be had."""
    why = getattr(error, "socketError", error)
    return CannotListen(
        f"{printable(endpoint, 200)} cannot be listened on",
        detail=getattr(why, "strerror", None) or str(why),
        remedy="stop who has it, or choose another endpoint",
    )


def remove_stale_socket(path: str) -> None:
    """Remove a Unix socket that a process left behind that is gone, and Twisted's lock of it."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - a path from outside
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)
        try:
            knocking.connect(path)
        except ConnectionRefusedError:
            for name in (path, f"{path}.lock"):
                with contextlib.suppress(OSError):
                    os.unlink(name)  # noqa: PTH108 - the same
        except OSError:
            # Its queue is full, or we may not: somebody is there.
            pass
