"""Which way out a sender's mail takes: the address goes before its domain, and that before all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.relay.settings import EVERYBODY, NOBODY, key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.relay.settings import RouteSettings
    from twisted_sendmail.smtp import ReversePath


class Routing:
    """The patterns of all *routes*, one of which is ``"*"``."""

    def __init__(self, routes: Iterable[RouteSettings]) -> None:
        self._routes = {pattern: route.name for route in routes for pattern in route.senders}

    @property
    def everybody(self) -> str:
        """The route of those whom no other pattern fits."""
        return self._routes[EVERYBODY]

    def of(self, sender: ReversePath) -> str:
        """The name of the route for *sender*."""
        routes = self._routes
        if len(routes) == 1:
            return routes[EVERYBODY]
        box = sender.mailbox
        if box is None:
            found = routes.get(NOBODY)
        else:
            found = routes.get(key(box)) or routes.get(f"@{box.ascii_domain.lower()}")
        return found or routes[EVERYBODY]

    def of_report(self, sender: ReversePath) -> str:
        """The route for a report to *sender*: the null reverse-path's, or else his own.

        His own provider knows the address; another may refuse to relay to it.
        """
        return self._routes.get(NOBODY) or self.of(sender)
