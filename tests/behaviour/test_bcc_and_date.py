"""A message is sent with Date and Message-ID and without Bcc, in whatever way it comes in."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.relay.smtp_listener import by_bdat, by_data, listener_client
from tests.relay.world import Host, World
from twisted_sendmail import Envelope, Mailer, many, sendmail, submit

TO, CC, BCC = "to@recipient.example", "cc@recipient.example", "bcc@recipient.example"
DATE = "Date: Fri, 02 Jan 2026 10:00:00 +0100\r\n"
ID = "Message-ID: <1@sender.example>\r\n"
FROM = "From: Alice <alice@example.org>\r\n"
REST = f"To: {TO}\r\nCc: C <{CC}>\r\nSubject: x\r\n"
BODY = "\r\nBcc: in the body\r\n.dot\r\n"

Way = Callable[[World, Host, bytes], None]


def by_submit(world: World, host: Host, content: bytes) -> None:
    world.run(submit(world.clock, host.server(), content))


def by_sendmail(world: World, host: Host, content: bytes) -> None:
    settings: dict[str, Any] = {"server_name": "localhost", "tls": host.server().tls}
    world.run(sendmail(host, content, reactor=world.clock, **settings))


def by_many(world: World, host: Host, content: bytes) -> None:
    world.run(many(world.clock, host.server(), [content]))


def by_mailer(world: World, host: Host, content: bytes) -> None:
    mailer = Mailer(world.clock, [host.server()])
    world.run(mailer.send(content))
    world.run(mailer.aclose())


def by_mailer_with_an_envelope(world: World, host: Host, content: bytes) -> None:
    mailer = Mailer(world.clock, [host.server()])
    world.run(mailer.send(content, envelope=Envelope("alice@example.org", [TO, CC, BCC])))
    world.run(mailer.aclose())


def by_send_many(world: World, host: Host, content: bytes) -> None:
    mailer = Mailer(world.clock, [host.server()])
    messages = [(Envelope("alice@example.org", [TO, CC, BCC]), content)]
    world.run(mailer.send_many(messages).deferred())
    world.run(mailer.aclose())


def by_relay(world: World, host: Host, content: bytes) -> None:
    relay = world.relay(host)
    queued = world.run(relay.send(content))
    world.run(queued.delivered())


def over_smtp(give: Callable[..., str], cut: int) -> Way:
    def way(world: World, host: Host, content: bytes) -> None:
        relay = world.relay(host)
        client = listener_client(world, relay)
        assert give(client, content, [TO, CC, BCC], cut=cut).startswith("250 ")
        client.send("QUIT\r\n")
        world.until(lambda: host.messages)

    return way


WAYS: dict[str, Way] = {
    "submit": by_submit,
    "sendmail": by_sendmail,
    "many": by_many,
    "Mailer.send": by_mailer,
    "Mailer.send with an envelope": by_mailer_with_an_envelope,
    "Mailer.send_many": by_send_many,
    "RelayService.send": by_relay,
    # In one piece, in pieces, octet by octet.
    "DATA into a relay": over_smtp(by_data, 0),
    "DATA into a relay, in pieces": over_smtp(by_data, 50),
    "DATA into a relay, octet by octet": over_smtp(by_data, 1),
    "BDAT into a relay": over_smtp(by_bdat, 0),
    "BDAT into a relay, in pieces": over_smtp(by_bdat, 50),
}
EACH_WAY = pytest.mark.parametrize("way", list(WAYS))


def fields(content: bytes, name: str) -> list[str]:
    """The values of the fields of that name."""
    head = content.decode().partition("\r\n\r\n")[0]
    lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return [value.strip() for key, _, value in pairs if key.strip().lower() == name.lower()]


def received(world: World, way: str, content: str) -> bytes:
    """What the last server got, of one message to everybody."""
    host = world.host()
    WAYS[way](world, host, content.encode())
    (message,) = host.messages
    assert {TO, CC} <= set(map(str, message.recipients)) <= {TO, CC, BCC}
    if BCC in content:
        assert BCC in map(str, message.recipients)
    return message.content


@EACH_WAY
@pytest.mark.parametrize(
    "given",
    [FROM + ID, FROM + DATE, FROM, FROM + DATE + ID, DATE + ID + FROM, ID + FROM],
    ids=["no Date", "no Message-ID", "neither", "both", "both first", "Message-ID first"],
)
@pytest.mark.parametrize("blind", ["", f"Bcc: {BCC}\r\n"], ids=["no Bcc", "Bcc"])
def test_date_and_message_id_are_added_where_they_are_missing(
    world: World, way: str, given: str, blind: str
) -> None:
    """Without Bcc nothing else is to be done to the message: it is then sent by the shortest way."""
    content = received(world, way, given + REST + blind + BODY)
    (date,), (message_id,) = fields(content, "Date"), fields(content, "Message-ID")
    if DATE in given:
        assert DATE == f"Date: {date}\r\n"
    else:
        written = parsedate_to_datetime(date)
        assert written.tzinfo is not None
        assert abs(written.timestamp() - world.clock.seconds()) < 3600
    if ID in given:
        assert ID == f"Message-ID: {message_id}\r\n"
    else:
        assert re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", message_id)
    assert content.decode().endswith(BODY)
    for name in ("From", "To", "Cc", "Subject"):
        assert len(fields(content, name)) == 1


@EACH_WAY
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "incomplete"])
@pytest.mark.parametrize(
    "blind",
    [
        f"Bcc: {BCC}\r\n",
        f"bcc : {BCC}\r\n",
        f"BCC:\r\n {BCC},\r\n\tto@recipient.example\r\n",
        f"Bcc: {BCC}\r\nBcc: {TO}\r\n",
    ],
    ids=["one", "odd", "folded", "twice"],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_blind_copies_are_sent_and_not_shown(
    world: World, way: str, blind: str, complete: bool, place: str
) -> None:
    head = FROM + (DATE + ID if complete else "")
    written = {
        "first": blind + head + REST,
        "middle": head + blind + REST,
        "last": head + REST + blind,
    }[place]
    content = received(world, way, written + BODY)
    assert fields(content, "Bcc") == []
    assert BCC.encode() not in content.partition(b"\r\n\r\n")[0]
    assert content.decode().endswith(BODY)
    assert fields(content, "Cc") == [f"C <{CC}>"]
    assert fields(content, "To") == [TO]


@EACH_WAY
def test_a_message_that_was_resent_is_sent_to_whom_it_was_resent(world: World, way: str) -> None:
    """Resent-Bcc is as blind as Bcc (RFC 5322 section 3.6.6)."""
    content = received(
        world,
        way,
        f"Resent-From: alice@example.org\r\nResent-To: {TO}, {CC}\r\nResent-Bcc: {BCC}\r\n"
        f"{FROM}{DATE}{ID}To: other@elsewhere.example\r\nSubject: x\r\n{BODY}",
    )
    assert fields(content, "Resent-Bcc") == []
    assert fields(content, "To") == ["other@elsewhere.example"]
