"""`twisted-sendmail demo`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.shell import Shell
from twisted_sendmail.cli import demo

# Twisted's ports keep a file open in reserve, and let the interpreter close it.
RESERVE = "error,ignore:unclosed file:ResourceWarning"


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
