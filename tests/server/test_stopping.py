"""The server stops: idle clients get 421, and a message under way gets its reply."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.server.conftest import Net, Raw
from twisted_sendmail import ConnectionInfo, Receiver, ServerTimeouts

DOWN = "421 4.3.2 Service shutting down, try again later"


def begin(net: Net, grace: float = 30) -> list[None]:
    """Wind up; the list has an item when that is done."""
    done: list[None] = []
    winding = Deferred.fromCoroutine(net.factory.wind_up(grace))
    _ = winding.addCallback(done.append)
    net.pump.run()
    return done


def test_who_is_between_messages_hears_421(net: Net) -> None:
    net.server()
    client = net.client()
    client.send("EHLO client.example.net\r\nMAIL FROM:<a@example.org>\r\n")
    done = begin(net)
    assert (client.take(), client.over, done) == ([DOWN], True, [None])


def test_a_message_under_way_gets_its_reply_and_the_next_one_does_not_begin(net: Net) -> None:
    net.server()
    client = net.client()
    client.send("EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    client.send("hel")
    done = begin(net)
    assert (client.take(), client.over, done) == ([], False, [])
    said = client.send("lo\r\n.\r\nMAIL FROM:<a@example.org>\r\n")
    assert [said[0][:3], said[1]] == ["250", DOWN]
    assert len(said) == 2
    assert (net.contents(), client.over, done) == ([b"hello\r\n"], True, [None])


def test_a_commit_under_way_is_waited_for(net: Net) -> None:
    committing: Deferred[Any] = Deferred()

    class Slow(Receiver):
        def commit(self) -> Any:
            return committing

    def make(connection: ConnectionInfo) -> Receiver:
        return Slow(connection)

    net.server(make)
    client = net.client()
    client.send("EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    client.send("hello\r\n.\r\n")
    done = begin(net)
    assert (done, client.over) == ([], False)
    committing.callback(None)
    net.pump.run()
    said = client.take()
    assert [said[-2][:3], said[-1]] == ["250", DOWN]
    assert done == [None]


def test_who_does_not_end_is_dropped_after_the_grace(net: Net) -> None:
    net.server()
    client = net.client()
    client.send("EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    client.send("hel")
    done = begin(net, grace=5)
    net.clock.advance(5)
    net.pump.run()
    assert (client.over, done, net.contents()) == (True, [None], [])
    assert net.clock.getDelayedCalls() == []


def test_nobody_there_is_over_at_once(net: Net) -> None:
    net.server()
    assert begin(net) == [None]


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit TLS", "STARTTLS"])
def test_who_is_in_a_handshake_is_dropped_at_once(net: Net, implicit: bool) -> None:
    net.secure()
    raw = Raw()
    inner: Any = net.factory.implicit_tls() if implicit else net.factory
    net.pump.connect(raw, inner.buildProtocol(None))
    net.pump.run()
    if not implicit:
        raw.transport.write(b"EHLO c\r\nSTARTTLS\r\n")  # type: ignore[union-attr]  # it is there
        net.pump.run()
    assert begin(net) == [None]
    assert raw.gone is not None


@pytest.mark.parametrize("command", ["AUTH PLAIN", "AUTH PLAIN AGphbmUAd3Jvbmc="])
def test_who_logs_in_is_not_waited_for(net: Net, command: str) -> None:
    """The first waits for a response, the second for the delayed refusal of a wrong password."""
    net.secure(deadlines=ServerTimeouts(failed_login=600))
    client = net.client()
    client.starttls()
    client.send(command + "\r\n")
    done = begin(net, grace=600)
    net.clock.advance(2.1)
    net.pump.run()
    assert (done, client.over) == ([None], True)


def test_who_does_not_read_is_not_waited_for(net: Net) -> None:
    net.server()
    client = net.client()
    client.raw.transport.pauseProducing()  # type: ignore[union-attr]  # it is there
    client.send("EHLO c\r\n" + "NOOP\r\n" * 50_000)
    done = begin(net, grace=600)
    for _ in range(3):
        net.clock.advance(1)
        net.pump.run()
    assert done == [None]


def test_a_message_that_ends_late_is_still_waited_for(net: Net) -> None:
    net.server()
    client = net.client()
    client.send("EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n")
    client.send("BDAT 5\r\nhello")
    done = begin(net, grace=600)
    for _ in range(60):
        net.clock.advance(1)
        net.pump.run()
    assert (done, client.over) == ([], False)
    said = client.send("BDAT 2 LAST\r\n\r\n")
    assert [said[0][:3], said[1]] == ["250", DOWN]
    assert (done, len(net.messages)) == ([None], 1)
