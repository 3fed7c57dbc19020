"""A prepared message has the same octets whatever its source, and is read no more often than needed."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.message.messages import (
    DATE,
    SECONDS,
    Elsewhere,
    chunks,
    content,
    cut,
    from_header,
    prepared,
)
from tests.pure import run
from twisted_sendmail import Envelope, InvalidInput, InvalidMessage
from twisted_sendmail.message import Header, PreparedMessage, prepare
from twisted_sendmail.message.header import header_end
from twisted_sendmail.message.prepared import KEPT, SMALL_SIZE
from twisted_sendmail.message.source import READ_SIZE
from twisted_sendmail.smtp import Canonicalizer, Repair

ID = b"Message-ID: <i@x>\r\n"
HEADER = b"From: f@x\r\nTo: a@x\r\n" + DATE + ID
LINE = b"0123456789" * 7 + b"\r\n"
LARGE = HEADER + b"\r\n" + LINE * (3 * SMALL_SIZE // len(LINE))


class Descriptors:
    """How many files are open."""

    @staticmethod
    def now() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))


class Pipe:
    """A file that cannot seek."""

    def __init__(self, octets: bytes) -> None:
        self.file = io.BytesIO(octets)

    def read(self, size: int) -> bytes:
        return self.file.read(size)


async def waited_for(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def _close_files() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def a_file(octets: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the fixture
    OPENED.append(file)
    file.write(octets)
    file.seek(0)
    return file


def measured(message: Any) -> PreparedMessage:
    """A prepared message for a server that takes no 8-bit content."""
    prepared_message = prepared(message)
    run(prepared_message.measure_for(None, eight_bit_mime=False))
    return prepared_message


REWINDABLE: dict[str, Any] = {
    "bytes": bytes,
    "text": bytes.decode,
    "file": a_file,
    "memory file": io.BytesIO,
    "list": lambda octets: [octets],
}
ONCE: dict[str, Any] = {
    "pipe": Pipe,
    "iterator": lambda octets: iter([octets]),
    "asynchronous": waited_for,
}
KINDS = {**REWINDABLE, **ONCE}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        (b"", DATE + ID + b"\r\n"),
        (b"hello", DATE + ID + b"\r\nhello\r\n"),
        (b"\n", DATE + ID + b"\r\n"),
        (b"\nhello\n", DATE + ID + b"\r\nhello\r\n"),
        (b"A: x", b"A: x\r\n" + DATE + ID),
        (b"A: x\n\n.\n", b"A: x\r\n" + DATE + ID + b"\r\n.\r\n"),
        (b"A: x\r\n\r\n.\r\n..\n", b"A: x\r\n" + DATE + ID + b"\r\n.\r\n..\r\n"),
        (b"Bcc: b@x\nA: x\n y\n\nbody", b"A: x\r\n y\r\n" + DATE + ID + b"\r\nbody\r\n"),
    ],
)
def test_small_messages(
    kind: str, raw: bytes, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twisted_sendmail.message.header_fixer.new_message_id", lambda _: "<i@x>")
    prepared_message = prepared(KINDS[kind](raw))
    assert sent == prepared_message.small
    assert (len(sent), False, False, True, "<i@x>") == (
        prepared_message.size,
        prepared_message.eight_bit,
        prepared_message.smtputf8,
        prepared_message.rewindable,
        prepared_message.message_id,
    )
    assert sent == content(prepared_message)
    prepared_message.rewind()
    assert sent == content(prepared_message)
    run(prepared_message.close())


@pytest.mark.parametrize("kind", REWINDABLE)
def test_a_large_message_that_can_be_read_again_is_measured_when_that_is_needed(kind: str) -> None:
    prepared_message = prepared(REWINDABLE[kind](b"Bcc: b@x\r\n" + LARGE))
    assert (
        prepared_message.small,
        prepared_message.size,
        prepared_message.eight_bit,
        prepared_message.rewindable,
        prepared_message.message_id,
    ) == (None, None, None, True, "<i@x>")
    prepared_message = measured(REWINDABLE[kind](b"Bcc: b@x\r\n" + LARGE))
    assert (len(LARGE), False) == (prepared_message.size, prepared_message.eight_bit)
    assert content(prepared_message) == LARGE
    prepared_message.rewind()
    pieces = chunks(prepared_message)
    assert b"".join(pieces) == LARGE
    assert max(map(len, pieces)) <= SMALL_SIZE + 2 * READ_SIZE
    run(prepared_message.close())


@pytest.mark.parametrize("kind", REWINDABLE)
def test_a_large_message_that_can_be_read_again_is_read_as_it_is_sent(kind: str) -> None:
    prepared_message = prepared(REWINDABLE[kind](b"Bcc: b@x\r\n" + LARGE))
    assert content(prepared_message) == LARGE
    prepared_message.rewind()
    assert content(prepared_message) == LARGE
    run(prepared_message.close())


def test_a_size_that_fits_in_any_case_needs_no_measuring() -> None:
    prepared_message = prepared(LARGE)
    assert prepared_message.max_size is not None
    assert len(LARGE) < prepared_message.max_size <= 2 * len(LARGE) + 1000
    run(prepared_message.measure_for(prepared_message.max_size, eight_bit_mime=True))
    assert prepared_message.size is None
    run(prepared_message.measure_for(prepared_message.max_size - 1, eight_bit_mime=True))
    assert len(LARGE) == prepared_message.size


def test_a_content_is_read_only_once() -> None:
    class Counted(io.BytesIO):
        octets = 0

        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            self.octets += len(piece)
            return piece

    file = Counted(LARGE)
    prepared_message = prepared(file)
    run(prepared_message.measure_for(10 * len(LARGE), eight_bit_mime=True))
    assert content(prepared_message) == LARGE
    run(prepared_message.close())
    assert len(LARGE) == file.octets


@pytest.mark.parametrize("kind", ONCE)
def test_large_messages_that_cannot_are_not(kind: str) -> None:
    prepared_message = prepared(ONCE[kind](b"Bcc: b@x\r\n" + LARGE))
    assert (
        prepared_message.small,
        prepared_message.size,
        prepared_message.eight_bit,
        prepared_message.rewindable,
        prepared_message.message_id,
    ) == (None, None, None, False, "<i@x>")
    assert content(prepared_message) == LARGE


def test_8_bit_content_is_noticed_wherever_it_is() -> None:
    tail = b"\xc3\xbc\r\n"
    assert prepared(HEADER + b"\r\n" + tail).eight_bit
    assert measured(a_file(LARGE + tail)).eight_bit
    assert prepared(Pipe(LARGE + tail)).eight_bit is None
    assert prepared(Pipe(HEADER + b"\r\n" + tail + LARGE)).eight_bit


def test_8_bit_content_that_can_be_read_again_is_kept_for_a_7_bit_server() -> None:
    raw = LARGE + "Grüße\r\n".encode()
    prepared_message = measured(a_file(raw))
    assert (None, raw) == (prepared_message.small, content(prepared_message))
    short = run(prepared_message.fitted(eight_bit_mime=False, smtputf8=False))
    assert content(short).endswith(b"\r\nGr=C3=BC=C3=9Fe\r\n")
    large = measured(a_file(raw + LINE * (KEPT // len(LINE))))
    assert run(large.fitted(eight_bit_mime=False, smtputf8=False)) is large


@pytest.mark.parametrize("kind", KINDS)
def test_as_it_is(kind: str) -> None:
    raw = b"From a@b Sat\nBCC: b@x\nFrom: f@x\n\nbody\n"
    prepared_message = prepared(KINDS[kind](raw), complete=False)
    assert raw.replace(b"\n", b"\r\n") == prepared_message.small
    prepared_message = prepared(KINDS[kind](b"hello"), complete=False)
    assert prepared_message.small == b"hello\r\n"


RAW = st.lists(
    st.sampled_from(
        [b"A: x", b"Bcc: y", b"\n", b"\r\n", b"\r", b" ", b".", b"\0", b"\xff", b"z" * 9]
    )
).map(b"".join)


@given(RAW, st.lists(st.integers(0, 60)))
def test_any_cutting_gives_the_same_octets(raw: bytes, cuts: list[int]) -> None:
    expected = content(prepared(raw, policy=Repair.REPAIR, complete=False))
    canonical = Canonicalizer(Repair.REPAIR)
    assert canonical.feed(raw) + canonical.finish() == expected
    for message in (cut(raw, cuts), waited_for(*cut(raw, cuts)), iter(cut(raw, cuts))):
        assert content(prepared(message, policy=Repair.REPAIR, complete=False)) == expected


@given(RAW)
def test_what_is_sent_is_complete_canonical_and_blind(raw: bytes) -> None:
    sent = content(prepared(raw, policy=Repair.REPAIR))
    canonical = Canonicalizer()
    assert sent == canonical.feed(sent) + canonical.finish()
    header = Header.parse(sent[: header_end(sent, whole=True)])
    assert {"date", "message-id"} <= {field.name for field in header.fields}
    assert "bcc" not in header
    assert sent == content(prepared(sent))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (HEADER + b"\r\na\rb\r\n", "a bare CR in line 6"),
        (HEADER + b"\r\n\0", "a NUL in line 6"),
        (HEADER + b"\r\nlast\r", "a bare CR in line 6"),
        (b"A: x\rBcc: b@x\r\n\r\n", "a bare CR in line 1"),
    ],
)
def test_what_smtp_cannot_carry_is_refused_before_anything_is_sent(
    kind: str, raw: bytes, expected: str
) -> None:
    with pytest.raises(InvalidMessage, match=expected):
        prepared(KINDS[kind](raw))


@pytest.mark.parametrize("kind", REWINDABLE)
def test_in_a_large_message_that_is_measured_too(kind: str) -> None:
    with pytest.raises(InvalidMessage, match=f"a NUL in line {LARGE.count(10) + 1}"):
        measured(REWINDABLE[kind](LARGE + b"\0"))


@pytest.mark.parametrize("kind", KINDS)
def test_or_while_it_is_sent_where_it_could_not_be_seen(kind: str) -> None:
    prepared_message = prepared(KINDS[kind](LARGE + b"a\rb"))
    with pytest.raises(InvalidMessage, match="a bare CR in line"):
        content(prepared_message)


def test_the_header_has_a_limit_whatever_it_comes_from() -> None:
    for make in KINDS.values():
        with pytest.raises(InvalidMessage, match="longer than 1048576 octets"):
            prepared(make(b"A: x\r\n" * 200_000))
    with pytest.raises(InvalidMessage, match="longer than 1048576 octets"):
        prepared(itertools.repeat(b"A: x\r\n"))


class Broken(Exception):
    """A failure of the caller's own."""


class Gone:
    """Octets, and then a failure; it notes that it was ended."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.ended = False

    def plain(self) -> Iterator[bytes]:
        try:
            yield from self.pieces
            raise Broken
        finally:
            self.ended = True

    async def waited_for(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                yield piece
            raise Broken
        finally:
            self.ended = True

    def read(self, size: int) -> bytes:
        if not self.pieces:
            raise Broken
        piece, *rest = self.pieces
        self.pieces = tuple(rest)
        return piece


@pytest.mark.parametrize(
    "make", [Gone.plain, Gone.waited_for, lambda gone: gone], ids=["plain", "waited for", "file"]
)
def test_a_source_that_fails_is_never_a_silent_end(make: Any) -> None:
    with pytest.raises(Broken):
        prepared(make(Gone(HEADER, b"\r\nhello\r\n")))
    prepared_message = prepared(make(Gone(*cut(LARGE, [*range(READ_SIZE, len(LARGE), READ_SIZE)]))))
    for _ in range(3):
        with pytest.raises(Broken):
            content(prepared_message)
    run(prepared_message.close())


@pytest.mark.parametrize("make", [Gone.plain, Gone.waited_for], ids=["plain", "waited for"])
def test_a_generator_is_ended_when_the_letter_is_closed(make: Any) -> None:
    gone = Gone(LARGE, LARGE)
    prepared_message = prepared(make(gone))
    run(prepared_message.read())
    assert not gone.ended
    run(prepared_message.close())
    run(prepared_message.close())
    assert gone.ended


@pytest.mark.parametrize("make", [Gone.plain, Gone.waited_for], ids=["plain", "waited for"])
def test_a_generator_is_ended_when_preparing_fails(make: Any) -> None:
    gone = Gone(b"From: f@x\r\nTo: a b\r\n\r\n", LARGE, LARGE)
    with pytest.raises(InvalidInput, match="in To"):
        from_header(make(gone))
    assert gone.ended


def test_what_a_generator_raises_at_its_end_changes_nothing() -> None:
    def ending_badly() -> Iterator[bytes]:
        try:
            yield LARGE
            yield LARGE
        finally:
            raise Broken

    prepared_message = prepared(ending_badly())
    run(prepared_message.close())


class Waits:
    """An awaitable that has to be waited for."""

    def __await__(self) -> Iterator[None]:
        yield None


def test_a_cancelled_preparation_leaves_nothing_open() -> None:
    ended: list[bool] = []

    async def waiting() -> AsyncIterator[bytes]:
        try:
            yield HEADER
            await Waits()  # type: ignore[misc]
        finally:
            ended.append(True)

    preparing = prepare(waiting(), now=SECONDS)
    preparing.send(None)
    with pytest.raises(Broken):
        preparing.throw(Broken())
    assert ended == [True]


def test_a_path_is_open_only_as_long_as_it_has_to_be(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(HEADER + b"\r\nhello\r\n")
    before = Descriptors.now()
    prepared_message = prepared(path)
    assert before == Descriptors.now()
    assert prepared_message.small == HEADER + b"\r\nhello\r\n"
    path.write_bytes(LARGE)
    prepared_message = prepared(path)
    assert before + 1 == Descriptors.now()
    assert content(prepared_message) == LARGE
    run(prepared_message.close())
    assert before == Descriptors.now()
    path.write_bytes(HEADER + b"\r\n\0")
    with pytest.raises(InvalidMessage):
        prepared(path)
    assert before == Descriptors.now()
    with pytest.raises(InvalidMessage, match=r"message file '.*/missing' cannot be read"):
        prepared(tmp_path / "missing")


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with subprocess.Popen(
        [sys.executable, "-c", f"open({str(path)!r}, 'wb').write(b'A: x\\n\\nhello')"]
    ) as writer:
        prepared_message = prepared(path)
    assert (writer.returncode, content(prepared_message).endswith(b"\r\nhello\r\n")) == (0, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda octets: octets[:-80],
        lambda octets: octets + LINE,
        lambda octets: octets.replace(b"To: a@x", b"To: b@x"),
        lambda octets: b"",
    ],
    ids=["shorter", "longer", "other header", "empty"],
)
@pytest.mark.parametrize("make", [prepared, measured])
def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path, change: Any, make: Any) -> None:
    path = tmp_path / "message"
    path.write_bytes(LARGE)
    prepared_message = make(path)
    changed = change(LARGE)
    if make is prepared and len(changed) == len(LARGE):
        changed = b""  # the header is read only once
    path.write_bytes(changed)
    with pytest.raises(InvalidMessage, match="changed while it was being sent"):
        content(prepared_message)
    run(prepared_message.close())


def test_what_may_block_is_done_elsewhere(tmp_path: Path) -> None:
    elsewhere = Elsewhere()

    class Slow(Pipe):
        def read(self, size: int) -> bytes:
            assert elsewhere.inside
            return super().read(size)

    prepared_message = prepared(Slow(LARGE), run_blocking=elsewhere)
    assert elsewhere.works == 1
    assert content(prepared_message) == LARGE
    path = tmp_path / "message"
    path.write_bytes(HEADER)
    elsewhere.works = 0
    prepared(path, run_blocking=elsewhere)
    assert elsewhere.works == 1
    prepared(HEADER, run_blocking=elsewhere)
    prepared(iter([LARGE]), run_blocking=elsewhere)
    assert elsewhere.works == 1


@pytest.mark.parametrize("sender", [{"sender": "s@x"}, {"sender": None}])
def test_the_addresses_of_many_recipients_are_parsed_elsewhere(sender: dict[str, Any]) -> None:
    elsewhere = Elsewhere()
    for count, works in ((1000, 0), (1001, 1)):
        addresses = [f"r{number}@x.example" for number in range(count)]
        message = prepared(HEADER, recipients=addresses, run_blocking=elsewhere, **sender)
        assert [str(each) for each in message.envelope.recipients] == addresses
        assert elsewhere.works == works


def test_an_envelope_of_its_own() -> None:
    envelope = Envelope("s@x", ["r@x"], ret="HDRS")
    assert envelope is from_header(b"From: f@x\r\nTo: a@x\r\n\r\n", envelope=envelope).envelope
    with pytest.raises(InvalidInput, match="cannot be given with sender or recipients"):
        prepared(b"", envelope=envelope)


def test_a_message_id_belongs_to_the_sender() -> None:
    def domain(**changes: Any) -> str:
        message_id = prepared(b"From: f@from.example\r\n\r\n", **changes).message_id
        assert message_id is not None
        return message_id.partition("@")[2]

    assert domain() == "example.org>"
    assert domain(sender="a@bücher.example") == "xn--bcher-kva.example>"
    assert domain(sender="") == "from.example>"
    assert domain(sender="a@[192.0.2.1]", host_name="here.example") == "here.example>"
    assert domain(sender="a@[192.0.2.1]") == "localhost>"


@pytest.mark.parametrize(
    ("raw", "sender", "expected"),
    [
        (b"Subject: x\r\n\r\n\xc3\xbc\r\n", "a@x", False),
        (b"Subject: \xc3\xbc\r\n\r\n", "a@x", True),
        (b"Subject: \xfc\r\n\r\n", "a@x", False),
        (b"Bcc: \xc3\xbc <b@x>\r\n\r\n", "a@x", False),
        (b"Subject: x\r\n\r\n", "ü@x", True),
        (b"Subject: x\r\n\r\n", "a@ü.example", False),
    ],
)
def test_smtputf8_only_where_it_is_needed(raw: bytes, sender: str, expected: bool) -> None:
    assert prepared(raw, sender=sender).smtputf8 == expected


SPARSE = """
import sys, tracemalloc
from tests.message.messages import prepared
from tests.pure import run
size = int(sys.argv[2])
class Lines:
    "Octets by the hundred megabytes, that are nowhere."
    def __init__(self): self.at = 0
    def read(self, n):
        octets = (b"x" * 70 + b"\\r\\n") * (min(n, size - self.at) // 72)
        self.at += len(octets)
        return octets
class Seekable(Lines):
    def seekable(self): return True
    def tell(self): return self.at
    def seek(self, at, whence=0): self.at = at
def generator():
    lines = Lines()
    while octets := lines.read(1 << 16):
        yield octets
tracemalloc.start()
prepared_message = prepared({"file": Seekable, "pipe": Lines, "generator": generator}[sys.argv[1]]())
octets = 0
while chunk := run(prepared_message.read()):
    octets += len(chunk)
assert octets - size in range(-1000, 1000), octets
assert prepared_message.size in {None, octets}
print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.parametrize(
    ("kind", "most"),
    [("file", KEPT + 6 * SMALL_SIZE), ("pipe", 6 * SMALL_SIZE), ("generator", 6 * SMALL_SIZE)],
)
def test_300_megabytes_cost_no_more_than_a_few_chunks(kind: str, most: int) -> None:
    size = 72 * (300_000_000 // 72)
    done = subprocess.run(
        [sys.executable, "-c", SPARSE, kind, str(size)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < most
