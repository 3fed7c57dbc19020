"""A server that sends nothing: within seconds a hint at TLS on another port, and in the error."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from tests.client.conftest import Net
from tests.client.scripted_server import CLOSE, SILENT
from twisted_sendmail import (
    ConnectionClosed,
    SendmailError,
    SendTimeout,
    Timeouts,
    TLSAlert,
    TLSPolicy,
)

STARTTLS_PORT = "is this a STARTTLS port (smtp+starttls://)?"
IMPLICIT_PORT = "is this an implicit-TLS port (smtps://)?"
CLEAR = {"tls": TLSPolicy.NONE, "credentials": None}
#: What the server is: one with implicit TLS, one of another protocol.
WAITING = [
    {"implicit": True},
    {"answers": {"GREETING": SILENT}},
]


def hints(net: Net) -> list[str]:
    return [line for line in net.watched if "sent nothing" in line]


@pytest.mark.parametrize("server", WAITING)
@pytest.mark.parametrize("settings", [{}, CLEAR, {**CLEAR, "tls": TLSPolicy.OPPORTUNISTIC}])
def test_a_server_that_does_not_greet_is_named_within_seconds(
    net: Net, server: dict[str, Any], settings: dict[str, Any]
) -> None:
    logged: list[str] = []
    keep: Any = lambda event: logged.append(formatEvent(event))  # noqa: E731
    globalLogPublisher.addObserver(keep)
    result = net.send(net.server(**server), **settings)
    net.pump.advance(4)
    assert hints(net) == []
    net.pump.advance(2)
    globalLogPublisher.removeObserver(keep)
    assert hints(net) == [f"-- the server has sent nothing for 5 s: {IMPLICIT_PORT}"]
    assert [line for line in logged if IMPLICIT_PORT in line] != []
    assert not result.fired
    net.pump.advance(300)
    error = result.error
    assert isinstance(error, SendTimeout)
    assert f"the server sent nothing: {IMPLICIT_PORT}" in str(error)
    assert len(hints(net)) == 1


def test_a_server_that_does_not_answer_the_handshake_is_named_too(net: Net) -> None:
    result = net.send(net.server({"GREETING": SILENT, "HANDSHAKE": SILENT}), tls=TLSPolicy.IMPLICIT)
    net.pump.advance(6)
    assert hints(net) == [f"-- the server has sent nothing for 5 s: {STARTTLS_PORT}"]
    net.pump.advance(60)
    assert isinstance(result.error, SendTimeout)
    assert STARTTLS_PORT in str(result.error)


@pytest.mark.parametrize("timeouts", [Timeouts(greeting=3), Timeouts(total=8), Timeouts(total=400)])
def test_every_timeout_of_a_silent_server_says_so(net: Net, timeouts: Timeouts) -> None:
    result = net.send(net.server(implicit=True), timeouts=timeouts)
    net.pump.advance(400)
    assert isinstance(result.error, SendTimeout)
    assert IMPLICIT_PORT in str(result.error)


def test_a_server_that_closes_after_a_long_silence_is_named(net: Net) -> None:
    server = net.server({"GREETING": SILENT})
    result = net.send(server)
    net.pump.advance(20)
    server.transport.loseConnection()
    net.pump.run()
    assert isinstance(result.error, ConnectionClosed)
    assert IMPLICIT_PORT in str(result.error)


def ends(net: Net, server: Any, **settings: Any) -> SendmailError | None:
    result = net.send(server, **settings)
    net.pump.advance(301)
    error: SendmailError | None = result.error
    return error


def test_a_server_that_closes_at_once_is_not_asked_about_tls(net: Net) -> None:
    error = ends(net, net.server({"GREETING": CLOSE}))
    assert isinstance(error, ConnectionClosed)
    assert "sent nothing" not in str(error)


def test_a_server_that_begins_its_greeting_is_not_silent(net: Net) -> None:
    """As Postfix's postscreen does, which makes clients wait for the end."""
    error = ends(net, net.server({"GREETING": b"220-mx.example.net ESMTP\r\n"}))
    assert isinstance(error, SendTimeout)
    assert (hints(net), "sent nothing" in str(error)) == ([], False)


@pytest.mark.parametrize("command", ["EHLO", "AUTH"])
def test_a_server_that_greets_and_then_hangs_is_not_silent(net: Net, command: str) -> None:
    error = ends(net, net.server({command: SILENT}))
    assert isinstance(error, SendTimeout)
    assert (hints(net), "sent nothing" in str(error)) == ([], False)


def test_a_greeting_in_time_leaves_no_hint_and_no_timer(net: Net) -> None:
    net.send(net.server()).get()
    net.pump.advance(1)
    assert [str(call) for call in net.clock.getDelayedCalls()] == []
    assert hints(net) == []


def test_another_error_keeps_its_own_remedy(net: Net) -> None:
    alert = b"\x15\x03\x03\x00\x02\x02\x28"
    error = ends(net, net.server({"GREETING": SILENT, "HANDSHAKE": alert}), tls=TLSPolicy.IMPLICIT)
    assert isinstance(error, TLSAlert)
    assert "sent nothing" not in str(error)
