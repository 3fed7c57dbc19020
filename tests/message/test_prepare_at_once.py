"""Small messages in bytes are prepared synchronously, with the same result."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.message.messages import SECONDS, content, prepared
from twisted_sendmail import Envelope, InvalidInput
from twisted_sendmail.message import prepare_small
from twisted_sendmail.message.header import LONG_HEADER
from twisted_sendmail.message.prepared import SMALL_SIZE

ENVELOPE = Envelope("a@example.org", "b@example.net")


def made(octets: bytes) -> bytes:
    return re.sub(rb"<[0-9a-f]{32}@", b"<ID@", octets)


WHOLE = b"From: f@x\r\nDate: today\r\nMessage-ID: <i@x>\r\n"

LINES = st.sampled_from(
    [
        b"From: f@x",
        b"Date: today",
        b"date : today",
        b"Message-ID: <i@x>",
        b"message-id:<i@x>",
        b"Message-ID:",
        b" <folded@x>",
        b"Message-ID: <i@x> (why)",
        b"Message-ID: no",
        b"Bcc: secret@x",
        b"BCC : secret@x",
        b"Resent-To: r@x",
        b"Subject: \xc3\xa9",
        b"Subject: \xe9",
        b"no field",
        b" folded",
        b"",
        b"",
        b"From here on",
        b"\xef\xbb\xbfFrom: f@x",
        b".",
        b"body \xc3\xa9",
        b"\0",
        b"\r",
    ]
)
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b""])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Messages that are nearly, and sometimes quite, ready."""
    begin = draw(st.sampled_from([b"", WHOLE, WHOLE[11:]]))
    return begin + b"".join(draw(st.lists(st.builds(bytes.__add__, LINES, ENDS), max_size=8)))


@given(messages(), st.booleans())
@example(WHOLE + b"\r\nbody\r\n", True)
@example(b"Bcc: x@x\r\n" + WHOLE + b"\r\n", True)
@example(WHOLE + b" <folded@x>\r\n\r\n", False)
@example(WHOLE + b" <folded@x>\r\nMessage-ID: <second@x>\r\n\r\n", True)
@example(WHOLE + b"Message-ID: <second@x>\r\n\r\n", True)
@example(WHOLE + b"Bcc\r\n : x@x\r\n\r\n", True)
@example(WHOLE + b"Subject: \xc3\xa9\r\n\r\n", False)
def test_at_once_comes_the_same_message(message: bytes, complete: bool) -> None:
    small = prepare_small(message, ENVELOPE, now=SECONDS, complete=complete)
    if small is None:
        return
    other = prepared(message, complete=complete)
    assert made(content(small)) == made(content(other))
    assert [other.size, other.eight_bit, other.smtputf8, other.rewindable] == [
        small.size,
        small.eight_bit,
        small.smtputf8,
        small.rewindable,
    ]
    assert made((small.message_id or "").encode()) == made((other.message_id or "").encode())


@given(messages())
def test_a_message_that_cannot_be_sent_is_not_prepared_at_once(message: bytes) -> None:
    try:
        prepared(message)
    except InvalidInput:
        assert prepare_small(message, ENVELOPE, now=SECONDS, complete=True) is None


@pytest.mark.parametrize("body", [b"", b"text\r\n", b"\xc3\xa9\r\n", b".\r\n"])
def test_a_complete_message_stays_as_it_is(body: bytes) -> None:
    message = WHOLE + b"\r\n" + body
    small = prepare_small(message, ENVELOPE, now=SECONDS, complete=True)
    assert small is not None
    assert message is small.small
    assert small.message_id == "<i@x>"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        "text",
        bytearray(WHOLE + b"\r\n"),
        WHOLE + b"\r\nno end",
        WHOLE + b"\r\na\nb\r\n",
        WHOLE + b"\r\na\rb\r\n",
        WHOLE + b"\r\na\0b\r\n",
        WHOLE + b"\r\n" + b"x" * SMALL_SIZE + b"\r\n",
        b"X: " + b"x" * LONG_HEADER + b"\r\n\r\n",
        b"X: x\r\n" * 2001,
    ],
)
def test_only_small_canonical_octets_are_prepared_at_once(message: object) -> None:
    assert prepare_small(message, ENVELOPE, now=SECONDS, complete=True) is None
