"""HTTP for the admin endpoint: requests and responses as values, security headers, limits.

Every response forbids scripts, frames and caches. There is no access log: a health check comes
every few seconds. RFC 9110 (HTTP), CSP level 3, Fetch Metadata.
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
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_sendmail.admin.pages import STYLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from twisted.python.failure import Failure

#: Octets and fields of a form.
MAX_FORM_SIZE, MAX_FORM_FIELDS = 65536, 4000
#: Connections at a time: some people, a scraper and a health check.
MAX_CONNECTIONS = 64
#: Seconds that a connection may be idle, or take for a request.
REQUEST_TIMEOUT = 30
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


def http_factory(
    reactor: Any, respond: Callable[[HTTPRequest], Awaitable[HTTPResponse]]
) -> WrappingFactory:
    """Return the factory to listen with.

    :param respond: called with each request.
    """
    site = _UnloggedSite(_Root(respond), reactor=reactor, timeout=REQUEST_TIMEOUT)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    return _BoundedFactory(site)  # type: ignore[no-untyped-call]  # the same


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


class _UnloggedSite(Site):
    """A site without an access log, and without the clock that its log needs."""

    noisy = False
    requestFactory = _BoundedRequest  # noqa: N815 - Twisted's

    def startFactory(self) -> None:
        """Open no log."""

    def stopFactory(self) -> None:
        """Close no log."""

    def log(self, request: Any) -> None:
        """Log nothing."""


class _BoundedFactory(WrappingFactory):
    """Accepts at most ``MAX_CONNECTIONS`` at a time."""

    noisy = False

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """Return the name of the listener in the log."""
        return "admin site"

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.protocols) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)
