"""SASLprep: the examples of RFC 4013 section 3, and another implementation."""

from __future__ import annotations

import re
import stringprep

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramException
from scramp.core import saslprep as peer_saslprep

from twisted_sendmail.sasl import saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("pass\u00a0word", "pass word"),
        ("\u0627\u0628", "\u0627\u0628"),
    ],
)
def test_the_examples_of_the_rfc(text: str, prepared: str) -> None:
    assert prepared == saslprep(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\u0007", "it has a control character"),
        ("\u0627\u0031", "it mixes left-to-right and right-to-left"),
        ("a\u0627", "it mixes left-to-right and right-to-left"),
        ("\ue000", "it has a character for private use"),
        ("\U0001f511", "it has a character newer than Unicode 3.2"),
        ("\u00ad", "nothing is left of it"),
        ("", "nothing is left of it"),
    ],
)
def test_what_cannot_be_prepared_is_named(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        saslprep(text)

    assert why == str(caught.value)


def test_a_query_may_be_newer_than_unicode_3_2() -> None:
    assert saslprep("\U0001f511", unassigned=True) == "\U0001f511"


KNOWN = st.characters(exclude_categories=["Cs"]).filter(lambda c: not stringprep.in_table_a1(c))


@given(st.text(KNOWN))
def test_another_implementation_says_the_same(text: str) -> None:
    try:
        expected = peer_saslprep(text)
    except ScramException:
        expected = ""
    try:
        prepared = saslprep(text)
    except ValueError:
        prepared = ""

    assert prepared == expected


@given(st.text())
def test_prepared_twice_is_prepared_once(text: str) -> None:
    try:
        once = saslprep(text)
    except ValueError:
        return

    assert once == saslprep(once)
