"""A relay that logs in with OAuth."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.daemon.conftest import Folder, Stage
from tests.daemon.test_service import port_of, send
from tests.token_endpoint import REFRESH, SECRET, Endpoint, listen
from twisted_sendmail import ServerTLS
from twisted_sendmail.testing import Authority, LoopbackServer


class Login:
    """A token endpoint, a next hop that accepts its second token, and the keys of the relay."""

    def __init__(self, folder: Folder, endpoint: Endpoint, url: str, hop: LoopbackServer) -> None:
        self.endpoint = endpoint
        self.hop = hop
        self.file = folder.write("refresh", f"{REFRESH}\n", 0o600)
        folder.write("client-secret", f"{SECRET}\n", 0o600)
        self.text = f"""
            queue = "queue"
            listen = ["tcp:127.0.0.1:0"]
            [[smarthost]]
            url = "smtp+starttls://jane@127.0.0.1:{hop.port}"
            ca-file = "{hop.ca_file}"
            oauth-token-url = "{url}"
            oauth-client-id = "mailer"
            oauth-client-secret-file = "client-secret"
        """


@pytest_twisted.async_yield_fixture
async def login(folder: Folder, reactor: Any) -> AsyncIterator[Login]:
    endpoint = Endpoint()
    port = listen(reactor, endpoint)
    async with LoopbackServer(reactor, tokens={"jane": "access-2"}) as hop:
        yield Login(folder, endpoint, f"http://127.0.0.1:{port.getHost().port}/token", hop)
    await port.stopListening()


@pytest.mark.parametrize(
    "more", ["", 'oauth-refresh-token-file = "refresh"'], ids=["client", "person"]
)
@ensureDeferred
async def test_a_relay_delivers_with_a_token_that_it_refreshed(
    stage: Stage, login: Login, more: str
) -> None:
    login.endpoint.rotates = True
    daemon = await stage.started(login.text + more)
    await deferToThread(send, port_of(daemon))
    (message,) = await login.hop.wait_for(1)
    assert message.user == "jane"
    assert len(login.endpoint.forms) == 2
    if more:
        assert login.file.read_text() == f"{REFRESH}-2\n"


@ensureDeferred
async def test_a_relay_has_its_own_trust_and_commands_and_sends_the_secret_in_a_header(
    stage: Stage, login: Login, folder: Folder, reactor: Any
) -> None:
    authority = Authority()
    pem = folder.write("server.pem", authority.issue().decode(), 0o600)
    folder.write("oauth-ca.pem", authority.pem.decode())
    port = listen(reactor, login.endpoint, ServerTLS(pem))
    login.endpoint.basic = login.endpoint.rotates = True
    url = f'oauth-token-url = "https://localhost:{port.getHost().port}/token"'
    daemon = await stage.started(
        re.sub("oauth-token-url = .*", url, login.text)
        + f"""
            oauth-auth-method = "client_secret_basic"
            oauth-ca-file = "oauth-ca.pem"
            oauth-refresh-token-command = ["cat", "{login.file}"]
            oauth-store-command = ["dd", "status=none", "of={login.file}"]
        """
    )
    await deferToThread(send, port_of(daemon))
    await login.hop.wait_for(1)
    assert login.file.read_text() == f"{REFRESH}-2\n"
    await port.stopListening()


@ensureDeferred
async def test_a_revoked_grant_is_an_alarm_of_the_route(stage: Stage, login: Login) -> None:
    events: list[LogEvent] = []
    keep: Any = events.append
    globalLogPublisher.addObserver(keep)
    login.endpoint.refresh = "another"
    daemon = await stage.started(login.text + 'oauth-refresh-token-file = "refresh"')
    await deferToThread(send, port_of(daemon))

    def lines() -> list[str]:
        return [line for line in map(formatEvent, events) if "refuses the credentials" in line]

    await stage.until(lines)
    globalLogPublisher.removeObserver(keep)
    assert "its mail waits: " in lines()[0]
    assert "invalid_grant: no such token: <hidden>" in lines()[0]
    assert not any(REFRESH in formatEvent(event) + repr(event) for event in events)
    assert not login.hop.messages


def test_a_configuration_without_the_extra_names_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "treq", None)
    folder.write("refresh", f"{REFRESH}\n", 0o600)
    said = folder.complaint(
        """
        queue = "queue"
        listen = ["tcp:127.0.0.1:0"]
        [[smarthost]]
        url = "smtps://jane@h"
        oauth-provider = "google"
        oauth-client-id = "c"
        oauth-refresh-token-file = "refresh"
        """
    )
    assert said.endswith("install it with: pip install 'twisted_sendmail[oauth]'")
