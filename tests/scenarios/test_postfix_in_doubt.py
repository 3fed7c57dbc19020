"""A connection to a real Postfix that is cut: the reported result is true."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from tests.scenarios.cutting_proxy import Cutter
from twisted_sendmail import (
    ConnectionClosed,
    DeliveryInDoubt,
    RecipientStatus,
    SendmailError,
    SubmissionServer,
    TLSPolicy,
    many,
    submit,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.scenarios.postfix import Postfix

SERVICES = pytest.mark.parametrize("service", ["no_tls", "no_tls_data"])


def message(subject: str) -> bytes:
    return (
        f"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: {subject}\r\n\r\n"
        f"This is {subject}.\r\n"
    ).encode()


@asynccontextmanager
async def cut(
    reactor: Any, postfix: Postfix, service: str, cuts: Callable[[str, bytes], bool]
) -> AsyncIterator[tuple[SubmissionServer, Cutter]]:
    cutter = Cutter(reactor, postfix.ports[service], cuts)
    try:
        yield SubmissionServer("127.0.0.1", cutter.port, TLSPolicy.NONE), cutter
    finally:
        await cutter.stop()


async def arrived(reactor: Any, postfix: Postfix, subject: str) -> int:
    """How many copies there are, when Postfix is done."""
    await postfix.quiet(reactor)
    return sum(message(subject) == copy.content for copy in postfix.mailbox())


@ensureDeferred
@SERVICES
async def test_the_reply_is_lost_and_the_message_is_there(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    subject = f"reply-lost-{service}"

    def cuts(who: str, received: bytes) -> bool:
        return who == "S" and b"queued as" in received

    async with cut(reactor, postfix, service, cuts) as (server, cutter):
        with pytest.raises(DeliveryInDoubt) as caught:
            await submit(reactor, server, message(subject), complete=False)
    assert caught.value.report is not None
    assert [outcome.status for outcome in caught.value.report.outcomes] == [
        RecipientStatus.IN_DOUBT
    ]
    assert await arrived(reactor, postfix, subject) == 1
    assert cutter.connections == 1


@ensureDeferred
@SERVICES
async def test_the_end_is_lost_and_the_message_is_not_there(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    """From here it looks the same."""
    subject = f"end-lost-{service}"

    def cuts(who: str, received: bytes) -> bool:
        return who == "C" and b"Subject" in received

    async with cut(reactor, postfix, service, cuts) as (server, cutter):
        with pytest.raises(DeliveryInDoubt):
            await submit(reactor, server, message(subject), complete=False)
    assert await arrived(reactor, postfix, subject) == 0
    assert cutter.connections == 1


@ensureDeferred
async def test_cut_before_the_content_it_is_untouched(reactor: Any, postfix: Postfix) -> None:
    subject = "data-lost"

    def cuts(who: str, received: bytes) -> bool:
        return who == "S" and b"\r\n354 " in received

    async with cut(reactor, postfix, "no_tls_data", cuts) as (server, _):
        with pytest.raises(ConnectionClosed) as caught:
            await submit(reactor, server, message(subject), complete=False)
    assert caught.value.report is not None
    assert [outcome.status for outcome in caught.value.report.outcomes] == [
        RecipientStatus.UNTOUCHED
    ]
    assert await arrived(reactor, postfix, subject) == 0


@ensureDeferred
@SERVICES
async def test_many_reports_the_one_in_doubt_and_goes_on_without_a_copy_too_many(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    subjects = [f"{service}-{n}-of-5" for n in range(5)]
    once = [True]

    def cuts(who: str, received: bytes) -> bool:
        third = who == "S" and received.count(b"queued as") == 3
        return third and bool(once) and once.pop()

    async with cut(reactor, postfix, service, cuts) as (server, cutter):
        reports = await many(reactor, server, map(message, subjects), complete=False)
    statuses = [outcome.status for report in reports for outcome in report.outcomes]
    accepted, doubtful = RecipientStatus.ACCEPTED, RecipientStatus.IN_DOUBT
    assert [accepted, accepted, doubtful, accepted, accepted] == statuses
    errors: list[SendmailError | None] = [report.error for report in reports]
    assert isinstance(errors[2], DeliveryInDoubt)
    assert cutter.connections == 2
    found = [await arrived(reactor, postfix, subject) for subject in subjects]
    assert found == [1] * 5
