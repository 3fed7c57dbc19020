"""Content on the wire: back-pressure, early refusals, failing sources, lines that look like the end."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.client.conftest import BODY, Net
from tests.client.scripted_server import CLOSE, DEAF, RESET, SILENT
from twisted_sendmail import (
    ActionIgnored,
    AllRecipientsRefused,
    Cancelled,
    ConnectionClosed,
    DeliveryInDoubt,
    InvalidMessage,
    PermanentFailure,
    ProtocolBreach,
    SendmailError,
    ServiceClosing,
    TLSPolicy,
)

CLEAR = {"tls": TLSPolicy.NONE, "credentials": None}
LINE = b"x" * 76 + b"\r\n"
CHUNKS = {
    "clear": ("PIPELINING", "CHUNKING", "8BITMIME"),
    "secure": ("PIPELINING", "CHUNKING", "AUTH PLAIN"),
}
WAYS: list[dict[str, Any]] = [{}, CHUNKS]
BOTH = pytest.mark.parametrize("way", WAYS, ids=["DATA", "BDAT"])


class Oops(Exception):
    """What a source may raise."""


# -- memory


class Counting:
    """A source that knows how far it is ahead of the server."""

    def __init__(self, server: Any, pieces: int, piece: bytes) -> None:
        self.server, self.pieces, self.piece = server, pieces, piece
        self.given = self.ahead = 0

    def __iter__(self) -> Iterator[bytes]:
        yield BODY
        for _ in range(self.pieces):
            yield self.piece
            self.given += len(self.piece)
            self.ahead = max(self.ahead, self.given - self.server.octets)


@BOTH
def test_300_mb_are_never_in_memory(net: Net, way: Any) -> None:
    """The source is pulled as fast as the server takes, and not faster."""
    way = way or {"clear": ("PIPELINING", "8BITMIME")}
    server = net.server(keep_content=False, **way)
    source = Counting(server, 1200, (b"." + b"y" * 254 + b"\n") * 1024)
    result = net.start(server, message=iter(source), **CLEAR)
    net.link.client.keeps = False
    net.pump.run()
    assert len(result.get().accepted) == 1
    assert len(BODY) + 1200 * 1024 * 257 == server.octets == result.get().size
    assert source.ahead < 2_000_000


@BOTH
def test_20_mb_inside_tls_are_never_in_memory(net: Net, way: Any) -> None:
    server = net.server(
        keep_content=False,
        clear=("STARTTLS",),
        secure=way.get("secure", ("PIPELINING", "AUTH PLAIN")),
    )
    source = Counting(server, 80, LINE * 3277)
    result = net.start(server, message=iter(source))
    net.link.client.keeps = False
    net.pump.run()
    assert len(result.get().accepted) == 1
    assert source.ahead < 2_000_000


@BOTH
def test_one_huge_piece_is_not_written_in_one_go(net: Net, way: Any) -> None:
    server = net.server({"CONTENT": DEAF}, keep_content=False, **way)
    result = net.send(server, message=iter([BODY, LINE * 500_000]), **CLEAR)
    assert result.fired == 0
    assert net.link.client.waiting < 2_000_000
    result.deferred.cancel()


# -- refused in the middle

ENDINGS: list[Any] = [(), CLOSE, RESET]


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("deaf", [True, False])
def test_a_refusal_in_the_middle_is_heard_at_once(net: Net, end: Any, deaf: bool) -> None:
    """552 while the content is on its way, with or without close; even when nothing more is read."""
    refusal = ("552 5.3.4 too much", DEAF, end) if deaf else ("552 5.3.4 too much", end)
    server = net.server({"CONTENT#3": refusal}, keep_content=False)
    result = net.send(server, message=iter([BODY, *[LINE * 1000] * 200]), **CLEAR)
    assert (result.fired, net.clock.seconds()) == (1, 0)
    assert isinstance(result.error, AllRecipientsRefused)
    assert isinstance(result.error, PermanentFailure)
    assert str(result.error.reply) == "552 5.3.4 too much"
    assert (server.messages, server.octets < 5_000_000) == ([], True)
    assert b"\r\n.\r\n" not in net.link.client.sent
    assert net.link.over


def test_a_refusal_in_the_middle_of_chunks_is_heard_too(net: Net) -> None:
    server = net.server(
        {"BDAT#2": "452 4.3.1 full", "BDAT": "250 ok"}, keep_content=False, **CHUNKS
    )
    result = net.send(server, message=iter([BODY, *[LINE * 5000] * 30]), **CLEAR)
    assert isinstance(result.error, ActionIgnored)
    assert not any(line.endswith("LAST") for line in server.lines)


@pytest.mark.parametrize("early", ["250 queued", "354 go on", b"250-queued\r\n", b"2"])
def test_an_early_yes_is_no_verdict(net: Net, early: Any) -> None:
    server = net.server({"CONTENT#2": early}, keep_content=False)
    result = net.send(server, message=iter([BODY, *[LINE * 1000] * 200]), **CLEAR)
    assert isinstance(result.error, ProtocolBreach)
    assert server.messages == []
    assert result.report.in_doubt == ()


def test_421_in_the_middle_leaves_no_doubt(net: Net) -> None:
    server = net.server({"CONTENT#2": "421 bye"}, keep_content=False)
    result = net.send(server, message=iter([BODY, *[LINE * 1000] * 200]), **CLEAR)
    assert isinstance(result.error, ServiceClosing)
    assert server.messages == []


@BOTH
@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("deaf", [True, False])
def test_a_connection_lost_in_the_middle_is_lost_and_not_cancelled(
    net: Net, end: Any, deaf: bool, way: Any
) -> None:
    """Also while the source is paused, waiting for the server."""
    server = net.server({"CONTENT#3": DEAF if deaf else SILENT}, keep_content=False, **way)
    result = net.start(server, message=iter([BODY, *[LINE * 1000] * 200]), **CLEAR)
    if not deaf:
        server.answers["CONTENT#3"] = end
    net.pump.run()
    if deaf:
        assert result.fired == 0
        server.act(end)
        net.pump.run()
    assert result.fired == 1
    assert not isinstance(result.error, Cancelled)
    assert isinstance(result.error, ConnectionClosed)
    assert server.messages == []
    assert result.report.in_doubt == ()


# -- a source that fails


def iterator_that_fails(after: int) -> Iterator[bytes]:
    yield BODY
    for _ in range(after):
        yield LINE * 1000
    raise Oops("the source failed")


async def async_that_fails(after: int) -> AsyncIterator[bytes]:
    for piece in iterator_that_fails(after):
        yield piece


class FileThatFails(io.RawIOBase):
    """A file that cannot be rewound, and fails somewhere."""

    def __init__(self, after: int) -> None:
        self._pieces = iterator_that_fails(after)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces)
        given, self._rest = self._rest[:size], self._rest[size:]
        return given


@BOTH
@pytest.mark.parametrize("make", [iterator_that_fails, async_that_fails, FileThatFails])
@pytest.mark.parametrize("after", [0, 1, 2, 50])
def test_a_source_that_fails_never_leads_to_a_dot(
    net: Net, make: Any, after: int, way: Any
) -> None:
    """Half a message delivered would be a lie; the connection goes, the error comes as it is."""
    server = net.server(**way)
    result = net.send(server, message=make(after), **CLEAR)
    assert (1, Oops) == (result.fired, type(result.error))
    assert server.messages == []
    assert b"\r\n.\r\n" not in net.link.client.sent if net.endpoint.links else True
    assert not any(line.endswith("LAST") for line in server.lines)
    assert not any(b"\r\n.\r\n" in bytes(link.client.sent) for link in net.endpoint.links)
    assert all(link.over for link in net.endpoint.links)


def test_a_source_that_fails_while_the_server_takes_no_more(net: Net) -> None:
    turn: Deferred[None] = Deferred()

    async def source() -> AsyncIterator[bytes]:
        yield BODY
        yield LINE * 1000
        yield LINE * 3000
        await turn
        raise Oops

    server = net.server({"CONTENT": DEAF})
    result = net.send(server, message=source(), **CLEAR)
    turn.callback(None)
    net.pump.run()
    result.deferred.cancel()
    net.pump.run()
    assert result.fired == 1
    assert server.messages == []


@pytest.mark.parametrize("bad", [b"a\rb", b"nul\0", b"\r", b"a\r\r\nb"])
def test_what_smtp_cannot_carry_is_refused_and_never_ended_by_a_dot(net: Net, bad: bytes) -> None:
    for message in (BODY + bad, iter([BODY, bad]), iter([BODY, *[LINE * 5000] * 5, bad])):
        server = net.server()
        result = net.send(server, message=message, **CLEAR)
        assert isinstance(result.error, InvalidMessage)
        assert server.messages == []


def test_what_is_known_to_be_bad_is_refused_before_connecting(net: Net) -> None:
    assert isinstance(net.send(net.server(), message=BODY + b"a\rb").error, InvalidMessage)
    assert net.endpoint.attempts == 0


# -- look-alikes of the end

_PIECE = st.sampled_from(
    [
        b".",
        b"..",
        b"\r\n",
        b"\n",
        b"\r\n.",
        b"\n.",
        b"\n.\n",
        b"\r\n.\r\n",
        b".\r\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"a",
        b"QUIT\r\n",
        b"x" * 4096,
        b"",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_PIECE, max_size=12), st.booleans())
def test_one_exact_message_arrives_whatever_the_content_and_its_cutting(
    net: Net, pieces: list[bytes], chunking: bool
) -> None:
    """No look-alike of the end of data gets onto the wire."""
    server = net.server(**(CHUNKS if chunking else {}))
    net.send(server, message=iter([BODY, *pieces]), **CLEAR).get()
    raw = BODY + b"".join(pieces)
    expected = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if not expected.endswith(b"\r\n"):
        expected += b"\r\n"
    assert server.messages == [expected]
    assert server.lines[-1] == "QUIT"
    if not chunking:
        wire = bytes(net.link.client.sent)
        assert wire.count(b"\r\n.\r\n") == 1
        assert b"\n.\r" not in wire.replace(b"\r\n.\r\n", b"")
        assert b"\r" not in wire.replace(b"\r\n", b"")
        assert b"\n" not in wire.replace(b"\r\n", b"")


@pytest.mark.parametrize("at", [4096, 8192, 16384, 65536, 262144])
def test_a_dot_at_the_edge_of_a_block_is_stuffed(net: Net, at: int) -> None:
    for shift in range(-3, 4):
        head = BODY + b"z" * (at + shift - len(BODY) - 2) + b"\r\n"
        for message in (
            head + b".\r\nQUIT\r\n",
            iter([head[: at - 1], head[at - 1 :] + b".\r\nQUIT\r\n"]),
            iter([head, b".", b"\r\nQUIT\r\n"]),
        ):
            server = net.server()
            net.send(server, message=message, **CLEAR).get()
            assert [head + b".\r\nQUIT\r\n"] == server.messages
            assert server.lines.count("QUIT") == 1


@pytest.mark.parametrize("first", [b".\r\n", b"..\r\n", b".hidden\r\n"])
def test_the_first_line_is_stuffed_too(net: Net, first: bytes) -> None:
    server = net.server()
    net.send(server, message=first + b"x\r\n", **CLEAR).get()
    assert [first + b"x\r\n"] == server.messages


@pytest.mark.parametrize("empty", [b"", iter([]), iter([b"", b""]), io.BytesIO(b"")])
def test_an_empty_message_is_a_lone_dot_or_a_refusal(net: Net, empty: Any) -> None:
    server = net.server()
    result = net.send(server, message=empty, **CLEAR)
    assert result.fired == 1
    assert (
        [b""] == server.messages
        if result.error is None
        else isinstance(result.error, SendmailError)
    )


def test_messages_of_every_kind_arrive(net: Net) -> None:
    email = EmailMessage()
    email["From"], email["To"] = "a@example.org", "b@example.net"
    email.set_content("hello\n.\n.dot\n")
    kinds: list[Any] = [BODY, BODY.decode(), io.BytesIO(BODY), iter([BODY]), email]
    for message in kinds:
        server = net.server()
        assert len(net.send(server, message=message).get().accepted) == 1
        assert len(server.messages) == 1


# -- who is in doubt


@BOTH
def test_doubt_begins_with_the_last_octet_and_not_before(net: Net, way: Any) -> None:
    """A message of two pieces: the connection ends before, and after, its end."""
    for ended in (False, True):
        turn: Deferred[None] = Deferred()

        async def source() -> AsyncIterator[bytes]:
            yield BODY
            # More than is read before the connection is made.
            yield LINE * 20_000
            await turn  # noqa: B023 - each source has its own turn

        server = net.server({".": SILENT, "BDAT_LAST": SILENT, "QUIT": SILENT}, **way)
        result = net.send(server, message=source(), **CLEAR)
        assert result.fired == 0
        if ended:
            turn.callback(None)
            net.pump.run()
        server.act(CLOSE)
        net.pump.run()
        assert (DeliveryInDoubt if ended else ConnectionClosed) is type(result.error)
        assert ended == bool(server.messages)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_long_line_is_named_and_sent_as_it_is(net: Net, streamed: bool) -> None:
    message = BODY + b"y" * 1200 + b"\r\nx\r\n" + b"y" * 2000 + b"\r\n"
    line = BODY.count(b"\n") + 1
    server = net.server()
    report = net.send(server, message=iter([message]) if streamed else message, **CLEAR).get()
    assert server.messages == [message]
    assert report.long_line == line
    report = net.send(net.server(), message=BODY + b"y" * 998, **CLEAR).get()
    assert report.long_line is None


def test_a_long_line_is_named_when_the_server_refuses_the_content(net: Net) -> None:
    server = net.server({"CONTENT": "500 5.6.0 line too long"})
    result = net.send(server, message=BODY + b"y" * 1200, **CLEAR)
    assert f"line {BODY.count(chr(10).encode()) + 1} is longer than the 998 octets" in str(
        result.error
    )
