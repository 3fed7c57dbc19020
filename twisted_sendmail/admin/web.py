"""HTTP for the admin endpoint: requests and responses as values, security headers, limits.

Every response forbids scripts, frames and caches. There is no access log: a health check comes
every few seconds. RFC 9110 (HTTP), CSP level 3, Fetch Metadata.

A connection has one request and one deadline for all of it, which octets do not extend. Connections
are limited in all and for each client. A few more are accepted for the health check alone, and the
oldest of these is closed for the next one: so clients that are slow cannot stop the health check.
"""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_sendmail.admin.pages import STYLE
from twisted_sendmail.local_users import peer_of
from twisted_sendmail.server import ConnectionCounter, ConnectionLimits, client_origin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

#: Octets and fields of a form.
MAX_FORM_SIZE, MAX_FORM_FIELDS = 65536, 4000
#: Connections at a time: in all, and from one address or of one user on a Unix socket.
MAX_CONNECTIONS, MAX_CONNECTIONS_OF_ORIGIN = 64, 32
#: Connections beyond these limits, which get the health check and nothing else.
HEALTH_CONNECTIONS = 8
#: Seconds from connect to the end of the response, and the same beyond the limits.
REQUEST_TIMEOUT, HEALTH_TIMEOUT = 30.0, 5.0
#: Seconds after which a client that was refused should try again.
RETRY_AFTER = 5
COOKIE = "twisted_sendmail_session"

_LOG = Logger(namespace="twisted_sendmail.daemon")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: The style sheet in the policy (CSP level 3 section 2.3.1).
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
_CONTENT_POLICY = (
    f"default-src 'none'; style-src {STYLE_SOURCE}; img-src data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_SECURITY_HEADERS = (
    ("Content-Security-Policy", _CONTENT_POLICY),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


@frozen
class HTTPRequest:
    """A request."""

    method: str
    path: str
    query: dict[str, str] = field(factory=dict)
    #: The fields of a POST.
    form: dict[str, list[str]] = field(factory=dict, repr=False)
    host: str = ""
    #: The site whose page made the request; None: the browser sent none.
    origin: str | None = None
    fetch_site: str | None = None
    #: The name of the session, from the cookie.
    session: str | None = field(default=None, repr=False)

    def field(self, name: str) -> str:
        """Return the last value of a field of the form, ``""`` if there is none."""
        return self.form.get(name, [""])[-1]

    @property
    def same_origin(self) -> bool:
        """False if the browser's headers name another site as the form's origin.

        Under ``no-referrer`` a browser sends the origin ``null`` for our own forms; browsers with
        Fetch Metadata then have ``Sec-Fetch-Site``.
        """
        if self.fetch_site is not None:
            return self.fetch_site == "same-origin"
        return self.origin in {None, "null", f"http://{self.host}", f"https://{self.host}"}


@frozen
class HTTPResponse:
    """A response; every response has the security headers besides."""

    code: int
    body: bytes = b""
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    #: The name of a session that begins, ``""`` if the session ends; None: no change.
    session: str | None = None


def text_response(code: int, line: str, *headers: tuple[str, str]) -> HTTPResponse:
    """Return a response with one line of text."""
    return HTTPResponse(code, line.encode() + b"\n", "text/plain; charset=utf-8", headers)


def redirect(to: str, session: str | None = None) -> HTTPResponse:
    """Return a redirection by GET."""
    return HTTPResponse(303, headers=(("Location", to),), session=session)


class HostNames:
    """The names that the endpoint answers to; a page of another name that resolves here is refused.

    :param names: besides ``localhost`` and the loopback addresses; without a port.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {*_LOOPBACK_NAMES, *(name.lower().rstrip(".") for name in names)}

    def add_address(self, address: str) -> None:
        """Answer to an IP address too: a name cannot be made to look like one."""
        self._names.add(f"[{address}]" if ":" in address else address)

    def __contains__(self, host: str) -> bool:
        name, colon, port = host.lower().rpartition(":")
        if not colon or not port.isdigit():
            name = host.lower()
        return name.rstrip(".") in self._names


def http_factory(reactor: Any, respond: Callable[[HTTPRequest], Awaitable[HTTPResponse]]) -> Site:
    """Return the factory to listen with.

    :param respond: called with each request.
    """
    return _BoundedSite(_Root(respond), reactor)


def busy_response() -> HTTPResponse:
    """Return the response to a client that has to wait."""
    retry_after = ("Retry-After", str(RETRY_AFTER))
    return text_response(503, "too many requests at once; try again", retry_after)


class _Root(Resource):
    """The whole site; hands each request to one function."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, respond: Callable[[HTTPRequest], Awaitable[HTTPResponse]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._respond = respond

    def render(self, request: Request) -> int:
        """See ``IResource``."""
        responding = Deferred.fromCoroutine(self._response(request))
        # A client that closes the connection is not answered any more.
        finished = request.notifyFinish()
        _ = finished.addErrback(lambda _: responding.cancel())
        _ = responding.addCallback(partial(_write, request)).addErrback(_not_written)
        return NOT_DONE_YET

    async def _response(self, request: Request) -> HTTPResponse:
        channel: Any = request.channel
        if channel.health_only and request.path != b"/healthz":
            return busy_response()
        try:
            return await self._respond(_read_request(request))
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - logged; the client learns no details
            _LOG.failure("the admin endpoint could not answer")
            return text_response(500, "something went wrong; see the log")


def _read_request(request: Request) -> HTTPRequest:
    body = request.content.read() if request.method == b"POST" and request.content else b""
    query = request.uri.partition(b"?")[2]
    cookie = request.getCookie(COOKIE.encode())
    return HTTPRequest(
        _text(request.method),
        _text(request.path),
        {name: values[-1] for name, values in _fields(query).items()},
        _fields(body),
        _header(request, "Host") or "",
        _header(request, "Origin"),
        _header(request, "Sec-Fetch-Site"),
        _text(cookie) if cookie is not None else None,
    )


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _header(request: Request, name: str) -> str | None:
    values = request.requestHeaders.getRawHeaders(name)
    return values[0] if values else None


def _fields(octets: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(_text(octets), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        return {}


def _write(request: Request, response: HTTPResponse) -> None:
    headers = request.responseHeaders
    headers.removeHeader("Server")
    content_type = ("Content-Type", response.content_type)
    for name, value in (*_SECURITY_HEADERS, *response.headers, content_type):
        headers.setRawHeaders(name, [value])
    headers.setRawHeaders("Content-Length", [str(len(response.body))])
    if response.session is not None:
        request.addCookie(
            COOKIE,
            response.session,
            path="/",
            max_age=None if response.session else "0",
            httpOnly=True,
            sameSite="strict",
            secure=request.isSecure(),
        )
    request.setResponseCode(response.code, HTTPStatus(response.code).phrase.encode())
    request.write(response.body)
    request.finish()


def _not_written(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _LOG.failure("the admin endpoint could not write its answer", failure=failure)


class _BoundedRequest(Request):
    """A request with a body of at most ``MAX_FORM_SIZE``."""

    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's
        super().gotLength(min(length or 0, MAX_FORM_SIZE))  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        if length is not None and length > MAX_FORM_SIZE:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        # A chunked body has no length, so its octets are counted.
        self._received += len(data)
        if self._received > MAX_FORM_SIZE:
            self._refuse()
        elif not self._refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped

    def _refuse(self) -> None:
        if not self._refused:
            self._refused = True
            transport: Any = self.channel.transport
            transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            self.channel.loseConnection()

    def process(self) -> None:
        if not self._refused:
            super().process()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


class _OneRequestChannel(HTTPChannel):
    """A connection with one request."""

    site: _BoundedSite
    #: The connection is beyond the limits.
    health_only = False
    origin: Hashable = None
    deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self.site.opened(self)

    def checkPersistence(self, request: Request, version: bytes) -> bool:  # noqa: N802 - Twisted's
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's is untyped
        self.site.closed(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # the same

    def drop(self) -> None:
        """Close the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()


class _BoundedSite(Site):
    """A site with limits, and without an access log and the clock that its log needs."""

    noisy = False
    protocol = _OneRequestChannel  # type: ignore[assignment]  # Twisted names its own wrapper
    requestFactory = _BoundedRequest  # noqa: N815 - Twisted's

    def __init__(self, root: Resource, reactor: Any) -> None:
        # The timeout of Twisted would begin again with each octet.
        super().__init__(root, reactor=reactor, timeout=None)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._clock = reactor
        self._counter = ConnectionCounter()
        # The oldest first.
        self._beyond_limits: list[_OneRequestChannel] = []

    def opened(self, channel: _OneRequestChannel) -> None:
        """Count a connection, and set its deadline."""
        transport: Any = channel.transport
        handle = transport.getHandle()
        channel.origin = client_origin(transport.getPeer(), peer_of(handle))
        each = MAX_CONNECTIONS_OF_ORIGIN
        limits = ConnectionLimits(MAX_CONNECTIONS, per_address=each, per_user=each)
        channel.health_only = self._counter.opened(channel.origin, limits) is not None
        seconds = HEALTH_TIMEOUT if channel.health_only else REQUEST_TIMEOUT
        channel.deadline = self._clock.callLater(seconds, channel.drop)
        if channel.health_only:
            self._beyond_limits.append(channel)
            if len(self._beyond_limits) > HEALTH_CONNECTIONS:
                self._beyond_limits.pop(0).drop()

    def closed(self, channel: _OneRequestChannel) -> None:
        """Count a connection that is over."""
        self._counter.closed(channel.origin)
        if channel in self._beyond_limits:
            self._beyond_limits.remove(channel)
        if channel.deadline is not None and channel.deadline.active():
            channel.deadline.cancel()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """Return the name of the listener in the log."""
        return "admin site"

    def startFactory(self) -> None:
        """Open no log."""

    def stopFactory(self) -> None:
        """Close no log."""

    def log(self, request: Any) -> None:
        """Log nothing."""
