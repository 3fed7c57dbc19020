"""A 421 anywhere in a transaction: which message it answers, and which are in doubt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.conftest import BODY, Net
from tests.client.scripted_server import CLOSE, RESET, SILENT
from twisted_sendmail import (
    AllRecipientsRefused,
    DeliveryInDoubt,
    Mailer,
    PoolLimits,
    RecipientStatus,
    SendmailError,
    ServiceClosing,
    SubmissionServer,
    TLSPolicy,
)
from twisted_sendmail.testing import MemoryEndpoint

CHUNKS = {
    "clear": ("PIPELINING", "CHUNKING", "STARTTLS"),
    "secure": ("PIPELINING", "CHUNKING", "AUTH PLAIN"),
}
BOTH = pytest.mark.parametrize("way", [{}, CHUNKS], ids=["DATA", "BDAT"])
ACCEPTED, REFUSED, IN_DOUBT, UNTOUCHED = RecipientStatus


def facts(error: SendmailError) -> tuple[list[RecipientStatus], bool, bool, bool]:
    assert error.report is not None
    return (
        [outcome.status for outcome in error.report.outcomes],
        error.transient,
        error.in_doubt,
        error.connection_usable,
    )


def end_of(way: dict[str, Any]) -> str:
    return "BDAT_LAST" if way else "."


@BOTH
@pytest.mark.parametrize("end", [CLOSE, RESET, SILENT])
@pytest.mark.parametrize(
    "reply",
    [
        b"421 4.3.2 bye\r\n",
        b"421-4.3.2 so\r\n421 4.3.2 long\r\n",
        # What comes after it answers nothing: the server must not go on.
        b"421 4.3.2 bye\r\n250 2.0.0 queued\r\n",
        b"421 4.3.2 bye\r\n421 4.3.2 bye\r\n",
    ],
)
def test_a_whole_421_to_the_content_refuses_it_for_now(
    net: Net, reply: bytes, end: Any, way: Any
) -> None:
    to = ["b@example.net", "c@example.net"]
    result = net.send(net.server({end_of(way): (reply, end)}, **way), recipients=to)
    error = result.error
    assert isinstance(error, AllRecipientsRefused)
    assert isinstance(error, ServiceClosing)
    assert facts(error) == ([REFUSED] * 2, True, False, False)
    assert [o.reply.code for o in result.report.outcomes] == [421] * 2
    assert "may have been delivered" not in str(error)
    assert (net.clock.seconds(), net.link.over) == (0, True)


@BOTH
@pytest.mark.parametrize("end", [CLOSE, RESET, SILENT])
@pytest.mark.parametrize("half", [b"421", b"421 4.3.2 bye", b"421 4.3.2 bye\r", b"421-so\r\n", b""])
def test_half_a_421_leaves_doubt(net: Net, half: bytes, end: Any, way: Any) -> None:
    result = net.send(net.server({end_of(way): (half, end), "QUIT": SILENT}, **way))
    net.pump.advance(700)
    assert isinstance(result.error, DeliveryInDoubt)
    assert facts(result.error) == ([IN_DOUBT], False, True, False)


@BOTH
def test_a_221_to_the_content_leaves_doubt(net: Net, way: Any) -> None:
    result = net.send(net.server({end_of(way): ("221 2.0.0 bye", CLOSE)}, **way))
    assert facts(result.error) == ([IN_DOUBT], False, True, False)


@BOTH
@pytest.mark.parametrize(("reply", "transient"), [("451 4.3.0 later", True), ("554 no", False)])
def test_a_refusal_before_the_421_is_the_verdict(
    net: Net, reply: str, way: Any, *, transient: bool
) -> None:
    answers = {end_of(way): (f"{reply}\r\n421 4.3.2 bye".encode() + b"\r\n", CLOSE)}
    result = net.send(net.server(answers, **way))
    assert ([REFUSED], transient, False) == facts(result.error)[:3]
    assert reply == str(result.report.outcomes[0].reply)


@BOTH
def test_an_acceptance_before_the_421_is_the_verdict(net: Net, way: Any) -> None:
    answers = {end_of(way): (b"250 2.0.0 queued as 1\r\n421 4.3.2 bye\r\n", CLOSE)}
    assert len(net.send(net.server(answers, **way)).get().accepted) == 1


@pytest.mark.parametrize("end", [CLOSE, RESET, SILENT])
@pytest.mark.parametrize("key", ["MAIL", "RCPT", "DATA"])
def test_a_421_before_the_content_leaves_the_message_untouched(
    net: Net, key: str, end: Any
) -> None:
    result = net.send(net.server({key: ("421 4.3.2 bye", end)}))
    assert isinstance(result.error, ServiceClosing)
    assert facts(result.error) == ([UNTOUCHED], True, False, False)


@BOTH
@pytest.mark.parametrize("end", [CLOSE, RESET, SILENT])
def test_a_421_in_the_middle_of_the_content_leaves_the_message_untouched(
    net: Net, end: Any, way: Any
) -> None:
    """To octets of a content, and to a chunk that is not the last."""
    key = "BDAT#1" if way else "CONTENT#2"
    server = net.server({key: ("421 4.3.2 bye", end)}, keep_content=False, **way)
    result = net.send(server, message=BODY + (b"x" * 76 + b"\r\n") * 40_000)
    net.pump.advance(700)
    assert isinstance(result.error, ServiceClosing)
    assert facts(result.error) == ([UNTOUCHED], True, False, False)
    assert server.messages == []


def window(net: Net, count: int, *servers: Any) -> list[Any]:
    endpoint = MemoryEndpoint(net.pump, *servers)
    server = SubmissionServer("mx.example.net", endpoint=endpoint, tls=TLSPolicy.NONE)
    mailer = Mailer(net.clock, server, limits=PoolLimits(connections=1, window=8))
    messages = [
        b"From: a@example.org\r\nTo: b@example.net\r\nX: %d\r\n\r\n" % n for n in range(count)
    ]
    sending = mailer.send_many(messages, complete=False).deferred()
    found: list[Any] = []
    _ = sending.addBoth(found.append)
    net.pump.advance(700)
    _ = mailer.aclose()
    net.pump.advance(60)
    (reports,) = found
    assert isinstance(reports, list), reports
    return reports


CLEAR_CHUNKS = {"clear": ("PIPELINING", "CHUNKING")}


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_in_a_window_a_421_to_a_content_answers_its_own_message_only(net: Net, end: Any) -> None:
    """What was sent after it and got no reply is in doubt, and goes out once only."""
    first = net.server({"BDAT_LAST#2": ("421 4.3.2 bye", end)}, **CLEAR_CHUNKS)
    second = net.server(**CLEAR_CHUNKS)
    reports = window(net, 6, first, second)
    assert [r.outcomes[0].status for r in reports] == [ACCEPTED, REFUSED, *[IN_DOUBT] * 4]
    for report in reports[2:]:
        assert isinstance(report.error, DeliveryInDoubt)
        assert (report, True, False) == (
            report.error.report,
            report.error.in_doubt,
            report.error.transient,
        )
    assert second.messages == []


def test_in_a_window_replies_after_a_421_to_a_content_still_count(net: Net) -> None:
    """The server goes on, as it must not: what it accepts does not go out again."""
    first = net.server({"BDAT_LAST#2": "421 4.3.2 bye"}, **CLEAR_CHUNKS)
    second = net.server(**CLEAR_CHUNKS)
    reports = window(net, 6, first, second)
    assert [r.outcomes[0].status for r in reports] == [ACCEPTED, REFUSED, *[ACCEPTED] * 4]
    assert second.messages == []


def test_with_data_the_next_message_is_untouched_and_goes_again(net: Net) -> None:
    """Of it at most the envelope was sent."""
    first = net.server({".#2": ("421 4.3.2 bye", CLOSE)}, clear=("PIPELINING",))
    second = net.server(clear=("PIPELINING",))
    reports = window(net, 4, first, second)
    assert [r.outcomes[0].status for r in reports] == [ACCEPTED, REFUSED, ACCEPTED, ACCEPTED]
    assert len(second.messages) == 2


def test_messages_that_one_end_fails_have_each_a_report_of_their_own(net: Net) -> None:
    """So what is in doubt of one says nothing of another."""
    reports = window(net, 5, net.server({"MAIL#1": ("421 4.3.2 no", CLOSE)}, **CLEAR_CHUNKS))
    assert [report.outcomes[0].status for report in reports] == [UNTOUCHED] * 5
    assert [report.error.transient for report in reports] == [True] * 5
    assert [report.error.report.envelope is report.envelope for report in reports] == [True] * 5


@pytest.mark.parametrize("key", ["BDAT_LAST", "."])
def test_the_next_of_many_goes_over_another_connection(net: Net, key: str) -> None:
    way = CHUNKS if key == "BDAT_LAST" else {}
    reports = net.many([BODY, BODY], net.server({f"{key}#1": "421 no"}, **way), net.server(**way))
    refused, accepted = reports.get()
    assert (
        refused.error,
        refused.outcomes[0].status,
        accepted.outcomes[0].status,
    ) == (None, REFUSED, ACCEPTED)
