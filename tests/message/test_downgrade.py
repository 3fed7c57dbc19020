"""A server without 8BITMIME gets the same content in ASCII, or nothing."""

from __future__ import annotations

import base64
import itertools
import re
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.message.messages import content, prepared
from tests.pure import run
from twisted_sendmail.message import PreparedMessage
from twisted_sendmail.message.downgrade import reencoded

TEXT = "Grüße\r\n.\r\nFrom here  \r\n"
FORM = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"


def ascii_of(octets: bytes) -> bytes:
    encoded = reencoded(octets)
    assert encoded is not None
    assert encoded.isascii()
    assert b"\n" not in encoded.replace(b"\r\n", b"")
    assert b"\r" not in encoded.replace(b"\r\n", b"")
    assert max(map(len, encoded.split(b"\r\n"))) <= 998
    return encoded


def for_7_bits(message: PreparedMessage, *, smtputf8: bool = False) -> PreparedMessage:
    return run(message.fitted(eight_bit_mime=False, smtputf8=smtputf8))


def leaves(octets: bytes) -> list[bytes]:
    """What is in a message, decoded."""
    parsed: Any = message_from_bytes(octets, policy=default)
    return [part.get_payload(decode=True) for part in parsed.walk() if not part.is_multipart()]


def test_ascii_stays_as_it_is() -> None:
    assert reencoded(b"A: x\r\n\r\nbody\r\n") == b"A: x\r\n\r\nbody\r\n"


def test_text_becomes_quoted_printable() -> None:
    octets = (
        b"X-Odd:  a   b\r\n" + FORM + b"Content-Transfer-Encoding: 8BIT\r\n\r\n" + TEXT.encode()
    )
    encoded = ascii_of(octets)
    assert encoded == (
        b"X-Odd:  a   b\r\n" + FORM + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"Gr=C3=BC=C3=9Fe\r\n=2E\r\nFrom here =20\r\n"
    )
    assert leaves(octets) == leaves(encoded)


def test_text_that_is_mostly_8_bit_becomes_base64() -> None:
    octets = FORM + b"\r\n" + ("привет мир\r\n" * 20).encode()
    encoded = ascii_of(octets)
    assert b"Content-Transfer-Encoding: base64\r\n" in encoded
    assert leaves(octets) == leaves(encoded)


def test_what_is_no_text_becomes_base64() -> None:
    octets = b"Content-Type: application/x\r\nMIME-Version: 1.0\r\n\r\n" + b"a\xff" * 500 + b"\r\n"
    encoded = ascii_of(octets)
    assert b"base64" in encoded
    assert leaves(octets) == leaves(encoded)


@pytest.mark.parametrize(
    ("body", "charset"), [(TEXT.encode(), b"utf-8"), (b"Gr\xfc\xdfe\r\n", b"unknown-8bit")]
)
@pytest.mark.parametrize("header", [b"Subject: x\r\n", b""])
def test_a_message_without_mime_gets_it(header: bytes, body: bytes, charset: bytes) -> None:
    encoded = ascii_of(header + b"\r\n" + body)
    assert encoded.startswith(
        header + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=" + charset + b"\r\n"
    )
    assert [body] == leaves(encoded)


def multipart(*parts: bytes, boundary: bytes = b"b", kind: bytes = b"mixed") -> bytes:
    between = b"\r\n--" + boundary + b"\r\n"
    return (
        b"Content-Type: multipart/" + kind + b'; boundary="' + boundary + b'"\r\n'
        b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\npreamble"
        + b"".join(between + part for part in parts)
        + b"\r\n--"
        + boundary
        + b"--\r\nepilogue\r\n"
    )


PLAIN = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"


def test_only_the_parts_that_have_to_are_encoded() -> None:
    untouched = b"content-type:  text/plain;\r\n\tcharset=us-ascii\r\n\r\nplain  \r\n=C3"
    encoded = ascii_of(multipart(untouched, PLAIN + b"Gr\xc3\xbc\xc3\x9fe", b"\r\n\xff\xfe"))
    assert encoded == multipart(
        untouched,
        PLAIN.replace(b"8bit", b"quoted-printable") + b"Gr=C3=BC=C3=9Fe",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=FF=FE",
    ).replace(b"8bit", b"7bit", 1)


def test_parts_in_parts_and_messages_in_messages() -> None:
    inner = b"Subject: inner\r\n\r\nGr\xc3\xbc\xc3\x9fe"
    octets = multipart(
        multipart(PLAIN + b"\xc3\xbc", b"\r\nx", boundary=b"b2", kind=b"alternative"),
        b"Content-Type: message/rfc822\r\n\r\n" + inner,
    )
    encoded = ascii_of(octets)
    assert leaves(octets)[:2] == leaves(encoded)[:2]
    assert b"8bit" not in encoded
    assert "Grüße".encode() == leaves(encoded)[2]


def test_a_part_of_a_digest_is_a_message_and_is_encoded_inside() -> None:
    octets = multipart(b"\r\nSubject: x\r\n\r\n\xc3\xbc", kind=b"digest")
    encoded = ascii_of(octets)
    assert b"\r\n\r\nSubject: x\r\nMIME-Version: 1.0\r\n" in encoded
    assert leaves(encoded) == leaves(octets)


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Transfer-Encoding: 8bit (as it is)\r\n",
        b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 8BIT\r\n",
    ],
)
def test_an_encoding_with_a_comment_or_named_twice_is_known(field: bytes) -> None:
    assert leaves(ascii_of(FORM + field + b"\r\n\xc3\xbc\r\n")) == [b"\xc3\xbc\r\n"]


@pytest.mark.parametrize(
    "octets",
    [
        b"DKIM-Signature: x\r\n\r\n\xff\r\n",
        b"dkim-signature : x\r\nSubject: \xc3\xbc\r\n\r\nx\r\n",
        b"ARC-Seal: x\r\n" + FORM + b"\r\n\xff\r\n",
        multipart(PLAIN + b"\xff", b"x", kind=b"signed"),
        multipart(PLAIN + b"\xff", b"x", kind=b"encrypted"),
        multipart(multipart(PLAIN + b"\xff", boundary=b"c", kind=b"signed")),
        multipart(b"Content-Type: message/rfc822\r\n\r\nDKIM-Signature: x\r\n\r\n\xff"),
        b"Content-Type: message/partial\r\n\r\n\xff\r\n",
        b"Content-Type: multipart/mixed\r\n\r\n\xff\r\n",
        b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n\xff\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n\xff\r\n",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\n\xff\r\n",
        b"Subject: x\r\nno field\r\n\r\n\xff\r\n",
        "From: jürgen@example.org\r\n\r\nx\r\n".encode(),
        multipart(b"x").replace(b"preamble", b"pr\xe9ambule"),
        multipart(PLAIN + b"\xff").replace(b"epilogue", b"\xe9"),
    ],
)
def test_what_would_break_is_left_alone(octets: bytes) -> None:
    assert reencoded(octets) is None


@pytest.mark.parametrize("kind", [b"global", b"global-headers", b"global-delivery-status"])
def test_what_is_international_and_cannot_be_rewritten_is_encoded_whole(kind: bytes) -> None:
    """As in a report about an address beyond ASCII, for a sender who has none such."""
    inner = "To: j\u00fcrgen@x.example\r\n\r\nGr\u00fc\u00dfe\r\n".encode()
    octets = multipart(b"Content-Type: message/" + kind + b"\r\n\r\n" + inner)
    encoded = ascii_of(octets)
    assert b"Content-Type: message/" + kind in encoded
    (body,) = re.findall(rb"Encoding: base64\r\n\r\n(.*?)\r\n--", encoded, re.DOTALL)
    assert inner.rstrip() == base64.b64decode(body).rstrip()


def test_fields_become_encoded_words() -> None:
    header = (
        "From: Jürgen <f@example.org>\r\nX-Odd:  a   b\r\nSubject: Grüße,\r\n viele\r\n"
        "To: =?utf-8?q?=C3=A4?= <a@example.net>, B <b@bücher.example>\r\n"
    )
    encoded = ascii_of(f"{header}\r\nx\r\n".encode())
    parsed: Any = message_from_bytes(encoded, policy=default)
    assert parsed["From"] == "Jürgen <f@example.org>"
    assert parsed["Subject"] == "Grüße, viele"
    assert b"X-Odd:  a   b\r\n" in encoded
    assert [a.addr_spec for a in parsed["To"].addresses] == [
        "a@example.net",
        "b@xn--bcher-kva.example",
    ]


def test_a_file_name_keeps_its_letters() -> None:
    octets = multipart('Content-Disposition: attachment; filename="Ü.txt"\r\n\r\nx'.encode())
    parsed: Any = message_from_bytes(ascii_of(octets), policy=default)
    assert [part.get_filename() for part in parsed.iter_parts()] == ["Ü.txt"]


def test_encoding_makes_no_delimiter() -> None:
    """A soft line break must not bring a boundary to the start of a line."""
    for width in range(60, 80):
        body = b"\xff" + b"x" * width + b"--b--"
        octets = multipart(PLAIN + body)
        assert [body] == leaves(ascii_of(octets))


def test_endless_nesting_ends() -> None:
    inner = PLAIN + b"\xff"
    for depth in range(200):
        inner = multipart(inner, boundary=b"b%d" % depth)
    assert reencoded(inner) is None


LINES = st.lists(
    st.sampled_from(
        [b"", b"x", b"\xc3\xbc", b"\xff", b"--b", b"--b--", b"--bc", b" ", b"x" * 100, b"."]
    )
).map(b"\r\n".join)


@given(LINES, st.sampled_from([b"text/plain", b"application/x", b"text/html; charset=latin-1"]))
def test_the_content_is_the_same(body: bytes, kind: bytes) -> None:
    octets = b"MIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\n\r\n" + body + b"\r\n"
    assert leaves(octets) == leaves(ascii_of(octets))


@given(st.lists(LINES, max_size=3))
def test_garbage_is_encoded_or_left_alone(bodies: list[bytes]) -> None:
    octets = multipart(*(PLAIN + body for body in bodies))
    encoded = reencoded(octets)
    if encoded is not None:
        assert encoded.isascii()
        assert leaves(octets) == leaves(encoded)


def test_a_letter_for_a_7_bit_server() -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "Jürgen <f@example.org>", "Grüße"
    message.set_content("Grüße\n")
    prepared_message = prepared(message)
    short = for_7_bits(prepared_message)
    assert (prepared_message.eight_bit, short.eight_bit, short.smtputf8) == (True, False, False)
    assert (prepared_message.envelope, prepared_message.message_id) == (
        short.envelope,
        short.message_id,
    )
    assert (short.size, short.small) == (len(content(short)), reencoded(content(prepared_message)))
    assert short is for_7_bits(short)
    text = prepared("Subject: Grüße\n\nGrüße\n", sender="jürgen@example.org")
    again = for_7_bits(text, smtputf8=True)
    assert again is not text
    assert (text.smtputf8, again.smtputf8) == (True, True)


def test_a_letter_that_needs_no_smtputf8_any_more() -> None:
    prepared_message = prepared("Subject: Grüße\n\nGrüße\n")
    short = for_7_bits(prepared_message)
    assert (prepared_message.smtputf8, short.smtputf8) == (True, False)


def test_a_letter_that_cannot() -> None:
    message = prepared(b"Content-Type: message/partial\r\n\r\n\xff\r\n")
    assert for_7_bits(message) is message
    message = prepared(itertools.repeat(b"\xff\r\n", 1_000_000))
    assert for_7_bits(message) is message


def test_a_line_of_a_message_without_a_header_is_no_signature() -> None:
    message = prepared(b"\r\nDKIM-Signature: a\r\n\r\n" + b"x" * 1200 + b"\r\n", complete=False)
    assert content(message.with_broken_lines()).endswith(b"x\r\n " + b"x" * 202 + b"\r\n")
