"""Text of the pages: foreign text, times, sizes, filters, causes of delay."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.admin.parsed_html import render
from tests.names import MessageInfo, QueuedMessage, QueuedRecipient, RecipientState, SetAsideReason
from twisted_sendmail import Envelope, ForwardPath, Recipient, ReversePath
from twisted_sendmail.admin.format import (
    address,
    ago,
    ahead,
    clock,
    count,
    duration,
    foreign,
    last_reply,
    local_cause,
    size,
    status_words,
)
from twisted_sendmail.admin.pages import QueueFilter, delay_causes


@given(st.text(st.characters(codec=None)))
def test_foreign_text_is_inert(text: str) -> None:
    page = render(foreign(text))
    assert page.names() == {"page", "bdi"}
    forbidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert {c for c in page.text if unicodedata.category(c) in forbidden} - _harmless(
        page.text
    ) == set()


def _harmless(text: str) -> set[str]:
    """Format characters of scripts that stand for something: they neither hide nor reorder."""
    return {
        c
        for c in text
        if unicodedata.category(c) == "Cf" and c not in "\u00ad\u061c\u180e\u200e\u200f"
    } - {chr(n) for n in (*range(0x200B, 0x2070), 0xFEFF)}


def test_plain_text_is_unchanged() -> None:
    text = "a < b & c > d \"quoted\" 'too' – é 日本 \\x41"
    assert text == render(foreign(text)).text


def test_a_long_text_is_cut_with_a_note() -> None:
    assert render(foreign("x" * 500)).text == "x" * 300 + "… (200 more characters)"


def test_an_address_wraps_only_before_its_at_sign() -> None:
    page = render(address(ForwardPath.parse('"a@b"@example.net')))
    assert page.text == '"a@b"@example.net'
    assert [part.text for part in page.all("span")] == ['"a@b"', "@example.net"]


def test_the_null_sender_is_named() -> None:
    assert render(address(ReversePath())).text == "no sender (a report)"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (86400, "1 d"),
        (190_900, "2 d 5 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert said == duration(seconds)


@given(st.floats(allow_nan=False, min_value=-1e300, max_value=1e300))
def test_every_time_can_be_shown(at: float) -> None:
    assert len(clock(at)) == 19
    assert render(ago(at, 0)).text.endswith("ago")
    assert render(ahead(at, 0)).text.startswith(("in ", "now"))


def test_a_time_has_the_full_time_as_its_title() -> None:
    time = render(ago(1_700_000_000, 1_700_000_090)).one("time")
    assert time.text == "1 min ago"
    assert time.attributes["title"] == "2023-11-14 22:13:20 UTC"
    assert time.attributes["datetime"] == "2023-11-14T22:13:20Z"


def test_sizes_and_counts() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345, 3_400_000, 2_500_000_000_000)] == [
        "0 B",
        "999 B",
        "1.0 KB",
        "12 KB",
        "3.4 MB",
        "2500 GB",
    ]
    assert [count(n, "message") for n in (0, 1, 1200)] == [
        "0 messages",
        "1 message",
        "1,200 messages",
    ]


# Filters.

_FIELDS = st.dictionaries(
    st.sampled_from(["queue", "recipient", "sender", "page", "span", "other"]),
    st.one_of(st.text(), st.sampled_from(["hold", "2", "days", "@example.net"])),
)


@given(_FIELDS)
def test_a_filter_is_the_same_after_writing_and_reading(fields: dict[str, str]) -> None:
    wanted = QueueFilter.from_fields(fields)
    assert wanted == QueueFilter.from_fields(wanted.fields)
    assert 1 <= wanted.page <= 40
    assert wanted.link().startswith("/")
    assert wanted.link().isprintable()


def test_invalid_fields_of_a_filter_are_ignored() -> None:
    assert QueueFilter() == QueueFilter.from_fields(
        {"queue": "<b>", "page": "-1", "span": "year", "recipient": "a\nb", "sender": "\u202ea"}
    )
    pages = [
        QueueFilter.from_fields({"page": page}).page
        for page in ("0", "7", "999", "99999", "²", "٣")
    ]
    assert pages == [1, 7, 40, 1, 1, 1]


def test_a_filter_becomes_a_selection_of_the_queue() -> None:
    selection = QueueFilter("hold", "@example.net", "<>").selection(51)
    assert (
        selection.queue,
        selection.recipient,
        selection.sender,
        selection.limit,
    ) == ("hold", "@example.net", "", 51)
    assert QueueFilter().selection(None).sender is None


# Reasons.


def message(
    *recipients: QueuedRecipient, arrived: float = 1000.0, **facts: object
) -> QueuedMessage:
    envelope = Envelope("a@example.org", [r.recipient for r in recipients])
    info = MessageInfo("0123456789AB", envelope, arrived, "default")
    return QueuedMessage(info, 100, recipients, **facts)  # type: ignore[arg-type]


def tried(
    number: int,
    reply: str | None,
    status: str | None = "4.2.2",
    state: RecipientState = RecipientState.PENDING,
) -> QueuedRecipient:
    return QueuedRecipient(
        number,
        Recipient(f"u{number}@example.net"),
        state,
        0.0,
        1,
        50.0 + number,
        reply,
        status,
        "mx",
    )


def test_replies_that_differ_only_in_addresses_and_ids_are_one_cause() -> None:
    found = delay_causes(
        [
            message(
                tried(0, "452 4.2.2 <u0@example.net> is over quota (id 4F3A2B)"),
                tried(1, "452 4.2.2 <u1@example.net> is over quota (id 99AA11)"),
                arrived=900,
            ),
            message(tried(2, "452 4.2.2 <u2@example.net> is over quota (id 777777)"), arrived=800),
            message(tried(3, "451 4.7.1 Greylisted", "4.7.1")),
        ]
    )
    assert [(r.status, r.recipients, r.messages, r.oldest) for r in found] == [
        ("4.2.2", 3, 2, 800),
        ("4.7.1", 1, 1, 1000),
    ]
    assert found[0].reply == "452 4.2.2 <u1@example.net> is over quota (id 99AA11)"


def test_recipients_with_a_result_or_without_an_attempt_are_no_cause() -> None:
    done = tried(0, "250 Ok", "2.0.0", RecipientState.DELIVERED)
    assert delay_causes([message(done, tried(1, None, None))]) == []


def test_the_last_reply_is_that_of_the_last_attempt() -> None:
    last = last_reply(message(tried(0, "first"), tried(4, "last"), tried(2, "middle")))
    assert last is not None
    assert last.reply == "last"
    assert last_reply(message(tried(0, None))) is None


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"aside": SetAsideReason.DAMAGED}, "It is damaged on the disk, and is not sent."),
        (
            {"aside": SetAsideReason.UNDELIVERABLE},
            "It failed, and has no sender to report to.",
        ),
        ({"doomed": True, "leased": True}, "It is deleted when the current attempt ends."),
        ({"expired": True}, "It is returned to its sender at the next queue run."),
        ({"leased": True}, "It is being delivered."),
        ({"held": True}, "It was put on hold."),
        ({}, None),
    ],
)
def test_a_message_that_waits_for_a_local_cause_has_a_sentence_for_it(
    facts: dict[str, Any], cause: str | None
) -> None:
    assert local_cause(message(tried(0, "450 later"), **facts), {}, 0.0) == cause


def test_enhanced_codes_have_words() -> None:
    assert [status_words(status) for status in ("4.2.2", "5.2.2", "4.4.1", "4.99.99", "")] == [
        "mailbox full",
        "mailbox full",
        "no answer from the server",
        "",
        "",
    ]
