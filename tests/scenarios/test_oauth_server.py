"""Tokens of a real authorization server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.scenarios.authorization_server import AuthorizationServer
from twisted_sendmail import Credentials, SubmissionServer, TLSTrust, submit
from twisted_sendmail.oauth import (
    ClientCredentials,
    GrantRefused,
    RefreshTokenFile,
    RefreshTokens,
    TokenEndpoint,
)
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
    for secret, code in ((SECRET, None), ("wrong", "invalid_client")):
        endpoint = TokenEndpoint(reactor, authlib.token_url, "mailer", client_secret=secret)
        tokens = ClientCredentials(endpoint, "mail")
        if code is None:
            assert (await tokens.get()).value.reveal()
        else:
            with pytest.raises(GrantRefused, match=code):
                await tokens.get()
