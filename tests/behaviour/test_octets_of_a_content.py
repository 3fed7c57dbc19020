"""The octets of a content arrive as they were sent, wherever the stream is cut."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.conftest import Client, Net
from twisted_sendmail import (
    Envelope,
    InvalidMessage,
    Mailer,
    PoolLimits,
    ServerSettings,
    SubmissionServer,
    TLSPolicy,
)
from twisted_sendmail.testing import MemoryServer, faults

EHLO = "EHLO client.example.net\r\n"
ENVELOPE = "MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@recipient.example>\r\n"
#: Each line is one that a careless reader takes for the end, or for a command.
CONTENT = (
    b"From: a@sender.example\r\nSubject: x\r\n\r\n"
    b".leading dot\r\n..two\r\n...\r\n. \r\nQUIT\r\n"
    b"RCPT TO:<victim@recipient.example>\r\n\r\n.a\r\nlast\r\n"
)
#: Lines that are commands elsewhere.
LINES = [b".\r\n", b"..\r\n", b"MAIL FROM:<x@y>\r\n", b"RCPT TO:<x@y>\r\n", b"DATA\r\n", b"x\r\n"]


def stuffed(content: bytes) -> bytes:
    """The content as RFC 5321 section 4.5.2 has it on the wire, with the end."""
    lines = content.splitlines(keepends=True)
    return b"".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


def begun(net: Net, **settings: Any) -> Client:
    patience: dict[str, Any] = {
        "max_errors": 10**6,
        "max_refusals": 10**6,
        "max_idle_commands": 10**6,
    }
    net.server(settings=ServerSettings(require_tls=False, **patience, **settings))
    client = net.client()
    client.send(EHLO)
    return client


def in_pieces(client: Client, octets: bytes, *cuts: int) -> list[str]:
    """Send *octets* as segments that end at *cuts*; the lines of all replies."""
    places = [0, *sorted(cuts), len(octets)]
    said: list[str] = []
    for start, end in pairwise(places):
        if start < end:
            said += client.send(octets[start:end])
    return said


def codes(lines: list[str]) -> list[str]:
    return [line[:3] for line in lines]


# -- a server of ours --------------------------------------------------------------------


def test_data_cut_anywhere_gives_the_same_content(net: Net) -> None:
    client = begun(net)
    wire = stuffed(CONTENT)
    for cut in range(len(wire)):
        assert codes(client.send(ENVELOPE + "DATA\r\n")) == ["250", "250", "354"]
        assert codes(in_pieces(client, wire, cut)) == ["250"]
    assert codes(client.send(ENVELOPE + "DATA\r\n")) == ["250", "250", "354"]
    assert codes(in_pieces(client, wire, *range(len(wire)))) == ["250"]
    assert set(net.contents()) == {CONTENT}
    assert len(wire) + 1 == len(net.contents())
    assert all(
        ["b@recipient.example"] == list(map(str, message.recipients)) for message in net.messages
    )


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_chunks_cut_anywhere_give_the_same_content(net: Net, size: int) -> None:
    client = begun(net)
    chunks = [CONTENT[at : at + size] for at in range(0, len(CONTENT), size)]
    wire = b"".join(
        b"BDAT %d%s\r\n%s" % (len(chunk), b" LAST" if n == len(chunks) else b"", chunk)
        for n, chunk in enumerate(chunks, start=1)
    )
    step = max(1, len(wire) // 150)
    for cut in range(0, len(wire), step):
        octets = ENVELOPE.encode() + wire
        at = len(ENVELOPE) + cut
        assert ["250"] * (2 + len(chunks)) == codes(in_pieces(client, octets, at))
    octets = ENVELOPE.encode() + wire
    every = range(len(ENVELOPE), len(octets))
    assert ["250"] * (2 + len(chunks)) == codes(in_pieces(client, octets, *every))
    assert set(net.contents()) == {CONTENT}
    assert all(
        ["b@recipient.example"] == list(map(str, message.recipients)) for message in net.messages
    )


@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=12),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_commands_in_a_chunk_are_content(
    certificate: Any, lines: list[bytes], sizes: list[int], cuts: list[int]
) -> None:
    net = Net(certificate)
    client = begun(net)
    content, chunks = b"".join(lines), []
    for size in sizes:
        chunks.append(content[:size])
        content = content[size:]
    chunks.append(content)
    wire = b"".join(b"BDAT %d\r\n%s" % (len(chunk), chunk) for chunk in chunks)
    wire = ENVELOPE.encode() + wire + b"BDAT 0 LAST\r\nNOOP\r\n"
    said = in_pieces(client, wire, *[cut for cut in cuts if cut < len(wire)])
    assert ["250"] * (4 + len(chunks)) == codes(said)
    (message,) = net.messages
    assert b"".join(lines) == message.content
    assert list(map(str, message.recipients)) == ["b@recipient.example"]


@pytest.mark.parametrize(
    ("before", "refusal"),
    [
        ("", "503"),
        ("MAIL FROM:<a@sender.example>\r\n", "503"),
        (ENVELOPE + "BDAT 0 LAST\r\n", "503"),
        (ENVELOPE + "BDAT 1000\r\n" + "x" * 1000, "552"),
    ],
    ids=["no transaction", "no recipient", "after the last", "too much"],
)
@pytest.mark.parametrize("last", ["", " LAST"])
def test_the_octets_of_a_refused_chunk_are_thrown_away(
    net: Net, before: str, refusal: str, last: str
) -> None:
    client = begun(net, max_size=1000)
    kept = before.count("LAST")
    wire = f"BDAT 90{last}\r\n".encode() + (ENVELOPE + "DATA\r\nNOOP\r\n").ljust(90).encode()
    assert len(wire.partition(b"\r\n")[2]) == 90
    for cut in range(len(wire)):
        client.send("RSET\r\n")
        client.send(before)
        assert [refusal] == codes(in_pieces(client, wire, cut))
        # The session goes on with what comes after the chunk.
        assert codes(client.send("NOOP\r\n")) == ["250"]
    assert kept * len(wire) == len(net.messages)
    assert b"".join(net.contents()) == b""
    assert codes(client.send("RSET\r\n")) == ["250"]
    assert codes(client.send(ENVELOPE + "BDAT 3 LAST\r\nx\r\n")) == ["250", "250", "250"]
    assert net.contents()[-1] == b"x\r\n"


# -- a client of ours --------------------------------------------------------------------


async def pieces_in_time(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def pieces_of(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


class Reluctant(io.RawIOBase):
    """A file that gives less than it is asked for."""

    def __init__(self, content: bytes, size: int) -> None:
        self._rest = content
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        taken = self._rest[: min(self._size, len(buffer))]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def iterator(content: bytes, size: int) -> Iterator[bytes]:
    return iter(pieces_of(content, size))


#: The same octets, given in another way.
SOURCES: dict[str, Callable[[bytes, int], Any]] = {
    "bytes": lambda content, size: content,
    "str": lambda content, size: content.decode(),
    "list": pieces_of,
    "iterator": iterator,
    "async iterator": lambda content, size: pieces_in_time(pieces_of(content, size)),
    "file": lambda content, size: io.BytesIO(content),
    "raw file": Reluctant,
}
#: As it stands, and with the line ends of a text file, which become CRLF.
WRITTEN = {"CRLF": CONTENT, "LF": CONTENT.replace(b"\r\n", b"\n")}


@pytest.mark.parametrize("without", [(), ("CHUNKING",), ("CHUNKING", "PIPELINING")], ids=" ".join)
@pytest.mark.parametrize("ends", list(WRITTEN))
@pytest.mark.parametrize("source", list(SOURCES))
def test_a_source_in_any_pieces_arrives_whole(
    source: str, ends: str, without: tuple[str, ...]
) -> None:
    written = WRITTEN[ends]
    with MemoryServer(tls=False, faults=[faults.without(*without)]) as server:
        for size in (1, 2, 3, 5, 8, 64, len(written)):
            server.send(
                SOURCES[source](written, size),
                sender="a@sender.example",
                recipients="b@recipient.example",
                complete=False,
            )
        assert [message.content for message in server.messages] == [CONTENT] * 7


@pytest.mark.parametrize("without", [(), ("CHUNKING",)], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("octet_by_octet", [False, True])
def test_messages_close_after_each_other_stay_apart(
    without: tuple[str, ...], octet_by_octet: bool
) -> None:
    plan = [faults.without(*without)] + [faults.single_bytes()] * octet_by_octet
    contents = [CONTENT + b"%d\r\n" % n * (n * 997) for n in range(8)]
    with MemoryServer(tls=False, faults=plan) as server:
        mailer = Mailer(
            server.clock,
            [SubmissionServer("localhost", endpoint=server.endpoint, tls=TLSPolicy.NONE)],
            limits=PoolLimits(connections=1),
        )
        messages = [
            (Envelope("a@sender.example", ["b@recipient.example"]), each) for each in contents
        ]
        sending = mailer.send_many(messages, complete=False)
        server.run(sending.deferred())
        server.run(mailer.aclose())
        assert contents == [message.content for message in server.messages]


#: What stands on both sides of the end of a large piece.
BORDERS = [
    (b"\r\n", b".\r\n"),
    (b"\r", b"\n.\r\n"),
    (b"\r\n.", b".\r\n"),
    (b"\r\n.", b"\r\nx"),
    (b"x", b".\r\n"),
]


@pytest.mark.parametrize("without", [(), ("CHUNKING",), ("CHUNKING", "PIPELINING")], ids=" ".join)
@pytest.mark.parametrize("border", BORDERS, ids=repr)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_pieces_too_large_to_be_gathered_arrive_whole(
    border: tuple[bytes, bytes], without: tuple[str, ...], asynchronous: bool
) -> None:
    """A line end, or a dot at the begin of a line, at the border of what is sent at a time."""
    end, begin = border
    filler = (b"y" * 70 + b"\r\n") * 8000
    pieces = [b"Subject: x\r\n\r\n" + filler + end]
    pieces += [begin + filler + end] * 3 + [begin + b"the end\r\n"]
    with MemoryServer(tls=False, faults=[faults.without(*without)]) as server:
        server.send(
            pieces_in_time(pieces) if asynchronous else iter(pieces),
            sender="a@sender.example",
            recipients="b@recipient.example",
            complete=False,
        )
        (message,) = server.messages
        assert b"".join(pieces) == message.content


@pytest.mark.parametrize("size", [65_536, 262_144, 1_048_576])
@pytest.mark.parametrize("shift", range(-3, 4))
def test_a_dot_at_any_octet_around_a_round_number(size: int, shift: int) -> None:
    """Where a file or a large message may be cut, a line begins with a dot."""
    head = b"Subject: x\r\n\r\n"
    line = b"y" * 62 + b"\r\n"
    before = size + shift - len(head)
    content = head + (line * (before // 64 + 1))[-before:] + b".\r\n..\r\n" + line * 20 + b".z\r\n"
    with MemoryServer(tls=False, faults=[faults.without("CHUNKING")]) as server:
        for source in (content, io.BytesIO(content), iter([content])):
            server.send(
                source,
                sender="a@sender.example",
                recipients="b@recipient.example",
                complete=False,
            )
        assert [content] * 3 == [message.content for message in server.messages]


@pytest.mark.parametrize("without", [(), ("CHUNKING",)], ids=["BDAT", "DATA"])
@pytest.mark.parametrize(
    "wrong", [(b"a\r", b"b\r\n"), (b"a", b"\rb\r\n"), (b"a\0", b"b\r\n"), (b"a\r", b"")]
)
@pytest.mark.parametrize("large", [False, True])
def test_what_smtp_cannot_carry_is_refused_at_the_border_of_pieces_too(
    wrong: tuple[bytes, bytes], without: tuple[str, ...], large: bool
) -> None:
    """A CR without its LF, and a NUL: nothing of such a message arrives."""
    filler = (b"y" * 70 + b"\r\n") * (8000 * large)
    pieces = [b"Subject: x\r\n\r\n" + filler + wrong[0], wrong[1]]
    with MemoryServer(tls=False, faults=[faults.without(*without)]) as server:
        with pytest.raises(InvalidMessage):
            server.send(
                iter(pieces),
                sender="a@sender.example",
                recipients="b@recipient.example",
                complete=False,
            )
        assert server.messages == []
