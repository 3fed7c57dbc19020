"""Every kind of source yields its octets completely and in order."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.message.messages import cut
from tests.pure import run
from twisted_sendmail import InvalidMessage
from twisted_sendmail.message.source import (
    READ_SIZE,
    AsynchronousSource,
    ContentSource,
    PathSource,
    run_inline,
    source_of,
)

OCTETS = bytes(range(256)) * 5000


def all_of(source: ContentSource) -> list[bytes]:
    if isinstance(source, AsynchronousSource):
        return list(iter(lambda: run(source.arrive()), b""))
    return list(iter(source.read, b""))


class Bare:
    """Has read, and nothing else of a file."""

    def __init__(self, octets: bytes) -> None:
        self.file = io.BytesIO(octets)

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, 1000))


async def waited_for(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def a_file(octets: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the test's last reference closes it
    file.write(octets)
    file.seek(0)
    return file


KINDS: dict[str, tuple[Any, bool, bool]] = {
    "bytes": (lambda octets: octets, False, True),
    "bytearray": (bytearray, False, True),
    "memoryview": (memoryview, False, True),
    "memory file": (io.BytesIO, False, True),
    "bare": (Bare, True, False),
    "list": (lambda octets: [octets[:9], octets[9:]], False, True),
    "tuple": (lambda octets: (octets,), False, True),
    "iterator": (lambda octets: iter([octets]), False, False),
    "generator": (lambda octets: (octets[at : at + 1] for at in range(len(octets))), False, False),
    "bytearrays": (lambda octets: [bytearray(octets)], False, True),
    "asynchronous": (lambda octets: waited_for([octets]), False, False),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("octets", [b"", b"a", OCTETS], ids=["empty", "small", "large"])
def test_every_kind(kind: str, octets: bytes) -> None:
    make, blocking, rewindable = KINDS[kind]
    source = source_of(make(octets))
    pieces = all_of(source)
    assert octets == b"".join(pieces)
    assert max(map(len, pieces), default=0) <= READ_SIZE
    assert (blocking, rewindable) == (source.blocking, source.rewindable)
    if rewindable:
        source.rewind()
        assert octets == b"".join(all_of(source))
    run(source.close())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_text_is_utf_8() -> None:
    assert "Grüße".encode() == b"".join(all_of(source_of("Grüße")))
    with pytest.raises(InvalidMessage, match="lone surrogate"):
        source_of("a\udcff")


def test_a_file_is_read_from_where_it_stands_and_stays_open() -> None:
    with a_file(b"0123456789") as file:
        file.seek(4)
        source = source_of(file)
        assert (source.blocking, source.rewindable) == (True, True)
        assert all_of(source) == [b"456789"]
        source.rewind()
        assert all_of(source) == [b"456789"]
        run(source.close())
        assert not file.closed


def test_a_pipe_is_read_once() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        os.write(writing, b"hello")
        os.close(writing)
        source = source_of(file)
        assert (source.blocking, source.rewindable) == (True, False)
        assert b"".join(all_of(source)) == b"hello"


def test_a_path_is_opened_when_it_is_read_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "message"
    source = source_of(path)
    path.write_bytes(OCTETS)
    before = descriptors()
    assert b"".join(all_of(source)) == OCTETS
    assert source.rewindable
    source.rewind()
    assert b"".join(all_of(source)) == OCTETS
    run(source.close())
    run(source.close())
    assert before == descriptors()
    with pytest.raises(ValueError, match="closed"):
        source.read()


@pytest.mark.parametrize("name", ["missing", ".", "a\0b"])
def test_a_path_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidMessage, match="cannot be read: ") as caught:
        source_of(tmp_path / name).read()
    assert len(str(caught.value).splitlines()) == 1


def test_a_path_closed_under_a_read_is_closed_behind_it(tmp_path: Path) -> None:
    """Another thread may be reading: the descriptor must not be pulled away, nor be left."""
    path = tmp_path / "message"
    path.write_bytes(b"hello")
    source = source_of(path)
    assert isinstance(source, PathSource)
    assert source.read() == b"hello"
    opened = source._file
    assert opened is not None

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            run(source.close())
            assert not self.closed
            return b"late"

    slow = source._file = source._shared._file = Slow()
    opened.close()
    assert source.read() == b"late"
    assert slow.closed


def closed() -> io.BytesIO:
    """A file that nothing can be read from."""
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (None, "message cannot be NoneType; give bytes, text, an EmailMessage, a path"),
        (5, "message cannot be int"),
        ({"From": "a@x"}, "message cannot be dict"),
        (object, "message cannot be type"),
        (closed(), "the message file is closed; open it again"),
        (io.StringIO("x"), 'open in text mode; open it in binary mode, "rb"'),
    ],
)
def test_what_is_no_message(message: Any, expected: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        source_of(message)
    assert expected in str(caught.value)


class Gives:
    """A file that gives *what*."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def read(self, size: int) -> Any:
        return self.what


async def later() -> bytes:
    raise AssertionError


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Gives("text"), "text mode"),
        (lambda: Gives(None), "file gives nothing, not bytes; it must not be non-blocking"),
        (lambda: Gives(5), "file gives int, not bytes"),
        (lambda: Gives(later()), "gives coroutine, not bytes; give an asynchronous iterator"),
        (lambda: ["text"], "iterator gives str, not bytes; let it give bytes"),
        (lambda: [1, 2], "iterator gives int, not bytes"),
        (lambda: [None], "iterator gives nothing, not bytes"),
    ],
)
def test_what_gives_no_octets(make: Any, expected: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        source_of(make()).read()
    assert expected in str(caught.value)


def test_an_iterator_of_lines_makes_few_chunks() -> None:
    pieces = all_of(source_of(b"0123456789\n" for _ in range(100_000)))
    assert (sum(map(len, pieces)), len(pieces) < 20) == (1_100_000, True)


def test_empty_pieces_are_not_the_end() -> None:
    assert b"".join(all_of(source_of([b"", b"a", b"", b"", b"b", b""]))) == b"ab"
    assert b"".join(all_of(source_of(waited_for([b"", b"a", b"", b"b", b""])))) == b"ab"


def test_a_huge_piece_is_cut_without_being_copied_whole() -> None:
    huge = bytes(10 * READ_SIZE + 1)
    pieces = all_of(source_of([b"a", huge, b"z"]))
    assert b"a" + huge + b"z" == b"".join(pieces)
    assert max(map(len, pieces)) <= READ_SIZE


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_cutting_changes_nothing(octets: bytes, cuts: list[int]) -> None:
    assert octets == b"".join(all_of(source_of(cut(octets, cuts))))
    assert octets == b"".join(all_of(source_of(waited_for(cut(octets, cuts)))))


class Broken(Exception):
    """A failure of the caller's own."""


def test_an_exception_passes_as_it_is_and_a_generator_is_closed() -> None:
    ended: list[str] = []

    def raising() -> Iterator[bytes]:
        yield b"x" * READ_SIZE
        raise Broken

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * READ_SIZE
        finally:
            ended.append("plain")

    async def waiting() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * READ_SIZE
        finally:
            ended.append("asynchronous")

    source = source_of(raising())
    assert len(source.read()) == READ_SIZE
    with pytest.raises(Broken):
        source.read()
    for made in (endless(), waiting()):
        source = source_of(made)
        if isinstance(source, AsynchronousSource):
            run(source.arrive())
        else:
            source.read()
        run(source.close())
    assert ended == ["plain", "asynchronous"]


def test_what_is_no_generator_is_left_open() -> None:
    class Lines:
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            return b"x"

        def close(self) -> None:
            self.closed = True

    lines = Lines()
    run(source_of(lines).close())
    assert not lines.closed


def test_inline_is_here_and_now() -> None:
    assert run(run_inline(lambda: 5)) == 5


def test_a_file_that_was_written_and_not_rewound_is_not_an_empty_message(tmp_path: Path) -> None:
    in_memory = io.BytesIO()
    with (tmp_path / "message").open("w+b") as on_disk:
        for file in (in_memory, on_disk):
            file.write(b"Subject: x\n\nhello\n")
            with pytest.raises(InvalidMessage, match=r"is at its end; rewind it with seek\(0\)$"):
                source_of(file)
            file.seek(0)
            assert b"".join(all_of(source_of(file))).endswith(b"hello\n")
    assert b"".join(all_of(source_of(io.BytesIO()))) == b""
