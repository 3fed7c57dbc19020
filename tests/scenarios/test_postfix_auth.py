"""AUTH against a real Postfix with Cyrus SASL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from tests.scenarios.postfix_configuration import PASSWORD, USER
from twisted_sendmail import (
    AllRecipientsRefused,
    AuthenticationFailed,
    Credentials,
    PermanentFailure,
    UnsupportedMechanism,
    submit,
)

if TYPE_CHECKING:
    from tests.scenarios.postfix import Postfix

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: auth\r\n\r\nhello\r\n"


@ensureDeferred
@pytest.mark.parametrize(
    ("service", "mechanism"),
    [
        ("submission", "PLAIN"),
        ("submission", "LOGIN"),
        ("submissions", "PLAIN"),
        ("submissions", "LOGIN"),
        ("scram", "SCRAM-SHA-1"),
        ("scram", "SCRAM-SHA-256"),
        ("scram", "CRAM-MD5"),
    ],
)
async def test_postfix_knows_who_we_are(
    reactor: Any, postfix: Postfix, service: str, mechanism: str
) -> None:
    server = postfix.server(service, credentials=postfix.credentials(mechanism))
    report = await submit(reactor, server, MESSAGE)
    line = await postfix.line(reactor, f"{report.queue_id}: client=")
    assert line.endswith(f"sasl_method={mechanism}, sasl_username={USER}")


@ensureDeferred
@pytest.mark.parametrize(("service", "best"), [("submission", "PLAIN"), ("scram", "SCRAM-SHA-256")])
async def test_the_best_mechanism_is_taken_when_none_is_asked_for(
    reactor: Any, postfix: Postfix, service: str, best: str
) -> None:
    report = await submit(reactor, postfix.server(service), MESSAGE)
    assert f"sasl_method={best}," in await postfix.line(reactor, f"{report.queue_id}: client=")


@ensureDeferred
@pytest.mark.parametrize(
    ("service", "mechanism"),
    [
        ("submission", "PLAIN"),
        ("submission", "LOGIN"),
        ("scram", "SCRAM-SHA-256"),
        ("scram", "CRAM-MD5"),
    ],
)
async def test_a_wrong_password_is_tried_once(
    reactor: Any, postfix: Postfix, service: str, mechanism: str
) -> None:
    since = len(postfix.log)
    wrong = postfix.credentials(mechanism, password="open-sesame")
    with pytest.raises(AuthenticationFailed) as caught:
        await submit(reactor, postfix.server(service, credentials=wrong), MESSAGE)
    error = caught.value
    assert error.reply is not None
    assert (error.reply.code, error.phase, error.transient) == (535, "AUTH", False)
    assert "open-sesame" not in f"{error} {error!r} {error.transcript}"
    end = await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    assert "auth=0/1 quit=1" in end
    assert len(postfix.logged("authentication failed", since=since)) == 1


@ensureDeferred
async def test_the_password_is_in_no_transcript(reactor: Any, postfix: Postfix) -> None:
    dialogue: list[str] = []
    server = postfix.server(credentials=postfix.credentials("LOGIN"), watch=dialogue.append)
    report = await submit(reactor, server, MESSAGE)
    assert dialogue == list(report.transcript or ())
    assert "C: AUTH LOGIN ****" in dialogue or "C: AUTH LOGIN" in dialogue
    assert PASSWORD not in "\n".join(dialogue)
    assert "d29uZGVy" not in "\n".join(dialogue)  # how its base64 begins


@ensureDeferred
async def test_a_mechanism_that_is_not_offered_is_named_and_nothing_is_sent(
    reactor: Any, postfix: Postfix
) -> None:
    since = len(postfix.log)
    server = postfix.server(credentials=Credentials(USER, token="ya29.token"))
    with pytest.raises(UnsupportedMechanism, match="PLAIN"):
        await submit(reactor, server, MESSAGE)
    end = await postfix.line(reactor, "submission/smtpd", "disconnect from", since=since)
    assert "auth=" not in end


@ensureDeferred
async def test_credentials_for_a_server_without_auth_do_not_go_unauthenticated(
    reactor: Any, postfix: Postfix
) -> None:
    since = len(postfix.log)
    server = postfix.server("no_auth", credentials=postfix.credentials())
    with pytest.raises(UnsupportedMechanism):
        await submit(reactor, server, MESSAGE)
    end = await postfix.line(reactor, "no_auth/smtpd", "disconnect from", since=since)
    assert "mail=" not in end


@ensureDeferred
async def test_without_credentials_a_server_that_wants_them_refuses(
    reactor: Any, postfix: Postfix
) -> None:
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(reactor, postfix.server(credentials=None), MESSAGE)
    assert isinstance(caught.value, PermanentFailure)
    assert caught.value.reply is not None
    assert caught.value.reply.code == 554


@ensureDeferred
async def test_a_password_may_come_from_a_coroutine(reactor: Any, postfix: Postfix) -> None:
    async def fetch() -> str:
        return PASSWORD

    report = await submit(reactor, postfix.server(credentials=Credentials(USER, fetch)), MESSAGE)
    assert len(report.accepted) == 1
