"""The installed `twisted-sendmail` against a real Postfix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from tests.scenarios.postfix_configuration import HOST, PASSWORD, USER

if TYPE_CHECKING:
    from tests.scenarios.postfix import Postfix

COMMAND = Path(sys.executable).parent / "twisted-sendmail"
MESSAGE = (
    b"From: alice@example.test\nTo: bob@example.test\nCc: carol@example.test\n"
    b"Subject: from the shell\n\n.dot\n\xff\xfe\n..dots"
)


class Shell:
    """Runs the command for Alice, who trusts Postfix's authority."""

    def __init__(self, postfix: Postfix, folder: Path) -> None:
        password = folder / "password"
        password.write_text(PASSWORD + "\n", "utf-8")
        password.chmod(0o600)
        self.user = ["--user", USER, "--password-file", str(password)]
        self.trust = ["--ca-file", str(postfix.directory / "ca.pem"), "--server-name", HOST]

    def run(self, *words: str, given: bytes = b"") -> tuple[int, str, str]:
        """Exit status, stdout, stderr; the password is in neither."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONWARNINGS": "error"}
        done = subprocess.run(
            [str(COMMAND), *words, *self.trust, *self.user],
            input=given,
            capture_output=True,
            check=False,
            env=environment,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert PASSWORD not in out + err
        return done.returncode, out, err


@pytest.fixture
def shell(postfix: Postfix, tmp_path: Path) -> Shell:
    return Shell(postfix, tmp_path)


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "submissions"])
async def test_send_sends_what_stands_in_a_file(
    reactor: Any, postfix: Postfix, shell: Shell, tmp_path: Path, service: str
) -> None:
    path = tmp_path / "message.eml"
    path.write_bytes(MESSAGE)
    status, out, err = shell.run(
        "send", "--json", "--verbatim", "--server", postfix.url(service), str(path)
    )
    assert (0, "") == (status, err)
    result = json.loads(out)
    copies = await postfix.delivered(reactor, result["queue_id"])
    content = MESSAGE.replace(b"\n", b"\r\n") + b"\r\n"
    assert [("bob@example.test", content), ("carol@example.test", content)] == [
        (copy.recipient, copy.content) for copy in copies
    ]


@ensureDeferred
async def test_send_sends_what_comes_from_stdin(
    reactor: Any, postfix: Postfix, shell: Shell
) -> None:
    status, out, err = shell.run(
        "send", "--server", postfix.url(), "--to", "dave@example.test", "--verbose", given=MESSAGE
    )
    assert 0 == status
    (queue_id,) = [word for word in out.split() if len(postfix.logged(f"{word}: client=")) == 1]
    (copy,) = await postfix.delivered(reactor, queue_id)
    assert "dave@example.test" == copy.recipient
    assert copy.content.endswith(b"\r\n\r\n.dot\r\n\xff\xfe\r\n..dots\r\n")
    assert "C: AUTH PLAIN ****" in err.splitlines()


def test_send_tells_refusals_and_exits_with_their_status(postfix: Postfix, shell: Shell) -> None:
    send = ["send", "--server", postfix.url(), "--to"]
    status, _, err = shell.run(*send, "gone@example.test", given=MESSAGE)
    assert os.EX_NOUSER == status
    assert "RCPT TO:<gone@example.test> refused" in err
    status, _, err = shell.run(*send, "later@example.test", given=MESSAGE)
    assert os.EX_TEMPFAIL == status
    assert "come back tomorrow" in err


def test_send_with_a_wrong_password_exits_with_ex_noperm(
    postfix: Postfix, shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("open-sesame\n")
    status, out, err = shell.run("send", "--server", postfix.url(), given=MESSAGE)
    assert (os.EX_NOPERM, "") == (status, out)
    assert "AUTH PLAIN refused" in err
    assert "open-sesame" not in err


def test_check_shows_the_server_and_sends_nothing(postfix: Postfix, shell: Shell) -> None:
    since = len(postfix.log)
    status, out, err = shell.run("check", "--json", postfix.url())
    assert (0, "") == (status, err)
    result = json.loads(out)
    assert (True, True, ["PLAIN", "LOGIN"], 50_000_000) == (
        result["usable"],
        result["authenticated"],
        result["auth"],
        result["size"],
    )
    assert "AUTH" not in result["in_clear"]
    assert ("name", HOST) == (result["tls"]["verified_by"], result["tls"]["identity"])
    assert [] == postfix.logged("mail=", since=since)


@pytest.mark.parametrize(
    ("service", "status", "why"),
    [
        ("expired", os.EX_NOPERM, "it has expired"),
        ("no_tls", os.EX_UNAVAILABLE, "no STARTTLS"),
        ("no_auth", os.EX_NOPERM, "AUTH"),
    ],
)
def test_check_says_what_is_wrong(
    postfix: Postfix, shell: Shell, service: str, status: int, why: str
) -> None:
    found, out, err = shell.run("check", postfix.url(service))
    assert status == found
    assert "wrong " in out
    assert why in out
    assert 1 == len(err.splitlines())
