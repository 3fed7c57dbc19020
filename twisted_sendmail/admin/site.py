"""The admin endpoint: health for supervisors, metrics for Prometheus, the queue for people.

It puts together what it consists of, and listens.  On the loopback interface or a Unix
socket, unless it is told by name that others may come: there is no TLS of its own, and the
queue tells who writes to whom.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.logger import Logger

from twisted_sendmail.admin.health import Health
from twisted_sendmail.admin.history import History
from twisted_sendmail.admin.http_guard import Names, factory
from twisted_sendmail.admin.ledger import Ledger
from twisted_sendmail.admin.metrics import Metrics
from twisted_sendmail.admin.sessions import Sessions
from twisted_sendmail.admin.views import Views
from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint

    from twisted_sendmail.admin.watched import WatchedRelay
    from twisted_sendmail.queue import Queue


class AdminSite(Service):
    """The endpoint, from start to stop.

    :param reactor: provides ``IReactorTime``.
    :param spool: the queue; open while this runs.
    :param relay: what takes mail out of it.
    :param token: lets whoever knows it act on the queue; None: nobody can.
    :param name: the relay's own, to be read on the page.
    :param names: what the page goes by besides ``localhost`` and the loopback addresses.
    :param private: show the queue only to who has signed in; health and metrics stay open.
    :param public: other addresses than those of the loopback interface are meant.
    :raises InvalidInput: for a token that is too short; ``private`` without a token.
    """

    log = Logger(namespace="twisted_sendmail.daemon")

    def __init__(
        self,
        reactor: Any,
        spool: Queue,
        relay: WatchedRelay,
        *,
        token: str | None = None,
        name: str = "localhost",
        names: Iterable[str] = (),
        private: bool = False,
        public: bool = False,
    ) -> None:
        if private and token is None:
            raise InvalidInput(
                "the queue page cannot be private", detail="it has no token", remedy="give it one"
            )
        self._public = public
        self._port: IListeningPort | None = None
        self._names = Names(names)
        self.metrics = Metrics()
        self.ledger = Ledger()
        self.history = History(reactor, spool.totals)
        self._relay = relay
        self._health = Health(reactor, spool.probe, relay)
        desk = Views(
            spool,
            relay,
            Sessions(token, reactor.seconds),
            self._names,
            reactor=reactor,
            health=self._health,
            history=self.history,
            ledger=self.ledger,
            metrics=self.metrics,
            name=name,
            private=private,
        )
        #: What an endpoint listens with.
        self.factory = factory(reactor, desk.answer)

    def startService(self) -> None:
        """Begin to take samples; see ``IService``."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.history.start()

    async def listen(self, endpoint: IStreamServerEndpoint) -> IListeningPort:
        """Answer at *endpoint*.

        :raises InvalidInput: others than this machine could come, and nobody said that they may.
        :raises CannotListenError: it is taken, or forbidden.
        """
        port: IListeningPort = await endpoint.listen(self.factory)
        where = port.getHost()
        if not self._public and not local(where):
            # No connection was taken yet: that needs a turn of the reactor.
            await _closed(port)
            raise InvalidInput(
                f"the admin endpoint cannot listen on {getattr(where, 'host', where)}",
                detail="others than this machine could see who writes to whom",
                remedy="give interface=127.0.0.1, or say that it is public",
            )
        address = getattr(where, "host", None)
        if address is not None and not ip_address(address.partition("%")[0]).is_unspecified:
            self._names.add(address)
        self._port = port
        return port

    async def stopService(self) -> None:
        """See ``IService``; fires when the port is closed."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.history.stop()
        self._health.stop()
        port, self._port = self._port, None
        if port is not None:
            await _closed(port)


async def _closed(port: IListeningPort) -> None:
    closing: Deferred[None] | None = port.stopListening()
    if closing is not None:
        await closing


def local(address: IAddress) -> bool:
    """Can only this machine reach it?"""
    host: str | None = getattr(address, "host", None)
    # What has no host is a Unix socket.
    return host is None or ip_address(host.partition("%")[0]).is_loopback
