"""``TLS-Required: No`` (RFC 8689 section 3) is passed on, and weakens no connection."""

from __future__ import annotations

import pytest

from tests.names import Attempted, expired_certificate, without
from tests.relay.world import World
from twisted_sendmail import TLSPolicy

FIELD = "TLS-Required: No\r\n"


@pytest.mark.parametrize("require_tls", [False, True])
def test_it_is_passed_on_once_and_does_not_replace_requiretls(
    world: World, require_tls: bool
) -> None:
    host = world.host(clear=False)
    relay = world.relay(host)
    world.send(relay, "bob@x.example", fields=FIELD, require_tls=require_tls)
    (message,) = host.messages
    assert message.email.get_all("TLS-Required") == ["No"]
    assert message.parameters.require_tls is require_tls
    assert message.tls is not None


def test_with_requiretls_it_does_not_let_the_message_go_without(world: World) -> None:
    host = world.host(clear=False, faults=[without("REQUIRETLS")])
    relay = world.relay(host)
    world.send(relay, "bob@x.example", fields=FIELD, require_tls=True)
    assert world.of(Attempted)[0].dsn == "5.7.30"
    assert host.messages == []


@pytest.mark.parametrize("tls", [TLSPolicy.STARTTLS, TLSPolicy.OPPORTUNISTIC])
def test_a_server_that_is_not_verified_does_not_get_the_message(
    world: World, tls: TLSPolicy
) -> None:
    """Not even by opportunistic TLS: other messages go over the connection too."""
    host = world.host(clear=False, faults=[expired_certificate()])
    relay = world.relay(world.route(host.server(tls=tls)))
    world.send(relay, "bob@x.example", fields=FIELD)
    assert (host.messages, world.of(Attempted)[0].dsn) == ([], "4.7.5")
    assert "expired" in world.of(Attempted)[0].reply


def test_starttls_is_not_optional_for_it(world: World) -> None:
    host = world.host(clear=False, faults=[without("STARTTLS")])
    relay = world.relay(host)
    world.send(relay, "bob@x.example", fields=FIELD)
    assert (host.messages, world.of(Attempted)[0].dsn) == ([], "4.7.5")
