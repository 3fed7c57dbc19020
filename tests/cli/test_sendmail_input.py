"""Reading a message from stdin: its end, the end of its header, its line ends."""

from __future__ import annotations

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import InvalidMessage
from twisted_sendmail.cli.sendmail.message import InputMessage, LoneDotFilter
from twisted_sendmail.smtp import MAX_HEADER


def read(octets: bytes, *, dot_ends: bool = False) -> bytes:
    with tempfile.TemporaryFile() as file:
        file.write(octets)
        file.seek(0)
        message = InputMessage(file.fileno(), dot_ends=dot_ends)
        whole = b"".join(message.pieces())
    assert whole.startswith(bytes(message.header) + b"\r\n")
    return whole


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"To: a\nSubject: b\n\nHi\n", b"To: a\r\nSubject: b\r\n\r\nHi\r\n"),
        (b"To: a\r\n\r\nHi\r\n", b"To: a\r\n\r\nHi\r\n"),
        (b"To: a\n\nHi", b"To: a\r\n\r\nHi\r\n"),
        (b"", b"\r\n"),
        (b"\n", b"\r\n"),
        (b"\nHi\n", b"\r\nHi\r\n"),
        (b"Hi\n", b"\r\nHi\r\n"),
        (b"Hi\n\nthere\n", b"\r\nHi\r\n\r\nthere\r\n"),
        (b"To: a\n", b"To: a\r\n\r\n"),
        (b"To: a", b"To: a\r\n\r\n"),
        (b"To: a\n folded\n\nHi\n", b"To: a\r\n folded\r\n\r\nHi\r\n"),
        # A line that is no field ends the header, and an empty line is put before it.
        (b"To: a\nno field\nCc: b\n\nHi\n", b"To: a\r\n\r\nno field\r\nCc: b\r\n\r\nHi\r\n"),
        # The separator of a mailbox file is none of the message.
        (b"From alice Thu Jan  1 12:00\nTo: a\n\nHi\n", b"To: a\r\n\r\nHi\r\n"),
        (b"To: a\n\n1\r2\0\n", b"To: a\r\n\r\n1\r\n2\r\n"),
        (b"To: a\n\n.\n..\n", b"To: a\r\n\r\n.\r\n..\r\n"),
    ],
)
def test_line_ends_and_header_are_canonical(octets: bytes, expected: bytes) -> None:
    assert read(octets) == expected


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"To: a\n\nHi\n.\nmore\n", b"To: a\r\n\r\nHi\r\n"),
        (b"To: a\n\nHi\r\n.\r\nmore\r\n", b"To: a\r\n\r\nHi\r\n"),
        (b"To: a\n\nHi\n.", b"To: a\r\n\r\nHi\r\n"),
        (b"To: a\n\n..\n. \nx.\n", b"To: a\r\n\r\n..\r\n. \r\nx.\r\n"),
        (b".\nHi\n", b"\r\n"),
        (b"To: a\n.\nHi\n", b"To: a\r\n\r\n"),
        (b"Hi", b"\r\nHi\r\n"),
        (b"", b"\r\n"),
    ],
)
def test_a_lone_dot_ends_the_message_if_requested(octets: bytes, expected: bytes) -> None:
    assert read(octets, dot_ends=True) == expected


@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b".\r\n", b"\r\n.\r\n"]), max_size=12))
def test_the_lone_dot_is_found_wherever_the_octets_are_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    at = (b"\n" + whole).find(b"\n.\r\n")
    expected = whole[:at] if at >= 0 else whole
    dot = LoneDotFilter()
    out = b"".join([dot.feed(piece) for piece in pieces])
    out += b"" if dot.found else dot.finish()
    assert (expected, at >= 0) == (out, dot.found)


def test_an_endless_header_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="more than 2000 fields"):
        read(b"To: a\n" * (MAX_HEADER // 6 + 20_000))
    with pytest.raises(InvalidMessage, match="longer than"):
        read((b"To: a\n" + b" x\n" * 1000) * (MAX_HEADER // 3000 + 20))


def test_a_single_endless_line_is_a_body() -> None:
    line = b"x" * (MAX_HEADER + 200_000)
    assert read(line) == b"\r\n" + line + b"\r\n"


def test_a_single_endless_field_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="longer than"):
        read(b"To: " + b"x" * (MAX_HEADER + 200_000))


def test_an_endless_line_after_fields_is_a_body() -> None:
    line = b"x" * (MAX_HEADER + 200_000)
    assert read(b"To: a\n" + line) == b"To: a\r\n\r\n" + line + b"\r\n"
