"""Every fault of the kit, seen from our client: each ends as it should, and none goes unnoticed."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest

from twisted_sendmail import (
    AllRecipientsRefused,
    AuthenticationFailed,
    CertificateRejected,
    ConnectionClosed,
    ConnectionFailed,
    Credentials,
    DeliveryInDoubt,
    InvalidInput,
    ProtocolBreach,
    SendmailError,
    SendTimeout,
    ServiceClosing,
    StartTLSUnavailable,
    TemporaryFailure,
    Timeouts,
)
from twisted_sendmail.testing import MemoryServer, RecordingServer, faults
from twisted_sendmail.testing.recording import ServerOptions

MESSAGE = b"From: a@example.org\r\nTo: b@example.net, c@example.net\r\n\r\nhello\r\n"
any_type: Any = lambda value: value  # noqa: E731 - hides the type from mypy
JANE = Credentials("jane", "s3cret", mechanisms=["PLAIN"])


def send(*plan: faults.Fault, **options: Any) -> tuple[Any, MemoryServer]:
    with MemoryServer(users={"jane": "s3cret"}, faults=plan) as server:
        return server.send(MESSAGE, credentials=JANE, **options), server


def test_a_refused_recipient_is_refused_alone() -> None:
    report, server = send(faults.refuse_recipient("b@example.net"))
    assert [str(o.recipient) for o in report.accepted] == ["c@example.net"]
    assert [str(o.reply) for o in report.refused] == ["550 5.1.1 No such user"]
    assert [str(r) for r in server.messages[0].recipients] == ["c@example.net"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.refuse("RCPT", "452 4.2.2 full"), AllRecipientsRefused),
        (faults.refuse("greeting", "421 4.3.2 not now"), ServiceClosing),
        (faults.refuse("greeting", "554 5.3.2 never"), SendmailError),
        (faults.refuse("EHLO", "502 5.5.1 what"), SendmailError),
        (faults.refuse("STARTTLS", "454 4.7.0 not now"), StartTLSUnavailable),
        (faults.refuse("AUTH", "454 4.7.0 later"), SendmailError),
        (faults.refuse("MAIL", "451 4.3.0 later"), TemporaryFailure),
        (faults.refuse("DATA", "451 4.3.0 later"), SendmailError),
        (faults.refuse("dot", "554 5.7.1 spam"), SendmailError),
        (faults.refuse("dot", "421 4.3.2 going down"), SendmailError),
        (faults.without("STARTTLS"), StartTLSUnavailable),
        (faults.without("AUTH"), SendmailError),
        (faults.expired_certificate(), CertificateRejected),
        (faults.certificate_for("other.example.org"), CertificateRejected),
        (faults.certificate_for(), CertificateRejected),
        (faults.unknown_authority(), CertificateRejected),
        (faults.inject("STARTTLS", b"250 AUTH PLAIN\r\n"), ProtocolBreach),
        (faults.inject("greeting", b"250 early\r\n"), ProtocolBreach),
        (faults.send("EHLO", b"what?\r\n"), ProtocolBreach),
        (faults.send("greeting", b"HTTP/1.1 400 Bad Request\r\n"), ProtocolBreach),
        (faults.close("greeting"), ConnectionFailed),
        (faults.close("MAIL"), ConnectionClosed),
        (faults.reset("RCPT"), ConnectionFailed),
        (faults.close("content"), DeliveryInDoubt),
        (faults.close_after(100), ConnectionFailed),
        (faults.stall("greeting"), SendTimeout),
        (faults.stall("RCPT"), SendTimeout),
    ],
    ids=str,
)
def test_each_fault_raises_its_error(fault: faults.Fault, error: type[Exception]) -> None:
    # Our client prefers BDAT where it is offered.
    plan = [fault, faults.without("CHUNKING")]
    with MemoryServer(users={"jane": "s3cret"}, faults=plan) as server:
        with pytest.raises(error):
            server.send(MESSAGE, credentials=JANE)
        assert server.messages == []


@pytest.mark.parametrize("act", [faults.close, faults.reset, faults.stall])
def test_after_a_fault_at_the_dot_the_server_has_the_message(act: Any) -> None:
    with MemoryServer(faults=[act("dot")]) as server:
        with pytest.raises(DeliveryInDoubt):
            server.send(MESSAGE)
        assert len(server.messages) == 1


@pytest.mark.parametrize("act", [faults.close, faults.reset, faults.stall])
def test_a_fault_at_quit_changes_no_result(act: Any) -> None:
    report, server = send(act("QUIT"))
    assert (len(report.accepted), len(server.messages)) == (2, 1)


def test_single_bytes_change_nothing() -> None:
    report, server = send(faults.single_bytes())
    assert (len(report.accepted), server.messages[0].content[-7:]) == (2, b"hello\r\n")


def test_faults_combine() -> None:
    report, _ = send(
        faults.single_bytes(),
        faults.without("PIPELINING", "CHUNKING"),
        faults.refuse_recipient("c@example.net", "451 4.2.1 busy"),
    )
    assert [str(o.reply) for o in report.refused] == ["451 4.2.1 busy"]


def test_nth_selects_the_time_of_a_fault() -> None:
    with MemoryServer(faults=[faults.refuse("MAIL", "451 4.3.0 later", nth=2)]) as server:
        server.send(MESSAGE)
        with pytest.raises(TemporaryFailure):
            server.send(MESSAGE)
        server.send(MESSAGE)
        assert len(server.messages) == 2


def test_the_dialogue_includes_the_faults() -> None:
    with MemoryServer(faults=[faults.close("EHLO")]) as server:
        with pytest.raises(ConnectionFailed):
            server.send(MESSAGE)
        assert "-- fault: close the connection" in server.sessions[0].dialogue


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: faults.close("lunch"), "use one of AUTH, "),
        (lambda: faults.close(any_type(None)), "use one of AUTH, "),
        (lambda: faults.refuse("MAIL", "no reply"), "write it as 550"),
        (lambda: faults.refuse("MAIL", any_type(550)), "give text such as 550"),
        (lambda: faults.refuse("DATA", "451 no", address="b@example.net"), "use MAIL or RCPT"),
        (lambda: faults.delay("content", 3), "use dot"),
        (lambda: faults.delay("dot", -1), "give seconds above zero"),
        (lambda: faults.send("EHLO", any_type("text")), "give bytes"),
        (lambda: faults.close("dot", nth=0), "give a whole number from 1"),
        (lambda: MemoryServer(faults=any_type(3)), "give a list of calls"),
    ],
)
def test_an_invalid_fault_is_refused(make: Any, remedy: str) -> None:
    with pytest.raises(InvalidInput, match=remedy):
        make()


@pytest.mark.parametrize(
    "at", ["greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "BDAT", "dot", "QUIT"]
)
@pytest.mark.parametrize("more", [(), (faults.single_bytes(),)], ids=["whole", "single bytes"])
def test_a_delay_costs_time_and_nothing_else(at: str, more: tuple[faults.Fault, ...]) -> None:
    """Also where the delay is longer than the timeouts of the server."""
    with MemoryServer(
        users={"jane": "s3cret"}, faults=[faults.delay(at, 45, nth=1), *more]
    ) as server:
        before = server.clock.seconds()
        report = server.send(MESSAGE, credentials=JANE)
        server.network.advance(45)
        assert (len(report.accepted), len(server.messages)) == (2, 1)
        assert server.clock.seconds() - before >= 45
        assert "-- fault: wait 45 s" in server.sessions[0].dialogue
        assert server.sessions[0].closed


def test_a_client_that_does_not_wait_for_a_delayed_reply_is_in_doubt() -> None:
    with MemoryServer(faults=[faults.delay("dot", 30)]) as server:
        with pytest.raises(SendTimeout) as caught:
            server.send(MESSAGE, timeouts=Timeouts(total=20))
        assert (caught.value.in_doubt, len(server.messages)) == (True, 1)
    assert server.clock.getDelayedCalls() == []


def test_the_dialogue_names_pipelining_where_a_stall_has_more_effect() -> None:
    for plan, hints in ([faults.without("PIPELINING")], 0), ([], 1):
        with MemoryServer(faults=[faults.stall("RCPT"), *plan]) as server:
            with pytest.raises((SendTimeout, DeliveryInDoubt)):
                server.send(MESSAGE)
            (hint,) = [line for line in server.sessions[0].dialogue if "without(" in line] or [""]
            assert (hint.count('add without("PIPELINING")')) == hints


WITH_TOKEN = Credentials("jane", token="t0ken")


@pytest.mark.parametrize(
    ("mechanism", "reason"),
    [
        ("OAUTHBEARER", "status invalid_token"),
        ("XOAUTH2", "status 401, scope mail, schemes Bearer"),
    ],
)
def test_a_server_with_tokens_accepts_these_and_refuses_others_with_a_challenge(
    mechanism: str, reason: str
) -> None:
    with MemoryServer(tokens={"jane": "t0ken"}) as server:
        good = Credentials("jane", token="t0ken", mechanisms=[mechanism])
        server.send(MESSAGE, credentials=good)
        assert server.messages[0].user == "jane"
        assert "S: 250-AUTH OAUTHBEARER XOAUTH2" in server.sessions[0].dialogue
        for user, token in ("jane", "old-t0ken"), ("bob", "t0ken"):
            bad = Credentials(user, token=token, mechanisms=[mechanism])
            with pytest.raises(AuthenticationFailed, match=f"535 .*{reason}"):
                server.send(MESSAGE, credentials=bad)
        dialogue = server.sessions[-1].dialogue
        assert dialogue[-6:-2] == [
            f"C: AUTH {mechanism} ****",
            "S: 334 ****",
            "C: ****",
            "S: 535 5.7.8 Authentication failed",
        ]
        assert not [line for line in dialogue if "t0ken" in line]
        with pytest.raises(SendmailError, match="it offers OAUTHBEARER, XOAUTH2"):
            server.send(MESSAGE, credentials=JANE)


def test_users_with_passwords_and_users_with_tokens_are_the_users_of_one_server() -> None:
    with MemoryServer(users={"jane": "s3cret"}, tokens={"bob": "t0ken"}) as server:
        for credentials in JANE, Credentials("bob", token="t0ken"):
            server.send(MESSAGE, credentials=credentials)
        assert [message.user for message in server.messages] == ["jane", "bob"]
    with MemoryServer() as lenient:
        lenient.send(MESSAGE, credentials=WITH_TOKEN)
        assert lenient.messages[0].user == "jane"


def test_each_kind_of_server_has_the_options_of_the_recording_server() -> None:
    known = set(signature(RecordingServer).parameters) - {"clock"}
    assert known == ServerOptions.__optional_keys__
