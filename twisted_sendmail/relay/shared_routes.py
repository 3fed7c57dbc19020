"""The routes of relays that share a queue: each records the state it finds, and follows the others.

A relay that finds a route down records it in the queue, with the time of its next attempt; the
others wait as well, and only that relay makes the attempt.  The record is removed by the relay that
finds the route up, and then all use it again.  The limits of a route are divided by the number of
relays.

Results of different relays cross on their way, so a relay ignores the state of a route while a
record of its own is not written, and follows each record once: an operator's flush ends a wait that
was adopted, and the same record does not begin it again.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from twisted_sendmail.queue import ClusterState
from twisted_sendmail.relay.events import RelaysChanged, trouble

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.queue import DownRoute, Queue
    from twisted_sendmail.relay.events import Observer
    from twisted_sendmail.relay.route import Route


class SharedRoutes:
    """Records the state of routes, and follows what other relays record.

    :param notify: called with each event.
    """

    def __init__(self, queue: Queue, *, notify: Observer) -> None:
        self._queue = queue
        self._notify = notify
        #: The relays that share the queue, as far as is known.
        self.state = ClusterState()
        # Records that are being written, by route.
        self._writing: Counter[str] = Counter()
        # The number of the record of each route that was followed last.
        self._followed: dict[str, int] = {}

    def record(self, name: str, down: DownRoute | None) -> None:
        """Record that route *name* is down, or up (None)."""
        self._writing[name] += 1

        def written(_: object) -> None:
            self._writing[name] -= 1

        recording = self._queue.record_route(name, down)
        _ = recording.addErrback(
            lambda failure: self._notify(
                trouble(f"the state of route {name} cannot be recorded", failure)
            )
        )
        _ = recording.addBoth(written)

    def changed(self, state: ClusterState, routes: Iterable[Route]) -> None:
        """Follow *state* with *routes*."""
        before, self.state = self.state, state
        if _names(before) != _names(state):
            self._notify(RelaysChanged(_names(state)))
        for route in routes:
            self._follow(route)

    def share(self, route: Route) -> None:
        """Give *route* this relay's part of its limits."""
        route.share(self.state.alive)

    def _follow(self, route: Route) -> None:
        self.share(route)
        name = route.name
        if self._writing[name]:
            return
        down = self.state.down.get(name)
        if down is None:
            # A failure whose record was never written is not the other relays' to end.
            if self._followed.pop(name, None) is not None:
                route.found_up()
        elif self._followed.get(name) != down.number:
            self._followed[name] = down.number
            route.adopt(down)


def _names(state: ClusterState) -> tuple[str, ...]:
    return tuple(sorted(node.name for node in state.nodes if node.alive))
