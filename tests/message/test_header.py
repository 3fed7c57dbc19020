"""A header consists of fields that keep their octets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import InvalidMessage
from twisted_sendmail.message import Header
from twisted_sendmail.message.header import Field, header_end
from twisted_sendmail.smtp import MAX_HEADER


def parsed(octets: bytes) -> Header:
    return Header.parse(octets[: header_end(octets, whole=True)])


@pytest.mark.parametrize(
    ("octets", "names"),
    [
        (b"", []),
        (b"\r\n", []),
        (b"\r\nSubject: x\r\n", []),
        (b"Subject: x\r\n", ["subject"]),
        (b"Subject: x\r\n\r\nTo: y\r\n", ["subject"]),
        (b"SUBJECT :x\r\nTo\t: y\r\n\r\n", ["subject", "to"]),
        (b"Subject: x\r\n y: z\r\n\t\r\nTo:\r\n\r\n", ["subject", "to"]),
        (b"a!#$%&'*+-./0=?@[\\]^_`{|}~: x\r\n\r\n", ["a!#$%&'*+-./0=?@[\\]^_`{|}~"]),
        (b"hello\r\nSubject: x\r\n\r\n", []),
        (b" Subject: x\r\n\r\n", []),
        (b": x\r\n\r\n", []),
        (b"S\xc3\xbc: x\r\n\r\n", []),
        (b"Sub ject: x\r\n\r\n", []),
        (b"Subject: x\r\nhello\r\nTo: y\r\n\r\n", ["subject", "", "to"]),
        (b"From a@b Sat Nov 21 04:30:00 2026\r\nSubject: x\r\n\r\n", ["subject"]),
        (b"From here on\r\nit is text\r\n\r\n", []),
        (b"\xef\xbb\xbfSubject: x\r\n\r\n", ["subject"]),
        (b"\xef\xbb\xbfhello\r\n", []),
    ],
)
def test_fields(octets: bytes, names: list[str]) -> None:
    assert names == [field.name for field in parsed(octets).fields]


@pytest.mark.parametrize(
    ("octets", "value"),
    [
        (b"A: x\r\n", "x"),
        (b"A:x \r\n", "x"),
        (b"A:\r\n", ""),
        (b"A:\r\n x,\r\n\ty\r\n", "x,\ty"),
        (b"A: b: c\r\n", "b: c"),
        (b"A: \xc3\xbc\xfc\r\n", "ü\udcfc"),
    ],
)
def test_a_value_is_unfolded(octets: bytes, value: str) -> None:
    assert value == Field("a", octets).value


FIELDS = st.builds(
    lambda name, blank, body: name + blank + b":" + body + b"\r\n",
    st.sampled_from([b"To", b"BCC", b"x-y", b"Resent-To"]),
    st.sampled_from([b"", b" ", b"\t"]),
    st.sampled_from([b"", b" x", b" x\r\n y", b"\r\n\t: z", b" \xff", b" " + b"x" * 2000]),
)


@given(st.lists(FIELDS), st.sampled_from([b"", b"\r\n", b"\r\nbody: x\r\n\r\n"]))
def test_every_octet_is_kept(fields: list[bytes], rest: bytes) -> None:
    octets = b"".join(fields) + rest
    header = parsed(octets)
    assert fields == [field.octets for field in header.fields]
    assert b"".join(fields) == bytes(header)


def test_where_it_ends() -> None:
    assert header_end(b"A: x\r\n\r\nbody", whole=True) == 6
    assert header_end(b"A: x\r\n", whole=True) == 6
    assert header_end(b"x\r\nA: x\r\n\r\n", whole=True) == 0


def test_a_header_without_end_is_refused() -> None:
    line = b"A: " + b"x" * 1019 + b"\r\n"
    whole = line * (MAX_HEADER // len(line))
    assert len(whole) == MAX_HEADER
    assert header_end(whole + b"\r\nbody", whole=False) == MAX_HEADER
    for octets in (whole + line, whole + line + b"\r\nbody"):
        for complete in (True, False):
            with pytest.raises(InvalidMessage, match="longer than 1048576 octets"):
                header_end(octets, whole=complete)


def test_a_long_text_without_header_is_none() -> None:
    assert header_end(b"x" * (MAX_HEADER + 1), whole=False) == 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("to resent-to resent-from cc resent-cc", "resent-to resent-from"),
        ("received resent-to", "resent-to"),
        ("resent-to resent-from resent-to resent-from", "resent-to resent-from"),
        ("resent-to resent-cc resent-from resent-cc", "resent-to resent-cc resent-from"),
        ("to from", ""),
    ],
)
def test_the_newest_resent_block(names: str, expected: str) -> None:
    header = parsed("".join(f"{name}: x\r\n" for name in names.split()).encode() + b"\r\n")
    assert expected.split() == [field.name for field in header.newest_resent.fields]


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"A: x\r\n", False),
        (b"A: \xc3\xbc\r\n", True),
        (b"A: \xfc\r\n", False),
        (b"A: \xc3\xbc\r\nB: \xfc\r\n", False),
        (b"A: x\r\nGr\xc3\xbc\xc3\x9fe\r\n", False),
    ],
)
def test_utf_8_in_fields_is_noticed(octets: bytes, expected: bool) -> None:
    assert parsed(octets).international == expected
