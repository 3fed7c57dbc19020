"""Counting a header gives the same result for any chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail.smtp.data_reader import HeaderCounter

PIECES = st.lists(
    st.sampled_from(
        [
            b"Received: x\r\n",
            b"RECEIVED : y\r\n",
            b"A: b\r\n",
            b" c\r\n",
            b"\r\n",
            b"body\r\n",
            b"x",
            b"\r",
            b"\n",
        ]
    ),
    max_size=12,
).map(b"".join)


def count(content: bytes, cuts: list[int], limit: int) -> tuple[int, bool]:
    counter = HeaderCounter(limit)
    for size in cuts:
        counter.feed(content[:size])
        content = content[size:]
    counter.feed(content)
    counter.finish()
    return counter.hops, counter.too_long


@given(PIECES, st.lists(st.integers(1, 9)), st.integers(10, 60))
def test_any_cutting_counts_the_same(content: bytes, cuts: list[int], limit: int) -> None:
    assert count(content, cuts, limit) == count(content, [], limit)


def test_fields_are_counted_in_the_header_only() -> None:
    header = b"Received: a\r\n\tb\r\nreceived: c\r\nX-Received: d\r\n"
    assert count(header + b"\r\nReceived: e\r\n", [], 1000) == (2, False)
    assert count(header + b"no field\r\nReceived: e\r\n", [], 1000) == (2, False)
    assert count(b"\r\nReceived: e\r\n", [], 1000) == (0, False)
