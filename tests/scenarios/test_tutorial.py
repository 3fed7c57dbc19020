"""The steps of the tutorial work: a local server, and a first message."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_ports, listens
from tests.scenarios.postfix import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
COMMAND = str(Path(sys.executable).parent / "twisted-sendmail")


@contextmanager
def catching(folder: Path) -> Iterator[int]:
    """The command of the tutorial, on ports of its own."""
    port, tls_port = free_ports(2)
    command = [COMMAND, "catch", "--maildir", "play", "--ca-file", "ca.pem"]
    command += ["--port", str(port), "--tls-port", str(tls_port)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while not listens(port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("tutorial")
    with catching(folder) as port:
        yield folder, port


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    environment["TWISTED_SENDMAIL_PASSWORD"] = "anything"
    return subprocess.run(
        [sys.executable, str(ROOT / "examples/awaiting.py"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_the_first_message_lies_in_the_folder_and_is_told_of(play: tuple[Path, int]) -> None:
    folder, port = play
    done = run(folder, f"smtp+starttls://alice@127.0.0.1:{port}", "ca.pem")
    assert (done.stderr, done.returncode) == ("", 0)
    queue_id = done.stdout.splitlines()[-1].split()[2]
    assert f"{queue_id}  alice@example.test -> " in (folder / "log").read_text("utf-8")
    (file,) = (folder / "play/new").iterdir()
    message = message_from_bytes(file.read_bytes(), policy=default)
    assert message["Subject"] == "Greetings"
    assert message["Date"]
    assert message["Message-ID"]


def test_without_the_authority_the_error_is_the_one_shown(play: tuple[Path, int]) -> None:
    folder, port = play
    done = run(folder, f"smtp+starttls://alice@127.0.0.1:{port}")
    shown = (ROOT / "docs/tutorial/first-message.md").read_text("utf-8")
    (line,) = [line for line in shown.splitlines() if ": TLS refused at " in line]
    assert line.replace(":2525:", f":{port}:") == done.stderr.rstrip().splitlines()[-1]
    assert done.returncode == 1


def test_the_wrong_kind_of_tls_says_which_is_usual_where(play: tuple[Path, int]) -> None:
    folder, port = play
    done = run(folder, f"smtps://alice@127.0.0.1:{port}", "ca.pem")
    assert "the server answers in clear text; STARTTLS is usual on port 587" in done.stderr
    assert done.returncode == 1


def test_what_the_tutorial_types_is_what_is_tested() -> None:
    shown = (ROOT / "docs/tutorial/first-message.md").read_text("utf-8")
    assert "\ntwisted-sendmail catch --maildir play --ca-file ca.pem\n" in shown
    done = subprocess.run([COMMAND, "catch", "--help"], capture_output=True, text=True, check=False)
    assert "2525" in done.stdout
