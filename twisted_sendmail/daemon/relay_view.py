"""The relay as those who watch it see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.admin.health import RouteState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from twisted_sendmail.queue import QueueActionResult, Selection
    from twisted_sendmail.relay import RelayService


class RelayView:
    """A :class:`~twisted_sendmail.admin.health.WatchedRelay`."""

    def __init__(self, reactor: IReactorTime, relay: RelayService) -> None:
        self._reactor = reactor
        self._relay = relay

    @property
    def running(self) -> bool:
        """Does it take mail out of the queue?"""
        return not self._relay.stopping

    def route_states(self) -> tuple[RouteState, ...]:
        """All ways out, in the order of the configuration."""
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
        """Try *selection*, or everything, at once, over ways out that are down too."""
        return self._relay.flush(selection)
