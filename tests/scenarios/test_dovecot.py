"""Tokens of a real authorization server at a real submission server, which asks about each token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.scenarios.authorization_server import AuthorizationServer
from tests.scenarios.dovecot import Dovecot, why_not
from tests.scenarios.peers import require
from tests.scenarios.test_oauth_server import MESSAGE, SECRET, endpoint_of
from twisted_sendmail import AuthenticationFailed, Credentials, SubmissionServer, TLSTrust, submit
from twisted_sendmail.oauth import GrantRefused, RefreshTokenFile, RefreshTokens
from twisted_sendmail.testing import LoopbackServer


class Servers:
    """An authorization server, the submission server that trusts it, and the next hop."""

    def __init__(self, authlib: AuthorizationServer, dovecot: Dovecot, hop: LoopbackServer) -> None:
        self.authlib, self.dovecot, self.hop = authlib, dovecot, hop

    def server(self, credentials: Credentials) -> SubmissionServer:
        return SubmissionServer.from_url(
            self.dovecot.url, credentials=credentials, trust=TLSTrust(ca_file=self.dovecot.ca_file)
        )


@pytest_twisted.async_yield_fixture
async def servers(reactor: Any, tmp_path: Path) -> AsyncIterator[Servers]:
    require("Dovecot", why_not())
    authlib = AuthorizationServer(tmp_path)
    async with LoopbackServer(reactor, lenient=True) as hop:
        dovecot = await deferToThread(Dovecot, authlib, SECRET, hop.port)
        yield Servers(authlib, dovecot, hop)
        await deferToThread(dovecot.stop)
    await deferToThread(authlib.stop)


def granted(reactor: Any, servers: Servers, folder: Path) -> RefreshTokens:
    file = folder / "refresh"
    file.write_text("granted\n")
    file.chmod(0o600)
    endpoint = endpoint_of(reactor, servers.authlib)
    return RefreshTokens(endpoint, RefreshTokenFile(reactor, file), "mail")


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
@ensureDeferred
async def test_dovecot_accepts_a_token_and_a_new_one_for_an_expired_one(
    reactor: Any, servers: Servers, tmp_path: Path, mechanism: str
) -> None:
    tokens = granted(reactor, servers, tmp_path)
    jane = servers.server(Credentials("jane", token=tokens, mechanisms=[mechanism]))
    for count, expire in ((1, False), (1, False), (2, True)):
        if expire:
            await deferToThread(servers.authlib.expire)
        await submit(reactor, jane, MESSAGE)
        assert await deferToThread(servers.authlib.count) == count
    assert len(servers.hop.messages) == 3
    # The token is jane's, also after it was refreshed, once.
    eve = servers.server(Credentials("eve", token=tokens, mechanisms=[mechanism]))
    with pytest.raises(AuthenticationFailed, match="535"):
        await submit(reactor, eve, MESSAGE)
    assert await deferToThread(servers.authlib.count) == 3
    # Nothing helps after the grant was revoked.
    await deferToThread(servers.authlib.expire)
    await deferToThread(servers.authlib.revoke_all)
    with pytest.raises(GrantRefused, match="invalid_grant"):
        await submit(reactor, jane, MESSAGE)
    assert await deferToThread(servers.authlib.count) == 3
    assert len(servers.hop.messages) == 3
