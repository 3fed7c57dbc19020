"""Cancelling at every stage: one result, a closed connection, and whether the message is in doubt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from tests.client.conftest import BODY, Net
from tests.client.scripted_server import DEAF, SILENT
from tests.deferreds import Result
from twisted_sendmail.client import Cancelled, Timeouts
from twisted_sendmail.message.prepared import SMALL_SIZE
from twisted_sendmail.smtp import SendTimeout

#: Where the server falls silent: what it does, and whether a message is in doubt then.
STAGES: dict[str, tuple[dict[str, Any], bool]] = {
    "greeting": ({"GREETING": SILENT}, False),
    "half a greeting": ({"GREETING": b"220-hi\r\n"}, False),
    "EHLO": ({"EHLO": SILENT}, False),
    "STARTTLS": ({"STARTTLS": SILENT}, False),
    "handshake": ({"STARTTLS": "220 go", "HANDSHAKE": SILENT}, False),
    "EHLO inside TLS": ({"EHLO/TLS": SILENT}, False),
    "AUTH": ({"AUTH": SILENT}, False),
    "MAIL": ({"MAIL": SILENT, "RCPT": SILENT, "DATA": SILENT}, False),
    "RCPT": ({"RCPT": SILENT, "DATA": SILENT}, False),
    "DATA": ({"DATA": SILENT}, False),
    "final dot": ({".": SILENT, "QUIT": SILENT}, True),
    "half a verdict": ({".": b"250-queued\r\n", "QUIT": SILENT}, True),
}


def begun(net: Net, stage: str) -> tuple[Result, Any, bool]:
    answers, doubt = STAGES[stage]
    server = net.server(answers)
    result = net.send(server)
    assert result.fired == 0
    return result, server, doubt


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_closes_the_connection_and_says_what_is_in_doubt(net: Net, stage: str) -> None:
    result, server, doubt = begun(net, stage)
    result.deferred.cancel()
    net.pump.run()
    assert (1, Cancelled) == (result.fired, type(result.error))
    assert isinstance(result.error, CancelledError)
    assert net.link.over
    assert server.lost == 1
    report: Any = getattr(result.error, "report", None)
    assert doubt == bool(report and report.in_doubt)
    assert doubt == ("may have been delivered" in str(result.error))
    assert doubt == bool(server.messages)
    assert "QUIT" not in server.lines


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_twice_or_three_times_is_cancelling_once(net: Net, stage: str) -> None:
    result, _, doubt = begun(net, stage)
    for _ in range(3):
        result.deferred.cancel()
    net.pump.run()
    result.deferred.cancel()
    assert result.fired == 1
    assert isinstance(result.error, Cancelled)
    assert doubt == bool(result.error.report and result.report.in_doubt)
    assert net.link.over


@pytest.mark.parametrize("stage", STAGES)
def test_the_overall_deadline_does_the_same(net: Net, stage: str) -> None:
    answers, doubt = STAGES[stage]
    server = net.server(answers)
    never = dict.fromkeys(
        ["greeting", "command", "tls", "auth", "mail", "rcpt", "data_init", "data_end"]
    )
    result = net.send(server, timeouts=Timeouts(total=100, **never))
    net.pump.advance(99)
    assert result.fired == 0
    net.pump.advance(2)
    assert (1, SendTimeout) == (result.fired, type(result.error))
    assert "took more than 100 s" in str(result.error)
    assert doubt == bool(result.error.report and result.report.in_doubt)
    assert doubt == ("may have been delivered" in str(result.error))
    if doubt:
        assert result.error is result.report.error


def test_cancelling_while_connecting(net: Net) -> None:
    cancelled: list[Any] = []
    result = net.start(Deferred(cancelled.append))
    result.deferred.cancel()
    net.pump.run()
    assert (1, Cancelled, "connect") == (result.fired, type(result.error), result.error.phase)
    assert len(cancelled) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda reactor: TCP4ClientEndpoint(reactor, "192.0.2.1", 587),
        lambda reactor: HostnameEndpoint(reactor, "192.0.2.1", 587),
    ],
)
def test_cancelling_while_twisted_connects(net: Net, make: Callable[[Any], Any]) -> None:
    """Its endpoints fail with an error of their own then; it is a cancellation all the same."""
    reactor: Any = MemoryReactorClock()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    result = net.start(make(reactor))
    result.deferred.cancel()
    assert (1, Cancelled) == (result.fired, type(result.error))
    result = net.start(make(reactor), timeouts=Timeouts(total=5))
    net.clock.advance(6)
    assert (1, SendTimeout) == (result.fired, type(result.error))


class Slow:
    """A message that comes in pieces, when the test says so."""

    def __init__(self, lines: int = 20_000) -> None:
        self.lines = lines
        self.turns: list[Deferred[bytes]] = []
        self.closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(2 * SMALL_SIZE // len(BODY)):  # what is small is read before connecting
                yield BODY
            while True:
                turn: Deferred[bytes] = Deferred()
                self.turns.append(turn)
                yield await turn
        finally:
            self.closed = True


def test_cancelling_while_the_content_waits_for_its_source(net: Net) -> None:
    slow, server = Slow(), net.server()
    result = net.send(server, message=slow.chunks())
    assert (result.fired, len(slow.turns)) == (0, 1)
    result.deferred.cancel()
    net.pump.run()
    assert (1, Cancelled, []) == (result.fired, type(result.error), server.messages)
    assert result.report.in_doubt == ()
    assert net.link.over


def test_cancelling_while_a_small_content_waits_for_its_source(net: Net) -> None:
    slow, server = Slow(lines=1), net.server()
    result = net.send(server, message=slow.chunks())
    assert result.fired == 0
    result.deferred.cancel()
    net.pump.run()
    assert result.fired == 1
    assert isinstance(result.error, CancelledError)
    assert (server.messages, slow.closed) == ([], True)


def test_cancelling_while_the_server_takes_no_more(net: Net) -> None:
    server = net.server({"CONTENT": DEAF})
    result = net.send(server, message=BODY + b"x" * 76 + b"\r\n" * 2_000_000)
    assert (result.fired, net.link.client.waiting > 0) == (0, True)
    result.deferred.cancel()
    net.pump.run()
    assert (1, Cancelled, []) == (result.fired, type(result.error), server.messages)
    assert result.report.in_doubt == ()
    assert net.link.over


@pytest.mark.parametrize("answers", [{"QUIT": SILENT}, {"QUIT": b"221-bye\r\n"}])
def test_cancelling_behind_the_verdict_changes_nothing(net: Net, answers: dict[str, Any]) -> None:
    server = net.server(answers)
    result = net.send(server)
    assert len(result.get().accepted) == 1
    result.deferred.cancel()
    net.pump.advance(1)
    assert result.fired == 1
    assert net.link.over


def test_cancelling_while_a_refused_session_says_good_bye_tells_the_refusal(net: Net) -> None:
    server = net.server({"AUTH": "535 no", "QUIT": SILENT})
    result = net.send(server)
    result.deferred.cancel()
    net.pump.run()
    assert (result.fired, result.error.reply.code) == (1, 535)


def test_cancelling_after_the_end_does_nothing(net: Net) -> None:
    result = net.send(net.server())
    result.deferred.cancel()
    assert result.fired == 1


def test_the_overall_deadline_behind_the_verdict_changes_nothing(net: Net) -> None:
    server = net.server({"QUIT": SILENT})
    result = net.send(server, timeouts=Timeouts(total=100, quit=200))
    net.pump.advance(101)
    assert len(result.get().accepted) == 1


def test_a_source_that_is_still_read_is_closed(net: Net) -> None:
    slow = Slow()
    result = net.send(net.server(), message=slow.chunks())
    result.deferred.cancel()
    net.pump.run()
    assert slow.closed
