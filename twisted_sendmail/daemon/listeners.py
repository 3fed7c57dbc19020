"""Listeners: the endpoints on which the relay accepts mail.

A reload replaces the server of a listener. A connection keeps the server that it started with: a
new configuration, certificate or password file applies to later connections.

If the process runs out of file descriptors (EMFILE), Twisted's port closes a descriptor that it holds
in reserve to accept and close new connections, and continues when descriptors are free again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from twisted_sendmail.daemon.incoming_mail import server_settings
from twisted_sendmail.server import (
    AuthThrottle,
    ConnectionCounter,
    ConnectionLimits,
    HashingPool,
    Networks,
    PasswordFile,
    QueueReceiver,
    ServerTLS,
    SMTPServerFactory,
    UserRates,
)
from twisted_sendmail.smtp import SendmailError, printable

_log = Logger(namespace="twisted_sendmail.daemon")

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from twisted.internet.interfaces import (
        IAddress,
        IListeningPort,
        IProtocol,
        IProtocolFactory,
        IStreamServerEndpoint,
    )

    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.daemon.config_schema import ListenTable
    from twisted_sendmail.daemon.endpoints import EndpointDescription
    from twisted_sendmail.queue import Queue
    from twisted_sendmail.server import ConnectionInfo


_REMEDIES: dict[int | None, str] = {
    errno.EADDRINUSE: "stop the process that uses it, or choose another endpoint",
    errno.EADDRNOTAVAIL: "name an address of this machine",
    errno.EACCES: "a port below 1024 needs CAP_NET_BIND_SERVICE, root, or a socket of systemd; a Unix"
    " socket, a directory that this user may write to",
    errno.ENOENT: "make the directory of the socket",
}


class CannotListen(SendmailError):
    """An endpoint cannot be listened on."""


class Listeners:
    """All listeners of a relay: opened, replaced and closed together.

    Each message goes to a ``QueueReceiver``.

    :param queue: accepted mail goes here; it is open.
    """

    def __init__(self, reactor: Any, queue: Queue) -> None:
        self._reactor = reactor
        self._queue = queue
        self._open: dict[EndpointDescription, Listener] = {}
        self._closing: set[Listener] = set()
        # These outlive a reload: it must not reset a limit, or help to guess passwords.
        self._by_origin: Counter[Hashable] = Counter()
        self._counters: dict[EndpointDescription, ConnectionCounter] = {}
        self._throttle = AuthThrottle(reactor)
        self._user_rates = UserRates(reactor)
        self._hashing_pool = HashingPool(reactor)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return sum(each.connections for each in {*self._open.values(), *self._closing})

    @property
    def addresses(self) -> list[Any]:
        """The addresses, in the order of the configuration; the submission socket comes last."""
        return [listener.address for listener in self._open.values()]

    async def apply(self, configuration: Configuration) -> None:
        """Listen on the endpoints of *configuration*: open new ones, close those that are gone.

        :raises SendmailError: a file cannot be used, or an endpoint cannot be listened on. Then all
            listeners are as they were before.
        """
        tables = (*configuration.listeners, configuration.submission)
        servers = {each.endpoint: self._server(configuration, each) for each in tables}
        gone = {each: self._open[each] for each in self._open if each not in servers}
        opened = await self._open_new(servers, gone)
        limits = configuration.limits
        self._throttle.base = limits.failed_login
        self._user_rates.set(limits.user_rate, limits.user_burst)
        for endpoint, server in servers.items():
            if endpoint not in opened:
                opened[endpoint] = self._open[endpoint]
                opened[endpoint].serve(server)
        self._open = {endpoint: opened[endpoint] for endpoint in servers}
        for listener in gone.values():
            self._close_later(listener, limits.stop_grace)

    async def _open_new(
        self,
        servers: dict[EndpointDescription, _Server],
        gone: dict[EndpointDescription, Listener],
    ) -> dict[EndpointDescription, Listener]:
        """Open the listeners of *servers* that are not open; return them.

        A listener of *gone* stops first if a new one may need its address: another mode of a Unix
        socket, or another interface with the same port.
        """
        opened: dict[EndpointDescription, Listener] = {}
        stopped: dict[EndpointDescription, Listener] = {}
        try:
            for endpoint in [each for each in servers if each not in self._open]:
                for former, listener in gone.items():
                    if endpoint.may_share_address(former):
                        stopped[former] = listener
                        await listener.stop_listening()
                opened[endpoint] = Listener(self._reactor, servers[endpoint])
                await opened[endpoint].open(endpoint)
        except BaseException:
            for listener in opened.values():
                await listener.stop_listening()
            for former, listener in stopped.items():
                await listener.open(former)
            raise
        return opened

    def _server(self, configuration: Configuration, table: ListenTable) -> _Server:
        policy, limits = configuration.cleanup, configuration.limits

        def receiver(connection: ConnectionInfo) -> QueueReceiver:
            local = table.local
            if local is None:
                local = table.endpoint.local and connection.user is None
            return QueueReceiver(connection, self._queue, policy, self._reactor, local=local)

        accounts = None
        if table.accounts is not None:
            accounts = PasswordFile(
                table.accounts,
                self._reactor,
                pool=self._hashing_pool,
                world_readable=configuration.world_readable_secrets,
            )
        certificate = None
        if table.certificate is not None:
            asks = accounts is not None and bool(accounts.certificates)
            certificate = ServerTLS(table.certificate, table.key, ask_certificate=asks)
        factory = SMTPServerFactory(
            self._reactor,
            receiver,
            tls=certificate,
            accounts=accounts,
            settings=server_settings(
                limits,
                configuration.name,
                repair=table.repair is True,
                starttls=False if table.implicit_tls else None,
            ),
            limits=ConnectionLimits(
                limits.connections, limits.connections_per_address, limits.connections_per_user
            ),
            trusted=Networks(table.trusted),
            early_input=Networks(table.allow_early_input),
            repair=Networks(table.repair if isinstance(table.repair, tuple) else ()),
            throttle=self._throttle,
            counter=self._counters.setdefault(table.endpoint, ConnectionCounter(self._by_origin)),
            user_rates=self._user_rates,
        )
        return factory, factory.implicit_tls() if table.implicit_tls else factory

    def _close_later(self, listener: Listener, grace: float) -> None:
        self._closing.add(listener)

        def closed(_: object) -> None:
            self._closing.discard(listener)

        _ = Deferred.fromCoroutine(listener.close(grace)).addBoth(closed)

    async def close(self, grace: float) -> None:
        """Stop listening. Messages in transit get their reply within *grace* seconds."""
        listeners = {*self._open.values(), *self._closing}
        self._open = {}
        for listener in listeners:
            await listener.stop_listening()
        closing = [Deferred.fromCoroutine(listener.close(grace)) for listener in listeners]
        _ = await gatherResults(closing)
        self._hashing_pool.stop()


#: A server, and the factory that listens for it: itself, or one that starts with TLS.
_Server = tuple[SMTPServerFactory, "IProtocolFactory"]


class Listener(Factory):
    """One endpoint, whose server can be replaced while it listens."""

    noisy = False

    def __init__(self, reactor: Any, server: _Server) -> None:
        self._reactor = reactor
        self._servers: list[SMTPServerFactory] = []
        self._port: IListeningPort | None = None
        self.serve(server)

    def serve(self, server: _Server) -> None:
        """Serve later connections by *server*; open connections keep theirs."""
        factory, self._outer_factory = server
        self._servers = [factory, *(each for each in self._servers if each.connections)]

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]  # Twisted's Factory is generic in name only
        """See ``IProtocolFactory``."""
        return self._outer_factory.buildProtocol(addr)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return sum(len(server.connections) for server in self._servers)

    @property
    def address(self) -> Any:
        """The address, once it listens."""
        return None if self._port is None else self._port.getHost()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """Return the name of the listener in the log."""
        return "SMTP server"

    async def open(self, endpoint: EndpointDescription) -> None:
        """Listen.

        :raises CannotListen: naming the endpoint and the reason.
        """
        self._port = await listen(self._reactor, endpoint, lambda server: server.listen(self))

    async def close(self, grace: float) -> None:
        """Stop listening, and end all connections within *grace* seconds."""
        await self.stop_listening()
        ended = [Deferred.fromCoroutine(server.wind_up(grace)) for server in self._servers]
        _ = await gatherResults(ended)

    async def stop_listening(self) -> None:
        """Stop listening; open connections go on."""
        port, self._port = self._port, None
        stopped = None if port is None else port.stopListening()
        if stopped is not None:
            await stopped


async def listen(
    reactor: Any,
    endpoint: EndpointDescription,
    start: Callable[[IStreamServerEndpoint], Awaitable[IListeningPort]],
) -> IListeningPort:
    """Listen on *endpoint* by *start*.

    :raises CannotListen: naming the endpoint and the reason.
    :raises SendmailError: as *start* raises it.
    """

    async def starting() -> IListeningPort:
        return await start(endpoint.server(reactor))

    try:
        if endpoint.path is None:
            port = await starting()
        else:
            _remove_stale_socket(endpoint.path)
            # Twisted sets the mode after bind(): other users must not connect between the two.
            before = os.umask(0o177)
            try:
                started = Deferred.fromCoroutine(starting())
            finally:
                os.umask(before)
            port = await started
    except SendmailError:
        raise
    except Exception as e:  # noqa: BLE001 - endpoints fail with any exception
        why = getattr(e, "socketError", e)
        raise CannotListen(
            f"{printable(str(endpoint), 200)} cannot be listened on",
            detail=getattr(why, "strerror", None) or str(why),
            remedy=_REMEDIES.get(getattr(why, "errno", None), "choose another endpoint"),
        ) from None
    address: Any = port.getHost()
    chosen = f", port {address.port}" if endpoint.port == 0 else ""
    _log.info("listening on {endpoint}", endpoint=printable(str(endpoint), 200) + chosen)
    return port


def _remove_stale_socket(path: str) -> None:
    """Remove a Unix socket, and Twisted's lock of it, that no process listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - a path from outside
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            for name in (path, f"{path}.lock"):
                with contextlib.suppress(OSError):
                    os.unlink(name)  # noqa: PTH108 - the same
        except OSError:
            # A full backlog, or no permission: some process listens.
            pass
