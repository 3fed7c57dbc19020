"""Sources of OAuth 2 tokens for ``Credentials(user, token=source)``: they refresh the tokens that they give.

``RefreshTokens`` and ``ClientCredentials`` ask a token endpoint over HTTPS, and need the extra ``oauth``;
``CommandTokens`` and ``FileTokens`` read what another program made.  A token is kept until shortly before
it expires.  One request is made for all connections that wait for a token.  A refusal that only a new
login ends is a ``GrantRefused``, which is logged, and which raises the relay's alarm of refused
credentials; any other failure is temporary.  ``oauth_login`` gets the first refresh token.

RFC 6749 sections 2.3, 4.4, 5 and 6.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorCore, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from twisted_sendmail.client import TLSTrust, is_loopback
from twisted_sendmail.extras import missing_extra
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.sasl import CredentialsUnavailable, Secret, Token, TokenSource
from twisted_sendmail.secret_file import read_file
from twisted_sendmail.secret_reader import SecretCommand, one_line, write_file
from twisted_sendmail.shared_result import SharedResult
from twisted_sendmail.smtp import (
    AuthenticationFailed,
    InvalidServer,
    SendmailError,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.client import ServerVerifier

#: Seconds before its end from which on a token is not used; at most half of its life.
EXPIRY_MARGIN = 60.0
#: Seconds that a request to a token endpoint may take.
REQUEST_TIMEOUT = 30.0
#: Seconds that a stop of the reactor waits for an answer with a new refresh token, and for its storage.
SHUTDOWN_TIMEOUT = 5.0
#: Seconds to wait for another process that uses the refresh token, and between two attempts.
LOCK_TIMEOUT, LOCK_INTERVAL = 60.0, 0.05
#: Octets of an answer, and of all that its connection receives: TLS and the header, too.
MAX_ANSWER, MAX_RECEIVED = 64 * 1024, 256 * 1024

# These errors pass (RFC 6749 section 4.1.2.1, RFC 8628 section 3.5).
_TEMPORARY = frozenset(
    {"server_error", "temporarily_unavailable", "slow_down", "authorization_pending"}
)
_TOKEN = re.compile("[\x21-\x7e]+")
_SECRETS = ("refresh_token", "client_secret", "device_code", "code", "code_verifier")

_log = Logger(namespace="twisted_sendmail.oauth")


class GrantRefused(AuthenticationFailed):
    """The token endpoint gives no more tokens, until a person acts."""

    _before_host = "for"

    remedy = "log in again, as with twisted-sendmail login"
    #: The error code of RFC 6749 section 5.2 or RFC 8628 section 3.5, such as ``invalid_grant``.
    code = ""


class TokenEndpointUnavailable(CredentialsUnavailable):
    """The token endpoint gives no token now; it may do so later."""

    remedy = "it is asked again for the next connection"
    #: The error code of RFC 8628 section 3.5, such as ``authorization_pending``; empty if there is none.
    code = ""


class RefreshTokenMissing(CredentialsUnavailable):
    """There is no refresh token yet."""

    remedy = "log in, as with twisted-sendmail login"


# The remedies of the other refusals are in the setup of the client.
_REMEDIES = {
    "invalid_grant": GrantRefused.remedy,
    "access_denied": "log in again, and allow the access",
    "expired_token": "log in again, and enter the code sooner",
    "consent_required": "log in again, and consent to the scopes",
    "interaction_required": GrantRefused.remedy,
}


@frozen
class OAuthProvider:
    """The endpoints of a provider of mail, and the scopes that they have to be asked for."""

    #: The token endpoint.
    token_url: str
    #: The scopes of a refresh token; empty: those that were granted.
    scope: str = ""
    #: The scopes of the client itself.
    application_scope: str = ""
    #: The scopes that a person grants; empty: ``scope``.
    login_scope: str = ""
    #: The device authorization endpoint (RFC 8628); empty: the provider has none for mail.
    device_url: str = ""
    #: The authorization endpoint, for a login in a browser.
    authorization_url: str = ""


#: Providers by name.  Their pitfalls are in the how-to guide on OAuth.
PROVIDERS: Mapping[str, OAuthProvider] = MappingProxyType(
    {
        "microsoft": OAuthProvider(
            "https://login.microsoftonline.com/common/oauth2/v2.0/token",
            scope="https://outlook.office.com/SMTP.Send offline_access",
            application_scope="https://outlook.office365.com/.default",
            device_url="https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
            authorization_url="https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
        ),
        "google": OAuthProvider(
            "https://oauth2.googleapis.com/token",
            login_scope="https://mail.google.com/",
            # Without these parameters there is no refresh token.
            authorization_url="https://accounts.google.com/o/oauth2/v2/auth?access_type=offline&prompt=consent",
        ),
        "yahoo": OAuthProvider(
            "https://api.login.yahoo.com/oauth2/get_token",
            login_scope="mail-w",
            authorization_url="https://api.login.yahoo.com/oauth2/request_auth",
        ),
        "fastmail": OAuthProvider(
            "https://api.fastmail.com/oauth/refresh",
            login_scope="https://www.fastmail.com/dev/protocol-smtp",
            authorization_url="https://api.fastmail.com/oauth/authorize",
        ),
    }
)

#: How a client proves its identity at the token endpoint, by the names of RFC 7591 section 2: the
#: secret in the form, or in the header ``Authorization``.
AUTH_METHODS = ("client_secret_post", "client_secret_basic")


# -- the token endpoint -----------------------------------------------------------


class TokenEndpoint:
    """The token endpoint of an authorization server, with the client that is registered there.

    :param reactor: makes connections.
    :param url: its HTTPS URL; HTTP only on the loopback interface.
    :param client_id: the client, as registered at the server.
    :param client_secret: its secret; None for a public client.
    :param auth_method: how the client sends its secret: one of :data:`AUTH_METHODS`.
    :param trust: how the endpoint proves its identity; None: the system's CAs and its host name.
    :raises InvalidServer: the URL, the method or a file of *trust* cannot be used.
    :raises ImportError: the extra ``oauth`` is not installed.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        client_id: str,
        *,
        client_secret: str | Secret | None = None,
        auth_method: str = AUTH_METHODS[0],
        trust: TLSTrust | None = None,
    ) -> None:
        try:
            from treq import collect
            from treq.client import HTTPClient
        except ImportError as e:
            raise missing_extra("oauth", e) from None
        self._secret = Secret(client_secret) if isinstance(client_secret, str) else client_secret
        del client_secret
        check_endpoint_url(url)
        _check_auth_method(auth_method)
        self.reactor = reactor
        self.url = url
        self.client_id = client_id
        self._basic = auth_method == "client_secret_basic"
        self._collect = collect
        self._http_client = HTTPClient
        self._trust = trust or TLSTrust()
        _ = self._trust.context()
        # Makes the connections; the other one counts the time.
        self._connector = reactor

    def __repr__(self) -> str:
        return f"TokenEndpoint({self.url!r}, {self.client_id!r})"

    async def request(self, form: Mapping[str, str], *, url: str | None = None) -> dict[str, Any]:
        """Post a request with the client's identity; return the fields of the answer.

        :param url: another endpoint of the same server, such as that of RFC 8628.
        :raises GrantRefused: the server refuses it, and will do so again.
        :raises TokenEndpointUnavailable: the server cannot be reached, or cannot answer now.
        """
        request = _Request(url or self.url, dict(form), self.client_id, self._secret, self._basic)
        connection = _Connection(self._connector, self._trust)
        asking = Deferred.fromCoroutine(self._post(request, connection))
        timer = self.reactor.callLater(REQUEST_TIMEOUT, asking.cancel)
        try:
            status, content = await asking
        except SendmailError:
            raise
        except Exception as error:
            # The Agent wraps a cancellation, too.
            if not timer.active():
                raise request.unavailable(f"no answer within {REQUEST_TIMEOUT:.0f} s") from None
            if isinstance(error, CancelledError):
                raise
            # An error of the parser quotes the answer, which may quote the request.
            raise request.unavailable(
                request.masked(connection.problem or _reason(error))
            ) from None
        finally:
            if timer.active():
                timer.cancel()
            connection.abort()
        answer = _object(content)
        if status == 200 and answer is not None:
            return answer
        raise request.refusal(status, answer or {})

    async def _post(self, request: _Request, connection: _Connection) -> tuple[int, bytes]:
        agent = Agent.usingEndpointFactory(self._connector, connection)
        response = await self._http_client(_UncompressedAgent(agent)).post(
            request.url,
            data=request.fields(),
            headers=request.headers(),
            allow_redirects=False,
            unbuffered=True,
        )
        content = bytearray()

        def received(data: bytes) -> None:
            if len(content) + len(data) > MAX_ANSWER:
                raise request.unavailable(f"its answer is longer than {MAX_ANSWER} octets")
            content.extend(data)

        await self._collect(response, received)
        return response.code, bytes(content)


@frozen(eq=False)
class _Request:
    """A request to a server, and the errors that it may end with."""

    url: str
    form: dict[str, str] = field(repr=False)
    client_id: str
    secret: Secret | None
    #: The secret is in the header, not in the form.
    basic: bool

    def fields(self) -> dict[str, str]:
        if self.secret is None:
            return {**self.form, "client_id": self.client_id}
        if self.basic:
            return self.form
        return {**self.form, "client_id": self.client_id, "client_secret": self.secret.reveal()}

    def headers(self) -> Headers:
        headers = Headers({"Accept": ["application/json"]})
        if self.secret is not None and self.basic:
            headers.addRawHeader("Authorization", f"Basic {self._user_and_secret(self.secret)}")
        return headers

    def _user_and_secret(self, secret: Secret) -> str:
        # RFC 6749 section 2.3.1: both are encoded as in a form.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(secret.reveal())}"
        return b64encode(pair.encode()).decode()

    def masked(self, text: str) -> str:
        """Return *text* of the server without the secrets of the request, as they are or encoded."""
        secrets = [self.form[name] for name in _SECRETS if self.form.get(name)]
        if self.secret is not None:
            secrets += [self.secret.reveal(), self._user_and_secret(self.secret)]
        for each in secrets:
            forms = {each, quote(each), quote(each, safe=""), quote_plus(each)}
            text = re.sub("|".join(map(re.escape, forms)), "<hidden>", text, flags=re.IGNORECASE)
        return text

    def refusal(self, status: int, answer: dict[str, Any]) -> SendmailError:
        """Return the error for an answer without a token."""
        code, text = answer.get("error"), answer.get("error_description", "")
        if not isinstance(code, str) or not 400 <= status < 500 or status == 429:
            error = self.unavailable(f"it answered with HTTP status {status}")
            if status in {200, 404, 405, 410}:
                error.remedy = "check the URL"
            return error
        detail = f"{code}: {text}" if isinstance(text, str) and text else code
        detail, code = (printable(self.masked(each), 300) for each in (detail, code))
        if code in _TEMPORARY:
            return self.unavailable(detail, code)
        what = f"the token endpoint {self.url} refuses {self.client_id}"
        remedy = _REMEDIES.get(code, "correct the client, its secret or the scope")
        refused = GrantRefused(printable(what, 300), detail=detail, remedy=remedy, phase="AUTH")
        refused.code = code
        return refused

    def unavailable(self, why: str, code: str = "") -> TokenEndpointUnavailable:
        """Return the error for a failure that may pass."""
        error = TokenEndpointUnavailable(
            printable(f"no token from {self.url}", 300), detail=why, phase="AUTH"
        )
        error.code = code
        return error


def _check_auth_method(method: str) -> None:
    if method not in AUTH_METHODS:
        raise InvalidServer(
            f"there is no authentication method {printable(str(method), 60)}",
            remedy=f"write {' or '.join(AUTH_METHODS)}",
        )


def check_endpoint_url(url: str) -> None:
    """Check the URL of an endpoint of an authorization server.

    :raises InvalidServer: it is not HTTPS, or cannot be read; HTTP is for the loopback interface only.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except (ValueError, TypeError, AttributeError):
        parts, host = urlsplit(""), ""
    allowed = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not host or not allowed or parts.username is not None:
        raise InvalidServer(
            f"the URL of the authorization server, {printable(str(url), 200)}, cannot be used",
            remedy="write https://HOST/PATH; http:// is for the loopback interface only",
        )


@implementer(IAgentEndpointFactory)
class _Connection:
    """The connection of one request; the certificate is verified by the rules for mail servers."""

    def __init__(self, reactor: Any, trust: TLSTrust) -> None:
        self._reactor = reactor
        self._trust = trust
        self._verifier: ServerVerifier | None = None
        self._tcp: _Remembering | None = None

    def endpointForURI(self, uri: URI) -> Any:  # noqa: N802
        """See ``IAgentEndpointFactory``."""
        host = uri.host.decode("ascii")
        self._tcp = _Remembering(
            HostnameEndpoint(self._reactor, host, uri.port, timeout=REQUEST_TIMEOUT)
        )
        if uri.scheme != b"https":
            return self._tcp
        self._verifier = self._trust.verifier(host)
        return wrapClientTLS(self._verifier, self._tcp)

    @property
    def problem(self) -> str:
        """The reason why the connection was ended; empty if it was ended otherwise."""
        if self._verifier is not None and self._verifier.rejection is not None:
            return str(self._verifier.rejection)
        if self._tcp is not None and self._tcp.exceeded:
            return f"it sent more than {MAX_RECEIVED} octets"
        return ""

    def abort(self) -> None:
        """Close the connection, if there is one; a server could hold it open after its answer."""
        if self._tcp is not None and self._tcp.transport is not None:
            self._tcp.transport.abortConnection()


@implementer(IStreamClientEndpoint)
class _Remembering:
    """An endpoint that keeps the transport of its connection, and limits what it receives."""

    def __init__(self, endpoint: HostnameEndpoint) -> None:
        self._endpoint = endpoint
        self.transport: Any = None
        self.exceeded = False

    def connect(self, protocolFactory: Any) -> Deferred[Any]:  # noqa: N803 - Twisted's
        """See ``IStreamClientEndpoint``."""

        def connected(limited: Any) -> Any:
            self.transport = limited.transport
            return limited.wrappedProtocol

        factory = WrappingFactory(protocolFactory)
        factory.noisy = False
        factory.protocol = partial(_Limited, self)
        return self._endpoint.connect(factory).addCallback(connected)


class _Limited(ProtocolWrapper):
    """Ends a connection that receives too much."""

    def __init__(self, endpoint: _Remembering, factory: Any, protocol: Any) -> None:
        super().__init__(factory, protocol)
        self._endpoint = endpoint
        self._received = 0

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            self._endpoint.exceeded = True
            transport: Any = self.transport
            transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


@implementer(IAgent)
class _UncompressedAgent:
    """Neither asks for compression nor undoes it: a small answer could expand without limit."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: Any = None,  # noqa: N803 - Twisted's
    ) -> Deferred[Any]:
        """See ``IAgent``."""
        if headers is not None:
            headers.removeHeader(b"accept-encoding")
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_as_it_is)


def _as_it_is(response: Any) -> Any:
    response.headers.removeHeader(b"content-encoding")
    return response


def _reason(error: BaseException) -> str:
    """Return the reason of a failed request; that of a lost connection is inside of it."""
    if isinstance(error, SendmailError):
        return str(error)
    reasons = getattr(error, "reasons", None)
    if reasons:
        error = reasons[0].value
    text = printable(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# -- tokens of the endpoint -------------------------------------------------------


class _EndpointTokens(TokenSource):
    """Tokens of an endpoint: the current one, and one request for all who wait for the next."""

    def __init__(self, endpoint: TokenEndpoint, scope: str) -> None:
        self._endpoint = endpoint
        self._scope = scope
        self._token: Token | None = None
        # The time from which on a new token is asked for.
        self._renew_at = -math.inf
        self._running: SharedResult[Token] | None = None
        # The last refusal, to log each once.
        self._refusal: str = ""

    def get(self, *, force_refresh: bool = False) -> Deferred[Token]:
        """Return a Deferred of a token that does not expire soon.

        :param force_refresh: ask for another token than the current one.
        :raises GrantRefused: a person has to act.
        :raises CredentialsUnavailable: the token endpoint cannot be used now.

        Cancelling ends the waiting, and not the request.
        """
        if force_refresh:
            self._token = None
        elif self._token is not None and self._now() < self._renew_at:
            return succeed(self._token)
        shared = self._running
        if shared is None:
            shared = self._running = SharedResult()
            _ = Deferred.fromCoroutine(self._renew()).addBoth(self._ended, shared)
        return shared.wait()

    def _now(self) -> float:
        now: float = self._endpoint.reactor.seconds()
        return now

    async def _renew(self) -> Token:
        try:
            return await self._new_token()
        except CredentialsUnavailable as error:
            old = self._token
            if old is not None and old.expires_at is not None and self._now() < old.expires_at:
                _log.warn("{error}; the current token is used until it expires", error=str(error))
                return old
            raise

    async def _new_token(self) -> Token:
        begun = self._now()
        return self._accept(await self._grant(), begun)

    def _accept(self, answer: Mapping[str, Any], begun: float) -> Token:
        """Keep the token of an answer to a request that was made at *begun*."""
        value = token_text(answer.get("access_token"))
        kind = answer.get("token_type", "Bearer")
        if value is None or not isinstance(kind, str) or kind.lower() != "bearer":
            raise TokenEndpointUnavailable(
                printable(f"no token from {self._endpoint.url}", 300),
                detail="its answer has no bearer token",
                remedy="check the URL",
                phase="AUTH",
            )
        life = seconds_of(answer.get("expires_in"))
        # Seconds from the request on: the clock of the server does not matter.
        self._renew_at = begun + (math.inf if life is None else max(life / 2, life - EXPIRY_MARGIN))
        self._token = Token(value, None if life is None else begun + life)
        return self._token

    def _ended(self, result: Token | Failure, shared: SharedResult[Token]) -> None:
        self._running = None
        refusal = ""
        if isinstance(result, Failure) and isinstance(result.value, GrantRefused):
            refusal = str(result.value)
            if refusal != self._refusal:
                _log.critical("no mail can be sent: {error}", error=refusal)
        self._refusal = refusal
        shared.set(result)

    async def _grant(self) -> dict[str, Any]:
        """Ask for a token; return the fields of the answer."""
        raise NotImplementedError

    def _form(self, grant_type: str) -> dict[str, str]:
        form = {"grant_type": grant_type}
        if self._scope:
            form["scope"] = self._scope
        return form


@contextmanager
def _before_shutdown(reactor: Any) -> Iterator[None]:
    """Let a stop of the reactor wait for the end of the block: an old refresh token may be invalid then."""
    if not IReactorCore.providedBy(reactor):
        yield
        return
    clock: Any = reactor
    ended: SharedResult[None] = SharedResult()
    waiting: list[Deferred[None]] = []

    def wait() -> Deferred[None]:
        waiting.append(ended.wait())
        return waiting[0].addTimeout(SHUTDOWN_TIMEOUT, clock, lambda *_: None)

    trigger = reactor.addSystemEventTrigger("before", "shutdown", wait)
    try:
        yield
    finally:
        if not waiting:
            reactor.removeSystemEventTrigger(trigger)
        ended.set(None)


def token_text(value: object) -> str | None:
    """Return a token of either kind; None if it could be neither sent nor stored in a line."""
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None


def seconds_of(value: object) -> float | None:
    """Return a number of seconds in an answer; None if it is none. Some servers write it as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        life = float(value)
    except (ValueError, OverflowError):
        return None
    return max(life, 0.0) if math.isfinite(life) else None


class ClientCredentials(_EndpointTokens):
    """Tokens for the client itself (RFC 6749 section 4.4): for programs, without a person.

    :param endpoint: the token endpoint, with the client and its secret.
    :param scope: the scopes to ask for, separated by spaces.
    """

    def __init__(self, endpoint: TokenEndpoint, scope: str = "") -> None:
        super().__init__(endpoint, scope)

    async def _grant(self) -> dict[str, Any]:
        return await self._endpoint.request(self._form("client_credentials"))


class RefreshTokens(_EndpointTokens):
    """Tokens for a person who authorized the client once (RFC 6749 section 6).

    :param endpoint: the token endpoint, with the client.
    :param store: holds the refresh token.  A new one, which many servers give with each token, is
        stored before the token is used.
    :param scope: the scopes to ask for; empty for those that the person granted.
    """

    def __init__(self, endpoint: TokenEndpoint, store: RefreshTokenStore, scope: str = "") -> None:
        super().__init__(endpoint, scope)
        self._store = store
        # A refresh token that could not be stored.
        self._unsaved: Secret | None = None

    async def _grant(self) -> dict[str, Any]:
        async with self._in_use():
            return await self._refresh()

    @asynccontextmanager
    async def _in_use(self) -> AsyncIterator[None]:
        """Use the refresh token: no other process does so, and a stop of the reactor waits."""
        release = await self._store.lock()
        try:
            with _before_shutdown(self._endpoint.reactor):
                yield
        finally:
            release()

    async def _refresh(self) -> dict[str, Any]:
        current = self._unsaved or Secret(await self._store.load())
        try:
            answer = await self._ask(current)
        except GrantRefused as refused:
            if refused.code != "invalid_grant":
                raise
            # Another process may have stored a new one, and so made this one invalid.
            stored = Secret(await self._store.load())
            if stored.reveal() == current.reveal():
                raise
            current, self._unsaved = stored, None
            answer = await self._ask(current)
        rotated = token_text(answer.get("refresh_token"))
        if rotated is not None and rotated != current.reveal():
            self._unsaved = Secret(rotated)
        if self._unsaved is not None:
            await self._save(self._unsaved)
        return answer

    async def _ask(self, current: Secret) -> dict[str, Any]:
        form = self._form("refresh_token")
        return await self._endpoint.request({**form, "refresh_token": current.reveal()})

    async def _save(self, token: Secret) -> None:
        try:
            await self._store.save(token.reveal())
        except SendmailError as error:
            # The old one may be invalid by now: keep the new one, and store it with the next.
            _log.critical(
                "a new refresh token cannot be stored, and is lost when this process ends: {error}",
                error=str(error),
            )
        else:
            self._unsaved = None


# -- settings ---------------------------------------------------------------------


@frozen(kw_only=True)
class OAuthSettings:
    """The settings of accounts, options, URLs and the relay's configuration, which have the names ``oauth-…``.

    :raises InvalidServer: a setting cannot be used, or another one is needed.
    """

    #: The client, as registered at the provider.
    client_id: str
    #: A name in :data:`PROVIDERS`.
    provider: str | None = None
    #: The token endpoint, instead of the provider's.
    token_url: str | None = None
    #: The secret of the client; None for a public one.
    client_secret: Secret | None = None
    #: One of :data:`AUTH_METHODS`; None: the first.
    auth_method: str | None = None
    #: The file with the refresh token.
    refresh_token_file: str | os.PathLike[str] | None = None
    #: The command that prints the refresh token, and the one that reads a new token from its standard input.
    refresh_token_command: Sequence[str] | None = None
    store_command: Sequence[str] | None = None
    #: The scopes, separated by spaces, instead of the provider's.
    scope: str | None = None
    #: The certificate authorities of the authorization server (PEM), instead of the system's.
    ca_file: str | os.PathLike[str] | None = None

    def __attrs_post_init__(self) -> None:
        if self.provider is not None and self.provider not in PROVIDERS:
            raise InvalidServer(
                f"there is no OAuth provider {printable(self.provider, 60)}",
                remedy=f"write {', '.join(PROVIDERS)}, or give the URL of its token endpoint",
            )
        if not self._token_url:
            raise InvalidServer(
                "there is no token endpoint",
                remedy=f"name a provider ({', '.join(PROVIDERS)}), or its URL",
            )
        commands = self.refresh_token_command is not None or self.store_command is not None
        if self.refresh_token_file is not None and commands:
            raise InvalidServer(
                "there are a file and a command for the refresh token", remedy="give one of them"
            )

    @property
    def preset(self) -> OAuthProvider:
        """The endpoints and scopes of the provider; empty ones without a provider."""
        return OAuthProvider("") if self.provider is None else PROVIDERS[self.provider]

    @property
    def _token_url(self) -> str:
        return self.token_url or self.preset.token_url

    def endpoint(self, reactor: Any) -> TokenEndpoint:
        """Return the token endpoint.

        :raises InvalidServer: a setting cannot be used.
        :raises ImportError: the extra ``oauth`` is not installed.
        """
        return TokenEndpoint(
            reactor,
            self._token_url,
            self.client_id,
            client_secret=self.client_secret,
            auth_method=self.auth_method or AUTH_METHODS[0],
            trust=None if self.ca_file is None else TLSTrust(ca_file=self.ca_file),
        )

    def store(self, reactor: Any, *, login: bool = False) -> RefreshTokenStore | None:
        """Return the store of the refresh token; None if no setting names one.

        :param login: a token will be stored, and none is read.
        :raises InvalidServer: there is one command, and two are needed.
        """
        if self.refresh_token_file is not None:
            return RefreshTokenFile(reactor, self.refresh_token_file)
        load, save = self.refresh_token_command, self.store_command
        if load is None and save is None:
            return None
        if save is None or (load is None and not login):
            raise InvalidServer(
                "one command reads the refresh token, and another one stores a new one",
                remedy="give both",
            )
        return RefreshTokenCommands(reactor, load or (), save)

    def source(self, reactor: Any, store: RefreshTokenStore | None) -> TokenSource:
        """Return the source of tokens: by the refresh token in *store*, or of the client if it is None.

        :raises InvalidServer: a setting cannot be used, or another one is needed.
        :raises ImportError: the extra ``oauth`` is not installed.
        """
        endpoint = self.endpoint(reactor)
        if store is not None:
            scope = self.preset.scope if self.scope is None else self.scope
            return RefreshTokens(endpoint, store, scope)
        if self.client_secret is None or self.token_url is None:
            raise InvalidServer(
                "there is no refresh token",
                remedy="name its file; or give a client secret and the URL of the token endpoint, for tokens "
                "of the client itself",
            )
        scope = self.preset.application_scope if self.scope is None else self.scope
        return ClientCredentials(endpoint, scope)


def token_source(reactor: Any, settings: OAuthSettings) -> TokenSource:
    """Return the source that *settings* describe: by a refresh token if they name one, else of the client.

    :param reactor: makes connections, and reads files in its thread pool.
    :raises InvalidServer: a setting cannot be used, or another one is needed; or the file with the
        refresh token cannot be read or replaced.
    :raises ImportError: the extra ``oauth`` is not installed.

    Reads the attributes of the file, which may block for a short time.
    """
    store = settings.store(reactor)
    source = settings.source(reactor, store)
    if store is not None:
        store.check()
    return source


#: The settings that a URL may have, as in ``smtps://jane@example.org?oauth-provider=…``: no commands,
#: because a URL may come from elsewhere.
URL_KEYS = (
    "oauth-provider",
    "oauth-token-url",
    "oauth-client-id",
    "oauth-client-secret-file",
    "oauth-auth-method",
    "oauth-refresh-token-file",
    "oauth-scope",
    "oauth-ca-file",
    "bearer",
    "password-file",
)


def split_server_url(url: str) -> tuple[str, dict[str, str]]:
    """Split the URL of a server into the URL without settings of OAuth, and these settings by name.

    :raises InvalidServer: there is another setting, or one twice; no error quotes a value.
    """
    server, _, query = url.partition("?")
    settings: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in URL_KEYS:
            remedy = f"the settings of a URL are {', '.join(URL_KEYS)}"
            raise InvalidServer(f"{printable(name, 60)} is no setting of a URL", remedy=remedy)
        if not value or not value.isprintable() or name in settings:
            raise InvalidServer(
                f"{name} in the server's URL cannot be used", remedy="write one value"
            )
        settings[name] = os.path.expanduser(value) if name.endswith("-file") else value  # noqa: PTH111 - of text
    if "#" in query:
        raise InvalidServer("the server's URL has a fragment", remedy="write # as %23")
    _check_token_file(settings)
    return server, settings


def _check_token_file(settings: Mapping[str, str]) -> None:
    """Check that the settings name a file with tokens whole, and nothing else then."""
    given = {"bearer", "password-file"} & settings.keys()
    if given and (
        len(given) != len(settings) or settings.get("bearer") != "true" or len(given) < 2
    ):
        raise InvalidServer(
            f"{min(given)} in the server's URL cannot be used",
            remedy="for a file with a token write bearer=true&password-file=FILE, and no setting of OAuth",
        )


def url_tokens(reactor: Any, *, world_readable: bool = False) -> Callable[[str], TokenSource]:
    """Return the argument *tokens* of ``SubmissionServer.from_url``, for URLs with the settings :data:`URL_KEYS`.

    Example: ``smtp+starttls://jane@smtp.office365.com?oauth-provider=microsoft&oauth-client-id=…&
    oauth-refresh-token-file=refresh-token``, or ``smtps://jane@mail.example.org?bearer=true&
    password-file=token`` for :class:`FileTokens`.  Reserved characters in a value are percent-encoded.

    :param reactor: as for :func:`token_source`.
    :param world_readable: accept a file with the client's secret, or with tokens, that everybody may read.

    ``from_url`` then reads the file with the client's secret, or with a token, and raises `ImportError` if the
    extra ``oauth`` is not installed.
    """

    def tokens(url: str) -> TokenSource:
        _, found = split_server_url(url)
        if "bearer" in found:
            file = Path(found["password-file"])
            _ = one_line(read_file(file, world_readable=world_readable))
            return FileTokens(reactor, file, world_readable=world_readable)
        settings = {name.removeprefix("oauth-").replace("-", "_"): found[name] for name in found}
        secret_file = settings.pop("client_secret_file", None)
        if "client_id" not in settings:
            raise InvalidServer(
                "there is no oauth-client-id",
                remedy="write the client, as registered at the provider",
            )
        secret = None
        if secret_file is not None:
            secret = Secret(one_line(read_file(Path(secret_file), world_readable=world_readable)))
        return token_source(reactor, OAuthSettings(client_secret=secret, **settings))

    return tokens


# -- refresh tokens at rest -------------------------------------------------------


def _nothing() -> None:
    """Do nothing."""


class RefreshTokenStore(ABC):
    """Holds one refresh token."""

    def check(self, *, exists: bool = True) -> None:  # noqa: B027 - not every store can be checked
        """Check what can be checked without a network or a command.

        :param exists: there has to be a token already.
        :raises InvalidServer: there is none, or it could not be replaced.
        """

    def lock(self) -> Awaitable[Callable[[], None]]:
        """Wait until no other process uses the token; return a Deferred of a function that ends the use.

        A server that changes the token at each use may revoke the grant if an old one is used again.
        This one does not wait.
        """
        return succeed(_nothing)

    @abstractmethod
    def load(self) -> Awaitable[str]:
        """Return a Deferred, or another awaitable, of the token.

        :raises RefreshTokenMissing: there is none.
        :raises SendmailError: it cannot be read.
        """

    @abstractmethod
    def save(self, token: str) -> Awaitable[None]:
        """Replace the token.

        :raises SendmailError: it could not be stored.
        """


class RefreshTokenFile(RefreshTokenStore):
    """A file with a refresh token in its only line; a new one replaces the file in one step.

    :param reactor: runs the access to the disk in its thread pool.
    :param path: the file; others may not read it, and a new one has mode 0600.  Its directory must
        be writable.
    """

    def __init__(self, reactor: Any, path: str | os.PathLike[str]) -> None:
        self._reactor = reactor
        self._path = Path(path)

    def check(self, *, exists: bool = True) -> None:
        """Check that the file holds a token that others cannot read, and that it can be replaced."""
        if exists:
            try:
                _ = one_line(self._content())
            except RefreshTokenMissing as e:
                raise InvalidServer(e.what, remedy=e.remedy) from None
        folder = self._folder()
        if not os.access(folder, os.W_OK):
            why = f"{printable(folder, 200)} is not writable, and a new token replaces the file"
            raise InvalidServer(
                "the refresh token could not be stored",
                detail=why,
                remedy="make the directory writable for this user",
            )

    def _folder(self) -> str:
        return os.path.dirname(os.path.realpath(self._path))  # noqa: PTH120 - of a link's target

    async def lock(self) -> Callable[[], None]:
        """Lock the directory of the file against other processes; 60 s at most.

        :raises CredentialsUnavailable: another process uses the token for too long.
        """
        end = self._reactor.seconds() + LOCK_TIMEOUT
        while True:
            descriptor = await off_reactor(self._reactor, self._try_lock)
            if descriptor is not None:
                # The lock ends with the descriptor, also if the process is killed.
                return partial(os.close, descriptor)
            if self._reactor.seconds() > end:
                raise CredentialsUnavailable(
                    "the token cannot be obtained",
                    detail=f"another process uses {printable(str(self._path), 200)}",
                    remedy="it is tried again for the next connection",
                    phase="AUTH",
                )
            await deferLater(self._reactor, LOCK_INTERVAL)

    def _try_lock(self) -> int | None:
        # The file itself is replaced, and a lock with it.
        folder = self._folder()
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise CredentialsUnavailable(
                "the token cannot be obtained",
                detail=f"{printable(folder, 200)} cannot be read: {e.strerror or type(e).__name__}",
                remedy="check the name and its permissions",
                phase="AUTH",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if not isinstance(e, BlockingIOError):
                # A file system without locks.
                return descriptor
            os.close(descriptor)
            return None
        return descriptor

    def _content(self) -> bytes:
        try:
            _ = self._path.stat()
        except FileNotFoundError:
            shown = printable(str(self._path), 200)
            raise RefreshTokenMissing(f"there is no file {shown} with a refresh token") from None
        except OSError:
            # The error of the file itself tells more.
            pass
        return read_file(self._path)

    def load(self) -> Deferred[str]:
        """Return a Deferred of the token."""
        return _read(self._reactor, self._content)

    def save(self, token: str) -> Deferred[None]:
        """Replace the file."""
        line = Secret(f"{token}\n")
        return off_reactor(
            self._reactor, lambda: write_file(self._path, line.reveal().encode("utf-8"))
        )


class RefreshTokenCommands(RefreshTokenStore):
    """A refresh token that one command prints and another stores, such as those of a password manager.

    :param reactor: runs the commands in its thread pool.
    :param load: a program and its arguments; it prints the token.
    :param save: the same; it reads the new token from its standard input.
    """

    def __init__(self, reactor: Any, load: Sequence[str], save: Sequence[str]) -> None:
        self._reactor = reactor
        self._load, self._save = tuple(load), tuple(save)

    def load(self) -> Deferred[str]:
        """Run the command that prints the token; 30 s at most."""
        command = SecretCommand(self._load)
        return _read(self._reactor, command.run, command.kill)

    def save(self, token: str) -> Deferred[None]:
        """Run the command that stores the token; 30 s at most."""
        line, command = Secret(f"{token}\n"), SecretCommand(self._save)

        def save() -> None:
            _ = command.run(line.reveal().encode("utf-8"))

        def end() -> None:
            # The stop waits for as long; the old token may be invalid by now.
            _ = self._reactor.callLater(SHUTDOWN_TIMEOUT - 0.5, command.kill)

        return off_reactor(self._reactor, save, end)


# -- tokens of other programs -----------------------------------------------------


class CommandTokens(TokenSource):
    """Tokens that a command prints, such as ``oama access user@example.org``.

    :param reactor: runs the command in its thread pool.
    :param command: a program and its arguments.  It is run for each connection, and again after a
        refusal; 30 s at most.
    """

    def __init__(self, reactor: Any, command: Sequence[str]) -> None:
        self._reactor = reactor
        self._command = tuple(command)

    def get(self, *, force_refresh: bool = False) -> Deferred[Token]:
        """Run the command; return a Deferred of the token.

        :raises CredentialsUnavailable: the command fails.
        """
        command = SecretCommand(self._command)
        return _read(self._reactor, command.run, command.kill).addCallback(Token)


class FileTokens(TokenSource):
    """Tokens in a file that another program replaces.

    :param reactor: reads the file in its thread pool.
    :param path: the file, with a token in its only line; others may not read it.  It is read for each
        connection, and again after a refusal.
    :param world_readable: accept a file that everybody may read.
    """

    def __init__(
        self, reactor: Any, path: str | os.PathLike[str], *, world_readable: bool = False
    ) -> None:
        self._reactor = reactor
        self._path = Path(path)
        self._world_readable = world_readable

    def get(self, *, force_refresh: bool = False) -> Deferred[Token]:
        """Read the file; return a Deferred of the token.

        :raises CredentialsUnavailable: it cannot be read.
        """
        return _read(
            self._reactor, lambda: read_file(self._path, world_readable=self._world_readable)
        ).addCallback(Token)


def _read(
    reactor: Any, read: Callable[[], bytes], end: Callable[[], None] | None = None
) -> Deferred[str]:
    def text() -> str:
        try:
            return one_line(read())
        except InvalidServer as e:
            raise CredentialsUnavailable(
                "the token cannot be obtained", detail=e.detail, remedy=e.remedy, phase="AUTH"
            ) from None

    return off_reactor(reactor, text, end)
