"""The order of writes: nothing after the final dot, QUIT last, RCPT in a window.

Played by hand over a transport in memory, through public names alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from twisted_sendmail import (
    AllRecipientsRefused,
    Envelope,
    Mailer,
    PoolLimits,
    SubmissionServer,
    TLSPolicy,
    many,
    sendmail,
)

BODY = b"From: a@example.org\r\nTo: b@example.net\r\n\r\nhello\r\n"
PIPELINING = ("PIPELINING", "8BITMIME", "SIZE 100000000")
CHUNKING = (*PIPELINING, "CHUNKING")
LIMITS = (*CHUNKING, "LIMITS MAILMAX=1000")
#: Half of what stalls Haraka 3.0.3 with its default configuration.
HALF = 227


class Transport(StringTransport):
    """Keeps what is written; closing it takes until somebody says that it is closed."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


#: Twisted's is not typed.
make_transport: Any = Transport


@implementer(IStreamClientEndpoint)
class Wire:
    """One connection, and a server that is played by the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.protocol: Any = None
        self.transport: Any = make_transport()

    def connect(self, factory: Any) -> Deferred[Any]:
        assert self.protocol is None, "a second connection"
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        made: Deferred[Any] = Deferred()
        self.clock.callLater(0, made.callback, self.protocol)
        return made

    @property
    def server(self) -> SubmissionServer:
        return SubmissionServer(
            "mx.example.net", tls=TLSPolicy.NONE, endpoint=self, helo_name="client.example.org"
        )

    def turn(self) -> None:
        """Let the reactor turn, without letting time pass."""
        for _ in range(5):
            self.clock.advance(0)

    def reply(self, *replies: str) -> list[str]:
        """Send *replies* to the client; return the lines that it writes then."""
        self.protocol.dataReceived("".join(f"{reply}\r\n" for reply in replies).encode())
        return self.said()

    def said(self) -> list[str]:
        self.turn()
        written: str = self.transport.value().decode()
        self.transport.clear()
        return written.splitlines()

    def ready(self, offers: tuple[str, ...]) -> list[str]:
        """Greet, and reply to EHLO with *offers*; return the lines that the client writes then."""
        self.turn()
        self.reply("220 mx.example.net ESMTP")
        return self.reply(*(f"250-{line}" for line in ("mx.example.net", *offers)), "250 HELP")


class Outcome:
    """What came of a Deferred, and what had been written when it fired."""

    def __init__(self, wire: Wire, deferred: Deferred[Any]) -> None:
        self.results: list[Any] = []
        self.written = b""
        self._wire = wire
        _ = deferred.addBoth(self._note)

    def _note(self, result: Any) -> None:
        self.written = self._wire.transport.value()
        self.results.append(getattr(result, "value", result))


def by_sendmail(wire: Wire, to: list[str], count: int) -> Deferred[Any]:
    assert count == 1
    return sendmail(
        wire,
        BODY,
        sender="a@example.org",
        recipients=to,
        tls=TLSPolicy.NONE,
        helo_name="client.example.org",
        complete=False,
        reactor=wire.clock,
    )


def by_many(wire: Wire, to: list[str], count: int) -> Deferred[Any]:
    messages = [(Envelope("a@example.org", to), BODY)] * count
    return many(wire.clock, wire.server, messages, complete=False)


def by_mailer(wire: Wire, to: list[str], count: int, **limits: Any) -> Deferred[Any]:
    messages = [(Envelope("a@example.org", to), BODY)] * count
    mailer = Mailer(wire.clock, wire.server, limits=PoolLimits(connections=1, **limits))

    async def send() -> Any:
        reports = await mailer.send_many(messages, complete=False)
        await mailer.aclose()
        return reports

    return ensureDeferred(send())


WAYS: list[Callable[[Wire, list[str], int], Deferred[Any]]] = [by_sendmail, by_many, by_mailer]
ENVELOPE_OK = ("250 ok", "250 ok", "354 go ahead")
TO = ["b@example.net"]


# -- after the final dot


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("verdict", ["250 ok", "451 not now", "554 no"])
def test_quit_is_written_after_the_verdict_and_nobody_waits_for_its_reply(
    way: Any, verdict: str
) -> None:
    wire = Wire()
    outcome = Outcome(wire, way(wire, TO, 1))
    assert [line[:4] for line in wire.ready(PIPELINING)] == ["MAIL", "RCPT", "DATA"]
    assert wire.reply(*ENVELOPE_OK)[-1] == "."
    assert wire.reply(verdict) == ["QUIT"]
    assert wire.transport.disconnecting
    (result,) = outcome.results
    if way is by_sendmail and verdict != "250 ok":
        assert isinstance(result, AllRecipientsRefused)
    else:
        (report,) = [result] if way is by_sendmail else result
        assert (verdict == "250 ok") == bool(report.accepted)


@pytest.mark.parametrize("way", [by_sendmail, by_many])
@pytest.mark.parametrize("refused", [False, True])
def test_the_caller_is_told_before_quit_is_written(way: Any, refused: bool) -> None:
    wire = Wire()
    outcome = Outcome(wire, way(wire, TO, 1))
    wire.ready(PIPELINING)
    wire.reply(*ENVELOPE_OK)
    assert wire.reply("554 no" if refused else "250 ok") == ["QUIT"]
    assert (len(outcome.results), outcome.written) == (1, b"")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("replies", [("550 no", "503 no"), ("250 ok", "550 no")])
def test_quit_follows_a_refused_envelope_and_nobody_waits(way: Any, replies: Any) -> None:
    wire = Wire()
    outcome = Outcome(wire, way(wire, TO, 1))
    wire.ready(PIPELINING)
    lines = wire.reply(*replies, "503 no recipients")
    if lines == ["RSET"]:
        lines = wire.reply("250 ok")
    assert lines == ["QUIT"]
    assert wire.transport.disconnecting
    assert len(outcome.results) == 1


@pytest.mark.parametrize("way", [by_many, by_mailer])
@pytest.mark.parametrize("window", [None, 1, 8])
def test_the_next_message_waits_for_the_reply_to_the_dot(way: Any, window: int | None) -> None:
    wire = Wire()
    limits = {} if way is by_many or window is None else {"window": window}
    outcome = Outcome(wire, way(wire, TO, 3, **limits))
    lines = wire.ready(PIPELINING)
    for _ in range(3):
        assert [line[:4] for line in lines] == ["MAIL", "RCPT", "DATA"]
        assert wire.reply(*ENVELOPE_OK)[-1] == "."
        wire.clock.advance(1)
        assert wire.said() == []
        lines = wire.reply("250 ok")
    assert lines == ["QUIT"]
    assert [len(reports) for reports in outcome.results] == [3]


def test_with_bdat_too_quit_waits_for_the_verdict() -> None:
    wire = Wire()
    outcome = Outcome(wire, by_sendmail(wire, TO, 1))
    assert "QUIT" not in wire.ready(CHUNKING)
    assert wire.reply("250 ok", "250 ok", "250 ok") == ["QUIT"]
    assert len(outcome.results) == 1


def test_one_flight_a_message_with_data_is_asked_for_by_name() -> None:
    wire = Wire()
    outcome = Outcome(wire, by_mailer(wire, TO, 3, pipeline_after_data=True))
    wire.ready(PIPELINING)
    for _ in range(2):
        lines = wire.reply(*ENVELOPE_OK) if _ == 0 else wire.reply("250 ok", *ENVELOPE_OK)
        dot = lines.index(".")
        assert [line[:4] for line in lines[dot + 1 :]] == ["MAIL", "RCPT", "DATA"]
    assert wire.reply("250 ok", *ENVELOPE_OK)[-1] == "."
    assert wire.reply("250 ok") == ["QUIT"]
    assert [len(reports) for reports in outcome.results] == [3]


# -- the end of the connection


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", ["250 again", "421 bye", "garbage", "354 go", "221 bye"])
def test_what_comes_after_the_verdict_does_not_matter(way: Any, more: str) -> None:
    wire = Wire()
    outcome = Outcome(wire, way(wire, TO, 1))
    wire.ready(PIPELINING)
    wire.reply(*ENVELOPE_OK)
    _ = wire.reply("250 ok", more)
    wire.reply("500 and more")
    (result,) = outcome.results
    (report,) = [result] if way is by_sendmail else result
    assert (len(report.accepted), report.error) == (1, None)


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_that_does_not_end_is_dropped_after_a_second(way: Any) -> None:
    wire = Wire()
    outcome = Outcome(wire, way(wire, TO, 1))
    wire.ready(PIPELINING)
    wire.reply(*ENVELOPE_OK)
    wire.reply("250 ok")
    assert (len(outcome.results), wire.transport.aborted) == (1, False)
    wire.clock.advance(1.0)
    assert wire.transport.aborted
    assert wire.clock.getDelayedCalls() == []


# -- the window of RCPT


def addresses(length: int) -> list[str]:
    """A thousand addresses, each of *length* characters at least."""
    return [f"r{n}".ljust(min(64, length - 12), "x") + "@example.net" for n in range(1000)]


@pytest.mark.parametrize("offers", [PIPELINING, CHUNKING, LIMITS], ids=["DATA", "BDAT", "LIMITS"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [20, 76])
@pytest.mark.parametrize("burst", [1, 7, 500])
def test_rcpt_goes_out_in_a_window_that_is_refilled_as_replies_come(
    way: Any, offers: Any, length: int, burst: int
) -> None:
    wire = Wire()
    outcome = Outcome(wire, way(wire, addresses(length), 1))
    owed = wire.ready(offers)
    seen = len(owed)
    assert 1 < seen
    while "DATA" not in owed and not any(line.startswith("BDAT") for line in owed):
        assert 0 < len(owed) <= HALF
        assert sum(len(line) + 2 for line in owed) <= 16 * 1024
        answered, owed = owed[:burst], owed[burst:]
        more = wire.reply(*["250 ok"] * len(answered))
        # It need not be refilled for each reply, but before the window is empty.
        assert more or len(owed) > HALF // 4
        owed += more
        seen += len(more)
    if "DATA" in owed:
        assert wire.reply(*["250 ok"] * (len(owed) - 1), "354 go ahead")[-1] == "."
        assert seen == 1002
        owed = ["."]
    else:
        owed = owed[: owed.index(next(line for line in owed if line.startswith("BDAT"))) + 1]
    assert wire.reply(*["250 ok"] * len(owed)) == ["QUIT"]
    (result,) = outcome.results
    (report,) = [result] if way is by_sendmail else result
    assert len(report.accepted) == 1000


@pytest.mark.parametrize("way", WAYS)
def test_some_of_a_thousand_refused_are_a_result(way: Any) -> None:
    wire = Wire()
    outcome = Outcome(wire, way(wire, addresses(20), 1))
    owed = wire.ready(PIPELINING)
    refused = {"r0", "r299", "r998"}
    while "." not in owed:
        assert owed
        replies = [
            "354 go ahead"
            if line == "DATA"
            else "550 5.1.1 no"
            if line[9:].partition("x")[0] in refused
            else "250 ok"
            for line in owed
        ]
        owed = wire.reply(*replies)
    wire.reply("250 ok")
    (result,) = outcome.results
    (report,) = [result] if way is by_sendmail else result
    assert len(report.accepted) == 997
    assert sorted(refused) == sorted(str(o.recipient).partition("x")[0] for o in report.refused)


def test_the_window_is_that_of_the_connection_not_of_a_message() -> None:
    wire = Wire()
    to = [f"r{n}@example.net" for n in range(100)]
    outcome = Outcome(wire, by_mailer(wire, to, 8))
    owed = wire.ready(CHUNKING)
    while owed:
        commands = [line for line in owed if line[:4] in {"MAIL", "RCPT", "BDAT", "RSET"}]
        assert len(commands) <= HALF
        owed = wire.reply(*["250 ok"] * len(commands))
        if owed == ["QUIT"]:
            break
    (reports,) = outcome.results
    assert [len(report.accepted) for report in reports] == [100] * 8


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 10, 100])
def test_the_commands_of_an_ordinary_message_are_one_write(way: Any, count: int) -> None:
    wire = Wire()
    _ = Outcome(wire, way(wire, [f"r{n}@example.net" for n in range(count)], 1))
    wire.turn()
    wire.reply("220 mx.example.net ESMTP")
    wire.transport.clear()
    writes: list[bytes] = []
    write = wire.transport.write

    def noted(data: bytes) -> None:
        writes.append(data)
        write(data)

    wire.transport.write = noted
    wire.reply("250-mx.example.net", "250 PIPELINING")
    (group,) = writes
    assert ["MAIL", *["RCPT"] * count, "DATA"] == [line[:4] for line in group.decode().splitlines()]
