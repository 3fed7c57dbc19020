"""Every phase has one deadline, and a trickle cannot extend it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from tests.client.conftest import BODY, Net
from tests.client.scripted_server import DEAF, SILENT
from twisted_sendmail import DeliveryInDoubt, InvalidInput, ProtocolBreach, SendTimeout, Timeouts
from twisted_sendmail.client import TLSPolicy

#: A time for each phase that is no other's.
TIMES = Timeouts(
    connect=11,
    greeting=12,
    command=13,
    tls=14,
    auth=15,
    mail=16,
    rcpt=17,
    data_init=18,
    data_block=19,
    data_end=20,
    quit=21,
    total=1000,
)
PHASES: list[tuple[dict[str, Any], float, str]] = [
    ({"GREETING": SILENT}, 12, "greeting"),
    ({"EHLO": SILENT}, 13, "EHLO"),
    ({"STARTTLS": SILENT}, 13, "STARTTLS"),
    ({"STARTTLS": "220 go", "HANDSHAKE": SILENT}, 14, "TLS"),
    ({"EHLO/TLS": SILENT}, 13, "EHLO"),
    ({"AUTH": SILENT}, 15, "AUTH"),
    ({"AUTH": "334 ", "AUTH_LINE": SILENT}, 15, "AUTH response"),
    ({"MAIL": SILENT, "RCPT": SILENT, "DATA": SILENT}, 16, "MAIL"),
    ({"RCPT": SILENT, "DATA": SILENT}, 17, "RCPT"),
    ({"DATA": SILENT}, 18, "DATA"),
    ({".": SILENT, "QUIT": SILENT}, 20, "content"),
]


@pytest.mark.parametrize(("answers", "seconds", "phase"), PHASES)
def test_each_phase_has_its_time(net: Net, answers: Any, seconds: float, phase: str) -> None:
    result = net.send(net.server(answers), timeouts=TIMES)
    net.pump.advance(seconds - 0.1)
    assert result.fired == 0
    net.pump.advance(0.2)
    assert (1, phase) == (result.fired, result.error.phase)
    assert f"within {seconds:g} s" in str(result.error)
    assert (phase != "content", phase == "content") == (
        result.error.transient,
        result.error.in_doubt,
    )
    assert net.link.over
    assert isinstance(result.error, DeliveryInDoubt if phase == "content" else SendTimeout)


@pytest.mark.parametrize(("answers", "seconds", "phase"), PHASES)
@pytest.mark.parametrize("every", [0.3, 5])
def test_a_trickle_of_octets_or_lines_cannot_extend_it(
    net: Net, answers: Any, seconds: float, phase: str, every: float
) -> None:
    """One deadline for one reply, whatever comes of it meanwhile."""
    key = {
        "greeting": "GREETING",
        "AUTH response": "AUTH_LINE",
        "content": ".",
        "TLS": "HANDSHAKE",
    }.get(phase, phase)
    server = net.server(answers)
    result = net.send(server, timeouts=TIMES)
    if phase == "TLS":
        octets = iter(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb" + bytes(10_000))
        pieces: Iterator[bytes] = (bytes([octet]) for octet in octets)
    elif every == 5:
        pieces = iter([b"250-a line\r\n"] * 1000)
    else:
        pieces = (bytes([octet]) for octet in b"250-" + b"x" * 10_000)
    waited = 0.0
    while not result.fired:
        assert waited <= seconds, key
        (server.tls_transport or server.transport).write(next(pieces))
        net.pump.advance(every)
        waited = net.clock.seconds()
        if every == 5 and waited > seconds:
            break
    net.pump.run()
    assert result.fired == 1
    assert f"within {seconds:g} s" in str(result.error)


def test_pipelined_replies_have_a_deadline_each(net: Net) -> None:
    """And not all the same one from when the group was written."""

    def late(server: Any, line: str) -> None:
        for i in range(5):
            net.clock.callLater(15 * (i + 1), server.tls_transport.write, b"250 ok\r\n")
        net.clock.callLater(15 * 6, server.act, "354 go")

    server = net.server({"MAIL": late, "RCPT": SILENT, "DATA": SILENT})
    result = net.send(server, timeouts=TIMES, recipients=[f"u{i}@example.net" for i in range(4)])
    net.pump.advance(100)
    assert len(result.get().accepted) == 4


def test_a_server_that_takes_no_more_content_is_left(net: Net) -> None:
    server = net.server({"CONTENT": DEAF})
    result = net.send(server, message=BODY + (b"x" * 76 + b"\r\n") * 100_000, timeouts=TIMES)
    net.pump.advance(18.9)
    assert result.fired == 0
    net.pump.advance(0.2)
    assert isinstance(result.error, SendTimeout)
    assert "take more of the content" in str(result.error)
    assert result.report.in_doubt == ()
    assert server.messages == []


def test_the_time_for_a_block_begins_anew_when_a_block_was_taken(net: Net) -> None:
    server = net.server()
    result = net.start(server, message=BODY + (b"x" * 76 + b"\r\n") * 100_000, timeouts=TIMES)
    net.pump.run()
    assert len(result.get().accepted) == 1
    server = net.server({"CONTENT": DEAF})
    result = net.send(server, message=BODY + (b"x" * 76 + b"\r\n") * 20_000, timeouts=TIMES)
    server.answers["CONTENT"] = SILENT
    for _ in range(200):
        if result.fired:
            break
        net.pump.advance(15)
        # What waits is read, and then nothing again.
        server.transport.reading = True
        until = len(net.link.client.sent) + net.link.client.waiting
        while len(net.link.client.sent) < until:
            net.link.to_server()
        server.transport.reading = bool(server.messages)
        net.pump.run()
    assert len(result.get().accepted) == 1
    assert net.clock.seconds() > 100


def test_quit_takes_no_longer_than_its_time_and_changes_nothing(net: Net) -> None:
    for answer in (SILENT, b"221-bye\r\n", "500 what?", b"garbage\r\n", "421 bye"):
        begun = net.clock.seconds()
        result = net.send(net.server({"QUIT": answer}))
        net.pump.advance(3.1)
        assert len(result.get().accepted) == 1
        assert net.clock.seconds() - begun < 4
        assert net.link.over


def test_the_reply_to_quit_is_not_waited_for(net: Net) -> None:
    begun = net.clock.seconds()
    result = net.send(net.server({"QUIT": SILENT}), tls=TLSPolicy.NONE, credentials=None)
    assert (len(result.get().accepted), net.link.over) == (1, True)
    assert net.clock.seconds() == begun


def test_an_endless_farewell_changes_nothing(net: Net) -> None:
    server = net.server({"QUIT": SILENT})
    result = net.send(server)
    for _ in range(20):
        if not server.lost:
            server.tls_transport.write(b"221-x\r\n" * 10)
        net.pump.advance(0.3)
    assert len(result.get().accepted) == 1
    assert net.clock.seconds() < 7


@pytest.mark.parametrize(
    "answer",
    [
        b"250-x\r\n" * 100_000,
        b"250-" + b"x" * 1_000_000,
        b"250-\r\n" * 100_000,
        b"250-" + b"y" * 20_000_000 + b"\r\n250 x\r\n",
    ],
)
@pytest.mark.parametrize("key", ["EHLO/TLS", "MAIL", "."])
def test_a_reply_without_end_is_broken_off_at_once(net: Net, key: str, answer: bytes) -> None:
    server = net.server({key: answer})
    result = net.start(server)
    net.link.client.keeps = False
    net.pump.run()
    assert (result.fired, net.clock.seconds()) == (1, 0)
    assert isinstance(result.error.__cause__ if key == "." else result.error, ProtocolBreach)


def test_a_legal_ehlo_reply_of_50_kb_passes(net: Net) -> None:
    words = tuple(f"X-{i} some words" for i in range(2800))
    assert (
        len(
            net.send(net.server(clear=(*words, "STARTTLS"), secure=(*words, "AUTH PLAIN")))
            .get()
            .accepted
        )
        == 1
    )


@pytest.mark.parametrize("name", ["connect", "greeting", "total", "quit"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_time_that_is_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidInput):
        Timeouts(**{name: value})


def test_none_waits_for_ever(net: Net) -> None:
    result = net.send(
        net.server({"GREETING": SILENT}), timeouts=Timeouts(greeting=None, total=None)
    )
    net.pump.advance(1_000_000)
    assert result.fired == 0
    result.deferred.cancel()
    net.pump.run()
    assert result.fired == 1


@implementer(IStreamClientEndpoint)
class EarlyEndpoint:
    """Builds the protocol before it connects, as an endpoint with a proxy in between may."""

    def connect(self, factory: Any) -> Any:
        factory.buildProtocol(None)
        return Deferred()


@pytest.mark.parametrize("seconds", [3, 11])
def test_an_endpoint_that_builds_the_protocol_early_has_the_time_to_connect(
    net: Net, seconds: float
) -> None:
    result = net.start(EarlyEndpoint(), timeouts=Timeouts(connect=seconds))
    net.clock.advance(seconds - 0.1)
    assert result.fired == 0
    net.clock.pump([0.1, 0.1])
    assert (1, "connect") == (result.fired, result.error.phase)
    assert f"no connection to mx.example.net within {seconds} s" in str(result.error)
