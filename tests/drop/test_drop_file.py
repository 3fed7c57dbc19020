"""One file of the drop directory: what is written comes out, and nothing else does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twisted_sendmail.drop import (
    DropEnvelope,
    DropFile,
    DropFileError,
    DropReader,
    DropRecipient,
)

BOB = DropEnvelope("alice@example.org", (DropRecipient("bob@example.net"),))
LIMIT = 1_000_000
REST = b'"ret":null,"envid":null,"require_tls":false,"binary":false,"full_name":null'


@contextmanager
def opened(folder: Path, name: str, limit: int = LIMIT) -> Iterator[DropReader]:
    directory = os.open(folder, os.O_RDONLY)
    try:
        reader = DropReader(directory, name, limit)
        try:
            yield reader
        finally:
            reader.close()
    finally:
        os.close(directory)


def read(folder: Path, name: str, limit: int = LIMIT) -> tuple[DropEnvelope, bytes]:
    with opened(folder, name, limit) as reader:
        return reader.envelope, b"".join(reader.pieces())


def written(folder: Path, *pieces: bytes, envelope: DropEnvelope = BOB) -> str:
    file = DropFile(str(folder), envelope)
    file.create()
    for piece in pieces:
        file.write(piece)
    file.commit()
    return file.name


def changed(folder: Path, octets: bytes) -> str:
    path = folder / "changed"
    path.write_bytes(octets)
    path.chmod(0o640)
    return path.name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(st.binary(max_size=100), max_size=4),
    st.builds(
        DropEnvelope,
        st.text(),
        st.lists(st.builds(DropRecipient, st.text(), st.text(), st.none() | st.text())).map(tuple),
        st.none() | st.text(),
        st.none() | st.text(),
        st.booleans(),
        st.booleans(),
        st.none() | st.text(),
    ),
)
def test_envelope_and_content_are_read_as_they_were_written(
    tmp_path: Path, pieces: list[bytes], envelope: DropEnvelope
) -> None:
    name = written(tmp_path, *pieces, envelope=envelope)
    assert read(tmp_path, name) == (envelope, b"".join(pieces))


def test_a_large_content_is_read_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    name = written(tmp_path, content)
    with opened(tmp_path, name) as reader:
        pieces = list(reader.pieces())
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 64 * 1024


def test_a_file_has_mode_0600_until_it_is_complete(tmp_path: Path) -> None:
    file = DropFile(str(tmp_path), BOB)
    file.create()
    path = tmp_path / file.name
    file.write(b"Hi.\r\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(DropFileError, match="mode is 0600"):
        read(tmp_path, file.name)
    file.commit()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    file.abort()
    assert path.exists()


def test_an_envelope_above_the_limit_is_refused_before_the_file_is_made(tmp_path: Path) -> None:
    recipients = (DropRecipient("b" * 900 + "@example.net"),) * 2500
    with pytest.raises(DropFileError, match="the envelope has more than 2097152 octets"):
        DropFile(str(tmp_path), BOB._replace(recipients=recipients))
    assert list(tmp_path.iterdir()) == []


def test_an_aborted_file_is_gone(tmp_path: Path) -> None:
    file = DropFile(str(tmp_path), BOB)
    file.create()
    file.write(b"Hi.\r\n")
    file.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_interrupted_while_it_makes_the_file_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes when the file is there, and its descriptor is not known yet."""
    file, really_open = DropFile(str(tmp_path), BOB), os.open

    def interrupted(*given: Any) -> int:
        os.close(really_open(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        file.create()
    assert len(list(tmp_path.iterdir())) == 1
    file.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_same_name_stays(tmp_path: Path) -> None:
    file = DropFile(str(tmp_path), BOB, written(tmp_path, b"Hi.\r\n"))
    with pytest.raises(FileExistsError):
        file.create()
    file.abort()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    octets = (tmp_path / written(tmp_path, b"Subject: x\r\n\r\nHi.\r\n")).read_bytes()
    for size in range(len(octets)):
        with pytest.raises(DropFileError):
            read(tmp_path, changed(tmp_path, octets[:size]))


def test_a_file_with_any_octet_changed_is_refused(tmp_path: Path) -> None:
    octets = (tmp_path / written(tmp_path, b"Subject: x\r\n\r\nHi.\r\n")).read_bytes()
    for place in range(len(octets)):
        other = bytearray(octets)
        other[place] ^= 0x11
        with pytest.raises(DropFileError):
            read(tmp_path, changed(tmp_path, bytes(other)))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"sender":' + b"9" * 5000 + b"}",
        b'{"sender":1,"recipients":[],%b}' % REST,
        b'{"sender":"","recipients":["ab"],%b}' % REST,
        b'{"sender":"\xff"}',
    ],
    ids=repr,
)
def test_an_envelope_that_is_none_is_refused(tmp_path: Path, line: bytes) -> None:
    from zlib import crc32

    octets = b"twisted_sendmail drop 1\n" + line + b"\nHi.\r\n"
    octets += b"end %020d %08x\n" % (5, crc32(octets))
    with pytest.raises(DropFileError, match="its envelope cannot be parsed"):
        read(tmp_path, changed(tmp_path, octets))


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    name = written(tmp_path, b"x" * 101)
    size = (tmp_path / name).stat().st_size
    assert read(tmp_path, name, size)[1] == b"x" * 101
    with pytest.raises(DropFileError, match=f"it has {size} octets, and the limit is {size - 1}"):
        read(tmp_path, name, size - 1)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    for change in (b"y", b""):
        name = written(tmp_path, b"x" * 200_000)
        with opened(tmp_path, name) as reader:
            pieces = reader.pieces()
            next(pieces)
            with (tmp_path / name).open("r+b") as file:
                if change:
                    file.seek(150_000)
                    file.write(change)
                else:
                    file.truncate(100_000)
            with pytest.raises(DropFileError, match=r"damaged, or was changed|became shorter"):
                list(pieces)
