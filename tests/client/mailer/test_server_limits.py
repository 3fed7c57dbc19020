"""Servers with limits on transactions and recipients (RFC 9422): every recipient once, no complaint."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import CHUNKING, PIPELINING, Postbox
from tests.client.scripted_server import CLOSE, RESET, SILENT, Action
from tests.deferreds import Result
from twisted_sendmail import (
    Cancelled,
    DeliveryReport,
    MailerClosed,
    RecipientStatus,
    SendTimeout,
    Timeouts,
)

ACCEPTED, REFUSED, IN_DOUBT, UNTOUCHED = RecipientStatus
OFFERS = pytest.mark.parametrize("offers", [CHUNKING, PIPELINING], ids=["BDAT", "DATA"])


def recipients(count: int, name: str = "bob") -> list[str]:
    return [f"{name}{n}@example.net" for n in range(count)]


def delivered(post: Post) -> Counter[str]:
    return Counter(each for delivery in post.world.delivered for each in delivery.recipients)


def transactions(post: Post) -> list[int]:
    """Of each connection."""
    return [server.verbs.count("MAIL") for server in post.world.servers]


@OFFERS
@pytest.mark.parametrize("connections", [1, 3])
def test_mailmax_counts_transactions_not_messages(
    post: Post, offers: Any, connections: int
) -> None:
    """A message to more recipients than RCPTMAX is several transactions."""
    limited = post.world.server(offers=(*offers, "LIMITS RCPTMAX=2 MAILMAX=3"))
    mailer = post.mailer(limited, connections=connections)
    messages = [a_message(n, recipients(3, f"user{n}-")) for n in range(5)]
    results = post.send(mailer, *messages)
    assert [[ACCEPTED] * 3] * 5 == [statuses(result.get()) for result in results]
    assert max(transactions(post)) <= 3
    assert {1} == set(delivered(post).values())
    assert 15 == len(delivered(post))


@OFFERS
@pytest.mark.parametrize("mailmax", [1, 2, 3])
def test_a_message_that_is_more_transactions_than_mailmax_goes_over_several_connections(
    post: Post, offers: Any, mailmax: int
) -> None:
    limited = post.world.server(offers=(*offers, f"LIMITS RCPTMAX=2 MAILMAX={mailmax}"))
    mailer = post.mailer(limited, connections=1)
    (result,) = post.send(mailer, a_message("a", recipients(9)))
    assert [ACCEPTED] * 9 == statuses(result.get())
    assert recipients(9) == [str(each.recipient) for each in result.value.outcomes]
    assert Counter(recipients(9)) == delivered(post)
    assert mailmax == max(transactions(post))
    assert -(-5 // mailmax) == post.endpoint.attempts
    assert (1, 0) == (mailer.stats().accepted, mailer.stats().failed)


def two_at_a_time(server: Postbox, key: str, _: str) -> Action:
    too_many = key == "RCPT" and len(server.recipients) >= 2
    return "452 4.5.3 too many" if too_many else None


@OFFERS
@pytest.mark.parametrize("connections", [1, 3])
def test_a_limit_that_the_server_does_not_tell_is_found_out(
    post: Post, offers: Any, connections: int
) -> None:
    """Other messages are in flight on the same connections."""
    post.world.fault = two_at_a_time
    mailer = post.mailer(post.world.server(offers=offers), connections=connections)
    messages = [a_message(n, recipients(5 if n % 2 else 2, f"user{n}-")) for n in range(8)]
    results = post.send(mailer, *messages)
    assert [set(statuses(result.get())) for result in results] == [{ACCEPTED}] * 8
    assert {1} == set(delivered(post).values())
    assert 28 == len(delivered(post))
    assert [str(each.recipient) for each in results[1].value.outcomes] == recipients(5, "user1-")


@OFFERS
@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_who_was_accepted_is_known_when_no_other_connection_can_be_had(
    post: Post, offers: Any, end: Any
) -> None:
    key = "BDAT_LAST#1" if "CHUNKING" in offers else ".#1"
    post.world.fault = two_at_a_time
    server = post.world.server({key: ("250 2.0.0 queued", end)}, offers=offers)
    mailer = post.mailer(server, ConnectionRefusedError("no"))
    (result,) = post.send(mailer, a_message("a", recipients(3)))
    assert [ACCEPTED, ACCEPTED] == statuses(result.report)[:2]
    assert result.report.outcomes[2].transient


def test_own_limit_of_messages_counts_messages(post: Post) -> None:
    limited = post.world.server(offers=(*CHUNKING, "LIMITS RCPTMAX=1"))
    mailer = post.mailer(limited, connections=1, messages=1)
    results = post.send(mailer, a_message(1, recipients(3)), a_message(2, recipients(2)))
    assert [3, 2] == [len(result.get().accepted) for result in results]
    assert [3, 2] == transactions(post)


@OFFERS
def test_refused_recipients_stay_refused_over_several_connections(post: Post, offers: Any) -> None:
    limited = post.world.server(offers=(*offers, "LIMITS RCPTMAX=1 MAILMAX=1"))
    mailer = post.mailer(limited, connections=1)
    names = ["a@example.net", "gone@example.net", "b@example.net"]
    (result,) = post.send(mailer, a_message("a", names))
    assert [ACCEPTED, REFUSED, ACCEPTED] == statuses(result.get())
    assert Counter(["a@example.net", "b@example.net"]) == delivered(post)


@OFFERS
@pytest.mark.parametrize("end", [CLOSE, RESET, ("421 4.3.2 bye", CLOSE), "garbage"])
@pytest.mark.parametrize("key", ["MAIL", "RCPT", "content"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("mailmax", [2, 100])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_no_recipient_gets_a_message_twice_when_a_connection_dies(  # noqa: PLR0917
    post: Post, offers: Any, end: Any, key: str, nth: int, mailmax: int, used: bool
) -> None:
    """Wherever it dies: accepted recipients have it once, and those that may go again do not."""
    if key == "content":
        key = "BDAT_LAST" if offers is CHUNKING else "."
    limits = f"LIMITS RCPTMAX=2 MAILMAX={mailmax + used}"
    mailer = post.mailer(post.world.server(offers=(*offers, limits)), connections=1)
    if used:
        (first,) = post.send(mailer, a_message("first", "first@example.net"))
        assert [ACCEPTED] == statuses(first.get())
    seen = Counter[str]()

    def fault(server: Any, found: str, line: str) -> Any:
        seen[found] += 1
        return end if found == key and seen[found] == nth else None

    post.world.fault = fault
    (result,) = post.send(mailer, a_message("again", recipients(5)))
    post.pump.advance(1000)
    assert 1 == result.fired
    report = result.value if result.error is None else result.error.report
    counts = delivered(post)
    assert isinstance(report, DeliveryReport)
    assert recipients(5) == [str(each.recipient) for each in report.outcomes]
    for each in report.outcomes:
        count = counts[str(each.recipient)]
        assert count <= 1
        assert each.status is IN_DOUBT or count == (each.status is ACCEPTED), each
    assert (report.error is not None) == bool(report.in_doubt or report.untouched)


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize(
    ("dies", "names"),
    [
        ("RCPT#4", ["a@example.net", "b@example.net", "gone@example.net", "c@example.net"]),
        ("DATA#2", ["a@example.net", "b@example.net", "c@example.net", "gone@example.net"]),
    ],
)
def test_recipients_left_by_a_connection_that_dies_get_the_message(
    post: Post, end: Any, dies: str, names: list[str]
) -> None:
    """One transaction was complete; of the second one a recipient was refused."""
    offers = (*PIPELINING, "LIMITS RCPTMAX=2")
    dying, serving = post.world.server({dies: end}, offers=offers), post.world.server(offers=offers)
    (result,) = post.send(post.mailer(dying, serving), a_message("a", names))
    assert names == [str(each.recipient) for each in result.get().outcomes]
    expected = [REFUSED if name.startswith("gone") else ACCEPTED for name in names]
    assert expected == statuses(result.value)
    assert Counter(["a@example.net", "b@example.net", "c@example.net"]) == delivered(post)


def test_a_cancelled_message_is_not_sent_to_more_recipients(post: Post) -> None:
    """It is in flight after another message: its transaction goes on, and no further one begins."""

    def late(server: Any, line: str) -> None:
        post.clock.callLater(60, server.act, "250 2.0.0 ok")

    post.world.fault = lambda server, key, line: late if key == "BDAT_LAST" else None
    mailer = post.mailer(post.world.server(offers=(*CHUNKING, "LIMITS RCPTMAX=2")), connections=1)
    other, result = post.send(mailer, a_message("a"), a_message("b", recipients(5)))
    assert [2] == transactions(post)
    result.deferred.cancel()
    assert isinstance(result.error, Cancelled)
    assert [IN_DOUBT, IN_DOUBT, UNTOUCHED, UNTOUCHED, UNTOUCHED] == error_statuses(result)
    post.pump.advance(61)
    assert [ACCEPTED] == statuses(other.get())
    assert [2] == transactions(post)


# -- ends of a message whose first part was accepted -----------------------------------------


def half_sent(post: Post, **limits: Any) -> tuple[Any, Result]:
    """A message with two accepted recipients and two that wait for a connection that hangs."""
    offers = (*CHUNKING, "LIMITS RCPTMAX=2 MAILMAX=1")
    first, second = post.world.server(offers=offers), post.world.server({"GREETING": SILENT})
    mailer = post.mailer(
        first, second, connections=1, settings={"timeouts": Timeouts(total=900)}, **limits
    )
    (result,) = post.send(mailer, a_message("a", recipients(4)))
    assert (0, 1) == (result.fired, mailer.stats().waiting)
    return mailer, result


def error_statuses(result: Result) -> list[RecipientStatus]:
    assert result.error is not None
    return statuses(result.error.report)


def test_cancelling_tells_which_recipients_were_accepted(post: Post) -> None:
    _, result = half_sent(post)
    result.deferred.cancel()
    assert isinstance(result.error, Cancelled)
    assert [ACCEPTED, ACCEPTED, UNTOUCHED, UNTOUCHED] == error_statuses(result)


def test_a_deadline_tells_which_recipients_were_accepted(post: Post) -> None:
    _, result = half_sent(post, wait=None)
    post.pump.advance(901)
    assert isinstance(result.error, SendTimeout)
    assert [ACCEPTED, ACCEPTED, UNTOUCHED, UNTOUCHED] == error_statuses(result)


def test_waiting_too_long_tells_which_recipients_were_accepted(post: Post) -> None:
    _, result = half_sent(post, wait=50)
    post.pump.advance(51)
    assert isinstance(result.error, SendTimeout)
    assert [ACCEPTED, ACCEPTED, UNTOUCHED, UNTOUCHED] == error_statuses(result)


def test_closing_tells_which_recipients_were_accepted(post: Post) -> None:
    mailer, result = half_sent(post)
    _ = post.close(mailer, send_waiting=False)
    assert isinstance(result.error, MailerClosed)
    assert [ACCEPTED, ACCEPTED, UNTOUCHED, UNTOUCHED] == error_statuses(result)


def test_a_failed_connection_tells_which_recipients_were_accepted(post: Post) -> None:
    offers = (*CHUNKING, "LIMITS RCPTMAX=2 MAILMAX=1")
    first, second = post.world.server(offers=offers), post.world.server({"GREETING": "554 no"})
    mailer = post.mailer(first, second, connections=1)
    (report,) = post.many(mailer, [a_message("a", recipients(4))]).get()
    assert [ACCEPTED, ACCEPTED, UNTOUCHED, UNTOUCHED] == statuses(report)
    assert "554 no" in str(report.error)


@pytest.mark.parametrize("count", [3, 8])
def test_a_server_that_ends_each_session_after_one_message_gets_all_of_them(
    post: Post, count: int
) -> None:
    """The messages after the first in the window go over another connection, as often as needed."""
    ending = post.world.server({"RSET#1": ("421 4.7.0 one message a session", CLOSE)})
    mailer = post.mailer(ending, connections=1)
    reports = post.many(mailer, [a_message(n) for n in range(count)]).get()
    assert [[ACCEPTED]] * count == [statuses(report) for report in reports]
    assert [str(n) for n in range(count)] == sorted(post.world.subjects)
    assert count == post.endpoint.attempts
