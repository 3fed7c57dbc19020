"""A relay stops at once when its next hop lets connections hang, whatever its grace."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.ports import free_port
from tests.scenarios.relay_process import Relay, submit
from twisted_sendmail.testing import Authority, LoopbackServer


class HangingServer:
    """Accepts connections, greets with *greeting*, and sends nothing more."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._connections: list[socket.socket] = []
        #: Set when a connection was accepted.
        self.accepted = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            connection.sendall(self._greeting)
            self.accepted.set()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            connection.close()


SERVERS = {
    "no greeting": ("smtp+starttls", b""),
    "no answer to EHLO": ("smtp+starttls", b"220 mx.example.net ESMTP\r\n"),
    "no TLS handshake": ("smtps", b""),
}


@pytest.fixture(params=SERVERS)
def hanging(request: pytest.FixtureRequest) -> Iterator[tuple[HangingServer, str]]:
    scheme, greeting = SERVERS[request.param]
    server = HangingServer(greeting)
    yield server, f"{scheme}://jane@127.0.0.1:{server.port}"
    server.close()


def configuration(port: int, url: str, ca_file: str) -> str:
    return f"""
        name = "relay.example.org"
        queue = "queue"
        listen = ["tcp:127.0.0.1:{port}"]
        [[smarthost]]
        url = "{url}"
        password-file = "password"
        ca-file = "{ca_file}"
        [limits]
        stop-grace = "30 min"
    """


@ensureDeferred
async def test_sigterm_does_not_wait_for_a_connection_that_is_opening(
    relay: Relay, hop: LoopbackServer, hanging: tuple[HangingServer, str]
) -> None:
    server, url = hanging
    port = free_port()
    path = relay.write("relay.toml", configuration(port, url, hop.ca_file))
    relay.start("--config", path)
    await deferToThread(relay.up)
    for number in range(3):
        await deferToThread(submit, port, number)
    assert await deferToThread(server.accepted.wait, 60)
    # Fails when the process is there after a minute; the grace is half an hour.
    assert await deferToThread(relay.end) == -signal.SIGTERM
    # Nothing was lost: the mail is in the queue.
    relay.write("relay.toml", configuration(port, _url(hop), hop.ca_file))
    relay.start("--config", path)
    await deferToThread(relay.up, 2)
    assert "accepting mail; 3 messages in the queue" in relay.said
    assert len(await hop.wait_for(3, timeout=60)) == 3
    assert await deferToThread(relay.end) == -signal.SIGTERM


@ensureDeferred
async def test_sigterm_does_not_wait_for_name_servers(relay: Relay, hop: LoopbackServer) -> None:
    resolving = relay.folder / "resolving"
    # Runs when Python starts, in place of a resolver whose name servers do not answer.
    relay.write("sitecustomize.py", _NO_NAME_SERVER.format(resolving=str(resolving)))
    port = free_port()
    url = "smtp+starttls://jane@mx.example.net"
    path = relay.write("relay.toml", configuration(port, url, hop.ca_file))
    relay.start("--config", path, through=("env", f"PYTHONPATH={relay.folder}"))
    await deferToThread(relay.up)
    await deferToThread(submit, port)
    await deferToThread(relay.wait, resolving.exists)
    assert await deferToThread(relay.end) == -signal.SIGTERM


_NO_NAME_SERVER = """
import pathlib, socket, time

def getaddrinfo(host, *rest, ask=socket.getaddrinfo, **more):
    if "mx.example.net" in str(host):
        pathlib.Path({resolving!r}).touch()
        time.sleep(600)
    return ask(host, *rest, **more)

socket.getaddrinfo = getaddrinfo
"""


@ensureDeferred
async def test_a_reload_sends_what_waits_by_the_new_smarthost_at_once(
    relay: Relay, hop: LoopbackServer, hanging: tuple[HangingServer, str]
) -> None:
    server, url = hanging
    port = free_port()
    path = relay.write("relay.toml", configuration(port, url, hop.ca_file))
    relay.start("--config", path)
    await deferToThread(relay.up)
    await deferToThread(submit, port, 1)
    assert await deferToThread(server.accepted.wait, 60)
    relay.write("relay.toml", configuration(port, _url(hop), hop.ca_file))
    relay.signal(signal.SIGHUP)
    assert len(await hop.wait_for(1, timeout=60)) == 1
    assert await deferToThread(relay.end) == -signal.SIGTERM


@ensureDeferred
async def test_sigterm_does_not_wait_for_clients_without_a_message(
    relay: Relay, hop: LoopbackServer
) -> None:
    """One does not begin its handshake; another does not answer to the end of TLS."""
    authority = Authority()
    relay.write("server.pem", authority.issue(), 0o600)
    starttls, implicit = free_port(), free_port()
    path = relay.write(
        "relay.toml",
        f"""
        queue = "queue"
        [[listen]]
        endpoint = "tcp:127.0.0.1:{starttls}"
        certificate = "server.pem"
        [[listen]]
        endpoint = "tcp:127.0.0.1:{implicit}"
        certificate = "server.pem"
        implicit-tls = true
        [[smarthost]]
        url = "{_url(hop)}"
        password-file = "password"
        ca-file = "{hop.ca_file}"
        [limits]
        stop-grace = "30 min"
        """,
    )
    relay.start("--config", path)
    await deferToThread(relay.up)
    context = ssl.create_default_context(cadata=authority.pem.decode())

    def connect() -> list[socket.socket]:
        silent = socket.create_connection(("127.0.0.1", implicit))
        idle = context.wrap_socket(
            socket.create_connection(("127.0.0.1", implicit)), server_hostname="localhost"
        )
        assert idle.recv(3) == b"220"
        clear = socket.create_connection(("127.0.0.1", starttls))
        assert clear.recv(3) == b"220"
        return [silent, idle, clear]

    clients = await deferToThread(connect)
    assert await deferToThread(relay.end) == -signal.SIGTERM
    for client in clients:
        client.close()


def _url(hop: LoopbackServer) -> Any:
    return f"smtp+starttls://jane@127.0.0.1:{hop.port}"
