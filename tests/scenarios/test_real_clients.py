"""Real clients send to our server over STARTTLS and implicit TLS with AUTH; content is compared octet by octet."""

from __future__ import annotations

import re
import shutil
import smtplib
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.peers import require
from tests.scenarios.postfix import why_not
from tests.scenarios.sending_postfix import PASSWORD, USER, SendingPostfix
from twisted_sendmail import HashedAccounts, ServerSettings
from twisted_sendmail.testing import BackgroundServer, ReceivedMessage

SENDER, RECIPIENT = "jane@example.test", "bob@example.net"
#: Dots at the start of lines, 8-bit octets, an empty line at the end, a line as long as one may be.
MESSAGE = (
    b"From: <jane@example.test>\r\nTo: <bob@example.net>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Date: Thu, 01 Jan 2026 12:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
    b".\r\n..\r\n.a\r\nGr\xc3\xbc\xc3\x9fe aus Z\xc3\xbcrich\r\n" + b"x" * 998 + b"\r\n\r\n"
)
MODES = ["starttls", "implicit"]
MECHANISMS = ["PLAIN", "LOGIN"]


def need(tool: str) -> str:
    """Where *tool* is."""
    found = shutil.which(tool)
    require(tool, None if found else "it is not installed; run tests/install-peers")
    return str(found)


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.eml"
    path.write_bytes(MESSAGE)
    return path


def port(server: BackgroundServer, mode: str) -> int:
    return server.port if mode == "starttls" else server.tls_port


def run(*command: str, given: bytes = b"") -> None:
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr).decode("utf-8", "replace")


def check(server: BackgroundServer, mechanism: str, recipient: str = RECIPIENT) -> ReceivedMessage:
    """One message, as it was sent, by the right user, over TLS."""
    (received,) = server.wait_for(1, timeout=60)
    assert (str(received.sender), [str(r) for r in received.recipients]) == (SENDER, [recipient])
    assert received.user == USER
    assert received.tls is not None
    dialogue = [line for session in server.sessions for line in session.dialogue]
    assert [line for line in dialogue if line.startswith(f"C: AUTH {mechanism}")], dialogue
    assert not [line for line in dialogue if PASSWORD in line]
    return received


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("mode", MODES)
def test_smtplib(server: BackgroundServer, mode: str, mechanism: str) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    client: smtplib.SMTP
    if mode == "implicit":
        client = smtplib.SMTP_SSL("localhost", server.tls_port, context=context)
    else:
        client = smtplib.SMTP("localhost", server.port)
        client.starttls(context=context)
    with client:
        client.ehlo()
        client.user, client.password = USER, PASSWORD
        client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
        client.sendmail(SENDER, [RECIPIENT], MESSAGE, ["BODY=8BITMIME"])
    assert check(server, mechanism).content == MESSAGE


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("mode", MODES)
def test_curl(server: BackgroundServer, message: Path, mode: str, mechanism: str) -> None:
    scheme = "smtp" if mode == "starttls" else "smtps"
    run(
        need("curl"),
        "--silent", "--show-error", "--ssl-reqd", "--cacert", server.ca_file,
        "--url", f"{scheme}://localhost:{port(server, mode)}/client.example.test",
        "--user", f"{USER}:{PASSWORD}", "--login-options", f"AUTH={mechanism}",
        "--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", str(message),
    )  # fmt: skip
    assert check(server, mechanism).content == MESSAGE


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("mode", MODES)
def test_swaks(server: BackgroundServer, message: Path, mode: str, mechanism: str) -> None:
    # It adds a line end of its own.
    message.write_bytes(MESSAGE[:-2])
    run(
        need("swaks"),
        "--server", "localhost", "--port", str(port(server, mode)), "--pipeline",
        "--tls" if mode == "starttls" else "--tls-on-connect",
        "--tls-verify", "--tls-ca-path", server.ca_file, "--helo", "client.example.test",
        "--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD,
        "--from", SENDER, "--to", RECIPIENT, "--data", f"@{message}",
    )  # fmt: skip
    assert check(server, mechanism).content == MESSAGE


@pytest.mark.parametrize("mechanism", [*MECHANISMS, "SCRAM-SHA-256"])
@pytest.mark.parametrize("mode", MODES)
def test_msmtp(server: BackgroundServer, tmp_path: Path, mode: str, mechanism: str) -> None:
    settings = tmp_path / "msmtprc"
    settings.write_text(
        "account default\nhost localhost\n"
        f"port {port(server, mode)}\ndomain client.example.test\n"
        f"tls on\ntls_starttls {'on' if mode == 'starttls' else 'off'}\n"
        f"tls_trust_file {server.ca_file}\n"
        f"auth {mechanism.lower()}\nuser {USER}\npassword {PASSWORD}\n"
        f"from {SENDER}\nset_from_header off\nset_date_header off\n"
    )
    settings.chmod(0o600)
    run(need("msmtp"), "-C", str(settings), RECIPIENT, given=MESSAGE.replace(b"\r\n", b"\n"))
    assert check(server, mechanism).content == MESSAGE


TRACE = re.compile(rb"(?:Received: .*\r\n(?:[ \t].*\r\n)*)+")


@pytest.mark.parametrize("mode", MODES)
def test_postfix(server: BackgroundServer, sending_postfix: SendingPostfix, mode: str) -> None:
    recipient = f"bob@{mode}.test"
    with smtplib.SMTP("127.0.0.1", sending_postfix.port) as client:
        client.sendmail(SENDER, [recipient], MESSAGE, ["BODY=8BITMIME"])
    try:
        received = check(server, "", recipient)
    except TimeoutError:
        pytest.fail(sending_postfix.log)
    assert TRACE.sub(b"", received.content, count=1) == MESSAGE
    assert received.parameters.body == "8BITMIME"


@pytest.mark.parametrize("iterations", [4_096, 65_536])
def test_postfix_by_scram(monkeypatch: pytest.MonkeyPatch, iterations: int) -> None:
    """Its Cyrus SASL refuses more iterations than these."""
    require("Postfix", why_not())
    hashed = HashedAccounts.of_passwords
    monkeypatch.setattr(
        HashedAccounts, "of_passwords", lambda users: hashed(users, iterations=iterations)
    )
    settings = ServerSettings(mechanisms=("SCRAM-SHA-256",))
    with (
        BackgroundServer(users={USER: PASSWORD}, settings=settings) as server,
        SendingPostfix(server, USER, PASSWORD) as postfix,
    ):
        recipient = "bob@starttls.test"
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            client.sendmail(SENDER, [recipient], MESSAGE, ["BODY=8BITMIME"])
        try:
            received = check(server, "SCRAM-SHA-256", recipient)
        except TimeoutError:
            pytest.fail(postfix.log)
    assert TRACE.sub(b"", received.content, count=1) == MESSAGE


def test_a_wrong_password_is_told_to_a_real_client(server: BackgroundServer, message: Path) -> None:
    done = subprocess.run(
        [
            need("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", server.ca_file,
            "--url", f"smtp://localhost:{server.port}", "--user", f"{USER}:wrong",
            "--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", str(message),
        ],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, server.messages) == (67, [])
