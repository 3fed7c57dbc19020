"""Tokens of a real authorization server at a real submission server, which asks about each token."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from tests.names import read_configuration
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


# -- the page ---------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "log-in-with-oauth.md"


def blocks(language: str) -> list[str]:
    text = PAGE.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Home:
    """The home of a person who follows the page, with the test's servers instead of the provider's."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self._servers = servers
        self.folder = folder / "home"
        self.accounts = self.folder / ".config/twisted-sendmail"
        self.accounts.mkdir(parents=True)
        for place in (self.folder, self.accounts):
            (place / "client-secret").write_text(f"{SECRET}\n")
            (place / "client-secret").chmod(0o600)
        (self.folder / "message.eml").write_bytes(MESSAGE)

    def moved(self, text: str) -> str:
        """*text* with the addresses of the test's servers."""
        authlib = self._servers.authlib.url
        host = self._servers.dovecot.url.partition("://")[2]
        settings = [
            f'oauth-token-url = "{authlib}/token"',
            'oauth-client-secret-file = "client-secret"',
            'oauth-scope = "mail"',
        ]
        if "[account" in text:
            settings.append(f'oauth-device-url = "{authlib}/device"')
        text = text.replace('oauth-provider = "microsoft"', "\n".join(settings))
        options = (
            f"--oauth-token-url {authlib}/token --oauth-device-url {authlib}/device "
            "--oauth-client-secret-file client-secret --oauth-scope mail"
        )
        text = text.replace("--oauth-provider microsoft", options)
        text = text.replace("sudo -u twisted_sendmail ", "").replace(
            "/var/lib/twisted_sendmail/", ""
        )
        text = text.replace("11111111-2222-3333-4444-555555555555", "mailer")
        text = text.replace("jane%40example.org@", "jane@")
        text = re.sub(r"smtp\.office365\.com|mail\.example\.org", host, text)
        return text.replace("https://login.example.org", authlib)

    def run(self, block: str) -> str:
        """Run the commands of *block*, and approve each login; return their output."""
        path = f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["/bin/sh", "-eu", "-c", self.moved(block)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={
                "PATH": path,
                "HOME": str(self.folder),
                "LANG": "C.UTF-8",
                "SSL_CERT_FILE": str(self._servers.dovecot.ca_file),
            },
        )
        while process.poll() is None:
            self._servers.authlib.approve_all()
            time.sleep(0.1)
        out = process.communicate()[0].decode()
        assert process.returncode == 0, out
        return out


@ensureDeferred
async def test_a_person_logs_in_checks_and_sends_as_the_page_says(
    reactor: Any, servers: Servers, tmp_path: Path
) -> None:
    home = Home(servers, tmp_path)
    with_file, with_commands, with_program, smarthost = blocks("toml")
    _, account, url, programs, relay = blocks("sh")
    (home.accounts / "accounts.toml").write_text(home.moved(with_file))
    out = await deferToThread(home.run, account)
    assert "Open this address in a browser, on any machine: https://login.example.org/device" in out
    assert f"logged in; the refresh token is in {home.accounts}/refresh-token\n" in out
    assert "AUTH succeeded" in out
    assert (home.accounts / "refresh-token").stat().st_mode & 0o777 == 0o600
    out = await deferToThread(home.run, url)
    assert ("AUTH succeeded" in out, len(servers.hop.messages)) == (True, 2)
    assert "logged in" in await deferToThread(home.run, relay)
    configuration = home.folder / "relay.toml"
    configuration.write_text(f'queue = "queue"\nlisten = ["tcp:0"]\n{home.moved(smarthost)}')
    read_configuration(configuration, Clock())
    # In place of the password manager.
    program = home.folder / "bin" / "pass"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncd {home.folder}\n[ $1 = show ] && cat kept || cat > kept\n")
    program.chmod(0o755)
    text = home.moved(with_commands) + 'from = "jane@example.org"\n'
    (home.accounts / "accounts.toml").write_text(text)
    out = await deferToThread(home.run, account)
    assert ("was given to the command" in out, len(servers.hop.messages)) == (True, 3)
    # In place of a program that logs in by itself.
    token = (await granted(reactor, servers, tmp_path).get()).value.reveal()
    (home.folder / "token").write_text(f"{token}\n")
    (home.folder / "token").chmod(0o600)
    (program.parent / "oama").write_text(f"#!/bin/sh\ncat {home.folder}/token\n")
    (program.parent / "oama").chmod(0o755)
    out = await deferToThread(home.run, programs)
    assert out.count("AUTH succeeded") == 3
    (home.accounts / "accounts.toml").write_text(home.moved(with_program))
    assert "AUTH succeeded" in await deferToThread(home.run, "twisted-sendmail check")
