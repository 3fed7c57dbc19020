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
    assert copy.content == MESSAGE


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
    assert (await protocol.greeting).code == 220
    assert (await protocol.ehlo("client.example.test")).code == 250
    assert "STARTTLS" in protocol.session.capabilities
    with pytest.raises(CommandNotAllowed):
        await protocol.rcpt("bob@example.test")
    assert (await protocol.starttls(ServerVerifier(postfix.trust, ""))).code == 220
    assert protocol.tls is not None
    assert protocol.tls.identity == "mail.example.test"
    assert (await protocol.ehlo("client.example.test")).code == 250
    assert "STARTTLS" not in protocol.session.capabilities
    assert (await protocol.noop()).code == 250
    assert (await protocol.command("VRFY", "bob@example.test")).code == 252

    # A refusal is a result, and the connection goes on.
    assert (await protocol.mail("alice@example.test")).code == 250
    assert (await protocol.rcpt("gone@example.test")).code == 550
    with pytest.raises(CommandNotAllowed):
        await protocol.data()
    assert (await protocol.rset()).code == 250

    with protocol.group():
        waiting = [
            protocol.mail("alice@example.test"),
            protocol.rcpt("bob@example.test"),
            protocol.data(),
        ]
    assert [(await each).code for each in waiting] == [250, 250, 354]
    reply = await protocol.content(MESSAGE)
    assert reply.code == 250

    # BDAT, which this Postfix takes too.
    with protocol.group():
        waiting = [
            protocol.mail("alice@example.test"),
            protocol.rcpt("carol@example.test"),
            protocol.bdat(MESSAGE[:30], last=False),
            protocol.bdat(MESSAGE[30:]),
        ]
    assert [(await each).code for each in waiting] == [250] * 4
    last = await waiting[-1]
    assert (await protocol.quit()).code == 221
    await protocol.lost()

    ids = [text.text.rpartition(" ")[2] for text in (reply, last)]
    copies = await postfix.delivered(reactor, *ids)
    assert [(copy.recipient, copy.content) for copy in copies] == [
        ("bob@example.test", MESSAGE),
        ("carol@example.test", MESSAGE),
    ]
