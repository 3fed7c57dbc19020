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

    def write(self, data: bytes) -> None:
        raise AssertionError

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


class Reactor:
    """The reactor of one connection: it writes when it is told to."""

    def __init__(self) -> None:
        self.writers: list[Any] = []

    def getWriters(self) -> list[Any]:
        return list(self.writers)


class Written(Descriptor):
    """One whose socket takes only so much."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.reactor = Reactor()
        self.waiting = b""
        self.takes: Any = 1 << 20
        self.sent = b""
        self.times = 0

    def write(self, data: bytes) -> None:
        self.waiting += data
        self.reactor.writers = [self]

    def writeSomeData(self, data: bytes) -> Any:
        self.times += 1
        if not isinstance(self.takes, int):
            return self.takes
        taken = data[: self.takes]
        self.sent += taken
        self.takes -= len(taken)
        return len(taken)

    def turn(self) -> None:
        """The reactor's."""
        self.sent, self.waiting = self.sent + self.waiting, b""
        self.reactor.writers = []


class Layer:
    """Makes records of three octets."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), 3):
            self.transport.write(data[at : at + 3])


@pytest.fixture
def flown(ends: Ends) -> tuple[Written, Layer, SocketState]:
    transport = Written(ends[0])
    layer, state = Layer(transport), SocketState(transport)
    state.under(layer)
    return transport, layer, state


def test_the_records_of_a_flight_go_to_the_socket_together(flown: Any) -> None:
    transport, layer, state = flown
    state.fly(b"MAIL RCPT DATA", layer.write)
    assert (b"MAIL RCPT DATA", 1, b"") == (transport.sent, transport.times, transport.waiting)


def test_what_the_socket_does_not_take_is_left_to_the_reactor_and_so_is_what_comes_behind(
    flown: Any,
) -> None:
    transport, layer, state = flown
    transport.takes = 5
    state.fly(b"MAIL RCPT ", layer.write)
    assert (b"MAIL ", b"RCPT ") == (transport.sent, transport.waiting)
    transport.takes = 1 << 20
    state.fly(b"DATA ", layer.write)
    assert (b"MAIL ", b"RCPT DATA ", 1) == (transport.sent, transport.waiting, transport.times)
    transport.turn()
    state.fly(b"QUIT", layer.write)
    assert (b"MAIL RCPT DATA QUIT", b"", 2) == (transport.sent, transport.waiting, transport.times)


def test_what_the_layer_says_by_itself_is_left_to_the_reactor(flown: Any) -> None:
    transport, layer, state = flown
    layer.write(b"alert")
    assert (b"", b"alert") == (transport.sent, transport.waiting)
    state.fly(b"QUIT", layer.write)
    transport.turn()
    assert b"alertQUIT" == transport.sent


def test_an_error_is_left_to_the_reactor(flown: Any) -> None:
    transport, layer, state = flown
    transport.takes = ConnectionError("lost")
    state.fly(b"QUIT", layer.write)
    assert (b"", b"QUIT") == (transport.sent, transport.waiting)


@pytest.mark.parametrize("ending", [{"connected": False}, {"disconnecting": True}])
def test_a_flight_on_a_connection_that_ends_is_left_to_the_reactor(flown: Any, ending: Any) -> None:
    transport, layer, state = flown
    vars(transport).update(ending)
    state.fly(b"QUIT", layer.write)
    assert (b"", b"QUIT", 0) == (transport.sent, transport.waiting, transport.times)


def test_what_a_layer_made_before_it_failed_is_sent(flown: Any) -> None:
    transport, layer, state = flown

    def fail(_: bytes) -> None:
        layer.write(b"some")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        state.fly(b"some more", fail)
    layer.write(b"alert")
    assert (b"some", b"alert") == (transport.sent, transport.waiting)


def test_when_the_connection_is_over_the_transport_is_as_it_was(flown: Any) -> None:
    transport, layer, state = flown
    state.let_go()
    assert "write" not in vars(transport)
    assert not state.silent()
    state.fly(b"QUIT", layer.write)
    assert (b"", b"QUIT") == (transport.sent, transport.waiting)


def test_all_that_is_written_in_a_flight_goes_together(flown: Any) -> None:
    transport, layer, state = flown

    def act(data: bytes) -> None:
        layer.write(b"finished")
        state.fly(data, layer.write)

    state.flight(act, b"EHLO")
    assert (b"finishedEHLO", 1, b"") == (transport.sent, transport.times, transport.waiting)


def test_without_a_layer_a_flight_goes_to_the_socket_behind_what_waits(ends: Ends) -> None:
    transport = Written(ends[0])
    state = SocketState(transport)
    state.fly(b"EHLO ", transport.write)
    state.write(b"much ", transport.write)
    state.fly(b"DATA ", transport.write)
    assert (b"EHLO ", b"much DATA ") == (transport.sent, transport.waiting)
    transport.turn()
    state.fly(b"QUIT", transport.write)
    assert (b"EHLO much DATA QUIT", b"") == (transport.sent, transport.waiting)
