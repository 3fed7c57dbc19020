"""A delivery report stays small, however many recipients failed and however long the replies."""

from __future__ import annotations

import re

import pytest

from tests.relay.world import SENDER, World


def report(world: World, recipients: int, reply: str) -> bytes:
    host = world.host()
    addresses = [f"user{n}@x.example" for n in range(recipients)]
    host.refusals = dict.fromkeys(addresses, reply)
    world.send(world.relay(host), *addresses)
    (made,) = host.reports
    assert [str(each) for each in made.recipients] == [SENDER]
    return made.content


@pytest.mark.parametrize("words", [1, 40])
def test_a_report_about_a_thousand_is_bounded(world: World, words: int) -> None:
    octets = report(world, 1000, "550 5.1.1 " + " ".join(["nobody here"] * words))
    assert len(octets) < 256 * 1024
    text, _, status = octets.partition(b"X-Omitted-Recipients: ")
    named = len(re.findall(rb"(?m)^  <user", text))
    assert 100 < named < 1000
    assert f"and {1000 - named} more recipients.".encode() in text
    omitted = int(status.partition(b"\r\n")[0])
    assert 1000 - omitted == status.count(b"Final-Recipient:")
    assert status.count(b"Final-Recipient:") > 300


def test_a_report_about_a_few_tells_all(world: World) -> None:
    octets = report(world, 50, "550 5.1.1 nobody here")
    assert 50 == octets.count(b"Final-Recipient:") == len(re.findall(rb"(?m)^  <user", octets))
    assert octets.count(b"nobody here") == 100
    assert b"X-Omitted-Recipients" not in octets
    assert b"more recipients" not in octets
