"""What the admin endpoint needs to know of the relay: a value for each way out, and who tells.

An interface, so that metrics, health and page can be tried without a relay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from twisted_sendmail.queue import QueueActionResult, Selection


@dataclass(frozen=True)
class RouteState:
    """How it stands with one way out."""

    name: str
    #: ``name:port`` of its servers, best first.
    servers: tuple[str, ...]
    #: Not tried before, because it was down; None: it is up.
    until: float | None = None
    #: The next hop refused our password.
    auth_refused: bool = False
    #: Why it is down: what others said.
    reason: str | None = None
    #: Messages being tried now.
    under_way: int = 0

    @property
    def up(self) -> bool:
        """Is mail let out?"""
        return self.until is None and not self.auth_refused


class WatchedRelay(Protocol):
    """The part of the relay that is watched."""

    @property
    def running(self) -> bool:
        """Does it take mail out of the queue?"""
        ...

    def route_states(self) -> tuple[RouteState, ...]:
        """All ways out."""
        ...

    def flush(self, selection: Selection | None = None) -> Deferred[Sequence[QueueActionResult]]:
        """Try what waits now, over ways out that are down too.

        :raises SendmailError: it cannot be had just now.
        """
        ...
