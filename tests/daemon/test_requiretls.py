"""REQUIRETLS (RFC 8689) from a client through the relay to its smarthost, and back in the report."""

from __future__ import annotations

import smtplib
import ssl
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.daemon.conftest import PASSWORD, Stage
from tests.daemon.test_service import port_of
from tests.names import Attempted, Event, SetAside, without
from twisted_sendmail.testing import LoopbackServer

LISTENER = """
    [[listen]]
    endpoint = "tcp:127.0.0.1:0"
    certificate = "server.pem"
    {keys}
"""
CONTENT = b"From: alice@example.org\r\nSubject: x\r\n\r\nthe secret\r\n"


async def started(stage: Stage, keys: str) -> int:
    text = stage.text(more=LISTENER.format(keys=keys)).replace('listen = ["tcp:127.0.0.1:0"]', "")
    return port_of(await stage.started(text))


def context_of(stage: Stage) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(stage.folder.path / "ca.pem"))
    context.check_hostname = False
    return context


def submit(stage: Stage, port: int) -> Any:
    with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=30) as client:
        client.starttls(context=context_of(stage))
        client.login("jane", PASSWORD)
        assert client.has_extn("REQUIRETLS")
        to = ["bob@example.net"]
        client.sendmail("alice@example.org", to, CONTENT, ["REQUIRETLS"])


@ensureDeferred
async def test_it_reaches_the_smarthost_inside_tls(stage: Stage, hop: LoopbackServer) -> None:
    port = await started(stage, 'accounts = "accounts"')
    await deferToThread(submit, stage, port)
    (message,) = await hop.wait_for(1)
    assert message.parameters.require_tls
    assert message.tls is not None


@ensureDeferred
async def test_a_smarthost_without_it_gets_neither_the_message_nor_the_report(
    stage: Stage, hop: LoopbackServer
) -> None:
    hop.set_faults(without("REQUIRETLS"))
    port = await started(stage, 'accounts = "accounts"')
    events: list[Event] = []
    stage.daemons[0].relay.observers.append(events.append)
    await deferToThread(submit, stage, port)
    await stage.until(lambda: len([e for e in events if isinstance(e, Attempted)]) == 2)
    attempts = [each for each in events if isinstance(each, Attempted)]
    assert [(each.dsn, each.status) for each in attempts] == [("5.7.30", "bounced")] * 2
    await stage.until(lambda: isinstance(events[-1], SetAside))
    assert hop.messages == []


@ensureDeferred
@pytest.mark.parametrize(
    ("keys", "refusal"),
    [
        (
            'accounts = "accounts"\ntrusted = []',
            (530, b"5.7.0 Encryption is required: send STARTTLS first"),
        ),
        ('trusted = ["127.0.0.1"]', (555, b"5.5.4 REQUIRETLS is not supported here")),
    ],
)
async def test_in_clear_it_is_neither_offered_nor_accepted(
    stage: Stage, keys: str, refusal: tuple[int, bytes]
) -> None:
    port = await started(stage, keys)

    def session() -> None:
        with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=30) as client:
            client.ehlo()
            assert client.has_extn("STARTTLS")
            assert not client.has_extn("REQUIRETLS")
            assert client.docmd("MAIL", "FROM:<a@example.org> REQUIRETLS") == refusal

    await deferToThread(session)
