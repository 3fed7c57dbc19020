"""Our client against our server, in memory: real TLS, no reactor, no sockets."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from twisted_sendmail import Credentials, SendmailError, SendTimeout, ServerSettings
from twisted_sendmail.testing import MemoryServer, faults

MESSAGE = b"From: a@example.org\r\nTo: b@example.net\r\nSubject: x\r\n\r\n.dot\r\nhello\r\n"


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
def test_a_message_arrives_as_it_was_sent(implicit: bool, mechanism: str) -> None:
    with MemoryServer(users={"jane": "s3cret"}) as server:
        credentials = Credentials("jane", "s3cret", mechanisms=[mechanism])
        report = server.send(MESSAGE, implicit=implicit, credentials=credentials, complete=False)
        (message,) = server.messages
    assert (message.content, message.user) == (MESSAGE, "jane")
    assert [str(r) for r in message.recipients] == ["b@example.net"]
    assert report.queue_id == message.id


def test_the_session_is_kept_with_secrets_masked() -> None:
    with MemoryServer(users={"jane": "s3cret"}) as server:
        server.send(MESSAGE, credentials=Credentials("jane", "s3cret", mechanisms=["PLAIN"]))
        (session,) = server.sessions
    assert (session.user, session.closed) == ("jane", True)
    assert session.tls is not None
    assert "C: AUTH PLAIN ****" in session.dialogue
    assert "S: 250-PIPELINING" in session.dialogue
    assert not [line for line in session.dialogue if "s3cret" in line or "AGphbm" in line]


def test_a_wrong_password_is_an_authentication_error() -> None:
    with (
        MemoryServer(users={"jane": "s3cret"}) as server,
        pytest.raises(SendmailError, match="535"),
    ):
        server.send(MESSAGE, credentials=Credentials("jane", "wrong", mechanisms=["PLAIN"]))


def test_without_tls_the_session_is_clear_text() -> None:
    with MemoryServer(tls=False) as server:
        server.send(MESSAGE, complete=False)
        assert (server.messages[0].tls, server.messages[0].content) == (None, MESSAGE)


@pytest.mark.parametrize("tls", [True, False])
def test_a_server_without_mechanisms_offers_no_auth(tls: bool) -> None:
    with MemoryServer(tls=tls, settings=ServerSettings(mechanisms=())) as server:
        server.send(MESSAGE)
        assert (len(server.messages), server.messages[0].user) == (1, None)
        assert not [line for line in server.sessions[0].dialogue if "AUTH" in line]


def test_time_passes_when_nothing_else_happens() -> None:
    """A server that falls silent costs the client its timeout, and the test milliseconds."""
    with MemoryServer(faults=[faults.stall("EHLO")]) as server, pytest.raises(SendTimeout):
        server.send(MESSAGE)


def test_work_that_is_stuck_is_an_error() -> None:
    with MemoryServer() as server, pytest.raises(AssertionError, match="nothing is left to happen"):
        server.run(Deferred[None]())


def test_many_messages_in_one_session() -> None:
    with MemoryServer() as server:
        for _ in range(3):
            server.send(MESSAGE)
        assert len(server.run(server.wait_for(3))) == 3
        server.clear()
        assert (server.messages, server.sessions) == ([], [])
