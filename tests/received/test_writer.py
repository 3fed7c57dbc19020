"""The Received field is folded and stays well-formed, whatever the values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import InvalidInput
from twisted_sendmail.message.header import FOLD_WIDTH
from twisted_sendmail.received import clause, folded, received_field

NOW = 1_767_323_045.25
BY = clause("by", "mx.example.org")


def test_a_field_is_folded_and_ends_with_the_date() -> None:
    clauses = [
        clause("from", "client.example.net", "[192.0.2.1]"),
        BY,
        clause("with", "ESMTPSA", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        clause("id", "ABC123"),
        "for <b@example.org>",
    ]
    expected = (
        b"Received: from client.example.net ([192.0.2.1]) by mx.example.org\r\n"
        b"\twith ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384) id ABC123 for <b@example.org>;\r\n"
        b"\tFri, 02 Jan 2026 03:04:05 +0000\r\n"
    )
    assert received_field(clauses, NOW) == expected
    assert received_field(clauses[2:], NOW, folded(clauses[:2])) == expected


@given(st.lists(st.text("abcXYZ0123456789.-_[]", min_size=1, max_size=60), min_size=1, max_size=5))
def test_no_line_is_longer_than_necessary(words: list[str]) -> None:
    wire = received_field([BY, *(clause("id", word) for word in words)], NOW)
    assert wire.startswith(b"Received: by mx.example.org")
    assert max(len(line) for line in wire.split(b"\r\n")) <= FOLD_WIDTH
    assert [f"id {word}" for word in words] == [
        f"id {word}" for word in wire.decode().partition(";")[0].split() if word in words
    ]


@pytest.mark.parametrize("bad", ["", "a b", "a;b", "a\r\nX: y", "a(b"])
def test_a_part_that_would_break_the_field_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput):
        clause("by", bad)


@pytest.mark.parametrize("bad", ["a(b", "a)b", "a\\b", "a\r\nX: y"])
def test_a_comment_that_would_break_the_field_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput):
        clause("by", "x", bad)
