"""``mailq`` and ``sendmail -q`` of every user, with a relay that runs and without one."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.names import QueueAction, Selection
from tests.other_users import ALICE, BOB, as_user, needs_root
from tests.ports import free_ports

if TYPE_CHECKING:
    from tests.daemon.conftest import Stage
    from twisted_sendmail.daemon.service import RelayDaemon

OPERATORS = 20009
# Other users may not be able to read the package.
_IMPORTS = """
from twisted_sendmail.cli.sendmail import mailq
from twisted_sendmail.cli.sendmail.command import main
from twisted_sendmail import drop
from twisted_sendmail.drop import DropFile, DropSettings, read_settings, wake_relay
from twisted_sendmail.smtp import Envelope, Mailbox, MessageTooLarge, Recipient
import encodings.idna, pwd
"""


def _sendmail(
    spool: Path, uid: int, *words: str, name: str = "sendmail", groups: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    words = (name, "-O", f"QueueDirectory={spool}", *words)
    return as_user(
        uid,
        "sys.stdout.flush(); sys.exit(main(sys.argv[1:]))",
        *words,
        imports=_IMPORTS,
        groups=groups,
        stdin=b"Subject: x\n\nx\n",
    )


async def _run(
    spool: Path, uid: int, *words: str, name: str = "sendmail", groups: tuple[int, ...] = ()
) -> str:
    """Run the command without errors; its output."""
    done = await deferToThread(_sendmail, spool, uid, *words, name=name, groups=groups)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def _configuration(stage: Stage, folder: Path, more: str = "") -> str:
    """A relay with a spool for all users, whose smarthost is down."""
    spool = folder / "spool"
    if not spool.exists():
        spool.mkdir()
        (spool / "drop").mkdir()
        (spool / "drop").chmod(0o3733)
    (port,) = free_ports(1)
    return f"""
        name = "relay.example.org"
        queue = "{stage.folder.path}/queue"
        spool = "{spool}"
        {more}
        [[smarthost]]
        url = "smtp://127.0.0.1:{port}"
    """


async def _queued(stage: Stage, daemon: RelayDaemon, count: int) -> list[int | None]:
    """Wait for so many messages in the queue; their users."""
    queue = daemon.relay.queue
    found = await queue.list(Selection())
    for _ in range(1000):
        if len(found) == count:
            break
        await stage.until(lambda: True)
        await deferToThread(os.sched_yield)
        found = await queue.list(Selection())
    assert len(found) == count
    return [message.info.uid for message in found]


@needs_root
@ensureDeferred
async def test_every_user_sees_and_flushes_their_own_mail(open_folder: Path, stage: Stage) -> None:
    text = _configuration(stage, open_folder, f"operator-group = {OPERATORS}")
    daemon = await stage.started(text)
    spool = open_folder / "spool"
    for uid in (ALICE, BOB):
        await _run(spool, uid, "-i", "-f", f"u{uid}@example.org", "carol@example.net")
    assert sorted(await _queued(stage, daemon, 2), key=str) == [ALICE, BOB]
    for uid in (ALICE, BOB):
        lines = (await _run(spool, uid, name="mailq")).splitlines()
        assert lines[1].endswith(f"  u{uid}@example.org")
        assert lines[-1] == "-- 1 Kbytes in 1 Request."
    for uid, groups in ((BOB, (OPERATORS,)), (0, ())):
        out = await _run(spool, uid, "-bp", groups=groups)
        assert out.splitlines()[-1] == "-- 1 Kbytes in 2 Requests."
        assert (await _run(spool, uid, "-bp", f"-qSu{ALICE}", groups=groups)).count("@") == 2
    await daemon.relay.queue.act(QueueAction.HOLD, Selection(), 0.0)
    assert "! " in (await _run(spool, ALICE, name="mailq"))
    assert await _run(spool, ALICE, "-q") == ""
    # A reload may name another group.
    stage.folder.write("relay.toml", _configuration(stage, open_folder))
    daemon.reload()
    await stage.until(lambda: daemon.configuration.operators is None)
    out = await _run(spool, 20003, "-bp", groups=(OPERATORS,))
    assert out == "Mail queue is empty\n"


@needs_root
@ensureDeferred
async def test_without_a_relay_root_reads_the_queue_and_others_get_one_line(
    open_folder: Path, stage: Stage
) -> None:
    spool = open_folder / "spool"
    daemon = await stage.started(_configuration(stage, open_folder))
    await _run(spool, ALICE, "-i", "carol@example.net")
    await _queued(stage, daemon, 1)
    await daemon.stopService()
    assert not (spool / "mailq").exists()
    await _run(spool, ALICE, "-i", "carol@example.net")
    lines = (await _run(spool, 0, name="mailq")).splitlines()
    assert lines[-2].startswith("-- 1 message waits in the drop directory for ")
    assert lines[-1] == "-- 1 Kbytes in 1 Request."
    for words in (("-bp",), ("-q",)):
        done = await deferToThread(_sendmail, spool, ALICE, *words)
        assert done.returncode == 75
        assert done.stderr.startswith(b"sendmail: the relay is not running, and only root ")
        assert done.stderr.count(b"\n") == 1
        assert done.stdout == b""


@needs_root
@ensureDeferred
async def test_a_socket_that_a_killed_relay_left_is_no_relay(
    open_folder: Path, stage: Stage
) -> None:
    spool = open_folder / "spool"
    daemon = await stage.started(_configuration(stage, open_folder))
    await daemon.stopService()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(spool / "mailq"))
    assert await _run(spool, 0, name="mailq") == "Mail queue is empty\n"
    again = await stage.started(_configuration(stage, open_folder))
    assert await _run(spool, ALICE, name="mailq") == "Mail queue is empty\n"
    await again.stopService()


@needs_root
@ensureDeferred
async def test_a_refusal_of_the_relay_is_one_line(
    open_folder: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.started(_configuration(stage, open_folder))
    # As in a user namespace that does not map the user.
    monkeypatch.setattr("twisted_sendmail.local_users.known_uid", lambda _: None)
    done = await deferToThread(_sendmail, open_folder / "spool", ALICE, "-bp")
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.startswith(b"sendmail: the relay refused: the user who asks is not known: ")
    assert done.stderr.count(b"\n") == 1
