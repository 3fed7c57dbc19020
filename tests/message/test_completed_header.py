"""The header as it is sent: complete, without Bcc, otherwise unchanged."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.message.messages import DATE, SECONDS, content, from_header, prepared
from twisted_sendmail import InvalidAddress, InvalidInput, InvalidMessage, ReversePath
from twisted_sendmail.message import Header, HeaderFixer, new_message_id
from twisted_sendmail.message.header_fixer import message_id
from twisted_sendmail.smtp import Repair

WHOLE = b"Date: x\r\nMessage-ID: <i@x>\r\n"


def completed(header: Header) -> Header:
    """*header* completed for a message from example.org."""
    fixer = HeaderFixer(SECONDS, "localhost", ReversePath.parse("a@example.org"), add_from=False)
    return fixer.completed(header)


def fixed(header: bytes) -> bytes:
    """*header* completed, with ``ID`` for a new Message-ID."""
    made = bytes(completed(Header.parse(header)))
    return re.sub(rb"<[0-9a-f]{32}@example\.org>", b"ID", made)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", DATE + b"Message-ID: ID\r\n"),
        (WHOLE, WHOLE),
        (b"Message-ID: <i@x>\r\n", b"Message-ID: <i@x>\r\n" + DATE),
        (b"date : x\r\n", b"date : x\r\nMessage-ID: ID\r\n"),
        (b"A: x\r\n", b"A: x\r\n" + DATE + b"Message-ID: ID\r\n"),
        (b"A: x\r\nhello\r\n", b"A: x\r\n" + DATE + b"Message-ID: ID\r\nhello\r\n"),
        (
            WHOLE + b"Resent-To: a@x\r\n",
            WHOLE + b"Resent-" + DATE + b"Resent-Message-ID: ID\r\nResent-To: a@x\r\n",
        ),
        (
            b"Resent-To: a@x\r\nResent-Date: y\r\n" + WHOLE,
            b"Resent-Message-ID: ID\r\nResent-To: a@x\r\nResent-Date: y\r\n" + WHOLE,
        ),
        (
            b"Resent-To: a@x\r\nReceived: r\r\nResent-Date: y\r\nResent-Message-ID: <j@x>\r\n"
            + WHOLE,
            b"Resent-" + DATE + b"Resent-Message-ID: ID\r\nResent-To: a@x\r\nReceived: r\r\n"
            b"Resent-Date: y\r\nResent-Message-ID: <j@x>\r\n" + WHOLE,
        ),
    ],
)
def test_what_is_missing_is_added(header: bytes, expected: bytes) -> None:
    assert fixed(header) == expected


BLIND = [
    b"Bcc\r\n : secret@x\r\n",
    b"RESENT-bcc \r\n\t \r\n :\r\n secret@x\r\n",
    b"Bcc: secret@x\r\n",
    b"bcc: secret@x\r\n",
    b"BCC:secret@x\r\n",
    b"bCc \t: secret@x\r\n",
    b"Bcc:\r\n secret@x\r\n",
    b"Bcc: a@x,\r\n\tsecret@x,\r\n b@x\r\n",
    b"Bcc: a@x,\r\n \r\n secret@x\r\n",
    b"Bcc: \xff secret@x\r\n",
    b"Resent-Bcc: secret@x\r\n",
    b"RESENT-BCC : secret@x\r\n",
    b"Bcc: secret@x\r\nBcc: secret@x\r\n",
]


@pytest.mark.parametrize("blind", BLIND)
@pytest.mark.parametrize(
    "before", [b"", b"To: a@x\r\n", b"hello, no field\r\n", b"To: a@x,\r\n b@x\r\n"]
)
def test_a_blind_copy_stays_blind(blind: bytes, before: bytes) -> None:
    made = fixed(b"From: f@x\r\n" + before + blind + b"Cc: c@x\r\n")
    assert b"secret" not in made
    assert [b"From: f@x\r\n", before, b"Cc: c@x\r\n"] == [
        octets for octets in (b"From: f@x\r\n", before, b"Cc: c@x\r\n") if octets in made
    ]


@pytest.mark.parametrize("blind", BLIND)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\0\n"])
def test_a_blind_copy_stays_blind_whatever_the_line_ends(blind: bytes, end: bytes) -> None:
    """Lines are made canonical first, so that no repair can make a field afterwards."""
    message = (b"From: f@x\r\n" + blind + b"\r\nbody\r\n").replace(b"\r\n", end)
    message = message.replace(b"From", b"Fr\0om")
    assert b"secret" not in content(prepared(message, policy=Repair.REPAIR))


@pytest.mark.parametrize(
    "octets",
    [
        b"A: x\r\n\r\nBcc: seen@x\r\n",
        b"no header\r\nBcc: seen@x\r\n\r\n",
        b"A: x\r\n Bcc: seen@x\r\n\r\n",
        b"X-Bcc: seen@x\r\n\r\n",
        b"Bcc-Not: seen@x\r\n\r\n",
    ],
)
def test_what_only_looks_like_a_blind_copy_is_kept(octets: bytes) -> None:
    assert b"seen@x" in content(prepared(octets))


FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"To", b"Bcc", b"bcc", b"RESENT-BCC", b"Date", b"Resent-To", b"X"]),
        st.sampled_from([b":", b" :", b"\t:"]),
        st.sampled_from([b"\r\n", b" x\r\n", b"\r\n y\r\n", b" \xff,\r\n\t:\r\n"]),
    ).map(b"".join),
    max_size=8,
)


@given(FIELDS)
def test_fields_that_are_there_keep_every_octet_and_their_order(fields: list[bytes]) -> None:
    kept = [field for field in fields if b"bcc" not in field.lower()]
    made = completed(Header.parse(b"".join(fields)))
    there = [field.octets for field in made.fields]
    added = [octets for octets in there if octets not in kept]
    assert kept == [octets for octets in there if octets in kept]
    assert all(re.match(rb"(Resent-)?(Date|Message-ID): ", octets) for octets in added)
    assert {"date", "message-id"} <= {field.name for field in made.fields}


def test_completing_twice_is_completing_once() -> None:
    once = completed(Header.parse(b"Resent-To: a@x\r\nTo: b@x\r\n"))
    assert bytes(once) == bytes(completed(once))


def test_a_new_message_id_is_new_each_time() -> None:
    made = {new_message_id("bücher.example") for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"<[0-9a-f]{32}@xn--bcher-kva\.example>", one) for one in made)
    with pytest.raises(InvalidAddress):
        new_message_id("a\r\nb")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"<i@x>", "<i@x>"),
        (b"(c) <i@x> (d)", "<i@x>"),
        (b"\r\n <i@x>", "<i@x>"),
        (b"i@x", None),
        ("<í@x>".encode(), "<í@x>"),
        (b"<i\xff@x>", None),
        (b"<i\x1b[2J@x>", None),
        (b"<a b>", None),
    ],
)
def test_the_message_id(value: bytes, expected: str | None) -> None:
    assert message_id(Header.parse(b"Message-ID: " + value + b"\r\n")) == expected
    assert message_id(Header.parse(b"A: x\r\n")) is None


@pytest.mark.parametrize(
    ("header", "sender", "recipients"),
    [
        ("From: f@x\nTo: a@x", "f@x", ["a@x"]),
        ("From: F <f@x>\nSender: s@x\nTo: a@x", "s@x", ["a@x"]),
        ("From: f@x, g@x\nSender: s@x\nTo: a@x", "s@x", ["a@x"]),
        ("From: f@x\nSender:\nTo: a@x", "f@x", ["a@x"]),
        ("From: staff: f@x;\nTo: a@x", "f@x", ["a@x"]),
        (
            "From: f@x\nTo: a@x\nTo: b@x\nCC: c@x\nbcc: d@x,\n e@x",
            "f@x",
            ["a@x", "b@x", "c@x", "d@x", "e@x"],
        ),
        ("From: f@x\nTo: undisclosed-recipients:;\nBcc: d@x", "f@x", ["d@x"]),
        ("From: f@x\nTo: a@x\nResent-From: r@x\nResent-To: q@x", "r@x", ["q@x"]),
        (
            "Resent-Sender: s@x\nResent-From: r@x, t@x\nResent-Bcc: q@x\nFrom: f@x\nTo: a@x",
            "s@x",
            ["q@x"],
        ),
        (
            "Resent-To: new@x\nResent-From: r@x\nResent-To: old@x\nResent-From: o@x\nFrom: f@x",
            "r@x",
            ["new@x"],
        ),
        (
            "Resent-From: r@x\nResent-Cc: new@x\nReceived: x\nResent-From: o@x\nResent-To: old@x\nFrom: f@x",
            "r@x",
            ["new@x"],
        ),
        ("From: jürgen@bücher.example\nTo: a@x", "jürgen@bücher.example", ["a@x"]),
        ("From: f@x\nTo: a@x, A <a@X>", "f@x", ["a@x"]),
    ],
)
def test_the_envelope_from_the_header(header: str, sender: str, recipients: list[str]) -> None:
    prepared_message = from_header(f"{header}\n\nbody\n")
    assert sender == str(prepared_message.envelope.sender)
    assert recipients == [str(recipient) for recipient in prepared_message.envelope.recipients]
    assert b"bcc:" not in content(prepared_message).lower()


@pytest.mark.parametrize(
    ("header", "error", "expected"),
    [
        ("To: a@x", InvalidMessage, "no sender; give the sender"),
        ("From: f@x, g@x\nTo: a@x", InvalidMessage, "From names 2; give the sender"),
        ("From: nobody:;\nTo: a@x", InvalidMessage, "no sender"),
        ("From: f@x", InvalidInput, "no recipient; give recipients"),
        ("From: f@x\nTo: undisclosed-recipients:;", InvalidInput, "no recipient"),
        ("From: f@x\nTo: b", InvalidAddress, "address 'b' in To"),
        ("From: f\nTo: a@x", InvalidAddress, "address 'f' in From"),
        ("From: f@x\nCc: a b@x", InvalidAddress, "in Cc"),
        ("Resent-From: f@x\nResent-To: b\nTo: a@x", InvalidAddress, "in Resent-To"),
        ("Resent-To: b@x\nFrom: f@x\nTo: a@x", InvalidMessage, "no sender"),
        (
            "From: f@x\nHello, you\nTo: a@x",
            InvalidMessage,
            "'Hello, you' is no field; put an empty",
        ),
    ],
)
def test_a_header_that_does_not_say(header: str, error: type[Exception], expected: str) -> None:
    with pytest.raises(error) as caught:
        from_header(f"{header}\n\nbody\n")
    assert expected in str(caught.value)


def test_what_is_given_counts_more_than_the_header() -> None:
    message = "From: f@x\nTo: a@x\nBcc: d@x\n\nbody\n"
    prepared_message = from_header(message, sender="s@x")
    assert (
        str(prepared_message.envelope.sender),
        [str(recipient) for recipient in prepared_message.envelope.recipients],
    ) == ("s@x", ["a@x", "d@x"])
    prepared_message = from_header(message, recipients=["r@x"])
    assert (
        str(prepared_message.envelope.sender),
        [str(recipient) for recipient in prepared_message.envelope.recipients],
    ) == ("f@x", ["r@x"])
    assert str(from_header(message, sender="").envelope.sender) == "<>"
    assert str(from_header(message, sender="<>").envelope.sender) == "<>"


def test_addresses_nobody_asks_for_are_not_judged() -> None:
    assert b"To: b\r\n" in content(prepared("From: f\nTo: b\nBcc: <<\n\nbody\n"))
