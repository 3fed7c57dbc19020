"""Files with secrets: the permissions that are accepted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import run_forked
from tests.secrecy.peer import PASSWORD, USER, Peer, plain
from twisted_sendmail.testing import Authority

BIN = Path(sys.executable).parent
EXPOSED = [0o644, 0o604, 0o444, 0o660, 0o602, 0o666]
CLOSED = [0o400, 0o600, 0o440, 0o640]
ENTRY = (
    "jane:SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2E=$"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
)
#: The key of the configuration that names each file.
KEYS = {
    "accounts": "listen.accounts",
    "server.key": "listen.key",
    "password": "smarthost.password-file",
    "token": "admin.token-file",
    "client.pem": "smarthost.client-certificate",
}
RELAY = """
queue = "q"
{}
[[listen]]
endpoint = "tcp:0"
certificate = "server.pem"
key = "server.key"
accounts = "accounts"
[[smarthost]]
url = "smtps://u@localhost"
password-file = "password"
client-certificate = "client.pem"
[admin]
endpoint = "tcp:127.0.0.1:0"
token-file = "token"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every file of the configuration, closed."""
    pem = Authority().issue().decode()
    begin = pem.index("-----BEGIN PRIVATE KEY")
    contents = {
        "server.pem": pem[:begin],
        "server.key": pem[begin:],
        "client.pem": pem,
        "accounts": ENTRY,
        "password": PASSWORD,
        "token": PASSWORD * 2,
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "server.pem").chmod(0o644)
    return tmp_path


def check(folder: Path, line: str = "") -> tuple[int, str]:
    """Have the relay look at its configuration."""
    (folder / "relay.toml").write_text(RELAY.format(line))
    return relay(folder)


def relay(folder: Path) -> tuple[int, str]:
    """Have the relay look at ``relay.toml``."""
    words = ["sendmail", "--check", "--config", "relay.toml"]
    done = run_forked("twistd", *words, folder=folder, env=dict(os.environ))
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", KEYS)
def test_the_relay_refuses_an_exposed_file(folder: Path, name: str) -> None:
    (folder / name).chmod(0o644)
    status, said = check(folder)

    assert status == os.EX_CONFIG
    assert f"{KEYS[name]}: " in said
    assert f"{folder / name} may be read by everybody; chmod 640 {folder / name}" in said


@pytest.mark.parametrize(("mode", "status"), [(0o644, os.EX_CONFIG), (0o640, os.EX_OK)])
def test_the_key_of_an_ssl_endpoint_is_held_to_the_same(
    folder: Path, mode: int, status: int
) -> None:
    (folder / "client.pem").chmod(mode)
    endpoint = "ssl:0:interface=127.0.0.1:privateKey=client.pem"
    (folder / "relay.toml").write_text(
        f'queue = "q"\nlisten = ["{endpoint}"]\n[[smarthost]]\nurl = "smtps://localhost"\n'
    )

    assert status == relay(folder)[0]


@pytest.mark.parametrize("mode", CLOSED)
def test_the_relay_takes_files_that_the_group_may_read(folder: Path, mode: int) -> None:
    for name in KEYS:
        (folder / name).chmod(mode)

    assert check(folder) == (0, f"{folder / 'relay.toml'}: good\n")


def test_mounted_secrets_are_allowed_by_name(folder: Path) -> None:
    for name in KEYS:
        (folder / name).chmod(0o444)

    assert check(folder, "world-readable-secrets = true")[0] == 0


@pytest.mark.parametrize("name", KEYS)
def test_a_file_that_others_may_change_is_never_allowed(folder: Path, name: str) -> None:
    (folder / name).chmod(0o666)
    status, said = check(folder, "world-readable-secrets = true")

    assert status == os.EX_CONFIG
    assert f"{folder / name} may be changed by others than its owner; chmod 640 " in said


def send(folder: Path, peer: Peer, *words: str) -> subprocess.CompletedProcess[str]:
    """Send with a password from ``password``."""
    options = ["--server", peer.url, "--user", USER, "--ca-file", peer.ca_file, "--quiet"]
    return subprocess.run(
        [str(BIN / "twisted-sendmail"), "send", *options, "--password-file", "password", *words],
        input="From: a@example.org\nTo: b@example.net\n\nx\n",
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mode", EXPOSED)
def test_the_command_refuses_an_exposed_file(tmp_path: Path, mode: int) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(mode)
    with Peer(tmp_path, "PLAIN", plain) as peer:
        done = send(tmp_path, peer)

    assert done.returncode == os.EX_CONFIG
    assert done.stderr.endswith("; chmod 640 password\n")
    assert PASSWORD not in done.stderr


def test_the_command_takes_a_mounted_secret_by_name(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o444)
    with Peer(tmp_path, "PLAIN", plain) as peer:
        done = send(tmp_path, peer, "--world-readable-secrets")

    assert (done.returncode, done.stderr) == (0, "")
