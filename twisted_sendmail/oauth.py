"""Sources of OAuth 2 tokens for ``Credentials(user, token=source)``: they refresh the tokens that they give.

``RefreshTokens`` and ``ClientCredentials`` ask a token endpoint over HTTPS, and need the extra ``oauth``;
``CommandTokens`` and ``FileTokens`` read what another program made.  A token is kept until shortly before
it expires.  One request is made for all connections that wait for a token.  A refusal that only a new
login ends is a ``GrantRefused``, which is logged, and which raises the relay's alarm of refused
credentials; any other failure is temporary.

RFC 6749 sections 4.4, 5 and 6.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlsplit

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS
from zope.interface import implementer

from twisted_sendmail.client import TLSTrust
from twisted_sendmail.extras import missing_extra
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.sasl import CredentialsUnavailable, Secret, Token, TokenSource
from twisted_sendmail.secret_file import read_file
from twisted_sendmail.secret_reader import one_line, run_command, write_file
from twisted_sendmail.shared_result import SharedResult
from twisted_sendmail.smtp import AuthenticationFailed, InvalidServer, SendmailError, printable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from twisted_sendmail.client import ServerVerifier

#: Seconds before its end from which on a token is not used; at most half of its life.
EXPIRY_MARGIN = 60.0
#: Seconds that a request to a token endpoint may take.
REQUEST_TIMEOUT = 30.0
#: Octets of an answer.
MAX_ANSWER = 64 * 1024

# These errors pass (RFC 6749 section 4.1.2.1, RFC 8628 section 3.5).
_TEMPORARY = frozenset(
    {"server_error", "temporarily_unavailable", "slow_down", "authorization_pending"}
)
_TOKEN = re.compile("[\x21-\x7e]+")
_SECRETS = ("refresh_token", "client_secret", "device_code")

_log = Logger(namespace="twisted_sendmail.oauth")


class GrantRefused(AuthenticationFailed):
    """The token endpoint gives no more tokens, until a person acts."""

    remedy = "authorize the program again, and store the new refresh token"
    #: The error code of RFC 6749 section 5.2, such as ``invalid_grant``.
    code = ""


@frozen
class OAuthProvider:
    """The endpoint of a provider of mail, and the scopes that its endpoint has to be asked for."""

    #: The token endpoint.
    token_url: str
    #: For a refresh token; empty: those that were granted.
    scope: str = ""
    #: For the client itself.
    application_scope: str = ""


#: Providers by name.  Which scopes a person has to grant is in the how-to guide on OAuth.
PROVIDERS: Mapping[str, OAuthProvider] = MappingProxyType(
    {
        "microsoft": OAuthProvider(
            "https://login.microsoftonline.com/common/oauth2/v2.0/token",
            "https://outlook.office.com/SMTP.Send offline_access",
            "https://outlook.office365.com/.default",
        ),
        "google": OAuthProvider("https://oauth2.googleapis.com/token"),
        "yahoo": OAuthProvider("https://api.login.yahoo.com/oauth2/get_token"),
        "fastmail": OAuthProvider("https://api.fastmail.com/oauth/refresh"),
    }
)


# -- the token endpoint -----------------------------------------------------------


class TokenEndpoint:
    """The token endpoint of an authorization server, with the client that is registered there.

    :param reactor: makes connections.
    :param url: its HTTPS URL; HTTP only on the loopback interface.
    :param client_id: the client, as registered at the server.
    :param client_secret: its secret; None for a public client.
    :param trust: how the endpoint proves its identity; None: the system's CAs and its host name.
    :raises InvalidServer: the URL or a file of *trust* cannot be used.
    :raises ImportError: the extra ``oauth`` is not installed.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        client_id: str,
        *,
        client_secret: str | None = None,
        trust: TLSTrust | None = None,
    ) -> None:
        try:
            from treq import collect
            from treq.client import HTTPClient
        except ImportError as e:
            raise missing_extra("oauth", e) from None
        self._secret = None if client_secret is None else Secret(client_secret)
        del client_secret
        _check_url(url)
        self.reactor = reactor
        self.url = url
        self.client_id = client_id
        self._collect = collect
        self._policy = _VerifyingPolicy(trust or TLSTrust())
        agent = Agent(reactor, self._policy, connectTimeout=REQUEST_TIMEOUT)
        self._client = HTTPClient(_UncompressedAgent(agent))

    def __repr__(self) -> str:
        return f"TokenEndpoint({self.url!r}, {self.client_id!r})"

    async def request(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Post a request with the client's identity; return the fields of the answer.

        :raises GrantRefused: the server refuses it, and will do so again.
        :raises CredentialsUnavailable: the server cannot be reached, or cannot answer now.
        """
        fields = {**form, "client_id": self.client_id}
        if self._secret is not None:
            fields["client_secret"] = self._secret.reveal()
        asking = Deferred.fromCoroutine(self._post(fields))
        timer = self.reactor.callLater(REQUEST_TIMEOUT, asking.cancel)
        try:
            status, content = await asking
        except SendmailError:
            raise
        except Exception as error:
            # The Agent wraps a cancellation, too.
            if not timer.active():
                why = f"no answer within {REQUEST_TIMEOUT:.0f} s"
                raise self._unavailable(why) from None
            if isinstance(error, CancelledError):
                raise
            verifier = self._policy.verifier
            rejection = None if verifier is None else verifier.rejection
            # An error of the parser quotes the answer, which may quote the request.
            raise self._unavailable(_masked(_reason(rejection or error), fields)) from None
        finally:
            if timer.active():
                timer.cancel()
        answer = _object(content)
        if status == 200 and answer is not None:
            return answer
        raise self._refusal(status, answer or {}, fields)

    async def _post(self, fields: Mapping[str, str]) -> tuple[int, bytes]:
        response = await self._client.post(
            self.url,
            data=dict(fields),
            headers=Headers({"Accept": ["application/json"]}),
            allow_redirects=False,
            unbuffered=True,
        )
        content = bytearray()

        def received(data: bytes) -> None:
            if len(content) + len(data) > MAX_ANSWER:
                raise self._unavailable(f"its answer is longer than {MAX_ANSWER} octets")
            content.extend(data)

        await self._collect(response, received)
        return response.code, bytes(content)

    def _refusal(
        self, status: int, answer: dict[str, Any], fields: Mapping[str, str]
    ) -> SendmailError:
        code, text = answer.get("error"), answer.get("error_description", "")
        if not isinstance(code, str) or not 400 <= status < 500 or status == 429:
            return self._unavailable(f"it answered with HTTP status {status}")
        detail = f"{code}: {text}" if isinstance(text, str) and text else code
        detail, code = (printable(_masked(each, fields), 300) for each in (detail, code))
        if code in _TEMPORARY:
            return self._unavailable(detail)
        what = f"the token endpoint {self.url} refuses {self.client_id}"
        remedy = None if code == "invalid_grant" else "correct the client, its secret or the scope"
        refused = GrantRefused(printable(what, 300), detail=detail, remedy=remedy, phase="AUTH")
        refused.code = code
        return refused

    def _unavailable(self, why: str) -> CredentialsUnavailable:
        return CredentialsUnavailable(
            printable(f"no token from {self.url}", 300),
            detail=why,
            remedy="it is asked again for the next connection",
            phase="AUTH",
        )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except (ValueError, TypeError, AttributeError):
        parts, host = urlsplit(""), ""
    allowed = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    if not host or not allowed or parts.username is not None:
        raise InvalidServer(
            f"the URL of the token endpoint, {printable(str(url), 200)}, cannot be used",
            remedy="write https://HOST/PATH; http:// is for the loopback interface only",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@implementer(IPolicyForHTTPS)
class _VerifyingPolicy:
    """Verifies the certificate of a web server by the rules for mail servers."""

    def __init__(self, trust: TLSTrust) -> None:
        self._trust = trust
        _ = trust.context()
        #: The verifier of the last connection.
        self.verifier: ServerVerifier | None = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> ServerVerifier:  # noqa: N802
        """See ``IPolicyForHTTPS``."""
        self.verifier = self._trust.verifier(hostname.decode("ascii"))
        return self.verifier


def _masked(text: str, fields: Mapping[str, str]) -> str:
    """Return *text* of the server without the secrets of the request, as they are or as in a form."""
    for name in _SECRETS:
        secret = fields.get(name)
        if secret:
            forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
            text = re.sub("|".join(map(re.escape, forms)), "<hidden>", text, flags=re.IGNORECASE)
    return text


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
        answer = await self._grant()
        value = _token(answer.get("access_token"))
        kind = answer.get("token_type", "Bearer")
        if value is None or not isinstance(kind, str) or kind.lower() != "bearer":
            raise CredentialsUnavailable(
                printable(f"no token from {self._endpoint.url}", 300),
                detail="its answer has no bearer token",
                remedy="check the URL",
                phase="AUTH",
            )
        life = _seconds(answer.get("expires_in"))
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


def _token(value: object) -> str | None:
    """Return a token of either kind; None if it could be neither sent nor stored in a line."""
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None


def _seconds(value: object) -> float | None:
    """Return the life of a token; some servers write it as text."""
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
        rotated = _token(answer.get("refresh_token"))
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


def token_source(
    reactor: Any,
    client_id: str,
    *,
    provider: str | None = None,
    token_url: str | None = None,
    client_secret: str | None = None,
    refresh_token_file: str | os.PathLike[str] | None = None,
    scope: str | None = None,
) -> TokenSource:
    """Return the source that settings describe: by a refresh token if there is a file, else of the client.

    :param reactor: makes connections, and reads files in its thread pool.
    :param client_id: the client, as registered at the provider.
    :param provider: a name in :data:`PROVIDERS`.
    :param token_url: the token endpoint, instead of the provider's.
    :param client_secret: the secret of the client; None for a public one.
    :param refresh_token_file: the file with the refresh token.
    :param scope: the scopes, separated by spaces, instead of the provider's.
    :raises InvalidServer: a setting cannot be used, or another one is needed.
    :raises ImportError: the extra ``oauth`` is not installed.
    """
    secret = None if client_secret is None else Secret(client_secret)
    del client_secret
    if provider is not None and provider not in PROVIDERS:
        raise InvalidServer(
            f"there is no OAuth provider {printable(provider, 60)}",
            remedy=f"write {', '.join(PROVIDERS)}, or give the URL of its token endpoint",
        )
    known = PROVIDERS[provider] if provider is not None else OAuthProvider("")
    url = token_url or known.token_url
    if not url:
        raise InvalidServer(
            "there is no token endpoint",
            remedy=f"name a provider ({', '.join(PROVIDERS)}), or its URL",
        )
    endpoint = TokenEndpoint(
        reactor, url, client_id, client_secret=None if secret is None else secret.reveal()
    )
    if refresh_token_file is not None:
        return RefreshTokens(
            endpoint,
            RefreshTokenFile(reactor, refresh_token_file),
            known.scope if scope is None else scope,
        )
    if secret is None or token_url is None:
        raise InvalidServer(
            "there is no refresh token",
            remedy="name its file; or give a client secret and the URL of the token endpoint, for tokens of "
            "the client itself",
        )
    return ClientCredentials(endpoint, known.application_scope if scope is None else scope)


# -- refresh tokens at rest -------------------------------------------------------


class RefreshTokenStore(ABC):
    """Holds one refresh token."""

    @abstractmethod
    def load(self) -> Awaitable[str]:
        """Return a Deferred, or another awaitable, of the token.

        :raises SendmailError: there is none.
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

    def load(self) -> Deferred[str]:
        """Return a Deferred of the token."""
        return _read(self._reactor, lambda: read_file(self._path))

    def save(self, token: str) -> Deferred[None]:
        """Replace the file."""
        line = Secret(f"{token}\n")
        return off_reactor(
            self._reactor, lambda: write_file(self._path, line.reveal().encode("utf-8"))
        )


class RefreshTokenCommands(RefreshTokenStore):
    """A refresh token behind two commands, such as those of a password manager.

    :param reactor: runs the commands in its thread pool.
    :param load: a program and its arguments; it prints the token.
    :param save: the same; it reads the new token from its standard input.
    """

    def __init__(self, reactor: Any, load: Sequence[str], save: Sequence[str]) -> None:
        self._reactor = reactor
        self._load, self._save = tuple(load), tuple(save)

    def load(self) -> Deferred[str]:
        """Run the command that prints the token; 30 s at most."""
        return _read(self._reactor, lambda: run_command(self._load))

    def save(self, token: str) -> Deferred[None]:
        """Run the command that stores the token; 30 s at most."""
        line = Secret(f"{token}\n")

        def save() -> None:
            _ = run_command(self._save, line.reveal().encode("utf-8"))

        return off_reactor(self._reactor, save)


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
        return _read(self._reactor, lambda: run_command(self._command)).addCallback(Token)


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


def _read(reactor: Any, read: Callable[[], bytes]) -> Deferred[str]:
    def text() -> str:
        try:
            return one_line(read())
        except InvalidServer as e:
            raise CredentialsUnavailable(
                "the token cannot be had", detail=e.detail, remedy=e.remedy, phase="AUTH"
            ) from None

    return off_reactor(reactor, text)
