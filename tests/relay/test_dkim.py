"""The relay signs what it delivers, and never sends unsigned what is to be signed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.dkim_verifier import keys, verify
from tests.names import RecipientState
from tests.relay.smtp_listener import by_data, listener_client
from tests.relay.world import HOUR, World
from twisted_sendmail import (
    DKIMDomain,
    DKIMKey,
    InvalidInput,
    RetryPolicy,
    ServerSettings,
    SigningUnavailable,
)

OURS = DKIMDomain("example.org", keys(), users=None)
SEVEN_BIT = ServerSettings(
    require_tls=False, max_size=50_000_000, extensions=("PIPELINING", "ENHANCEDSTATUSCODES")
)
GONE = {"gone@x.example": "550 5.1.1 unknown"}


class Shelf:
    """A place for a key, which may be empty."""

    def __init__(self) -> None:
        self.key: DKIMKey | None = keys()[1]
        self.empty: DKIMKey | Exception | None = SigningUnavailable("no key", detail="shelf empty")

    def __call__(self) -> DKIMKey | None:
        if self.key is not None:
            return self.key
        if isinstance(self.empty, Exception):
            raise self.empty
        return self.empty


def test_mail_of_the_application_is_signed(world: World) -> None:
    host = world.host()
    relay = world.relay(host, dkim=[OURS])
    world.send(relay, "bob@x.example")
    world.send(relay, "bob@x.example", body=b"large \t line \r\n" * 20_000)
    assert [[True, True]] * 2 == [verify(message.content) for message in host.messages]
    for message in host.messages:
        assert message.parameters.size == len(message.content)
    assert b"; t=1800000000;" in host.messages[0].content


def test_each_server_gets_a_signature_of_what_it_gets(world: World) -> None:
    body = "Gr\u00fc\u00dfe \t\r\n\r\n".encode()
    eight, seven = world.host(), world.host(settings=SEVEN_BIT)
    seven.refusals = {"ann@x.example": ["450 4.2.1 later"]}
    relay = world.relay(
        world.route(eight, name="a", senders=("a@example.org",)),
        world.route(seven, name="b"),
        dkim=[OURS],
    )
    world.send(relay, "bob@x.example", sender="a@example.org", body=body)
    world.send(relay, "bob@x.example", "ann@x.example", sender="b@example.org", body=body)
    world.until(lambda: len(seven.got) == 2)
    (there,) = eight.messages
    assert body in there.content
    assert [True, True] == verify(there.content)
    assert [True, False] == [body not in each.content for each in (seven.messages[0], there)]
    for message in seven.messages:
        assert message.content.isascii()
        assert [True, True] == verify(message.content)


@pytest.mark.parametrize("encoding", ["8bit", "x-not-known"])
def test_long_lines_are_encoded_or_broken_before_they_are_signed(
    world: World, encoding: str
) -> None:
    host = world.host()
    relay = world.relay(host, dkim=[OURS])
    fields = f"Content-Transfer-Encoding: {encoding}\r\n"
    world.send(relay, "bob@x.example", fields=fields, body=b"x" * 3000 + b" \r\n")
    (message,) = host.messages
    assert max(map(len, message.content.splitlines())) <= 998
    assert [True, True] == verify(message.content)


def test_reports_of_the_relay_are_signed(world: World) -> None:
    host = world.host()
    host.refusals = {**GONE, "late@x.example": "450 4.2.2 full"}
    named = DKIMDomain("relay.example", keys("relay.example"))
    relay = world.relay(host, dkim=[named], schedule=RetryPolicy(warn_after=HOUR))
    world.send(relay, "gone@x.example")
    world.send(relay, "late@x.example")
    world.until(lambda: len(host.reports) == 2)
    for report in host.reports:
        assert b"From: Mail Delivery System <MAILER-DAEMON@relay.example>\r\n" in report.content
        assert [True, True] == verify(report.content, *keys("relay.example"))


def test_mail_of_an_unknown_client_is_not_signed(world: World) -> None:
    host = world.host()
    relay = world.relay(host, dkim=[OURS])
    client = listener_client(world, relay)
    assert by_data(client, b"From: alice@example.org\r\n\r\nx\r\n", ["b@x.example"])[:3] == "250"
    world.until(lambda: host.messages)
    assert [] == verify(host.messages[0].content)


def test_mail_that_is_to_be_signed_is_after_a_restart(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host, dkim=[OURS])
    world.send(relay, "bob@x.example")
    (waiting,) = world.queue(relay)
    assert waiting.info.dkim == "example.org"
    world.stop(relay)
    host.up = True
    world.relay(host, dkim=[OURS])
    world.until(lambda: host.messages)
    assert [True, True] == verify(host.messages[0].content)


# -- a key that cannot be read


def test_mail_is_not_taken_while_its_key_cannot_be_read(world: World) -> None:
    shelf, host = Shelf(), world.host()
    relay = world.relay(host, dkim=[DKIMDomain("example.org", [keys()[0], shelf])])
    shelf.key = None
    with pytest.raises(SigningUnavailable, match="shelf empty"):
        world.send(relay, "bob@x.example")
    assert [] == world.queue(relay)


def test_mail_waits_while_its_key_cannot_be_read_and_does_not_expire(world: World) -> None:
    shelf, host = Shelf(), world.host()
    host.up = False
    schedule = RetryPolicy(first=600, most=HOUR, lifetime=HOUR, warn_after=2 * HOUR)
    domain = DKIMDomain("example.org", [shelf])
    relay = world.relay(host, dkim=[domain], schedule=schedule)
    world.send(relay, "bob@x.example")
    shelf.key, host.up = None, True
    for _ in range(20):
        world.advance(HOUR / 4)
    (waiting,) = world.queue(relay)
    (row,) = waiting.recipients
    assert (row.state, row.status) == (RecipientState.PENDING, "4.7.5")
    assert row.reply is not None
    assert "no key" in row.reply
    # The sender gets a report that the message is late. Other mail goes out, and this one when it can.
    assert [("<>", "alice@example.org")] == host.got
    shelf.key = keys()[1]
    world.until(lambda: len(host.messages) == 2)
    assert [True] == verify(host.messages[1].content)


def test_a_key_may_say_that_mail_goes_unsigned(world: World) -> None:
    shelf, host = Shelf(), world.host()
    shelf.empty = None
    relay = world.relay(host, dkim=[DKIMDomain("example.org", [keys()[0], shelf])])
    world.send(relay, "bob@x.example")
    shelf.key = None
    world.send(relay, "bob@x.example")
    assert [[True, True], [True]] == [verify(message.content) for message in host.messages]


# -- other settings


def test_other_keys_are_used_at_once(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host, dkim=[OURS])
    world.send(relay, "bob@x.example")
    new = DKIMKey("example.org", "new", Ed25519PrivateKey.generate())
    relay.reconfigure(world.settings(host, dkim=[DKIMDomain("example.org", [new])]))
    host.up = True
    world.until(lambda: host.messages)
    world.send(relay, "bob@x.example")
    assert [[True]] * 2 == [verify(message.content, new) for message in host.messages]


def test_a_domain_that_is_not_configured_any_more_does_not_sign(world: World) -> None:
    host = world.host()
    host.up = False
    relay = world.relay(host, dkim=[OURS])
    world.send(relay, "bob@x.example")
    relay.reconfigure(world.settings(host))
    host.up = True
    world.until(lambda: host.messages)
    assert [] == verify(host.messages[0].content)


@pytest.mark.parametrize("given", ["example.org", [OURS, OURS], [keys()[0]]])
def test_domains_are_given_once_each(world: World, given: object) -> None:
    with pytest.raises(InvalidInput):
        world.settings(world.host(), dkim=given)
