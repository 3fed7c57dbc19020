"""The caller's values cannot end a line early: they are refused before connecting."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.conftest import Net
from twisted_sendmail import (
    Credentials,
    Envelope,
    InvalidInput,
    Recipient,
    SubmissionServer,
    TLSPolicy,
)

#: What could end a line, an address or a parameter, or be taken for another address.
BREAKING = [
    "a@example.org\r\nRCPT TO:<evil@example.net>",
    "a@example.org\nDATA",
    "a@example.org\rDATA",
    "a@example.org\0",
    "a@example.org> SIZE=1",
    "a@exam ple.org",
    "a b@example.org",
    "a@example.org\x85DATA",
    "a@example.org\u2028DATA",
    "a@example.org\u2029DATA",
    "\x1b[2Ja@example.org",
    "Alice <a@example.org>",
    "a@example.org (Alice)",
    "a@example.org, evil@example.net",
    "<a@example.org><evil@example.net>",
    "a@example.org\t",
    '"a\r\n"@example.org',
    '"a\0"@example.org',
    "a@[192.0.2.1\r\n]",
    "a@exa\udcffmple.org",
    "@example.org",
    "a@",
]


def refused(net: Net, **given: Any) -> None:
    """With a clear line, and before anybody connected."""
    result = net.start(net.server(), **given)
    net.pump.run()
    assert isinstance(result.error, InvalidInput)
    assert net.endpoint.attempts == 0
    assert str(result.error).isprintable()


@pytest.mark.parametrize("address", BREAKING)
def test_an_address_that_breaks_out_is_refused(net: Net, address: str) -> None:
    refused(net, sender=address)
    refused(net, recipients=["b@example.net", address])


@pytest.mark.parametrize(
    "name",
    ["me\r\nRSET", "me\nx", "me x", "me\0", "", "[127.0.0.1]\r\n", "me\x85", "me\u2028", "<me>"],
)
def test_an_ehlo_name_that_breaks_out_is_refused(net: Net, name: str) -> None:
    refused(net, helo_name=name)
    with pytest.raises(InvalidInput):
        SubmissionServer("mx.example.net", helo_name=name)


@pytest.mark.parametrize("user", ["a\r\nb", "a\0b", "a\nb", ""])
def test_a_user_name_that_breaks_out_is_refused(user: str) -> None:
    with pytest.raises(InvalidInput):
        Credentials(user, "secret")


@pytest.mark.parametrize("value", ["x\r\nDATA", "x\0", "", "x\x85y", "x\u2028y"])
def test_a_parameter_that_breaks_out_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput):
        Envelope("a@example.org", ["b@example.net"], envid=value)
    with pytest.raises(InvalidInput):
        Recipient("b@example.net", orcpt=f"rfc822;{value}" if value else value)


@pytest.mark.parametrize("kind", ["rfc 822", "rfc=822", "", "rfc\u00a0822"])
def test_an_address_type_that_breaks_out_never_gets_on_the_wire(net: Net, kind: str) -> None:
    """Refused, be it when the envelope is made or when MAIL would be said."""
    try:
        envelope = Envelope(
            "a@example.org", [Recipient("b@example.net", orcpt=f"{kind};b@example.net")]
        )
    except InvalidInput:
        return
    server = net.server(secure=("PIPELINING", "DSN", "AUTH PLAIN"))
    result = net.send(server, envelope=envelope)
    assert isinstance(result.error, InvalidInput)
    assert not any(line.startswith(("MAIL", "RCPT")) for line in server.lines)


@pytest.mark.parametrize("policy", [TLSPolicy.NONE, TLSPolicy.OPPORTUNISTIC])
def test_credentials_in_clear_are_refused_before_connecting(net: Net, policy: TLSPolicy) -> None:
    refused(net, tls=policy)
