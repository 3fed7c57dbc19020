"""``many``: a refusal does not stop the next message, a dead connection is replaced, no message is sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.client.conftest import Net
from tests.client.scripted_server import CLOSE, RESET, SILENT, ScriptedServer
from twisted_sendmail import (
    AuthenticationFailed,
    Cancelled,
    ConnectFailed,
    DeliveryInDoubt,
    Envelope,
    InvalidInput,
    InvalidMessage,
    SendTimeout,
    Timeouts,
    UnsupportedMechanism,
)
from twisted_sendmail.testing import MemoryNetwork

LINE = b"x" * 76 + b"\r\n"
CHUNKS = {"secure": ("PIPELINING", "CHUNKING", "AUTH PLAIN")}
BOTH = pytest.mark.parametrize("way", [{}, CHUNKS], ids=["DATA", "BDAT"])


def message(n: int) -> bytes:
    return b"From: a@example.org\r\nTo: b@example.net\r\n\r\nnumber %d\r\n" % n


def statuses(reports: Any) -> list[str]:
    return [str(o.status.value) for report in reports for o in report.outcomes]


def arrived(*servers: ScriptedServer) -> list[bytes]:
    """What all servers took, in order; nothing may have come twice."""
    found = [m for server in servers for m in server.messages]
    assert not found or 1 == max(Counter(found).values()), "a second copy"
    return found


def connections(net: Net) -> int:
    return int(net.endpoint.attempts)


@BOTH
def test_all_go_over_one_connection_in_order(net: Net, way: Any) -> None:
    server = net.server(**way)
    reports = net.many([message(n) for n in range(10)], server).get()
    assert statuses(reports) == ["accepted"] * 10
    assert [message(n) for n in range(10)] == arrived(server)
    assert (connections(net), server.lines.count("QUIT")) == (1, 1)


def test_no_message_at_all_is_no_connection(net: Net) -> None:
    assert net.many([], net.server()).get() == []
    assert connections(net) == 0


@BOTH
@pytest.mark.parametrize(
    "answers",
    [
        {"MAIL#2": "550 no"},
        {"MAIL#2": "450 later"},
        {"RCPT#2": "550 no"},
        {"RCPT#2": "550 no", "DATA#2": "554 nobody"},
        {"DATA#2": "451 not now"},
        {".#2": "554 spam", "BDAT_LAST#2": "554 spam"},
    ],
)
def test_a_refused_message_does_not_stop_the_next(net: Net, answers: Any, way: Any) -> None:
    if way and "DATA#2" in answers and "RCPT#2" not in answers:
        answers = {"BDAT_LAST#2": answers["DATA#2"]}
    if "MAIL#2" in answers:
        answers = {
            **answers,
            "RCPT#2": "503 no MAIL",
            "DATA#2": "503 no MAIL",
            "BDAT_LAST#2": "503 no MAIL",
        }
    elif way and "RCPT#2" in answers:
        answers = {**answers, "BDAT_LAST#2": "554 no valid recipients"}
    server = net.server(answers, **way)
    reports = net.many([message(n) for n in range(3)], server).get()
    assert statuses(reports) == ["accepted", "refused", "accepted"]
    assert [message(0), message(2)] == [m for m in server.messages if m and m != message(1)]
    assert connections(net) == 1


def test_a_message_that_cannot_be_sent_does_not_stop_the_next(net: Net, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield message(1)
        raise RuntimeError("disk on fire")

    bad: list[Any] = [
        broken(),
        message(1) + b"bare\rCR",
        b"no header at all",
        b"To: nonsense@@\r\n\r\n",
        7,
        tmp_path / "not there",
        (Envelope("a@example.org", ["b@example.net"], require_tls=True), message(1)),
        "From: ä@example.org\r\nTo: ü@example.net\r\n\r\n",
    ]
    for each in bad:
        server = net.server()
        reports = net.many([message(0), each, message(2)], server).get()
        assert [len(r.accepted) for r in reports] == [1, 0, 1], each
        assert reports[1].error is not None
        assert [message(0), message(2)] == arrived(server)
        assert "".join(str(reports[1].error).splitlines()) == str(reports[1].error)


@BOTH
def test_a_source_that_fails_in_the_middle_costs_the_connection_and_no_more(
    net: Net, way: Any
) -> None:
    def broken() -> Iterator[bytes]:
        yield message(1)
        yield LINE * 30_000
        raise RuntimeError("disk on fire")

    first, second = net.server(**way), net.server(**way)
    reports = net.many([message(0), broken(), message(2)], first, second).get()
    assert [len(r.accepted) for r in reports] == [1, 0, 1]
    assert isinstance(reports[1].error, InvalidMessage)
    assert "disk on fire" in str(reports[1].error)
    assert ["untouched"] == [o.status.value for o in reports[1].outcomes] or not reports[1].outcomes
    assert [[message(0)], [message(2)]] == [first.messages, second.messages]


# -- the connection dies

DEATHS: list[Any] = [CLOSE, RESET, "421 bye", ("421 bye", CLOSE)]


@BOTH
@pytest.mark.parametrize("death", DEATHS)
def test_a_connection_that_dies_between_two_messages_is_replaced(
    net: Net, death: Any, way: Any
) -> None:
    key = "BDAT_LAST#1" if way else ".#1"
    first, second = net.server({key: ("250 queued", death)}, **way), net.server(**way)
    reports = net.many([message(n) for n in range(3)], first, second).get()
    assert statuses(reports) == ["accepted"] * 3
    assert [message(n) for n in range(3)] == arrived(first, second)
    assert connections(net) == 2


@BOTH
@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("key", ["MAIL#2", "RCPT#2", "DATA#2"])
def test_a_connection_that_dies_before_the_content_is_replaced(
    net: Net, death: Any, key: str, way: Any
) -> None:
    """What the server cannot have is sent again: once."""
    first, second = net.server({key: death}), net.server()
    if way:
        death = ("421 bye", CLOSE) if death == "421 bye" else death
        first, second = (
            net.server({key.replace("DATA", "MAIL"): death, "BDAT_LAST#2": SILENT}, **way),
            net.server(**way),
        )
    reports = net.many([message(n) for n in range(3)], first, second).get()
    if not way or "421" in str(death):
        # A 421 instead of the reply to MAIL means that the content after it was not taken.
        assert statuses(reports) == ["accepted"] * 3
    else:
        # The content was on its way already: in doubt, and not sent again.
        assert statuses(reports) == ["accepted", "in doubt", "accepted"]
    assert len(reports) == 3
    if not (way and "421" in str(death)):  # this server reads on after its 421
        arrived(first, second)


@BOTH
@pytest.mark.parametrize("death", [*DEATHS, "garbage", "354 more", "250-half\r\n"])
def test_a_message_in_doubt_is_never_sent_again(net: Net, death: Any, way: Any) -> None:
    """Nor is one that a 421 refused for now: whether to try again is the caller's to decide."""
    key = "BDAT_LAST#2" if way else ".#2"
    death = (death, CLOSE) if death == "250-half\r\n" else death
    first, second = net.server({key: death}, **way), net.server(**way)
    reports = net.many([message(n) for n in range(3)], first, second).get()
    refused = "421" in str(death)
    assert ["accepted", "refused" if refused else "in doubt", "accepted"] == statuses(reports)
    assert refused or isinstance(reports[1].error, DeliveryInDoubt)
    assert [message(n) for n in range(3)] == arrived(first, second)


def test_silence_behind_the_dot_is_doubt_for_one_and_no_stop_for_the_next(net: Net) -> None:
    first, second = net.server({".#2": SILENT}), net.server()
    result = net.start_many([message(n) for n in range(3)], first, second)
    net.pump.advance(700)
    assert statuses(result.get()) == ["accepted", "in doubt", "accepted"]
    assert [message(n) for n in range(3)] == arrived(first, second)


@pytest.mark.parametrize("death", [CLOSE, RESET])
def test_what_can_be_read_only_once_is_not_sent_again(net: Net, death: Any) -> None:
    """Its connection died in the middle of it."""

    def once() -> Iterator[bytes]:
        yield message(1)
        yield LINE * 40_000

    first, second = net.server({"CONTENT#5": death}), net.server()
    reports = net.many([message(0), once(), message(2)], first, second).get()
    assert statuses(reports) == ["accepted", "untouched", "accepted"]
    assert [message(0), message(2)] == arrived(first, second)


def test_what_can_be_read_again_is_sent_again_whole(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "message.eml"
    path.write_bytes(message(1) + LINE * 40_000)
    first, second = net.server({"CONTENT#5": CLOSE}), net.server()
    reports = net.many([message(0), path, message(2)], first, second).get()
    assert statuses(reports) == ["accepted"] * 3
    assert [message(0), path.read_bytes(), message(2)] == arrived(first, second)


def test_the_first_message_is_not_tried_twice(net: Net) -> None:
    """Its connection was new: there is no reason to think another would do better."""
    first, second = net.server({"MAIL#1": CLOSE}), net.server()
    reports = net.many([message(0), message(1)], first, second).get()
    assert statuses(reports) == ["untouched", "accepted"]


def test_a_connection_that_always_dies_is_no_storm(net: Net) -> None:
    def dying() -> ScriptedServer:
        return net.server({"MAIL": CLOSE})

    reports = net.many([message(n) for n in range(20)], dying).get()
    assert statuses(reports) == ["untouched"] * 20
    assert connections(net) <= 40


@pytest.mark.parametrize(
    "failure",
    [
        lambda net: ConnectionRefusedError("no"),
        lambda net: net.server({"AUTH": "535 no"}),
        lambda net: net.server({"GREETING": "554 no"}),
    ],
)
def test_a_reconnect_that_fails_once_fails_the_rest(net: Net, failure: Any) -> None:
    """No storm of connections, nor of wrong passwords."""
    first = net.server({".": ("250 queued", CLOSE)})
    reports = net.many([message(n) for n in range(20)], first, failure(net)).get()
    assert statuses(reports) == ["accepted"] + ["untouched"] * 19
    assert connections(net) == 2
    assert all(r.error is not None for r in reports[1:])


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (lambda net: ConnectionRefusedError("no"), ConnectFailed),
        (lambda net: net.server({"AUTH": "535 no"}), AuthenticationFailed),
        (lambda net: net.server(secure=()), UnsupportedMechanism),
    ],
)
def test_no_first_connection_is_an_error_of_the_whole(
    net: Net, failure: Any, expected: Any
) -> None:
    result = net.many([message(n) for n in range(5)], failure(net))
    assert isinstance(result.error, expected)
    assert connections(net) == 1


def test_credentials_that_cannot_be_used_are_no_storm(net: Net) -> None:
    """An error of ours while the session is opened: asked once, not once a message."""

    async def token() -> str:
        return 7  # type: ignore[return-value]

    from twisted_sendmail import Credentials

    def server() -> ScriptedServer:
        return net.server(secure=("AUTH XOAUTH2",))

    result = net.many(
        [message(n) for n in range(5)], server, credentials=Credentials("tester", token=token)
    )
    assert isinstance(result.error, InvalidInput)
    assert connections(net) == 1


# -- one at a time


def test_messages_are_pulled_when_they_are_needed(net: Net) -> None:
    turns: list[Deferred[None]] = [Deferred() for _ in range(3)]

    async def messages() -> AsyncIterator[bytes]:
        for n, turn in enumerate(turns):
            await turn
            yield message(n)

    server = net.server()
    result = net.start_many(messages(), server)
    for n, turn in enumerate(turns):
        net.pump.run()
        assert n == len(server.messages)
        turn.callback(None)
    net.pump.run()
    assert statuses(result.get()) == ["accepted"] * 3


def test_what_the_messages_themselves_raise_is_raised(net: Net) -> None:
    def messages() -> Iterator[bytes]:
        yield message(0)
        raise RuntimeError("no more")

    server = net.server()
    result = net.many(messages(), server)
    assert isinstance(result.error, RuntimeError)
    assert [message(0)] == arrived(server)
    assert net.link.over


@pytest.mark.parametrize("bad", [7, "text", b"octets", None])
def test_what_are_no_messages_is_said(net: Net, bad: Any) -> None:
    assert isinstance(net.many(bad, net.server()).error, InvalidMessage)


@BOTH
@pytest.mark.parametrize("key", ["MAIL#2", ".#2", "BDAT_LAST#2"])
def test_cancelling_tells_what_became_of_those_begun(net: Net, key: str, way: Any) -> None:
    if bool(way) != key.startswith(("BDAT", "MAIL")) and key != "MAIL#2":
        return
    answers = (
        {key: SILENT, "RCPT#2": SILENT, "DATA#2": SILENT, "BDAT_LAST#2": SILENT}
        if key == "MAIL#2"
        else {key: SILENT}
    )
    server = net.server(answers, **way)
    result = net.many([message(n) for n in range(3)], server)
    assert result.fired == 0
    result.deferred.cancel()
    net.pump.run()
    assert isinstance(result.error, Cancelled)
    doubt = way or key != "MAIL#2"
    assert ["accepted", "in doubt" if doubt else "untouched"] == statuses(result.error.reports)
    assert (bool(doubt), False) == (result.error.in_doubt, result.error.transient)
    assert net.link.over


def test_each_message_has_its_own_overall_deadline(net: Net) -> None:
    def slow(server: ScriptedServer, line: str) -> None:
        net.clock.callLater(60, server.act, "250 queued")

    server = net.server({".": slow})
    result = net.start_many([message(n) for n in range(3)], server, timeouts=Timeouts(total=100))
    net.pump.advance(200)
    assert statuses(result.get()) == ["accepted"] * 3


def test_a_message_over_its_deadline_does_not_stop_the_next(net: Net) -> None:
    first, second = net.server({".#1": SILENT}), net.server()
    result = net.start_many([message(0), message(1)], first, second, timeouts=Timeouts(total=100))
    net.pump.advance(101)
    reports = result.get()
    assert statuses(reports) == ["in doubt", "accepted"]
    assert isinstance(reports[0].error, SendTimeout)
    assert [message(0), message(1)] == arrived(first, second)


def test_all_or_nothing_drops_the_connection_and_goes_on_over_another(net: Net) -> None:
    envelope = Envelope("a@example.org", ["b@example.net", "c@example.net"])
    first, second = net.server({"RCPT#2": "550 no"}), net.server()
    reports = net.many(
        [(envelope, message(0)), (envelope, message(1))], first, second, all_or_nothing=True
    ).get()
    assert statuses(reports) == ["untouched", "refused", "accepted", "accepted"]
    assert [message(1)] == arrived(first, second)


def test_nobody_accepted_and_yet_354_leaves_a_clean_session(net: Net) -> None:
    server = net.server({"RCPT#1": "550 no", ".#1": "554 nobody"})
    reports = net.many([message(0), message(1)], server).get()
    assert statuses(reports) == ["refused", "accepted"]
    assert [b"", message(1)] == server.messages


def test_a_refused_rset_costs_the_connection(net: Net) -> None:
    first, second = net.server({"DATA#1": "451 no", "RSET": "500 what?"}), net.server()
    reports = net.many([message(0), message(1)], first, second).get()
    assert statuses(reports) == ["refused", "accepted"]


def test_the_pump_is_idle_at_the_end(net: Net) -> None:
    net.many([message(0)], net.server()).get()
    assert isinstance(net.pump, MemoryNetwork)
    assert net.clock.getDelayedCalls() == []
