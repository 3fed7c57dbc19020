"""What is asked of a socket instead of waiting for a turn of the reactor."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_sendmail.client.settling import Settling
from twisted_sendmail.client.socket_state import SocketState


@implementer(IReadDescriptor, IWriteDescriptor)
class Descriptor:
    """A transport over a socket, as the reactors have them."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.connected = True
        self.disconnecting = False
        self.pushed = 0

    def getHandle(self) -> Any:
        return self._handle

    def fileno(self) -> int:
        return 0

    def doRead(self) -> None:
        raise AssertionError

    def doWrite(self) -> None:
        self.pushed += 1

    def connectionLost(self, reason: Any) -> None:
        raise AssertionError

    def logPrefix(self) -> str:
        return ""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


Ends = tuple[socket.socket, socket.socket]


def test_a_socket_with_nothing_to_read_is_silent(ends: Ends) -> None:
    assert SocketState(Descriptor(ends[0])).silent()


def test_octets_that_were_not_read_are_noticed_and_left_where_they_are(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"250 unasked\r\n")
    assert not SocketState(Descriptor(ours)).silent()
    assert b"250 unasked\r\n" == ours.recv(100)
    assert SocketState(Descriptor(ours)).silent()


def test_the_end_of_the_connection_is_no_silence(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    assert not SocketState(Descriptor(ours)).silent()


def test_a_socket_that_is_closed_is_not_known_to_be_silent(ends: Ends) -> None:
    ends[0].close()
    assert not SocketState(Descriptor(ends[0])).silent()


@pytest.mark.parametrize("transport", [None, object(), Descriptor("no socket")])
def test_of_another_transport_nothing_is_known_and_nothing_is_done(transport: Any) -> None:
    state = SocketState(transport)
    assert not state.silent()
    state.push()
    assert 0 == getattr(transport, "pushed", 0)


def test_what_was_written_is_pushed(ends: Ends) -> None:
    transport = Descriptor(ends[0])
    SocketState(transport).push()
    assert 1 == transport.pushed


@pytest.mark.parametrize("state", [{"connected": False}, {"disconnecting": True}])
def test_a_connection_that_ends_is_left_to_the_reactor(ends: Ends, state: Any) -> None:
    """It has the closing to do when all is written."""
    transport = Descriptor(ends[0])
    vars(transport).update(state)
    SocketState(transport).push()
    assert 0 == transport.pushed


def settling(transport: Any) -> tuple[Settling, Clock]:
    clock = Clock()
    made = Settling(clock)
    made.socket = SocketState(transport)
    return made, clock


def test_what_waits_for_a_layer_to_give_all_it_has_goes_on_when_it_has(ends: Ends) -> None:
    made, clock = settling(Descriptor(ends[0]))
    assert made.quiet
    made.begin()
    assert not made.quiet
    first, second = made.settled(), made.settled()
    second.cancel()
    assert "CancelledError" == second.result.type.__name__
    _ = second.addErrback(lambda _: None)
    assert not first.called
    made.end()
    assert first.called
    assert [] == clock.getDelayedCalls()


def test_what_came_while_the_layer_read_is_waited_for(ends: Ends) -> None:
    """The reactor has to read it first."""
    made, clock = settling(Descriptor(ends[0]))
    made.begin()
    waiting = made.settled()
    ends[1].sendall(b"250 unasked\r\n")
    made.end()
    assert not made.quiet
    assert not waiting.called
    clock.advance(0)
    assert waiting.called
    assert [] == clock.getDelayedCalls()


def test_who_gives_up_behind_the_layer_is_not_called_again(ends: Ends) -> None:
    made, clock = settling(object())
    made.begin()
    waiting = made.settled()
    made.end()
    results: list[Any] = []
    _ = waiting.addBoth(results.append)
    waiting.cancel()
    clock.pump([0, 0, 0])
    assert 1 == len(results)
