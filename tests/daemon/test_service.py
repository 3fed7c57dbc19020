"""A relay in this process: the order of start and stop, with nothing left over."""

from __future__ import annotations

import smtplib
import socket
import stat
import urllib.error
import urllib.request

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.daemon.conftest import PASSWORD, Stage
from tests.names import Configuration, QueueBusy
from tests.ports import free_ports, listens
from twisted_sendmail.daemon.listeners import CannotListen
from twisted_sendmail.daemon.service import RelayDaemon
from twisted_sendmail.testing import LoopbackServer

# Twisted leaves the socket it could not bind to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def port_of(daemon: RelayDaemon, which: int = 0) -> int:
    assert daemon.listeners is not None
    return int(daemon.listeners.addresses[which].port)


def client_of(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=30)
    client.ehlo()
    return client


def send(port: int) -> None:
    with client_of(port) as client:
        client.sendmail("alice@example.org", ["bob@example.net"], "Subject: x\n\nx\n")


@ensureDeferred
async def test_it_takes_mail_delivers_it_and_leaves_nothing(
    stage: Stage, hop: LoopbackServer
) -> None:
    daemon = await stage.started()
    port = port_of(daemon)
    await deferToThread(send, port)
    (message,) = await hop.wait_for(1)
    assert "jane" == message.user
    await daemon.stopService()
    assert not listens(port)
    assert not (stage.folder.path / "queue/submission").exists()
    assert [] == stage.failures


UNQUALIFIED = "From: mdadm <root>\r\nTo: root\r\n"
QUALIFIED = "From: mdadm <root@example.org>\r\nTo: root@example.org\r\n"


@ensureDeferred
@pytest.mark.parametrize(
    ("keys", "signed_in", "expected"),
    [
        ("", False, QUALIFIED),
        ("local = false", False, UNQUALIFIED),
        ("", True, UNQUALIFIED),
        ("local = true", True, QUALIFIED),
    ],
)
async def test_addresses_without_a_domain_get_one_in_local_mail(
    stage: Stage, hop: LoopbackServer, keys: str, signed_in: bool, expected: str
) -> None:
    listener = f"""[[listen]]
        endpoint = "tcp:127.0.0.1:0"
        certificate = "server.pem"
        accounts = "accounts"
        {keys}
        [rewrite]
        append-domain = "example.org"
    """
    text = stage.text(more=listener).replace('listen = ["tcp:127.0.0.1:0"]', "")
    port = port_of(await stage.started(text))
    whole = f"{UNQUALIFIED}Date: x\r\nMessage-ID: <1@x>\r\n\r\nTo: root\r\n"

    def session() -> None:
        with client_of(port) as client:
            if signed_in:
                client.starttls()
                client.login("jane", PASSWORD)
            client.sendmail("alice@example.org", ["bob@example.net"], whole)

    await deferToThread(session)
    (message,) = await hop.wait_for(1)
    sent = whole.replace(UNQUALIFIED, expected).encode()
    assert message.content.partition(b"\r\nFrom:")[2] == sent.removeprefix(b"From:")


@ensureDeferred
async def test_mail_of_every_interface_is_not_local(stage: Stage, hop: LoopbackServer) -> None:
    port = port_of(await stage.started(stage.text(listen='["tcp:0"]')))
    whole = f"{UNQUALIFIED}Date: x\r\nMessage-ID: <1@x>\r\n\r\nx\r\n"

    def session() -> None:
        with client_of(port) as client:
            client.sendmail("alice@example.org", ["bob@example.net"], whole)

    await deferToThread(session)
    (message,) = await hop.wait_for(1)
    assert message.content.endswith(b"\r\n" + whole.encode())


@ensureDeferred
async def test_it_may_be_stopped_while_it_starts(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.startService()
    await daemon.stopService()
    assert daemon.listeners is None
    assert [] == stage.failures


@ensureDeferred
async def test_an_endpoint_in_use_ends_the_start_and_nothing_listens(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = stage.daemon(stage.text(listen=f'["tcp:127.0.0.1:0", "tcp:127.0.0.1:{port}"]'))
        daemon.startService()
        await stage.until(lambda: stage.failures)
    (error,) = stage.failures
    assert isinstance(error, CannotListen)
    assert f"tcp:{port}:interface=127.0.0.1 cannot be listened on: Address already" in str(error)
    assert daemon.listeners is not None
    assert [] == daemon.listeners.addresses
    await daemon.stopService()


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("tcp:192.0.2.1:2525", "Cannot assign requested address; name an address of this machine"),
        ("unix:/nowhere/socket", "No such file or directory; make the directory of the socket"),
    ],
)
@ensureDeferred
async def test_the_remedy_fits_the_reason_for_which_an_endpoint_cannot_be_used(
    stage: Stage, endpoint: str, why: str
) -> None:
    daemon = stage.daemon(stage.text(listen=f'["{endpoint}"]'))
    daemon.startService()
    await stage.until(lambda: stage.failures)
    assert str(stage.failures[0]).endswith(f" cannot be listened on: {why}")
    await daemon.stopService()


@ensureDeferred
async def test_a_queue_in_use_ends_the_start(stage: Stage) -> None:
    first = await stage.started()
    second = stage.daemon()
    second.startService()
    await stage.until(lambda: stage.failures)
    assert isinstance(stage.failures[0], QueueBusy)
    assert second.listeners is None
    await second.stopService()
    await deferToThread(send, port_of(first))


@ensureDeferred
async def test_a_message_in_transit_gets_its_250_during_the_stop(
    stage: Stage, hop: LoopbackServer
) -> None:
    daemon = await stage.started()
    port = port_of(daemon)

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
    stopping = daemon.stopService()
    await stage.until(lambda: not listens(port))
    assert not stopping.called
    assert [250, 421] == await deferToThread(finish, client)
    await stopping
    # It is durable, if it did not go out at once.
    daemon = await stage.started()
    assert b"half and half" in (await hop.wait_for(1, timeout=60))[0].content


@ensureDeferred
async def test_the_relay_ends_its_attempts_while_the_listeners_wait(
    stage: Stage, hop: LoopbackServer
) -> None:
    """One grace for both, and not one after the other."""
    daemon = await stage.started(stage.text(more='[limits]\nstop-grace = "200 s"'))
    port = port_of(daemon)
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
    stopping = daemon.stopService()
    # Else the connection would be kept as long as it is when there is nothing to do.
    await stage.until(lambda: all(session.closed for session in hop.sessions), patience=20)
    assert not stopping.called
    client.close()
    await stopping


@ensureDeferred
async def test_a_client_that_does_not_finish_is_cut_off_after_the_grace(stage: Stage) -> None:
    daemon = await stage.started(stage.text(more='[limits]\nstop-grace = "0.2 s"'))

    def begin() -> smtplib.SMTP:
        client = client_of(port_of(daemon))
        client.mail("alice@example.org")
        client.rcpt("bob@example.net")
        client.putcmd("data")
        client.getreply()
        return client

    client = await deferToThread(begin)
    await daemon.stopService()
    client.close()


@ensureDeferred
async def test_a_reload_during_a_reload_is_not_lost(stage: Stage) -> None:
    daemon = await stage.started()
    times: list[None] = []
    read = daemon._read

    def counting() -> Configuration:
        times.append(None)
        return read()

    daemon._read = counting
    for _ in range(3):
        daemon.reload()
    await stage.until(lambda: daemon._reloading is None)
    assert 2 == len(times)


@ensureDeferred
async def test_a_listener_that_stays_keeps_its_port_through_a_reload(stage: Stage) -> None:
    daemon = await stage.started()
    port = port_of(daemon)
    stage.folder.write("relay.toml", stage.text(listen='["tcp:127.0.0.1:0", "tcp:localhost:0"]'))
    daemon.reload()
    await stage.until(lambda: daemon._reloading is None)
    assert daemon.listeners is not None
    assert [port, True] == [port_of(daemon), port_of(daemon, 1) > 0]
    assert 3 == len(daemon.listeners.addresses)


@ensureDeferred
async def test_connections_from_one_address_count_over_endpoints_and_reloads(stage: Stage) -> None:
    text = stage.text(
        listen='["tcp:127.0.0.1:0", "tcp:localhost:0"]',
        more="[limits]\nconnections-per-address = 1\n",
    )
    daemon = await stage.started(text)

    def greeting(client: socket.socket, port: int) -> bytes:
        client.settimeout(30)
        client.connect(("127.0.0.1", port))
        return client.recv(4)

    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        assert b"220 " == await deferToThread(greeting, first, port_of(daemon))
        assert b"421 " == await deferToThread(greeting, second, port_of(daemon, 1))
        daemon.reload()
        await stage.until(lambda: daemon._reloading is None)
        assert b"421 " == await deferToThread(greeting, third, port_of(daemon))


@ensureDeferred
async def test_a_reload_changes_the_mode_of_the_submission_socket(stage: Stage) -> None:
    daemon = await stage.started()
    path = stage.folder.path / "queue" / "submission"
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    text = f'submission-mode = "0666"\n{stage.text()}'
    stage.folder.write("relay.toml", text)
    daemon.reload()
    await stage.until(lambda: daemon._reloading is None)
    assert 0o666 == stat.S_IMODE(path.stat().st_mode)
    assert daemon.configuration.submission.endpoint.path == str(path)

    def ehlo() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            return client.recv(4)

    assert b"220 " == await deferToThread(ehlo)


@ensureDeferred
async def test_a_reload_changes_the_interface_of_a_port(stage: Stage) -> None:
    (port,) = free_ports(1)
    daemon = await stage.started(stage.text(listen=f'["tcp:{port}"]'))
    stage.folder.write("relay.toml", stage.text(listen=f'["tcp:127.0.0.1:{port}"]'))
    daemon.reload()
    await stage.until(lambda: daemon._reloading is None)
    assert daemon.listeners is not None
    assert "127.0.0.1" == daemon.listeners.addresses[0].host
    await deferToThread(send, port)


@ensureDeferred
async def test_a_reload_without_a_usable_drop_directory_changes_nothing(stage: Stage) -> None:
    daemon = await stage.started()
    before = daemon.configuration
    assert daemon.listeners is not None
    addresses = list(daemon.listeners.addresses)
    drop = stage.folder.path / "queue" / "drop"
    drop.chmod(0o700)
    stage.folder.write("relay.toml", stage.text(listen='["tcp:127.0.0.1:0", "tcp:localhost:0"]'))
    daemon.reload()
    await stage.until(lambda: daemon._reloading is None)
    assert (daemon.configuration, daemon.listeners.addresses) == (before, addresses)
    drop.chmod(0o3733)
    daemon.reload()
    await stage.until(lambda: daemon._reloading is None)
    assert len(daemon.listeners.addresses) == len(addresses) + 1


@ensureDeferred
async def test_a_reload_that_fails_leaves_the_listeners_it_would_have_replaced(
    stage: Stage,
) -> None:
    port, other = free_ports(2)
    daemon = await stage.started(stage.text(listen=f'["tcp:{port}"]'))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", other))
        taken.listen()
        endpoints = f'["tcp:127.0.0.1:{port}", "tcp:127.0.0.1:{other}"]'
        stage.folder.write("relay.toml", stage.text(listen=endpoints))
        daemon.reload()
        await stage.until(lambda: daemon._reloading is None)
    assert daemon.listeners is not None
    assert ["0.0.0.0", port] == [daemon.listeners.addresses[0].host, port_of(daemon)]
    await deferToThread(send, port)


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, ""


@ensureDeferred
async def test_the_admin_site_comes_stays_and_goes_with_the_configuration(
    stage: Stage, hop: LoopbackServer
) -> None:
    def admin(port: int, more: str = "") -> str:
        return stage.text(more=f'[admin]\nendpoint = "tcp:127.0.0.1:{port}"\n{more}')

    async def reload(text: str) -> None:
        stage.folder.write("relay.toml", text)
        daemon.reload()
        await stage.until(lambda: daemon._reloading is None)

    one, two = free_ports(2)
    daemon = await stage.started(admin(one, 'token-file = "token"'))
    await stage.until(lambda: listens(one))
    await deferToThread(send, port_of(daemon))
    await hop.wait_for(1)
    await stage.until(lambda: daemon.relay.stats().under_way == 0)
    assert 200 == (await deferToThread(fetch, one, "/healthz"))[0]
    _, metrics = await deferToThread(fetch, one, "/metrics")
    counted = 'twisted_sendmail_recipients_total{outcome="delivered",route="default"} 1.0'
    assert counted in metrics
    # It stays, and so does what it has counted.
    await reload(admin(one, 'token-file = "token"'))
    assert counted in (await deferToThread(fetch, one, "/metrics"))[1]
    await reload(admin(two, 'token-file = "token"'))
    assert not listens(one)
    assert 200 == (await deferToThread(fetch, two, "/healthz"))[0]
    await reload(stage.text())
    assert not listens(two)
    await reload(admin(one))
    assert 200 == (await deferToThread(fetch, one, "/healthz"))[0]
    await daemon.stopService()
    assert not listens(one)


@ensureDeferred
async def test_after_the_clock_was_set_the_relay_looks_for_due_mail(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await stage.started()
    looked: Deferred[None] = Deferred()
    monkeypatch.setattr(daemon.relay, "look", lambda: looked.callback(None))
    daemon._clock_watch._difference -= 3600
    timer = stage.folder.reactor.callLater(10, int)
    due = timer.getTime()
    await looked
    assert 3600 == round(timer.getTime() - due)
    timer.cancel()
    # The others have to come when they would have.
    monkeypatch.undo()
    daemon._clock_watch._difference += 3600
    daemon._clock_watch.compare()


@ensureDeferred
@pytest.mark.parametrize(
    ("repair", "code"),
    [("true", 250), ('["127.0.0.0/8"]', 250), ('["192.0.2.0/24", "unix"]', 550), ("false", 550)],
)
async def test_bare_lf_is_repaired_for_the_networks_of_a_key(
    stage: Stage, hop: LoopbackServer, repair: str, code: int
) -> None:
    listener = f'[[listen]]\nendpoint = "tcp:127.0.0.1:0"\nrepair = {repair}\n'
    text = stage.text(more=listener).replace('listen = ["tcp:127.0.0.1:0"]', "")
    port = port_of(await stage.started(text))

    def session() -> int:
        with client_of(port) as client:
            client.mail("alice@example.org")
            client.rcpt("bob@example.net")
            client.putcmd("data")
            assert client.getreply()[0] == 354
            client.send(b"Subject: x\n\nbare\n.\nLF\r\n.\r\n")
            return client.getreply()[0]

    assert await deferToThread(session) == code
    if code == 250:
        (message,) = await hop.wait_for(1)
        assert message.content.endswith(b"\r\n\r\nbare\r\n.\r\nLF\r\n")
