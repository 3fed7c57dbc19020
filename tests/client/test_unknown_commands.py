"""Replies about a command: the server offers an extension and does not know its command or parameter."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Any

import pytest

from tests.client.certificates import NAME
from tests.client.conftest import BODY, Net
from tests.client.scripted_server import CLOSE, SILENT, ScriptedServer
from tests.deferreds import Result
from twisted_sendmail import (
    AllRecipientsRefused,
    Cancelled,
    ChunkingFailure,
    DeliveryInDoubt,
    Envelope,
    Mailer,
    PoolLimits,
    Recipient,
    RecipientStatus,
    SendmailError,
    SubmissionServer,
    submit,
)
from twisted_sendmail.testing import MemoryEndpoint

OFFERS = ("PIPELINING", "CHUNKING", "8BITMIME", "BINARYMIME", "SMTPUTF8", "DSN", "SIZE 9000000")
SECURE = {"secure": (*OFFERS, "REQUIRETLS", "AUTH PLAIN")}
#: Sent by several chunks.
LARGE = BODY + b"x" * 72 * 5000 + b"\r\n"
UNKNOWN = pytest.mark.parametrize("code", [500, 502])
ACCEPTED, REFUSED, IN_DOUBT, UNTOUCHED = RecipientStatus


def verbs(server: ScriptedServer) -> list[str]:
    return [line.split()[0] for line in server.lines]


def servers(net: Net, *answers: dict[str, Any] | None) -> list[ScriptedServer]:
    """One a connection."""
    return [net.server(each, **SECURE) for each in answers]


def statuses(error: SendmailError | None) -> list[RecipientStatus]:
    assert error is not None
    assert error.report is not None
    return [outcome.status for outcome in error.report.outcomes]


# -- BDAT ----------------------------------------------------------------------------------


@UNKNOWN
@pytest.mark.parametrize("moment", ["BDAT", "BDAT_LAST"])
def test_a_message_whose_bdat_is_unknown_goes_by_data_over_a_new_connection(
    net: Net, code: int, moment: str
) -> None:
    message = LARGE if moment == "BDAT" else BODY
    first, second = servers(net, {moment: f"{code} 5.5.1 what is BDAT?"}, None)
    result = net.send(first, second, message=message)
    assert [ACCEPTED] == [each.status for each in result.get().outcomes]
    assert (first.lost, verbs(second)[-3:]) == (1, ["RCPT", "DATA", "QUIT"])
    assert "QUIT" not in verbs(first)
    assert [message] == second.messages


@pytest.mark.parametrize(
    "more",
    [b"500 5.5.2 what?\r\n", b"421 4.7.0 too many errors\r\n", b"500 5.5", b"500-5.5.2 so\r\n"],
)
def test_it_is_not_sent_again_by_itself_when_more_was_answered(net: Net, more: bytes) -> None:
    (server,) = servers(net, {"BDAT_LAST": b"502 5.5.1 what?\r\n" + more})
    result = net.send(server)
    assert isinstance(result.error, ChunkingFailure)
    assert (statuses(result.error), result.error.in_doubt) == ([UNTOUCHED], False)
    assert net.endpoint.attempts == 1
    assert "add CHUNKING to its ignore-extensions" in str(result.error)


@pytest.mark.parametrize("moment", ["BDAT", "BDAT_LAST"])
@pytest.mark.parametrize(
    "more",
    [
        b"250 2.0.0 ok\r\n",
        b"354 go ahead\r\n",
        b"500 what?\r\n500 what?\r\n250 ok\r\n500 what?\r\n",
        b"25",
        b"354",
        b"250-so\r\n",
    ],
)
def test_it_is_in_doubt_when_something_was_accepted_after_that(
    net: Net, more: bytes, moment: str
) -> None:
    """The server may have read the chunk as commands."""
    (server,) = servers(net, {moment: b"500 what?\r\n" + more})
    result = net.send(server, message=LARGE if moment == "BDAT" else BODY)
    assert isinstance(result.error, DeliveryInDoubt)
    assert (statuses(result.error), result.error.transient) == ([IN_DOUBT], False)
    assert (net.endpoint.attempts, server.lost) == (1, 1)
    assert "ignore-extensions" in str(result.error)


@pytest.mark.parametrize("then", ["554 5.7.1 no", "421 4.3.2 no", CLOSE, SILENT])
def test_what_was_accepted_before_is_in_the_report_when_the_new_connection_fails(
    net: Net, then: Any
) -> None:
    offers = {"secure": (*OFFERS, "LIMITS RCPTMAX=1", "AUTH PLAIN")}
    first = net.server({"BDAT_LAST#2": "502 5.5.1 what?"}, **offers)
    second = net.server({"GREETING": then})
    result = net.send(first, second, recipients=["b@example.net", "c@example.net"])
    if then is SILENT:
        result.deferred.cancel()
        net.pump.run()
        assert isinstance(result.error, Cancelled)
    assert [each.status for each in result.report.outcomes] == [ACCEPTED, UNTOUCHED]
    assert (result.error.in_doubt, result.error.transient) == (False, False)
    assert net.endpoint.attempts == 2


def test_a_content_that_is_read_once_is_not_sent_again(net: Net) -> None:
    (server,) = servers(net, {"BDAT": "500 what?"})
    result = net.send(server, message=iter([LARGE] * 4))
    assert isinstance(result.error, ChunkingFailure)
    assert net.endpoint.attempts == 1


def test_nothing_is_in_doubt_where_nobody_was_accepted(net: Net) -> None:
    (server,) = servers(net, {"RCPT": "550 5.1.1 no", "BDAT_LAST": b"500 what?\r\n250 ok\r\n"})
    result = net.send(server)
    assert statuses(result.error) == [REFUSED]
    assert (net.endpoint.attempts, server.lost) == (1, 1)


@pytest.mark.parametrize("reply", ["554 5.6.0 no", "501 5.5.4 no", "550 5.7.1 spam", "452 full"])
def test_any_other_refusal_of_bdat_is_about_the_message(net: Net, reply: str) -> None:
    (server,) = servers(net, {"BDAT_LAST": reply})
    result = net.send(server)
    assert isinstance(result.error, AllRecipientsRefused)
    assert (net.endpoint.attempts, server.lines[-1]) == (1, "QUIT")


def mailer_to(net: Net, *made: ScriptedServer, **limits: Any) -> Mailer:
    net.endpoint = MemoryEndpoint(net.pump, *made)
    given = net.settings()
    server = SubmissionServer(given.pop("server_name"), endpoint=net.endpoint, **given)
    return Mailer(net.clock, [server], limits=PoolLimits(**limits))


def send(net: Net, mailer: Mailer, **how: Any) -> Result:
    how.setdefault("envelope", Envelope("a@example.org", "b@example.net"))
    result = Result(mailer.send(BODY, complete=False, **how))
    net.pump.run()
    return result


def close(net: Net, mailer: Mailer) -> None:
    _ = Result(mailer.aclose())
    net.pump.run()


def test_a_mailer_remembers_it_for_that_server(net: Net) -> None:
    made = servers(net, {"BDAT_LAST": "502 what?"}, None, None)
    mailer = mailer_to(net, *made)
    assert [send(net, mailer).get().queue_id for _ in range(3)] == ["4ABC"] * 3
    assert [verbs(each).count("BDAT") for each in made] == [1, 0, 0]
    assert verbs(made[1]).count("DATA") == 3
    net.pump.advance(60)  # the connection closes: the next is another
    assert send(net, mailer).get().accepted
    assert ("BDAT" in verbs(made[2]), "DATA" in verbs(made[2])) == (False, True)
    close(net, mailer)


@pytest.mark.parametrize("more", [b"", b"500 what?\r\n", b"250 ok\r\n"])
def test_submit_remembers_it_with_the_server_object(net: Net, more: bytes) -> None:
    made = servers(net, {"BDAT_LAST": b"502 what?\r\n" + more}, None, None)
    net.endpoint = MemoryEndpoint(net.pump, *made)
    given = net.settings()
    server = SubmissionServer(given.pop("server_name"), endpoint=net.endpoint, **given)
    for _ in range(2):
        result = Result(submit(net.clock, server, BODY, sender="a@x.org", recipients="b@x.org"))
        net.pump.run()
    assert result.get().accepted
    assert [verbs(each).count("BDAT") for each in made] == [1, 0, 0]
    assert server == SubmissionServer(NAME, endpoint=net.endpoint, **given)


def test_messages_behind_it_go_by_data_too(net: Net) -> None:
    made = servers(net, {"BDAT_LAST#1": "502 what?"}, None)
    mailer = mailer_to(net, *made, connections=1)
    results = [Result(mailer.send(BODY, envelope=Envelope("a@x.org", f"b{n}@y.org"))) for n in "12"]
    net.pump.run()
    # What was answered after the refusal may be about what was read as commands.
    assert [isinstance(each.error, DeliveryInDoubt) or bool(each.value) for each in results]
    assert verbs(made[1]).count("BDAT") == 0
    close(net, mailer)


# -- parameters ----------------------------------------------------------------------------

ENVELOPE = Envelope(
    "a@example.org",
    [Recipient("b@example.net", notify=["NEVER"], orcpt="rfc822;o@example.net")],
    ret="HDRS",
    envid="id-1",
)
UNKNOWN_PARAMETER = pytest.mark.parametrize("code", [504, 555])


def no_mail(reply: str, nth: str = "") -> dict[str, Any]:
    """A server that refuses MAIL, and therefore what follows it."""
    after = dict.fromkeys([f"RCPT{nth}", f"BDAT_LAST{nth}"], "503 5.5.1 MAIL first")
    return {f"MAIL{nth}": reply, **after}


def commands(server: ScriptedServer) -> list[str]:
    return [line for line in server.lines if line.startswith(("MAIL", "RCPT"))]


@UNKNOWN_PARAMETER
def test_parameters_that_the_server_does_not_know_are_left_out(net: Net, code: int) -> None:
    (server,) = servers(net, no_mail(f"{code} 5.5.4 parameter not supported", "#1"))
    result = net.send(server, envelope=ENVELOPE)
    assert [ACCEPTED] == [each.status for each in result.get().outcomes]
    to = "RCPT TO:<b@example.net> NOTIFY=NEVER ORCPT=rfc822;o@example.net"
    assert commands(server) == [
        f"MAIL FROM:<a@example.org> SIZE={len(BODY)} RET=HDRS ENVID=id-1",
        to,
        "MAIL FROM:<a@example.org>",
        to,
    ]


@UNKNOWN_PARAMETER
def test_orcpt_is_left_out_and_notify_is_not(net: Net, code: int) -> None:
    refused = {"RCPT#1": f"{code} 5.5.4 unsupported option", "BDAT_LAST#1": "503 5.5.1 RCPT first"}
    for offers in (SECURE, {"secure": ("PIPELINING", "DSN", "SIZE 1000", "AUTH PLAIN")}):
        server = net.server({**refused, "DATA#1": "503 5.5.1 RCPT first"}, **offers)
        result = net.send(server, envelope=ENVELOPE)
        assert [ACCEPTED] == [each.status for each in result.get().outcomes]
        mail, _, again, to = commands(server)
        assert (mail == again, to) == (True, "RCPT TO:<b@example.net> NOTIFY=NEVER")


def test_only_the_parameter_that_the_reply_names_is_left_out(net: Net) -> None:
    (server,) = servers(net, no_mail("555 5.5.4 Unsupported option: ENVID=id-1", "#1"))
    assert net.send(server, envelope=ENVELOPE).get().accepted
    mail = commands(server)[2]
    assert ("ENVID" in mail, "RET=HDRS" in mail, "SIZE=" in mail) == (False, True, True)


@UNKNOWN_PARAMETER
def test_what_a_message_depends_on_is_never_left_out(net: Net, code: int) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "jürgen@example.org", "b@example.net", "x"
    message.set_content("hello")
    envelope = Envelope(
        "jürgen@example.org", [Recipient("b@example.net", notify=["NEVER"])], require_tls=True
    )
    (server,) = servers(net, no_mail(f"{code} 5.5.4 no"))
    result = net.send(server, message=message, envelope=envelope)
    assert isinstance(result.error, AllRecipientsRefused)
    assert not result.error.transient
    first, _, second, to = commands(server)  # then there is nothing to leave out
    assert first.partition(" SIZE")[0] == "MAIL FROM:<jürgen@example.org>"
    assert second == "MAIL FROM:<jürgen@example.org> BODY=8BITMIME SMTPUTF8 REQUIRETLS"
    assert to == "RCPT TO:<b@example.net> NOTIFY=NEVER"
    assert net.endpoint.attempts == 1


def test_binarymime_is_never_left_out(net: Net) -> None:
    message = b"Subject: x\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\n\xff"
    (server,) = servers(net, no_mail("555 5.5.4 BODY=BINARYMIME not supported"))
    result = net.send(server, message=message)
    assert isinstance(result.error, AllRecipientsRefused)
    assert ["BODY=BINARYMIME" in line for line in commands(server)] == [True, False] * 2


def test_each_transaction_of_a_message_is_repeated_alone(net: Net) -> None:
    limits = {"secure": (*SECURE["secure"], "LIMITS RCPTMAX=1")}
    server = net.server(no_mail("555 5.5.4 no", "#2"), **limits)
    envelope = Envelope("a@example.org", ["b@x.org", "c@x.org", "d@x.org"], envid="1")
    assert len(net.send(server, envelope=envelope).get().accepted) == 3
    sent = [line for line in commands(server) if line.startswith("RCPT")]
    assert sent == [f"RCPT TO:<{name}@x.org>" for name in "bccd"]


def test_a_mailer_leaves_them_out_from_then_on(net: Net) -> None:
    made = servers(net, no_mail("555 5.5.4 what?", "#1"))
    mailer = mailer_to(net, *made)
    assert [bool(send(net, mailer, envelope=ENVELOPE).get()) for _ in range(3)] == [True] * 3
    sizes = ["SIZE=" in line for line in commands(made[0]) if line.startswith("MAIL")]
    assert (sizes, net.endpoint.attempts) == ([True, False, False, False], 1)
    close(net, mailer)


@pytest.mark.parametrize("reply", ["501 5.5.4 no", "550 5.7.1 no", "553 5.1.3 no", "455 4.5.4 no"])
def test_after_another_refusal_nothing_is_left_out(net: Net, reply: str) -> None:
    (server,) = servers(net, no_mail(reply))
    result = net.send(server, envelope=ENVELOPE)
    assert statuses(result.error) == [REFUSED]
    assert net.endpoint.attempts == 1
