"""Tokens of a real authorization server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.scenarios.authorization_server import AuthorizationServer
from tests.waiting import until
from twisted_sendmail import Credentials, SubmissionServer, TLSTrust, oauth, submit
from twisted_sendmail.oauth import (
    ClientCredentials,
    GrantRefused,
    RefreshTokenFile,
    RefreshTokens,
    TokenEndpoint,
    TokenEndpointUnavailable,
)
from twisted_sendmail.oauth_login import DeviceTokens, LoginRequest
from twisted_sendmail.testing import LoopbackServer

SECRET = "kein-Wort-davon-42"
MESSAGE = b"From: jane@example.org\r\nTo: bob@example.net\r\nSubject: hi\r\n\r\nHi.\r\n"


@pytest.fixture
def authlib(tmp_path: Path) -> Iterator[AuthorizationServer]:
    server = AuthorizationServer(tmp_path)
    yield server
    server.stop()


@ensureDeferred
async def test_a_refresh_token_is_exchanged_until_the_grant_is_revoked(
    authlib: AuthorizationServer, tmp_path: Path, reactor: Any
) -> None:
    """Each refresh token is good for one use, so each new one was stored."""
    file = tmp_path / "refresh"
    file.write_text("granted\n")
    file.chmod(0o600)
    endpoint = TokenEndpoint(reactor, authlib.token_url, "mailer", client_secret=SECRET)
    tokens = RefreshTokens(endpoint, RefreshTokenFile(reactor, file), "mail")
    seen = {file.read_text()}
    for _ in range(3):
        token = await tokens.get(force_refresh=True)
        assert token.expires_at == pytest.approx(reactor.seconds() + 3600, abs=600)
        seen |= {file.read_text(), token.value.reveal()}
    assert len(seen) == 7
    # A process that starts now continues with the file.
    again = RefreshTokens(endpoint, RefreshTokenFile(reactor, file))
    fresh = (await again.get()).value.reveal()
    async with LoopbackServer(reactor, tokens={"jane": fresh}) as server:
        next_hop = SubmissionServer.from_url(
            server.url,
            credentials=Credentials("jane", token=again),
            trust=TLSTrust(ca_file=server.ca_file),
        )
        await submit(reactor, next_hop, MESSAGE)
        assert len(server.messages) == 1
    await deferToThread(authlib.revoke_all)
    with pytest.raises(GrantRefused, match="invalid_grant") as caught:
        await again.get(force_refresh=True)
    assert file.read_text().strip() not in str(caught.value)


@ensureDeferred
async def test_a_client_gets_a_token_for_itself_by_its_secret(
    authlib: AuthorizationServer, reactor: Any
) -> None:
    for secret, code, method in (
        (SECRET, None, "client_secret_post"),
        (SECRET, None, "client_secret_basic"),
        ("wrong", "invalid_client", "client_secret_post"),
        ("wrong", "invalid_client", "client_secret_basic"),
    ):
        endpoint = TokenEndpoint(
            reactor, authlib.token_url, "mailer", client_secret=secret, auth_method=method
        )
        tokens = ClientCredentials(endpoint, "mail")
        if code is None:
            assert (await tokens.get()).value.reveal()
        else:
            with pytest.raises(GrantRefused, match=code):
                await tokens.get()


def endpoint_of(reactor: Any, server: AuthorizationServer) -> TokenEndpoint:
    return TokenEndpoint(reactor, server.token_url, "mailer", client_secret=SECRET)


@ensureDeferred
async def test_a_code_is_approved_or_denied(
    authlib: AuthorizationServer, tmp_path: Path, reactor: Any
) -> None:
    """The server asks for one request a second; the first comes before the decision."""
    for approve in (True, False):
        store = RefreshTokenFile(reactor, tmp_path / f"refresh-{approve}")
        shown: list[LoginRequest] = []
        tokens = DeviceTokens(
            endpoint_of(reactor, authlib),
            store,
            f"{authlib.url}/device",
            shown.append,
            login_scope="mail",
        )
        login = tokens.log_in()
        await until(reactor, partial(len, shown))
        await deferToThread(authlib.decide, shown[0].code, approve=approve)
        if approve:
            first = (await login).value.reveal()
            again = RefreshTokens(endpoint_of(reactor, authlib), store)
            assert (await again.get()).value.reveal() != first
        else:
            with pytest.raises(GrantRefused, match="access_denied"):
                await login


@pytest.mark.parametrize("skew", ["-2d", "+2d"])
@ensureDeferred
async def test_a_server_with_another_time_gives_tokens_that_are_kept(
    tmp_path: Path, reactor: Any, skew: str
) -> None:
    server = AuthorizationServer(tmp_path, skew=skew)
    try:
        tokens = ClientCredentials(endpoint_of(reactor, server), "mail")
        first = await tokens.get()
        assert first.expires_at is not None
        assert reactor.seconds() + 60 < first.expires_at < reactor.seconds() + 11 * 86400
        assert (await tokens.get()).value.reveal() == first.value.reveal()
        assert server.count() == 1
    finally:
        server.stop()


@ensureDeferred
async def test_a_slow_server_is_asked_again_and_a_dead_one_reported(
    authlib: AuthorizationServer, reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = ClientCredentials(endpoint_of(reactor, authlib), "mail")
    authlib.delay(2)
    monkeypatch.setattr(oauth, "REQUEST_TIMEOUT", 0.2)
    with pytest.raises(TokenEndpointUnavailable, match="no answer within"):
        await tokens.get()
    authlib.delay(0)
    monkeypatch.setattr(oauth, "REQUEST_TIMEOUT", 30.0)
    assert (await tokens.get()).value.reveal()
    authlib.stop()
    with pytest.raises(TokenEndpointUnavailable, match=r"no token from http://127\.0\.0\.1:"):
        await ClientCredentials(endpoint_of(reactor, authlib)).get()
