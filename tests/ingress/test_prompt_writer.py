"""What is written goes out once and in order, and never past TLS."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from zope.interface import directlyProvides

from twisted_sendmail.ingress.prompt_writer import PromptWriter


class Transport:
    """Like a reactor's, over a socket that takes what the test says."""

    TLS = disconnecting = False
    connected = True

    def __init__(self, *takes: int | Exception) -> None:
        directlyProvides(self, IReadDescriptor, IWriteDescriptor)
        self.takes = list(takes)
        self.sent = b""
        self.buffered = b""

    def getHandle(self) -> socket.socket:
        return socket.socket.__new__(socket.socket)

    def writeSomeData(self, data: bytes) -> int | Exception:
        assert self.buffered == b""
        takes = self.takes.pop(0) if self.takes else len(data)
        if isinstance(takes, int):
            self.sent += data[:takes]
            takes = min(takes, len(data))
        return takes

    def write(self, data: bytes) -> None:
        self.buffered += data


def test_what_the_socket_takes_goes_at_once() -> None:
    transport = Transport()
    writer = PromptWriter(transport)
    writer.write(b"one")
    writer.write(b"two")
    assert (b"onetwo", b"") == (transport.sent, transport.buffered)


@pytest.mark.parametrize("takes", [0, 1, OSError("gone")])
def test_the_rest_and_all_behind_it_are_the_transports(takes: int | Exception) -> None:
    transport = Transport(3, takes)
    writer = PromptWriter(transport)
    for data in (b"one", b"two", b"three"):
        writer.write(data)
    assert b"onetwothree" == transport.sent + transport.buffered
    assert transport.buffered.endswith(b"wothree")


@pytest.mark.parametrize("state", [{"TLS": True}, {"disconnecting": True}, {"connected": False}])
def test_it_never_writes_past_tls_or_to_what_is_closing(state: dict[str, Any]) -> None:
    transport = Transport()
    vars(transport).update(state)
    writer = PromptWriter(transport)
    writer.write(b"one")
    for name in state:
        delattr(transport, name)
    writer.write(b"two")
    assert (b"", b"onetwo") == (transport.sent, transport.buffered)


def test_who_starts_tls_says_so() -> None:
    transport = Transport()
    writer = PromptWriter(transport)
    writer.patient()
    writer.write(b"one")
    assert (b"", b"one") == (transport.sent, transport.buffered)


def test_any_other_transport_is_written_to_as_ever() -> None:
    class Other:
        heard = b""

        def write(self, data: bytes) -> None:
            self.heard += data

    other = Other()
    PromptWriter(other).write(b"one")
    assert other.heard == b"one"
