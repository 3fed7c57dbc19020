"""Tells metrics and ledger what the relay's events mean for them; an observer of the relay.

The relay tells of each recipient by himself.  What belongs to a try as a whole (its
length, its TLS) is counted with the first of them.
"""

from __future__ import annotations

from functools import singledispatchmethod
from typing import TYPE_CHECKING

from twisted_sendmail.admin.ledger import Failed, Kind
from twisted_sendmail.relay import (
    Arrived,
    Attempted,
    AuthenticationAlarm,
    Event,
    Interrupted,
    RouteDown,
    SetAside,
    Trouble,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.admin.ledger import Ledger
    from twisted_sendmail.admin.metrics import Metrics

_OUTCOMES = {"sent": "delivered"}
_FAILURES = {"bounced": Kind.BOUNCED, "expired": Kind.EXPIRED}


class Watching:
    """See the module.

    :param now: gives seconds since 1970.
    """

    def __init__(self, metrics: Metrics, ledger: Ledger, now: Callable[[], float]) -> None:
        self._metrics = metrics
        self._ledger = ledger
        self._now = now
        self._last: tuple[str, object] | None = None

    def __call__(self, event: Event) -> None:
        """Take one in."""
        self._take(event)

    @singledispatchmethod
    def _take(self, event: Event) -> None:
        """What is not below concerns neither."""

    @_take.register
    def _(self, event: Arrived) -> None:
        self._metrics.taken_in.inc()

    @_take.register
    def _(self, event: Attempted) -> None:
        outcome = _OUTCOMES.get(event.status, event.status)
        self._metrics.recipients.labels(event.route, outcome).inc()
        setattr(self._ledger.counts, outcome, getattr(self._ledger.counts, outcome) + 1)
        if event.status in _FAILURES:
            self._failed(
                _FAILURES[event.status], event.reply, event.id, event.recipient, event.relay
            )
        if (event.id, event.delays) == self._last:
            return
        self._last = (event.id, event.delays)
        delays = event.delays
        seconds = delays.preparing + delays.connecting + delays.sending
        self._metrics.attempts.labels(event.route).observe(seconds)
        if event.relay != "none":
            self._metrics.tls.labels(event.route, event.tls or "none").inc()
        if event.in_doubt:
            self._metrics.duplicates.inc()
            said = "the connection was lost behind the final dot; it is sent again"
            self._failed(Kind.DUPLICATE, said, event.id, where=event.relay)

    @_take.register
    def _(self, event: Interrupted) -> None:
        self._metrics.duplicates.inc(len(event.ids))
        said = "the relay ended while it was on its way; it is sent again"
        for name in event.ids[-10:]:
            self._failed(Kind.DUPLICATE, said, name)

    @_take.register
    def _(self, event: AuthenticationAlarm) -> None:
        self._metrics.auth_refusals.labels(event.route).inc()
        self._failed(Kind.AUTH_REFUSED, event.reason, where=f"{event.route}, {event.server}")

    @_take.register
    def _(self, event: RouteDown) -> None:
        self._failed(Kind.ROUTE_DOWN, event.reason, where=event.route)

    @_take.register
    def _(self, event: SetAside) -> None:
        self._failed(Kind.SET_ASIDE, event.why, event.id)

    @_take.register
    def _(self, event: Trouble) -> None:
        self._failed(Kind.TROUBLE, f"{event.what}: {event.reason}")

    def _failed(
        self,
        kind: Kind,
        said: str,
        id: str | None = None,  # noqa: A002 - that is its name
        recipient: str | None = None,
        where: str | None = None,
    ) -> None:
        self._ledger.failed(Failed(self._now(), kind, said, id, recipient, where))
