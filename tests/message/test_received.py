"""The Received field: built, folded, and read back."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import InvalidInput
from twisted_sendmail.message import Received
from twisted_sendmail.message.received import WIDTH

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))

FULL = Received(
    by="mx.example.org",
    date=DATE,
    from_="client.example.net",
    from_comment="[192.0.2.1]",
    with_="ESMTPSA",
    with_comment="TLSv1.3 TLS_AES_256_GCM_SHA384",
    id="ABC123",
    for_="b@example.org",
)


def test_a_field_is_folded_and_ends_with_the_date() -> None:
    assert FULL.to_bytes() == (
        b"Received: from client.example.net ([192.0.2.1]) by mx.example.org\r\n"
        b"\twith ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384) id ABC123 for <b@example.org>;\r\n"
        b"\tFri, 02 Jan 2026 03:04:05 +0200\r\n"
    )


def test_what_is_built_is_read_back() -> None:
    assert Received.parse(FULL.to_bytes()) == FULL


WORDS = st.text("abcdefgXYZ0123456789.-_[]", min_size=1, max_size=60).filter(
    lambda word: word.lower() not in {"from", "by", "via", "with", "id", "for"}
)


@given(WORDS, st.none() | WORDS, st.none() | WORDS, st.none() | WORDS)
def test_building_then_reading_is_the_identity(
    by: str, from_: str | None, with_: str | None, id_: str | None
) -> None:
    field = Received(by=by, date=DATE, from_=from_, with_=with_, id=id_)
    wire = field.to_bytes()
    assert Received.parse(wire) == field
    assert max(len(line) for line in wire.split(b"\r\n")) <= WIDTH


def test_others_fields_are_read_as_far_as_they_go() -> None:
    field = Received.parse(
        "from mail.example.com (mail.example.com [IPv6:2001:db8::1] (may be forged))\r\n"
        "\tby smtp.example.net (Postfix) with ESMTPS id 4XYZ (using TLSv1.3)\r\n"
        "\tfor <x@example.net>; Thu, 1 Jan 2026 00:00:00 +0000 (UTC)"
    )
    assert (field.from_, field.by, field.by_comment, field.with_, field.id, field.for_) == (
        "mail.example.com",
        "smtp.example.net",
        "Postfix",
        "ESMTPS",
        "4XYZ",
        "x@example.net",
    )
    assert field.date == datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert Received.parse(b"\xff nonsense ((").date is None


@given(st.text() | st.binary())
def test_whatever_is_read_gives_a_value(text: str | bytes) -> None:
    assert isinstance(Received.parse(text), Received)


@pytest.mark.parametrize("bad", ["", "a b", "a;b", "a\r\nX: y", "a(b"])
def test_a_part_that_would_break_the_field_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput):
        Received(by=bad, date=DATE).to_bytes()


def test_a_field_without_date_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Received(by="x", date=None).to_bytes()


@pytest.mark.parametrize("unit", ["(", ")", "()", "((a)", ";", "\\", "from ", '"'])
def test_reading_a_received_field_costs_no_square(unit: str) -> None:
    def cost(size: int) -> float:
        field = f"Received: from a {unit * (size // len(unit))} by b; x"
        took = []
        for _ in range(3):
            begun = time.process_time()
            Received.parse(field)
            took.append(time.process_time() - begun)
        return min(took)

    assert cost(400_000) < 9 * cost(100_000)
