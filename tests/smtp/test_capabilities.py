"""The contents of an EHLO reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import Reply
from twisted_sendmail.smtp import Capabilities
from twisted_sendmail.smtp.reply_parser import ReplyParser


def offered(*lines: str) -> Capabilities:
    return Capabilities.from_reply(Reply(250, ("mx.example.net", *lines)))


def test_keywords_in_any_case() -> None:
    found = offered("starttls", "Pipelining", "8bitmime")
    assert list(found) == ["STARTTLS", "PIPELINING", "8BITMIME"]
    assert found.pipelining


def test_the_first_line_is_no_keyword() -> None:
    found = Capabilities.from_reply(Reply(250, ("STARTTLS", "SIZE 10")))
    assert "STARTTLS" not in found
    assert found.greeting == "STARTTLS"


def test_nothing_is_offered_by_a_single_line() -> None:
    assert list(Capabilities.from_reply(Reply(250, ("mx.example.net",)))) == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["AUTH PLAIN LOGIN"], ("PLAIN", "LOGIN")),
        (["AUTH=PLAIN LOGIN"], ("PLAIN", "LOGIN")),
        (["auth plain login"], ("PLAIN", "LOGIN")),
        (["AUTH PLAIN", "AUTH=LOGIN PLAIN"], ("PLAIN", "LOGIN")),
        (["AUTH PLAIN PLAIN plain"], ("PLAIN",)),
        (["AUTH LOGIN=PLAIN"], ("LOGIN", "PLAIN")),
        (["AUTH"], ()),
        (["AUTH ="], ()),
        (["AUTH   SCRAM-SHA-256  \t PLAIN "], ("SCRAM-SHA-256", "PLAIN")),
        (["AUTH \x1b[1m PLAIN \ufffd"], ("PLAIN",)),
        (["AUTH " + "X" * 21 + " PLAIN"], ("PLAIN",)),
        ([], ()),
    ],
)
def test_the_auth_list(lines: list[str], expected: tuple[str, ...]) -> None:
    """Lower case, doubled, old form, empty, odd words."""
    assert offered(*lines).auth == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("SIZE 1000", 1000),
        ("SIZE=1000", 1000),
        ("size 1000", 1000),
        ("SIZE", None),
        ("SIZE 0", None),
        ("SIZE -1", None),
        ("SIZE many", None),
        ("SIZE 10 20", None),
        ("SIZE ١٠٠", None),
        ("SIZE " + "9" * 20, int("9" * 20)),
        ("SIZE " + "9" * 21, None),
    ],
)
def test_the_size(line: str, expected: int | None) -> None:
    assert offered(line).size == expected


def test_limits_are_read_as_far_as_they_make_sense() -> None:
    assert offered("LIMITS RCPTMAX=20 MAILMAX=5 X= Y=z Q").limits == {"RCPTMAX": 20, "MAILMAX": 5}


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "\x00",
        "\x1b]0;owned\x07",
        "-DASH",
        "X_Y",
        "ünïcode",
        "\ufffd",
        "AUTH\rPLAIN",
        "=",
        "STARTTLS\x0b\x0cX",
    ],
)
def test_a_malformed_keyword_is_ignored(line: str) -> None:
    assert list(offered(line, "PIPELINING")) == ["PIPELINING"]


def test_of_two_the_first_counts() -> None:
    assert offered("SIZE 10", "SIZE 99999").size == 10


def test_the_last_line_of_a_legal_reply_of_50_kb_counts() -> None:
    found = offered(*(f"X-KEYWORD-{i}" for i in range(5000)), "STARTTLS")
    assert "STARTTLS" in found


def test_withheld_keywords_are_gone() -> None:
    found = offered("PIPELINING", "CHUNKING").without("PIPELINING")
    assert (found.pipelining, found.chunking) == (False, True)


def test_the_repr_is_safe_to_show() -> None:
    assert repr(Capabilities()) == "<Capabilities none>"
    assert repr(offered("STARTTLS", "SIZE 1")) == "<Capabilities STARTTLS SIZE>"


@given(st.lists(st.text(max_size=40), max_size=20))
def test_any_text_is_read_without_an_exception(lines: list[str]) -> None:
    found = Capabilities.from_reply(Reply(250, ("x", *lines)))
    assert isinstance(found.auth, tuple)
    assert found.size is None or found.size > 0
    assert all(k.isascii() and k == k.upper() for k in found)
    assert all(n > 0 for n in found.limits.values())
    repr(found)


@given(st.binary(max_size=200))
def test_any_octets_are_read_without_an_exception(octets: bytes) -> None:
    for reply in ReplyParser().feed(b"250-" + octets.replace(b"\n", b"\n250-") + b"\r\n250 x\r\n"):
        list(Capabilities.from_reply(reply))
