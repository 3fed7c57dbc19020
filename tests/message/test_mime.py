"""MIME objects are serialized for SMTP, and the caller's objects do not change."""

from __future__ import annotations

from email import message_from_bytes
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTPUTF8, default
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
