"""Every fault of the kit, seen from our client: each ends as it should, and none goes unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_sendmail import (
    AllRecipientsRefused,
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
)
from twisted_sendmail.testing import MemoryServer, faults

MESSAGE = b"From: a@example.org\r\nTo: b@example.net, c@example.net\r\n\r\nhello\r\n"
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
    "make", [lambda: faults.close("lunch"), lambda: faults.refuse("MAIL", "no reply")]
)
def test_an_invalid_fault_is_refused(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()
