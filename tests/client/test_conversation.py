"""Successful sessions: commands, round trips and results."""

from __future__ import annotations

from base64 import b64encode
from math import ceil
from typing import Any

import pytest

from tests.client.conftest import BODY, Net, report_of
from tests.client.scripted_server import PASSWORD, SILENT, USER
from twisted_sendmail.client import TLSPolicy
from twisted_sendmail.smtp import AllRecipientsRefused, Envelope, ProtocolBreach, RecipientStatus
from twisted_sendmail.smtp.errors import (
    ActionIgnored,
    MailboxUnavailable,
    PermanentFailure,
    TemporaryFailure,
    UnexpectedResponse,
)

PLAIN = b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
OPENING = [
    ["EHLO client.example.org"],
    ["STARTTLS"],
    [],
    ["EHLO client.example.org"],
    [f"AUTH PLAIN {PLAIN}"],
]
#: Commands that may be unanswered at once.
WINDOW = 144
MAIL = f"MAIL FROM:<a@example.org> SIZE={len(BODY)}"


def test_a_message_over_starttls_and_auth_takes_seven_flights_and_quit(net: Net) -> None:
    """EHLO, STARTTLS, handshake, EHLO, AUTH, MAIL+RCPT+DATA, content; QUIT after the verdict."""
    server = net.server()
    report = net.send(server).get()
    expected = [*OPENING, [MAIL, "RCPT TO:<b@example.net>", "DATA"], ["<content>."], ["QUIT"]]
    assert net.flights == expected
    assert server.messages == [BODY]
    assert (report.queue_id, report.outcomes[0].status) == ("4ABC", RecipientStatus.ACCEPTED)
    assert (report.host, report.tls.verified_by) == ("mx.example.net[192.0.2.1]:587", "name")


def test_a_thousand_recipients_go_out_as_fast_as_replies_come(net: Net) -> None:
    recipients = [f"user{i}@example.net" for i in range(1000)]
    report = net.send(net.server(), recipients=recipients).get()
    group = [MAIL, *(f"RCPT TO:<{r}>" for r in recipients), "DATA"]
    flights = net.flights
    windows = flights[len(OPENING) : -2]
    assert [OPENING, group, [["<content>."], ["QUIT"]]] == [
        flights[: len(OPENING)],
        [line for flight in windows for line in flight],
        flights[-2:],
    ]
    assert ceil(len(group) / WINDOW) == len(windows)
    assert len(report.accepted) == 1000


def test_implicit_tls_saves_two_flights(net: Net) -> None:
    server = net.server(implicit=True)
    net.send(server, tls=TLSPolicy.IMPLICIT).get()
    expected = [
        [],
        *OPENING[3:],
        [MAIL, "RCPT TO:<b@example.net>", "DATA"],
        ["<content>."],
        ["QUIT"],
    ]
    # The second flight of TLS 1.3 carries nothing of ours: the greeting is waited for.
    assert [f for i, f in enumerate(net.flights) if f or i == 0] == expected
    assert server.messages == [BODY]


def test_without_pipelining_each_command_waits_for_its_reply(net: Net) -> None:
    server = net.server(secure=("AUTH PLAIN",))
    net.send(server, recipients=["b@example.net", "c@example.net"]).get()
    expected = [
        *OPENING,
        ["MAIL FROM:<a@example.org>"],
        ["RCPT TO:<b@example.net>"],
        ["RCPT TO:<c@example.net>"],
        ["DATA"],
        ["<content>."],
        ["QUIT"],
    ]
    assert net.flights == expected


def test_without_auth_nothing_is_said_of_it(net: Net) -> None:
    net.send(net.server(), credentials=None).get()
    assert len(net.flights) == 7


def test_in_clear_where_that_was_asked_for(net: Net) -> None:
    server = net.server()
    net.send(server, tls=TLSPolicy.NONE, credentials=None).get()
    expected = [OPENING[0], [MAIL, "RCPT TO:<b@example.net>", "DATA"], ["<content>."], ["QUIT"]]
    assert net.flights == expected


def test_nothing_is_written_in_two_pieces(net: Net) -> None:
    """The group, the content with its final dot, and QUIT, are one write each."""
    server = net.server()
    result = net.start(server, tls=TLSPolicy.NONE, credentials=None)
    writes: list[bytes] = []
    link = net.link
    write = link.client.write

    def noted(data: bytes) -> None:
        writes.append(data)
        write(data)

    link.client.write = noted
    net.pump.run()
    result.get()
    assert len(writes) == 4
    assert writes[2].endswith(b"hello\r\n.\r\n")
    assert writes[3] == b"QUIT\r\n"


# -- refusals


def test_some_refused_some_accepted_is_a_result(net: Net) -> None:
    server = net.server({"RCPT#2": "550 5.1.1 no such user", "RCPT#3": "450 4.2.1 later"})
    report = net.send(server, recipients=[f"{c}@example.net" for c in "bcd"]).get()
    assert [o.status.value for o in report.outcomes] == ["accepted", "refused", "refused"]
    assert [o.transient for o in report.refused] == [False, True]
    assert len(server.messages) == 1
    assert len(net.flights) == 8


@pytest.mark.parametrize("code", [251, 252])
def test_251_and_252_are_yes(net: Net, code: int) -> None:
    server = net.server({"RCPT": f"{code} will forward"})
    assert len(net.send(server).get().accepted) == 1


@pytest.mark.parametrize("pipelining", [True, False])
def test_all_refused_and_data_refused(net: Net, pipelining: bool) -> None:
    secure = ("PIPELINING", "AUTH PLAIN") if pipelining else ("AUTH PLAIN",)
    server = net.server({"RCPT": "550 5.1.1 no", "DATA": "503 no recipients"}, secure=secure)
    result = net.send(server, recipients=["b@example.net", "c@example.net"])
    with pytest.raises(AllRecipientsRefused) as caught:
        result.get()
    assert isinstance(caught.value, PermanentFailure)
    assert ("DATA" in server.lines, "QUIT" in server.lines) == (pipelining, True)
    assert (server.messages, len(report_of(caught).refused)) == ([], 2)


def test_all_refused_and_yet_354_gets_a_lone_dot_and_nothing_else(net: Net) -> None:
    """RFC 2920 section 3.1."""
    server = net.server(
        {"RCPT": "550 5.1.1 no", "DATA": b"354 go\r\n", ".": "554 no valid recipients"}
    )
    with pytest.raises(AllRecipientsRefused) as caught:
        net.send(server).get()
    assert server.messages == [b""]
    assert str(caught.value.reply) == "550 5.1.1 no"
    assert net.flights[-2:] == [["<content>."], ["QUIT"]]


def test_a_lone_dot_that_is_accepted_accepts_nobody(net: Net) -> None:
    server = net.server({"RCPT": "450 later", "DATA": b"354 go\r\n"})
    with pytest.raises(MailboxUnavailable) as caught:
        net.send(server).get()
    assert server.messages == [b""]
    assert list(report_of(caught).accepted) == []
    assert caught.value.transient


def test_all_or_nothing_drops_the_connection_behind_354(net: Net) -> None:
    """A lone dot would deliver an empty message to those accepted."""
    server = net.server({"RCPT#2": "550 no"})
    with pytest.raises(PermanentFailure) as caught:
        net.send(server, recipients=["b@example.net", "c@example.net"], all_or_nothing=True).get()
    assert (server.messages, server.octets) == ([], 0)
    assert [o.status.value for o in report_of(caught).outcomes] == ["untouched", "refused"]
    assert net.link.client.aborted


@pytest.mark.parametrize(
    ("replies", "all_or_nothing"),
    [
        ({"RCPT": "552 5.5.3 too many"}, False),
        ({"RCPT#2": "552 5.5.3 too many"}, True),
        ({"RCPT#2": "552 too many"}, True),
    ],
)
def test_a_552_for_too_many_recipients_raises_the_error_of_a_452(
    net: Net, replies: dict[str, str], all_or_nothing: bool
) -> None:
    recipients = ["b@example.net", "c@example.net"]
    with pytest.raises(ActionIgnored) as caught:
        net.send(net.server(replies), recipients=recipients, all_or_nothing=all_or_nothing).get()
    assert caught.value.transient


def test_all_or_nothing_without_pipelining_delivers_nothing_either(net: Net) -> None:
    server = net.server({"RCPT#2": "550 no"}, secure=("AUTH PLAIN",))
    with pytest.raises(PermanentFailure):
        net.send(server, recipients=["b@example.net", "c@example.net"], all_or_nothing=True).get()
    assert (server.messages, server.octets) == ([], 0)


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("data", [b"354 go\r\n", b"503 no\r\n"])
def test_mail_refused(net: Net, pipelining: bool, data: bytes) -> None:
    secure = ("PIPELINING", "AUTH PLAIN") if pipelining else ("AUTH PLAIN",)
    server = net.server(
        {"MAIL": "451 4.3.0 not now", "RCPT": "503 no MAIL", "DATA": data}, secure=secure
    )
    with pytest.raises(TemporaryFailure) as caught:
        net.send(server).get()
    assert str(caught.value.reply) == "451 4.3.0 not now"
    expected = [b""] if pipelining and data.startswith(b"354") else []
    assert (server.messages, server.lines[-1]) == (expected, "QUIT")


def test_data_refused(net: Net) -> None:
    server = net.server({"DATA": "451 4.3.0 not now"})
    with pytest.raises(TemporaryFailure) as caught:
        net.send(server).get()
    assert (caught.value.phase, server.messages) == ("DATA", [])
    assert server.lines[-1] == "QUIT"


@pytest.mark.parametrize("reply", ["250 ok", "334 go", "235 ok", "220 go"])
def test_only_354_asks_for_content(net: Net, reply: str) -> None:
    server = net.server({"DATA": reply})
    with pytest.raises(UnexpectedResponse):
        net.send(server).get()
    assert (0, b"hello" in net.link.client.sent) == (server.octets, False)


def test_content_refused(net: Net) -> None:
    server = net.server({".": "554 5.6.0 spam"})
    with pytest.raises(PermanentFailure) as caught:
        net.send(server).get()
    assert (caught.value.phase, caught.value.transient) == ("content", False)


@pytest.mark.parametrize(
    ("answers", "flights"),
    [
        ({"MAIL": "550 no", "RCPT": "503 x", "DATA": "503 x"}, 7),
        ({"RCPT": "550 no", "DATA": "503 x"}, 7),
        ({"DATA": "451 no"}, 7),
        ({".": "550 no"}, 8),
        ({"AUTH": "535 no"}, 6),
        ({"EHLO/TLS": "550 no"}, 5),
        ({"EHLO": "550 no"}, 2),
        ({"GREETING": "554 no"}, 1),
        ({"STARTTLS": "454 no"}, 3),
    ],
)
def test_a_refusal_costs_no_more_than_a_quit(net: Net, answers: Any, flights: int) -> None:
    server = net.server(answers)
    assert net.send(server).error is not None
    assert (flights, "QUIT") == (len(net.flights), server.lines[-1])


# -- what the text of a reply may hold


def test_the_text_of_a_reply_cannot_act_on_a_terminal(net: Net) -> None:
    server = net.server({"RCPT": b"550 \x1b[2J\x1b]0;owned\x07\xff\xe2\x80\xae\r\n"})
    error = net.send(server).error
    shown = str(error) + str(error.transcript) + "".join(net.watched)
    assert "\\x1b[2J\\x1b]0;owned\\x07" in str(error)
    assert not any(c in shown for c in "\x1b\x07\u202e")


@pytest.mark.parametrize(
    "ehlo",
    [
        b"250\r\n",
        b"250 \r\n",
        b"250-\r\n250-\r\n250 \r\n",
        b"250-x\r\n250-SIZ lots\r\n250-=\r\n250-\xff\xfe\r\n250 \x00\r\n",
    ],
)
def test_an_odd_ehlo_reply_offers_nothing(net: Net, ehlo: bytes) -> None:
    server = net.server({"EHLO": ehlo})
    net.send(server, tls=TLSPolicy.NONE, credentials=None).get()
    assert server.lines[1] == "MAIL FROM:<a@example.org>"


@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"+OK\r\n",
        b"* OK\r\n",
        b"HTTP/1.0 400\r\n\r\n",
        b"25",
        b"2500 x\r\n",
        b"120 x\r\n",
        b"220_x\r\n",
    ],
)
def test_another_protocols_banner_ends_it_at_once(net: Net, banner: bytes) -> None:
    """Not by timeout."""
    result = net.send(net.server({"GREETING": banner + b"x"}))
    assert isinstance(result.error, ProtocolBreach)
    assert "in the greeting at " in str(result.error)
    assert result.error.remedy == "check host and port: TLS or another protocol answers there"
    assert net.clock.seconds() == 0


@pytest.mark.parametrize("settings", [{}, {"tls": TLSPolicy.NONE, "credentials": None}])
def test_a_name_that_the_server_refuses_can_be_changed(net: Net, settings: Any) -> None:
    refused = "501 5.5.4 Invalid name"
    error = net.send(net.server({"EHLO": refused, "HELO": refused}), **settings).error
    expected = "give another as helo_name" if settings else "use smtps://"
    assert expected in str(error)


def test_the_code_may_not_change_within_a_reply(net: Net) -> None:
    server = net.server({"RCPT": b"554-no\r\n250 yes\r\n"})
    assert isinstance(net.send(server).error, ProtocolBreach)
    assert server.messages == []


def test_an_envelope_the_server_cannot_take_is_refused_before_mail(net: Net) -> None:
    server = net.server(secure=("SIZE 10", "AUTH PLAIN"))
    error = net.send(server).error
    assert "message too large" in str(error)
    assert not any(line.startswith("MAIL") for line in server.lines)
    envelope = Envelope("a@example.org", ["b@example.net"], require_tls=True)
    error = net.send(net.server(), envelope=envelope).error
    assert "REQUIRETLS is needed and not offered" in str(error)


def test_an_extension_that_is_not_needed_is_not_used(net: Net) -> None:
    server = net.server(secure=("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "DSN", "AUTH PLAIN"))
    net.send(server).get()
    assert MAIL in server.lines


def test_silence_after_connecting_is_not_for_ever(net: Net) -> None:
    result = net.send(net.server({"GREETING": SILENT}))
    assert result.fired == 0
    net.pump.advance(301)
    assert "greeting" in str(result.error)


@pytest.mark.parametrize("reply", [b"250-mx\r\n250-SIZE\r\n", b"250 mx\r", b"25"])
def test_a_reply_that_does_not_end_is_named_as_such(net: Net, reply: bytes) -> None:
    result = net.send(net.server({"EHLO": reply}))
    net.pump.advance(301)
    expected = "the reply to EHLO client.example.org did not come within 300 s at "
    assert str(result.error).startswith(expected)
    assert str(result.error).endswith(": its last line is missing")
