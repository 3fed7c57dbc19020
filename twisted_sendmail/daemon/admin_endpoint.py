"""The endpoint for operators: health, metrics and the queue page of the running relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.admin.health import RouteState
from twisted_sendmail.admin.site import AdminSite
from twisted_sendmail.daemon.listeners import listen
from twisted_sendmail.relay import Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.queue import QueueActionResult, Selection
    from twisted_sendmail.relay import Observer, RelayService


class AdminEndpoint:
    """The admin site of *relay*, if the configuration wants one."""

    def __init__(self, reactor: Any, relay: RelayService) -> None:
        self._reactor = reactor
        self._relay = relay
        self._settings: object = None
        self._site: AdminSite | None = None
        self._observer: Observer | None = None

    async def apply(self, configuration: Configuration) -> None:
        """Have the site that *configuration* describes. An unchanged one keeps its history.

        :raises SendmailError: the site cannot listen; then there is none.
        """
        settings = (configuration.admin, configuration.admin_token, configuration.name)
        if settings == self._settings:
            return
        await self.close()
        admin, token = configuration.admin, configuration.admin_token
        if admin is None or admin.endpoint is None:
            return
        site = AdminSite(
            self._reactor,
            self._relay.queue,
            ObservedRelay(self._reactor, self._relay),
            token=None if token is None else token.reveal(),
            name=configuration.name,
            names=admin.names,
            private=admin.private,
            public=admin.public,
        )
        _ = await listen(self._reactor, admin.endpoint, site.listen)
        site.startService()
        observer = self._observer = site.metrics
        # The relay emitted this event before there was an observer.
        recovered = await self._relay.ready()
        if recovered.interrupted:
            observer(Interrupted(recovered.interrupted))
        self._relay.observers.append(observer)
        self._site, self._settings = site, settings

    async def close(self) -> None:
        """Close the site."""
        self._settings = None
        observer, self._observer = self._observer, None
        if observer is not None:
            self._relay.observers.remove(observer)
        site, self._site = self._site, None
        if site is not None:
            await site.stopService()


class ObservedRelay:
    """A :class:`~twisted_sendmail.admin.health.WatchedRelay`."""

    def __init__(self, reactor: IReactorTime, relay: RelayService) -> None:
        self._reactor = reactor
        self._relay = relay

    @property
    def running(self) -> bool:
        """True while the relay takes mail out of the queue."""
        return not self._relay.stopping

    def route_states(self) -> tuple[RouteState, ...]:
        """Return the state of all routes, in the order of the configuration."""
        now = self._reactor.seconds()
        servers = {
            route.name: tuple(f"{server.host}:{server.port}" for server in route.servers)
            for route in self._relay.settings.routes
        }
        return tuple(
            RouteState(
                name=route.name,
                servers=servers.get(route.name, ()),
                until=None if route.up else now + route.wait,
                auth_refused=route.locked,
                reason=route.reason,
                under_way=route.under_way,
            )
            for route in self._relay.stats().routes
        )

    def flush(self, selection: Selection | None = None) -> Deferred[Sequence[QueueActionResult]]:
        """Try *selection*, or everything, at once, by routes that are down too."""
        return self._relay.flush(selection)
