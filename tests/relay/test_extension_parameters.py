"""Parameters of an application's extension through the queue to the next hop."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.names import Attempted
from tests.relay.world import World
from twisted_sendmail import (
    Extension,
    ExtensionParameter,
    InvalidInput,
    Recipient,
    ServerSettings,
)

LABEL = Extension(
    "XLABEL",
    mail=(
        ExtensionParameter("XLABEL"),
        ExtensionParameter("XCOST", lambda text: int(text or ""), str),
    ),
    rcpt=(ExtensionParameter("XFOLDER"),),
)
OFFERED = ServerSettings(extensions=("PIPELINING", LABEL))


@pytest.mark.parametrize("restart", [False, True])
def test_parameters_are_sent_at_every_attempt(world: World, *, restart: bool) -> None:
    host = world.host(settings=OFFERED)
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    route = world.route(host.server(extensions=(LABEL,)))
    relay = world.relay(route)
    recipients = [
        Recipient("ok@x.example"),
        Recipient("full@x.example", others={"XFOLDER": "in box=\u00fc"}),
    ]
    queued = world.send(relay, *recipients, others={"XLABEL": "a b", "xcost": 7})
    if restart:
        world.stop(relay)
        relay = world.relay(route)
        world.until(lambda: len(host.messages) == 2)
    else:
        world.run(queued.delivered())
    one, two = host.messages
    for message in (one, two):
        assert message.parameters.others == {"XLABEL": "a b", "XCOST": 7}
    assert [recipient.others for recipient in one.recipients] == [{}]
    assert [recipient.others for recipient in two.recipients] == [{"XFOLDER": "in box=\u00fc"}]


def test_a_value_that_cannot_be_stored_is_refused(world: World) -> None:
    relay = world.relay(world.host())
    with pytest.raises(
        InvalidInput, match="XLABEL cannot be queued: its value is of the type Decimal"
    ):
        world.send(relay, "bob@x.example", others={"XLABEL": Decimal(1)})
    with pytest.raises(
        InvalidInput, match="XFOLDER cannot be queued: its value is of the type list"
    ):
        world.send(relay, Recipient("bob@x.example", others={"XFOLDER": []}))
    assert world.queue(relay) == []


def test_a_route_that_does_not_declare_the_extension_defers_and_names_the_remedy(
    world: World,
) -> None:
    relay = world.relay(world.host(settings=OFFERED))
    world.send(relay, "bob@x.example", others={"XLABEL": "a"})
    (event,) = world.of(Attempted)
    assert (event.status, event.dsn) == ("deferred", "4.3.5")
    assert "the parameter XLABEL cannot be used" in event.reply
    assert "declare it by an Extension" in event.reply
