"""Replies about a command never bounce a message; those about it, or about a recipient, do at once."""

from __future__ import annotations

import pytest

from tests.names import Attempted, Fault, Reported, refuse, without
from tests.relay.world import DAY, HOUR, SENDER, World
from twisted_sendmail import Recipient, Reply, RetryPolicy

CODES = pytest.mark.parametrize("code", [500, 502, 503, 504, 555])


@CODES
@pytest.mark.parametrize("moment", ["MAIL", "RCPT", "DATA", "BDAT", "dot"])
def test_mail_waits_after_a_reply_about_a_command(world: World, code: int, moment: str) -> None:
    hidden = without("CHUNKING") if moment == "DATA" else without()
    fault = refuse(moment, f"{code} 5.5.1 what?")
    host = world.host(faults=[fault, hidden])
    relay = world.relay(host, schedule=RetryPolicy(lifetime=6 * HOUR))
    world.send(relay, "bob@example.net")
    world.advance(2 * HOUR)
    assert {"deferred"} == {status for _, status in world.tried} or (moment, host.got) == (
        "BDAT",
        [(SENDER, "bob@example.net")],
    )
    assert world.of(Reported) == []


@CODES
def test_mail_goes_when_the_server_knows_the_command_again(world: World, code: int) -> None:
    host = world.host(faults=[refuse("RCPT", f"{code} 5.5.1 what?", nth=1)])
    relay = world.relay(host)
    world.send(relay, "bob@example.net")
    world.until(lambda: host.got)
    assert [("bob@example.net", "deferred"), ("bob@example.net", "sent")] == world.tried


def test_it_bounces_when_its_time_is_over(world: World) -> None:
    host = world.host(faults=[refuse("MAIL", "502 5.5.1 what?")])
    relay = world.relay(host, schedule=RetryPolicy(lifetime=6 * HOUR))
    world.send(relay, "bob@example.net")
    world.until(lambda: ("bob@example.net", "expired") in world.tried, patience=DAY)
    world.pump.run()
    assert [event.kind for event in world.of(Reported)] == ["delayed", "failed"]


@pytest.mark.parametrize("reply", ["501 5.1.3 bad address", "550 5.1.1 no", "554 5.7.1 spam"])
@pytest.mark.parametrize("moment", ["MAIL", "RCPT", "dot"])
def test_other_refusals_bounce_at_once(world: World, reply: str, moment: str) -> None:
    host = world.host(faults=[refuse(moment, reply, nth=1)])
    relay = world.relay(host)
    report = world.run(world.send(relay, "bob@example.net").delivered(), patience=1)
    assert [each.reply for each in report.failed] == [reply]


@pytest.mark.parametrize("code", [500, 502])
@pytest.mark.parametrize("size", [10, 400_000])
def test_after_an_unknown_bdat_all_mail_goes_by_data(world: World, code: int, size: int) -> None:
    host = world.host(faults=[refuse("BDAT", f"{code} 5.5.1 what?")])
    relay = world.relay(host)
    for _ in range(3):
        world.send(relay, "bob@example.net", body=(b"x" * 70 + b"\r\n") * (size // 72 + 1))
    assert host.got == [(SENDER, "bob@example.net")] * 3
    assert world.tried == [("bob@example.net", "sent")] * 3
    assert len(host.attempts) == 2


@pytest.mark.parametrize("more", [b"500 what?\r\n", b"250 ok\r\n", b"354 go on\r\n"])
def test_what_an_unknown_bdat_left_open_is_tried_again_by_data(world: World, more: bytes) -> None:
    """The application would be told that it is in doubt; the relay is responsible for the message."""
    host = world.host(faults=[Fault("BDAT", reply=Reply(500, ("5.5.1 what?",)), injected=more)])
    relay = world.relay(host)
    world.send(relay, "bob@example.net")
    (first,) = world.of(Attempted)
    assert (first.status, first.in_doubt) == ("deferred", more[:1] != b"5")
    assert "ignore-extensions" in first.reply
    world.until(lambda: host.got)
    assert host.got == [(SENDER, "bob@example.net")]


def test_a_parameter_that_the_server_does_not_know_is_left_out_at_once(world: World) -> None:
    host = world.host(faults=[refuse("MAIL", "555 5.5.4 what?", nth=1)])
    relay = world.relay(host)
    to = Recipient("bob@example.net", notify=["FAILURE"], orcpt="rfc822;bob@example.net")
    world.send(relay, to, ret="HDRS", envid="id-1")
    (message,) = host.messages
    assert (message.parameters.size, message.parameters.ret, message.parameters.envid) == (
        None,
        None,
        None,
    )
    assert message.recipients == (to,)
    assert world.tried == [("bob@example.net", "sent")]


@pytest.mark.parametrize(
    ("reply", "goes"),
    [
        ("452 4.5.3 too many", True),
        ("452 no code", True),
        ("552 5.5.3 too many", True),
        ("552 no code", True),
        ("550 5.5.3 no", True),
        ("551 5.5.3 no", True),
        ("553 5.5.3 no", True),
        ("554 5.5.3 no", True),
        ("552 5.2.2 full", False),
        ("552 5.2.3 too long", False),
        ("552 5.3.4 too big", False),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_refusal_that_may_mean_too_many_recipients_is_transient(
    world: World, reply: str, *, goes: bool, first: bool
) -> None:
    host = world.host()
    host.refusals = {"full@x.example": [reply]}
    relay = world.relay(host)
    to = ["full@x.example", "ok@x.example"]
    queued = world.send(relay, *(to if first else reversed(to)))
    report = world.run(queued.delivered())
    if first and not reply.startswith(("452", "552 5.5.3")):
        goes = False
    delivered = sorted(str(each.recipient) for each in report.delivered)
    assert delivered == sorted(to[not goes :])
