"""SCRAM bound to a real TLS connection: gsasl as client, TLS 1.2 and 1.3, and a proxy that ends TLS."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from tests.scenarios.test_real_clients import need
from twisted_sendmail import (
    AuthenticationFailed,
    Credentials,
    PasswordFile,
    Receiver,
    ServerTimeouts,
    ServerTLS,
    SMTPServerFactory,
    SubmissionServer,
    TLSTrust,
    UnsupportedMechanism,
    password_entry,
    submit,
)
from twisted_sendmail.sasl.scram import ScramSha256Plus
from twisted_sendmail.testing import Authority, BackgroundServer, LoopbackServer

USER, PASSWORD = "jane", "s3cret"
MESSAGE = b"From: <jane@example.test>\r\n\r\nHi\r\n"
PLUS = "SCRAM-SHA-256-PLUS"


@pytest.fixture(scope="module")
def server() -> Iterator[BackgroundServer]:
    with BackgroundServer(users={USER: PASSWORD}) as running:
        yield running


def gsasl(server: BackgroundServer, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            need("gsasl"), "--smtp", "--connect", f"127.0.0.1:{server.port}",
            "--x509-ca-file", server.ca_file, "--hostname", "localhost",
            "--authentication-id", USER, "--password", PASSWORD, *options,
        ],
        input="", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options", [["--mechanism", PLUS], ["--mechanism", "SCRAM-SHA-256", "--no-cb"]]
)
def test_gsasl_logs_in(server: BackgroundServer, options: list[str]) -> None:
    done = gsasl(server, *options)
    assert (done.returncode, "235 2.7.0" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "server trusted" in done.stderr


def test_gsasl_with_another_type_of_binding_is_refused(server: BackgroundServer) -> None:
    """On TLS 1.2 it binds by tls-unique."""
    done = gsasl(server, "--mechanism", PLUS, "--priority", "NORMAL:-VERS-TLS1.3")
    assert (done.returncode, "235 " in done.stdout) == (1, False)
    # The word is unsupported-channel-binding-type.
    assert "334 ZT11bnN1cHBvcnRlZC1jaGFubmVsLWJpbmRpbmctdHlwZQ==" in done.stdout


@pytest.mark.parametrize(
    ("version", "kind"),
    [(SSL.TLS1_2_VERSION, b"tls-server-end-point"), (SSL.TLS1_3_VERSION, b"tls-exporter")],
)
@pytest_twisted.ensureDeferred
async def test_the_best_mechanism_is_bound_to_the_connection(
    reactor: Any, monkeypatch: pytest.MonkeyPatch, version: int, kind: bytes
) -> None:
    firsts: list[bytes] = []

    class Watched(ScramSha256Plus):
        def start(self) -> bytes:
            firsts.append(super().start())
            return firsts[-1]

    async with LoopbackServer(reactor, users={USER: PASSWORD}) as server:
        trust = TLSTrust(ca_file=server.ca_file)
        trust.context().set_max_proto_version(version)
        server_config = SubmissionServer.from_url(
            server.url,
            credentials=Credentials(USER, PASSWORD),
            trust=trust,
            mechanisms={PLUS: Watched},
        )
        _ = await submit(
            reactor,
            server_config,
            MESSAGE,
            sender="jane@example.test",
            recipients="bob@example.test",
        )
        assert [session.user for session in server.sessions] == [USER]
    assert [first.split(b",")[0] for first in firsts] == [b"p=" + kind]


class EndOfTLS:
    """A proxy that ends the client's TLS by a certificate that the client trusts, and begins its own."""

    def __init__(self, port: int, directory: Path, authority: Authority) -> None:
        chain = directory / "proxy.pem"
        chain.write_bytes(authority.issue(["localhost"]))
        self._accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._accepting.load_cert_chain(chain)
        self._connecting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._connecting.check_hostname = False
        self._connecting.verify_mode = ssl.CERT_NONE
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._listening:
            accepted = self._listening.accept()[0]
        client = self._accepting.wrap_socket(accepted, server_side=True)
        server = self._connecting.wrap_socket(socket.create_connection(("127.0.0.1", self._to)))
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: ssl.SSLSocket, other: ssl.SSLSocket) -> None:
        try:
            while data := one.recv(65_536):
                other.sendall(data)
        except OSError:
            pass
        finally:
            other.close()


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_ends_tls_is_noticed(
    reactor: Any, server: BackgroundServer, tmp_path: Path
) -> None:
    authority = Authority()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)
    proxy = EndOfTLS(server.tls_port, tmp_path, authority)
    with pytest.raises(AuthenticationFailed, match="channel-bindings-dont-match"):
        await submit(
            reactor,
            SubmissionServer.from_url(
                f"smtps://localhost:{proxy.port}",
                credentials=Credentials(USER, PASSWORD),
                trust=TLSTrust(ca_file=ca_file),
            ),
            MESSAGE,
            sender="jane@example.test",
            recipients="bob@example.test",
        )


@pytest_twisted.ensureDeferred
async def test_a_certificate_logs_in(reactor: Any, tmp_path: Path) -> None:
    """By EXTERNAL: the fingerprint in the password file tells whose certificate it is."""
    authority = Authority()
    for name, names in (
        ("server", ["localhost", "127.0.0.1"]),
        ("jane", ["jane"]),
        ("eve", ["eve"]),
    ):
        path = tmp_path / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(authority.issue(names))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    certificate = x509.load_pem_x509_certificate((tmp_path / "jane.pem").read_bytes())
    users = tmp_path / "users"
    users.touch(0o600)
    users.write_text(
        f"jane:CERT-SHA-256${certificate.fingerprint(hashes.SHA256()).hex(':')}\n"
        f"{password_entry('eve', PASSWORD, iterations=4096)}\n"
    )
    accepted: list[str | None] = []

    class Accepting(Receiver):
        def commit(self) -> None:
            accepted.append(self.connection.user)

    accounts = PasswordFile(users, reactor)
    factory = SMTPServerFactory(
        reactor,
        Accepting,
        tls=ServerTLS(tmp_path / "server.pem", ask_certificate=True),
        accounts=accounts,
        deadlines=ServerTimeouts(failed_login=0),
    )
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:

        async def send(who: str | None, *, user: str = "", mechanism: str = "EXTERNAL") -> None:
            secret = None if mechanism == "EXTERNAL" else PASSWORD
            server = SubmissionServer.from_url(
                f"smtp+starttls://127.0.0.1:{port.getHost().port}",
                credentials=Credentials(user, secret, mechanisms=[mechanism]),
                trust=TLSTrust(
                    ca_file=tmp_path / "ca.pem",
                    client_certificate=None if who is None else tmp_path / f"{who}.pem",
                ),
            )
            _ = await submit(
                reactor, server, MESSAGE, sender="jane@example.test", recipients="bob@example.test"
            )

        await send("jane")
        await send("jane", user="jane")
        await send(None, user="eve", mechanism="PLAIN")
        assert accepted == ["jane", "jane", "eve"]
        for who, user in (("eve", "jane"), ("jane", "eve"), ("eve", "")):
            with pytest.raises(AuthenticationFailed):
                await send(who, user=user)
        with pytest.raises(UnsupportedMechanism, match="EXTERNAL needs a client certificate"):
            await send(None)
        assert len(accepted) == 3
    finally:
        await port.stopListening()
        await factory.wind_up(1)
        accounts.close()
