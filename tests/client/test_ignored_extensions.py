"""``ignore_extensions``: EHLO keywords that are not used."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.certificates import NAME
from tests.client.conftest import BODY, Net
from tests.client.scripted_server import SECURE
from tests.deferreds import Result
from twisted_sendmail import (
    InvalidServer,
    SendmailError,
    StartTLSUnavailable,
    SubmissionServer,
    submit,
)
from twisted_sendmail.testing import MemoryEndpoint


def sent(net: Net, *ignored: str) -> SendmailError | None:
    """Submit one message to a server that offers CHUNKING; why it failed, or None."""
    net.endpoint = MemoryEndpoint(net.pump, net.server(secure=(*SECURE, "CHUNKING")))
    given = net.settings()
    host = given.pop("server_name")
    server = SubmissionServer(host, endpoint=net.endpoint, ignore_extensions=ignored, **given)
    result = Result(
        submit(net.clock, server, BODY, sender="a@x.org", recipients="b@x.org", complete=False)
    )
    net.pump.run()
    error: SendmailError | None = result.error
    return error


def verbs(net: Net) -> list[list[str]]:
    return [[line.split()[0] for line in flight] for flight in net.flights if flight]


def test_chunking_is_used_where_it_is_offered(net: Net) -> None:
    assert sent(net) is None
    assert ["MAIL", "RCPT", "BDAT"] in [flight[:3] for flight in verbs(net)]


def test_chunking_is_not_used_where_it_is_ignored(net: Net) -> None:
    """Case does not matter; the content goes by DATA, pipelined as before."""
    assert sent(net, "chunking") is None
    assert ["MAIL", "RCPT", "DATA"] in verbs(net)


def test_without_pipelining_each_command_waits_for_its_turn(net: Net) -> None:
    assert sent(net, "CHUNKING", "PIPELINING") is None
    assert verbs(net)[4:7] == [["MAIL"], ["RCPT"], ["DATA"]]


def test_ignoring_starttls_does_not_send_in_clear(net: Net) -> None:
    assert isinstance(sent(net, "STARTTLS"), StartTLSUnavailable)
    assert not any(v in {"AUTH", "MAIL"} for flight in verbs(net) for v in flight)


@pytest.mark.parametrize("given", ["CHUNKING", (1,), ("",), None, 3])
def test_anything_but_keywords_is_refused(given: Any) -> None:
    with pytest.raises(InvalidServer, match="give EHLO keywords"):
        SubmissionServer(NAME, ignore_extensions=given)


def test_the_keywords_are_kept_in_one_form() -> None:
    server = SubmissionServer(NAME, ignore_extensions=("size", "CHUNKING", "Size"))
    assert server.ignore_extensions == ("CHUNKING", "SIZE")
