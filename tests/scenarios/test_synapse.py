"""A real Synapse sends its mail by this package: only an import of it is replaced.

The newest Synapse on PyPI, and 1.98.0, the last one under the Apache licence.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.ports import free_ports
from tests.scenarios.peers import python_of
from twisted_sendmail.testing import BackgroundServer
from twisted_sendmail.testing.faults import close

PASSWORD = "kein-Wort-davon-43"
SECRET = "of the registration"
REPLACED = Path(__file__).with_name("replaced_import.py")
#: Seconds; only a Synapse that hangs takes so long.
PATIENCE = 60
CONFIGURATION = """
server_name: example.test
listeners:
  - {{port: {port}, type: http, bind_addresses: ["127.0.0.1"], resources: [{{names: [client]}}]}}
database: {{name: sqlite3, args: {{database: {folder}/homeserver.db}}}}
media_store_path: {folder}/media
signing_key_path: {folder}/signing.key
registration_shared_secret: {secret}
macaroon_secret_key: abc
form_secret: abc
bcrypt_rounds: 4
report_stats: false
suppress_key_server_warning: true
trusted_key_servers: []
public_baseurl: http://localhost:{port}/
email: {email}
"""


class Homeserver:
    """A running Synapse, with the user jane and her address."""

    def __init__(self, port: int, log: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._log = log
        self._token = ""

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer; of an error, its status."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._url}{path}", data, headers, method=method)  # noqa: S310 - of loopback
        try:
            with urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - of loopback
                return json.load(answer) if path != "/health" else answer.read()
        except HTTPError as error:
            return error.code

    def add_jane(self) -> None:
        register = "/_synapse/admin/v1/register"
        nonce = self.call("GET", register)["nonce"]
        proof = f"{nonce}\0admin\0pw\0admin"
        mac = hmac.new(SECRET.encode(), proof.encode(), hashlib.sha1).hexdigest()
        admin = {"nonce": nonce, "username": "admin", "password": "pw", "admin": True, "mac": mac}
        self._token = self.call("POST", register, admin)["access_token"]
        address = {"medium": "email", "address": "jane@example.net"}
        jane = {"threepids": [address]}
        assert self.call("PUT", "/_synapse/admin/v2/users/@jane:example.test", jane)["threepids"]

    def ask_for_a_new_password(self, attempt: int = 1) -> Any:
        body = {"client_secret": "abc", "email": "jane@example.net", "send_attempt": attempt}
        return self.call("POST", "/_matrix/client/v3/account/password/email/requestToken", body)


@contextmanager
def homeserver(version: str, folder: Path, ca_file: str, **email: Any) -> Iterator[Homeserver]:
    (port,) = free_ports(1)
    settings = {"notif_from": "Synapse <synapse@example.test>", "smtp_host": "localhost", **email}
    file = folder / "homeserver.yaml"
    text = CONFIGURATION.format(port=port, folder=folder, secret=SECRET, email=json.dumps(settings))
    file.write_text(text, "utf-8")
    (folder / "signing.key").write_text(f"ed25519 a_test {b64encode(bytes(32)).decode()}\n")
    command = [
        *(str(python_of(f"synapse-{version}")), str(REPLACED), "synapse.handlers.send_email"),
        *("synapse.app.homeserver", "--config-path", str(file)),
    ]
    log = folder / "log"
    environment = {**os.environ, "SSL_CERT_FILE": ca_file}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        running = Homeserver(port, log)
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                running.call("GET", "/health")
                break
            except OSError:
                assert process.poll() is None, running.log
                assert time.monotonic() < ends, running.log
                time.sleep(0.05)
        running.add_jane()
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.parametrize("version", ["newest", "oldest"])
def test_a_password_reset_goes_by_starttls_and_auth(tmp_path: Path, version: str) -> None:
    with BackgroundServer(users={"synapse": PASSWORD}) as server:
        login = {"smtp_user": "synapse", "smtp_pass": PASSWORD, "require_transport_security": True}
        with homeserver(
            version, tmp_path, server.ca_file, smtp_port=server.port, **login
        ) as synapse:
            assert "sid" in synapse.ask_for_a_new_password()
            # A connection that is lost is an error, and not a request that hangs.
            server.set_faults(close("MAIL"))
            assert synapse.ask_for_a_new_password(attempt=2) == 500
            assert "SMTPConnectError" in synapse.log
            server.set_faults()
            assert "sid" in synapse.ask_for_a_new_password(attempt=3)
        first, second = server.messages
        dialogue = [line for session in server.sessions for line in session.dialogue]
    for message in (first, second):
        assert (message.user, message.tls is not None) == ("synapse", True)
        assert str(message.sender) == "synapse@example.test"
        assert [str(each) for each in message.recipients] == ["jane@example.net"]
        assert "Password reset" in str(message.email["Subject"])
        text = message.email.get_body(("plain",))
        assert text is not None
        assert "/password_reset/email/submit_token" in text.get_content()
    assert any("STARTTLS" in line for line in dialogue)
    assert PASSWORD not in synapse.log


@pytest.mark.parametrize("version", ["newest"])
def test_force_tls_is_used_as_it_is(tmp_path: Path, version: str) -> None:
    login = {"smtp_user": "synapse", "smtp_pass": PASSWORD, "force_tls": True}
    with BackgroundServer(users={"synapse": PASSWORD}) as server:
        settings = {"smtp_port": server.tls_port, **login}
        with homeserver(version, tmp_path, server.ca_file, **settings) as synapse:
            assert "sid" in synapse.ask_for_a_new_password()
        assert [message.user for message in server.messages] == ["synapse"]
        (session,) = server.sessions
    assert not any("STARTTLS" in line for line in session.dialogue)
