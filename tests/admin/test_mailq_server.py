"""The queue for users of this machine: what each may see and flush, and the limits."""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.admin.queue_contents import QueueFiller
from tests.memory_queue import MemoryQueue
from tests.other_users import ALICE, BOB, as_user, needs_root
from twisted_sendmail.admin import mailq_server
from twisted_sendmail.admin.mailq_server import PAGE, MailqFactory
from twisted_sendmail.cli.sendmail.mailq import mailq_lines
from twisted_sendmail.local_users import LocalPeer
from twisted_sendmail.queue import QueueError, QueueObserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from twisted_sendmail.queue import MessageInfo

OPERATORS = 20009
_ASK = """
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
answer = b""
try:
    client.sendall(sys.argv[2].encode() + b"\\n")
except BrokenPipeError:
    pass  # refused before the request; the answer can be read
try:
    while data := client.recv(65536):
        answer += data
except ConnectionResetError:
    pass  # the same
sys.stdout.buffer.write(answer)
"""


class MailqServer:
    """A queue on a Unix socket that everybody may use."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self.reactor = reactor
        self.path = str(path)
        self.queue = MemoryQueue(reactor)
        self.filler = QueueFiller(self.queue, reactor)
        self.notice: str | None = None
        self.factory = MailqFactory(
            reactor, self.queue, operators=OPERATORS, notice=lambda: self.notice
        )
        self._port: Any = None

    async def start(self) -> None:
        await self.queue.open()
        endpoint = UNIXServerEndpoint(self.reactor, self.path, mode=0o666)
        self._port = await endpoint.listen(self.factory)

    async def stop(self) -> None:
        await self._port.stopListening()
        self.factory.close()
        await deferLater(self.reactor, 0.01)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(self.path)
        return client

    async def raw(self, request: bytes) -> list[Any]:
        """The lines of an answer, asked by the user of this process."""

        def ask() -> bytes:
            with self.connect() as client:
                client.sendall(request)
                return _rest(client)

        return [json.loads(line) for line in (await deferToThread(ask)).splitlines()]

    async def ask(
        self, uid: int | None = None, action: str = "list", groups: tuple[int, ...] = (), **of: Any
    ) -> list[Any]:
        """The lines of an answer.

        :param uid: None: the user of this process.
        """
        request = json.dumps({"action": action, **of})
        if uid is None:
            return await self.raw(request.encode() + b"\n")
        done = await deferToThread(as_user, uid, _ASK, self.path, request, groups=groups)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def _rest(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def ids_in(answer: list[Any]) -> list[str]:
    """The ids of a complete answer."""
    *messages, last = answer
    assert last == {"end": len(messages)}
    return [message["queue_id"] for message in messages]


@pytest_twisted.async_yield_fixture
async def server(open_folder: Path, reactor: Any) -> AsyncIterator[MailqServer]:
    server = MailqServer(reactor, open_folder / "mailq")
    await server.start()
    yield server
    await server.stop()


@needs_root
@ensureDeferred
async def test_a_user_sees_only_their_own_messages_and_operators_see_all(
    server: MailqServer,
) -> None:
    of_alice = [await server.filler.message(uid=ALICE) for _ in range(2)]
    of_bob = await server.filler.message(uid=BOB)
    by_smtp = await server.filler.message()
    everything = [*of_alice, of_bob, by_smtp]
    assert ids_in(await server.ask(ALICE)) == of_alice
    assert ids_in(await server.ask(BOB)) == [of_bob]
    assert ids_in(await server.ask(BOB, ids=[of_alice[0], of_bob])) == [of_bob]
    assert ids_in(await server.ask(20003)) == []
    assert ids_in(await server.ask(20003, groups=(20008, OPERATORS))) == everything
    assert ids_in(await server.ask()) == everything


@needs_root
@ensureDeferred
async def test_a_user_flushes_only_their_own_messages(server: MailqServer) -> None:
    names = [await server.filler.message(uid=uid) for uid in (ALICE, BOB)]
    for name in names:
        await server.filler.tried(name, "450 4.2.2 Mailbox full")
    now = server.reactor.seconds()

    def due() -> list[bool]:
        return [server.queue.messages[name].due <= now + 60 for name in names]

    assert due() == [False, False]
    assert await server.ask(ALICE, "flush", ids=names) == [{"end": 1}]
    assert due() == [True, False]
    assert await server.ask(None, "flush") == [{"end": 2}]
    assert due() == [True, True]


class _Flushes(QueueObserver):
    """Records the routes of each flush."""

    def __init__(self) -> None:
        self.routes: list[set[str]] = []

    def claim(self, info: MessageInfo) -> bool:
        return False

    def arrived(self, arrivals: object) -> None:
        """Deliver nothing."""

    def unclaimed(self, info: MessageInfo) -> None:
        """Do nothing."""

    def queue_changed(self) -> None:
        """Do nothing."""

    def queue_flushed(self, routes: Collection[str]) -> None:
        self.routes.append(set(routes))


@needs_root
@ensureDeferred
async def test_one_request_of_an_operator_is_one_flush_and_of_a_user_none(
    server: MailqServer,
) -> None:
    names = [await server.filler.message(uid=ALICE) for _ in range(3 * PAGE)]
    route = server.queue.messages[names[0]].info.route
    server.queue.observer = observer = _Flushes()
    assert await server.ask(ALICE, "flush") == [{"end": 3 * PAGE}]
    assert observer.routes == []
    assert await server.ask(None, "flush", ids=names) == [{"end": 3 * PAGE}]
    assert await server.ask(None, "flush") == [{"end": 3 * PAGE}]
    assert observer.routes == [{route}, {"", route}]
    assert await server.ask(None, "flush", sender="@nowhere.example") == [{"end": 0}]
    assert len(observer.routes) == 2


@ensureDeferred
async def test_messages_are_shown_as_postqueue_shows_them_and_are_selected(
    server: MailqServer,
) -> None:
    one = await server.filler.message(["bob@example.net", "carol@example.net"])
    await server.filler.tried(one, "450 4.2.2 Mailbox full", "4.2.2")
    two = await server.filler.message(sender="dave@example.com")
    message, _ = await server.ask(ids=[one])
    assert (message["queue_name"], message["sender"]) == ("deferred", "alice@example.org")
    assert [each["address"] for each in message["recipients"]] == [
        "bob@example.net",
        "carol@example.net",
    ]
    assert message["recipients"][0]["delay_reason"].endswith("450 4.2.2 Mailbox full")
    assert ids_in(await server.ask(sender="@example.com")) == [two]
    assert ids_in(await server.ask(recipient="carol")) == [one]
    assert ids_in(await server.ask(ids=["nonsense"])) == []
    assert ids_in(await server.ask(ids=[])) == []
    server.notice = "2 messages wait"
    assert (await server.ask(recipient="nobody")) == [{"end": 0, "notice": "2 messages wait"}]


@ensureDeferred
async def test_a_long_queue_is_listed_whole(server: MailqServer) -> None:
    names = [await server.filler.message() for _ in range(3 * mailq_server.PAGE)]
    assert ids_in(await server.ask()) == names


@pytest.mark.parametrize(
    "request_line",
    [
        b"",
        b"list",
        b"[]",
        b'{"action": "delete"}',
        b'{"action": ["list"]}',
        b'{"action": "list", "ids": "06"}',
        b'{"action": "list", "ids": [1]}',
        b'{"action": "list", "sender": 1}',
        b'{"action": "list", "recipient": ["x"]}',
        b"[" * 20_000,
        b"\xff\x00",
    ],
)
@ensureDeferred
async def test_a_request_that_cannot_be_parsed_is_refused(
    server: MailqServer, request_line: bytes
) -> None:
    assert await server.raw(request_line + b"\n") == [{"error": "the request cannot be parsed"}]


@ensureDeferred
async def test_a_request_has_a_limit(server: MailqServer) -> None:
    assert await server.raw(b"x" * (mailq_server.MAX_REQUEST + 1)) == [
        {"error": "the request is too long"}
    ]


@ensureDeferred
async def test_a_request_has_a_deadline(
    server: MailqServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailq_server, "REQUEST_TIMEOUT", 0.05)
    assert await server.raw(b'{"action": "li') == []


@ensureDeferred
async def test_an_error_of_the_queue_is_the_answer(server: MailqServer) -> None:
    await server.filler.message()
    server.queue.act = lambda *_: _raise(QueueError("the queue could not be written"))  # type: ignore[method-assign]
    assert await server.ask(None, "flush") == [{"error": "the queue could not be written"}]


def _raise(error: Exception) -> Any:
    raise error


@needs_root
@ensureDeferred
async def test_connections_of_a_user_are_limited_and_some_are_left_for_operators(
    server: MailqServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailq_server, "MAX_CONNECTIONS_OF_USER", 0)
    refused = [{"error": "too many requests at once"}]
    assert await server.ask(ALICE) == refused
    assert await server.ask() == [{"end": 0}]
    monkeypatch.setattr(mailq_server, "MAX_CONNECTIONS_OF_USER", 2)
    monkeypatch.setattr(mailq_server, "MAX_CONNECTIONS", 5)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect())
        await deferLater(server.reactor, 0.05)
        assert await server.ask(ALICE) == refused
        assert await server.ask() == [{"end": 0}]
    assert await server.ask(ALICE) == [{"end": 0}]


@ensureDeferred
async def test_the_queue_is_read_no_faster_than_the_client_reads(server: MailqServer) -> None:
    to = [f"{'x' * 60}{n}@example.net" for n in range(200)]
    names = [await server.filler.message(to) for _ in range(40 * mailq_server.PAGE)]
    read = 0
    list_ = server.queue.list

    def count(selection: Any) -> Any:
        nonlocal read
        read += 1
        return list_(selection)

    server.queue.list = count  # type: ignore[method-assign]
    client = server.connect()
    client.sendall(b'{"action": "list"}\n')
    await deferLater(server.reactor, 0.5)
    assert 0 < read < 10
    answer = await deferToThread(_rest, client)
    client.close()
    assert ids_in([json.loads(line) for line in answer.splitlines()]) == names
    # A client that goes away ends the reading.
    read = 0
    client = server.connect()
    client.sendall(b'{"action": "list"}\n')
    await deferLater(server.reactor, 0.2)
    client.close()
    await deferLater(server.reactor, 0.2)
    assert 0 < read < 10


def test_the_user_of_the_relay_sees_all(reactor: Any) -> None:
    factory = MailqFactory(reactor, MemoryQueue(reactor), operators=OPERATORS)
    ours = LocalPeer(os.geteuid())
    assert factory.sees_all(ours)
    assert not factory.sees_all(LocalPeer(None, frozenset({OPERATORS})))


@ensureDeferred
async def test_a_message_that_waits_for_a_route_says_so(server: MailqServer) -> None:
    await server.filler.message()
    held = await server.filler.message()
    await server.filler.held(held)
    server.factory.down = lambda: {"default": server.reactor.seconds() + 58.5}
    first, second, _ = await server.raw(b'{"action": "list", "ids": null}\n')
    assert first["waits"] == "waits for route default, next attempt in 58 s"
    assert "waits" not in second
    assert [line.strip() for line in mailq_lines([first]) if "waits" in line] == [
        "(waits for route default, next attempt in 58 s)"
    ]
