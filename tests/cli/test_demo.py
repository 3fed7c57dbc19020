"""`twisted-sendmail demo`."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.shell import Shell
from twisted_sendmail.cli import demo

# Twisted's ports keep a file open in reserve, and let the interpreter close it.
RESERVE = "error,ignore:unclosed file:ResourceWarning"
CLAIMS = (
    "the relay replied 250, and sendmail ended with 0",
    "while the next hop was down, mail waited",
    "Bob has 437 octets, each as it was sent",
    "Carol has one message with a Date and a Message-ID",
    "Alice knows who did not get it, and why",
    "each message was sent once",
    "the queue is empty",
    "no password is in the dialogue or the log",
)


def test_every_step_is_shown_and_no_file_is_left(shell: Shell) -> None:
    before = set(shell.folder.iterdir())
    done = shell.run_now("demo", TMPDIR=str(shell.folder), PYTHONWARNINGS=RESERVE)
    assert (done.status, done.err) == (0, ""), done.out[-3000:]
    for held in (
        "C: STARTTLS",
        "C: AUTH SCRAM-SHA-256-PLUS ****",
        "-- TLS: TLSv1.3 TLS_AES_256_GCM_SHA384, 127.0.0.1 by name",
        "$ twisted-sendmail queue list",
        "deferred",
        "status=bounced (550 5.1.1 No such user)",
        "Grüße aus Zürich, 你好, здравствуйте.",
        "..two dots, after a line that is one dot",
        "Final-Recipient: rfc822; nobody@example.net",
        *(f"✔ {claim}" for claim in CLAIMS),
    ):
        assert held in done.out
    lines = done.out.splitlines()
    assert len(lines) <= 80
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if "S: 250-8BITMIME" in line] == ["  S: 250-8BITMIME"]
    assert done.out.count("No such user") == 1
    assert before == set(shell.folder.iterdir())


def test_the_output_can_be_ascii_and_a_false_statement_is_reported(shell: Shell) -> None:
    """The demo compares with a changed message here."""
    code = (
        "import sys; from twisted_sendmail.cli import demo, main;"
        "demo.MESSAGE_SENT = demo.MESSAGE + b'x'; sys.exit(main.main(['demo']))"
    )
    assert demo.MESSAGE_SENT == demo.MESSAGE + b"\r\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**shell.env, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": RESERVE},
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.isascii()) == (70, "", True)
    assert done.stdout.count("not true: ") == 1
    assert "not true: Bob has 436 octets" in done.stdout
