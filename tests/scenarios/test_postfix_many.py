"""Several messages over one connection to a real Postfix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail import (
    AuthenticationFailed,
    CertificateRejected,
    Envelope,
    InvalidMessage,
    MessageTooLarge,
    RecipientStatus,
    TLSTrust,
    many,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.scenarios.postfix import Delivered, Postfix
    from twisted_sendmail import DeliveryReport

SENDER = "alice@example.test"


def message(subject: str) -> bytes:
    return (
        f"From: {SENDER}\r\nTo: bob@example.test\r\nSubject: {subject}\r\n\r\n.{subject}\r\n"
    ).encode()


async def copies_of(
    reactor: Any, postfix: Postfix, reports: list[DeliveryReport]
) -> list[Delivered]:
    queued = [report.queue_id for report in reports if report.queue_id]
    assert len(queued) == len(set(queued))
    return await postfix.delivered(reactor, *queued)


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data", "no_pipelining", "bare", "submissions"])
async def test_fifty_over_one_connection_and_exactly_the_right_ones_arrive_once(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    since = len(postfix.log)
    items: list[tuple[Envelope, bytes]] = []
    expected: list[tuple[str, bytes]] = []
    for n in range(50):
        content = message(f"{service} {n}")
        to = [f"r{n}@example.test"]
        if n % 10 == 3:
            to = [f"gone{n}@example.test"]
        elif n % 10 == 5:
            to = [f"later{n}@example.test", f"r{n}@example.test", f"gone{n}@example.test"]
        elif n % 10 == 7:
            content = b"X-Refuse: yes\r\n" + content
        expected += [
            (to_one, content)
            for to_one in to
            if to_one.startswith("r") and not content.startswith(b"X-Refuse")
        ]
        items.append((Envelope(SENDER, to), content))
    reports = await many(reactor, postfix.server(service), items, complete=False)

    assert [envelope for envelope, _ in items] == [report.envelope for report in reports]
    assert [report.error for report in reports] == [None] * 50
    accepted = [str(o.recipient) for report in reports for o in report.accepted]
    assert [to for to, _ in expected] == accepted
    assert sum(len(report.refused) for report in reports) == 5 + 5 + 5 + 5
    copies = await copies_of(reactor, postfix, reports)
    assert sorted(expected) == [(copy.recipient, copy.content) for copy in copies]
    end = await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    assert "auth=1 " in end
    assert "quit=1 " in end
    assert len(postfix.logged(f"{service}/smtpd", " connect from", since=since)) == 1


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data"])
async def test_postfix_holds_nothing_else_than_what_was_reported(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    """A content that all refused, or a lone dot, must leave nothing in the queue."""
    since = len(postfix.log)
    items = [
        (Envelope(SENDER, f"{'gone' if n % 2 else 'r'}{n}@example.test"), message(f"odd {n}"))
        for n in range(10)
    ]
    reports = await many(reactor, postfix.server(service), items)
    await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    assert [n % 2 == 0 for n in range(10)] == [bool(report.accepted) for report in reports]
    await postfix.quiet(reactor)
    assert len(postfix.logged("(queue active)", since=since)) == 5


@ensureDeferred
async def test_what_cannot_be_sent_does_not_stop_the_next(reactor: Any, postfix: Postfix) -> None:
    items = [
        message("one"),
        b"From: alice@example.test\r\nTo: bob@example.test\r\n\r\n\0\r\n",
        message("three") + b"x" * 5000,
        message("four"),
    ]
    reports = await many(reactor, postfix.server("small"), items)
    assert [bool(report.accepted) for report in reports] == [True, False, False, True]
    assert isinstance(reports[1].error, InvalidMessage)
    assert isinstance(reports[2].error, MessageTooLarge)
    assert [outcome.status for outcome in reports[2].outcomes] == [RecipientStatus.UNTOUCHED]


@ensureDeferred
async def test_an_asynchronous_source_is_pulled_one_at_a_time(
    reactor: Any, postfix: Postfix
) -> None:
    dialogue: list[str] = []
    seen: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        for n in range(4):
            seen.append(sum("queued as" in line for line in dialogue))
            yield message(f"pulled {n}")

    reports = await many(reactor, postfix.server(watch=dialogue.append), source())
    assert [len(report.accepted) for report in reports] == [1, 1, 1, 1]
    assert seen == [0, 1, 2, 3]


@ensureDeferred
async def test_a_server_that_closes_after_an_error_is_connected_to_again(
    reactor: Any, postfix: Postfix
) -> None:
    """The service says 421 after the first refused command."""
    since = len(postfix.log)
    names = ["r1", "gone1", "r2", "gone2", "r3"]
    items = [(Envelope(SENDER, f"{name}@example.test"), message(name)) for name in names]
    reports = await many(reactor, postfix.server("closing"), items, complete=False)
    accepted = [str(o.recipient) for report in reports for o in report.accepted]
    assert accepted == ["r1@example.test", "r2@example.test", "r3@example.test"]
    copies = await copies_of(reactor, postfix, reports)
    assert [(f"{n}@example.test", message(n)) for n in ("r1", "r2", "r3")] == [
        (copy.recipient, copy.content) for copy in copies
    ]
    await postfix.line(reactor, "closing/smtpd", "quit=1", since=since)
    assert len(postfix.logged("closing/smtpd", " connect from", since=since)) == 3


@ensureDeferred
async def test_no_connection_for_the_first_is_an_error_for_all(
    reactor: Any, postfix: Postfix
) -> None:
    wrong = postfix.credentials(password="open-sesame")
    with pytest.raises(AuthenticationFailed):
        await many(reactor, postfix.server(credentials=wrong), [message("a"), message("b")])
    trust = TLSTrust(fingerprint="00" * 32)
    with pytest.raises(CertificateRejected):
        await many(reactor, postfix.server(trust=trust), [message("a"), message("b")])
