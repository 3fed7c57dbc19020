"""A login by the certificate of the client, from options, an account, and the relay's configuration."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.cli.shell import Shell
from tests.cli.test_accounts import write_accounts
from tests.names import read_configuration
from twisted_sendmail import submit
from twisted_sendmail.server import (
    PasswordFile,
    Receiver,
    ServerTimeouts,
    ServerTLS,
    SMTPServerFactory,
)
from twisted_sendmail.testing import Authority


class Place:
    """A server that logs clients in by certificates, and files of a client."""

    def __init__(self, reactor: Any, shell: Shell) -> None:
        authority = Authority()
        shell.write("ca.pem", authority.pem)
        shell.write("server.pem", authority.issue(["127.0.0.1"]), 0o600)
        certificate = authority.issue(["jane"])
        shell.write("jane.pem", certificate, 0o600)
        print_ = x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
        shell.write("users", f"jane:CERT-SHA-256${print_.hex(':')}\n".encode(), 0o600)
        self.users: list[str | None] = []
        users = self.users

        class Accepting(Receiver):
            def commit(self) -> None:
                users.append(self.connection.user)

        self.port = reactor.listenTCP(
            0,
            SMTPServerFactory(
                reactor,
                Accepting,
                tls=ServerTLS(shell.folder / "server.pem", ask_certificate=True),
                accounts=PasswordFile(shell.folder / "users", reactor),
                deadlines=ServerTimeouts(failed_login=0),
            ),
            interface="127.0.0.1",
        )
        self.url = f"smtp+starttls://127.0.0.1:{self.port.getHost().port}"


@pytest.fixture
def place(reactor: Any, shell: Shell) -> Any:
    made = Place(reactor, shell)
    yield made
    made.port.stopListening()


KEYS = """
url = "{url}"
mechanisms = ["EXTERNAL"]
ca-file = "{folder}/ca.pem"
client-certificate = "{folder}/jane.pem"
"""


@pytest.mark.parametrize("at", ["", "jane@"], ids=["without a user", "with a user"])
@ensureDeferred
async def test_options_and_an_account_log_in_by_certificate(
    shell: Shell, place: Place, at: str
) -> None:
    url = place.url.replace("://", f"://{at}")
    words = ["--ca-file=ca.pem", "--client-certificate=jane.pem", "--mechanism=external"]
    done = await shell.run("send", f"--server={url}", *words, shell.message)
    assert (done.status, done.err) == (0, "")
    keys = KEYS.format(url=url, folder=shell.folder)
    write_accounts(shell, f"[account.work]{keys}")
    done = await shell.run("send", shell.message)
    assert (done.status, done.err) == (0, "")
    assert place.users == ["jane", "jane"]


@ensureDeferred
async def test_check_logs_in_and_its_settings_work(shell: Shell, place: Place) -> None:
    words = ["--ca-file=ca.pem", "--client-certificate=jane.pem", "--mechanism=EXTERNAL"]
    done = await shell.run("check", place.url, *words)
    assert (done.status, "AUTH succeeded" in done.out) == (0, True)
    settings = done.out.partition("settings")[2]
    assert 'mechanisms = ["EXTERNAL"]' in settings
    write_accounts(shell, f"[account.work]\n{settings}")
    for name in ("ca.pem", "jane.pem"):
        (shell.folder / ".config/twisted-sendmail" / name).symlink_to(shell.folder / name)
    again = await shell.run("check")
    assert (again.status, "AUTH succeeded" in again.out) == (0, True)


@ensureDeferred
async def test_the_relay_logs_in_by_certificate(reactor: Any, shell: Shell, place: Place) -> None:
    keys = KEYS.format(url=place.url, folder=shell.folder)
    path = shell.folder / "relay.toml"
    path.write_text(f'queue = "queue"\nlisten = ["tcp:0"]\n[[smarthost]]{keys}')
    (shell.folder / "queue").mkdir(0o700)
    configuration = read_configuration(path, Clock())
    (server,) = configuration.relay.routes[0].servers
    report = await submit(reactor, server, b"From: a@x.example\nTo: b@x.example\n\nHi.\n")
    assert (len(report.accepted), place.users) == (1, ["jane"])
