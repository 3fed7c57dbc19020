"""After STARTTLS both sides forget everything from before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.certificates import NAME
from tests.client.conftest import Net as ClientNet
from tests.client.conftest import ca_file
from tests.client.conftest import net as client_net
from tests.server.conftest import Net, Trusting
from twisted_sendmail import CommandNotAllowed, ServerSettings, ServerVerifier, SubmissionProtocol

__all__ = ["ca_file", "client_net"]


def test_a_server_wants_ehlo_anew(net: Net) -> None:
    net.secure()
    client = net.client()
    client.send("EHLO before.example\r\n")
    assert client.code("STARTTLS") == "220 2.0.0"
    assert client.link is not None
    client.link.client.startTLS(Trusting())
    net.pump.run()
    for command in ("MAIL FROM:<a@sender.example>", "AUTH PLAIN AGphbmUAczNjcmV0"):
        assert client.code(command) == "503 5.5.1"
    assert client.send("EHLO after.example\r\n")[-1].startswith("250 ")
    assert client.code("AUTH PLAIN AGphbmUAczNjcmV0") == "235 2.7.0"
    assert client.code("MAIL FROM:<a@sender.example>") == "250 2.0.0"
    client.send("RCPT TO:<b@recipient.example>\r\nDATA\r\n")
    client.send("A: b\r\n\r\n.\r\n")
    assert net.messages[0].hello == "after.example"


def test_a_server_offers_no_starttls_inside_tls(net: Net) -> None:
    net.server(tls=net.certificate, settings=ServerSettings(starttls=True, require_tls=False))
    client = net.client()
    client.starttls()
    assert not any("STARTTLS" in line for line in client.send("EHLO c.example\r\n"))
    assert client.code("STARTTLS") == "503 5.5.1"
    assert client.code("RCPT TO:<b@recipient.example>") == "503 5.5.1"


@pytest.mark.parametrize("bare", [False, True], ids=["startTLS", "layer"])
def test_a_client_holds_no_capability_before_it_has_asked_again(
    client_net: ClientNet, bare: bool
) -> None:
    server = client_net.server(
        clear=("STARTTLS", "PIPELINING", "CHUNKING", "SIZE 17"), secure=("AUTH PLAIN",)
    )
    protocol = SubmissionProtocol(client_net.clock, server_name=NAME)
    client_net.pump.connect(protocol, server, bare=bare)
    client_net.pump.run()

    def done(deferred: Any) -> Any:
        results: list[Any] = []
        _ = deferred.addBoth(results.append)
        client_net.pump.run()
        (result,) = results
        return result

    assert done(protocol.ehlo("client.example.org")).code == 250
    assert "CHUNKING" in protocol.session.capabilities
    assert done(protocol.starttls(ServerVerifier(client_net.trust, NAME))).code == 220
    for keyword in ("STARTTLS", "PIPELINING", "CHUNKING", "SIZE", "AUTH"):
        assert keyword not in protocol.session.capabilities
    with pytest.raises(CommandNotAllowed):
        _ = protocol.mail("a@sender.example")
    with pytest.raises(CommandNotAllowed):
        _ = protocol.auth("PLAIN", b"\0user\0secret")
    assert [line.split()[0] for line in server.lines] == ["EHLO", "STARTTLS"]
    assert done(protocol.ehlo("client.example.org")).code == 250
    assert "CHUNKING" not in protocol.session.capabilities
    assert "AUTH" in protocol.session.capabilities
    protocol.abort()


def test_what_was_offered_in_clear_is_not_used_inside_tls(client_net: ClientNet) -> None:
    """CHUNKING, PIPELINING and a SIZE too small, put into the first EHLO reply by somebody else."""
    server = client_net.server(
        clear=("STARTTLS", "PIPELINING", "CHUNKING", "SIZE 17", "SMTPUTF8"), secure=("AUTH PLAIN",)
    )
    assert client_net.send(server).get().accepted
    verbs = [[line.split()[0] for line in flight] for flight in client_net.flights]
    # One command a flight.
    assert verbs[:8] == [
        ["EHLO"],
        ["STARTTLS"],
        [],
        ["EHLO"],
        ["AUTH"],
        ["MAIL"],
        ["RCPT"],
        ["DATA"],
    ]
