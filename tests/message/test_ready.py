"""The short way to a letter: taken only where the long way comes to the same."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.message.letters import content, prepared
from twisted_sendmail import Envelope, InvalidInput
from twisted_sendmail.message import ready_letter
from twisted_sendmail.message.prepared import SMALL

ENVELOPE = Envelope("a@example.org", "b@example.net")
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
def test_the_short_way_comes_to_the_same(message: bytes, complete: bool) -> None:
    short = ready_letter(message, ENVELOPE, complete=complete)
    if short is None:
        return
    long = prepared(message, complete=complete)
    assert message == content(short) == content(long)
    assert [long.size, long.eight_bit, long.smtputf8, long.message_id, long.rewindable] == [
        short.size,
        short.eight_bit,
        short.smtputf8,
        short.message_id,
        short.rewindable,
    ]
    assert long.small == short.small


@given(messages())
def test_what_cannot_be_sent_never_goes_the_short_way(message: bytes) -> None:
    try:
        prepared(message)
    except InvalidInput:
        assert None is ready_letter(message, ENVELOPE, complete=True)


@pytest.mark.parametrize("body", [b"", b"text\r\n", b"\xc3\xa9\r\n", b".\r\n"])
def test_a_whole_message_goes_it(body: bytes) -> None:
    message = WHOLE + b"\r\n" + body
    letter = ready_letter(message, ENVELOPE, complete=True)
    assert letter is not None
    assert ("<i@x>", message) == (letter.message_id, letter.small)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        WHOLE,
        "text",
        bytearray(WHOLE + b"\r\n"),
        WHOLE + b"\r\nno end",
        WHOLE + b"\r\na\nb\r\n",
        WHOLE + b"\r\na\rb\r\n",
        WHOLE + b"\r\na\0b\r\n",
        WHOLE + b"\r\n" + b"x" * SMALL + b"\r\n",
        WHOLE + b"bcc: a@x\r\n\r\n",
        WHOLE + b"RESENT-BCC: a@x\r\n\r\n",
        WHOLE[11:] + b"Subject: \xc3\xa9\r\n\r\n",
        b"From: f@x\r\nDate: today\r\n\r\nMessage-ID: <i@x>\r\n",
        b"From: f@x\r\nMessage-ID: <i@x>\r\n\r\nDate: today\r\n",
    ],
)
def test_others_do_not(message: object) -> None:
    assert None is ready_letter(message, ENVELOPE, complete=True)
