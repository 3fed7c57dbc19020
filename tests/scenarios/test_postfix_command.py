"""The commands against a real Postfix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from pytest_twisted import ensureDeferred

from tests.cli.shell import Shell
from tests.scenarios.postfix_configuration import HOST, PASSWORD, USER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.postfix import Postfix

MESSAGE = (
    b"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: command\r\n"
    b"Date: Thu, 01 Jan 2026 12:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n\r\n"
    b".\r\n..dots\r\nGr\xc3\xbc\xc3\x9fe\r\n"
)


def options(shell: Shell, postfix: Postfix, service: str) -> list[str]:
    """Where the service is, what proves it, and who we are."""
    url = postfix.url(service).replace("://", f"://{quote(USER)}@")
    password = shell.write("postfix-password", PASSWORD.encode() + b"\n", 0o600)
    trust = ["--ca-file", str(postfix.directory / "ca.pem"), "--server-name", HOST]
    return [url, *trust, "--password-file", password]


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "submissions", "data", "bare"])
async def test_what_the_shell_sends_arrives_as_it_was(
    reactor: Any, postfix: Postfix, tmp_path: Path, service: str
) -> None:
    shell = Shell(tmp_path)
    message = MESSAGE if service != "bare" else MESSAGE.replace("üß".encode(), b"ue")
    words = options(shell, postfix, service)
    done = await shell.run("send", "--json", "--server", *words, stdin=message)
    assert (done.status, done.err) == (0, "")
    (copy,) = await postfix.delivered(reactor, done.json["queue_id"])
    assert message == copy.content
    received = copy.received
    assert (received.id, received.with_) == (done.json["queue_id"], "ESMTPSA")
    assert received.tls is not None
    assert received.tls.version == done.json["tls"]["version"]
    assert received.date is not None


@ensureDeferred
async def test_the_check_finds_what_postfix_offers(
    reactor: Any, postfix: Postfix, tmp_path: Path
) -> None:
    shell = Shell(tmp_path)
    done = await shell.run("check", "--json", *options(shell, postfix, "submission"))
    seen = done.json
    assert (done.status, done.err, seen["usable"], seen["authenticated"]) == (0, "", True, True)
    assert {"STARTTLS", "PIPELINING"} <= set(seen["in_clear"])
    assert {"AUTH", "PIPELINING", "8BITMIME"} <= set(seen["offered"])


@ensureDeferred
async def test_a_certificate_that_has_expired_is_shown_and_refused(
    reactor: Any, postfix: Postfix, tmp_path: Path
) -> None:
    shell = Shell(tmp_path)
    done = await shell.run("check", *options(shell, postfix, "expired"))
    assert done.status == 77
    assert "it has expired" in done.err
    assert HOST in done.out
    assert "--fingerprint " in done.out
