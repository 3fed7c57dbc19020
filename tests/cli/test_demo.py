"""`twisted-sendmail demo` and `twistd sendmail`: a server of one's own."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.python.usage import UsageError

from tests.cli.shell import MESSAGE, Shell
from twisted_sendmail.cli import demo
from twisted_sendmail.tap import LoopbackService, Options, makeService

# Twisted's ports keep a file open in reserve, and let the interpreter close it.
RESERVE = "error,ignore:unclosed file:ResourceWarning"


def made(*words: str) -> LoopbackService:
    """The service that ``twistd sendmail`` makes of *words*."""
    options: Any = cast("Any", Options)()
    options.parseOptions(list(words))
    return makeService(options)


def test_the_demo_shows_all_and_leaves_nothing(shell: Shell) -> None:
    before = set(shell.folder.iterdir())
    done = shell.run_now("demo", TMPDIR=str(shell.folder), PYTHONWARNINGS=RESERVE)
    assert (0, "") == (done.status, done.err)
    for held in (
        "C: STARTTLS",
        "C: AUTH PLAIN ****",
        "354",
        "C: .",
        "TLSv1.3",
        "proved by name: 127.0.0.1",
        "Grüße aus Zürich, 你好, здравствуйте.",
        "..two dots, behind a line that is one dot",
        "418 octets arrived, each as it was sent",
    ):
        assert held in done.out
    assert before == set(shell.folder.iterdir())


def test_the_demo_is_readable_where_only_ascii_is(shell: Shell) -> None:
    done = shell.run_now("demo", LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONWARNINGS=RESERVE)
    assert (0, "", True) == (done.status, done.err, done.out.isascii())


def test_the_demo_fails_when_what_arrives_is_not_what_was_sent(
    monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    """The comparison is a real one: here it is given something else to compare with."""
    code = (
        "import sys; from twisted_sendmail.cli import demo, main;"
        "demo.MESSAGE_SENT = demo.MESSAGE + b'x'; sys.exit(main.main(['demo']))"
    )
    assert demo.MESSAGE_SENT == demo.MESSAGE + b"\r\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**shell.env, "PYTHONWARNINGS": RESERVE},
        check=False,
    )
    assert (70, "") == (done.returncode, done.stderr)
    assert "what arrived is not what was sent" in done.stdout


@ensureDeferred
async def test_the_service_starts_takes_mail_and_stops(
    reactor: Any, shell: Shell, tmp_path: Path
) -> None:
    service = made("--port", "0", "--tls-port", "0", "--directory", str(tmp_path / "d"))
    service.startService()
    place = service.directory
    assert place == tmp_path / "d"
    starttls, implicit = service.ports
    for url in (
        f"smtp+starttls://alice@127.0.0.1:{starttls}",
        f"smtps://alice@127.0.0.1:{implicit}",
    ):
        files = ["--ca-file", f"{place}/ca.pem", "--password-file", f"{place}/password"]
        done = await shell.run("send", "--server", url, *files, shell.message)
        assert (0, "") == (done.status, done.err)
    await service.stopService()
    kept = list(place.glob("*.eml"))
    assert [True, True] == [file.read_bytes().endswith(MESSAGE) for file in kept]
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()}
    done = await shell.run("check", f"smtp+starttls://127.0.0.1:{starttls}")
    assert 75 == done.status


@ensureDeferred
async def test_the_service_without_a_directory_leaves_nothing() -> None:
    service = made("--port", "0")
    service.startService()
    place = service.directory
    assert place is not None
    assert place.is_dir()
    await service.stopService()
    assert not place.exists()


@pytest.mark.parametrize("port", ["x", "-1", "65536", "1.5"])
def test_the_service_refuses_a_port_that_is_none(port: str) -> None:
    with pytest.raises(UsageError, match="give a number from 0 to 65535"):
        made("--port", port)


def test_twistd_runs_and_ends_the_service(shell: Shell) -> None:
    twistd = Path(sys.executable).parent / "twistd"
    words = [str(twistd), "-n", "--pidfile=", "sendmail", "--port=0"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=shell.env, cwd=shell.folder
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            url = re.search(r"smtp\+starttls://alice@[0-9.:]+", line)
            if url is not None:
                # Now it listens; what hears signals runs when this is answered.
                answered = shell.run_now("check", url[0].replace("alice@", ""))
                process.send_signal(signal.SIGTERM)
            assert "Traceback" not in line
            last = line
    assert "its issuer is not known" in answered.err
    assert "Server Shut Down." in last
