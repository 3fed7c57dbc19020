"""Clients that close their half, or still send when the session ends, over real sockets."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.waiting import until
from twisted_sendmail import Receiver, ServerSettings, ServerTimeouts
from twisted_sendmail.testing import LoopbackServer

START = b"EHLO c.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
BY_DATA = [START + b"DATA\r\n", b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n"]
BY_BDAT = [START + b"BDAT 7 LAST\r\nhello\r\nQUIT\r\n"]


class Slow(Receiver):
    """Commits a moment later."""

    reactor: Any
    seconds = 0.2

    def commit(self) -> Any:
        if not self.seconds:
            return None
        return deferLater(self.reactor, self.seconds, lambda: None)


class SlowAtRecipient(Slow):
    """Answers RCPT a moment later."""

    seconds = 0

    def recipient(self, recipient: object) -> Any:
        return deferLater(self.reactor, 0.1, lambda: None)


def make(kind: type[Slow], reactor: Any) -> Any:
    def receiver(connection: Any) -> Slow:
        made = kind(connection)
        made.reactor = reactor
        return made

    return receiver


def talk(port: int, flights: list[bytes], *, half_close: bool = True) -> bytes:
    """Send the flights, each after a reply to the one before, close our half, and read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        received = b""
        for number, flight in enumerate(flights):
            connection.sendall(flight)
            while number < len(flights) - 1 and b"354" not in received:
                received += connection.recv(65536)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
        return received


def codes(received: bytes) -> list[str]:
    return [line[:3] for line in received.decode().splitlines() if line[3:4] == " "]


@pytest.mark.parametrize("kind", [Slow, SlowAtRecipient])
@pytest.mark.parametrize("quit_too", [True, False])
@pytest.mark.parametrize("flights", [BY_DATA, BY_BDAT], ids=["DATA", "BDAT"])
@ensureDeferred
async def test_a_client_that_closes_its_half_gets_all_replies(
    reactor: Any, flights: list[bytes], quit_too: bool, kind: type[Slow]
) -> None:
    if not quit_too:
        flights = [flight.removesuffix(b"QUIT\r\n") for flight in flights]
    async with LoopbackServer(reactor, tls=False, receiver=make(kind, reactor)) as server:
        received = await deferToThread(talk, server.port, flights)
    expected = ["220", "250", "250", "250", *(["354"] if len(flights) > 1 else []), "250"]
    assert codes(received) == expected + ["221"] * quit_too


@ensureDeferred
async def test_half_a_message_is_dropped_when_the_client_closes_its_half(reactor: Any) -> None:
    aborted: list[str] = []

    class Half(Receiver):
        def abort(self) -> None:
            aborted.append("aborted")

        def commit(self) -> None:
            aborted.append("committed")

    async with LoopbackServer(reactor, tls=False, receiver=Half) as server:
        received = await deferToThread(talk, server.port, [BY_DATA[0], b"Subject: x\r\n\r\nhal"])
    assert (codes(received)[-1], aborted) == ("354", ["aborted"])


@ensureDeferred
async def test_a_half_closed_client_that_never_reads_is_dropped(reactor: Any) -> None:
    """Its octets were all read, and it does not take the replies: the write deadline holds."""
    deadlines = ServerTimeouts(reading=0.3, closing=0.3)
    settings = ServerSettings(max_idle_commands=10**9)
    server = LoopbackServer(reactor, tls=False, settings=settings, deadlines=deadlines)
    await server.start()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await deferToThread(connection.connect, ("127.0.0.1", server.port))
        connection.settimeout(30)

        def send_all() -> None:
            with contextlib.suppress(OSError):
                connection.sendall(b"NOOP\r\n" * 2_000_000)
                connection.shutdown(socket.SHUT_WR)

        send = deferToThread(send_all)
        await until(reactor, lambda: server.sessions and server.sessions[0].closed)
        await send
    finally:
        connection.close()
        await server.stop()


@pytest.mark.parametrize("megabytes", [0, 8])
@ensureDeferred
async def test_the_reply_to_a_client_that_is_still_sending_is_not_lost_to_a_reset(
    reactor: Any, megabytes: int
) -> None:
    content = b"x" * 78 + b"\r\n"
    flood = START + b"DATA\r\n" + content * (1 + megabytes * 1024 * 1024 // len(content))
    async with LoopbackServer(reactor, tls=False) as server:
        received = await deferToThread(talk, server.port, [flood], half_close=False)
        assert server.messages == []
    assert codes(received) == ["220", "250", "250", "250", "554"]


@ensureDeferred
async def test_a_client_that_never_stops_sending_is_dropped(reactor: Any) -> None:
    def flood(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(START + b"DATA\r\nearly\r\n")
            received = b""
            while data := connection.recv(65536):
                received += data
            # The server's half is closed; ours goes on.
            with contextlib.suppress(ConnectionError):
                while True:
                    connection.sendall(b"RSET\r\n" * 1000)
            return received

    deadlines = ServerTimeouts(discarding=0.3)
    async with LoopbackServer(reactor, tls=False, deadlines=deadlines) as server:
        assert codes(await deferToThread(flood, server.port))[-1] == "554"


@ensureDeferred
async def test_tls_has_no_half_close(reactor: Any) -> None:
    """A client that closes the connection below TLS is gone."""
    async with LoopbackServer(reactor) as server:

        def close(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(100) == b""

        await deferToThread(close, server.tls_port)
