"""Connection limits, trusted networks, and settings that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tests.server.conftest import Net, Raw
from twisted_sendmail import (
    ConnectionCounter,
    ConnectionInfo,
    ConnectionLimits,
    InvalidServer,
    Networks,
    Receiver,
    ServerSettings,
    SMTPServerFactory,
    Transcript,
    UserRates,
)
from twisted_sendmail.local_users import LocalPeer


def test_connections_are_limited_in_all_and_421_says_so(net: Net) -> None:
    net.server(limits=ConnectionLimits(total=2))
    first, _ = net.client(), net.client()
    third = net.client()
    assert (third.greeting, third.over) == (
        ["421 4.7.0 Too many connections: try again later"],
        True,
    )
    first.send("QUIT\r\n")
    assert net.client().greeting == ["220 localhost ESMTP"]


def connect(net: Net, address: Any) -> list[str]:
    raw = Raw()
    _ = net.pump.connect(raw, net.factory.buildProtocol(address), address=address)
    net.pump.run()
    return raw.received.decode().splitlines()


def test_connections_are_limited_per_address(net: Net) -> None:
    net.server(limits=ConnectionLimits(per_address=2))
    # The transport of every client in memory has the same address.
    client = net.client()
    net.client()
    peer = client.server.connection.peer
    assert connect(net, peer) == ["421 4.7.0 Too many connections from your address"]
    assert connect(net, IPv4Address("TCP", "192.0.2.77", 1)) == ["220 localhost ESMTP"]


def test_servers_that_share_a_counter_share_the_limits(net: Net) -> None:
    limits, counter = ConnectionLimits(total=3, per_address=1), ConnectionCounter()
    address = IPv4Address("TCP", "192.0.2.77", 1)
    net.server(limits=limits, counter=counter)
    assert connect(net, address) == ["220 localhost ESMTP"]
    net.server(limits=limits, counter=counter)
    assert connect(net, address) == ["421 4.7.0 Too many connections from your address"]
    assert connect(net, IPv4Address("TCP", "192.0.2.78", 1)) == ["220 localhost ESMTP"]


def test_an_ipv6_network_counts_as_one_address(net: Net) -> None:
    net.server(limits=ConnectionLimits(per_address=1))

    greetings = [
        connect(net, IPv6Address("TCP", address, 1))
        for address in ("2001:db8::1", "2001:db8::ffff", "2001:db8:1::1")
    ]
    assert greetings == [
        ["220 localhost ESMTP"],
        ["421 4.7.0 Too many connections from your address"],
        ["220 localhost ESMTP"],
    ]


@pytest.fixture
def users(net: Net, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The users of the connections that follow; the last one is used again."""
    uids = [1000]
    monkeypatch.setattr(
        "twisted_sendmail.server.protocol.peer_of",
        lambda _: LocalPeer(uids.pop(0) if len(uids) > 1 else uids[0]),
    )
    return uids


def test_connections_of_a_user_have_a_limit_of_their_own(net: Net, users: list[int]) -> None:
    users[:] = [1000, 1000, 1000, 1001]
    net.server(limits=ConnectionLimits(per_address=1, per_user=2))
    assert [net.client().greeting[0] for _ in range(4)] == [
        "220 localhost ESMTP",
        "220 localhost ESMTP",
        "421 4.7.0 Too many connections of your user",
        "220 localhost ESMTP",
    ]


def test_a_user_who_sends_fast_waits_and_others_do_not(net: Net, users: list[int]) -> None:
    users[:] = [1000, 1001]
    net.server(user_rates=UserRates(net.clock, rate=0.5, burst=2))
    fast, other = net.client(), net.client()
    for client in (fast, other):
        client.send("EHLO localhost\r\n")
        # One token was for the connection.
        assert client.code("MAIL FROM:<a@example.org>") == "250 2.0.0"
        client.send("RSET\r\n")
    assert fast.send("MAIL FROM:<a@example.org>\r\n") == []
    net.clock.advance(1.9)
    assert fast.take() == []
    net.clock.advance(0.2)
    net.pump.run()
    assert [line[:9] for line in fast.take()] == ["250 2.0.0"]
    assert other.code("RSET") == "250 2.0.0"
    assert other.code("MAIL FROM:<a@example.org>") == "250 2.0.0"


def test_a_user_who_would_have_to_wait_too_long_is_refused(net: Net, users: list[int]) -> None:
    rates = UserRates(net.clock, rate=0.01, burst=1)
    net.server(user_rates=rates)
    client = net.client()
    client.send("EHLO localhost\r\n")
    refused = "451 4.7.1 Too many messages in a short time: try again later"
    assert client.send("MAIL FROM:<a@example.org>\r\n") == [refused]
    assert net.client().greeting == [
        "421 4.7.0 Too many connections in a short time: try again later"
    ]
    # What was refused does not count.
    net.clock.advance(50)
    assert client.send("MAIL FROM:<a@example.org>\r\n") == []
    net.clock.advance(51)
    net.pump.run()
    assert [line[:9] for line in client.take()] == ["250 2.0.0"]


def test_a_client_that_leaves_while_it_waits_leaves_nothing(net: Net, users: list[int]) -> None:
    net.server(user_rates=UserRates(net.clock, rate=1, burst=1))
    client = net.client()
    client.send("EHLO localhost\r\nMAIL FROM:<a@example.org>\r\n")
    client.raw.transport.abortConnection()  # type: ignore[union-attr]
    net.pump.run()
    assert net.factory.connections == set()
    assert net.clock.getDelayedCalls() == []


def test_users_of_a_unix_socket_are_counted_apart() -> None:
    def origin(uid: int | None) -> object:
        address = UNIXAddress("/run/x")
        return ConnectionInfo("x", address, address, Transcript(), LocalPeer(uid)).origin

    assert origin(1000) == origin(1000)
    assert len({origin(1000), origin(0), origin(None)}) == 3


def test_a_trusted_network_needs_neither_tls_nor_auth(net: Net) -> None:
    net.secure(trusted=Networks(["192.0.2.0/24", "unix"]))
    inside = net.factory.buildProtocol(IPv4Address("TCP", "192.0.2.9", 1))
    outside = net.factory.buildProtocol(IPv4Address("TCP", "198.51.100.1", 1))
    local = net.factory.buildProtocol(UNIXAddress("/run/x"))
    wants = [(p._settings.require_tls, p._settings.require_auth) for p in (inside, outside, local)]
    assert wants == [(False, False), (True, True), (False, False)]


def test_without_accounts_nobody_but_the_trusted_is_served(net: Net) -> None:
    net.server(trusted=Networks(["192.0.2.0/24"]))
    assert connect(net, IPv4Address("TCP", "192.0.2.9", 1)) == ["220 localhost ESMTP"]
    refused = connect(net, IPv4Address("TCP", "198.51.100.1", 1))
    assert refused == ["554 5.7.1 No service for your address"]


@pytest.mark.parametrize("bad", ["192.0.2.1/24", "example.org", "", "1.2.3.4/99"])
def test_a_network_that_cannot_be_read_is_named(bad: str) -> None:
    with pytest.raises(InvalidServer, match="network '"):
        Networks([bad])


def test_mapped_addresses_are_those_they_map(net: Net) -> None:
    networks = Networks(["192.0.2.0/24"])
    assert IPv6Address("TCP", "::ffff:192.0.2.1", 1) in networks
    assert IPv6Address("TCP", "2001:db8::1", 1) not in networks
    assert IPv4Address("TCP", "example.org", 1) not in networks


@pytest.mark.parametrize(
    "settings",
    [
        ServerSettings(starttls=True),
        ServerSettings(mechanisms=("PLAIN",)),
    ],
)
def test_settings_that_need_what_is_not_there_are_refused(
    net: Net, settings: ServerSettings
) -> None:
    with pytest.raises(InvalidServer, match="cannot be offered"):
        SMTPServerFactory(net.clock, Receiver, settings=settings)
