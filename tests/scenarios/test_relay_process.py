"""A real relay process: from its listeners to the next hop, through signals, reloads and shortages."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.names import password_entry
from tests.ports import free_port, listens
from tests.scenarios.peers import require
from tests.scenarios.relay_process import PASSWORD, TWISTD, Relay, submit
from twisted_sendmail.testing import Authority, LoopbackServer

if TYPE_CHECKING:
    from twisted_sendmail.testing import ReceivedMessage


def flags(relay: Relay, hop: LoopbackServer, port: int) -> list[str]:
    return [
        *("--listen", f"tcp:127.0.0.1:{port}", "--queue", "queue"),
        *("--smarthost", f"smtp+starttls://jane@127.0.0.1:{hop.port}"),
        *("--password-file", "password", "--ca-file", hop.ca_file),
    ]


def configuration(hop: LoopbackServer, *endpoints: str, more: str = "") -> str:
    listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    return f"""
        name = "relay.example.org"
        queue = "queue"
        listen = [{listed}]
        [[smarthost]]
        url = "smtp+starttls://jane@127.0.0.1:{hop.port}"
        password-file = "password"
        ca-file = "{hop.ca_file}"
        {more}
    """


async def up(relay: Relay, times: int = 1) -> None:
    await deferToThread(relay.up, times)


async def until(relay: Relay, pattern: str) -> None:
    """Wait for a line of the log."""
    await deferToThread(relay.wait, lambda: re.search(pattern, relay.said))


async def send(port: int, number: int = 0) -> str:
    return await deferToThread(submit, port, number)


def numbers(messages: list[ReceivedMessage]) -> list[int]:
    return sorted(int(str(message.email["Subject"])) for message in messages)


@ensureDeferred
async def test_a_message_goes_in_by_flags_and_out_over_starttls_and_auth(
    relay: Relay, hop: LoopbackServer
) -> None:
    port = free_port()
    relay.start(*flags(relay, hop, port), umask=0)
    await up(relay)
    said = await send(port)
    (message,) = await hop.wait_for(1)
    assert (message.user, str(message.sender)) == ("jane", "alice@example.org")
    assert message.tls is not None
    queued = re.fullmatch(r"2\.0\.0 Ok: queued as ([0-9A-Z]+)", said)
    assert queued is not None
    content = message.content.decode()
    assert re.search(rf"\AReceived: from client\.example\.org .*\r\n\tid {queued[1]} for", content)
    assert content.endswith("\r\n\r\n0\r\n")
    assert {"Date", "Message-ID", "From", "Subject"} <= set(message.email.keys())
    await until(relay, rf"{queued[1]}: to=<bob@example\.net>.* status=sent \(250 ")
    # Under umask 0, and before anything tidies up.
    relay.check()
    assert await deferToThread(relay.end) == -signal.SIGTERM
    assert not listens(port)


@ensureDeferred
async def test_what_waits_is_delivered_after_a_restart_and_tried_at_once_by_sigusr1(
    reactor: Any, relay: Relay
) -> None:
    port, hop_port = free_port(), free_port()
    hop = LoopbackServer(reactor, port=hop_port, users={"jane": PASSWORD})
    ca = relay.write("ca.pem", hop.authority.pem)
    words = [
        *("--listen", f"tcp:127.0.0.1:{port}", "--queue", "queue", "--ca-file", ca),
        *("--smarthost", f"smtp+starttls://jane@127.0.0.1:{hop_port}"),
        *("--password-file", "password"),
    ]
    relay.start(*words)
    await up(relay)
    for number in range(5):
        await send(port, number)
    await until(relay, "Connection refused|could not be reached|refused")
    await deferToThread(relay.kill)
    relay.start(*words)
    await up(relay, 2)
    assert "accepting mail; 5 messages in the queue" in relay.said
    await send(port, 5)
    async with hop:
        relay.signal(signal.SIGUSR1)
        assert numbers(await hop.wait_for(6, timeout=60)) == [0, 1, 2, 3, 4, 5]
        assert await deferToThread(relay.end) == -signal.SIGTERM


@ensureDeferred
async def test_sighup_takes_a_good_file_and_leaves_a_bad_one(
    reactor: Any, relay: Relay, hop: LoopbackServer
) -> None:
    first, second, other = free_port(), free_port(), free_port()
    relay.write("relay.toml", configuration(hop, f"tcp:127.0.0.1:{first}"))
    relay.start("--config", "relay.toml")
    await up(relay)
    await send(first, 0)

    # A bad one: nothing changes.
    relay.write("relay.toml", configuration(hop, f"tcp:127.0.0.1:{second}", more="nil = 1"))
    relay.signal(signal.SIGHUP)
    await until(relay, r"relay\.toml: smarthost\.nil: there is no such key; .* as before")
    await send(first, 1)
    assert not listens(second)

    # A port that somebody has: nothing changes either.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", other))
        taken.listen()
        endpoints = [f"tcp:127.0.0.1:{second}", f"tcp:127.0.0.1:{other}"]
        relay.write("relay.toml", configuration(hop, *endpoints))
        relay.signal(signal.SIGHUP)
        await until(relay, "cannot be listened on: Address already in use; .* as before")
    await send(first, 2)
    assert not listens(second)

    # Another queue: not while it runs.
    moved = configuration(hop, f"tcp:127.0.0.1:{second}").replace('"queue"', '"other"')
    relay.write("relay.toml", moved)
    relay.signal(signal.SIGHUP)
    await until(
        relay, "queue: the directory cannot change while the relay runs; restart the relay; .* as b"
    )

    # A good one: another endpoint, another next hop; who is connected stays.
    async with LoopbackServer(reactor, users={"jane": PASSWORD}) as next_hop:
        client = await deferToThread(smtplib.SMTP, "127.0.0.1", first, "client.example.org")
        await deferToThread(client.ehlo)
        relay.write("relay.toml", configuration(next_hop, f"tcp:127.0.0.1:{second}"))
        relay.signal(signal.SIGHUP)
        await until(relay, r"relay\.toml: read again, and in effect")
        await send(second, 3)
        assert numbers(await next_hop.wait_for(1)) == [3]
        assert not listens(first)
        assert (await deferToThread(client.noop))[0] == 421
        client.close()
        assert await deferToThread(relay.end) == -signal.SIGTERM
    assert numbers(await hop.wait_for(3)) == [0, 1, 2]


@ensureDeferred
async def test_sighup_takes_new_certificates_and_accounts(
    relay: Relay, hop: LoopbackServer
) -> None:
    port = free_port()
    before, after = Authority("before"), Authority("after")
    relay.write("server.pem", before.issue(), 0o600)
    relay.write("accounts", password_entry("alice", PASSWORD, iterations=4096) + "\n", 0o600)
    listener = f"""
        [[listen]]
        endpoint = "tcp:127.0.0.1:{port}"
        certificate = "server.pem"
        accounts = "accounts"
        trusted = []
    """
    relay.write("relay.toml", configuration(hop).replace("listen = []", "") + listener)
    relay.start("--config", "relay.toml")
    await up(relay)

    def log_in(authority: Authority, user: str) -> int:
        context = ssl.create_default_context(cadata=authority.pem.decode())
        with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=30) as client:
            client._host = "127.0.0.1"  # type: ignore[attr-defined]
            client.starttls(context=context)
            try:
                return client.login(user, PASSWORD)[0]
            except smtplib.SMTPAuthenticationError as e:
                return e.smtp_code

    assert await deferToThread(log_in, before, "alice") == 235
    relay.write("server.pem", after.issue(), 0o600)
    relay.write("accounts", password_entry("carol", PASSWORD, iterations=4096) + "\n", 0o600)
    relay.signal(signal.SIGHUP)
    await until(relay, "read again, and in effect")
    assert await deferToThread(log_in, after, "carol") == 235
    assert await deferToThread(log_in, after, "alice") == 535
    with pytest.raises(ssl.SSLError):
        await deferToThread(log_in, before, "carol")
    assert await deferToThread(relay.end) == -signal.SIGTERM


@ensureDeferred
async def test_sigterm_under_load_loses_nothing_and_sends_nothing_twice(
    reactor: Any, relay: Relay, hop: LoopbackServer
) -> None:
    port = free_port()
    acknowledged: list[int] = []

    def pour(worker: int) -> None:
        """Send as fast as can be, until the relay goes."""
        number = worker
        try:
            with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=30) as client:
                while True:
                    client.sendmail(
                        "alice@example.org", ["bob@example.net"], f"Subject: {number}\n\n"
                    )
                    acknowledged.append(number)
                    number += 100
        except (OSError, smtplib.SMTPException):
            pass

    relay.start(*flags(relay, hop, port))
    await up(relay)
    for round_ in range(1, 4):
        before = len(acknowledged)
        pouring = [deferToThread(pour, len(acknowledged) * 1000 + w) for w in range(5)]
        while len(acknowledged) < before + 50:
            await deferLater(reactor, 0.01)
        if round_ == 2:
            relay.signal(signal.SIGHUP)
        assert await deferToThread(relay.end) == -signal.SIGTERM
        for each in pouring:
            await each
        relay.start(*flags(relay, hop, port))
        await up(relay, round_ + 1)
    await hop.wait_for(len(acknowledged), timeout=60)
    await deferToThread(
        relay.wait, lambda: relay.said.count("status=sent (250 ") >= len(acknowledged)
    )
    assert await deferToThread(relay.end) == -signal.SIGTERM
    arrived = numbers(hop.messages)
    assert len(set(arrived)) == len(arrived)
    assert set(acknowledged) - set(arrived) == set()
    assert "possibly duplicated" not in relay.said


@ensureDeferred
async def test_a_second_sigterm_is_no_fault(relay: Relay, hop: LoopbackServer) -> None:
    port = free_port()
    relay.start(*flags(relay, hop, port))
    await up(relay)
    # One who is in the middle of a message holds it up.
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(
            b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
        )
        while b"354" not in await deferToThread(client.recv, 4096):
            pass
        relay.signal(signal.SIGTERM)
        await until(relay, r"TCP Port .* Closed")
        relay.signal(signal.SIGTERM)
        await until(relay, "stopping already")
    assert await deferToThread(relay.ended) == -signal.SIGTERM


@ensureDeferred
async def test_systemd_is_told_and_its_socket_is_taken_over(
    relay: Relay, hop: LoopbackServer
) -> None:
    notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify_socket.bind(str(relay.folder / "notify"))
    notify_socket.settimeout(60)
    relay.env["NOTIFY_SOCKET"] = str(relay.folder / "notify")
    relay.env["CREDENTIALS_DIRECTORY"] = str(relay.folder)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    port = listening.getsockname()[1]
    credential = configuration(hop, "systemd:domain=INET:name=smtp")
    credential = credential.replace("password-file", "password-credential")
    relay.write("relay.toml", credential)
    relay.start("--config", "relay.toml", listening=listening)
    listening.close()

    async def next_notification() -> str:
        return (await deferToThread(notify_socket.recv, 4096)).decode()

    assert await next_notification() == "READY=1\nSTATUS=accepting mail; 0 messages in the queue"
    await send(port, 7)
    assert numbers(await hop.wait_for(1)) == [7]
    relay.signal(signal.SIGHUP)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[0-9]+", await next_notification())
    assert (await next_notification()).startswith("READY=1\n")
    await send(port, 8)
    assert await deferToThread(relay.end) == -signal.SIGTERM
    assert await next_notification() == "STOPPING=1"
    notify_socket.close()


@ensureDeferred
async def test_without_descriptors_it_does_not_spin_and_recovers(
    reactor: Any, relay: Relay, hop: LoopbackServer
) -> None:
    port = free_port()
    limit = ("sh", "-c", 'ulimit -n 40; exec "$0" "$@"', sys.executable)
    relay.start(*flags(relay, hop, port), through=limit)
    await up(relay)
    assert relay.process is not None
    crowd = []
    for _ in range(80):
        client = socket.socket()
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        crowd.append(client)
    await until(relay, "EMFILE")
    used = _cpu(relay.process.pid)
    await deferLater(reactor, 2)
    # Two seconds on the clock: one that spins would have used them.
    assert _cpu(relay.process.pid) - used < 1.0
    for client in crowd:
        client.close()
    await send(port, 1)
    assert numbers(await hop.wait_for(1, timeout=60)) == [1]
    assert await deferToThread(relay.end) == -signal.SIGTERM


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@ensureDeferred
async def test_programs_of_this_machine_submit_by_the_socket(
    relay: Relay, hop: LoopbackServer
) -> None:
    more = '[log]\njson-file = "relay.json"\ndialogue = true\n'
    public = relay.folder / "public"
    relay.write("relay.toml", configuration(hop, f"unix:{public}:mode=666", more=more))
    relay.start("--config", "relay.toml")
    await up(relay)
    assert stat.S_IMODE(public.stat().st_mode) == 0o666

    def talk(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            lines = [
                "EHLO localhost",
                "MAIL FROM:<a@example.org>",
                "RCPT TO:<b@example.net>",
                "DATA",
            ]
            client.sendall("".join(f"{line}\r\n" for line in lines).encode())
            client.sendall(b"Subject: 1\r\n\r\nbare\nline\r\n.\r\nQUIT\r\n")
            return b"".join(iter(lambda: client.recv(4096), b""))

    # What programs write by hand has bare line ends: they are repaired on our own socket alone.
    assert b"250 2.0.0 Ok: queued as " in await deferToThread(talk, relay.queue / "submission")
    (message,) = await hop.wait_for(1)
    assert b"bare\r\nline\r\n" in message.content
    assert b"\r\n250 2.0.0 Ok: queued as " not in await deferToThread(talk, public)
    await until(relay, r"status=sent \(250 ")
    assert "C: AUTH " in relay.said
    assert await deferToThread(relay.end) == -signal.SIGTERM
    assert [path for path in (public, relay.queue / "submission") if path.exists()] == []
    events = [json.loads(line) for line in (relay.folder / "relay.json").read_text().splitlines()]
    (sent,) = [event for event in events if event.get("status") == "sent"]
    assert (sent["recipient"], sent["dsn"]) == ("b@example.net", "2.0.0")
    assert stat.S_IMODE((relay.folder / "relay.json").stat().st_mode) == 0o600
    assert PASSWORD not in (relay.folder / "relay.json").read_text()


@ensureDeferred
async def test_the_log_names_the_endpoints_and_no_classes(
    relay: Relay, hop: LoopbackServer
) -> None:
    port = free_port()
    more = f'[admin]\nendpoint = "unix:{relay.folder}/admin"\n'
    relay.write("relay.toml", configuration(hop, f"tcp:127.0.0.1:{port}", more=more))
    relay.start("--config", "relay.toml")
    await up(relay)
    await send(port, 1)
    await hop.wait_for(1)
    relay.signal(signal.SIGTERM)
    await deferToThread(relay.ended)
    assert re.findall(r"twisted_sendmail\.daemon#info\] listening on (.*)", relay.said) == [
        f"tcp:{port}:interface=127.0.0.1",
        f"unix:{relay.queue}/submission",
        f"unix:{relay.folder}/admin",
        f"unix:{relay.queue}/mailq",
    ]
    assert (
        re.findall(r"<class|<twisted|object at 0x|starting on|Starting factory", relay.said) == []
    )
    named = {found.partition("#")[0] for found in re.findall(r" \[([^\]]+)\] ", relay.said)}
    assert {name for name in named if not name.startswith("twisted_sendmail")} == {"-", "twisted"}


@ensureDeferred
async def test_logrotate_rotates_the_logs_of_a_running_relay(
    relay: Relay, hop: LoopbackServer
) -> None:
    logrotate = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
    require("logrotate", None if logrotate else "logrotate is not installed")
    port = free_port()
    more = '[log]\njson-file = "relay.json"\n'
    relay.write("relay.toml", configuration(hop, f"tcp:127.0.0.1:{port}", more=more))
    page = Path(__file__).parents[2] / "docs" / "how-to" / "run-the-relay.md"
    documented = re.search(r"```text\n(/var/log/.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert documented is not None
    stanza = documented[1].replace("/run/twisted_sendmail.pid", f"{relay.folder}/pid")
    files = "/var/log/twisted_sendmail/*.log /var/log/twisted_sendmail/*.json"
    assert stanza.startswith(files)
    stanza = stanza.replace(files, f"{relay.folder}/log {relay.folder}/relay.json")
    relay.write("rotation", stanza)
    command = [TWISTD, "--pidfile=pid", "--logfile=log", "sendmail", "--config", "relay.toml"]

    def run(*words: str) -> None:
        subprocess.run(words, cwd=relay.folder, env=relay.env, timeout=60, check=True)

    await deferToThread(run, *command)
    await up(relay)
    pid = int((relay.folder / "pid").read_text())
    try:
        await send(port, 1)
        await hop.wait_for(1)
        await until(relay, "status=sent")
        await deferToThread(run, str(logrotate), "--force", "--state=state", "rotation")
        await until(relay, "read again, and in effect")
        await send(port, 2)
        await hop.wait_for(2)
        await deferToThread(
            relay.wait,
            lambda: '"status": "sent"' in (relay.folder / "relay.json").read_text("utf-8"),
        )
        before, after = (relay.folder / name for name in ("log.1", "log"))
        assert ("accepting mail" in before.read_text(), "read again" in before.read_text()) == (
            True,
            False,
        )
        for file in (relay.folder / "relay.json.1", relay.folder / "relay.json"):
            events = [json.loads(line) for line in file.read_text().splitlines()]
            assert len([each for each in events if each.get("status") == "sent"]) == 1
        assert "accepting mail" not in after.read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
    await until(relay, "Server Shut Down")
    relay.check()


@ensureDeferred
async def test_a_crash_leaves_no_socket_that_keeps_the_next_one_out(
    relay: Relay, hop: LoopbackServer
) -> None:
    public = relay.folder / "public"
    relay.write("relay.toml", configuration(hop, f"unix:{public}"))
    for times in (1, 2):
        relay.start("--config", "relay.toml")
        await up(relay, times)
        await deferToThread(relay.kill)
    assert public.exists()


@ensureDeferred
async def test_signals_work_in_the_background_too(relay: Relay, hop: LoopbackServer) -> None:
    port = free_port()
    relay.write("relay.toml", configuration(hop, f"tcp:127.0.0.1:{port}"))
    command = [TWISTD, "--pidfile=pid", "--logfile=log", "sendmail", "--config", "relay.toml"]
    done = await deferToThread(
        subprocess.run,
        command,
        cwd=relay.folder,
        env=relay.env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    await up(relay)
    pid = int((relay.folder / "pid").read_text())
    try:
        await send(port, 1)
        await hop.wait_for(1)
        (relay.folder / "log").rename(relay.folder / "log.1")
        os.kill(pid, signal.SIGHUP)
        await until(relay, "read again, and in effect")
        assert "read again" not in (relay.folder / "log.1").read_text()
        os.kill(pid, signal.SIGUSR1)
        await until(relay, "trying everything in the queue at once")
    finally:
        os.kill(pid, signal.SIGTERM)
    await until(relay, "Server Shut Down")
    relay.check()
