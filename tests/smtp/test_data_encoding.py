"""Content on the wire: the same for any chunks, and without an early end."""

from __future__ import annotations

import re
from itertools import pairwise, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_sendmail import InvalidMessage
from twisted_sendmail.smtp import Canonicalizer, LineBreaker, LongLines, Repair, long_line
from twisted_sendmail.smtp.data_encoding import DotStuffer
from twisted_sendmail.smtp.data_reader import DataParser

#: What servers have taken for the end of the content at one time or another.
LOOK_ALIKE = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)")

#: Much of what is dangerous, a little of what is not.
HOSTILE = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", b"\xe9", b"abc def", b"\r\n.\r\n"]
    ),
    max_size=24,
).map(b"".join)
#: The same without what is refused.
PLAIN = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b".", b"..", b"a", b"\xe9", b"abc def", b"\n.\n", b"\r\n.\r\n"]
    ),
    max_size=24,
).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* cut at *cuts*; some pieces may be empty."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def canonical(chunks: list[bytes], policy: Repair = Repair.REPAIR) -> tuple[bytes, Canonicalizer]:
    """The canonical form of *chunks*, and what was learnt from them."""
    guard = Canonicalizer(policy)
    return b"".join(map(guard.feed, chunks)) + guard.finish(), guard


def stuffed(chunks: list[bytes]) -> bytes:
    """The octets after a 354."""
    stuffer = DotStuffer()
    return b"".join(map(stuffer.feed, chunks)) + stuffer.finish()


def by_the_book(data: bytes) -> bytes:
    """The canonical form in the simplest words."""
    lines = re.split(rb"\r\n|\r|\n", data.replace(b"\0", b""))
    if lines[-1] == b"":
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


@given(HOSTILE, CUTS)
@example(b"a\r\nb", [2])
@example(b"\r\r\n", [1])
@example(b"\r\r\n", [1, 2])
@example(b"\r", [0])
@example(b"\0", [])
@example(b"a\r\0\nb", [])
@example(b"a\r\0\nb", [2, 3])
def test_any_cutting_gives_the_same(data: bytes, cuts: list[int]) -> None:
    out, guard = canonical(pieces(data, cuts))
    assert by_the_book(data) == out
    assert len(out) == guard.size
    assert (not out.isascii()) == guard.eight_bit


@given(HOSTILE, CUTS)
def test_canonical_octets_stay_as_they_are(data: bytes, cuts: list[int]) -> None:
    once, _ = canonical([data])
    again, _ = canonical(pieces(once, cuts), Repair.REFUSE)
    assert once == again


@given(HOSTILE, CUTS)
def test_what_is_canonical_has_crlf_alone(data: bytes, cuts: list[int]) -> None:
    out, _ = canonical(pieces(data, cuts))
    rest = out.replace(b"\r\n", b"")
    assert (rest.find(b"\r"), rest.find(b"\n"), rest.find(b"\0")) == (-1, -1, -1)
    assert out == b"" or out.endswith(b"\r\n")


@given(HOSTILE, CUTS)
def test_refusing_and_repairing_agree_on_what_is_wrong(data: bytes, cuts: list[int]) -> None:
    """REFUSE refuses exactly what REPAIR changes beyond line feeds, in every cutting."""
    wrong = b"\0" in data or b"\r" in data.replace(b"\r\n", b"")
    try:
        out, _ = canonical(pieces(data, cuts), Repair.REFUSE)
    except InvalidMessage:
        assert wrong
    else:
        assert not wrong
        assert by_the_book(data) == out


@given(PLAIN, CUTS, CUTS)
@example(b".", [], [])
@example(b"..\r\n.", [3, 4], [1])
@example(b"a\r\n.\r\nb", [3], [4])
@example(b"a\n.\nb", [2], [3])
def test_stuffed_and_unstuffed_is_the_same(data: bytes, cuts: list[int], others: list[int]) -> None:
    content, _ = canonical([data])
    wire = stuffed(pieces(content, cuts))
    server = DataParser()
    found = b""
    rest: bytes | None = None
    for piece in pieces(wire, others):
        assert rest is None or piece == b""
        if rest is None:
            more, rest = server.feed(piece)
            found += more
    assert (content, b"") == (found, rest)
    assert server.faults == set()


@given(HOSTILE, CUTS)
def test_nothing_looks_like_the_end_before_the_end(data: bytes, cuts: list[int]) -> None:
    content, _ = canonical(pieces(data, cuts))
    wire = b"\r\n" + stuffed(pieces(content, cuts))
    found = [match.start() for match in LOOK_ALIKE.finditer(wire)]
    assert [len(wire) - 5] == found


def test_every_mix_around_a_dot() -> None:
    """Three octets of CR, LF, NUL and text on each side of a dot, cut everywhere."""
    sides = [b"".join(side) for side in product((b"\r", b"\n", b"\0", b"x"), repeat=3)]
    for before, after in product(sides, sides):
        data = before + b"." + after
        whole, _ = canonical([data])
        assert by_the_book(data) == whole
        wire = b"\r\n" + stuffed([whole])
        assert [len(wire) - 5] == [match.start() for match in LOOK_ALIKE.finditer(wire)]
        assert whole == canonical([data[at : at + 1] for at in range(len(data))])[0]


@pytest.mark.parametrize("boundary", [4096, 8192, 16384, 32768, 65536, 262144])
@pytest.mark.parametrize("line", [b".\r\n", b".\n", b"..\r\n", b".QUIT\r\n"])
def test_a_dot_line_at_the_edge_of_a_buffer(boundary: int, line: bytes) -> None:
    for offset in range(-4, 5):
        filler = b"x" * (boundary + offset - 2) + b"\r\n"
        data = filler + line + b"MAIL FROM:<evil@example.net>\r\n"
        chunks = [data[:boundary], data[boundary:]]
        content, _ = canonical(chunks, Repair.REFUSE)
        assert content == canonical([data], Repair.REFUSE)[0]
        expected = filler + b"." + line.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        expected += b"MAIL FROM:<evil@example.net>\r\n.\r\n"
        assert stuffed([content[:boundary], content[boundary:]]) == expected


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], b""),
        ([b""], b""),
        ([b"a"], b"a\r\n"),
        ([b"a\n"], b"a\r\n"),
        ([b"a\r", b"\nb"], b"a\r\nb\r\n"),
        ([b"a\r", b"", b"\n", b"b"], b"a\r\nb\r\n"),
        ([b"\n", b"\n"], b"\r\n\r\n"),
        ([b"a\r\n", b"\n"], b"a\r\n\r\n"),
        ([b"\r", b"\n"], b"\r\n"),
        ([b"a\nb\r\nc"], b"a\r\nb\r\nc\r\n"),
    ],
)
def test_line_ends(chunks: list[bytes], expected: bytes) -> None:
    assert canonical(chunks, Repair.REFUSE)[0] == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\rb\n", b"a\r\nb\r\n"),
        (b"a\r", b"a\r\n"),
        (b"a\r\r\n", b"a\r\n\r\n"),
        (b"a\0b\n", b"ab\r\n"),
        (b"\0", b""),
    ],
)
def test_repair(data: bytes, expected: bytes) -> None:
    assert canonical([data])[0] == expected
    assert canonical([data[at : at + 1] for at in range(len(data))])[0] == expected


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"a\rb", "a bare CR in line 1"),
        (b"a\r", "a bare CR in line 1"),
        (b"a\r\r\n", "a bare CR in line 1"),
        (b"1\n2\r\n3\rx\n4\n", "a bare CR in line 3"),
        (b"1\n2\r\n3\n4\0\n", "a NUL in line 4"),
        (b"\0", "a NUL in line 1"),
        (b"1\r\n2\r", "a bare CR in line 2"),
        (b"1\n2\r3\n4\0", "a bare CR in line 2"),
        (b"1\n2\0\n3\r4", "a NUL in line 2"),
    ],
)
def test_a_refusal_names_the_line(data: bytes, what: str) -> None:
    for size in (len(data), 1, 2, 3):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        with pytest.raises(InvalidMessage) as caught:
            canonical(chunks, Repair.REFUSE)
        assert (
            f"the message cannot be sent as it is: there is {what}; "
            "encode it as base64 or quoted-printable"
        ) == str(caught.value)


def test_the_stuffer_doubles_the_first_dot_too() -> None:
    assert stuffed([b".\r\n"]) == b"..\r\n.\r\n"
    assert stuffed([b"", b".", b"\r\n"]) == b"..\r\n.\r\n"
    assert stuffed([]) == b".\r\n"


# -- long lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"", None),
        (b"x" * 998 + b"\r\n" + b"y" * 998 + b"\r\n", None),
        (b"x" * 999 + b"\r\n", 1),
        (b"x" * 999, 1),
        (b"x" * 998, None),
        (b"a\r\n\r\n" + b"x" * 500 + b"\r\n" + b"x" * 1200 + b"\r\n" + b"x" * 5000, 4),
        ((b"x" * 998 + b"\r\n") * 100 + b"\r\n" + b"z" * 999, 102),
    ],
)
def test_the_first_line_that_is_too_long_is_found_in_every_cutting(
    data: bytes, number: int | None
) -> None:
    for size in (1, 7, 997, 1000, 1_000_000):
        canonicalizer = Canonicalizer(Repair.REFUSE)
        for at in range(0, len(data), size):
            canonicalizer.feed(data[at : at + size].replace(b"\r\n", b"\n"))
        canonicalizer.finish()
        assert canonicalizer.long_line == number


@given(st.lists(st.integers(0, 1100), max_size=6), CUTS)
def test_a_line_is_too_long_from_999_octets_on(lengths: list[int], cuts: list[int]) -> None:
    data = b"".join(b"x" * length + b"\r\n" for length in lengths)
    lines = LongLines()
    for piece in pieces(data, [100 * cut for cut in cuts]):
        lines.feed(piece)
    number = next((n for n, each in enumerate(lengths, 1) if each > 998), None)
    assert lines.found is (number is not None)
    assert long_line(data) == number


# -- long lines that are broken ---------------------------------------------------------------

#: Lines about as long as they may be, and much longer.
LINES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 996, 997, 998, 999, 1000, 1995, 1996, 4000]),
        st.sampled_from(["a", "\u00fc", "\u20ac", "\U0001f600", " "]),
    ).map(lambda line: line[1] * (line[0] // len(line[1].encode()))),
    max_size=6,
).map(lambda lines: "".join(f"{line}\r\n" for line in lines))


@given(LINES, st.lists(st.integers(0, 9000), max_size=8))
def test_long_lines_are_broken_the_same_however_they_are_cut(text: str, cuts: list[int]) -> None:
    breaker, octets = LineBreaker(), text.encode()
    broken = b"".join(map(breaker.feed, pieces(octets, cuts))) + breaker.finish()
    whole = LineBreaker()
    assert broken == whole.feed(octets) + whole.finish()
    assert long_line(broken) is None
    assert "".join(broken.decode().split("\r\n ")) == "".join(text.split("\r\n "))
    if long_line(octets) is None:
        assert broken == octets


def test_octets_that_are_no_utf8_are_broken_at_998() -> None:
    breaker = LineBreaker()
    made = breaker.feed(b"\x80" * 2000 + b"\r\n") + breaker.finish()
    assert made == b"\x80" * 998 + b"\r\n " + b"\x80" * 997 + b"\r\n " + b"\x80" * 5 + b"\r\n"
