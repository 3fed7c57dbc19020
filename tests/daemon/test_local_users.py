"""Users of this machine on a shared submission socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.daemon.conftest import SIMPLE
from tests.other_users import ALICE, BOB, as_user, needs_root

if TYPE_CHECKING:
    from tests.daemon.conftest import Folder, Stage

_SEND = """
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(
    b"HELO localhost\\r\\nMAIL FROM:<a@example.org>\\r\\nRCPT TO:<b@example.net>\\r\\nDATA\\r\\n"
    b"Subject: x\\r\\n\\r\\n.\\r\\nQUIT\\r\\n"
)
print(b"".join(iter(lambda: client.recv(4096), b"")).decode())
"""


def _shared(stage: Stage, folder: Path, more: str = "") -> str:
    socket_keys = f'submission-socket = "{folder / "submission"}"\nsubmission-mode = "0666"\n'
    return socket_keys + stage.text(more=more)


@ensureDeferred
async def test_the_user_of_a_unix_socket_is_recorded(stage: Stage) -> None:
    daemon = await stage.started()
    path = stage.folder.path / "queue" / "submission"
    me = os.geteuid()
    done = await deferToThread(_talk, path)
    assert b"250 2.0.0 Ok: queued as " in done
    (message,) = await stage.hop.wait_for(1)
    assert f"Received: from localhost (invoked by uid {me}) by".encode() in message.content
    assert daemon.running


def _talk(path: Path) -> bytes:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))
        replies = b""
        # A server that refuses the connection closes it before it has read anything, or everything.
        with suppress(BrokenPipeError):
            client.sendall(
                b"HELO localhost\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
                b"Subject: x\r\n\r\n.\r\nQUIT\r\n"
            )
        with suppress(ConnectionResetError):
            while data := client.recv(4096):
                replies += data
        return replies


@needs_root
@ensureDeferred
async def test_users_of_one_socket_are_told_apart_and_counted_apart(
    open_folder: Path, stage: Stage
) -> None:
    path = open_folder / "submission"
    await stage.started(_shared(stage, open_folder, "[limits]\nconnections-per-user = 1\n"))
    with closing(socket.socket(socket.AF_UNIX)) as ours:
        ours.connect(str(path))
        assert (await deferToThread(ours.recv, 4)) == b"220 "
        with closing(socket.socket(socket.AF_UNIX)) as second:
            second.connect(str(path))
            assert (await deferToThread(second.recv, 10)) == b"421 4.7.0 "
        for uid in (ALICE, BOB):
            done = await deferToThread(as_user, uid, _SEND, str(path))
            assert b"250 2.0.0 Ok: queued as " in done.stdout, done
    messages = await stage.hop.wait_for(2)
    traces = sorted(message.content.partition(b" by relay")[0] for message in messages)
    assert traces == [
        f"Received: from localhost (invoked by uid {uid})".encode() for uid in (ALICE, BOB)
    ]


@ensureDeferred
async def test_many_connections_wait_until_a_busy_relay_accepts_them(stage: Stage) -> None:
    await stage.started()
    path = stage.folder.path / "queue" / "submission"
    with ExitStack() as opened:
        # The reactor does not run meanwhile.
        for _ in range(200):
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(path))


@ensureDeferred
async def test_the_rate_of_a_user_holds_through_a_reload(stage: Stage) -> None:
    more = "[limits]\nuser-rate = 0.001\nuser-burst = 1\n"
    daemon = await stage.started(stage.text(more=more))
    path = stage.folder.path / "queue" / "submission"
    assert b"451 4.7.1 " in await deferToThread(_talk, path)
    daemon.reload()
    await stage.until(lambda: daemon._reloading is None)
    assert (await deferToThread(_talk, path)).startswith(b"421 4.7.0 ")


def test_a_relay_that_cannot_know_all_users_says_so(folder: Folder) -> None:
    namespace = [shutil.which("unshare") or "unshare", "--user", "--map-root-user"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    path = folder.write("relay.toml", SIMPLE)
    twistd = str(Path(sys.executable).parent / "twistd")
    checked = subprocess.run(
        [*namespace, twistd, "sendmail", "--check", "--config", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "recorded as from uid unknown" in checked.stderr
    assert checked.stdout.endswith(": good\n")
