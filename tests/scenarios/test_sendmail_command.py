"""Local programs send mail by the sendmail command, in every state of the relay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.forked import run_forked
from tests.names import SCAN_INTERVAL
from tests.ports import free_port
from tests.scenarios.relay_process import PASSWORD, Relay
from twisted_sendmail.testing import LoopbackServer

if TYPE_CHECKING:
    from twisted_sendmail.testing import ReceivedMessage

BIN = Path(sys.executable).parent
#: Programs that run at the same time.
MANY = 20
#: Seconds. So many programs at once may take their time to start.
PATIENCE = 300.0


@pytest.fixture
def relay(relay: Relay) -> Relay:
    for name in ("sendmail", "mailq"):
        (relay.folder / name).symlink_to(BIN / "twisted-sendmail-sendmail")
    return relay


def configure(relay: Relay, port: int, ca_file: str, more: str = "") -> str:
    return relay.write(
        "relay.toml",
        f"""
        name = "relay.example.org"
        queue = "queue"
        {more}
        [[smarthost]]
        url = "smtp+starttls://jane@127.0.0.1:{port}"
        password-file = "password"
        ca-file = "{ca_file}"
        """,
    )


def call(relay: Relay, *words: str, stdin: str = "", name: str = "sendmail") -> str:
    """Call the command, which writes nothing to stderr; its stdout."""
    done = subprocess.run(
        [str(relay.folder / name), *words],
        input=stdin.encode(),
        capture_output=True,
        env={**os.environ, "TWISTED_SENDMAIL_SPOOL": str(relay.queue)},
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def numbered(relay: Relay, number: int) -> str:
    return call(relay, "-oi", "-t", stdin=f"To: bob@example.net\nSubject: {number}\n\n{number}\n")


def many(relay: Relay, numbers: range) -> None:
    with ThreadPoolExecutor(MANY) as pool:
        list(pool.map(lambda number: numbered(relay, number), numbers))


def queue(relay: Relay, action: str, *words: str) -> str:
    env = {**os.environ, "TWISTED_SENDMAIL_CONFIG": str(relay.folder / "relay.toml")}
    done = run_forked("twisted-sendmail", "queue", action, *words, folder=relay.folder, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def numbers(messages: list[ReceivedMessage]) -> list[int]:
    return sorted(int(str(message.email["Subject"])) for message in messages)


async def up(relay: Relay, *, times: int = 1) -> None:
    relay.start("--config", "relay.toml")
    await deferToThread(relay.up, times)


@ensureDeferred
async def test_a_running_relay_accepts_the_message(relay: Relay, hop: LoopbackServer) -> None:
    configure(relay, hop.port, hop.ca_file)
    await up(relay)
    text = "Subject: hello\nTo: bob@example.net\nBcc: eve@example.net\n\nHi.\n.\n..\nbare \r CR"
    await deferToThread(
        call, relay, "-t", "-i", "-f", "alice@example.org", "-F", "Alice", stdin=text
    )
    (message,) = await hop.wait_for(1, timeout=PATIENCE)
    assert [str(each) for each in message.recipients] == ["bob@example.net", "eve@example.net"]
    assert str(message.sender) == "alice@example.org"
    content = message.content.decode()
    assert content.startswith("Received: by relay.example.org (twisted_sendmail, invoked by uid ")
    assert "\r\nFrom: Alice <alice@example.org>\r\n" in content
    assert "eve@" not in content
    assert content.endswith("\r\n\r\nHi.\r\n.\r\n..\r\nbare \r\n CR\r\n")
    await deferToThread(relay.end)


@ensureDeferred
async def test_messages_written_without_a_relay_are_delivered_after_its_start(
    relay: Relay, hop: LoopbackServer
) -> None:
    configure(relay, hop.port, hop.ca_file)
    await up(relay)
    await deferToThread(relay.end)
    await deferToThread(many, relay, range(MANY))
    assert len(list((relay.queue / "drop").iterdir())) == MANY
    await up(relay, times=2)
    assert list(range(MANY)) == numbers(await hop.wait_for(MANY, timeout=PATIENCE))
    await deferToThread(relay.end)
    assert len(hop.messages) == MANY
    assert list((relay.queue / "drop").iterdir()) == []
    assert await deferToThread(lambda: call(relay, name="mailq")) == "Mail queue is empty\n"


@ensureDeferred
async def test_a_running_relay_is_woken_for_each_message(relay: Relay, hop: LoopbackServer) -> None:
    configure(relay, hop.port, hop.ca_file)
    await up(relay)
    for number in range(3):
        await deferToThread(numbered, relay, number)
        # Much sooner than by the scan every few seconds.
        await hop.wait_for(number + 1, timeout=SCAN_INTERVAL / 2)
    assert numbers(hop.messages) == [0, 1, 2]
    await deferToThread(relay.end)


@ensureDeferred
async def test_no_message_is_lost_when_the_relay_is_killed(
    relay: Relay, hop: LoopbackServer
) -> None:
    configure(relay, hop.port, hop.ca_file)
    await up(relay)
    await deferToThread(many, relay, range(2))
    await hop.wait_for(2, timeout=PATIENCE)
    working = deferToThread(many, relay, range(2, MANY + 10))
    await hop.wait_for(4, timeout=PATIENCE)
    await deferToThread(relay.kill)
    await working
    await up(relay, times=2)
    expected = set(range(MANY + 10))
    await deferToThread(relay.wait, lambda: expected <= set(numbers(hop.messages)))
    await deferToThread(relay.end)
    # All copies of a message have one Message-ID.
    by_number: dict[int, set[str]] = {}
    for message in hop.messages:
        by_number.setdefault(int(str(message.email["Subject"])), set()).add(
            str(message.email["Message-ID"])
        )
    assert {len(ids) for ids in by_number.values()} == {1}
    times = Counter(numbers(hop.messages))
    assert max(times.values()) <= 3


@ensureDeferred
async def test_the_options_of_well_known_programs_work(relay: Relay, hop: LoopbackServer) -> None:
    configure(relay, hop.port, hop.ca_file, "[rewrite]\nlocal-mail-to = 'admin@example.com'")
    await up(relay)
    calls = [
        # git send-email --sendmail-cmd, with --envelope-sender
        ("-f", "dev@example.org", "-i", "list@example.net", "maintainer@example.net"),
        # mailx
        ("-i", "-m", "bob@example.net"),
        # mutt
        ("-oem", "-oi", "-f", "dev@example.org", "--", "bob@example.net"),
        # PHP
        ("-t", "-i"),
        # cron
        ("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"),
        # smartmontools, mdadm
        ("-t",),
        # bugzilla, request tracker
        ("-oi", "-t", "-ODeliveryMode=b", "-OErrorMode=m"),
    ]
    for words in calls:
        text = "From: dev@example.org\nTo: bob@example.net\nSubject: x\n\nHi.\n"
        await deferToThread(call, relay, *words, stdin=text)
    messages = await hop.wait_for(len(calls), timeout=PATIENCE)
    expected = [["bob@example.net"]] * 5
    expected += [["list@example.net", "maintainer@example.net"], ["admin@example.com"]]
    found = [[str(each) for each in message.recipients] for message in messages]
    assert sorted(expected) == sorted(found)
    await deferToThread(relay.end)


@ensureDeferred
async def test_the_queue_command_works_while_the_relay_runs(reactor: Any, relay: Relay) -> None:
    hop_port = free_port()
    hop = LoopbackServer(reactor, port=hop_port, users={"jane": PASSWORD})
    configure(relay, hop_port, relay.write("ca.pem", hop.authority.pem))
    await up(relay)
    await deferToThread(many, relay, range(3))

    def listed(*words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in queue(relay, "list", "--json", *words).splitlines()]

    def tried() -> dict[str, str]:
        return {
            m["queue_id"]: m["recipients"][0]["delay_reason"]
            for m in listed()
            if "delay_reason" in m["recipients"][0]
        }

    # While the next hop is down, the relay tries one message at a time.
    await deferToThread(relay.wait, tried)
    third, why = next(iter((await deferToThread(tried)).items()))
    assert "refused" in why
    names = [m["queue_id"] for m in await deferToThread(listed)]
    first, second = [name for name in names if name != third]
    assert await deferToThread(queue, relay, "hold", first) == "1 message held\n"
    assert await deferToThread(queue, relay, "delete", second) == "1 message deleted\n"
    assert [m["queue_id"] for m in await deferToThread(listed, "--state", "hold")] == [first]
    shown = await deferToThread(queue, relay, "show", third)
    assert "last reply" in shown
    assert await deferToThread(queue, relay, "flush", third) == "1 message flushed\n"
    async with hop:
        (message,) = await hop.wait_for(1, timeout=PATIENCE)
        assert third in message.content.decode()
        assert await deferToThread(queue, relay, "release", first) == "1 message released\n"
        await hop.wait_for(2, timeout=PATIENCE)
        await deferToThread(relay.wait, lambda: not listed())
        await deferToThread(relay.end)
    assert len(hop.messages) == 2


@ensureDeferred
async def test_smtp_on_stdin_is_delivered(relay: Relay, hop: LoopbackServer) -> None:
    configure(relay, hop.port, hop.ca_file)
    await up(relay)
    session = (
        "EHLO client\r\nMAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.net>\r\n"
        "DATA\r\nSubject: 7\r\n\r\nHi.\r\n.\r\nQUIT\r\n"
    )
    out = await deferToThread(call, relay, "-bs", stdin=session)
    assert "\r\n250 2.0.0 Ok: queued as " in out
    assert numbers(await hop.wait_for(1, timeout=PATIENCE)) == [7]
    await deferToThread(relay.end)
