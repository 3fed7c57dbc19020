"""HTTP of the admin endpoint on real sockets: security headers and limits."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.web.http import HTTPFactory
from zope.interface import implementer

from tests.admin.queue_contents import TOKEN, FakeRelay, QueueFiller
from tests.memory_queue import MemoryQueue
from tests.other_users import ALICE, BOB, as_user, needs_root
from twisted_sendmail import InvalidInput
from twisted_sendmail.admin import web
from twisted_sendmail.admin.site import AdminSite, is_local
from twisted_sendmail.admin.web import (
    COOKIE,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_OF_ORIGIN,
    RETRY_AFTER,
    STYLE_SOURCE,
    HTTPRequest,
    HTTPResponse,
    http_factory,
    text_response,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Every line that is logged."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def note(event: Any) -> None:
        lines.append(str(event))

    globalLogPublisher.addObserver(note)
    yield lines
    globalLogPublisher.removeObserver(note)


class Served:
    """A site on a port, and what it says to octets."""

    def __init__(self, reactor: Any, site: AdminSite) -> None:
        self.reactor, self.site = reactor, site
        self.port = 0

    async def start(self) -> None:
        self.site.startService()
        endpoint = serverFromString(self.reactor, "tcp:0:interface=127.0.0.1")
        listening: Any = await self.site.listen(endpoint)
        self.port = listening.getHost().port

    async def say(self, octets: bytes) -> bytes:
        """Send *octets*, and read until it closes."""
        return await deferToThread(self._say, octets)

    def _say(self, octets: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as peer:
            peer.sendall(octets)
            received = b""
            while piece := self._heard(peer):
                received += piece
            return received

    def _heard(self, peer: socket.socket) -> bytes:
        try:
            return peer.recv(65536)
        except ConnectionResetError:
            return b""

    async def ask(
        self, method: str, path: str, *headers: str, body: bytes = b""
    ) -> tuple[str, dict[str, str], bytes]:
        """One request; gives the status line, headers by lower-case name, and the body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        received = await self.say("\r\n".join([*lines, "", ""]).encode() + body)
        head, _, content = received.partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        return status, {n.lower(): v for n, _, v in (f.partition(": ") for f in fields)}, content


@pytest_twisted.async_yield_fixture
async def served(reactor: Any) -> AsyncIterator[Served]:
    queue = MemoryQueue(reactor)
    await queue.open()
    await QueueFiller(queue, reactor).message()
    served = Served(reactor, AdminSite(reactor, queue, FakeRelay(queue, reactor), token=TOKEN))
    await served.start()
    yield served
    await served.site.stopService()


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/metrics", "/sign-in", "/nothing", "/message/0123456789AB"]
)
@pytest_twisted.ensureDeferred
async def test_every_response_forbids_scripts_frames_caches_and_referrers(
    served: Served, path: str
) -> None:
    _, headers, _ = await served.ask("GET", path)
    policy = (
        f"default-src 'none'; style-src {STYLE_SOURCE}; img-src data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    expected = {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }
    assert {name: headers.get(name) for name in expected} == expected
    assert "server" not in headers


@pytest_twisted.ensureDeferred
async def test_head_has_the_headers_and_no_body(served: Served) -> None:
    status, headers, body = await served.ask("HEAD", "/healthz")
    assert (status, headers["content-length"], body) == ("HTTP/1.1 200 OK", "3", b"")


@pytest_twisted.ensureDeferred
async def test_signing_in_sets_an_http_only_same_site_cookie(
    served: Served,
) -> None:
    status, headers, _ = await served.ask("POST", "/sign-in", body=f"token={TOKEN}".encode())
    assert (status, headers["location"]) == ("HTTP/1.1 303 See Other", "/")
    name, *rest = headers["set-cookie"].split("; ")
    assert name.startswith(f"{COOKIE}=")
    assert sorted(rest) == ["HttpOnly", "Path=/", "SameSite=strict"]
    _, _, body = await served.ask("GET", "/", f"Cookie: {name}")
    assert b"Sign out" in body


@pytest_twisted.ensureDeferred
async def test_requests_are_not_logged(served: Served, logged: list[str]) -> None:
    for method in ("GET", "HEAD"):
        await served.ask(method, "/healthz")
    await served.ask("GET", "/?recipient=somebody")
    await served.ask("POST", "/sign-in", body=b"token=a-wrong-token-of-somebody")
    await served.ask("POST", "/sign-in", body=f"token={TOKEN}".encode())
    assert [
        line
        for line in logged
        if "HTTP" in line or "healthz" in line or "somebody" in line or TOKEN in line
    ] == []
    assert logged == []


@pytest_twisted.ensureDeferred
async def test_a_name_in_the_request_line_does_not_replace_the_host(served: Served) -> None:
    received = await served.say(
        b"GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    )
    assert received.startswith(b"HTTP/1.1 421 ")
    received = await served.say(b"GET / HTTP/1.0\r\n\r\n")
    assert b" 421 " in received.partition(b"\r\n")[0]


@pytest_twisted.ensureDeferred
async def test_a_form_of_more_than_64_kib_is_refused_before_it_is_read(served: Served) -> None:
    head = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n"
    received = await served.say(head)
    assert received.partition(b"\r\n")[0] == b"HTTP/1.1 413 Content Too Large"


@pytest_twisted.ensureDeferred
async def test_a_form_of_64_kib_is_read(served: Served) -> None:
    body = b"token=" + b"x" * (65536 - 6)
    status, _, _ = await served.ask("POST", "/sign-in", body=body)
    assert status == "HTTP/1.1 403 Forbidden"


@pytest_twisted.ensureDeferred
async def test_a_body_of_unknown_length_is_counted_as_it_comes(served: Served) -> None:
    head = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = await served.say(
        head + b"1000\r\n" + b"x" * 4096 + b"\r\n" + (b"8000\r\n" + b"x" * 32768 + b"\r\n") * 2
    )
    assert received.startswith(b"HTTP/1.1 413 ")
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n\r\n\r\n",
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_invalid_http_is_refused(served: Served, octets: bytes) -> None:
    received = await served.say(octets)
    # A line that is too long is not even answered.
    assert received[:13] in {b"", b"HTTP/1.1 400 "}
    assert (await served.ask("GET", "/healthz"))[2] == b"ok\n"


@pytest.mark.parametrize(
    "body",
    [b"&" * 5000, b"a=1&" * 5000, b"%ff=%00&token=%", b"\xff\xfe", b"token=" + b"%C3" * 1000],
)
@pytest_twisted.ensureDeferred
async def test_an_invalid_form_does_not_sign_in(served: Served, body: bytes) -> None:
    status, headers, _ = await served.ask("POST", "/sign-in", body=body)
    assert status == "HTTP/1.1 403 Forbidden"
    assert "set-cookie" not in headers


ASK_PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASK_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def read_all(peer: socket.socket) -> bytes:
    """Read until the connection is closed, in order or not."""
    received = b""
    try:
        while piece := peer.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX: "], ids=["silent", "slow"])
@pytest_twisted.ensureDeferred
async def test_slow_connections_do_not_stop_the_health_check(served: Served, start: bytes) -> None:
    def crowd() -> tuple[bytes, bytes]:
        with ExitStack() as opened:
            for number in range(2 * MAX_CONNECTIONS):
                # Each address of the loopback network is another client.
                source = (f"127.0.1.{number}", 0)
                peer = socket.create_connection(("127.0.0.1", served.port), 30, source)
                opened.enter_context(peer).sendall(start)
            return served._say(ASK_HEALTH), served._say(ASK_PAGE)

    health, page = await deferToThread(crowd)
    assert health.endswith(b"\r\n\r\nok\n")
    head = page.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"HTTP/1.1 503 Service Unavailable"
    assert f"Retry-After: {RETRY_AFTER}".encode() in head
    # The others are closed by now.
    assert (await served.ask("GET", "/"))[0] == "HTTP/1.1 200 OK"


@pytest_twisted.ensureDeferred
async def test_connections_from_one_address_leave_some_to_others(served: Served) -> None:
    def crowd() -> list[bytes]:
        with ExitStack() as opened:
            for _ in range(MAX_CONNECTIONS):
                opened.enter_context(socket.create_connection(("127.0.0.1", served.port), 30))
            answers = [served._say(ASK_HEALTH), served._say(ASK_PAGE)]
            other = socket.create_connection(("127.0.0.1", served.port), 30, ("127.0.0.2", 0))
            opened.enter_context(other).sendall(ASK_PAGE)
            answers.append(read_all(other))
        return [answer.partition(b"\r\n")[0] for answer in answers]

    assert await deferToThread(crowd) == [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 503 Service Unavailable",
        b"HTTP/1.1 200 OK",
    ]


@needs_root
@pytest_twisted.ensureDeferred
async def test_users_of_a_unix_socket_are_limited_apart(reactor: Any, open_folder: Path) -> None:
    queue = MemoryQueue(reactor)
    await queue.open()
    site = AdminSite(reactor, queue, FakeRelay(queue, reactor))
    path = str(open_folder / "admin")
    await site.listen(serverFromString(reactor, f"unix:{path}"))
    code = (
        "def ask():\n"
        "    opened.append(socket.socket(socket.AF_UNIX))\n"
        "    opened[-1].connect(sys.argv[1])\n"
        "    opened[-1].sendall(sys.argv[3].encode())\n"
        "    return opened[-1].recv(12)\n"
        "opened = []\n"
        "for number in range(int(sys.argv[2])):\n"
        "    opened.append(socket.socket(socket.AF_UNIX))\n"
        "    opened[-1].connect(sys.argv[1])\n"
        "first = ask()\n"
        "os.setuid(int(sys.argv[4])) if len(sys.argv) > 4 else None\n"
        "print(first, ask())"
    )
    many, page = str(MAX_CONNECTIONS_OF_ORIGIN), ASK_PAGE.decode()
    crowded = await deferToThread(as_user, ALICE, code, path, many, page)
    as_root_then_bob = await deferToThread(as_user, 0, code, path, many, page, str(BOB))
    await site.stopService()
    refused, served = b"b'HTTP/1.1 503'", b"b'HTTP/1.1 200'"
    assert crowded.stdout == refused + b" " + refused + b"\n"
    assert as_root_then_bob.stdout == refused + b" " + served + b"\n"


@pytest_twisted.ensureDeferred
async def test_octets_do_not_extend_the_deadline_of_a_request(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_TIMEOUT", 0.3)

    def trickle(start: bytes) -> int:
        with socket.create_connection(("127.0.0.1", served.port), 30) as peer:
            peer.sendall(start)
            for sent in range(1000):
                try:
                    peer.sendall(b"x")
                except OSError:
                    return sent
                threading.Event().wait(0.02)
        raise AssertionError("the connection is still open")

    header = b"GET / HTTP/1.1\r\nX: "
    body = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    for start in (header, body):
        assert await deferToThread(trickle, start) > 1


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_the_response_is_dropped(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_TIMEOUT", 0.3)
    size = 64 * 1024 * 1024

    async def large(request: HTTPRequest) -> HTTPResponse:
        return HTTPResponse(200, bytes(size))

    dropped = threading.Event()
    factory: Any = http_factory(reactor, large)
    closed = factory.closed

    def closing(channel: Any) -> None:
        closed(channel)
        dropped.set()

    monkeypatch.setattr(factory, "closed", closing)
    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
    where: Any = port.getHost()

    def visit() -> int:
        with socket.create_connection(("127.0.0.1", where.port), 30) as peer:
            peer.sendall(ASK_PAGE)
            assert dropped.wait(30)
            return len(read_all(peer))

    assert await deferToThread(visit) < size
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_lost_connection_cancels_its_request(reactor: Any, logged: list[str]) -> None:
    cancelled: Deferred[None] = Deferred()

    async def never(request: HTTPRequest) -> HTTPResponse:
        waiting: Deferred[HTTPResponse] = Deferred(lambda _: cancelled.callback(None))
        return await waiting

    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(
        http_factory(reactor, never)
    )
    where: Any = port.getHost()

    def visit() -> None:
        with socket.create_connection(("127.0.0.1", where.port), 30) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    await deferToThread(visit)
    await cancelled
    await deferLater(reactor, 0)
    await port.stopListening()
    assert [line for line in logged if "Traceback" in line or "failure" in line] == []


@pytest_twisted.ensureDeferred
async def test_an_internal_error_is_500_with_details_only_in_the_log(
    reactor: Any, logged: list[str]
) -> None:
    async def broken(request: HTTPRequest) -> HTTPResponse:
        if request.path == "/fine":
            return text_response(200, "fine")
        raise ZeroDivisionError("a secret detail")

    served = Served(reactor, None)  # type: ignore[arg-type]  # there is no site behind it
    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(
        http_factory(reactor, broken)
    )
    served.port = port.getHost().port
    status, headers, body = await served.ask("GET", "/")
    assert (
        status,
        body,
    ) == ("HTTP/1.1 500 Internal Server Error", b"something went wrong; see the log\n")
    assert headers["x-frame-options"] == "DENY"
    assert (await served.ask("GET", "/fine"))[2] == b"fine\n"
    await port.stopListening()
    assert len([line for line in logged if "a secret detail" in line]) == 1


# Where it listens.


@pytest.mark.parametrize(
    "description", ["tcp:0", "tcp:0:interface=0.0.0.0", "tcp6:0", "tcp6:0:interface=\\:\\:"]
)
@pytest_twisted.ensureDeferred
async def test_listening_on_other_than_local_addresses_needs_public(
    reactor: Any, description: str
) -> None:
    queue = MemoryQueue(reactor)
    site = AdminSite(reactor, queue, FakeRelay(queue, reactor))
    with pytest.raises(InvalidInput, match="other hosts could read senders and recipients"):
        await site.listen(serverFromString(reactor, description))
    public = AdminSite(reactor, queue, FakeRelay(queue, reactor), public=True)
    port: Any = await public.listen(serverFromString(reactor, description))
    assert port.getHost().port > 0
    await public.stopService()


@pytest_twisted.ensureDeferred
async def test_listening_on_loopback_and_unix_sockets(reactor: Any, tmp_path: Path) -> None:
    queue = MemoryQueue(reactor)
    for description in (
        "tcp:0:interface=127.0.0.1",
        "tcp6:0:interface=\\:\\:1",
        f"unix:{tmp_path}/admin",
    ):
        site = AdminSite(reactor, queue, FakeRelay(queue, reactor))
        port = await site.listen(serverFromString(reactor, description))
        assert is_local(port.getHost())
        await site.stopService()


@pytest_twisted.ensureDeferred
async def test_the_listening_address_is_a_name_of_the_site(reactor: Any) -> None:
    queue = MemoryQueue(reactor)
    await queue.open()
    site = AdminSite(reactor, queue, FakeRelay(queue, reactor))
    port: Any = await site.listen(serverFromString(reactor, "tcp:0:interface=127.9.9.9"))

    def visit(name: str) -> bytes:
        where = ("127.9.9.9", port.getHost().port)
        with socket.create_connection(where, 30) as peer:
            peer.sendall(f"GET /healthz HTTP/1.1\r\nHost: {name}:{where[1]}\r\n\r\n".encode())
            return peer.recv(65536).partition(b"\r\n")[0]

    said = [await deferToThread(visit, name) for name in ("127.9.9.9", "127.9.9.8")]
    await site.stopService()
    assert said == [b"HTTP/1.1 200 OK", b"HTTP/1.1 421 Misdirected Request"]


def test_a_private_page_needs_a_token(reactor: Any) -> None:
    queue = MemoryQueue(reactor)
    with pytest.raises(InvalidInput, match="the queue page cannot be private"):
        AdminSite(reactor, queue, FakeRelay(queue, reactor), private=True)


def test_it_is_a_site_of_twisted_web(reactor: Any) -> None:
    queue = MemoryQueue(reactor)
    site = AdminSite(reactor, queue, FakeRelay(queue, reactor))
    assert isinstance(site.factory, HTTPFactory)
