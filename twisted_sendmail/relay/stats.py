"""How a relay is doing just now: values, for a page or a metric.

The queue itself is counted by ``Spool.totals``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_sendmail.client import MailerStats
    from twisted_sendmail.relay.transport import Transport


@dataclass(frozen=True)
class RouteStats:
    """How one way out is doing."""

    name: str
    #: Mail gets through, as far as is known.
    up: bool
    #: Why not; None while it does.
    reason: str | None
    #: Seconds until it is asked again; 0 while it is up.
    wait: float
    #: A password was refused, and none accepted since.
    locked: bool
    #: Messages on their way.
    under_way: int
    #: How many may be.
    allowance: int
    mailer: MailerStats

    @classmethod
    def of(cls, route: Transport, now: float) -> RouteStats:
        """Those of *route*."""
        return cls(
            name=route.name,
            up=route.up,
            reason=route.reason,
            wait=route.back_off.left(now),
            locked=route.locked,
            under_way=route.under_way,
            allowance=route.allowance(now),
            mailer=route.mailer.stats(),
        )


@dataclass(frozen=True)
class RelayStats:
    """How the relay is doing."""

    routes: tuple[RouteStats, ...]
    #: Messages on their way.
    under_way: int
