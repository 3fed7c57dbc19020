"""``submission:example.org``: the servers that DNS names, and which certificates count for them."""

from __future__ import annotations

import gc
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import Int16StringReceiver

from tests.name_server import NameServer
from twisted_sendmail import (
    CertificateRejected,
    ConnectFailed,
    Credentials,
    InvalidInput,
    Mailer,
    Receiver,
    ServerTLS,
    SMTPServerFactory,
    SubmissionServer,
    TLSTrust,
    submit,
)
from twisted_sendmail.client import DNSResolver, dns_lookup
from twisted_sendmail.client.discovery import MAX_SERVERS, by_priority, find_servers
from twisted_sendmail.testing import Authority as CertificateAuthority

MESSAGE = b"From: <jane@example.test>\r\n\r\nHi\r\n"
DOMAIN = "example.test"
IMPLICIT, STARTTLS = f"_submissions._tcp.{DOMAIN}", f"_submission._tcp.{DOMAIN}"
_SRV_NAME = ObjectIdentifier("1.3.6.1.5.5.7.8.7")


class Authority:
    """A CA whose certificates may have SRV-IDs."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA")])
        self.certificate = (
            self._build(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _build(self, name: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def issue(self, *names: str) -> bytes:
        """A certificate and its key; a name that begins with ``_`` is an SRV-ID."""
        key = ec.generate_private_key(ec.SECP256R1())
        general = [
            x509.OtherName(_SRV_NAME, bytes([0x16, len(name)]) + name.encode())
            if name.startswith("_")
            else x509.DNSName(name)
            for name in names
        ]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        certificate = (
            self._build(subject, key)
            .add_extension(x509.SubjectAlternativeName(general), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ) + certificate.public_bytes(serialization.Encoding.PEM)


class World:
    """A name server, mail servers, and the client's settings."""

    def __init__(self, reactor: Any, directory: Path) -> None:
        self.reactor, self.directory = reactor, directory
        self.names = NameServer()
        self.address = self.names.start(reactor)
        self.authority = Authority()
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(
            self.authority.certificate.public_bytes(serialization.Encoding.PEM)
        )
        self.accepted: list[int] = []
        self._ports: list[Any] = []
        self._factories: list[SMTPServerFactory] = []

    def serve(self, *names: str, implicit: bool = True) -> int:
        """Start a server whose certificate has these names; return its port."""
        path = self.directory / f"{len(self._ports)}.pem"
        path.touch(0o600)
        path.write_bytes(self.authority.issue(*names))
        accepted = self.accepted

        class Accepting(Receiver):
            def commit(self) -> None:
                accepted.append(self.connection.host.port)  # type: ignore[attr-defined]

        factory = SMTPServerFactory(self.reactor, Accepting, tls=ServerTLS(path))
        self._factories.append(factory)
        outer = factory.implicit_tls() if implicit else factory
        # Targets in the domain `localhost` resolve without DNS.
        port = self.reactor.listenTCP(0, outer, interface="127.0.0.1")
        self._ports.append(port)
        number: int = port.getHost().port
        return number

    def server(self, url: str = f"submission:{DOMAIN}", **settings: Any) -> SubmissionServer:
        settings = {"trust": TLSTrust(ca_file=self.ca_file), **settings}
        resolver = DNSResolver([self.address])
        return SubmissionServer.from_url(url, resolver=resolver, **settings)

    async def send(self, server: SubmissionServer | None = None) -> Any:
        return await submit(
            self.reactor,
            server or self.server(),
            MESSAGE,
            sender="jane@example.test",
            recipients="bob@example.test",
        )

    async def stop(self) -> None:
        for port in self._ports:
            await port.stopListening()
        for factory in self._factories:
            await factory.wind_up(1)
        await self.names.stop()


@pytest_twisted.async_yield_fixture
async def world(reactor: Any, tmp_path: Path) -> AsyncIterator[World]:
    made = World(reactor, tmp_path)
    yield made
    await made.stop()


# -- which certificate counts: the target `localhost` does not lie in the domain ---------------


@pytest.mark.parametrize(
    "names", [(DOMAIN,), (f"_submissions.{DOMAIN}",), ("localhost", DOMAIN)], ids=str
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_for_the_mail_domain_counts(
    world: World, names: tuple[str, ...]
) -> None:
    world.names.add_srv(IMPLICIT, "localhost", world.serve(*names))
    report = await world.send()
    assert report.accepted
    assert report.tls.identity == next(name for name in names if DOMAIN in name)


@pytest.mark.parametrize(
    "names", [("localhost",), (f"_submission.{DOMAIN}",), (f"_imaps.{DOMAIN}",)], ids=str
)
@pytest_twisted.ensureDeferred
async def test_another_certificate_is_refused_with_the_url_to_write(
    world: World, names: tuple[str, ...]
) -> None:
    port = world.serve(*names)
    world.names.add_srv(IMPLICIT, "localhost", port)
    with pytest.raises(CertificateRejected, match=f"not for {DOMAIN}") as caught:
        await world.send()
    assert f"write smtps://localhost:{port}" in str(caught.value)
    assert not world.accepted
    # And that URL does it, where the name is right.
    if names == ("localhost",):
        assert (await world.send(world.server(f"smtps://localhost:{port}"))).accepted


@pytest_twisted.ensureDeferred
async def test_a_validated_answer_proves_the_target(world: World) -> None:
    world.names.add_srv(IMPLICIT, "localhost", world.serve("localhost"))
    world.names.validated = True
    assert (await world.send()).tls.identity == "localhost"


@pytest_twisted.ensureDeferred
async def test_a_target_in_the_domain_counts_by_its_own_name(world: World) -> None:
    world.names.add_srv(IMPLICIT, f"mail.{DOMAIN}", 465)
    world.names.add_srv(IMPLICIT, f"mail.{DOMAIN}.evil.test", 465, priority=1)
    world.names.add_srv(IMPLICIT, f"evil{DOMAIN}", 465, priority=2)
    inside, *outside = await find_servers(world.reactor, world.server())
    assert (inside.server.host, inside.server.trust.name) == (f"mail.{DOMAIN}", None)
    found = [(each.target_unproved, each.server.trust.name) for each in outside]
    assert found == [(True, DOMAIN)] * 2
    world.names.add_srv("_submissions._tcp.localhost", "localhost", world.serve("localhost"))
    report = await world.send(world.server("submission:localhost"))
    assert report.tls.identity == "localhost"


@pytest.mark.parametrize("names", [(f"not{DOMAIN}",), (f"a.{DOMAIN}.evil.test",)], ids=str)
@pytest_twisted.ensureDeferred
async def test_a_name_that_only_resembles_the_domain_does_not_count(
    world: World, names: tuple[str, ...]
) -> None:
    world.names.add_srv(IMPLICIT, "localhost", world.serve(*names))
    with pytest.raises(CertificateRejected):
        await world.send()


@pytest_twisted.ensureDeferred
async def test_the_callers_own_trust_decides_alone(world: World) -> None:
    world.names.add_srv(IMPLICIT, "localhost", world.serve("localhost"))
    trust = TLSTrust(ca_file=world.ca_file, name="localhost")
    assert (await world.send(world.server(trust=trust))).accepted
    with pytest.raises(CertificateRejected):
        await world.send(world.server(trust=TLSTrust(ca_file=world.ca_file, name=DOMAIN)))


# -- which server is tried ----------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_implicit_tls_comes_first_and_a_dead_server_last(world: World) -> None:
    clear = world.serve(DOMAIN, implicit=False)
    second = world.serve(DOMAIN)
    world.names.add_srv(STARTTLS, "localhost", clear)
    world.names.add_srv(IMPLICIT, "localhost", 1, priority=0)
    world.names.add_srv(IMPLICIT, "localhost", second, priority=10)
    mailer = Mailer(world.reactor, world.server())
    for _ in range(2):
        report = await mailer.send(MESSAGE, sender="a@example.test", recipients="b@example.test")
        assert report.accepted
    await mailer.aclose()
    assert world.accepted == [second, second]


@pytest_twisted.ensureDeferred
async def test_starttls_is_used_where_it_is_all_there_is(world: World) -> None:
    world.names.add_srv(IMPLICIT, ".", 0)
    world.names.add_srv(STARTTLS, "localhost", world.serve(DOMAIN, implicit=False))
    assert (await world.send()).accepted


@pytest.mark.parametrize(
    ("targets", "detail"),
    [((), "it has no record _submissions"), ((".",), "says that there is none")],
)
@pytest_twisted.ensureDeferred
async def test_a_domain_without_server_is_named(
    world: World, targets: Sequence[str], detail: str
) -> None:
    for target in targets:
        world.names.add_srv(IMPLICIT, target, 0)
        world.names.add_srv(STARTTLS, target, 0)
    with pytest.raises(ConnectFailed, match=f"{DOMAIN} names no submission server") as caught:
        await world.send()
    assert detail in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_records_that_cannot_be_used_are_left_out(world: World) -> None:
    port = world.serve(DOMAIN)
    world.names.add_srv(IMPLICIT, "localhost", 0)
    world.names.add_srv(IMPLICIT, r"m\195\188ller.test", 465)
    world.names.add_srv(IMPLICIT, "localhost", port, priority=1)
    (candidate,) = await find_servers(world.reactor, world.server())
    assert (candidate.server.host, candidate.server.port) == ("localhost", port)


@pytest_twisted.ensureDeferred
async def test_of_many_records_the_first_are_tried(world: World) -> None:
    """The reactor's thread must not order thousands, nor the client try them all."""
    for number in range(300):
        world.names.add_srv(IMPLICIT, f"m{number}.{DOMAIN}", 465, weight=65535, priority=1)
    world.names.add_srv(IMPLICIT, f"first.{DOMAIN}", 465)
    found = await find_servers(world.reactor, world.server())
    assert found[0].server.host == f"first.{DOMAIN}"
    assert len(found) == MAX_SERVERS


@pytest_twisted.ensureDeferred
async def test_a_domain_too_long_for_the_name_of_the_service_is_named(world: World) -> None:
    domain = ".".join("x" * 60 for _ in range(4))
    with pytest.raises(ConnectFailed, match="cannot be looked up"):
        await world.send(world.server(f"submission:{domain}"))


@pytest.mark.parametrize("rcode", [2, 6], ids=["SERVFAIL", "YXDOMAIN"])
@pytest_twisted.ensureDeferred
async def test_a_bogus_answer_is_no_answer(world: World, rcode: int) -> None:
    """A validating name server says SERVFAIL to a forged record."""
    world.names.add_srv(IMPLICIT, "localhost", world.serve(DOMAIN))
    world.names.rcode = rcode
    with pytest.raises(ConnectFailed, match="cannot be looked up") as caught:
        await world.send()
    assert caught.value.transient


def _malformed(query: bytes) -> bytes:
    """Return an answer with a TLSA record of two octets, where three and a digest are needed.

    For a name with ``good`` in it there are others beside it.
    """
    asked = dns.message.from_wire(query)
    reply = dns.message.make_response(asked)
    kind = dns.rdatatype.TLSA
    records = dns.rrset.RRset(asked.question[0].name, dns.rdataclass.IN, kind)
    good = [b"\3\1\1" + bytes(32), b"\3\0\1" + bytes(32)]
    for octets in (b"\3\1", *(good if b"good" in query else [])):
        records.add(dns.rdata.GenericRdata(dns.rdataclass.IN, kind, octets), 60)
    reply.answer.append(records)
    return reply.to_wire()


class _MalformedByUDP(DatagramProtocol):
    def datagramReceived(self, data: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(_malformed(data), addr)


class _MalformedByTCP(Int16StringReceiver):
    def stringReceived(self, string: bytes) -> None:
        self.sendString(_malformed(string))  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


@pytest_twisted.ensureDeferred
async def test_an_answer_that_cannot_be_parsed_is_not_called_a_timeout(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By UDP it may be forged, and is ignored; by TCP its error is reported, or the other records count."""
    monkeypatch.setattr(dns_lookup, "QUERY_TIMEOUT", 0.1)
    tcp = reactor.listenTCP(0, Factory.forProtocol(_MalformedByTCP), interface="127.0.0.1")
    number = tcp.getHost().port
    udp = reactor.listenUDP(number, _MalformedByUDP(), interface="127.0.0.1")
    with pytest.raises(ConnectFailed, match=r"TLSA records of mx\.test cannot .* malformed"):
        await DNSResolver(f"127.0.0.1:{number}").lookup(reactor, "mx.test", "TLSA")
    answer = await DNSResolver(f"127.0.0.1:{number}").lookup(reactor, "good.test", "TLSA")
    assert sorted(each.selector for each in answer.records) == [0, 1]
    await udp.stopListening()
    await tcp.stopListening()


class _TrickleByTCP(Protocol):
    """The first connection has a malformed answer, and those after it one that comes octet by octet."""

    connections = 0
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        reply = _malformed(data[2:])
        if type(self).connections == 1:
            self.transport.write(len(reply).to_bytes(2, "big") + reply)
        else:
            _ = self._next.start(0.05)

    def connectionMade(self) -> None:
        type(self).connections += 1
        self._next = LoopingCall(self.transport.write, b"\xff")

    def connectionLost(self, reason: Any = None) -> None:
        if self._next.running:
            self._next.stop()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_comes_octet_by_octet_takes_no_longer_than_a_query(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_lookup, "QUERY_TIMEOUT", 0.1)
    monkeypatch.setattr(dns_lookup, "TCP_TIMEOUT", 1.0)
    tcp = reactor.listenTCP(0, Factory.forProtocol(_TrickleByTCP), interface="127.0.0.1")
    number = tcp.getHost().port
    udp = reactor.listenUDP(number, _MalformedByUDP(), interface="127.0.0.1")
    looking_up: Any = DNSResolver(f"127.0.0.1:{number}").lookup(reactor, "good.test", "TLSA")
    with pytest.raises(ConnectFailed, match=r"TLSA records of good\.test cannot"):
        await looking_up.addTimeout(10, reactor)
    assert _TrickleByTCP.connections == 2
    await udp.stopListening()
    await tcp.stopListening()


def _answer_by_tls(listening: socket.socket, context: ssl.SSLContext) -> None:
    """Answer a query on each connection, until the socket is closed."""
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as client:
                query = client.recv(65536)[2:]
                reply = _malformed(query)
                client.sendall(len(reply).to_bytes(2, "big") + reply)


@pytest_twisted.ensureDeferred
async def test_a_malformed_record_is_left_out_by_tls_too(
    reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority()
    pem, trusted = tmp_path / "server.pem", tmp_path / "ca.pem"
    _ = pem.write_bytes(authority.issue(["dns.test"]))
    _ = trusted.write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_answer_by_tls, args=(listening, context), daemon=True)
        thread.start()
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        answer = await DNSResolver(f"tls://{place}#dns.test").lookup(reactor, "good.test", "TLSA")
        assert sorted(each.selector for each in answer.records) == [0, 1]
        with pytest.raises(ConnectFailed, match="cannot be looked up"):
            await DNSResolver(f"tls://{place}#other.test").lookup(reactor, "good.test", "TLSA")


def test_a_stop_of_the_reactor_does_not_wait_for_a_name_server() -> None:
    program = """
import socket, time
from twisted.internet import reactor
from twisted_sendmail import DNSResolver
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 0))
def run():
    resolver = DNSResolver(f"127.0.0.1:{silent.getsockname()[1]}")
    resolver.lookup(reactor, "example.org", "SRV")
    reactor.callLater(0.2, stop)
def stop():
    global begun
    begun = time.monotonic()
    reactor.stop()
reactor.callWhenRunning(run)
reactor.run()
print(time.monotonic() - begun)
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    # A query takes seven seconds, and as long as TCP takes.
    assert float(done.stdout) < 6


def test_weights_share_the_load() -> None:
    """RFC 2782: by priority, then by weight; weight 0 has a small chance."""
    records = [
        SimpleNamespace(priority=p, weight=w, name=n)
        for p, w, n in ((10, 0, "last"), (0, 0, "z"), (0, 1, "a"), (0, 3, "b"))
    ]

    def first(number: float) -> str:
        return "".join(each.name[0] for each in by_priority(records, lambda: number))

    assert [first(number) for number in (0.0, 0.3, 0.9)] == ["zabl", "abzl", "bazl"]


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("submission:", "it has no host"),
        ("submission:example.org:587", "name the port"),
        ("submission://example.org/x", "something after the host"),
        ("submission:192.0.2.1", "mail domain"),
    ],
)
def test_a_wrong_url_is_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        SubmissionServer.from_url(url)


def test_the_url_is_that_of_the_domain() -> None:
    credentials = Credentials("jane", "s3cret")
    for url in ("submission:example.org", "submission://example.org", "SUBMISSION:example.org"):
        server = SubmissionServer.from_url(url, credentials=credentials)
        assert (str(server), server.discover) == ("submission:example.org", True)
    assert SubmissionServer.from_url("submission:jane:pw@example.org").credentials


@pytest.mark.parametrize("text", ["example.org", "127.0.0.1:0", "tls://127.0.0.1", "1.2.3.4#x", ""])
def test_a_wrong_name_server_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="name server"):
        DNSResolver([text])


def test_the_word_of_a_name_server_counts_only_on_a_safe_way() -> None:
    safe = [["127.0.0.1"], ["[::1]:5353"], ["tls://192.0.2.1#dns.example"]]
    unsafe = [[], ["192.0.2.1"], ["127.0.0.1", "192.0.2.1"]]
    assert [DNSResolver(each).validates for each in safe] == [True] * 3
    assert [DNSResolver(each).validates for each in unsafe] == [False] * 3


# -- the source address -------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_connection_comes_from_the_source_address(reactor: Any) -> None:
    peers: list[str] = []

    class Peer(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            peers.append(self.transport.getPeer().host)  # type: ignore[attr-defined]
            self.transport.loseConnection()

    port = reactor.listenTCP(0, Factory.forProtocol(Peer), interface="127.0.0.1")
    for host in ("127.0.0.1", "localhost"):
        server = SubmissionServer(host, port.getHost().port, source_address="127.0.0.9")
        with pytest.raises(Exception, match="closed"):
            await submit(
                reactor, server, MESSAGE, sender="a@example.test", recipients="b@example.test"
            )
    await port.stopListening()
    assert peers == ["127.0.0.9", "127.0.0.9"]
    for wrong in ("example.org", "127.0.0.1:25", ""):
        with pytest.raises(InvalidInput, match="source_address"):
            SubmissionServer("localhost", source_address=wrong)
    assert ipaddress.ip_address(peers[0]).is_loopback


# Twisted leaves the socket that could not be bound to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest_twisted.ensureDeferred
async def test_a_source_address_of_another_machine_is_named(reactor: Any) -> None:
    foreign = SubmissionServer("127.0.0.1", 9, source_address="192.0.2.1")
    with pytest.raises(ConnectFailed, match=r"from 192\.0\.2\.1: .*; give a source address that"):
        await submit(
            reactor, foreign, MESSAGE, sender="a@example.test", recipients="b@example.test"
        )
    gc.collect()
