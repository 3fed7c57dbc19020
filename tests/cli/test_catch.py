"""`twisted-sendmail catch`, as installed."""

from __future__ import annotations

import re
import signal
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from mailbox import Maildir
from pathlib import Path

import pytest

from tests.cli.shell import COMMAND

MESSAGE = "From: a@example.org\r\nTo: b@example.net\r\nSubject: A \x1b[31mtrap\r\n\r\n.dot\r\n"


@contextmanager
def catching(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """The running command, and its two ports."""
    command = [COMMAND, "catch", "--port", "0", "--tls-port", "0", *words]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        line = running.stderr.readline()
        found = re.match(
            r"catching at smtp\+starttls://127\.0\.0\.1:(\d+) and smtps://.*:(\d+),", line
        )
        assert found, line + running.stderr.read()
        try:
            yield running, int(found[1]), int(found[2])
        finally:
            running.kill()


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=30)
    return running.returncode, out


def test_each_message_is_stored_and_printed_in_one_line(tmp_path: Path) -> None:
    with catching(tmp_path, "--maildir", "box", "--ca-file", "ca.pem") as (running, port, tls_port):
        assert running.stderr is not None
        assert running.stderr.readline() == "the CA certificate is in ca.pem\n"
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with smtplib.SMTP("localhost", port) as client:
            client.starttls(context=context)
            client.login("anyone", "any password")
            client.sendmail("a@example.org", ["b@example.net", "c@example.net"], MESSAGE)
        with smtplib.SMTP_SSL("localhost", tls_port, context=context) as client:
            client.sendmail("", ["b@example.net"], MESSAGE)
        with smtplib.SMTP("localhost", port) as client:
            client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
        status, out = ended(running)
    shown = [re.sub(r"^[0-9A-F]+  ", "", line) for line in out.splitlines()]
    assert (status, shown) == (
        0,
        [
            "a@example.org -> b@example.net, c@example.net  'A \\x1b[31mtrap'  70 octets, TLSv1.3 by anyone",
            "<> -> b@example.net  'A \\x1b[31mtrap'  70 octets, TLSv1.3",
            "a@example.org -> b@example.net  'A \\x1b[31mtrap'  70 octets, in clear",
        ],
    )
    kept = [message.as_bytes() for message in Maildir(tmp_path / "box")]
    assert len(kept) == 3
    envelope = (
        b"Return-Path: <a@example.org>\nDelivered-To: b@example.net\nDelivered-To: c@example.net\n"
    )
    content = MESSAGE.replace("\r\n", "\n").encode()
    assert [text for text in kept if text == envelope + content]


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [COMMAND, "catch", "--port", port], capture_output=True, text=True, check=False
        )
    complaint = (
        f"twisted-sendmail: port {port} cannot be listened on: Address already in use; "
        "choose another with --port and --tls-port, or another address with --host\n"
    )
    assert (done.returncode, done.stderr) == (69, complaint)


def test_a_maildir_that_cannot_be_created_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [COMMAND, "catch", "--maildir", str(tmp_path / "file" / "box")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (73, 1, False)


def test_the_authority_is_kept_and_only_the_user_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "password").touch(0o600)
    (tmp_path / "password").write_text("s3cret\n")
    words = ("--authority", "dev.pem", "--ca-file", "ca.pem", "--host", "127.0.0.1")
    user = ("--user", "jane", "--password-file", "password")
    with catching(tmp_path, *words, *user):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    assert (tmp_path / "dev.pem").stat().st_mode & 0o777 == 0o600
    with catching(tmp_path, *words, *user) as (running, port, tls_port):
        with smtplib.SMTP("localhost", port) as client, pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
        with smtplib.SMTP_SSL("localhost", tls_port, context=context) as client:
            client.login("jane", "s3cret")
            client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
        with (
            smtplib.SMTP_SSL("localhost", tls_port, context=context) as client,
            pytest.raises(smtplib.SMTPAuthenticationError),
        ):
            client.login("jane", "wrong")
        status, out = ended(running)
    assert (status, out.count("by jane")) == (0, 1)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--password", "s3cret"), "can be read by every process; use --password-file"),
        (("--password-file", "x"), "there is a password but no user; add --user"),
        (("--authority", "."), "."),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    done = subprocess.run(
        [COMMAND, "catch", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert (done.stderr.count("\n"), complaint in done.stderr) == (1, True), done.stderr
