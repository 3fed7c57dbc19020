"""Logins of a person that end with a refresh token: by a code that is entered elsewhere, or in a browser.

``DeviceTokens`` shows a code and an address, and polls the server until the person has entered the code
there, on any machine (RFC 8628).  ``BrowserTokens`` shows an address to open in a browser of this machine,
which returns to a port of the loopback interface (RFC 6749 section 4.1, RFC 7636, RFC 8252).  Both are
sources of tokens for programs with a person before them; other programs use ``RefreshTokens`` with what
a login has stored.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from abc import abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from twisted_sendmail.oauth import (
    GrantRefused,
    RefreshTokenMissing,
    RefreshTokens,
    RefreshTokenStore,
    TokenEndpoint,
    TokenEndpointUnavailable,
    check_endpoint_url,
    seconds_of,
    token_text,
)
from twisted_sendmail.sasl import Secret
from twisted_sendmail.smtp import InvalidServer, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.web import http

    from twisted_sendmail.oauth import OAuthSettings
    from twisted_sendmail.sasl import Token

#: Seconds between two requests, if the server names none, and what each ``slow_down`` adds (RFC 8628
#: section 3.5).
POLL_INTERVAL = 5.0
#: Seconds between two requests at most, while the server cannot be reached.
MAX_POLL_INTERVAL = 60.0
#: Seconds that a person has for a login in a browser.
BROWSER_TIMEOUT = 900.0
#: Seconds that a person has to enter a code at most; servers give some minutes.
MAX_CODE_LIFE = 86400.0
#: Characters of a code that a person enters, and of its address.
MAX_USER_CODE, MAX_ADDRESS = 100, 4096

_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@frozen
class LoginRequest:
    """The request to show to the person who logs in; its texts are the server's, and printable.

    Each address is one of a web page: a program may open it, and escapes it for HTML.
    """

    #: The address to open.
    url: str
    #: The code to enter there; empty: none is needed.
    code: str
    #: The same address with the code in it, as for a QR code; empty if the server gives none.
    complete_url: str
    #: Seconds that the person has.
    expires_in: float


class _LoginTokens(RefreshTokens):
    """Tokens by a refresh token, which a login gives if there is none, or the server refuses it."""

    def __init__(
        self,
        endpoint: TokenEndpoint,
        store: RefreshTokenStore,
        url: str,
        show: Callable[[LoginRequest], object],
        *,
        scope: str,
        login_scope: str | None,
    ) -> None:
        super().__init__(endpoint, store, scope)
        check_endpoint_url(url)
        self._url = url
        self._show = show
        self._login_scope = scope if login_scope is None else login_scope

    def log_in(self) -> Deferred[Token]:
        """Log in now, whether there is a refresh token or not; return a Deferred of the first token.

        The refresh token is stored when it fires.

        :raises GrantRefused: the person or the server refused it, or the time is over.
        :raises TokenEndpointUnavailable: the server cannot be used now.
        :raises SendmailError: the refresh token cannot be stored.

        Cancelling ends the login.
        """
        return Deferred.fromCoroutine(self._log_in())

    async def _log_in(self) -> Token:
        begun = self._now()
        try:
            answer = await self._first_grant()
        except TokenEndpointUnavailable as error:
            if error.remedy == TokenEndpointUnavailable.remedy:
                error.remedy = "log in again later"
            raise
        return self._accept(answer, begun)

    async def _first_grant(self) -> dict[str, Any]:
        answer = await self._ask_person()
        text = token_text(answer.get("refresh_token"))
        refresh_token = None if text is None else Secret(text)
        if refresh_token is None:
            raise GrantRefused(
                "the login gave no refresh token",
                remedy="allow them for the client, or ask for the scope offline_access too",
                phase="AUTH",
            )
        async with self._in_use():
            await self._store.save(refresh_token.reveal())
            self._unsaved = None
        return answer

    async def _grant(self) -> dict[str, Any]:
        try:
            return await super()._grant()
        except RefreshTokenMissing:
            pass
        except GrantRefused as refused:
            if refused.code != "invalid_grant":
                raise
        return await self._first_grant()

    @abstractmethod
    async def _ask_person(self) -> dict[str, Any]:
        """Return the fields of the answer to a login."""


class DeviceTokens(_LoginTokens):
    """Tokens for a person who enters a code at an address of the server (RFC 8628).

    :param endpoint: the token endpoint, with the client.
    :param store: holds the refresh token.
    :param device_url: the device authorization endpoint.
    :param show: called with the code and the address when a login is needed.
    :param scope: the scopes to ask for with the refresh token; empty for those that the person granted.
    :param login_scope: the scopes that the person grants; None: the same.
    :raises InvalidServer: the URL cannot be used.
    """

    def __init__(
        self,
        endpoint: TokenEndpoint,
        store: RefreshTokenStore,
        device_url: str,
        show: Callable[[LoginRequest], object],
        *,
        scope: str = "",
        login_scope: str | None = None,
    ) -> None:
        super().__init__(endpoint, store, device_url, show, scope=scope, login_scope=login_scope)

    async def _ask_person(self) -> dict[str, Any]:
        reactor = self._endpoint.reactor
        form = {"scope": self._login_scope} if self._login_scope else {}
        answer = await self._endpoint.request(form, url=self._url)
        request, device_code = self._read(answer)
        end = reactor.seconds() + request.expires_in
        interval = max(seconds_of(answer.get("interval")) or POLL_INTERVAL, 1.0)
        self._show(request)
        form = {"grant_type": _DEVICE_GRANT, "device_code": device_code}
        while True:
            # An interval that is too long must not keep the person waiting after the end.
            await deferLater(reactor, min(interval, end - reactor.seconds()))
            if reactor.seconds() >= end:
                raise _too_late("nobody entered the code in time")
            try:
                return await self._endpoint.request(form)
            except TokenEndpointUnavailable as error:
                if error.code == "slow_down":
                    interval += POLL_INTERVAL
                elif error.code != "authorization_pending":
                    interval = min(interval * 2, MAX_POLL_INTERVAL)

    def _read(self, answer: Mapping[str, Any]) -> tuple[LoginRequest, str]:
        # Google wrote its own form before the RFC.
        url = answer.get("verification_uri", answer.get("verification_url"))
        complete = answer.get("verification_uri_complete", "")
        code, device_code = answer.get("user_code"), answer.get("device_code")
        life = seconds_of(answer.get("expires_in"))
        for each in (url, code, device_code, complete):
            if not isinstance(each, str):
                raise self._unreadable("has no code, no address or no time limit")
        if not url or not code or not device_code or not life:
            raise self._unreadable("has no code, no address or no time limit")
        # Code and address are shown to a person, who may open the address.
        if len(code) > MAX_USER_CODE or not code.isprintable():
            raise self._unreadable("has a code that nobody can enter")
        if not _is_web_address(url) or not (complete == "" or _is_web_address(complete)):
            raise self._unreadable("has an address that is not of a web page")
        return LoginRequest(url, code, complete, min(life, MAX_CODE_LIFE)), device_code

    def _unreadable(self, why: str) -> TokenEndpointUnavailable:
        return TokenEndpointUnavailable(
            printable(f"no code from {self._url}", 300),
            detail=f"its answer {why}",
            remedy="check the URL",
            phase="AUTH",
        )


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    fits = len(url) <= MAX_ADDRESS and url.isprintable() and " " not in url
    return fits and parts.scheme in {"https", "http"} and bool(host)


class BrowserTokens(_LoginTokens):
    """Tokens for a person who logs in with a browser on this machine (RFC 8252).

    :param endpoint: the token endpoint, with the client.
    :param store: holds the refresh token.
    :param authorization_url: the authorization endpoint.
    :param show: called with the address to open when a login is needed.
    :param scope: the scopes to ask for with the refresh token; empty for those that the person granted.
    :param login_scope: the scopes that the person grants; None: the same.
    :param user: the mail address of the person, as a hint for the page; empty: without.
    :param port: the port on the loopback interface that the browser returns to, at
        ``http://localhost:PORT/``; 0: any.
    :raises InvalidServer: the URL cannot be used.
    """

    def __init__(
        self,
        endpoint: TokenEndpoint,
        store: RefreshTokenStore,
        authorization_url: str,
        show: Callable[[LoginRequest], object],
        *,
        scope: str = "",
        login_scope: str | None = None,
        user: str = "",
        port: int = 0,
    ) -> None:
        super().__init__(
            endpoint, store, authorization_url, show, scope=scope, login_scope=login_scope
        )
        self._user = user
        self._port = port

    async def _ask_person(self) -> dict[str, Any]:
        reactor = self._endpoint.reactor
        page = _ReturnPage(secrets.token_urlsafe(32))
        try:
            port = reactor.listenTCP(self._port, _SiteWithoutLog(page), interface="127.0.0.1")
        except CannotListenError as error:
            raise InvalidServer(
                f"127.0.0.1:{self._port} cannot be used for the login",
                detail=printable(str(error.socketError)),
                remedy="choose another port",
            ) from None
        timer = reactor.callLater(BROWSER_TIMEOUT, page.fail, _too_late("nobody logged in in time"))
        try:
            back = f"http://localhost:{port.getHost().port}/"
            verifier = secrets.token_urlsafe(64)
            address = self._address(back, page.state, verifier)
            self._show(LoginRequest(address, "", "", BROWSER_TIMEOUT))
            code = await page.answered
        finally:
            if timer.active():
                timer.cancel()
            # The page is still being written: its connection ends by itself.
            _ = port.stopListening()
        return await self._endpoint.request(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": back,
                "code_verifier": verifier,
            }
        )

    def _address(self, back: str, state: str, verifier: str) -> str:
        digest = hashlib.sha256(verifier.encode()).digest()
        fields = {
            **dict(parse_qsl(urlsplit(self._url).query)),
            "response_type": "code",
            "client_id": self._endpoint.client_id,
            "redirect_uri": back,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        if self._login_scope:
            fields["scope"] = self._login_scope
        if self._user:
            fields["login_hint"] = self._user
        return f"{self._url.partition('?')[0]}?{urlencode(fields)}"


class _SiteWithoutLog(Site):
    """Writes no access log: the code is in the address."""

    def __init__(self, page: Resource) -> None:
        super().__init__(page, requestFactory=_RequestWithoutBody)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.displayTracebacks = False

    def log(self, request: http.Request) -> None:
        """See ``HTTPFactory``."""


class _RequestWithoutBody(Request):
    """A request whose connection ends if it has a body: any web page may send one, of any size."""

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's
        """See ``Request``; a large body would be kept in a file."""
        super().gotLength(0)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        """See ``Request``."""
        if self.channel is not None:
            self.channel.forceAbortClient()


class _ReturnPage(Resource):
    """The page that the browser returns to with a code."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, state: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.state = state
        self.answered: Deferred[str] = Deferred()

    def fail(self, error: Exception) -> None:
        """End the login with *error*, unless it has ended."""
        if not self.answered.called:
            self.answered.errback(Failure(error))

    def render_GET(self, request: Any) -> bytes:  # noqa: N802 - Twisted's
        """Read the answer; another page on this machine cannot give one without the state."""
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("Referrer-Policy", "no-referrer")
        request.setHeader("Connection", "close")
        given = {
            name: values[0].decode("utf-8", "replace") for name, values in request.args.items()
        }
        state = given.get(b"state", "").encode()
        if self.answered.called or not hmac.compare_digest(state, self.state.encode()):
            request.setResponseCode(400)
            return b"This is not the answer to the login that waits.\n"
        code, error = given.get(b"code"), given.get(b"error")
        if error is not None or not code:
            self.fail(_refused(error or "no code", given.get(b"error_description", "")))
            return b"The login was refused. You can close this window.\n"
        self.answered.callback(code)
        return b"You can close this window, and look at the program again.\n"


def _refused(code: str, text: str) -> GrantRefused:
    code, text = printable(code, 100), printable(text, 300)
    refused = GrantRefused(
        "the login was refused", detail=f"{code}: {text}" if text else code, phase="AUTH"
    )
    refused.code = code
    return refused


def _too_late(why: str) -> GrantRefused:
    refused = GrantRefused("the login has ended", detail=why, remedy="log in again", phase="AUTH")
    refused.code = "expired_token"
    return refused


def login_tokens(
    reactor: Any,
    settings: OAuthSettings,
    show: Callable[[LoginRequest], object],
    *,
    device_url: str | None = None,
    authorization_url: str | None = None,
    browser: bool = False,
    user: str = "",
    port: int = 0,
) -> DeviceTokens | BrowserTokens:
    """Return the source to log in with: by a code, or in a browser if the provider has no code or it is asked for.

    :param reactor: makes connections, and listens for the browser.
    :param settings: name the client, the provider or its token endpoint, and the store of the token.
    :param show: called with the request to show to the person.
    :param device_url: the device authorization endpoint, instead of the provider's.
    :param authorization_url: the authorization endpoint, instead of the provider's.
    :param browser: log in with a browser, though the provider has a code.
    :param user: the person's mail address, as a hint.
    :param port: as for ``BrowserTokens``.
    :raises InvalidServer: a setting cannot be used, or another one is needed.
    :raises ImportError: the extra ``oauth`` is not installed.
    """
    preset, endpoint, store = (
        settings.preset,
        settings.endpoint(reactor),
        settings.store(reactor, login=True),
    )
    if store is None:
        raise InvalidServer(
            "there is no place for the refresh token",
            remedy="give oauth-refresh-token-file or oauth-store-command",
        )
    store.check(exists=False)
    scope = preset.scope if settings.scope is None else settings.scope
    login_scope = preset.login_scope or preset.scope if settings.scope is None else scope
    device_url = device_url or preset.device_url
    if device_url and not browser:
        return DeviceTokens(endpoint, store, device_url, show, scope=scope, login_scope=login_scope)
    authorization_url = authorization_url or preset.authorization_url
    if not authorization_url:
        raise InvalidServer(
            "there is no endpoint to log in at",
            remedy="name a provider, or give oauth-device-url or oauth-authorization-url",
        )
    return BrowserTokens(
        endpoint,
        store,
        authorization_url,
        show,
        scope=scope,
        login_scope=login_scope,
        user=user,
        port=port,
    )
