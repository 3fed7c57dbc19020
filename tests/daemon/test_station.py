"""A station in this process: what order it begins and ends in, and that nothing is left."""

from __future__ import annotations

import signal
import smtplib
import socket
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.daemon.conftest import PASSWORD, Folder
from tests.names import Configuration, QueueBusy
from tests.ports import free_ports, listens
from twisted_sendmail import SendmailError
from twisted_sendmail.daemon.door import CannotListen
from twisted_sendmail.daemon.service import RelayDaemon
from twisted_sendmail.testing import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Twisted leaves the socket it could not bind to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest_twisted.async_yield_fixture
async def hop(reactor: Any) -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(reactor, users={"jane": PASSWORD}) as server:
        yield server


class QueueFiller:
    """Makes stations, and stops them at the end."""

    def __init__(self, folder: Folder, hop: LoopbackServer) -> None:
        self.folder = folder
        self.hop = hop
        self.stations: list[RelayDaemon] = []
        self.left: list[SendmailError] = []

    def text(self, *, listen: str = '["tcp:127.0.0.1:0"]', more: str = "") -> str:
        return f"""
            queue = "queue"
            listen = {listen}
            [[smarthost]]
            url = "smtp+starttls://jane@127.0.0.1:{self.hop.port}"
            password-file = "password"
            ca-file = "{self.hop.ca_file}"
            {more}
        """

    def station(self, text: str | None = None) -> RelayDaemon:
        reactor = self.folder.reactor
        configuration = self.folder.read(self.text() if text is None else text)

        def read() -> Configuration:
            from tests.names import read_configuration

            return read_configuration(self.folder.path / "relay.toml", reactor)

        station = RelayDaemon(reactor, configuration, read=read, leave=self.left.append)
        self.stations.append(station)
        return station

    async def started(self, text: str | None = None) -> RelayDaemon:
        station = self.station(text)
        station.startService()
        await self.until(lambda: station.listening is not None and station.listening.addresses)
        return station

    async def until(self, done: Any, *, patience: float = 60) -> None:
        for _ in range(int(patience * 100)):
            if done():
                return
            await deferLater(self.folder.reactor, 0.01)
        raise AssertionError("it did not come to that")


@pytest_twisted.async_yield_fixture
async def stage(folder: Folder, hop: LoopbackServer) -> AsyncIterator[QueueFiller]:
    reactor = folder.reactor
    before = set(reactor.getDelayedCalls())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR1)}
    stage = QueueFiller(folder, hop)
    yield stage
    for station in stage.stations:
        if station.running:
            await station.stopService()
    await stage.until(lambda: not hop.sessions or all(s.closed for s in hop.sessions))
    assert handlers == {number: signal.getsignal(number) for number in handlers}
    assert "clock watch" not in [thread.name for thread in threading.enumerate()]
    assert [] == [call for call in reactor.getDelayedCalls() if call not in before]


def port_of(station: RelayDaemon, which: int = 0) -> int:
    assert station.listening is not None
    return int(station.listening.addresses[which].port)


def client_of(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=30)
    client.ehlo()
    return client


def send(port: int) -> None:
    with client_of(port) as client:
        client.sendmail("alice@example.org", ["bob@example.net"], "Subject: x\n\nx\n")


@ensureDeferred
async def test_it_takes_mail_delivers_it_and_leaves_nothing(
    stage: QueueFiller, hop: LoopbackServer
) -> None:
    station = await stage.started()
    port = port_of(station)
    await deferToThread(send, port)
    (message,) = await hop.wait_for(1)
    assert "jane" == message.user
    await station.stopService()
    assert not listens(port)
    assert not (stage.folder.path / "queue/submission").exists()
    assert [] == stage.left


@ensureDeferred
async def test_it_may_be_stopped_while_it_starts(stage: QueueFiller) -> None:
    station = stage.station()
    station.startService()
    await station.stopService()
    assert station.listening is None
    assert [] == stage.left


@ensureDeferred
async def test_what_cannot_be_listened_on_ends_it_and_nothing_listens(stage: QueueFiller) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        station = stage.station(stage.text(listen=f'["tcp:127.0.0.1:0", "tcp:127.0.0.1:{port}"]'))
        station.startService()
        await stage.until(lambda: stage.left)
    (error,) = stage.left
    assert isinstance(error, CannotListen)
    assert f"tcp:{port}:interface=127.0.0.1 cannot be listened on: Address already" in str(error)
    assert station.listening is not None
    assert [] == station.listening.addresses
    await station.stopService()


@ensureDeferred
async def test_a_queue_that_somebody_has_ends_it(stage: QueueFiller) -> None:
    first = await stage.started()
    second = stage.station()
    second.startService()
    await stage.until(lambda: stage.left)
    assert isinstance(stage.left[0], QueueBusy)
    assert second.listening is None
    await second.stopService()
    await deferToThread(send, port_of(first))


@ensureDeferred
async def test_a_message_under_way_gets_its_250_when_it_stops(
    stage: QueueFiller, hop: LoopbackServer
) -> None:
    station = await stage.started()
    port = port_of(station)

    def begin() -> smtplib.SMTP:
        client = client_of(port)
        client.mail("alice@example.org")
        client.rcpt("bob@example.net")
        client.putcmd("data")
        assert 354 == client.getreply()[0]
        client.send(b"Subject: x\r\n\r\nhalf")
        return client

    def finish(client: smtplib.SMTP) -> list[int]:
        client.send(b" and half\r\n.\r\n")
        codes = [client.getreply()[0], client.getreply()[0]]
        client.close()
        return codes

    client = await deferToThread(begin)
    stopping = station.stopService()
    await stage.until(lambda: not listens(port))
    assert not stopping.called
    assert [250, 421] == await deferToThread(finish, client)
    await stopping
    # It is durable, if it did not go out at once.
    station = await stage.started()
    assert b"half and half" in (await hop.wait_for(1, timeout=60))[0].content


@ensureDeferred
async def test_the_relay_ends_its_tries_while_the_doors_wait(
    stage: QueueFiller, hop: LoopbackServer
) -> None:
    """One grace for both, and not one after the other."""
    station = await stage.started(stage.text(more='[limits]\nstop-grace = "200 s"'))
    port = port_of(station)
    await deferToThread(send, port)
    _ = await hop.wait_for(1)

    def begin() -> smtplib.SMTP:
        client = client_of(port)
        client.mail("alice@example.org")
        client.rcpt("bob@example.net")
        client.putcmd("data")
        client.getreply()
        return client

    client = await deferToThread(begin)
    assert [False] == [session.closed for session in hop.sessions]
    stopping = station.stopService()
    # Else the connection would be kept as long as it is when there is nothing to do.
    await stage.until(lambda: all(session.closed for session in hop.sessions), patience=20)
    assert not stopping.called
    client.close()
    await stopping


@ensureDeferred
async def test_who_does_not_end_is_cut_off_after_the_grace(stage: QueueFiller) -> None:
    station = await stage.started(stage.text(more='[limits]\nstop-grace = "0.2 s"'))

    def begin() -> smtplib.SMTP:
        client = client_of(port_of(station))
        client.mail("alice@example.org")
        client.rcpt("bob@example.net")
        client.putcmd("data")
        client.getreply()
        return client

    client = await deferToThread(begin)
    await station.stopService()
    client.close()


@ensureDeferred
async def test_a_reload_during_a_reload_is_not_lost(stage: QueueFiller) -> None:
    station = await stage.started()
    times: list[None] = []
    read = station._read

    def counting() -> Configuration:
        times.append(None)
        return read()

    station._read = counting
    for _ in range(3):
        station.reload()
    await stage.until(lambda: station._reloading is None)
    assert 2 == len(times)


@ensureDeferred
async def test_a_door_that_stays_keeps_its_port_through_a_reload(stage: QueueFiller) -> None:
    station = await stage.started()
    port = port_of(station)
    stage.folder.write("relay.toml", stage.text(listen='["tcp:127.0.0.1:0", "tcp:localhost:0"]'))
    station.reload()
    await stage.until(lambda: station._reloading is None)
    assert station.listening is not None
    assert [port, True] == [port_of(station), port_of(station, 1) > 0]
    assert 3 == len(station.listening.addresses)


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, ""


@ensureDeferred
async def test_the_admin_site_comes_stays_and_goes_with_the_configuration(
    stage: QueueFiller, hop: LoopbackServer
) -> None:
    def admin(port: int, more: str = "") -> str:
        return stage.text(more=f'[admin]\nendpoint = "tcp:127.0.0.1:{port}"\n{more}')

    async def reload(text: str) -> None:
        stage.folder.write("relay.toml", text)
        station.reload()
        await stage.until(lambda: station._reloading is None)

    one, two = free_ports(2)
    station = await stage.started(admin(one))
    await stage.until(lambda: listens(one))
    await deferToThread(send, port_of(station))
    await hop.wait_for(1)
    await stage.until(lambda: station.relay.stats().under_way == 0)
    assert 200 == (await deferToThread(fetch, one, "/healthz"))[0]
    _, metrics = await deferToThread(fetch, one, "/metrics")
    counted = 'twisted_sendmail_recipients_total{outcome="delivered",route="default"} 1.0'
    assert counted in metrics
    # It stays, and so does what it has counted.
    await reload(admin(one))
    assert counted in (await deferToThread(fetch, one, "/metrics"))[1]
    await reload(admin(two, 'token-file = "token"'))
    assert not listens(one)
    assert 200 == (await deferToThread(fetch, two, "/healthz"))[0]
    await reload(stage.text())
    assert not listens(two)
    await reload(admin(one))
    assert 200 == (await deferToThread(fetch, one, "/healthz"))[0]
    await station.stopService()
    assert not listens(one)


@ensureDeferred
async def test_after_the_clock_was_set_the_relay_looks_again(
    stage: QueueFiller, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = await stage.started()
    looked: Deferred[None] = Deferred()
    monkeypatch.setattr(station.relay, "look", lambda: looked.callback(None))
    station._clock._apart -= 3600
    timer = stage.folder.reactor.callLater(10, int)
    due = timer.getTime()
    await looked
    assert 3600 == round(timer.getTime() - due)
    timer.cancel()
    # The others have to come when they would have.
    monkeypatch.undo()
    station._clock._apart += 3600
    station._clock.look()
