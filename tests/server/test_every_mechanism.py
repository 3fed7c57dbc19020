"""A hostile client at AUTH, for every mechanism of the server."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.server.conftest import Client, Net
from twisted_sendmail import HashedAccounts, ServerSettings, ServerTLS
from twisted_sendmail.channel_binding import binding_data, usual_binding
from twisted_sendmail.sasl import (
    MECHANISMS,
    ChannelBinding,
    Mechanism,
    ResolvedCredentials,
    ScramKeys,
    Secret,
)
from twisted_sendmail.server.auth import EXCHANGES, Avatar
from twisted_sendmail.testing import Authority

USER, SECRET, WRONG = "jane", "s3cret-Pa55word", "wr0ng-Pa55word"
SETTINGS = ServerSettings(require_auth=True, mechanisms=tuple(EXCHANGES))


class EveryAccount(HashedAccounts):
    """Users with a password of every hash, a token and a certificate."""

    def __init__(self, fingerprint: str) -> None:
        keys = [
            ScramKeys.of(SECRET, iterations=iterations, hash_name=name)
            for name, iterations in (("sha1", 4096), ("sha256", 4096), ("sha512", 10_000))
        ]
        super().__init__({USER: keys, "bob": keys}, certificates={fingerprint: USER})
        self.mechanisms = (*self.mechanisms, "OAUTHBEARER", "XOAUTH2")

    async def check_token(self, user: str, token: str) -> Avatar | None:
        return Avatar() if (user, token) == (USER, SECRET) else None


class Certificates:
    """Two certificates of clients; only the first belongs to a user."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / name for name in ("jane.pem", "other.pem")]
        for path in self.paths:
            path.touch(0o600)
            path.write_bytes(Authority().issue(["client"]))
        first = x509.load_pem_x509_certificate(self.paths[0].read_bytes())
        self.accounts = EveryAccount(first.fingerprint(hashes.SHA256()).hex())
        server = folder / "server.pem"
        server.touch(0o600)
        server.write_bytes(Authority().issue())
        self.server = ServerTLS(server, ask_certificate=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@implementer(IOpenSSLClientConnectionCreator)
class WithCertificate:
    """TLS of a client that accepts any server and shows a certificate."""

    def __init__(self, path: Path | None) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if path is not None:
            self._context.use_certificate_file(str(path))
            self._context.use_privatekey_file(str(path))
        self.connection: Any = None

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = self.connection = SSL.Connection(self._context, None)
        return connection


class Peer:
    """A client of one mechanism."""

    def __init__(self, net: Net, certificates: Certificates, name: str) -> None:
        self.name, self._certificates, self._net = name, certificates, net
        net.server(tls=certificates.server, accounts=certificates.accounts, settings=SETTINGS)

    def connect(self, *, wrong: bool = False) -> Client:
        """Connect and begin TLS; a wrong client shows a certificate that no user has."""
        client = self._net.client()
        client.send("EHLO client.example.net\r\n")
        assert client.code("STARTTLS") == "220 2.0.0"
        self._tls = WithCertificate(self._certificates.paths[wrong])
        assert client.link is not None
        client.link.client.startTLS(self._tls)
        self._net.pump.run()
        (offer,) = [x for x in client.send("EHLO client.example.net\r\n") if "AUTH" in x]
        assert self.name in offer.split()
        return client

    def mechanism(self, secret: str = SECRET, user: str = USER, authzid: str = "") -> Mechanism:
        """Return our own client's side of the mechanism."""
        given: dict[str, Any] = {"password": Secret(secret)}
        if self.name in {"OAUTHBEARER", "XOAUTH2"}:
            given = {"token": Secret(secret)}
        elif self.name == "EXTERNAL":
            given = {}
        connection = self._tls.connection
        kind = usual_binding(connection)
        data = binding_data(kind, connection, connection.get_peer_certificate())
        assert data is not None
        return MECHANISMS[self.name](
            ResolvedCredentials(
                user,
                authzid=authzid,
                mechanisms=(self.name,),
                channel_binding=ChannelBinding(kind, data),
                certificate=True,
                **given,
            )
        )

    def log_in(self, client: Client, mechanism: Mechanism) -> str:
        """Run one exchange; return the last reply."""
        initial = mechanism.start()
        words = "" if initial is None else f" {encoded(initial) or '='}"
        reply = self.say(client, f"AUTH {self.name}{words}")
        while reply.startswith("334"):
            try:
                answer = encoded(mechanism.respond(b64decode(reply[4:])))
            except Exception:  # noqa: BLE001 - the client ends the exchange, for any reason
                answer = "*"
            reply = self.say(client, answer)
        return reply

    def say(self, client: Client, line: str) -> str:
        """Send a line, and wait for the reply, which may be delayed."""
        said = client.send(f"{line}\r\n")
        if not said and not client.over:
            self._net.pump.advance(61)
            said = client.take()
        return said[-1] if said else "closed"


def encoded(octets: bytes) -> str:
    return b64encode(octets).decode()


@pytest.fixture(params=list(EXCHANGES))
def peer(net: Net, certificates: Certificates, request: pytest.FixtureRequest) -> Peer:
    return Peer(net, certificates, request.param)


@pytest.fixture(autouse=True)
def logged() -> Any:
    """Nothing that is logged has a password."""
    events: list[LogEvent] = []
    keep: Any = events.append
    globalLogPublisher.addObserver(keep)
    yield events
    globalLogPublisher.removeObserver(keep)
    texts = [formatEvent(event) + repr(event) for event in events]
    assert not [text for text in texts if SECRET in text or WRONG in text]


def test_the_right_proof_logs_in_once(peer: Peer) -> None:
    client = peer.connect()
    assert client.code("MAIL FROM:<a@example.org>") == "530 5.7.0"
    assert peer.log_in(client, peer.mechanism())[:3] == "235"
    assert client.code(f"AUTH {peer.name}") == "503 5.5.1"
    assert client.code("MAIL FROM:<a@example.org>") == "250 2.0.0"
    assert client.code(f"AUTH {peer.name}") == "503 5.5.1"
    tls = client.server.connection.tls
    assert (tls.version, tls.channel_binding) == ("TLSv1.3", "tls-exporter")
    assert tls.group
    assert len(tls.fingerprint) == 64
    shown = "\n".join(client.server.connection.transcript)
    assert SECRET not in shown
    assert encoded(SECRET.encode()) not in shown


def test_in_clear_text_it_is_neither_offered_nor_accepted(peer: Peer, net: Net) -> None:
    client = net.client()
    assert not [x for x in client.send("EHLO c.example\r\n") if "AUTH" in x]
    for initial in ("", " =", f" {encoded(b'x')}"):
        assert client.code(f"AUTH {peer.name}{initial}") == "538 5.7.11"
    assert client.code("MAIL FROM:<a@example.org>") == "530 5.7.0"


def test_after_starttls_in_the_same_segment_it_is_not_run(peer: Peer, net: Net) -> None:
    client = net.client()
    client.send("EHLO c.example\r\n")
    said = client.send(f"STARTTLS\r\nAUTH {peer.name} {encoded(b'x')}\r\nNOOP\r\n")
    assert [line[:3] for line in said] == ["554"]
    assert client.over


@pytest.mark.parametrize("initial", ["???", "YQ", "a b", "\u00fc"])
def test_a_malformed_command_is_5yz_and_the_session_goes_on(peer: Peer, initial: str) -> None:
    client = peer.connect()
    assert peer.say(client, f"AUTH {peer.name} {initial}")[0] == "5"
    assert client.code("NOOP") == "250 2.0.0"
    assert peer.log_in(client, peer.mechanism())[:3] == "235"


@pytest.mark.parametrize("response", ["???", "YQ", encoded(b"\xff\xfe\0\x80"), ""])
def test_a_malformed_response_does_not_log_in(peer: Peer, response: str) -> None:
    client = peer.connect()
    reply = peer.say(client, f"AUTH {peer.name}")
    rounds = 0
    while reply.startswith("334"):
        rounds += 1
        assert rounds <= 8
        reply = peer.say(client, response)
    # An empty response to EXTERNAL names the owner of the certificate.
    owner = peer.name == "EXTERNAL" and not response
    assert reply[:3] == "235" if owner else reply[0] == "5"
    assert client.code("NOOP") == "250 2.0.0"


def test_an_asterisk_cancels(peer: Peer, logged: list[LogEvent]) -> None:
    client = peer.connect()
    assert client.code(f"AUTH {peer.name}")[:3] == "334"
    assert client.code("*") == "501 5.7.0"
    assert client.code("MAIL FROM:<a@example.org>") == "530 5.7.0"
    assert [formatEvent(e) for e in logged if "aborted" in formatEvent(e)]
    assert peer.log_in(client, peer.mechanism())[:3] == "235"


def test_a_response_that_is_too_long_does_not_log_in(peer: Peer) -> None:
    client = peer.connect()
    client.send(f"AUTH {peer.name}\r\n")
    assert peer.say(client, "QUFB" * 4000)[0] == "5"
    assert client.code("MAIL FROM:<a@example.org>")[0] != "2"


def test_commands_after_auth_in_the_same_segment_are_not_run(peer: Peer) -> None:
    client = peer.connect()
    said = client.send(f"AUTH {peer.name}\r\nMAIL FROM:<a@example.org>\r\nNOOP\r\n")
    assert not [line for line in said if line.startswith("250")]


def test_a_wrong_proof_costs_time_and_at_last_the_connection(peer: Peer, net: Net) -> None:
    client = peer.connect(wrong=True)
    for number in (1, 2, 3):
        before = net.clock.seconds()
        reply = peer.log_in(client, peer.mechanism(WRONG))
        assert reply.startswith("535 5.7.8" if number < 3 else ("535", "421")), number
        if number < 3:
            assert client.code("MAIL FROM:<a@example.org>") == "530 5.7.0"
        assert net.clock.seconds() > before
    assert client.over


def test_an_unknown_user_gets_the_same_dialogue(peer: Peer) -> None:
    dialogues = []
    for user in (USER, "nobody"):
        client = peer.connect(wrong=True)
        reply = peer.log_in(client, peer.mechanism(WRONG, user))
        shown = [str(line) for line in client.server.connection.transcript]
        dialogues.append(([line.replace(user, "USER") for line in shown], reply))
    assert dialogues[0] == dialogues[1]
    assert dialogues[0][1][:9] == "535 5.7.8"


@pytest.mark.parametrize("peer", sorted(set(EXCHANGES) - {"LOGIN", "XOAUTH2"}), indirect=True)
def test_another_user_cannot_be_acted_as(peer: Peer) -> None:
    """LOGIN and XOAUTH2 have no authorization identity."""
    client = peer.connect()
    assert peer.log_in(client, peer.mechanism(authzid="bob"))[:9] == "535 5.7.8"
    assert client.server.connection.user is None
