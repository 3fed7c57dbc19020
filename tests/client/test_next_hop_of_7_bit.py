"""A server without 8BITMIME gets the header in ASCII, with the same meaning."""

from __future__ import annotations

import re
from contextlib import suppress
from email import message_from_bytes, message_from_string
from email.header import decode_header, make_header
from email.policy import default
from email.utils import getaddresses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.growth import assert_no_square
from twisted_sendmail import ExtensionUnavailable, ServerSettings
from twisted_sendmail.testing import MemoryServer

SEVEN_BIT = ServerSettings(
    extensions=("PIPELINING", "ENHANCEDSTATUSCODES"), require_tls=False, max_header=8_000_000
)
WORD = re.compile(rb"=\?[^?\s]+\?[BbQq]\?[^?\s]*\?=")


def arrived(message: Any) -> bytes:
    """What the next hop gets."""
    octets = message.encode() if isinstance(message, str) else message
    with MemoryServer(tls=False, settings=SEVEN_BIT) as server:
        server.send(octets, sender="s@example.org", recipients="r@example.net", complete=False)
        (received,) = server.messages
    content = received.content
    assert content.isascii()
    assert all(len(word) <= 75 for word in WORD.findall(content))
    return content


def header(message: str | bytes) -> str:
    return arrived(message).partition(b"\r\n\r\n")[0].decode("ascii")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Subject: Gr\u00fc\u00dfe", "Subject: =?utf-8?b?R3LDvMOfZQ==?="),
        ("Subject:  plain,  then \u00e4", "Subject:  plain,  then =?utf-8?b?w6Q=?="),
        (
            'To: a@b.example, J\u00fcrgen <j@c.example>,\r\n\t"x y" <d@e.example>',
            'To: a@b.example, =?utf-8?q?J=C3=BCrgen?= <j@c.example>,\r\n\t"x y" <d@e.example>',
        ),
        (
            'From: "M\u00fcller, J\u00f6rg"<m@x.example>',
            "From: =?utf-8?b?TcO8bGxlciwgSsO2cmc=?= <m@x.example>",
        ),
        (
            "Cc: a@b.example (\u00c4rger (in) Ruhe)",
            "Cc: a@b.example (=?utf-8?q?=C3=84rger?= (in) Ruhe)",
        ),
        ("Cc: a@b\u00fccher.example", "Cc: a@xn--bcher-kva.example"),
        (
            "To: G\u00e4ste: <a@b\u00fc.example>, c@d.example;",
            "To: =?utf-8?q?G=C3=A4ste?= : <a@xn--b-eha.example>, c@d.example;",
        ),
        (
            "Date: Mon, 1 Jan 2024 00:00:00 +0100 (Mitteleurop\u00e4isch)",
            "Date: Mon, 1 Jan 2024 00:00:00 +0100 (=?utf-8?q?Mitteleurop=C3=A4isch?=)",
        ),
        ("Keywords: a, sch\u00f6n, b", "Keywords: a, =?utf-8?q?sch=C3=B6n?= , b"),
        (
            'Content-Disposition: attachment; filename="\u00dc b.txt"; size=3',
            "Content-Disposition: attachment; filename*=utf-8''%C3%9C%20b.txt; size=3",
        ),
        (
            'Content-Type: text/plain; charset=utf-8; name="\u20ac"',
            "Content-Type: text/plain; charset=utf-8; name*=utf-8''%E2%82%AC",
        ),
        ("Subject: =?utf-8?q?=C3=A4?= \u00f6", "Subject: =?utf-8?q?=C3=A4?= =?utf-8?q?_=C3=B6?="),
    ],
)
def test_only_what_is_not_ascii_is_encoded(field: str, expected: str) -> None:
    around = ("Received: x;\r\n  odd   folding", "X-Odd:a\tb  ")
    sent = "\r\n".join((around[0], field, around[1])) + "\r\n\r\nx\r\n"
    assert "\r\n".join((around[0], expected, around[1])) == header(sent)


def test_octets_that_are_no_utf8_keep_their_values() -> None:
    assert header(b"Subject: Gr\xfc\xdfe\r\n\r\nx\r\n") == "Subject: =?unknown-8bit?q?Gr=FC=DFe?="
    (shown,) = header(b"X: a\r\nContent-Type: text/plain; name=\xfc\r\n\r\nx\r\n").splitlines()[1:]
    assert shown == "Content-Type: text/plain; name*=unknown-8bit''%FC"


@pytest.mark.parametrize(
    "field", ["From: j\u00fc@x.example", "To: a <\u00e4@b.example>", "Cc: \u00e4"]
)
def test_an_address_that_has_no_form_in_ascii_is_not_changed(field: str) -> None:
    with pytest.raises(ExtensionUnavailable):
        arrived(f"{field}\r\n\r\nx\r\n")


def test_250_addresses_and_one_name() -> None:
    many = [f"Person {n} <p{n}@example.net>" for n in range(250)]
    many[200] = "J\u00fcrgen <p200@example.net>"
    got = header("To: " + ", ".join(many) + "\r\n\r\nx\r\n")
    assert max(map(len, got.split("\r\n"))) <= 998
    parsed: Any = message_from_string(got + "\r\n\r\n", policy=default)
    assert [f"p{n}@example.net" for n in range(250)] == [
        a.addr_spec for a in parsed["To"].addresses
    ]
    assert parsed["To"].addresses[200].display_name == "J\u00fcrgen"
    assert got.count("=?") == 1


# -- the meaning stays ----------------------------------------------------------------------

TEXT = st.text(
    st.sampled_from("aZ09 .,-_=?'!\u00e4\u00df\u20ac\u65e5\U0001f600"), min_size=1, max_size=90
).filter(str.strip)
NAME = TEXT.map(lambda text: " ".join(text.split()))


def parsed(octets: bytes) -> Any:
    return message_from_bytes(octets, policy=default)


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_text_means_the_same(text: str) -> None:
    text = " ".join(text.split()).replace("=?", "=")
    got = parsed(arrived(f"Subject: {text}\r\nX: \u00e4\r\n\r\nx\r\n"))
    assert text == got["Subject"]
    assert got["X"] == "\u00e4"


@settings(max_examples=150, deadline=None)
@given(st.lists(NAME, min_size=1, max_size=6))
def test_names_mean_the_same_and_addresses_stay(names: list[str]) -> None:
    boxes = [f'"{name}" <a{n}@example.net>' for n, name in enumerate(names)]
    octets = arrived(f"To: {', '.join(boxes)}\r\nX: \u00e4\r\n\r\nx\r\n")
    got = parsed(octets)["To"].addresses
    assert [f"a{n}@example.net" for n in range(len(names))] == [each.addr_spec for each in got]
    # In a phrase, policy.default of Python 3.11 keeps the white space between encoded-words.
    value = message_from_bytes(octets)["To"].replace("\r\n", "")
    assert names == [str(make_header(decode_header(name))) for name, _ in getaddresses([value])]


@settings(max_examples=150, deadline=None)
@given(NAME)
def test_file_names_mean_the_same(name: str) -> None:
    field = f'Content-Disposition: attachment; filename="{name}"'
    got = parsed(arrived(f"{field}\r\nX: \u00e4\r\n\r\nx\r\n"))
    assert name == got.get_filename()


PIECES = st.lists(
    st.sampled_from(
        [
            '"',
            "(",
            ")",
            "<",
            ">",
            "@",
            ",",
            ";",
            ":",
            "\\",
            "[",
            "]",
            "=",
            "*0",
            "*",
            " ",
            "\r\n ",
            "a",
            "b.example",
            "\u00e4",
            "\udcff",
            "=?utf-8?q?x?=",
            "name",
            "multipart/mixed",
            "boundary",
        ]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["To", "Subject", "Content-Type", "Keywords", "Received", "Date"]), PIECES)
def test_garbage_becomes_ascii_or_is_refused(name: str, value: str) -> None:
    octets = f"{name}: {value}x\r\nA: b\r\n\r\nx\r\n".encode("utf-8", "surrogateescape")
    try:
        got = arrived(octets)
    except ExtensionUnavailable:
        assert name == "To"
        return
    assert got.endswith(b"\r\nA: b\r\n\r\nx\r\n")
    if octets.isascii():
        assert octets == got


@pytest.mark.parametrize("end", [b"", b"\xc3\xbc\r\n"])
def test_a_message_that_is_read_once_may_have_a_header_in_utf8_but_no_8_bit_body(
    end: bytes,
) -> None:
    body = b"\r\n" + b"0123456789abcdef\r\n" * 100_000
    pieces = [b"Subject: \xc3\xbc\r\n" + body, end]
    if end:
        with pytest.raises(ExtensionUnavailable, match="8BITMIME is needed and not offered"):
            arrived(iter(pieces))
    else:
        assert arrived(iter(pieces)) == b"Subject: =?utf-8?b?w7w=?=\r\n" + body


# -- the cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["To", "Subject", "Content-Type", "Received"])
@pytest.mark.parametrize(
    "unit",
    [
        "(a)",
        "(",
        '"',
        '"\\',
        ";",
        ",",
        ":",
        "a;",
        "<",
        "\\",
        "[",
        " ",
        "\r\n ",
        "(\u00e4",
        "\u00e4",
        "\u00e4 a ",
        "a*0=\u00e4;",
    ],
)
def test_the_cost_grows_with_the_length(name: str, unit: str) -> None:
    def send(size: int) -> None:
        header = f"{name}: {unit * (size // len(unit))}\u00e4"
        with suppress(ExtensionUnavailable):
            arrived(f"{header}\r\n\r\nx\r\n".encode())

    assert_no_square(send, 15_000)
