"""HTTP for the admin endpoint: a request as a value, an answer as a value, and the guards.

What every answer carries (no script, no frame, no cache), which names a request may be
for, how much it may bring.  There is no access log: health checks come every few seconds,
and a log line of a sign-in would help nobody.

RFC 9110 (HTTP), CSP level 3, Fetch Metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_sendmail.admin.style import SOURCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from twisted.python.failure import Failure

#: Octets that a form may have.
LARGEST = 65536
#: Fields of it.
FIELDS = 4000
#: Connections at once.
CONNECTIONS = 64
#: Seconds a connection may be idle, or take for a request.
PATIENCE = 30
#: The session's cookie.
COOKIE = "twisted_sendmail_session"

_LOG = Logger(namespace="twisted_sendmail.daemon")
_ALWAYS_MEANT = frozenset({"localhost", "127.0.0.1", "[::1]"})
_POLICY = (
    f"default-src 'none'; style-src {SOURCE}; img-src data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    #: Of a POST.
    form: dict[str, list[str]] = field(default_factory=dict, repr=False)
    host: str = ""
    #: Who made the browser ask; None: it does not say.
    origin: str | None = None
    fetch_site: str | None = None
    #: The name of a session, from the cookie.
    session: str | None = field(default=None, repr=False)

    def one(self, name: str) -> str:
        """A field of the form, ``""`` if it is not there."""
        return self.form.get(name, [""])[-1]

    @property
    def from_here(self) -> bool:
        """Does a form come from a page of ours, as far as the browser says?

        Under ``no-referrer`` a browser gives the origin of our own forms as ``null``; those
        that know Fetch Metadata then say it there.
        """
        if self.fetch_site is not None:
            return self.fetch_site == "same-origin"
        if self.origin in {None, "null"}:
            return True
        return self.origin in {f"http://{self.host}", f"https://{self.host}"}


@dataclass(frozen=True)
class Answer:
    """What is said to it."""

    code: int
    body: bytes = b""
    kind: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    #: A session begins (its name), or ends (``""``); None: neither.
    session: str | None = None


def text(code: int, line: str, *headers: tuple[str, str]) -> Answer:
    """A line of ours."""
    return Answer(code, line.encode() + b"\n", "text/plain; charset=utf-8", headers)


def see(where: str, session: str | None = None) -> Answer:
    """Go there, by GET."""
    return Answer(303, headers=(("Location", where),), session=session)


class Names:
    """The names a request may be for: a page elsewhere whose name leads here is refused.

    :param names: besides ``localhost`` and the loopback addresses; without a port.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {*_ALWAYS_MEANT, *(name.lower().rstrip(".") for name in names)}

    def add(self, address: str) -> None:
        """An IP address that it is to be found at: nobody can let that lead elsewhere."""
        self._names.add(f"[{address}]" if ":" in address else address)

    def __contains__(self, host: str) -> bool:
        name, colon, port = host.lower().rpartition(":")
        if not colon or not port.isdigit():
            name = host.lower()
        return name.rstrip(".") in self._names


class _Request(Request):
    """A request that brings no more than a form."""

    _taken = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's
        # Known before any of it is read; a body of unknown length is counted as it comes.
        super().gotLength(min(length or 0, LARGEST))  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        if length is not None and length > LARGEST:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        self._taken += len(data)
        if self._taken > LARGEST:
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


class _Root(Resource):
    """All of the site: one function from request to answer."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, answer: Callable[[Asked], Awaitable[Answer]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._answer = answer

    def render(self, request: Request) -> int:
        """See ``IResource``."""
        answering = Deferred.fromCoroutine(self._respond(request))

        def gone(failure: Failure) -> None:
            # Whoever went away is not waited for, and nothing is written to him.
            answering.cancel()

        finished = request.notifyFinish()
        _ = finished.addErrback(gone)
        _ = answering.addCallback(partial(write, request)).addErrback(_unanswered)
        return NOT_DONE_YET

    async def _respond(self, request: Request) -> Answer:
        try:
            return await self._answer(asked(request))
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the log is told, and who asks gets no more than that
            _LOG.failure("the admin endpoint could not answer")
            return text(500, "something went wrong; the log has it")


def _unanswered(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _LOG.failure("the admin endpoint could not write its answer", failure=failure)


class _Site(Site):
    """Without an access log, and without the clock that one needs."""

    noisy = False
    requestFactory = _Request  # noqa: N815 - Twisted's

    def startFactory(self) -> None:
        """Open no log."""

    def stopFactory(self) -> None:
        """There is none to close."""

    def log(self, request: Any) -> None:
        """Say nothing."""


class _Bounded(WrappingFactory):
    """No more connections than a few people, a scraper and a health check have."""

    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.protocols) >= CONNECTIONS:
            return None
        return super().buildProtocol(addr)


def factory(reactor: Any, answer: Callable[[Asked], Awaitable[Answer]]) -> WrappingFactory:
    """The factory for an endpoint to listen with.

    :param answer: what is said to each request.
    """
    return _Bounded(_Site(_Root(answer), reactor=reactor, timeout=PATIENCE))  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


def asked(request: Request) -> Asked:
    """A request of twisted.web as a value."""
    body = request.content.read() if request.method == b"POST" and request.content else b""
    _, _, query = request.uri.partition(b"?")
    cookie = request.getCookie(COOKIE.encode())
    return Asked(
        _read(request.method),
        _read(request.path),
        {name: values[-1] for name, values in _fields(query).items()},
        _fields(body),
        _header(request, "Host") or "",
        _header(request, "Origin"),
        _header(request, "Sec-Fetch-Site"),
        _read(cookie) if cookie is not None else None,
    )


def _read(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _header(request: Request, name: str) -> str | None:
    values = request.requestHeaders.getRawHeaders(name)
    return values[0] if values else None


def _fields(octets: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(_read(octets), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        return {}


def write(request: Request, answer: Answer) -> None:
    """Write *answer* with all that every answer carries."""
    headers = request.responseHeaders
    headers.removeHeader("Server")
    for name, value in (*_HEADERS, *answer.headers, ("Content-Type", answer.kind)):
        headers.setRawHeaders(name, [value])
    headers.setRawHeaders("Content-Length", [str(len(answer.body))])
    if answer.session is not None:
        request.addCookie(
            COOKIE,
            answer.session,
            path="/",
            max_age=None if answer.session else "0",
            httpOnly=True,
            sameSite="strict",
            secure=request.isSecure(),
        )
    request.setResponseCode(answer.code, HTTPStatus(answer.code).phrase.encode())
    request.write(answer.body)
    request.finish()
