"""Many users of this machine send mail while the relay is down, and attack its drop directory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.other_users import as_user, needs_root
from tests.scenarios.relay_process import Relay

if TYPE_CHECKING:
    from twisted_sendmail.testing import LoopbackServer

USERS = range(21001, 21009)
#: Messages of each of them.
EACH = 50

_SEND = """
for number in range(int(sys.argv[1])):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(read, 0)
        os.close(write)
        os._exit(main(["sendmail", "-i", "-f", f"u{uid}@example.org", "bob@example.net"]))
    os.write(write, f"Subject: {uid}-{number}\\n\\nHi.\\n".encode())
    os.close(read)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
"""
_ATTACK = """
os.chdir(sys.argv[1])
try:
    os.listdir(".")
    raise AssertionError("it can be listed")
except PermissionError:
    pass
for number in range(300):
    os.mkfifo(f"fifo-{number}", 0o640)
    os.symlink("/etc/passwd", f"link-{number}")
    os.close(os.open(f"empty-{number}", os.O_CREAT | os.O_WRONLY, 0o640))
os.mkdir("full")
open("full/file", "w").close()
open("unfinished", "w").write("twisted_sendmail drop 1\\n")
os.chmod("unfinished", 0o600)
large = os.open("large", os.O_CREAT | os.O_WRONLY, 0o640)
os.ftruncate(large, 1 << 40)
for _ in range(40):
    open("../sendmail.fifo", "w").write("x" * 4000)
"""


@pytest.fixture
def relay(open_folder: Path) -> Iterator[Relay]:
    """A relay in a folder that every user can enter."""
    relay = Relay(open_folder)
    yield relay
    relay.tidy()


def send(relay: Relay, uid: int, count: int) -> None:
    done = as_user(
        uid,
        _SEND.replace("{uid}", str(uid)),
        str(count),
        imports="from twisted_sendmail.cli.sendmail.command import main\n"
        f"os.environ['TWISTED_SENDMAIL_SPOOL'] = {str(relay.folder / 'spool')!r}",
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def up(relay: Relay, times: int) -> None:
    relay.start("--config", "relay.toml")
    await deferToThread(relay.up, times)


@needs_root
@ensureDeferred
async def test_four_hundred_messages_of_eight_users_arrive_once_after_the_start(
    relay: Relay, hop: LoopbackServer
) -> None:
    relay.accept_local_mail(hop)
    await up(relay, 1)
    await deferToThread(relay.end)

    def send_all() -> None:
        with ThreadPoolExecutor(len(USERS)) as pool:
            list(pool.map(lambda uid: send(relay, uid, EACH), USERS))

    await deferToThread(send_all)
    drop = relay.folder / "spool" / "drop"
    assert len(list(drop.iterdir())) == len(USERS) * EACH
    await up(relay, 2)
    messages = await hop.wait_for(len(USERS) * EACH, timeout=120)
    await deferToThread(relay.end)
    assert list(drop.iterdir()) == []
    assert len(hop.messages) == len(USERS) * EACH
    subjects = Counter(str(message.email["Subject"]) for message in messages)
    assert subjects == Counter(f"{uid}-{n}" for uid in USERS for n in range(EACH))
    for message in messages:
        uid = re.search(rb"invoked by uid (\d+)\)", message.content)
        assert uid is not None
        assert str(message.email["Subject"]).startswith(uid[1].decode())


@needs_root
@ensureDeferred
async def test_a_user_who_attacks_the_directory_delays_no_other(
    relay: Relay, hop: LoopbackServer
) -> None:
    relay.accept_local_mail(hop)
    await up(relay, 1)
    drop = relay.folder / "spool" / "drop"
    done = await deferToThread(as_user, USERS[0], _ATTACK, str(drop))
    assert done.stderr == b""
    await deferToThread(send, relay, USERS[1], 5)
    messages = await hop.wait_for(5, timeout=30)
    assert {str(message.email["Subject"]) for message in messages} == {
        f"{USERS[1]}-{n}" for n in range(5)
    }
    await deferToThread(relay.end)
    # 20 lines, a summary, and those of the second scan of the timer at most.
    assert 1 <= relay.said.count("not taken: ") <= 60
