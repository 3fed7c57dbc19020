"""Metrics of a relay for Prometheus, and its last failures for the queue page.

An observer of the relay's events counts; gauges are read when the metrics are asked for. The
registry is separate from an application's own. Text of other servers becomes a label only where
the number of labels is bounded: a server could invent a million enhanced status codes.

``docs/reference/metrics.md`` lists the names; a test compares.
"""

from __future__ import annotations

import enum
import platform
import re
from collections import Counter, deque
from functools import singledispatchmethod
from importlib.metadata import version
from typing import TYPE_CHECKING

import prometheus_client as prometheus
from attrs import field, frozen
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from twisted_sendmail.admin.history import oldest_age
from twisted_sendmail.relay import (
    Arrived,
    Attempted,
    AuthenticationAlarm,
    Event,
    Interrupted,
    RouteDown,
    SetAside,
    TakenOver,
    Trouble,
)
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from twisted_sendmail.admin.local_mail import LocalMail
    from twisted_sendmail.queue import QueueTotals, RelayNode
    from twisted_sendmail.relay import RouteStats

#: Failures that are kept.
FAILURES_KEPT = 100
#: Status codes with a label of their own.
MAX_STATUS_LABELS = 40
#: Upper bounds of the histogram of attempts, in seconds.
ATTEMPT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z", re.ASCII)
_QUEUES = ("incoming", "active", "deferred", "hold", "undeliverable", "corrupt")


class FailureKind(enum.Enum):
    """The kinds of failures, as the queue page names them."""

    BOUNCED = "Bounced"
    EXPIRED = "Expired"
    AUTH_REFUSED = "Password refused"
    ROUTE_DOWN = "Route down"
    DUPLICATE = "Possible duplicate"
    SET_ASIDE = "Set aside"
    TROUBLE = "Trouble"


_FAILED_OUTCOMES = {"bounced": FailureKind.BOUNCED, "expired": FailureKind.EXPIRED}


def _one_line(text: str) -> str:
    return printable(text, 300)


@frozen
class FailureRecord:
    """One failure."""

    at: float
    kind: FailureKind
    #: The reply or error in one line.
    text: str = field(converter=_one_line)
    #: The message concerned, if it is one.
    id: str | None = None
    recipient: str | None = None
    #: The server or route concerned.
    place: str | None = None


class Metrics:
    """Counts the events of a relay; call it with each event.

    :param now: returns seconds since 1970.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: Recipients since the start by outcome: delivered, deferred (once an attempt), bounced, expired.
        self.counts: Counter[str] = Counter()
        self._failures: deque[FailureRecord] = deque(maxlen=FAILURES_KEPT)
        self._last_attempt: tuple[str, object] | None = None
        self._registry = registry = prometheus.CollectorRegistry()
        self._gauges = _Gauges()
        registry.register(self._gauges)
        self._accepted = prometheus.Counter(
            "twisted_sendmail_messages_taken_in",
            "Messages that were committed to the queue.",
            registry=registry,
        )
        self._recipients = prometheus.Counter(
            "twisted_sendmail_recipients",
            "Recipients by outcome: delivered, deferred (once an attempt), bounced, expired.",
            ["route", "outcome"],
            registry=registry,
        )
        self._attempts = prometheus.Histogram(
            "twisted_sendmail_attempt_seconds",
            "Duration of an attempt, from the lease of the message to the result.",
            ["route"],
            buckets=ATTEMPT_BUCKETS,
            registry=registry,
        )
        self._tls = prometheus.Counter(
            "twisted_sendmail_attempts_by_tls",
            "Attempts that reached a server, by version of TLS; none is clear text.",
            ["route", "version"],
            registry=registry,
        )
        self._duplicates = prometheus.Counter(
            "twisted_sendmail_possible_duplicates",
            "Messages that may be delivered twice: an attempt ended between the final dot and its reply.",
            registry=registry,
        )
        self._leases_lost = prometheus.Counter(
            "twisted_sendmail_leases_lost",
            "Messages that another relay took over during an attempt of this one.",
            ["route"],
            registry=registry,
        )
        self._auth_refusals = prometheus.Counter(
            "twisted_sendmail_auth_refusals",
            "Times that a next hop refused our password.",
            ["route"],
            registry=registry,
        )

    def exposition(
        self,
        totals: QueueTotals | None,
        routes: Iterable[RouteStats],
        now: float,
        local: LocalMail | None = None,
        relays: Iterable[RelayNode] = (),
    ) -> bytes:
        """Return all metrics in the text format of Prometheus.

        :param totals: None: the queue could not be counted.
        :param local: None: the drop directory was not read yet, or there is none.
        :param relays: those that share the queue.
        """
        self._gauges.set(totals, routes, now, local, relays)
        return prometheus.generate_latest(self._registry)

    @property
    def failures(self) -> tuple[FailureRecord, ...]:
        """The last failures, the latest first."""
        return tuple(reversed(self._failures))

    def add_failure(self, failure: FailureRecord) -> None:
        """Keep a failure.

        One that concerns no message replaces its equal, so that a route that is down for a night
        does not displace all others.
        """
        if failure.id is None:
            for kept in self._failures:
                if (kept.kind, kept.place, kept.text) == (
                    failure.kind,
                    failure.place,
                    failure.text,
                ):
                    self._failures.remove(kept)
                    break
        self._failures.append(failure)

    def __call__(self, event: Event) -> None:
        """Count an event of the relay."""
        self._count(event)

    @singledispatchmethod
    def _count(self, event: Event) -> None:
        """Ignore events without a method below."""

    @_count.register
    def _(self, event: Arrived) -> None:
        self._accepted.inc()

    @_count.register
    def _(self, event: Attempted) -> None:
        outcome = "delivered" if event.status == "sent" else event.status
        self._recipients.labels(event.route, outcome).inc()
        self.counts[outcome] += 1
        if outcome in _FAILED_OUTCOMES:
            kind = _FAILED_OUTCOMES[outcome]
            self._fail(kind, event.reply, event.id, event.recipient, event.relay)
        # There is one event for each recipient; the rest is counted once for each attempt.
        if (event.id, event.delays) == self._last_attempt:
            return
        self._last_attempt = (event.id, event.delays)
        delays = event.delays
        seconds = delays.preparing + delays.connecting + delays.sending
        self._attempts.labels(event.route).observe(seconds)
        if event.relay != "none":
            self._tls.labels(event.route, event.tls.version if event.tls else "none").inc()
        if event.in_doubt:
            self._duplicates.inc()
            text = "connection lost after the final dot and before the reply; it is sent again"
            self._fail(FailureKind.DUPLICATE, text, event.id, place=event.relay)

    @_count.register
    def _(self, event: Interrupted) -> None:
        self._duplicates.inc(len(event.ids))
        for id_ in event.ids[-10:]:
            relay = f"relay {event.relay}" if event.relay else "the relay"
            text = f"{relay} ended during an attempt; it is sent again"
            self._fail(FailureKind.DUPLICATE, text, id_)

    @_count.register
    def _(self, event: TakenOver) -> None:
        # The relay that took it over counts the possible duplicate.
        self._leases_lost.labels(event.route).inc()
        if event.in_doubt:
            text = "another relay took it over during the attempt, and sends it again"
            self._fail(FailureKind.DUPLICATE, text, event.id, place=event.route)

    @_count.register
    def _(self, event: AuthenticationAlarm) -> None:
        self._auth_refusals.labels(event.route).inc()
        place = f"{event.route}, {event.server}"
        self._fail(FailureKind.AUTH_REFUSED, event.reason, place=place)

    @_count.register
    def _(self, event: RouteDown) -> None:
        self._fail(FailureKind.ROUTE_DOWN, event.reason, place=event.route)

    @_count.register
    def _(self, event: SetAside) -> None:
        self._fail(FailureKind.SET_ASIDE, event.why, event.id)

    @_count.register
    def _(self, event: Trouble) -> None:
        self._fail(FailureKind.TROUBLE, f"{event.what}: {event.reason}")

    def _fail(
        self,
        kind: FailureKind,
        text: str,
        id_: str | None = None,
        recipient: str | None = None,
        place: str | None = None,
    ) -> None:
        self.add_failure(FailureRecord(self._now(), kind, text, id_, recipient, place))


class _Gauges(Collector):
    """The gauges, with the values of the last call of ``set``."""

    def __init__(self) -> None:
        self.set(None, (), 0.0, None, ())

    def set(
        self,
        totals: QueueTotals | None,
        routes: Iterable[RouteStats],
        now: float,
        local: LocalMail | None,
        relays: Iterable[RelayNode],
    ) -> None:
        self._totals, self._route_states, self._now = totals, tuple(routes), now
        self._local, self._relays = local, tuple(relays)

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        info = _gauge(
            "info", "Always 1; the versions are its labels.", "version", "twisted", "python"
        )
        versions = [version("twisted_sendmail"), version("twisted"), platform.python_version()]
        info.add_metric(versions, 1)
        yield info
        readable = _gauge(
            "queue_readable",
            "1 if the queue could be counted; 0 if not, and the other metrics of the queue are absent.",
        )
        readable.add_metric([], int(self._totals is not None))
        yield readable
        if self._totals is not None:
            yield from self._queue(self._totals)
        if self._local is not None:
            yield from _drop_directory(self._local)
        yield from self._routes()
        if self._relays:
            yield from _shared_queue(self._relays)

    def _queue(self, totals: QueueTotals) -> Iterator[Metric]:
        messages = _gauge("queue_messages", "Messages, by queue.", "queue")
        for name in _QUEUES:
            messages.add_metric([name], totals.queues.get(name, 0))
        yield messages
        octets = _gauge("queue_content_bytes", "Octets of content in the queue.")
        octets.add_metric([], totals.octets)
        yield octets
        oldest = _gauge(
            "queue_oldest_age_seconds",
            "Age of the oldest message that is not set aside; 0 for none.",
        )
        oldest.add_metric([], oldest_age(totals, self._now))
        yield oldest
        deferred = _gauge(
            "queue_deferred_recipients",
            "Deferred recipients, by the enhanced status code of their last attempt.",
            "status",
        )
        counted: Counter[str] = Counter()
        for status, number in sorted(totals.deferred.items(), key=lambda item: -item[1]):
            label = (status if _STATUS.match(status) else "other") if status else "none"
            if label not in counted and len(counted.keys() - {"other"}) >= MAX_STATUS_LABELS:
                label = "other"
            counted[label] += number
        for label, number in counted.items():
            deferred.add_metric([label], number)
        yield deferred

    def _routes(self) -> Iterator[Metric]:
        up = _gauge("route_up", "1 if mail is delivered over the route; 0 if it is down.", "route")
        auth = _gauge("route_auth_ok", "0 if the next hop refused our password.", "route")
        under_way = _gauge("route_under_way", "Messages being delivered.", "route")
        for route in self._route_states:
            up.add_metric([route.name], int(route.up and not route.locked))
            auth.add_metric([route.name], int(not route.locked))
            under_way.add_metric([route.name], route.under_way)
        yield from (up, auth, under_way)


def _shared_queue(relays: Iterable[RelayNode]) -> Iterator[Metric]:
    alive = _gauge("relay_alive", "1 if the relay renewed its leases in time.", "relay")
    leased = _gauge("relay_leased", "Messages that the relay has leased.", "relay")
    for relay in relays:
        name = printable(relay.name, 100)
        alive.add_metric([name], int(relay.alive))
        leased.add_metric([name], relay.leased)
    yield from (alive, leased)


def _drop_directory(local: LocalMail) -> Iterator[Metric]:
    for name, documentation, value in (
        ("messages", "Messages of local programs that are not in the queue yet.", local.messages),
        ("bytes", "Octets of their files.", local.octets),
        ("oldest_age_seconds", "Age of the oldest of them; 0 for none.", local.oldest),
        ("stuck_files", "Files that were taken and cannot be removed.", local.stuck),
    ):
        gauge = _gauge(f"drop_{name}", documentation)
        gauge.add_metric([], value)
        yield gauge


def _gauge(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"twisted_sendmail_{name}", documentation, labels=labels)
