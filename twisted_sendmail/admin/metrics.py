"""What Prometheus is told: counters of what happened, gauges of how it stands.

A registry of its own, so that an application that has one keeps it to itself.  Gauges
are read when they are asked for; counters begin at zero with the process.  What others
say becomes a label only where its kinds are few: enhanced status codes beyond some dozen
are counted together, for a server could make up a million of them.

Names are the registry's; ``docs/reference/metrics.md`` lists them, and a test compares.
"""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from twisted_sendmail.admin.history import age

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from twisted_sendmail.admin.watched import RouteState
    from twisted_sendmail.queue import QueueTotals

#: Status codes that have a label of their own at once.
STATUSES = 40
#: Seconds of an attempt, from taking it up to its verdict.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z", re.ASCII)
_QUEUES = ("incoming", "active", "deferred", "hold", "corrupt")


class _Standing(Collector):
    """The gauges: how it stood when somebody looked last."""

    def __init__(self) -> None:
        self._totals: QueueTotals | None = None
        self._now = 0.0
        self._routes: tuple[RouteState, ...] = ()

    def note(self, totals: QueueTotals | None, routes: Iterable[RouteState], now: float) -> None:
        """Take what *generate_latest* is to tell.

        :param totals: None: the queue could not be read.
        """
        self._totals, self._routes, self._now = totals, tuple(routes), now

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        info = GaugeMetricFamily(
            "twisted_sendmail_info",
            "Always 1; the versions are its labels.",
            labels=["version", "twisted", "python"],
        )
        versions = [version("twisted_sendmail"), version("twisted"), platform.python_version()]
        info.add_metric(versions, 1)
        yield info
        yield GaugeMetricFamily(
            "twisted_sendmail_queue_readable",
            "1 if the queue could be counted for this answer; 0, and what follows of it is absent.",
            0 if self._totals is None else 1,
        )
        if self._totals is not None:
            yield from _queue(self._totals, self._now)
        yield from _routes(self._routes)


def _queue(totals: QueueTotals, now: float) -> Iterator[Metric]:
    messages = GaugeMetricFamily(
        "twisted_sendmail_queue_messages", "Messages, by queue.", labels=["queue"]
    )
    for name in _QUEUES:
        messages.add_metric([name], totals.queues.get(name, 0))
    yield messages
    yield GaugeMetricFamily(
        "twisted_sendmail_queue_content_bytes", "Octets of content in the queue.", totals.octets
    )
    yield GaugeMetricFamily(
        "twisted_sendmail_queue_oldest_age_seconds",
        "Since the oldest message that is not set aside arrived; 0 for none.",
        age(totals, now),
    )
    deferred = GaugeMetricFamily(
        "twisted_sendmail_queue_deferred_recipients",
        "Recipients that were tried and wait, by the enhanced status of their last try.",
        labels=["status"],
    )
    counted: dict[str, int] = {}
    for status, number in sorted(totals.deferred.items(), key=lambda item: -item[1]):
        label = (status if _STATUS.match(status) else "other") if status else "none"
        if label not in counted and len(counted.keys() - {"other"}) >= STATUSES:
            label = "other"
        counted[label] = counted.get(label, 0) + number
    for label, number in counted.items():
        deferred.add_metric([label], number)
    yield deferred


def _routes(routes: Iterable[RouteState]) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "twisted_sendmail_route_up",
        "1: mail is let out; 0: it is down, and backs off.",
        labels=["route"],
    )
    auth = GaugeMetricFamily(
        "twisted_sendmail_route_auth_ok", "0: the next hop refused our password.", labels=["route"]
    )
    under_way = GaugeMetricFamily(
        "twisted_sendmail_route_under_way", "Messages being tried.", labels=["route"]
    )
    for route in routes:
        up.add_metric([route.name], int(route.up))
        auth.add_metric([route.name], int(not route.auth_refused))
        under_way.add_metric([route.name], route.under_way)
    yield from (up, auth, under_way)


class Metrics:
    """The registry, and what counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._standing = _Standing()
        self.registry.register(self._standing)
        self.taken_in = Counter(
            "twisted_sendmail_messages_taken_in",
            "Messages that were made durable.",
            registry=self.registry,
        )
        self.recipients = Counter(
            "twisted_sendmail_recipients",
            "Verdicts, by outcome: delivered, deferred (once a try), bounced, expired.",
            ["route", "outcome"],
            registry=self.registry,
        )
        self.attempts = Histogram(
            "twisted_sendmail_attempt_seconds",
            "From taking a message up to the verdict of the try.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.tls = Counter(
            "twisted_sendmail_attempts_by_tls",
            "Tries that reached a server, by version of TLS; none is in clear.",
            ["route", "version"],
            registry=self.registry,
        )
        self.duplicates = Counter(
            "twisted_sendmail_possible_duplicates",
            "Messages of which a second copy may exist: a try ended between the final dot and its reply.",
            registry=self.registry,
        )
        self.auth_refusals = Counter(
            "twisted_sendmail_auth_refusals",
            "Times that a next hop refused our password.",
            ["route"],
            registry=self.registry,
        )

    def exposition(
        self, totals: QueueTotals | None, routes: Iterable[RouteState], now: float
    ) -> bytes:
        """Everything, in the text format of Prometheus."""
        self._standing.note(totals, routes, now)
        return generate_latest(self.registry)
