"""Logins that end with a refresh token, at an authorization server on the loopback interface."""

from __future__ import annotations

import base64
import hashlib
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import pytest_twisted
import treq
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.web.client import ResponseNeverReceived

from tests.token_endpoint import DEVICE_GRANT, REFRESH, SECRET, Endpoint, answer, listen
from twisted_sendmail import InvalidServer
from twisted_sendmail.oauth import (
    GrantRefused,
    OAuthSettings,
    RefreshTokenFile,
    TokenEndpoint,
    TokenEndpointUnavailable,
)
from twisted_sendmail.oauth_login import BrowserTokens, DeviceTokens, LoginRequest, login_tokens
from twisted_sendmail.sasl import CredentialsUnavailable, Secret


class ListeningClock(Clock):
    """A clock that listens on ports of the reactor."""

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self.listenTCP = reactor.listenTCP


class Stage:
    """An authorization server, a client with a clock of its own, and the file for the refresh token."""

    def __init__(self, reactor: Any, folder: Path) -> None:
        self.reactor = reactor
        self.server = Endpoint()
        self.port = listen(reactor, self.server)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        self.file = folder / "refresh"
        self.clock = ListeningClock(reactor)
        self.shown: list[LoginRequest] = []

    def endpoint(self) -> TokenEndpoint:
        made = TokenEndpoint(self.reactor, f"{self.url}/token", "mailer", client_secret=SECRET)
        # Connections are those of the reactor.
        made.reactor = self.clock
        return made

    def device(self) -> DeviceTokens:
        store = RefreshTokenFile(self.reactor, self.file)
        url = f"{self.url}/device"
        return DeviceTokens(self.endpoint(), store, url, self.shown.append, login_scope="mail")

    async def until(self, condition: Callable[[], object]) -> None:
        end = self.reactor.seconds() + 30
        while not condition():
            assert self.reactor.seconds() < end
            await deferLater(self.reactor, 0.002)

    async def polls(self, seconds: float) -> bool:
        """Return True if the client polls after *seconds*, and not one second earlier."""
        before = len(self.server.forms)
        await self.until(lambda: len(self.clock.getDelayedCalls()) > len(self._requests()))
        self.clock.advance(seconds - 1)
        await deferLater(self.reactor, 0.01)
        early = len(self.server.forms) - before
        self.clock.advance(1)
        await self.until(lambda: len(self.server.forms) > before)
        # The time limit of the request is gone when its answer was read.
        await self.until(lambda: not self._requests())
        return early == 0

    def _requests(self) -> list[Any]:
        # A request is cancelled at its time limit.
        calls: list[Any] = list(self.clock.getDelayedCalls())
        return [call for call in calls if call.func.__name__ == "cancel"]


@pytest_twisted.async_yield_fixture
async def stage(reactor: Any, tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(reactor, tmp_path)
    yield made
    made.port.stopListening()
    # Closed connections leave the reactor in the next turns.
    await deferLater(reactor, 0.01)


async def refused(login: Deferred[Any]) -> GrantRefused:
    with pytest.raises(GrantRefused) as caught:
        await login
    return caught.value


@ensureDeferred
async def test_a_login_by_code_polls_as_slowly_as_the_server_asks(stage: Stage) -> None:
    stage.server.device.errors = ["authorization_pending", "slow_down", "authorization_pending"]
    login = stage.device().log_in()
    await stage.until(lambda: stage.shown)
    assert stage.shown == [LoginRequest("https://login.example.org/device", "ABCD-EFGH", "", 900)]
    assert stage.server.device.forms == [
        {"client_id": "mailer", "client_secret": SECRET, "scope": "mail"}
    ]
    assert [await stage.polls(seconds) for seconds in (5, 5, 10, 10)] == [True] * 4
    assert (await login).value.reveal() == "access-0"
    assert stage.server.forms[-1] == {
        "grant_type": DEVICE_GRANT,
        "device_code": "device-1",
        "client_id": "mailer",
        "client_secret": SECRET,
    }
    assert stage.file.read_text() == f"{REFRESH}\n"
    assert stat.S_IMODE(stage.file.stat().st_mode) == 0o600


@ensureDeferred
async def test_a_login_by_code_waits_longer_for_a_server_that_fails(stage: Stage) -> None:
    stage.server.fault = lambda request: answer(request, 503, error="x")
    login = stage.device().log_in()
    await stage.until(lambda: stage.shown)
    assert [await stage.polls(seconds) for seconds in (5, 10, 20, 40, 60, 60)] == [True] * 6
    stage.server.fault = None
    assert await stage.polls(60)
    assert (await login).value.reveal() == "access-0"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("access_denied", "log in again, and allow the access"),
        ("expired_token", "log in again, and enter the code sooner"),
        ("invalid_client", "correct the client, its secret or the scope"),
    ],
)
@ensureDeferred
async def test_a_login_that_is_refused_ends(stage: Stage, error: str, remedy: str) -> None:
    stage.server.device.errors = [error]
    login = stage.device().log_in()
    await stage.polls(5)
    caught = await refused(login)
    assert (caught.code, remedy in str(caught)) == (error, True)
    assert not stage.file.exists()


@ensureDeferred
async def test_a_login_ends_when_the_code_has_expired(stage: Stage) -> None:
    """Though the server does not answer so."""
    stage.server.device.answer["expires_in"] = 9
    stage.server.device.errors = ["authorization_pending"] * 9
    login = stage.device().log_in()
    assert await stage.polls(5)
    stage.clock.advance(5)
    assert (await refused(login)).code == "expired_token"
    assert len(stage.server.forms) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"user_code": 7},
        {"verification_uri": ""},
        {"device_code": None},
        {"expires_in": "soon"},
        {"verification_uri_complete": []},
    ],
    ids=lambda change: next(iter(change)),
)
@ensureDeferred
async def test_an_answer_without_a_code_is_reported(
    stage: Stage, change: dict[str, object]
) -> None:
    stage.server.device.answer |= change
    with pytest.raises(CredentialsUnavailable, match=r"/device: its answer has no code, no addr"):
        await stage.device().log_in()
    assert stage.shown == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"user_code": "A" * 60000}, "code that nobody can enter"),
        ({"user_code": "AB\x1b]0;x\x07"}, "code that nobody can enter"),
        ({"verification_uri": "javascript:alert(1)"}, "not of a web page"),
        ({"verification_uri": "https://a.example/\x1b[2J"}, "not of a web page"),
        ({"verification_uri": "https://[a.example/"}, "not of a web page"),
        ({"verification_uri": "https://a.example/" + "a" * 5000}, "not of a web page"),
        ({"verification_uri_complete": "file:///etc/passwd"}, "not of a web page"),
    ],
)
@ensureDeferred
async def test_a_person_is_shown_nothing_that_is_no_code_and_no_address_of_a_page(
    stage: Stage, change: dict[str, object], why: str
) -> None:
    stage.server.device.answer |= change
    with pytest.raises(TokenEndpointUnavailable, match=why):
        await stage.device().log_in()
    assert stage.shown == []


@pytest.mark.parametrize("life", [900, 1e300])
@ensureDeferred
async def test_an_interval_that_is_too_long_does_not_outlast_the_login(
    stage: Stage, life: float
) -> None:
    stage.server.device.answer |= {"interval": 1e300, "expires_in": life}
    login = stage.device().log_in()
    await stage.until(lambda: stage.shown)
    stage.clock.advance(min(life, 86400))
    assert (await refused(login)).code == "expired_token"


@ensureDeferred
async def test_a_login_that_cannot_begin_names_a_true_remedy(stage: Stage) -> None:
    stage.server.fault = lambda request: answer(request, 404)
    store = RefreshTokenFile(stage.reactor, stage.file)
    for url, remedy in (
        (f"{stage.url}/token", "check the URL"),
        ("http://[::1]:9/", "log in again later"),
    ):
        login = DeviceTokens(stage.endpoint(), store, url, stage.shown.append)
        with pytest.raises(TokenEndpointUnavailable, match=f"; {remedy}$"):
            await login.log_in()


@ensureDeferred
async def test_a_login_without_a_refresh_token_names_the_scope(stage: Stage) -> None:
    stage.server.device.gives_refresh_token = False
    login = stage.device().log_in()
    await stage.polls(5)
    assert "ask for the scope offline_access too" in str(await refused(login))


@ensureDeferred
async def test_a_login_stores_its_token_after_another_process_that_uses_the_old_one(
    stage: Stage,
) -> None:
    store = RefreshTokenFile(stage.reactor, stage.file)
    release = await store.lock()
    login = stage.device().log_in()
    await stage.polls(5)
    await store.save("rotated from the old one")
    await deferLater(stage.reactor, 0.1)
    assert stage.file.read_text() == "rotated from the old one\n"
    release()
    assert (await login).value.reveal() == "access-0"
    assert stage.file.read_text() == f"{REFRESH}\n"


@ensureDeferred
async def test_a_login_whose_token_cannot_be_stored_fails(stage: Stage) -> None:
    stage.file.mkdir()
    login = stage.device().log_in()
    await stage.polls(5)
    with pytest.raises(
        InvalidServer, match=r"a secret cannot be stored: .* cannot be written: Is a directory"
    ):
        await login


@ensureDeferred
async def test_a_login_that_is_cancelled_polls_no_more(stage: Stage) -> None:
    login = stage.device().log_in()
    await stage.until(lambda: stage.shown)
    login.cancel()
    with pytest.raises(CancelledError):
        await login
    assert (stage.clock.getDelayedCalls(), stage.server.forms) == ([], [])


@ensureDeferred
async def test_a_source_asks_for_a_login_when_there_is_no_refresh_token_or_it_is_refused(
    stage: Stage,
) -> None:
    source = stage.device()
    for shown, revoked in ((1, False), (1, False), (2, True)):
        if revoked:
            stage.file.write_text("revoked\n")
        getting = source.get(force_refresh=True)
        if len(stage.shown) < shown:
            await stage.polls(5)
        assert (await getting).value.reveal().startswith("access-")
        assert (len(stage.shown), stage.file.read_text()) == (shown, f"{REFRESH}\n")


# -- in a browser -----------------------------------------------------------------


class Browser:
    """A login in a browser, and the answers of its authorization endpoint."""

    def __init__(self, stage: Stage, **settings: Any) -> None:
        self.stage = stage
        stage.server.fault = self.token
        url = "https://login.example.org/authorize?prompt=consent"
        store = RefreshTokenFile(stage.reactor, stage.file)
        self.login = BrowserTokens(
            stage.endpoint(), store, url, stage.shown.append, scope="mail", **settings
        ).log_in()
        self.address = stage.shown[0].url if stage.shown else ""
        self.asked = dict(parse_qsl(urlsplit(self.address).query))

    def token(self, request: Any) -> bytes:
        return answer(request, 200, access_token="access-0", refresh_token=REFRESH)

    async def back(self, **fields: str) -> int:
        """Return from the authorization endpoint; the status of the page."""
        url = self.asked["redirect_uri"].replace("localhost", "127.0.0.1")
        response = await treq.get(url, params=fields, persistent=False)
        await response.text()
        return int(response.code)


@ensureDeferred
async def test_a_login_in_a_browser_proves_that_the_code_is_its_own(stage: Stage) -> None:
    """RFC 7636: the verifier of the token request fits to the challenge in the address."""
    browser = Browser(stage, user="jane@example.org")
    asked = browser.asked
    assert browser.address.startswith("https://login.example.org/authorize?prompt=consent&")
    assert asked["redirect_uri"].startswith("http://localhost:")
    assert {name: asked[name] for name in ("response_type", "client_id", "scope")} == {
        "response_type": "code",
        "client_id": "mailer",
        "scope": "mail",
    }
    assert asked["login_hint"] == "jane@example.org"
    assert await browser.back(code="stolen", state="guessed") == 400
    assert stage.server.forms == []
    assert await browser.back(code="code-1", state=asked["state"]) == 200
    assert (await browser.login).value.reveal() == "access-0"
    form = stage.server.forms[0]
    digest = hashlib.sha256(form.pop("code_verifier").encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
    assert form == {
        "grant_type": "authorization_code",
        "code": "code-1",
        "redirect_uri": asked["redirect_uri"],
        "client_id": "mailer",
        "client_secret": SECRET,
    }
    assert stage.file.read_text() == f"{REFRESH}\n"


@ensureDeferred
async def test_a_page_that_sends_a_body_to_the_port_of_the_login_is_cut_off(stage: Stage) -> None:
    """Any page that the browser shows can send one, of any size."""
    source = BrowserTokens(
        stage.endpoint(),
        RefreshTokenFile(stage.reactor, stage.file),
        "https://login.example.org/authorize",
        stage.shown.append,
    )
    login = source.log_in()
    await stage.until(lambda: stage.shown)
    asked = dict(parse_qsl(urlsplit(stage.shown[0].url).query))
    back = asked["redirect_uri"].replace("localhost", "127.0.0.1")
    with pytest.raises(ResponseNeverReceived):
        await treq.post(back, data=b"a" * 200000, persistent=False)
    refusal = await treq.get(back, params={"code": "c", "state": "guessed"}, persistent=False)
    assert refusal.code == 400
    login.cancel()
    with pytest.raises(CancelledError):
        await login


@ensureDeferred
async def test_a_login_that_is_refused_in_the_browser_ends(stage: Stage) -> None:
    browser = Browser(stage)
    fields = {"error": "access_denied", "error_description": "no\x1b[31m"}
    assert await browser.back(**fields, state=browser.asked["state"]) == 200
    caught = await refused(browser.login)
    assert (caught.code, "access_denied: no\\x1b[31m" in str(caught)) == ("access_denied", True)


@ensureDeferred
async def test_a_login_in_a_browser_has_a_time_limit(stage: Stage) -> None:
    browser = Browser(stage)
    stage.clock.advance(900)
    assert (await refused(browser.login)).code == "expired_token"


@ensureDeferred
async def test_a_port_that_is_in_use_is_reported(stage: Stage) -> None:
    taken = stage.port.getHost().port
    with pytest.raises(InvalidServer, match=f"127.0.0.1:{taken} cannot be used for the login"):
        await Browser(stage, port=taken).login


# -- the choice -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "how", "kind"),
    [
        ("microsoft", {}, DeviceTokens),
        ("microsoft", {"browser": True}, BrowserTokens),
        ("google", {}, BrowserTokens),
        ("google", {"device_url": "https://h/device"}, DeviceTokens),
        ("fastmail", {}, BrowserTokens),
        ("yahoo", {}, BrowserTokens),
    ],
)
def test_a_provider_without_codes_for_mail_has_a_login_in_a_browser(
    tmp_path: Path, provider: str, how: Any, kind: type
) -> None:
    settings = OAuthSettings(
        client_id="c", provider=provider, refresh_token_file=tmp_path / "refresh"
    )
    assert isinstance(login_tokens(Clock(), settings, print, **how), kind)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"provider": "google"}, "there is no place for the refresh token; give oauth-refresh-tok"),
        ({"provider": "google", "refresh_token_file": "/nowhere/x"}, "/nowhere is not writable"),
        (
            {"token_url": "https://h/token", "refresh_token_file": "x"},
            "there is no endpoint to log in at; name a provider, or give oauth-device-url or oauth-au",
        ),
        (
            {"provider": "google", "refresh_token_command": ["cat"]},
            "one command reads the refresh token, and another one stores a new one; give both",
        ),
    ],
)
def test_a_login_that_cannot_end_well_does_not_begin(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidServer) as caught:
        login_tokens(
            Clock(), OAuthSettings(client_id="c", client_secret=Secret(SECRET), **settings), print
        )
    assert problem in str(caught.value)
