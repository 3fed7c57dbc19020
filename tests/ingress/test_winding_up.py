"""The server goes down: who is between messages hears 421, a message under way gets its reply."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.ingress.conftest import Net
from twisted_sendmail.ingress.receiver import Connection, Receiver, Verdict

DOWN = "421 4.3.2 Going down: try again later"


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
    assert ([DOWN], True, [None]) == (client.take(), client.over, done)


def test_a_message_under_way_gets_its_reply_and_the_next_one_does_not_begin(net: Net) -> None:
    net.server()
    client = net.client()
    client.send("EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    client.send("hel")
    done = begin(net)
    assert ([], False, []) == (client.take(), client.over, done)
    said = client.send("lo\r\n.\r\nMAIL FROM:<a@example.org>\r\n")
    assert ["250", DOWN] == [said[0][:3], said[1]]
    assert 2 == len(said)
    assert ([b"hello\r\n"], True, [None]) == (net.contents(), client.over, done)


def test_a_commit_under_way_is_waited_for(net: Net) -> None:
    committing: Deferred[Any] = Deferred()

    class Slow(Receiver):
        def commit(self) -> Verdict:
            return committing

    def make(connection: Connection) -> Receiver:
        return Slow(connection)

    net.server(make)
    client = net.client()
    client.send("EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    client.send("hello\r\n.\r\n")
    done = begin(net)
    assert ([], False) == (done, client.over)
    committing.callback(None)
    net.pump.run()
    said = client.take()
    assert ["250", DOWN] == [said[-2][:3], said[-1]]
    assert [None] == done


def test_who_does_not_end_is_dropped_after_the_grace(net: Net) -> None:
    net.server()
    client = net.client()
    client.send("EHLO c\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    client.send("hel")
    done = begin(net, grace=5)
    net.clock.advance(5)
    net.pump.run()
    assert (True, [None], []) == (client.over, done, net.contents())
    assert [] == net.clock.getDelayedCalls()


def test_nobody_there_is_over_at_once(net: Net) -> None:
    net.server()
    assert [None] == begin(net)
