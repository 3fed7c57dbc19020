"""Other ways to a real Postfix: a Unix socket, another endpoint, command by command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, clientFromString, connectProtocol

from twisted_sendmail import (
    CertificateRejected,
    CommandNotAllowed,
    ServerVerifier,
    StartTLSUnavailable,
    SubmissionProtocol,
    TLSPolicy,
    TLSTrust,
    sendmail,
)

if TYPE_CHECKING:
    from tests.scenarios.postfix import Postfix

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: hand\r\n\r\n.hello\r\n"


@ensureDeferred
async def test_a_unix_socket(reactor: Any, postfix: Postfix) -> None:
    endpoint = UNIXClientEndpoint(reactor, postfix.socket)
    report = await sendmail(endpoint, MESSAGE, tls=TLSPolicy.NONE, reactor=reactor, complete=False)
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    assert MESSAGE == copy.content


@ensureDeferred
async def test_a_unix_socket_too_wants_tls_unless_told_otherwise(
    reactor: Any, postfix: Postfix
) -> None:
    endpoint = UNIXClientEndpoint(reactor, postfix.socket)
    with pytest.raises(StartTLSUnavailable):
        await sendmail(endpoint, MESSAGE, server_name="mail.example.test", reactor=reactor)


@ensureDeferred
@pytest.mark.parametrize(
    ("service", "policy"),
    [("submission", TLSPolicy.STARTTLS), ("submissions", TLSPolicy.IMPLICIT)],
)
async def test_any_endpoint_with_the_name_apart(
    reactor: Any, postfix: Postfix, service: str, policy: TLSPolicy
) -> None:
    endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{postfix.ports[service]}")
    ca_file = postfix.directory / "ca.pem"
    settings = {"tls": policy, "trust": TLSTrust(ca_file=ca_file), "reactor": reactor}
    settings |= {"credentials": postfix.credentials()}
    report = await sendmail(endpoint, MESSAGE, server_name="mail.example.test", **settings)
    assert report.queue_id
    with pytest.raises(CertificateRejected):
        await sendmail(endpoint, MESSAGE, server_name="mail.example.org", **settings)


@ensureDeferred
async def test_command_by_command(reactor: Any, postfix: Postfix) -> None:
    endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{postfix.ports['no_auth']}")
    protocol = await connectProtocol(endpoint, SubmissionProtocol(reactor))
    assert 220 == (await protocol.greeting).code
    assert 250 == (await protocol.ehlo("client.example.test")).code
    assert "STARTTLS" in protocol.session.capabilities
    with pytest.raises(CommandNotAllowed):
        await protocol.rcpt("bob@example.test")
    assert 220 == (await protocol.starttls(ServerVerifier(postfix.trust, ""))).code
    assert protocol.tls is not None
    assert "mail.example.test" == protocol.tls.identity
    assert 250 == (await protocol.ehlo("client.example.test")).code
    assert "STARTTLS" not in protocol.session.capabilities
    assert 250 == (await protocol.noop()).code
    assert 252 == (await protocol.command("VRFY", "bob@example.test")).code

    # A refusal is a result, and the connection goes on.
    assert 250 == (await protocol.mail("alice@example.test")).code
    assert 550 == (await protocol.rcpt("gone@example.test")).code
    with pytest.raises(CommandNotAllowed):
        await protocol.data()
    assert 250 == (await protocol.rset()).code

    with protocol.group():
        waiting = [
            protocol.mail("alice@example.test"),
            protocol.rcpt("bob@example.test"),
            protocol.data(),
        ]
    assert [250, 250, 354] == [(await each).code for each in waiting]
    reply = await protocol.content(MESSAGE)
    assert 250 == reply.code

    # BDAT, which this Postfix takes too.
    with protocol.group():
        waiting = [
            protocol.mail("alice@example.test"),
            protocol.rcpt("carol@example.test"),
            protocol.bdat(MESSAGE[:30], last=False),
            protocol.bdat(MESSAGE[30:]),
        ]
    assert [250] * 4 == [(await each).code for each in waiting]
    last = await waiting[-1]
    assert 221 == (await protocol.quit()).code
    await protocol.lost()

    ids = [text.text.rpartition(" ")[2] for text in (reply, last)]
    copies = await postfix.delivered(reactor, *ids)
    assert [("bob@example.test", MESSAGE), ("carol@example.test", MESSAGE)] == [
        (copy.recipient, copy.content) for copy in copies
    ]
