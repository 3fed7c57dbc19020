"""Every program of `examples/` runs against the loopback server."""

from __future__ import annotations

import os
import re
import runpy
import socket
import stat
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from tests.deferreds import Result
from tests.token_endpoint import REFRESH, SECRET, Endpoint, listen
from twisted_sendmail import Receiver, Reply, SubmissionServer, Timeouts, TLSPolicy
from twisted_sendmail.testing import LoopbackServer, MemoryServer, RecordingReceiver, faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.names import ReceiverReply, Verdict
    from twisted_sendmail import Recipient

EXAMPLES = Path(__file__).parent.parent / "examples"
PASSWORD = 'wonder"land ÿ'


class Choosy(RecordingReceiver):
    """Refuses `gone@…` for good and `later@…` for now, and hangs up when asked about `lost@…`."""

    server: Server

    def recipient(self, recipient: Recipient) -> ReceiverReply:
        if str(recipient).startswith("gone@"):
            return Reply(550, ("5.1.1 there is nobody here by that name",))
        if str(recipient).startswith("later@"):
            return Reply(450, ("4.2.1 come back tomorrow",))
        self.server.hangs_up = str(recipient).startswith("lost@")
        return super().recipient(recipient)

    def commit(self) -> Verdict:
        if self.server.hangs_up:
            self.server.hang_up()
        return super().commit()


class Server(LoopbackServer):
    """A loopback server for Alice, with some recipients it refuses."""

    hangs_up = False

    def __init__(self, reactor: Any) -> None:
        def receiver(connection: Any) -> Receiver:
            choosy = Choosy(connection, self.messages.append)
            choosy.server = self
            return choosy

        super().__init__(reactor, users={"alice": PASSWORD}, receiver=receiver)

    def hang_up(self) -> None:
        for protocol in self._open_sessions:
            transport: Any = protocol.transport
            transport.abortConnection()

    def arguments(self, *, by_url: bool) -> list[str]:
        """How the examples are told where it is."""
        if by_url:
            return [self.url.replace("://", "://alice@"), self.ca_file]
        return [self.host, str(self.port), "alice", self.ca_file]


@pytest_twisted.async_yield_fixture
async def server(reactor: Any) -> AsyncIterator[Server]:
    running = Server(reactor)
    async with running:
        yield running


async def run(
    reactor: Any, name: str, *arguments: str, password: str = PASSWORD, **variables: str
) -> tuple[str, str, int]:
    """Run an example in a process of its own; what it printed, complained, and its status."""
    environment = {**os.environ, "TWISTED_SENDMAIL_PASSWORD": password, "PYTHONWARNINGS": "error"}
    environment |= variables
    environment |= {"PYTHONIOENCODING": "utf-8"}
    out, err, status = await getProcessOutputAndValue(  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        sys.executable, [str(EXAMPLES / name), *arguments], environment, reactor=reactor
    )
    return out.decode(), err.decode(), status


def contents(server: LoopbackServer) -> list[bytes]:
    return [message.content for message in server.messages]


@ensureDeferred
async def test_awaiting(reactor: Any, server: Server) -> None:
    out, err, status = await run(reactor, "awaiting.py", *server.arguments(by_url=True))
    assert (err, status) == ("", 0)
    bob, carol, queued = out.splitlines()
    assert bob.startswith("bob@example.test accepted: 250 ")
    assert carol.startswith("carol@example.test accepted: 250 ")
    (message,) = server.messages
    assert f"queued as {message.id} over TLSv1.3" in queued
    assert str(message.sender) == "alice@example.test"
    assert "Grüße!\n.This line begins with a dot.\n" == (
        message.email.get_content().replace("\r\n", "\n")
    )


@ensureDeferred
async def test_callbacks(reactor: Any, server: Server) -> None:
    out, err, status = await run(reactor, "callbacks.py", *server.arguments(by_url=True))
    (message,) = server.messages
    assert (out, err, status) == (f"1 accepted, queued as {message.id}\n", "", 0)
    assert message.content.endswith(b"\r\n\r\nHello Bob.\r\n")


@ensureDeferred
async def test_callbacks_that_hear_of_a_wrong_password(reactor: Any, server: Server) -> None:
    arguments = server.arguments(by_url=True)
    out, err, status = await run(reactor, "callbacks.py", *arguments, password="wrong")
    assert out.startswith("not sent: AUTH SCRAM-SHA-256-PLUS refused by ")
    assert (err, status, server.messages) == ("", 0, [])


@ensureDeferred
async def test_moved_from_twisted_mail(reactor: Any, server: Server) -> None:
    arguments = ["moved_from_twisted_mail.py", "localhost", str(server.port), "alice"]
    out, err, status = await run(reactor, *arguments, SSL_CERT_FILE=server.ca_file)
    (message,) = server.messages
    expected = [
        "1 accepted",
        f"bob@example.test: 250 2.0.0 Ok: queued as {message.id}",
        "gone@example.test: 550 5.1.1 there is nobody here by that name",
    ]
    assert (out.splitlines(), err, status) == (expected, "", 0)
    out, err, status = await run(
        reactor, *arguments, password="wrong", SSL_CERT_FILE=server.ca_file
    )
    assert err.startswith("not sent, do not send it again: 535 ")
    assert (out, status) == ("", 1)


@ensureDeferred
async def test_several(reactor: Any, server: Server) -> None:
    out, err, status = await run(reactor, "several.py", *server.arguments(by_url=True))
    assert (err, status) == ("", 0)
    assert [line.replace("@example.test", "").partition(":")[0] for line in out.splitlines()] == [
        "bob accepted",
        "carol accepted",
        "gone refused",
        "dave accepted",
    ]
    assert [list(map(str, message.recipients)) for message in server.messages] == [
        ["bob@example.test"],
        ["carol@example.test"],
        ["dave@example.test"],
    ]
    assert len(server.sessions) == 1


@ensureDeferred
async def test_mailer(reactor: Any, server: Server) -> None:
    out, err, status = await run(reactor, "mailer.py", *server.arguments(by_url=True))
    assert (err, status) == ("", 0)
    *lines, state = out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == [
        "erin@example.test welcomed",
        "frank@example.test welcomed",
    ]
    assert [f"message {n}: 1 {'refused' if n == 2 else 'accepted'}" for n in range(4)] == sorted(
        ": ".join(line.split(": ")[:2]) for line in lines[2:]
    )
    assert state.endswith(" leased, 0 opening, 0 waiting>")
    assert 5 == len({message.id for message in server.messages}) == len(server.messages)
    assert 2 >= len(server.sessions)


@ensureDeferred
@pytest.mark.parametrize("name", ["by_hand.py", "blocking.py"])
async def test_by_hand_and_blocking(reactor: Any, server: Server, name: str) -> None:
    out, err, status = await run(reactor, name, *server.arguments(by_url=False))
    assert (err, status) == ("", 0)
    assert "354" in out
    assert PASSWORD not in out
    (message,) = server.messages
    assert message.content.startswith(b"From: alice@example.test\r\nTo: bob@example.test\r\n\r\n.")
    assert message.user == "alice"
    (session,) = server.sessions
    said = [line[3:7] for line in session.dialogue if line.startswith("C: ")]
    assert [word.strip() for word in said] == [
        "EHLO",
        "STAR",
        "EHLO",
        "AUTH",
        "MAIL",
        "RCPT",
        "DATA",
        "QUIT",
    ]


@ensureDeferred
async def test_blocking_fails_on_a_refusal(reactor: Any, server: Server) -> None:
    arguments = server.arguments(by_url=False)
    _, err, status = await run(reactor, "blocking.py", *arguments, password="wrong")
    assert status == 1
    assert "AUTH PLAIN **** refused" in err
    assert server.messages == []


@ensureDeferred
async def test_the_blocking_client_loads_no_twisted(reactor: Any, server: Server) -> None:
    """The standing proof that the core does no I/O."""
    code = """
import runpy, sys
runpy.run_path(sys.argv.pop(1), run_name="__main__")
print({"twisted", "zope", "OpenSSL"} & {name.partition(".")[0] for name in sys.modules})
"""
    environment = {**os.environ, "TWISTED_SENDMAIL_PASSWORD": PASSWORD}
    arguments = ["-c", code, str(EXAMPLES / "blocking.py"), *server.arguments(by_url=False)]
    out, err, status = await getProcessOutputAndValue(  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        sys.executable, arguments, environment, reactor=reactor
    )
    assert (err, status, out.splitlines()[-1]) == (b"", 0, b"set()")
    assert len(server.messages) == 1


@ensureDeferred
@pytest.mark.parametrize(
    ("recipients", "first", "expected"),
    [
        (["bob"], "accepted: bob@example.test", 0),
        (["bob", "gone"], "accepted: bob@example.test", 0),
        (["gone"], "give up: RCPT TO:<gone@example.test> refused by ", os.EX_UNAVAILABLE),
        (["lost"], "in doubt: no reply to the end of the message at ", os.EX_PROTOCOL),
        (["later"], "try again later: RCPT TO:<later@example.test> refused ", os.EX_TEMPFAIL),
    ],
)
async def test_handle_errors(
    reactor: Any, server: Server, recipients: list[str], first: str, expected: int
) -> None:
    to = [f"{name}@example.test" for name in recipients]
    out, err, status = await run(reactor, "handle_errors.py", *server.arguments(by_url=True), *to)
    assert (err, status) == ("", expected)
    assert out.startswith(first)
    refused = [line for line in out.splitlines()[1:] if line]
    assert [f"never: gone@example.test refused: {_GONE}"] * (len(to) - 1) == refused


@ensureDeferred
async def test_handle_errors_run_again_after_75_sends_one_copy(
    reactor: Any, server: Server
) -> None:
    """As a shell or a job runner does it; the server has the message and says nothing."""
    for _ in range(3):
        arguments = [*server.arguments(by_url=True), "lost@example.test"]
        _, err, status = await run(reactor, "handle_errors.py", *arguments)
        assert err == ""
        if status != os.EX_TEMPFAIL:
            break
    assert (len(server.messages), status) == (1, os.EX_PROTOCOL)


def in_memory(server: MemoryServer, total: float) -> dict[str, Any]:
    """The names of `handle_errors.py`, with *server* in place of the one that its URL names."""

    class InPlace:
        @staticmethod
        def from_url(url: str, **_: Any) -> SubmissionServer:
            # Only the overall time ends the wait for a reply.
            timeouts = Timeouts(total=total, data_end=None)
            return SubmissionServer(
                url, endpoint=server.endpoint, tls=TLSPolicy.NONE, timeouts=timeouts
            )

    code = runpy.run_path(str(EXAMPLES / "handle_errors.py"))
    code["main"].__globals__["SubmissionServer"] = InPlace
    return code


ENDS = pytest.mark.parametrize(
    "fault",
    [faults.close("dot"), faults.reset("dot"), faults.stall("dot"), faults.send("dot", b"250-ok")],
    ids=["close", "reset", "silence", "half a reply"],
)


@ENDS
@pytest.mark.parametrize("cancels", [False, True])
def test_no_way_to_end_after_the_dot_makes_handle_errors_send_twice(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: faults.Fault,
    *,
    cancels: bool,
) -> None:
    """A lost connection, `SendTimeout`, `Cancelled`: what the caller of `main` is told."""
    monkeypatch.setenv("TWISTED_SENDMAIL_PASSWORD", PASSWORD)
    with MemoryServer(tls=False, faults=[fault]) as server:
        code = in_memory(server, total=60)
        for _ in range(3):
            work = code["main"](server.clock, "mx.example.test", "", "bob@example.test")
            ended = Result(Deferred.fromCoroutine(work))
            server.advance(1)
            if cancels:
                ended.deferred.cancel()
            server.advance(100)
            assert isinstance(ended.error, SystemExit)
            status = ended.error.code
            if status != os.EX_TEMPFAIL:
                break
        assert (len(server.messages), status) == (1, os.EX_PROTOCOL)
    assert capsys.readouterr().out.startswith("in doubt: ")


@ENDS
def test_try_again_does_not_try_what_is_in_doubt(fault: faults.Fault) -> None:
    with MemoryServer(tls=False, faults=[fault]) as server:
        code = in_memory(server, total=60)
        place = code["main"].__globals__["SubmissionServer"].from_url("mx.example.test")
        server.run(code["try_again"](server.clock, place, code["MESSAGE"], "bob@example.test"))
        assert len(server.messages) == 1


def test_try_again_sends_each_recipient_one_copy(capsys: pytest.CaptureFixture[str]) -> None:
    """One is accepted at once, one when asked again, one refused for good."""
    plan = [
        faults.close("greeting", nth=1),
        faults.refuse_recipient("later@example.test", "450 4.2.1 later", nth=1),
        faults.refuse_recipient("gone@example.test"),
    ]
    to = ["bob@example.test", "later@example.test", "gone@example.test"]
    with MemoryServer(tls=False, faults=plan) as server:
        code = in_memory(server, total=60)
        place = code["main"].__globals__["SubmissionServer"].from_url("mx.example.test")
        server.run(code["try_again"](server.clock, place, code["MESSAGE"], *to))
        assert [
            [str(recipient) for recipient in message.recipients] for message in server.messages
        ] == [["bob@example.test"], ["later@example.test"]]
        assert len(server.sessions) == 3
        assert 360 <= server.clock.seconds() < 1000
    assert "gone@example.test refused: 550 5.1.1 " in capsys.readouterr().out


@ensureDeferred
@pytest.mark.parametrize("form", ["web_form.py", "klein_form.py"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [("bob", (200, 1)), ("lost", (202, 1)), ("later", (503, 0)), ("gone", (500, 0))],
)
async def test_a_form_asks_for_another_try_only_where_nobody_has_the_message(
    reactor: Any, server: Server, form: str, name: str, expected: tuple[int, int]
) -> None:
    arguments = [*server.arguments(by_url=True), f"{name}@example.test"]
    found = await deferToThread(_posted, form, *arguments)
    assert (found, len(server.messages)) == expected


def _posted(name: str, *arguments: str) -> int:
    """The status of a form posted to an example, and posted again as long as it is 503."""
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "TWISTED_SENDMAIL_PASSWORD": PASSWORD},
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            place = urlsplit(process.stdout.readline().strip())
            for _ in range(3):
                connection = HTTPConnection(place.hostname or "", place.port or 0, timeout=60)
                with closing(connection):
                    connection.request("POST", "/", "text=hello")
                    status = connection.getresponse().status
                if status != 503:
                    break
            return status
        finally:
            process.kill()


_GONE = "550 5.1.1 there is nobody here by that name"


@ensureDeferred
async def test_notification(reactor: Any, server: Server) -> None:
    to = ["bob@example.test", "gone@example.test"]
    out, err, status = await run(reactor, "notification.py", *server.arguments(by_url=True), *to)
    assert (err, status) == ("", 0)
    assert f"gone@example.test refused: {_GONE}" in out
    assert "told: True\n" in out
    (message,) = server.messages
    assert message.email["Subject"] == "build 42 failed"


@ensureDeferred
async def test_a_notification_that_nobody_gets_is_in_the_log(reactor: Any, server: Server) -> None:
    out, err, status = await run(
        reactor, "notification.py", *server.arguments(by_url=True), "gone@example.test"
    )
    assert (err, status) == ("", 0)
    assert "no mail about 'build 42 failed': RCPT TO:<gone@example.test> refused by" in out
    assert "told: False\n" in out


@ensureDeferred
async def test_a_program_on_asyncio_sends_to_all_at_the_same_time(
    reactor: Any, server: Server
) -> None:
    to = ["bob@example.test", "gone@example.test", "carol@example.test"]
    out, err, status = await run(reactor, "asyncio_program.py", *server.arguments(by_url=True), *to)
    assert (err, status) == ("", 0)
    bob, gone, carol = out.splitlines()
    assert gone.startswith("gone@example.test: RCPT TO:<gone@example.test> refused by ")
    queued = {bob.removeprefix("bob@example.test: "), carol.removeprefix("carol@example.test: ")}
    assert queued == {f"queued as {message.id}" for message in server.messages}
    assert len(server.messages) == 2


@ensureDeferred
async def test_relay_in_an_application(reactor: Any, server: Server, tmp_path: Path) -> None:
    url, ca_file = server.arguments(by_url=True)
    to = ["bob@example.test", "gone@example.test"]
    queue = tmp_path / "queue"
    out, err, status = await run(
        reactor, "relay_in_an_application.py", url, str(queue), ca_file, *to
    )
    assert (err, status) == ("", 0)
    (message,) = server.messages
    assert message.email["Subject"] == "build 42 failed"
    assert "bob@example.test delivered 250 2.0.0 Ok: queued as " in out
    assert f"gone@example.test failed {_GONE}\n" in out
    assert f"gone@example.test gets no mail: {_GONE}\n" in out
    (id_,) = re.findall("^queued as ([0-9A-Z]{12})$", out, re.MULTILINE)
    assert f"{id_}: to=<bob@example.test>, relay=" in out
    assert stat.S_IMODE(queue.stat().st_mode) == 0o700


@ensureDeferred
async def test_what_an_application_queued_goes_out_after_it_was_killed(
    reactor: Any, server: Server, tmp_path: Path
) -> None:
    """The mail server is down, the application is killed; the next start delivers."""
    _, ca_file = server.arguments(by_url=True)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        down = f"smtp+starttls://alice@127.0.0.1:{nobody.getsockname()[1]}"
        arguments = [down, str(tmp_path), ca_file, "carol@example.test"]
        await deferToThread(_kill_when_queued, "relay_in_an_application.py", *arguments)
    assert server.messages == []
    up = server.arguments(by_url=True)[0]
    arguments = [up, str(tmp_path), ca_file, "bob@example.test"]
    _, err, status = await run(reactor, "relay_in_an_application.py", *arguments)
    assert (err, status) == ("", 0)
    assert sorted(str(message.recipients[0]) for message in server.messages) == [
        "bob@example.test",
        "carol@example.test",
    ]


def _kill_when_queued(name: str, *arguments: str) -> None:
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "TWISTED_SENDMAIL_PASSWORD": PASSWORD},
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert any(line.startswith("queued as ") for line in process.stdout)
        finally:
            process.kill()


@ensureDeferred
async def test_an_application_whose_queue_cannot_be_used_is_told_so(
    reactor: Any, server: Server, tmp_path: Path
) -> None:
    url, ca_file = server.arguments(by_url=True)
    place = tmp_path / "file"
    place.touch()
    arguments = [url, str(place), ca_file, "bob@example.test"]
    out, err, status = await run(reactor, "relay_in_an_application.py", *arguments)
    assert (err, status) == ("", 0)
    assert f"no mail about 'build 42 failed': the queue {place} cannot be used: " in out
    assert server.messages == []


@ensureDeferred
async def test_pinned(reactor: Any, server: Server) -> None:
    pem = (Path(server.ca_file).parent / "server.pem").read_text("ascii")
    der = PEM_cert_to_DER_cert(pem[: pem.index("-----BEGIN PRIVATE")])
    fingerprint = sha256(der).hexdigest()
    url = server.arguments(by_url=True)[0]
    out, err, status = await run(reactor, "pinned.py", url, fingerprint)
    assert (err, status) == ("", 0)
    assert out.endswith(f"{fingerprint} by fingerprint\n")
    out, err, status = await run(reactor, "pinned.py", url, "00" * 32)
    assert (out, status) == ("", 1)
    assert f"its SHA-256 is {fingerprint}, not the one pinned" in err


@ensureDeferred
async def test_oauth_login(reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint()
    port = listen(reactor, endpoint)
    (tmp_path / "refresh-token").write_text(REFRESH)
    (tmp_path / "refresh-token").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIENT_SECRET", SECRET)
    async with LoopbackServer(reactor, tokens={"alice": "access-1"}) as server:
        monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
        token_url = f"http://127.0.0.1:{port.getHost().port}/token"
        assert await run(reactor, "oauth_login.py", server.url, token_url) == ("", "", 0)
        assert len(server.messages) == 1
    await port.stopListening()


@ensureDeferred
async def test_oauth_url(reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint()
    port = listen(reactor, endpoint)
    for name, secret in (("refresh", REFRESH), ("client", SECRET)):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    monkeypatch.chdir(tmp_path)
    query = urlencode(
        {
            "oauth-token-url": f"http://127.0.0.1:{port.getHost().port}/token",
            "oauth-client-id": "mailer",
            "oauth-client-secret-file": "client",
            "oauth-refresh-token-file": "refresh",
        }
    )
    async with LoopbackServer(reactor, tokens={"alice": "access-1"}) as server:
        monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
        url = f"{server.url.replace('://', '://alice@')}?{query}"
        assert await run(reactor, "oauth_url.py", url) == ("", "", 0)
        assert [message.user for message in server.messages] == ["alice"]
    await port.stopListening()


@ensureDeferred
async def test_own_mechanism(reactor: Any) -> None:
    assert await run(reactor, "own_mechanism.py") == ("AUTH ANONYMOUS bmV3c2xldHRlcg==\n", "", 0)
