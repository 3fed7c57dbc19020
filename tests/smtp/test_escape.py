"""Foreign text is shown in one line without effects."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail.smtp import printable
from twisted_sendmail.smtp.escape import SHOWN


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("", ""),
        ("550 5.1.1 User unknown", "550 5.1.1 User unknown"),
        ("Größe 5 €, 日本, 😀", "Größe 5 €, 日本, 😀"),
        ("a\r\nb\tc\0", "a\\x0d\\x0ab\\x09c\\x00"),
        ("\x1b[2J\x9b31m\x7f", "\\x1b[2J\\x9b31m\\x7f"),
        ("one\x85two\u2028three\u2029", "one\\x85two\\u2028three\\u2029"),
        (
            "\u202egnp.exe\u202c \u2066x\u2069 \u200f\u061c",
            "\\u202egnp.exe\\u202c \\u2066x\\u2069 \\u200f\\u061c",
        ),
        ("pay\u200bpal\u00ad\ufeff", "pay\\u200bpal\\xad\\ufeff"),
        ("hidden\U000e0041\U000e007f", "hidden\\U000e0041\\U000e007f"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_acts_is_escaped_and_the_rest_is_kept(given_text: str, shown: str) -> None:
    assert shown == printable(given_text)


def test_octets_are_read_as_utf_8() -> None:
    assert printable(b"\xc3\xa9\xff\n") == "é\\xff\\x0a"


def test_what_is_cut_is_counted() -> None:
    assert printable("x" * SHOWN) == "x" * SHOWN
    assert printable("x" * (SHOWN + 3)) == "x" * SHOWN + "… (3 more characters)"
    assert printable(b"abcd", limit=2) == "ab… (2 more characters)"


@given(st.text(st.characters(), max_size=40) | st.binary(max_size=40))
def test_always_one_line_without_effect(text: str | bytes) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert shown.encode("utf-8").decode("utf-8") == shown
    reordering = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}]
    assert not [c for c in shown if unicodedata.bidirectional(c) in reordering]
    assert shown == printable(shown)
