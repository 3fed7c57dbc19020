"""A mailer and a real Postfix: many messages over four connections."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail import Envelope, Mailer, PoolLimits, RecipientStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.postfix import Postfix
    from twisted_sendmail import DeliveryReport

ACCEPTED, REFUSED = RecipientStatus.ACCEPTED, RecipientStatus.REFUSED


def sender(n: int) -> str:
    """Each message has its own, as in a mailing list that tells bounces apart."""
    return f"{'banned' if n % 50 == 41 else 'bounce'}{n}@example.test"


def recipients(n: int) -> list[str]:
    if n % 10 == 3:
        return [f"gone{n}@example.test"]
    if n % 10 == 5:
        return [f"later{n}@example.test", f"r{n}@example.test", f"gone{n}@example.test"]
    return [f"r{n}@example.test"]


def content(n: int) -> bytes:
    refuse = "X-Refuse: yes\r\n" if n % 20 == 7 else ""
    head = f"From: alice@example.test\r\nTo: r@example.test\r\n{refuse}Subject: number {n}\r\n\r\n"
    return head.encode() + b".dot\r\n" + b"x" * (n % 70) + b"\r\n"


def messages(count: int) -> Iterator[tuple[Envelope, bytes]]:
    for n in range(count):
        yield Envelope(sender(n), recipients(n)), content(n)


def expected(n: int) -> list[RecipientStatus]:
    if n % 50 == 41 or n % 20 == 7:
        return [REFUSED] * len(recipients(n))
    return [ACCEPTED if to.startswith("r") else REFUSED for to in recipients(n)]


async def connections(reactor: Any, postfix: Postfix, service: str, since: int) -> int:
    """How many logged in, once all are gone; others may just have looked whether it answers."""
    await postfix.quiet(reactor)
    return len(postfix.logged(f"{service}/smtpd", "disconnect from", "auth=1 ", since=since))


@ensureDeferred
@pytest.mark.parametrize(
    ("service", "count"),
    [("submission", 1000), ("data", 1000), ("no_pipelining", 200), ("bare", 200)],
)
async def test_many_over_four_connections_and_exactly_the_right_ones_arrive_once(
    reactor: Any, postfix: Postfix, service: str, count: int
) -> None:
    """CHUNKING and PIPELINING; PIPELINING alone; CHUNKING alone; neither, where Postfix is slow."""
    since = len(postfix.log)
    mailer = Mailer(reactor, postfix.server(service), limits=PoolLimits(connections=4))
    reports: list[DeliveryReport] = await mailer.send_many(messages(count), complete=False)
    stats = mailer.stats()
    await mailer.aclose()

    assert [report.error for report in reports] == [None] * count
    assert [expected(n) for n in range(count)] == [
        [outcome.status for outcome in report.outcomes] for report in reports
    ]
    accepted = [n for n in range(count) if ACCEPTED in expected(n)]
    assert (len(accepted), count - len(accepted)) == (stats.accepted, stats.failed)
    queued = [reports[n].queue_id for n in accepted]
    copies = await postfix.delivered(reactor, *queued)
    assert Counter((sender(n), f"r{n}@example.test", content(n)) for n in accepted) == Counter(
        (copy.sender, copy.recipient, copy.content) for copy in copies
    )
    assert await connections(reactor, postfix, service, since) == 4
    assert len(accepted) == len(postfix.logged("(queue active)", since=since))


@ensureDeferred
async def test_single_sends_share_connections(reactor: Any, postfix: Postfix) -> None:
    since = len(postfix.log)
    mailer = Mailer(reactor, postfix.server(), limits=PoolLimits(connections=2))
    queued = []
    for n in range(0, 30, 2):
        envelope = Envelope("alice@example.test", f"r{n}@example.test")
        report = await mailer.send(content(0), envelope=envelope, complete=False)
        queued.append(report.queue_id)
    await mailer.aclose()
    copies = await postfix.delivered(reactor, *queued)
    assert sorted(f"r{n}@example.test" for n in range(0, 30, 2)) == [c.recipient for c in copies]
    assert await connections(reactor, postfix, "submission", since) == 1


@ensureDeferred
async def test_a_server_that_hangs_up_after_an_error_is_connected_to_again(
    reactor: Any, postfix: Postfix
) -> None:
    """It replies 421 after each refused command: messages after that one go out again."""
    mailer = Mailer(reactor, postfix.server("closing"), limits=PoolLimits(connections=1))
    names = [f"{'gone' if n in {3, 8} else 'r'}{n}@example.test" for n in range(12)]
    items = [(Envelope("alice@example.test", to), content(0)) for to in names]
    reports = await mailer.send_many(items, complete=False)
    await mailer.aclose()
    doubtful = [report for report in reports if report.in_doubt]
    assert doubtful == []
    accepted = [str(o.recipient) for report in reports for o in report.accepted]
    assert [to for to in names if to.startswith("r")] == accepted
    copies = await postfix.delivered(reactor, *[r.queue_id for r in reports if r.queue_id])
    assert sorted(accepted) == [copy.recipient for copy in copies]
