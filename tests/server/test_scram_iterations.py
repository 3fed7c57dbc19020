"""SCRAM iteration counts: supported by every client, and no hint about existing users."""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

from tests.forked import run_forked
from twisted_sendmail import (
    PasswordFile,
    Receiver,
    ServerSettings,
    ServerTimeouts,
    SMTPServerFactory,
)
from twisted_sendmail.testing import Authority

if TYPE_CHECKING:
    from collections.abc import Callable

PEER = IPv4Address("TCP", "192.0.2.1", 1)
CLEAR = ServerSettings(require_tls=False, clear_auth=True)
#: The most that Cyrus SASL does.
USUAL = 65_536


def entry(user: str, iterations: int, salt: int = 16) -> str:
    """A line of a password file for the password ``s3cret``, as RFC 5802 has it."""
    octets = hashlib.sha256(user.encode()).digest()[:salt]
    salted = hashlib.pbkdf2_hmac("sha256", b"s3cret", octets, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    shown = [b64encode(part).decode() for part in (octets, stored, server)]
    return f"{user}:SCRAM-SHA-256${iterations}:{shown[0]}${shown[1]}:{shown[2]}\n"


def write(path: Path, *entries: str) -> Path:
    path.write_text("".join(entries))
    path.chmod(0o600)
    return path


def server(path: Path) -> SMTPServerFactory:
    clock = Clock()
    accounts = PasswordFile(path, clock)
    return SMTPServerFactory(
        clock, Receiver, accounts=accounts, settings=CLEAR, deadlines=ServerTimeouts(failed_login=0)
    )


def said(factory: SMTPServerFactory, line: str) -> str:
    """The reply to *line* on a new connection."""
    transport: Any = StringTransport(peerAddress=PEER)  # type: ignore[no-untyped-call]  # Twisted's
    protocol: Any = factory.buildProtocol(PEER)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"EHLO x\r\n")
    transport.clear()
    protocol.dataReceived(line.encode() + b"\r\n")
    reply: bytes = transport.value()
    protocol.connectionLost()
    return reply.decode()


def shown(factory: SMTPServerFactory, user: str) -> tuple[int, bytes]:
    """The iteration count and the salt that SCRAM shows for *user*."""
    first = b64encode(f"n,,n={user},r=abc".encode()).decode()
    challenge = b64decode(said(factory, f"AUTH SCRAM-SHA-256 {first}")[4:]).decode()
    fields = dict(field.split("=", 1) for field in challenge.split(","))
    return int(fields["i"]), b64decode(fields["s"])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three of four users have one count and one length of salt, the fourth has others."""
    users = [entry(f"user{n}", 4096) for n in range(3)]
    return write(tmp_path / "accounts", *users, entry("old", 5000, 12))


def test_an_unknown_user_shows_a_count_and_a_salt_that_occur(mixed: Path) -> None:
    factory = server(mixed)
    names = [f"nobody{n}" for n in range(400)]
    shapes = [(count, len(salt)) for count, salt in (shown(factory, name) for name in names)]
    assert set(shapes) == {(4096, 16), (5000, 12)}
    # As often as with those who exist, one in four; the odds of less or more are below 1e-6.
    assert 50 < shapes.count((5000, 12)) < 150


def test_an_unknown_user_shows_the_same_each_time_and_after_a_reload(mixed: Path) -> None:
    names = [f"nobody{n}" for n in range(20)]
    factory = server(mixed)
    before = [shown(factory, name) for name in names]
    assert [shown(factory, name) for name in names] == before
    # A relay that reads its configuration again makes a new server.
    assert [shown(server(mixed), name) for name in names] == before
    assert len({salt for _, salt in before}) == len(names)


def test_an_unknown_user_shows_the_same_after_a_restart(mixed: Path) -> None:
    names = [f"nobody{n}" for n in range(20)]
    program = (
        "import sys; from pathlib import Path; from tests.server.test_scram_iterations import *\n"
        "factory = server(Path(sys.argv[1]))\n"
        "print([shown(factory, name) for name in sys.argv[2:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(mixed), *names],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    factory = server(mixed)
    assert done.stdout.strip() == str([shown(factory, name) for name in names])


def test_another_entry_shows_an_unknown_user_another_salt(tmp_path: Path) -> None:
    """The salts cannot be computed by those who have no entry."""
    one = server(write(tmp_path / "one", entry("jane", 4096)))
    other = server(write(tmp_path / "other", entry("john", 4096)))
    assert shown(one, "nobody")[1] != shown(other, "nobody")[1]


def test_a_new_entry_changes_what_few_unknown_users_show(tmp_path: Path) -> None:
    half = [entry(f"user{n}", 4096 if n % 2 else 5000) for n in range(40)]
    names = [f"nobody{n}" for n in range(200)]
    factory = server(write(tmp_path / "accounts", *half))
    before = [shown(factory, name)[0] for name in names]
    factory = server(write(tmp_path / "accounts", *half, entry("new", 4096)))
    after = [shown(factory, name)[0] for name in names]
    assert sum(a != b for a, b in zip(before, after, strict=True)) < 20


def test_plain_hashes_for_an_unknown_user_what_scram_shows(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = server(mixed)
    names = ["user0", "old", *(f"nobody{n}" for n in range(12))]
    counts = [shown(factory, name)[0] for name in names]
    assert set(counts[2:]) == {4096, 5000}
    hashed: list[int] = []
    hashing = hashlib.pbkdf2_hmac

    def noted(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        hashed.append(iterations)
        return hashing(name, password, salt, iterations)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", noted)
    for name in names:
        response = b64encode(f"\0{name}\0wrong".encode()).decode()
        assert said(factory, f"AUTH PLAIN {response}") == "535 5.7.8 Authentication failed\r\n"
    assert hashed == counts


def test_an_empty_file_shows_the_usual_count(tmp_path: Path) -> None:
    assert shown(server(write(tmp_path / "accounts")), "nobody")[0] == USUAL


# -- the warning -----------------------------------------------------------------------------------


def high(path: Path) -> Path:
    users = ["ann", "bea", "cleo", "dora", "eve", "fay", "gina"]
    return write(path, *(entry(user, USUAL + 1) for user in users), entry("jane", USUAL))


NAMED = "more than 65536 iterations for ann, bea, cleo, dora, eve and 2 more"


def test_a_server_that_begins_to_listen_names_the_users_once(tmp_path: Path) -> None:
    lines: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    factory = server(high(tmp_path / "accounts"))
    globalLogPublisher.addObserver(observe)
    try:
        # Two ports.
        factory.doStart()  # type: ignore[no-untyped-call]  # Twisted's
        factory.doStart()  # type: ignore[no-untyped-call]  # Twisted's
    finally:
        globalLogPublisher.removeObserver(observe)
    (line,) = [line for line in lines if "iterations" in line]
    assert NAMED in line


def check(folder: Path, accounts: Callable[[Path], Path]) -> subprocess.CompletedProcess[str]:
    """``twistd sendmail --check`` of a relay with two listeners that have the same accounts."""
    accounts(folder / "accounts")
    certificate = folder / "server.pem"
    certificate.write_bytes(Authority().issue())
    certificate.chmod(0o600)
    listen = "\n".join(
        f'[[listen]]\nendpoint = "tcp:127.0.0.1:{port}"\ncertificate = "server.pem"\n'
        'accounts = "accounts"'
        for port in (2587, 2588)
    )
    (folder / "relay.toml").write_text(
        f'queue = "queue"\n{listen}\n[[smarthost]]\nurl = "smtp+starttls://mail.example.net"\n'
    )
    words = ("-n", "--pidfile=", "sendmail", "--config", "relay.toml", "--check")
    return run_forked("twistd", *words, folder=folder, env={**os.environ, "LANG": "C.UTF-8"})


def test_check_names_the_users_once(tmp_path: Path) -> None:
    done = check(tmp_path, high)
    assert (done.returncode, "good" in done.stdout) == (0, True), done.stderr
    assert [NAMED in line for line in done.stderr.splitlines()] == [True]


def test_check_is_silent_about_entries_of_the_usual_count(tmp_path: Path) -> None:
    done = check(tmp_path, lambda path: write(path, entry("jane", USUAL)))
    assert (done.returncode, done.stderr) == (0, "")
