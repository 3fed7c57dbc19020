"""The programs of `examples/` that receive mail."""

from __future__ import annotations

import os
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.names import password_entry
from twisted_sendmail.testing import Authority

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LOOPBACK = "tcp:0:interface=127.0.0.1"


@contextmanager
def example(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "error"}
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().rstrip("\n")


def test_receive() -> None:
    with example("receive.py", LOOPBACK) as running:
        port = re.search(r"port=(\d+)", line(running))
        assert port
        with smtplib.SMTP("127.0.0.1", int(port[1])) as client:
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("a@example.org", ["b@example.org"], "hello")
            client.sendmail("a@example.org", ["guestbook@example.org"], "Subject: hello\n\nhi\n")
        assert re.match(
            r"Received: from .* \(\[127\.0\.0\.1\]\) by localhost with ESMTP", line(running)
        )


def test_receive_submission(tmp_path: Path) -> None:
    authority = Authority()
    certificate, passwords = tmp_path / "server.pem", tmp_path / "passwords"
    certificate.write_bytes(authority.issue())
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    passwords.touch(0o600)
    passwords.write_text(password_entry("jane", "s3cret", iterations=4096) + "\n")
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    arguments = (str(certificate), str(passwords), LOOPBACK, LOOPBACK)
    with example("receive_submission.py", *arguments) as running:
        *_, starttls, implicit = line(running).split()
        with smtplib.SMTP("localhost", int(starttls)) as client:
            client.starttls(context=context)
            client.login("jane", "s3cret")
            client.sendmail("jane@example.org", ["b@example.org"], "hello")
        assert line(running) == "jane sends as jane@example.org"
        passwords.write_text(password_entry("john", "pass", iterations=4096) + "\n")
        running.send_signal(signal.SIGHUP)
        assert line(running) == "reloaded"
        with smtplib.SMTP_SSL("localhost", int(implicit), context=context) as client:
            client.login("john", "pass")
            client.sendmail("john@example.org", ["b@example.org"], "hello")
        assert line(running) == "john sends as john@example.org"
        passwords.write_text("nonsense")
        running.send_signal(signal.SIGHUP)
        assert line(running).startswith(f"not reloaded: password file {passwords}, line 1 cannot")


@pytest.mark.parametrize(
    ("name", "options", "passed"),
    [
        ("test_signup.py", ["-p", "no:twisted"], "2 passed"),
        ("test_queue_engine.py", ["-k", "lease"], " passed"),
    ],
)
def test_an_example_for_pytest_passes(
    tmp_path: Path, name: str, options: list[str], passed: str
) -> None:
    """In a folder of its own."""
    shutil.copy(EXAMPLES / name, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, passed in done.stdout) == (0, True), done.stdout + done.stderr
