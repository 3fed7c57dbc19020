"""Host names are resolved in threads that end with the process."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from twisted_sendmail.daemon.resolver import DaemonThreadResolver


@implementer(IResolutionReceiver)
class Receiver:
    def __init__(self) -> None:
        self.events: list[Any] = []
        self.completed: Deferred[None] = Deferred()

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        self.events.append(resolutionInProgress.name)

    def addressResolved(self, address: Any) -> None:
        self.events.append(address)

    def resolutionComplete(self) -> None:
        self.completed.callback(None)


async def resolve(reactor: Any, name: str, **options: Any) -> list[Any]:
    receiver = Receiver()
    resolver = DaemonThreadResolver(reactor)
    resolver.resolveHostName(receiver, name, 25, **options)
    await receiver.completed
    assert all(thread.daemon for thread in resolver._pool.threads)
    resolver._pool.stop()
    return receiver.events


@ensureDeferred
async def test_addresses_are_of_the_family_of_the_name(reactor: Any) -> None:
    four, six = IPv4Address("TCP", "127.0.0.1", 25), IPv6Address("TCP", "::1", 25)
    assert ["127.0.0.1", four] == await resolve(reactor, "127.0.0.1")
    assert ["::1", six] == await resolve(reactor, "::1")


@ensureDeferred
async def test_only_the_wanted_types_of_address_are_resolved(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(*arguments: Any) -> list[Any]:
        found = [
            (socket.AF_INET6, 0, 0, "", ("2001:db8::1", 25, 0, 0)),
            (socket.AF_INET, 0, 0, "", ("192.0.2.1", 25)),
        ]
        return [each for each in found if arguments[2] in {socket.AF_UNSPEC, each[0]}]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    four = IPv4Address("TCP", "192.0.2.1", 25)
    six = IPv6Address("TCP", "2001:db8::1", 25)
    assert ["h", six, four] == await resolve(reactor, "h")
    assert ["h", four] == await resolve(reactor, "h", addressTypes=[IPv4Address])
    assert ["h", six] == await resolve(reactor, "h", addressTypes=[IPv6Address])


@ensureDeferred
@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "not known"), UnicodeError("label too long")]
)
async def test_a_name_that_cannot_be_resolved_has_no_address(
    reactor: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert ["mx.example.net"] == await resolve(reactor, "mx.example.net")


def test_no_thread_starts_before_the_first_name(reactor: Any) -> None:
    """A fork into the background would lose the thread."""
    before = threading.active_count()
    DaemonThreadResolver(reactor)
    assert before == threading.active_count()
