"""`twisted-sendmail login` stores a refresh token, and `check` and `send` use it."""

from __future__ import annotations

import re
import signal
import stat
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest_twisted
import treq
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.server import NOT_DONE_YET

from tests.cli.shell import Shell
from tests.cli.test_accounts import write_accounts
from tests.token_endpoint import REFRESH, SECRET, Endpoint, answer, listen
from twisted_sendmail import ServerTLS
from twisted_sendmail.testing import Authority, LoopbackServer


async def until(reactor: Any, condition: Callable[[], object]) -> None:
    end = reactor.seconds() + 60
    while not condition():
        assert reactor.seconds() < end
        await deferLater(reactor, 0.01)


ENTER = (
    "Open this address in a browser, on any machine: https://login.example.org/device\n"
    "and enter this code within 15 min: ABCD-EFGH\n"
)


class Provider:
    """An authorization server with TLS, and the options and keys for its client."""

    def __init__(self, reactor: Any, shell: Shell) -> None:
        self.server = Endpoint()
        self.server.basic = True
        self.server.device.answer["interval"] = 1
        authority = Authority()
        pem = shell.folder / "server.pem"
        pem.write_bytes(authority.issue())
        shell.write("oauth-ca.pem", authority.pem)
        shell.write("client", SECRET.encode(), 0o600)
        self.port = listen(reactor, self.server, ServerTLS(pem))
        self.url = f"https://localhost:{self.port.getHost().port}"
        self.settings = {
            "oauth-token-url": f"{self.url}/token",
            "oauth-client-id": "mailer",
            "oauth-client-secret-file": "client",
            "oauth-auth-method": "client_secret_basic",
            "oauth-ca-file": "oauth-ca.pem",
        }

    def options(self) -> list[str]:
        return [f"--{name}={value}" for name, value in self.settings.items()]


@pytest_twisted.async_yield_fixture
async def provider(reactor: Any, shell: Shell) -> AsyncIterator[Provider]:
    made = Provider(reactor, shell)
    yield made
    made.port.stopListening()
    await deferLater(reactor, 0.01)


@ensureDeferred
async def test_a_url_has_the_settings_of_oauth(
    reactor: Any, shell: Shell, provider: Provider
) -> None:
    async with LoopbackServer(reactor, tokens={"alice": "access-2"}) as server:
        query = urlencode({**provider.settings, "oauth-refresh-token-file": "refresh token"})
        url = f"{server.url.replace('://', '://alice@')}?{query}"
        login = await shell.run("login", url, f"--oauth-device-url={provider.url}/device")
        assert (login.status, login.err) == (0, ENTER)
        assert login.out == "logged in; the refresh token is in refresh token\n"
        file = shell.folder / "refresh token"
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (f"{REFRESH}\n", 0o600)
        words = ["send", f"--ca-file={server.ca_file}", shell.message]
        done = await shell.run(*words, TWISTED_SENDMAIL_SERVER=url)
        (received,) = server.messages
    assert (done.status, done.err, received.user) == (0, "", "alice")


@ensureDeferred
async def test_options_have_the_settings_and_commands_hold_the_token(
    reactor: Any, shell: Shell, provider: Provider
) -> None:
    save = "--oauth-store-command=cat > kept"
    device = f"--oauth-device-url={provider.url}/device"
    login = await shell.run("login", *provider.options(), device, save)
    assert (login.status, login.out) == (
        0,
        "logged in; the refresh token was given to the command\n",
    )
    assert (shell.folder / "kept").read_text() == f"{REFRESH}\n"
    provider.server.rotates = True
    async with LoopbackServer(reactor, tokens={"alice": "access-2"}) as server:
        url = server.url.replace("://", "://alice@")
        load = "--oauth-refresh-token-command=cat kept"
        words = [*provider.options(), load, save, f"--ca-file={server.ca_file}"]
        done = await shell.run("check", url, *words)
    assert (done.status, done.err, "AUTH succeeded" in done.out) == (0, "", True)
    assert (shell.folder / "kept").read_text() == f"{REFRESH}-2\n"


@ensureDeferred
async def test_an_account_logs_in_with_a_browser(
    reactor: Any, shell: Shell, provider: Provider
) -> None:
    provider.server.fault = lambda request: answer(
        request, 200, access_token="access-1", refresh_token=REFRESH
    )
    keys = "\n".join(
        f'{name} = "../../{value}"' if name.endswith("-file") else f'{name} = "{value}"'
        for name, value in provider.settings.items()
    )
    text = f"""
        [account.work]
        url = "smtps://alice%40example.org@mail.example.org"
        {keys}
        oauth-authorization-url = "https://login.example.org/authorize"
        oauth-refresh-token-file = "../../refresh"
    """
    write_accounts(shell, text)
    # Twisted keeps a file in reserve while it listens, and leaves it open.
    shell.env["PYTHONWARNINGS"] = "error,ignore::ResourceWarning"
    process = shell.start("login")
    stderr: Any = process.stderr
    lines = await deferToThread(lambda: [stderr.readline(), stderr.readline()])
    assert lines[0] == b"Open this address in a browser of this machine within 15 min:\n"
    asked = dict(parse_qsl(urlsplit(lines[1].decode().strip()).query))
    assert (asked["client_id"], asked["login_hint"]) == ("mailer", "alice@example.org")
    back = asked["redirect_uri"].replace("localhost", "127.0.0.1")
    await treq.get(back, params={"code": "c", "state": asked["state"]}, persistent=False)
    out, err = await deferToThread(process.communicate)
    assert (process.returncode, err) == (0, b"")
    assert re.fullmatch(rb"logged in; the refresh token is in /\S+/refresh\n", out)
    assert (shell.folder / "refresh").read_text() == f"{REFRESH}\n"


@ensureDeferred
async def test_a_login_that_is_refused_or_interrupted_stores_nothing(
    shell: Shell, provider: Provider
) -> None:
    file = "--oauth-refresh-token-file=refresh"
    words = [*provider.options(), f"--oauth-device-url={provider.url}/device", file]
    provider.server.device.errors = ["authorization_pending", "access_denied"]
    done = await shell.run("login", *words)
    assert (done.status, done.out) == (77, "")
    assert "access_denied; log in again, and allow the access" in done.err
    provider.server.device.errors = ["authorization_pending"] * 99
    process = shell.start("login", *words[:-1], f"{file[:-7]}{shell.folder}/refresh")
    process.terminate()
    out, _ = await deferToThread(process.communicate)
    assert (process.returncode != 0, out) == (True, b"")
    assert not (shell.folder / "refresh").exists()


@ensureDeferred
async def test_an_interrupted_command_still_stores_a_new_refresh_token(
    reactor: Any, shell: Shell, provider: Provider
) -> None:
    """The server may have given it already, and the old one is not valid then."""
    shell.write("refresh", REFRESH.encode(), 0o600)
    requests: list[Any] = []

    def keep(request: Any) -> Any:
        requests.append(request)
        return NOT_DONE_YET

    provider.server.fault = keep
    for name in ("oauth-ca-file", "oauth-client-secret-file"):
        provider.settings[name] = str(shell.folder / provider.settings[name])
    words = [*provider.options(), f"--oauth-refresh-token-file={shell.folder}/refresh"]
    async with LoopbackServer(reactor, tokens={"alice": "new"}) as server:
        url = server.url.replace("://", "://alice@")
        words = [f"--server={url}", *words, f"--ca-file={server.ca_file}", shell.message]
        process = shell.start("send", *words)
        await until(reactor, lambda: requests)
        process.send_signal(signal.SIGINT)
        # The command ends its session with the server when it has the signal.
        await until(reactor, lambda: server.sessions[-1].closed)
        (request,) = requests
        request.write(answer(request, 200, access_token="new", refresh_token="rotated"))
        request.finish()
        out, err = await deferToThread(process.communicate)
        assert (process.returncode, out, server.messages) == (130, b"", []), err
    assert (shell.folder / "refresh").read_text() == "rotated\n"
