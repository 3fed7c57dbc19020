"""One message within the LIMITS of a server (RFC 9422)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import Recipient, RecipientStatus, ServerSettings
from twisted_sendmail.client.delivery_job import batch_end
from twisted_sendmail.testing import MemoryServer, faults

MESSAGE = b"From: a@example.org\r\nSubject: limits\r\n\r\nbody\r\n"
FIVE = [f"r{n}@example.net" for n in range(5)]


def split(whole: tuple[Recipient, ...], limits: dict[str, int]) -> list[tuple[Recipient, ...]]:
    parts, start = [], 0
    while start < len(whole):
        end = batch_end(whole, start, limits)
        parts.append(whole[start:end])
        start = end
    return parts


def recipients(*addresses: str) -> tuple[Recipient, ...]:
    return tuple(Recipient(address) for address in addresses)


def test_a_message_for_more_than_rcptmax_goes_out_again_to_the_rest() -> None:
    settings = ServerSettings(max_recipients=2, starttls=True)
    with MemoryServer(settings=settings) as server:
        report = server.send(MESSAGE, sender="a@example.org", recipients=FIVE)
        seen = [[str(r) for r in message.recipients] for message in server.messages]
    assert [FIVE[:2], FIVE[2:4], FIVE[4:]] == seen
    assert [str(outcome.recipient) for outcome in report.outcomes] == FIVE
    assert [outcome.status for outcome in report.outcomes] == [RecipientStatus.ACCEPTED] * 5
    assert [str(recipient) for recipient in report.envelope.recipients] == FIVE  # type: ignore[union-attr]


@pytest.mark.parametrize("without_too", [(), ("CHUNKING",), ("PIPELINING", "CHUNKING")])
@pytest.mark.parametrize("last", ["451 4.2.0 later", "550 5.1.1 no", ""])
def test_recipients_that_were_too_many_get_the_message_in_the_next_transaction(
    without_too: tuple[str, ...], last: str
) -> None:
    """The server does not tell its limit before (RFC 5321 section 4.5.3.1.10)."""
    settings = ServerSettings(max_recipients=2, starttls=True)
    plan = [faults.without("LIMITS", *without_too)]
    if last:
        plan.append(faults.refuse("RCPT", last, address=FIVE[4]))
    with MemoryServer(settings=settings, faults=plan) as server:
        report = server.send(MESSAGE, sender="a@example.org", recipients=FIVE)
        seen = [[str(r) for r in message.recipients] for message in server.messages]
        assert len(server.sessions) == 1
    accepted = FIVE[:4] if last else FIVE
    assert [FIVE[:2], FIVE[2:4], *([] if last else [FIVE[4:]])] == seen
    assert [str(outcome.recipient) for outcome in report.outcomes] == FIVE
    assert [str(outcome.recipient) for outcome in report.accepted] == accepted
    assert [str(outcome.reply) for outcome in report.refused] == [last] * bool(last)


def test_a_recipient_that_is_always_one_too_many_is_tried_twice() -> None:
    refuse = faults.refuse("RCPT", "452 4.5.3 too many this hour", address=FIVE[1])
    with MemoryServer(faults=[refuse]) as server:
        report = server.send(MESSAGE, sender="a@example.org", recipients=FIVE[:3])
        (session,) = server.sessions
        assert sum("RCPT TO" in line for line in session.dialogue) == 4
    assert [outcome.status.value for outcome in report.outcomes] == [
        "accepted",
        "refused",
        "accepted",
    ]
    assert report.refused[0].transient


def test_a_content_that_is_read_once_goes_to_the_recipients_of_the_first_transaction() -> None:
    settings = ServerSettings(max_recipients=2, starttls=True)
    large = iter([MESSAGE, *[b"x" * 70 + b"\r\n"] * 50_000])
    with MemoryServer(settings=settings, faults=[faults.without("LIMITS")]) as server:
        report = server.send(large, sender="a@example.org", recipients=FIVE)
    assert len(report.accepted) == 2
    assert {str(outcome.reply) for outcome in report.refused} == {"452 4.5.3 Too many recipients"}


def test_every_part_has_the_same_content() -> None:
    settings = ServerSettings(max_recipients=1, starttls=True)
    with MemoryServer(settings=settings) as server:
        report = server.send(MESSAGE, sender="a@example.org", recipients=FIVE)
        contents = {message.content for message in server.messages}
    assert len(report.accepted) == 5
    assert len(contents) == 1


def test_all_or_nothing_is_one_transaction_whatever_the_limits() -> None:
    settings = ServerSettings(max_recipients=2, starttls=True)
    with MemoryServer(settings=settings) as server:
        report = server.send(
            MESSAGE, sender="a@example.org", recipients=FIVE[:2], all_or_nothing=True
        )
        assert len(server.messages) == 1
    assert len(report.accepted) == 2


def test_a_part_holds_no_more_domains_than_rcptdomainmax() -> None:
    given_ = recipients("a@x.org", "b@x.org", "c@y.org", "d@x.org", "e@z.org")
    assert [given_[:2], given_[2:3], given_[3:4], given_[4:]] == split(given_, {"RCPTDOMAINMAX": 1})
    assert [given_[:4], given_[4:]] == split(given_, {"RCPTDOMAINMAX": 2})


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from(["x.org", "y.org", "Z.org", "z.org"])),
        min_size=1,
        max_size=40,
        unique=True,
    ),
    st.dictionaries(
        st.sampled_from(["RCPTMAX", "RCPTDOMAINMAX", "MAILMAX"]), st.integers(1, 50), max_size=3
    ),
)
def test_splitting_loses_nobody_and_keeps_within_the_limits(
    boxes: list[tuple[int, str]], limits: dict[str, int]
) -> None:
    whole = recipients(*(f"u{n}@{domain}" for n, domain in boxes))
    parts = split(whole, limits)
    assert whole == tuple(recipient for part in parts for recipient in part)
    for part in parts:
        domains = {str(recipient).rpartition("@")[2].lower() for recipient in part}
        assert 0 < len(part) <= limits.get("RCPTMAX", 99)
        assert len(domains) <= limits.get("RCPTDOMAINMAX", 99)
