"""Metrics and failures that the relay's events cause."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from tests.admin.queue_contents import route
from tests.names import (
    Arrived,
    Attempted,
    AuthenticationAlarm,
    Delays,
    Interrupted,
    QueueTotals,
    RecipientState,
    RelayNode,
    Removed,
    RouteDown,
    SetAside,
    TakenOver,
    Trouble,
)
from twisted_sendmail.admin.local_mail import LocalMail
from twisted_sendmail.admin.metrics import FAILURES_KEPT, FailureKind, FailureRecord, Metrics
from twisted_sendmail.relay import RouteStats
from twisted_sendmail.smtp import TLSFacts

PAGE = Path(__file__).parent.parent.parent / "docs/reference/metrics.md"


class Watched:
    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.metrics = Metrics(self.clock.seconds)

    def samples(
        self, totals: QueueTotals | None = None, routes: tuple[RouteStats, ...] = ()
    ) -> dict[str, float]:
        """Everything that is exposed, as ``name{label=value}``."""
        text = self.metrics.exposition(totals, routes, self.clock.seconds()).decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                found[sample.name.removeprefix("twisted_sendmail_") + f"{{{labels}}}"] = (
                    sample.value
                )
        return found


@pytest.fixture
def watched() -> Watched:
    return Watched()


def attempted(status: str = "sent", **facts: Any) -> Attempted:
    given = {
        "id": "0123456789AB",
        "route": "default",
        "sender": "a@example.org",
        "recipient": "b@example.net",
        "original": None,
        "state": RecipientState.PENDING,
        "status": status,
        "dsn": "2.0.0",
        "relay": "mx[192.0.2.1]:587",
        "reply": "250 Ok",
        "delays": Delays(10.0, 0.1, 0.2, 0.4),
        "tls": TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "name", "mx.example.net"),
    }
    return Attempted(**{**given, **facts})


def test_recipients_are_counted_by_outcome(watched: Watched) -> None:
    for status in ("sent", "sent", "deferred", "bounced", "expired"):
        watched.metrics(attempted(status))
    samples = watched.samples()
    assert {
        outcome: samples[f"recipients_total{{outcome={outcome},route=default}}"]
        for outcome in ("delivered", "deferred", "bounced", "expired")
    } == {"delivered": 2, "deferred": 1, "bounced": 1, "expired": 1}
    counts = watched.metrics.counts
    assert tuple(counts[o] for o in ("delivered", "deferred", "bounced", "expired")) == (2, 1, 1, 1)


OLDER = TLSFacts("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", 128, "name", "mx.example.net")


def test_an_attempt_is_counted_once_for_all_its_recipients(watched: Watched) -> None:
    for number in range(50):
        watched.metrics(attempted(recipient=f"u{number}@example.net", in_doubt=True))
    watched.metrics(attempted(id="0123456789AC", tls=OLDER))
    watched.metrics(attempted(id="0123456789AD", tls=None))
    watched.metrics(attempted(id="0123456789AE", tls=None, relay="none"))
    samples = watched.samples()
    assert samples["attempt_seconds_count{route=default}"] == 4
    assert pytest.approx(samples["attempt_seconds_sum{route=default}"]) == 2.8
    assert tuple(
        samples[f"attempts_by_tls_total{{route=default,version={version}}}"]
        for version in ("TLSv1.3", "TLSv1.2", "none")
    ) == (1, 1, 1)
    assert samples["possible_duplicates_total{}"] == 1


def test_accepted_messages_and_failures_are_counted(watched: Watched) -> None:
    watched.metrics(Arrived("0123456789AB", "a@example.org", 10, 1, "default"))
    watched.metrics(Interrupted(("A", "B", "C")))
    watched.metrics(AuthenticationAlarm("default", "smtps://mx:465", "535 no"))
    watched.metrics(Removed("0123456789AB"))
    samples = watched.samples()
    assert (
        samples["messages_taken_in_total{}"],
        samples["possible_duplicates_total{}"],
        samples["auth_refusals_total{route=default}"],
    ) == (1, 3, 1)


def test_the_last_failures_are_kept_latest_first(watched: Watched) -> None:
    watched.metrics(attempted("sent"))
    watched.metrics(attempted("bounced", reply="550 5.1.1 no"))
    watched.metrics(attempted("expired", recipient="c@example.net", reply="timed out"))
    watched.metrics(AuthenticationAlarm("default", "smtps://mx:465", "535 no"))
    watched.metrics(RouteDown("default", "no answer", 4.0))
    watched.metrics(SetAside("0123456789AB", "nobody to tell"))
    watched.metrics(Trouble("mail cannot be taken out", "disk"))
    watched.metrics(Interrupted(("A",)))
    watched.metrics(attempted("deferred", id="0123456789AC", in_doubt=True))
    assert [(f.kind, f.id, f.recipient) for f in watched.metrics.failures] == [
        (FailureKind.DUPLICATE, "0123456789AC", None),
        (FailureKind.DUPLICATE, "A", None),
        (FailureKind.TROUBLE, None, None),
        (FailureKind.SET_ASIDE, "0123456789AB", None),
        (FailureKind.ROUTE_DOWN, None, None),
        (FailureKind.AUTH_REFUSED, None, None),
        (FailureKind.EXPIRED, "0123456789AB", "c@example.net"),
        (FailureKind.BOUNCED, "0123456789AB", "b@example.net"),
    ]


def test_a_route_that_stays_down_does_not_displace_other_failures(watched: Watched) -> None:
    watched.metrics(attempted("bounced"))
    for _ in range(1000):
        watched.clock.advance(900)
        watched.metrics(RouteDown("default", "no answer", 900.0))
    assert [(f.kind, f.at) for f in watched.metrics.failures] == [
        (FailureKind.ROUTE_DOWN, 901_000.0),
        (FailureKind.BOUNCED, 1000.0),
    ]


def test_the_failures_are_bounded_in_number_and_length() -> None:
    metrics = Metrics(Clock().seconds)
    for number in range(500):
        metrics.add_failure(FailureRecord(number, FailureKind.BOUNCED, "x" * 10_000, str(number)))
    assert len(metrics.failures) == FAILURES_KEPT
    assert max(len(f.text) for f in metrics.failures) < 400


def test_gauges_have_the_present_state_of_the_queue(watched: Watched) -> None:
    totals = QueueTotals({"deferred": 7, "hold": 2}, {"4.4.1": 5, "4.2.2": 3, "": 1}, 400.0, 12_345)
    routes = (
        route("default", under_way=4),
        route("bulk", wait=2000.0),
        route("other", wait=2000.0, locked=True),
    )
    samples = watched.samples(totals, routes)
    expected = {
        "queue_readable{}": 1,
        "queue_messages{queue=deferred}": 7,
        "queue_messages{queue=hold}": 2,
        "queue_messages{queue=incoming}": 0,
        "queue_messages{queue=active}": 0,
        "queue_messages{queue=undeliverable}": 0,
        "queue_messages{queue=corrupt}": 0,
        "queue_content_bytes{}": 12_345,
        "queue_oldest_age_seconds{}": 600,
        "queue_deferred_recipients{status=4.4.1}": 5,
        "queue_deferred_recipients{status=4.2.2}": 3,
        "queue_deferred_recipients{status=none}": 1,
        "route_up{route=default}": 1,
        "route_up{route=bulk}": 0,
        "route_up{route=other}": 0,
        "route_auth_ok{route=default}": 1,
        "route_auth_ok{route=bulk}": 1,
        "route_auth_ok{route=other}": 0,
        "route_under_way{route=default}": 4,
        "route_under_way{route=bulk}": 0,
        "route_under_way{route=other}": 0,
    }
    shown = {k: v for k, v in samples.items() if k.startswith(("queue_", "route_"))}
    assert shown == expected


def test_the_relays_of_a_shared_queue_are_counted(watched: Watched) -> None:
    relays = (RelayNode("east", 1.0, 5), RelayNode("west", 1.0, alive=False))
    text = watched.metrics.exposition(None, (), 2.0, None, relays).decode()
    assert 'twisted_sendmail_relay_leased{relay="east"} 5.0' in text
    assert 'twisted_sendmail_relay_alive{relay="west"} 0.0' in text


def test_a_lost_lease_is_counted_and_a_possible_duplicate_named(watched: Watched) -> None:
    watched.metrics(TakenOver("0123456789AB", "default", in_doubt=True))
    watched.metrics(TakenOver("0123456789AC", "default", in_doubt=False))
    samples = watched.samples()
    assert samples["leases_lost_total{route=default}"] == 2
    # The other relay counts it.
    assert samples["possible_duplicates_total{}"] == 0
    assert [failure.id for failure in watched.metrics.failures] == ["0123456789AB"]


def test_a_queue_that_cannot_be_read_has_no_other_metrics(watched: Watched) -> None:
    samples = watched.samples(None)
    assert {k: v for k, v in samples.items() if k.startswith("queue_")} == {"queue_readable{}": 0}


def test_invented_status_codes_make_no_new_series(watched: Watched) -> None:
    made_up = {f"4.{n}.{m}": 1 for n in range(40) for m in range(40)}
    totals = QueueTotals({}, {"4.99.1": 9, 'x"}\n evil 1': 2, **made_up}, None)
    series = {k: v for k, v in watched.samples(totals).items() if k.startswith("queue_deferred")}
    assert len(series) == 41
    assert series["queue_deferred_recipients{status=4.99.1}"] == 9
    assert sum(series.values()) == 9 + 2 + 1600
    assert "queue_deferred_recipients{status=other}" in series


def test_registries_are_separate() -> None:
    first, second = Watched(), Watched()
    first.metrics(Arrived("0123456789AB", "a@example.org", 10, 1, "default"))
    assert second.samples()["messages_taken_in_total{}"] == 0


def test_the_reference_page_lists_each_metric_with_its_labels() -> None:
    """`docs/reference/metrics.md` against the registry."""
    watched = Watched()
    watched.metrics(attempted("sent"))
    watched.metrics(AuthenticationAlarm("default", "smtps://mx:465", "535 no"))
    watched.metrics(TakenOver("0123456789AB", "default", in_doubt=True))
    totals = QueueTotals({"deferred": 1}, {"4.4.1": 1}, 1.0)
    local = LocalMail(2, 30.0, 900, stuck=1)
    relays = (RelayNode("east", 1.0),)
    text = watched.metrics.exposition(totals, (route("default"),), 2.0, local, relays).decode()
    exposed: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        exposed[name] = f"{family.type}; {', '.join(sorted(labels)) or '–'}"
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    listed = {
        name: f"{kind}; {', '.join(sorted(re.findall(r'`(.*?)`', labels))) or '–'}"
        for name, kind, labels in rows
    }
    assert exposed == listed
