"""Sources of OAuth tokens, at a token endpoint on the loopback interface."""

from __future__ import annotations

import gzip
import os
import stat
import sys
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.web.server import NOT_DONE_YET

from tests.deferreds import Result
from tests.other_users import ALICE, BOB, as_user, needs_root
from tests.token_endpoint import REFRESH, SECRET, Endpoint, answer, listen
from twisted_sendmail import (
    Credentials,
    InvalidServer,
    ServerTLS,
    SubmissionServer,
    TLSTrust,
    oauth,
    submit,
)
from twisted_sendmail.oauth import (
    ClientCredentials,
    CommandTokens,
    FileTokens,
    GrantRefused,
    RefreshTokenCommands,
    RefreshTokenFile,
    RefreshTokens,
    RefreshTokenStore,
    TokenEndpoint,
    TokenEndpointUnavailable,
    url_tokens,
)
from twisted_sendmail.sasl import CredentialsUnavailable
from twisted_sendmail.testing import Authority, LoopbackServer

AUTHORITY = Authority()
MESSAGE = b"From: jane@example.org\r\nTo: bob@example.net\r\nSubject: hi\r\n\r\nHi.\r\n"


class Running:
    """A token endpoint on a port, and what belongs to its client."""

    def __init__(self, reactor: Any, folder: Path) -> None:
        self.reactor, self.folder = reactor, folder
        self.server = Endpoint()
        self.url = ""
        self.file = folder / "refresh"
        self.file.write_text(REFRESH + "\n")
        self.file.chmod(0o600)

    def endpoint(
        self, secret: str = SECRET, client: str = "mailer", auth_method: str = "client_secret_post"
    ) -> TokenEndpoint:
        return TokenEndpoint(
            self.reactor,
            self.url,
            client,
            client_secret=secret,
            auth_method=auth_method,
            trust=TLSTrust(ca_file=self.folder / "ca.pem"),
        )

    def refresh_tokens(self) -> RefreshTokens:
        return RefreshTokens(self.endpoint(), RefreshTokenFile(self.reactor, self.file))


@pytest_twisted.async_yield_fixture
async def running(reactor: Any, tmp_path: Path) -> AsyncIterator[Running]:
    """An HTTPS token endpoint with a certificate for localhost."""
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    made = Running(reactor, tmp_path)
    (tmp_path / "server.pem").write_bytes(AUTHORITY.issue())
    port = listen(reactor, made.server, ServerTLS(tmp_path / "server.pem"))
    made.url = f"https://localhost:{port.getHost().port}/token"
    yield made
    await port.stopListening()
    # Closed connections leave the reactor in the next turns.
    await deferLater(reactor, 0.01)


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """What is logged; no line has a secret."""
    events: list[LogEvent] = []
    keep: Any = events.append
    globalLogPublisher.addObserver(keep)
    yield events
    globalLogPublisher.removeObserver(keep)
    text = "".join(formatEvent(event) + repr(event) for event in events)
    assert (SECRET in text, REFRESH in text) == (False, False)


async def value(source: Any, **how: Any) -> str:
    token = await source.get(**how)
    return str(token.value.reveal())


async def failure(source: Any) -> Any:
    with pytest.raises((GrantRefused, CredentialsUnavailable)) as caught:
        await source.get()
    assert (SECRET in str(caught.value), REFRESH in str(caught.value)) == (False, False)
    return caught.value


@ensureDeferred
async def test_tokens_are_asked_for_once_until_they_expire(running: Running) -> None:
    source = running.refresh_tokens()
    both = await gatherResults([source.get(), source.get()])
    assert [token.value.reveal() for token in both] == ["access-1", "access-1"]
    assert await value(source) == "access-1"
    assert await value(source, force_refresh=True) == "access-2"
    assert await value(source) == "access-2"
    form = {"grant_type": "refresh_token", "refresh_token": REFRESH}
    assert running.server.forms == [{**form, "client_id": "mailer", "client_secret": SECRET}] * 2


@ensureDeferred
async def test_a_caller_that_gives_up_the_others_does_not_leave_them_waiting(
    running: Running,
) -> None:
    """As when the first of many failures cancels the rest."""
    source = running.refresh_tokens()
    waiting = [Result(source.get()) for _ in range(4)]
    _ = waiting[0].deferred.addCallback(lambda _: waiting[1].deferred.cancel())
    await source.get()
    assert [each.fired for each in waiting] == [1] * 4
    assert isinstance(waiting[1].error, CancelledError)
    assert waiting[3].get().value.reveal() == "access-1"
    assert len(running.server.forms) == 1


@ensureDeferred
async def test_a_client_authenticates_itself(running: Running) -> None:
    source = ClientCredentials(running.endpoint(), "mail.send mail.read")
    assert await value(source) == "access-1"
    assert running.server.forms[0]["scope"] == "mail.send mail.read"
    refused = await failure(ClientCredentials(running.endpoint("wrong")))
    assert (type(refused), refused.code) == (GrantRefused, "invalid_client")


@ensureDeferred
async def test_a_client_authenticates_itself_in_a_header(running: Running) -> None:
    """RFC 6749 section 2.3.1: the secret is encoded as in a form, and is not in the body."""
    running.server.basic = True
    client = "mail er:ä"
    headers: list[str] = []

    def keep_header(request: Any) -> bytes:
        headers.append(str(request.getHeader("Authorization")))
        return answer(request, 200, access_token="access")

    source = ClientCredentials(running.endpoint(client=client, auth_method="client_secret_basic"))
    assert await value(source) == "access-1"
    assert running.server.forms == [{"grant_type": "client_credentials"}]
    running.server.fault = keep_header
    assert await value(source, force_refresh=True) == "access"
    pair = b64decode(headers[0].removeprefix("Basic "))
    assert pair.decode() == f"mail+er%3A%C3%A4:{quote_plus(SECRET)}"


@ensureDeferred
async def test_a_header_that_an_endpoint_returns_reveals_no_secret(running: Running) -> None:
    def echo_header(request: Any) -> bytes:
        return answer(request, 400, error="x", error_description=request.getHeader("Authorization"))

    running.server.fault = echo_header
    endpoint = running.endpoint(auth_method="client_secret_basic")
    assert "x: Basic <hidden>;" in str(await failure(ClientCredentials(endpoint)))


def test_another_method_of_authentication_is_refused() -> None:
    with pytest.raises(InvalidServer, match="write client_secret_post or client_secret_basic"):
        TokenEndpoint(Clock(), "https://h/token", "mailer", auth_method="private_key_jwt")


@pytest.mark.parametrize(
    ("life", "margin"), [(3600, 60), ("3600", 60), (100, 50), (0, 0), (None, 1e9)]
)
@ensureDeferred
async def test_a_token_is_renewed_before_it_expires(
    running: Running, life: object, margin: float
) -> None:
    """By this clock: only the number of seconds is the server's."""
    running.server.life = life
    endpoint, clock = running.endpoint(), Clock()
    clock.advance(1e6)
    endpoint.reactor = Times(running.reactor, clock)
    source = ClientCredentials(endpoint)
    assert await value(source) == "access-1"
    until = 1e9 if life is None else float(str(life)) - margin
    clock.advance(max(until - 1, 0))
    assert await value(source) == ("access-2" if life == 0 else "access-1")
    clock.advance(2)
    assert await value(source) == {0: "access-3", None: "access-1"}.get(life, "access-2")  # type: ignore[call-overload]


class Times:
    """A reactor with the time of a Clock."""

    def __init__(self, reactor: Any, clock: Clock) -> None:
        self._reactor = reactor
        self.seconds = clock.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@ensureDeferred
async def test_a_new_refresh_token_replaces_the_old_one(running: Running) -> None:
    running.server.rotates = True
    link = running.folder / "link"
    link.symlink_to(running.file)
    source = RefreshTokens(running.endpoint(), RefreshTokenFile(running.reactor, link))
    assert await value(source) == "access-1"
    assert running.file.read_text() == f"{REFRESH}-1\n"
    assert await value(source, force_refresh=True) == "access-2"
    assert running.file.read_text() == f"{REFRESH}-2\n"
    assert (link.is_symlink(), stat.S_IMODE(running.file.stat().st_mode)) == (True, 0o600)
    assert {path.name for path in running.folder.iterdir()} >= {"link", "refresh"}
    assert not list(running.folder.glob(".refresh*"))


@needs_root
@ensureDeferred
async def test_a_login_by_root_leaves_the_token_to_the_user_of_the_relay(running: Running) -> None:
    running.server.rotates = True
    os.chown(running.file, ALICE, BOB)
    source = RefreshTokens(running.endpoint(), RefreshTokenFile(running.reactor, running.file))
    assert await value(source) == "access-1"
    status = running.file.stat()
    assert running.file.read_text() == f"{REFRESH}-1\n"
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (ALICE, BOB, 0o600)


@needs_root
@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        (0o711, "it belongs to root, with mode 0600, and this process runs as 20001; chown 20001 "),
        (0o700, "this process runs as 20001; open its directory to it"),
    ],
)
def test_a_token_file_of_another_user_is_an_error_with_its_owner(
    mode: int, complaint: str, folder_of_all: Path
) -> None:
    folder_of_all.chmod(mode)
    file = folder_of_all / "token"
    _ = file.write_text(f"{REFRESH}\n")
    file.chmod(0o600)
    imports = "from twisted_sendmail.oauth import RefreshTokenFile"
    code = "try: RefreshTokenFile(None, sys.argv[1]).check()\nexcept ValueError as e: print(e)"
    done = as_user(ALICE, code, str(file), imports=imports)
    assert (done.stderr, done.stdout.count(b"\n")) == (b"", 1)
    shown = done.stdout.decode().strip().removesuffix(str(file))
    assert (
        shown
        == f"a secret cannot be obtained: {file} cannot be read: Permission denied; {complaint}"
    )


@pytest.fixture
def folder_of_all() -> Iterator[Path]:
    """A directory below directories that every user may search."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symlink", "hard link"])
@ensureDeferred
async def test_a_link_with_the_name_of_the_new_file_is_not_followed(
    running: Running, link: Callable[[Path, Path], None]
) -> None:
    """As another user could make it, in a directory that both may write to."""
    running.server.rotates = True
    other = running.folder / "other"
    other.write_text("of another user\n")
    link(running.folder / f".refresh.new-{os.getpid()}", other)
    assert await value(running.refresh_tokens()) == "access-1"
    assert other.read_text() == "of another user\n"
    assert running.file.read_text() == f"{REFRESH}-1\n"
    assert not running.file.is_symlink()


@ensureDeferred
async def test_two_processes_use_a_refresh_token_in_turn(running: Running) -> None:
    """The second waits for the token that the first stores: an old one is not used again."""
    running.server.rotates = True
    sources = [running.refresh_tokens(), running.refresh_tokens()]
    await gatherResults([source.get() for source in sources])
    used = [form["refresh_token"] for form in running.server.forms]
    assert used == [REFRESH, f"{REFRESH}-1"]
    assert running.file.read_text() == f"{REFRESH}-2\n"


@ensureDeferred
async def test_a_process_that_uses_a_refresh_token_for_too_long_is_reported(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "LOCK_TIMEOUT", 0.1)
    release = await RefreshTokenFile(running.reactor, running.file).lock()
    source = running.refresh_tokens()
    assert "another process uses " in str(await failure(source))
    release()
    assert await value(source) == "access-1"


@ensureDeferred
async def test_a_refresh_token_that_cannot_be_stored_is_kept(
    running: Running, logged: list[LogEvent]
) -> None:
    running.server.rotates = True
    commands = RefreshTokenCommands(running.reactor, ["cat", str(running.file)], ["false"])
    source = RefreshTokens(running.endpoint(), commands)
    assert await value(source) == "access-1"
    assert await value(source, force_refresh=True) == "access-2"
    bad = [formatEvent(event) for event in logged if event["log_level"] == LogLevel.critical]
    assert ["failed with status 1" in line for line in bad] == [True, True]


@ensureDeferred
async def test_commands_hold_a_refresh_token(running: Running) -> None:
    running.server.rotates = True
    save = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"]
    commands = RefreshTokenCommands(
        running.reactor, ["cat", str(running.file)], [*save, str(running.file)]
    )
    assert await value(RefreshTokens(running.endpoint(), commands)) == "access-1"
    assert running.file.read_text() == f"{REFRESH}-1\n"


@ensureDeferred
async def test_a_refresh_token_that_another_process_changed_is_read_again(running: Running) -> None:
    class Shared(RefreshTokenStore):
        def __init__(self) -> None:
            self.tokens = ["used by another", REFRESH]

        def load(self) -> Deferred[str]:
            return succeed(self.tokens.pop(0))

        def save(self, token: str) -> Deferred[None]:
            raise AssertionError(token)

    assert await value(RefreshTokens(running.endpoint(), Shared())) == "access-2"


@ensureDeferred
async def test_a_dead_refresh_token_is_an_alarm(running: Running, logged: list[LogEvent]) -> None:
    running.server.refresh = "revoked"
    source = running.refresh_tokens()
    errors = [await failure(source), await failure(source)]
    assert [(type(e), e.code, e.temporary) for e in errors] == [
        (GrantRefused, "invalid_grant", False)
    ] * 2
    assert "no such token: <hidden> \\x1b[31m; log in again" in str(errors[0])
    bad = [formatEvent(event) for event in logged if event["log_level"] == LogLevel.critical]
    assert [line.startswith("no mail can be sent: ") for line in bad] == [True]


def close(request: Any) -> Any:
    request.transport.abortConnection()
    return NOT_DONE_YET


def expand(request: Any) -> bytes:
    """A short answer that a decoder would turn into a long one."""
    assert not request.requestHeaders.hasHeader("Accept-Encoding")
    request.setHeader("Content-Encoding", "gzip")
    return gzip.compress(bytes(10_000_000))


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (expand, "HTTP status 200"),
        (lambda request: answer(request, 503, error="invalid_grant"), "HTTP status 503"),
        (lambda request: answer(request, 429, error="too_many"), "HTTP status 429"),
        (lambda request: answer(request, 400, error="temporarily_unavailable"), "temporarily"),
        (lambda _: b"<html>down</html>", "HTTP status 200"),
        (lambda _: b"[" * 65536, "HTTP status 200"),
        (lambda _: b" " * 70000, "longer than 65536 octets"),
        (lambda request: answer(request, 200, access_token=7), "no bearer token"),
        (lambda request: answer(request, 200, access_token="x", token_type="mac"), "no bearer"),
        (lambda request: answer(request, 200, access_token="x\r\nQUIT"), "no bearer token"),
        (lambda request: answer(request, 200, access_token=""), "no bearer token"),
        (lambda request: request.redirect(b"http://localhost/") or b"", "HTTP status 302"),
        (close, "no token from https://localhost:"),
        (lambda _: NOT_DONE_YET, "no answer within"),
    ],
    ids=[
        "gzip", "503", "429", "temporary", "html", "deep", "long", "number", "mac", "two lines", "empty", "redirect", "close", "slow",
    ],
)  # fmt: skip
@ensureDeferred
async def test_a_token_endpoint_that_fails_is_a_temporary_failure(
    running: Running, monkeypatch: pytest.MonkeyPatch, fault: Any, why: str
) -> None:
    """And a token that is still good is used meanwhile."""
    monkeypatch.setattr(oauth, "REQUEST_TIMEOUT", 0.5 if why.startswith("no answer") else 30.0)
    running.server.life = 100
    endpoint, clock = running.endpoint(), Clock()
    endpoint.reactor = Times(running.reactor, clock)
    source = ClientCredentials(endpoint)
    assert await value(source) == "access-1"
    running.server.fault = fault
    clock.advance(60)
    assert await value(source) == "access-1"
    clock.advance(60)
    error = await failure(source)
    assert (type(error), why in str(error)) == (TokenEndpointUnavailable, True), str(error)


def echo_status(request: Any) -> Any:
    request.transport.write(request.content.getvalue() + b"\r\n")
    request.transport.loseConnection()
    return NOT_DONE_YET


@pytest.mark.parametrize(
    "fault",
    [
        echo_status,
        lambda request: answer(request, 400, error=request.content.getvalue().decode()),
        lambda request: answer(request, 400, error=f"{SECRET} {REFRESH}"),
        lambda request: answer(
            request, 400, error="x", error_description=request.content.getvalue().decode().lower()
        ),
    ],
    ids=["status line", "code", "plain code", "description"],
)
@ensureDeferred
async def test_an_endpoint_that_returns_the_request_reveals_no_secret(
    running: Running, logged: list[LogEvent], fault: Any
) -> None:
    running.server.fault = fault
    error = await failure(running.refresh_tokens())
    shown = f"{error} {getattr(error, 'code', '')} {[formatEvent(event) for event in logged]}"
    assert "<hidden>" in shown
    for secret in (SECRET, REFRESH):
        assert quote_plus(secret).lower() not in shown.lower()
        assert secret.lower() not in shown.lower()


@pytest.mark.parametrize("token", ["one\r\ntwo", "nul\0", "\ud800", "", ["x"]], ids=repr)
@ensureDeferred
async def test_a_new_refresh_token_that_cannot_be_stored_in_a_line_is_ignored(
    running: Running, token: object
) -> None:
    running.server.fault = lambda request: answer(
        request, 200, access_token="access", refresh_token=token
    )
    source = running.refresh_tokens()
    for _ in range(2):
        assert await value(source, force_refresh=True) == "access"
    assert running.file.read_text() == REFRESH + "\n"


class Endless(Protocol):
    """A web server that sends the beginning of an answer, and does not close the connection."""

    def __init__(self, connections: set[Endless], answer: bytes) -> None:
        self.connections, self.answer = connections, answer

    def connectionMade(self) -> None:
        self.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + self.answer)

    def connectionLost(self, reason: Any = None) -> None:
        self.connections.discard(self)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"Content-Length: 9999999\r\n\r\n{", "no answer within 0 s"),
        (b"Content-Length: 9999999\r\n\r\n" + b" " * 70000, "longer than 65536 octets"),
        ((b"X: " + b"a" * 9000 + b"\r\n") * 40, "it sent more than 262144 octets"),
    ],
    ids=["slow", "long", "long header"],
)
@ensureDeferred
async def test_no_connection_is_left_to_an_endpoint_that_holds_it_open(
    running: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes, why: str
) -> None:
    monkeypatch.setattr(oauth, "REQUEST_TIMEOUT", 0.2 if "within" in why else 30.0)
    connections: set[Endless] = set()
    factory = Factory.forProtocol(partial(Endless, connections, sent))
    port = running.reactor.listenTCP(0, factory, interface="127.0.0.1")
    running.url = f"http://127.0.0.1:{port.getHost().port}/"
    assert why in str(await failure(running.refresh_tokens()))
    end = running.reactor.seconds() + 10
    while connections:
        assert running.reactor.seconds() < end
        await deferLater(running.reactor, 0.005)
    await port.stopListening()


@ensureDeferred
async def test_the_certificate_of_the_token_endpoint_is_verified(running: Running) -> None:
    endpoint = TokenEndpoint(running.reactor, running.url, "mailer", client_secret=SECRET)
    error = await failure(ClientCredentials(endpoint))
    assert (type(error), running.server.forms) == (TokenEndpointUnavailable, [])
    assert "the certificate" in str(error)


@pytest.mark.parametrize(
    "url",
    ["http://login.example.org/token", "ftp://localhost/", "https:///token", "https://a:b@h/", "x"],
)
def test_a_token_endpoint_without_https_is_refused(url: str) -> None:
    with pytest.raises(InvalidServer, match="https://HOST/PATH"):
        TokenEndpoint(Clock(), url, "mailer")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("smtps://jane@h", "there is no password for jane; give the password"),
        (
            "smtps://h?oauth-client-id=c",
            "the server's URL has settings of OAuth and no user; write smtps://USER@",
        ),
        (
            "smtps://j:s3cret@h?oauth-client-id=c",
            "there are a password and settings of OAuth; give one",
        ),
        ("smtps://j@h?oauth-provider=google", "there is no oauth-client-id; write the client"),
        ("smtps://j@h?password=s3cret", "password is no setting of a URL; the settings of a URL"),
        ("smtps://j@h?oauth-store-command=x", "oauth-store-command is no setting of a URL"),
        ("smtps://j@h?oauth-client-id=", "oauth-client-id in the server's URL cannot be used"),
        ("smtps://j@h?oauth-client-id=c#s3cret", "the server's URL has a fragment; write # as %23"),
        ("ftp://j@h?oauth-client-id=c", "server URL 'ftp://…@h' cannot be used"),
    ],
)
def test_a_url_with_other_settings_is_refused(url: str, problem: str) -> None:
    with pytest.raises(InvalidServer) as caught:
        SubmissionServer.from_url(url, tokens=url_tokens(Clock()))
    assert (problem in str(caught.value), "s3cret" in str(caught.value)) == (True, False)


def test_a_url_with_settings_of_oauth_names_the_function_that_reads_it() -> None:
    with pytest.raises(InvalidServer, match=r"are keys, or are read by tokens=oauth\.url_tokens"):
        SubmissionServer.from_url("smtps://jane@h?oauth-provider=google")
    with pytest.raises(InvalidServer, match=r"are keys, or are read by tokens=oauth\.url_tokens"):
        SubmissionServer.from_url("smtps://jane@h?bearer=true&password-file=f", credentials=None)


def test_a_repr_shows_no_secret() -> None:
    endpoint = TokenEndpoint(Clock(), "http://[::1]:80/token", "mailer", client_secret=SECRET)
    assert repr(endpoint) == "TokenEndpoint('http://[::1]:80/token', 'mailer')"


def test_without_the_extra_an_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "treq", None)
    with pytest.raises(ImportError, match=r"pip install 'twisted_sendmail\[oauth\]'"):
        TokenEndpoint(Clock(), "https://login.example.org/token", "mailer")


@ensureDeferred
async def test_tokens_of_a_command_and_of_a_file_are_read_each_time(
    reactor: Any, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    sources = [CommandTokens(reactor, ["cat", str(file)]), FileTokens(reactor, file)]
    for text in ("first", "second"):
        file.write_text(f"{text}\n")
        file.chmod(0o600)
        assert [await value(source) for source in sources] == [text, text]
    file.chmod(0o644)
    assert "may be read by everybody" in str(await failure(sources[1]))
    file.unlink()
    assert "failed with status 1" in str(await failure(sources[0]))


@ensureDeferred
async def test_a_message_goes_out_though_the_server_refuses_the_first_token(
    running: Running,
) -> None:
    """The server accepts the second token that the endpoint gives, and no other."""
    async with LoopbackServer(running.reactor, tokens={"jane": "access-2"}) as server:
        credentials = Credentials("jane", token=running.refresh_tokens())
        next_hop = SubmissionServer.from_url(
            server.url, credentials=credentials, trust=TLSTrust(ca_file=server.ca_file)
        )
        await submit(running.reactor, next_hop, MESSAGE)
        assert len(server.messages) == 1
    assert len(running.server.forms) == 2
