"""REQUIRETLS (RFC 8689) with servers that offer it, and then do not keep to it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.conftest import BODY, Net
from tests.client.scripted_server import ScriptedServer
from twisted_sendmail import Envelope, SendmailError, TLSPolicy

NEEDED = Envelope("a@example.org", ["b@example.net"], require_tls=True)
PLAIN = Envelope("a@example.org", ["b@example.net"])
OFFERED = ("PIPELINING", "AUTH PLAIN", "REQUIRETLS")

# The settings of the server and its answers; the settings of the client; the class of the error, and its
# reply or reason.
HOSTILE: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any], str, str]] = {
    "in clear only": (
        {"clear": ("STARTTLS", "REQUIRETLS"), "secure": ("AUTH PLAIN",)},
        {},
        {},
        "ExtensionUnavailable",
        "REQUIRETLS is needed and not offered",
    ),
    "in clear, and EHLO refused inside TLS": (
        {"clear": ("STARTTLS", "REQUIRETLS")},
        {"EHLO/TLS": "502 5.5.1 no"},
        {},
        "PermanentFailure",
        "EHLO client.example.org",
    ),
    "in clear, and STARTTLS refused": (
        {"clear": ("STARTTLS", "REQUIRETLS")},
        {"STARTTLS": "454 4.7.0 not now"},
        {"tls": TLSPolicy.OPPORTUNISTIC, "credentials": None},
        "ExtensionUnavailable",
        "REQUIRETLS is needed and not offered",
    ),
    "other words with it": (
        {"secure": ("AUTH PLAIN", "XREQUIRETLS", "REQUIRETLS-NOT", "X REQUIRETLS")},
        {},
        {},
        "ExtensionUnavailable",
        "REQUIRETLS is needed and not offered",
    ),
    "dropped after AUTH": (
        {"secure": OFFERED},
        {"MAIL": "555 5.5.4 REQUIRETLS is not supported", "RCPT": "503 no", "DATA": "503 no"},
        {},
        "AllRecipientsRefused",
        "555 5.5.4 REQUIRETLS is not supported",
    ),
    "dropped after MAIL": (
        {"secure": OFFERED},
        {"RCPT": "550 5.7.30 REQUIRETLS support required", "DATA": "503 no"},
        {},
        "AllRecipientsRefused",
        "550 5.7.30 REQUIRETLS support required",
    ),
    "dropped at the content": (
        {"secure": OFFERED},
        {"DATA": "554 5.7.30 REQUIRETLS support required"},
        {},
        "AllRecipientsRefused",
        "554 5.7.30 REQUIRETLS support required",
    ),
}


@pytest.mark.parametrize("way", HOSTILE)
def test_the_content_is_never_sent_without_it(net: Net, way: str) -> None:
    offers, answers, settings, kind, reason = HOSTILE[way]
    server = net.server(answers, **offers)
    error: SendmailError = net.send(server, envelope=NEEDED, **settings).error
    assert kind in [each.__name__ for each in type(error).__mro__]
    assert reason in str(error)
    assert not error.in_doubt
    assert net.endpoint.attempts == 1
    assert not server.messages
    assert [line for line in server.lines if line.startswith("MAIL")] in (
        [],
        ["MAIL FROM:<a@example.org> REQUIRETLS"],
        # Parameters that are not needed were left out; this one is not.
        ["MAIL FROM:<a@example.org> REQUIRETLS"] * 2,
    )


@pytest.mark.parametrize("reply", ["555 5.5.4 no REQUIRETLS", "501 5.5.4 no", "550 5.7.30 no"])
def test_a_refusal_of_one_message_is_none_of_the_others(net: Net, reply: str) -> None:
    def mail(_server: ScriptedServer, line: str) -> str:
        return reply if "REQUIRETLS" in line else "250 ok"

    server = net.server({"MAIL": mail}, secure=OFFERED[1:])
    messages = [(envelope, BODY) for envelope in (PLAIN, NEEDED, PLAIN, NEEDED)]
    reports = net.many(messages, server).get()
    assert [bool(each.accepted) for each in reports] == [True, False, True, False]
    assert len(server.messages) == 2


def test_an_extension_that_is_ignored_is_not_offered(net: Net) -> None:
    server = net.server(secure=OFFERED)
    (report,) = net.many([(NEEDED, BODY)], server, ignore_extensions=["REQUIRETLS"]).get()
    assert "REQUIRETLS is needed and not offered" in str(report.error)
    assert not [line for line in server.lines if line.startswith("MAIL")]
