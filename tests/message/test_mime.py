"""MIME objects are serialized for SMTP, and the caller's objects do not change."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.header import Header, decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTPUTF8, default
from email.utils import getaddresses
from typing import Any

import pytest

from tests.message.messages import content, from_header, prepared
from twisted_sendmail import InvalidAddress, InvalidMessage
from twisted_sendmail.message.mime import bulk, written


def an_email(**fields: Any) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"From": "f@example.org", "To": "a@example.net", **fields}.items():
        message[name.replace("_", "-")] = value
    message.set_content("Grüße\n.\n..two\n")
    return message


def addresses(prepared_message: Any) -> list[str]:
    return [str(prepared_message.envelope.sender), *map(str, prepared_message.envelope.recipients)]


def test_text_and_attachments() -> None:
    message = an_email(Subject="Grüße", Bcc="b@example.net", Cc='"Doe, J" <c@example.net>')
    message.add_alternative("<p>Grüße</p>", subtype="html")
    message.add_attachment(bytes(range(256)) * 50, "application", "pdf", filename="Übersicht.pdf")
    message.add_attachment("plain\r\n", filename="a.txt")
    prepared_message = from_header(message)
    assert addresses(prepared_message) == [
        "f@example.org",
        "a@example.net",
        "c@example.net",
        "b@example.net",
    ]
    octets = content(prepared_message)
    assert (True, False, len(octets)) == (
        prepared_message.eight_bit,
        prepared_message.smtputf8,
        prepared_message.size,
    )
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert b"b@example.net" not in octets
    again: Any = message_from_bytes(octets, policy=default)
    text, html, pdf, plain = [part for part in again.walk() if not part.is_multipart()]
    assert (
        again["Subject"],
        text.get_content(),
        html.get_content(),
    ) == ("Grüße", "Grüße\r\n.\r\n..two\r\n", "<p>Grüße</p>\r\n")
    assert (bytes(range(256)) * 50, "Übersicht.pdf") == (pdf.get_content(), pdf.get_filename())
    assert (plain.get_content(), plain.get_filename()) == ("plain\r\n", "a.txt")


def test_the_callers_object_is_not_changed() -> None:
    message = an_email(Bcc="b@bücher.example")
    message.add_attachment(b"x", "application", "pdf")
    before, parts = message.items(), [part.items() for part in message.walk()]
    first, second = content(prepared(message)), content(prepared(message))
    assert (before, parts) == (message.items(), [part.items() for part in message.walk()])
    assert message.get_boundary() is None
    assert (
        first[first.index(b"Message-ID") :][:10],
        second[second.index(b"Message-ID") :][:10],
    ) == (b"Message-ID", b"Message-ID")


def test_a_legacy_message() -> None:
    message = MIMEMultipart()
    message["From"] = "f@example.org"
    message["To"] = "a@example.net"
    message["Subject"] = Header("Grüße", "utf-8")  # type: ignore[assignment]
    message.attach(MIMEText("From here\nGrüße\n", "plain", "utf-8"))
    message.attach(MIMEText("From here\n"))
    prepared_message = from_header(message)
    octets = content(prepared_message)
    assert addresses(prepared_message) == ["f@example.org", "a@example.net"]
    assert b"\r\nFrom here\r\n" in octets
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert b"Subject: =?utf-8?" in octets


def test_a_parsed_message_keeps_its_octets() -> None:
    raw = b"From: f@example.org\r\nTo: a@example.net\r\nX-Odd: a   b\r\n\r\n\xff\xfe\r\n"
    for policy in ({}, {"policy": default}):
        assert raw == written(message_from_bytes(raw, **policy))


def test_a_long_list_of_names_is_folded_and_read_back() -> None:
    people = [Address(f"Doe, J. {i}", f"user{i}", "example.net") for i in range(40)]
    prepared_message = from_header(an_email(Cc=people))
    expected = ["f@example.org", "a@example.net", *(f"user{i}@example.net" for i in range(40))]
    assert addresses(prepared_message) == expected
    assert max(map(len, content(prepared_message).split(b"\r\n"))) <= 78


def test_an_address_beyond_ascii_needs_smtputf8() -> None:
    prepared_message = from_header(an_email(Cc="Jürgen <jürgen@bücher.example>", Subject="Grüße"))
    assert prepared_message.smtputf8
    assert "Cc: Jürgen <jürgen@bücher.example>\r\n".encode() in content(prepared_message)
    assert addresses(prepared_message)[2] == "jürgen@bücher.example"


def test_a_domain_beyond_ascii_needs_nothing() -> None:
    to = "J. Grün <j@bücher.example>, x: k@почта.рф;"
    message = EmailMessage(policy=SMTPUTF8)
    message["Subject"], message["From"], message["To"] = "Grüße", "f@bücher.example", to
    prepared_message = from_header(message)
    assert not prepared_message.smtputf8
    octets = content(prepared_message)
    assert octets.isascii()
    assert b" <j@xn--bcher-kva.example>,\r\n x: k@xn--80a1acny.xn--p1ai;\r\n" in octets
    assert [line.partition(b":")[0] for line in octets.split(b"\r\n")[:3]] == [
        b"Subject",
        b"From",
        b"To",
    ]
    assert ["f@xn--bcher-kva.example", "j@xn--bcher-kva.example", "k@xn--80a1acny.xn--p1ai"] == (
        addresses(prepared_message)
    )


def test_a_domain_that_has_no_such_form_is_named() -> None:
    with pytest.raises(InvalidAddress, match="IDNA"):
        prepared(an_email(Cc="a@\uff45xample.org"))


@pytest.mark.parametrize("value", ["x\nBcc: b@example.net", "x\r\nEvil: y", "x\r\n\r\nbody"])
def test_a_value_cannot_make_fields(value: str) -> None:
    message = Message()
    message["From"], message["Subject"] = "f@example.org", value
    message.set_payload("hello")
    with pytest.raises(InvalidMessage):
        prepared(message)


def test_what_cannot_be_written() -> None:
    message = Message()
    message["From"] = "f@example.org"
    message.set_payload(5)  # type: ignore[call-overload]
    with pytest.raises(InvalidMessage, match="cannot be written out: ") as caught:
        prepared(message)
    assert None is not caught.value.__cause__


def test_its_bulk_is_about_its_size() -> None:
    message = an_email()
    message.add_attachment(bytes(3_000_000), "application", "pdf")
    assert 0.9 < bulk(message) / len(written(message)) <= 1


# -- folding ----------------------------------------------------------------------------------


def field_of(message: Any, name: str) -> str:
    """The lines of a field as they are sent."""
    octets = content(prepared(message))
    (field,) = [
        f
        for f in TEXT_OF_FIELDS.findall(octets)
        if f.lower().startswith(name.lower().encode() + b":")
    ]
    return bytes(field).decode("utf-8", "surrogateescape").removesuffix("\r\n")


TEXT_OF_FIELDS = re.compile(rb"[^\n]+\n(?:[ \t][^\n]*\n)*")
LONG = "u" * 120


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "List-Unsubscribe",
            f"<https://x.example/{LONG}>, <mailto:a@x.example>",
            f"<https://x.example/{LONG}>,\r\n <mailto:a@x.example>",
        ),
        ("In-Reply-To", f"<{LONG}@x.example>", f"<{LONG}@x.example>"),
        (
            "References",
            f"<1@x.example> <{LONG}@x.example> <2@x.example>",
            f"<1@x.example>\r\n <{LONG}@x.example>\r\n <2@x.example>",
        ),
        ("X-Token", LONG, LONG),
        ("Subject", f"a {LONG} b", f"a\r\n {LONG}\r\n b"),
        ("Supersedes", f"<{LONG}@x.example>", f"<{LONG}@x.example>"),
        ("Message-ID", f"<{LONG}@x.example>", f"<{LONG}@x.example>"),
        ("Archived-At", f"<https://x.example/{LONG}>", f"<https://x.example/{LONG}>"),
        ("Subject", "  two  blanks ", "  two  blanks "),
    ],
)
def test_a_value_that_may_not_be_encoded_stays_whole(name: str, value: str, expected: str) -> None:
    assert field_of(an_email(**{name: value}), name) == f"{name}: {expected}"


@pytest.mark.parametrize("words", [1, 8, 40])
def test_a_long_name_beyond_ascii_in_a_list_is_read_back(words: int) -> None:
    name = " ".join(["J\u00fcrgen"] * words)
    people = [
        Address(name, "a", "example.net"),
        Address("", "b", "x.example"),
        Address(f"{name}, J. (x)", "c", "x.example"),
    ]
    octets = field_of(an_email(Cc=people), "Cc").encode()
    assert octets.isascii()
    assert max(map(len, octets.split(b"\r\n"))) <= 78
    again: Any = message_from_bytes(octets + b"\r\n\r\n", policy=default)
    # The library keeps white space between encoded-words of a phrase, against RFC 2047 section 6.2.
    got = [
        (str(make_header(decode_header(each))), box) for each, box in getaddresses([again["Cc"]])
    ]
    assert [box for _, box in got] == ["a@example.net", "b@x.example", "c@x.example"]
    assert [name_.replace(" ", "") for name_, _ in got] == [
        each.display_name.replace(" ", "") for each in people
    ]


@pytest.mark.parametrize(
    "value", ["=?utf-8?q?J=C3=BCrgen?=", "=?utf-8?b?SsO8cmdlbiA8akB4LmV4YW1wbGU+?="]
)
def test_words_where_an_address_should_be_need_no_smtputf8(value: str) -> None:
    message = prepared(an_email(Reply_To=value))
    assert not message.smtputf8
    octets = content(message)
    (field,) = [line for line in octets.split(b"\r\n") if line.startswith(b"Reply-To: ")]
    decoded = str(make_header(decode_header(field[10:].decode("ascii"))))
    assert decoded == str(make_header(decode_header(value)))
    assert b"\r\n" + field + b"\r\n" in octets


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@x.example (Cron Daemon)", "a@x.example (Cron Daemon)"),
        ('"bad..dots"@x.example', '"bad..dots"@x.example'),
        ("=?utf-8?q?Doe=2C_J?= <m@x.example>", '"Doe, J" <m@x.example>'),
        ("=?utf-8?q?M=C3=BC=2C_J?= <m@x.example>", "=?utf-8?b?TcO8LCBK?= <m@x.example>"),
        ("undisclosed-recipients:;", "undisclosed-recipients:;"),
        ('"x" <root>, <>', '"x" <root>, <>'),
    ],
)
def test_names_and_addresses_stay_what_they_are(value: str, expected: str) -> None:
    assert field_of(an_email(Reply_To=value), "Reply-To") == f"Reply-To: {expected}"


def test_a_legacy_message_gets_names_and_not_addresses_encoded() -> None:
    message = MIMEText("x")
    message["From"] = "J\u00fcrgen <f@example.org>"
    message["To"] = Header("J\u00fcrgen <a@example.net>, b@example.net", "utf-8")  # type: ignore[assignment]
    assert field_of(message, "From") == "From: =?utf-8?q?J=C3=BCrgen?= <f@example.org>"
    assert addresses(from_header(message)) == ["f@example.org", "a@example.net", "b@example.net"]


PARSED = (
    b"Received: x;\r\n\tMon,  1 Jan\r\nFrom: =?utf-8?q?J=C3=BCrgen?=\r\n"
    b"To: odd  <a@x.example> ,\r\n b@x.example\r\nSubject: two  blanks "
    + LONG.encode()
    + b" \xc3\xbc\xff x\r\nList-Unsubscribe: <https://x.example/"
    + LONG.encode()
    + b">\r\nReferences: "
    + b" <1@x.example>" * 60
    + b"\r\nDate: 1 Jan 2026 00:00 GMT\r\nMessage-ID: <1@x.example>\r\nX-Odd: a   b  \r\n"
    b"Content-Type: multipart/mixed;\r\n  boundary=b\r\n\r\n"
    b"--b\r\nContent-Disposition: attachment; filename=\xc3\xbc\r\nX-Odd: "
    + LONG.encode()
    + b"\r\n\r\nx\r\n--b--\r\n"
)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("policy", [{}, {"policy": default}, {"policy": SMTPUTF8}])
def test_a_parsed_message_keeps_its_header(policy: dict[str, Any], line_end: bytes) -> None:
    raw = PARSED.replace(b"References:  ", b"References: ")
    message: Any = message_from_bytes(raw.replace(b"\r\n", line_end), **policy)
    assert content(prepared(message)) == raw


def test_a_field_that_was_set_in_a_parsed_message_is_the_only_one_that_changes() -> None:
    raw = PARSED.replace(b"References:  ", b"References: ")
    message: Any = message_from_bytes(raw, policy=default)
    message.replace_header("X-Odd", "Gr\u00fc\u00dfe")
    assert content(prepared(message)) == raw.replace(
        b"X-Odd: a   b  ", b"X-Odd: =?utf-8?b?R3LDvMOfZQ==?="
    )


def test_text_without_a_charset_is_an_error_with_the_remedy() -> None:
    message = Message()
    message.set_payload("Grüße")
    with pytest.raises(InvalidMessage, match=r'set_payload\(text, "utf-8"\)$'):
        written(message)
