"""Unsolicited replies: the next command never takes one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.client.conftest import Net
from tests.client.scripted_server import CLOSE
from twisted_sendmail import ProtocolBreach, SendmailError, TLSPolicy

IMPLICIT = {"tls": TLSPolicy.IMPLICIT}
CLEAR = {"tls": TLSPolicy.NONE, "credentials": None}


def no_message(net: Net, result: Any) -> None:
    assert isinstance(result.error, ProtocolBreach)
    report = result.error.report
    assert report is None or (() == report.accepted)
    assert b"hello" not in net.link.client.sent
    assert net.link.over


@pytest.mark.parametrize("how", ["segment", "record", "segments"])
@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("GREETING", [b"220 hi\r\n", b"220 hi again\r\n"]),
        ("EHLO", [b"250-mx\r\n250 AUTH PLAIN\r\n", b"235 yes\r\n"]),
        ("AUTH", [b"235 yes\r\n", b"250 ok\r\n"]),
        ("AUTH", [b"235 yes\r\n", b"334 one more\r\n"]),
        ("DATA", [b"354 go\r\n", b"250 queued\r\n"]),
        ("DATA", [b"354 go\r\n", b"250-queued\r\n"]),
        ("DATA", [b"354 go\r\n", b"4"]),
        ("DATA", [b"354 go\r\n", b"550 no\r\n"]),
    ],
)
def test_a_reply_too_many_is_not_the_answer_to_what_is_said_next(
    net: Net, how: str, key: str, said: list[bytes]
) -> None:
    """In one segment; in the next TLS record of it; in the next segment, before we write."""
    answer = b"".join(said) if how == "segment" else tuple(said)
    server = net.server({key: answer}, implicit=True)
    result = net.start(server, **IMPLICIT)
    net.link.apart = how == "segments"
    net.pump.run()
    no_message(net, result)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("key", "said", "never"),
    [
        ("GREETING", [b"220 hi\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n"], "EHLO"),
        ("EHLO", [b"250-mx\r\n250 AUTH PLAIN\r\n", b"235 yes\r\n"], "AUTH"),
        ("EHLO", [b"250-mx\r\n250 AUTH LOGIN\r\n", b"334 \r\n"], "AUTH"),
        ("AUTH", [b"334 \r\n", b"235 yes\r\n"], "dGVzdGVy"),
        ("AUTH", [b"235 yes\r\n", b"250 ok\r\n"], "MAIL"),
    ],
)
def test_what_came_too_early_is_seen_before_anything_is_said(
    net: Net, key: str, said: list[bytes], never: str, apart: bool
) -> None:
    """In the next record or segment: no user name, no password, no mail goes to such a server."""
    server = net.server({key: tuple(said)}, implicit=True, secure=("AUTH LOGIN",))
    result = net.start(server, **IMPLICIT)
    net.link.apart = apart
    net.pump.run()
    no_message(net, result)
    assert not any(line.startswith(never) for line in server.lines)


def test_starttls_is_not_said_where_its_answer_has_come_already(net: Net) -> None:
    server = net.server({"EHLO": (b"250-mx\r\n250 STARTTLS\r\n", b"220 go\r\n")})
    result = net.start(server)
    net.link.apart = True
    net.pump.run()
    no_message(net, result)
    assert server.lines == ["EHLO client.example.org"]


def test_a_reply_that_comes_right_before_we_write_is_seen(net: Net) -> None:
    """Between the 354 and the content there is a look at what has arrived."""
    server = net.server({"DATA": b"354 go\r\n"})
    result = net.start(server, **CLEAR)
    while "DATA" not in server.lines:
        net.pump.turn()
    while net.link.to_client():
        pass
    # The 354 is read, the content not yet written: and now an early yes arrives.
    assert b"hello" not in net.link.client.sent
    assert list(net.link.client.out) == []
    server.transport.write(b"250 queued\r\n")
    while net.link.to_client():
        pass
    net.pump.run()
    no_message(net, result)


def test_the_whole_script_up_front_is_not_believed(net: Net) -> None:
    script = [
        b"220 hi\r\n",
        b"250-mx\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n",
        b"235 yes\r\n",
        b"250 ok\r\n",
        b"250 ok\r\n",
        b"354 go\r\n",
        b"250 queued\r\n",
        b"221 bye\r\n",
    ]
    for answer in (b"".join(script), tuple(script)):
        for settings in ({"implicit": True}, {}):
            server = net.server({"GREETING": answer}, **settings)
            result = net.start(server, **(IMPLICIT if settings else CLEAR))
            net.link.apart = True
            net.pump.run()
            no_message(net, result)
            assert server.lines == [], "not even EHLO"


def test_the_whole_script_inside_tls_up_front_is_not_believed(net: Net) -> None:
    """Right after the handshake, before EHLO is sent again."""
    script = [b"250-mx\r\n250 AUTH PLAIN\r\n", b"235 yes\r\n", b"250 ok\r\n"]

    def begin(server: Any, line: str) -> None:
        server.begin_tls()
        for each in script:
            server.tls_transport.write(each)

    server = net.server({"STARTTLS": (b"220 go\r\n", begin)})
    result = net.send(server)
    no_message(net, result)
    # EHLO travels along with the end of the handshake; nothing after it is sent.
    assert not any(line.startswith("AUTH") for line in server.lines)


@pytest.mark.parametrize(
    "said", [(b"250 queued\r\n250 queued\r\n",), (b"250 queued\r\n", b"250 queued\r\n")]
)
def test_a_doubled_verdict_counts_once(net: Net, said: tuple[bytes, ...]) -> None:
    """The verdict stands; the copy answers nothing, or QUIT."""
    server = net.server({".": said, "QUIT": CLOSE})
    report = net.send(server).get()
    assert (len(report.accepted), len(server.messages)) == (1, 1)


@pytest.mark.parametrize("key", ["EHLO", "AUTH", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize(
    "reply", [b"garbage\r\n", b"250\x00ok\r\n", b"99", b"000 x\r\n", b"250-x\r\n550 y\r\n"]
)
def test_a_breach_at_any_command_ends_the_connection(net: Net, key: str, reply: bytes) -> None:
    server = net.server({key: reply}, implicit=True)
    result = net.send(server, **IMPLICIT)
    assert isinstance(result.error, SendmailError)
    assert net.clock.seconds() == 0
    in_doubt = result.report.in_doubt if result.error.report else ()
    assert (1 if key == "." else 0) == len(in_doubt)


def message(text: bytes) -> bytes:
    return b"From: a@example.org\r\nTo: b@example.net\r\n\r\n" + text + b"\r\n"


@pytest.mark.parametrize(
    "extra", [b"250 ok\r\n", b"2", b"354 go\r\n", b"550 no\r\n", b"421 bye\r\n"]
)
def test_a_late_extra_line_is_not_the_answer_to_the_next_message(net: Net, extra: bytes) -> None:
    """Of many: it comes while nothing is owed; the next message goes over a new connection."""
    first, second = net.server(), net.server()
    turn: Deferred[None] = Deferred()

    async def messages() -> AsyncIterator[bytes]:
        yield message(b"one")
        await turn
        yield message(b"two")

    result = net.start_many(messages(), first, second)
    net.pump.run()
    first.tls_transport.write(extra)
    turn.callback(None)
    net.pump.run()
    assert [len(r.accepted) for r in result.get()] == [1, 1]
    assert [[message(b"one")], [message(b"two")]] == [s.messages for s in (first, second)]
    assert sum(line.startswith("MAIL") for line in first.lines) == 1


def test_an_extra_line_that_races_with_the_next_message_makes_no_second_copy(net: Net) -> None:
    """Nobody can see what is still on its way: the replies are off by one, and 354 tells."""
    first, second = net.server(), net.server()

    def extra(server: Any, line: str) -> None:
        net.clock.callLater(0, lambda: server.tls_transport.write(b"250 ok\r\n"))

    first.answers["."] = (b"250 queued\r\n", extra)
    reports = net.many([message(b"one"), message(b"two")], first, second).get()
    assert [len(r.accepted) for r in reports] == [1, 1]
    assert [[message(b"one")], [message(b"two")]] == [s.messages for s in (first, second)]


@pytest.mark.parametrize("extra", [b"250 ok\r\n", b"250", b"550 no\r\n", b"354 go\r\n", b"4"])
@pytest.mark.parametrize("how", ["segment", "record"])
def test_what_is_behind_a_verdict_is_not_the_answer_to_the_next_message(
    net: Net, extra: bytes, how: str
) -> None:
    answer = b"250 queued\r\n" + extra if how == "segment" else (b"250 queued\r\n", extra)
    first, second = net.server({".": answer}), net.server()
    reports = net.many([message(b"one"), message(b"two")], first, second).get()
    assert [len(r.accepted) for r in reports] == [1, 1]
    assert [len(s.messages) for s in (first, second)] == [1, 1]
