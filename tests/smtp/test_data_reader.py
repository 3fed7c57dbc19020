"""Content as the server reads it: laws for any octets and any chunks."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from twisted_sendmail.smtp.data_reader import ChunkParser, ContentDefect, DataParser

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.\r\n", b"\0", b"a", b"..", b"\r\n."])
    | st.binary(max_size=5)
).map(b"".join)
CUTS = st.lists(st.integers(1, 7))
CLEAN = st.lists(st.sampled_from([b"a", b".", b"..", b".x", b"", b"\xff"])).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


def stuffed(content: bytes) -> bytes:
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


def read(
    octets: bytes, cuts: list[int], *, repair: bool = False
) -> tuple[bytes, bytes | None, set[ContentDefect]]:
    """Content, what follows its end if that was seen, and faults."""
    parser = DataParser(repair=repair)
    content, sizes = b"", iter(cuts)
    while octets:
        size = next(sizes, len(octets))
        piece, rest = parser.feed(octets[:size])
        octets = octets[size:]
        content += piece
        if rest is not None:
            return content, rest + octets, parser.faults
    return content, None, parser.faults


@given(CLEAN, st.binary(max_size=20), CUTS)
def test_stuffing_then_reading_is_the_identity(
    content: bytes, after: bytes, cuts: list[int]
) -> None:
    assert read(stuffed(content) + after, cuts) == (content, after, set())


@given(PIECES, CUTS)
def test_any_cutting_reads_the_same(octets: bytes, cuts: list[int]) -> None:
    whole, cut = read(octets + b"\r\n.\r\n", []), read(octets + b"\r\n.\r\n", cuts)
    assert cut == whole


@given(PIECES, CUTS)
@example(b"From: a\r\r\n.\r\r\n", [9])
def test_any_cutting_repairs_the_same(octets: bytes, cuts: list[int]) -> None:
    octets += b"\r\n.\r\n"
    assert read(octets, cuts, repair=True) == read(octets, [], repair=True)
    chunks, whole = ChunkParser(repair=True), ChunkParser(repair=True)
    sizes, rest, content = iter(cuts), octets, b""
    while rest:
        size = next(sizes, len(rest))
        content += chunks.feed(rest[:size])
        rest = rest[size:]
    assert content + chunks.finish() == whole.feed(octets) + whole.finish()


def test_cr_cr_lf_is_repaired_to_one_line_end() -> None:
    octets = b"From: a\r\r\nTo: b\r\r\n\r\r\nHi\r\r\n"
    expected = b"From: a\r\nTo: b\r\n\r\nHi\r\n"
    content, _, faults = read(octets + b".\r\n", [], repair=True)
    assert (content, faults) == (expected, {ContentDefect.BARE_CR})
    parser = ChunkParser(repair=True)
    assert parser.feed(octets) + parser.finish() == expected


@given(PIECES)
def test_the_end_is_the_first_crlf_dot_crlf_and_nothing_else(octets: bytes) -> None:
    _, rest, _ = read(octets, [])
    end = (b"\r\n" + octets).find(b"\r\n.\r\n")
    assert rest == (None if end < 0 else octets[end + 3 :])


@given(PIECES, CUTS)
def test_what_is_repaired_has_no_fault(octets: bytes, cuts: list[int]) -> None:
    content, _, _ = read(octets + b"\r\n.\r\n", cuts, repair=True)
    again = ChunkParser()
    again.feed(content)
    again.finish()
    assert again.faults == set()


@given(PIECES, CUTS)
def test_a_fault_is_noticed_if_and_only_if_it_is_there(octets: bytes, cuts: list[int]) -> None:
    content, _, faults = read(octets + b"\r\n.\r\n", cuts)
    bare = content.replace(b"\r\n", b"")
    marks = {ContentDefect.BARE_CR: b"\r", ContentDefect.BARE_LF: b"\n", ContentDefect.NUL: b"\0"}
    assert faults == {fault for fault, mark in marks.items() if mark in bare}


@given(PIECES, CUTS, st.booleans())
def test_chunks_are_read_the_same_however_they_are_cut(
    octets: bytes, cuts: list[int], binary: bool
) -> None:
    whole, cut = ChunkParser(binary=binary), ChunkParser(binary=binary)
    expected = whole.feed(octets) + whole.finish()
    got, rest = b"", octets
    for size in cuts:
        got += cut.feed(rest[:size])
        rest = rest[size:]
    got += cut.feed(rest) + cut.finish()
    assert (got, cut.faults) == (expected, whole.faults)
    assert got == octets
    assert not (binary and cut.faults)
