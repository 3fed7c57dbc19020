"""Kinds of trust: pins, CA directories, the minimum version, certificates of the client."""

from __future__ import annotations

import datetime as dt
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.ssl import ClientContextFactory

from tests.client.certificates import NAME, Authority, authority, context_of
from tests.client.conftest import BODY, Net
from tests.client.test_tls import nothing_was_told
from tests.client.test_tls_of_the_endpoint import TLSEndpoint
from tests.deferreds import Result
from twisted_sendmail import (
    CertificateRejected,
    ConnectionClosed,
    Envelope,
    InvalidInput,
    InvalidServer,
    Mailer,
    SubmissionServer,
    TLSAlert,
    TLSFailure,
    TLSPolicy,
    TLSTrust,
    probe_server,
    submit,
)
from twisted_sendmail.testing import MemoryEndpoint

OTHER = "00" * 32
SECRET = b"correct horse"


def fingerprint_of(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def public_key_of(certificate: x509.Certificate) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return digest.finalize().hex()


def in_base64(pin: str) -> str:
    return b64encode(bytes.fromhex(pin)).decode()


# -- pins


@pytest.mark.parametrize(
    ("verified_by", "pins"),
    [
        ("public-key", lambda c: {"public_key": public_key_of(c)}),
        ("public-key", lambda c: {"public_key": f"sha256//{in_base64(public_key_of(c))}"}),
        ("public-key", lambda c: {"public_key": [OTHER, public_key_of(c).upper()]}),
        ("public-key", lambda c: {"public_key": public_key_of(c), "fingerprint": OTHER}),
        ("fingerprint", lambda c: {"fingerprint": [OTHER, fingerprint_of(c)]}),
        ("fingerprint", lambda c: {"fingerprint": (in_base64(fingerprint_of(c)),)}),
    ],
)
def test_one_pin_that_matches_is_enough(
    net: Net, verified_by: str, pins: Callable[[x509.Certificate], dict[str, Any]]
) -> None:
    """CA, name and dates do not count; a resumed session is held against the pins again."""
    certificate, key = Authority().server(common_name="whoever")
    context = context_of(certificate, key)
    trust = TLSTrust(**pins(certificate))
    found = [net.send(net.server(context=context), trust=trust).get().tls for _ in range(2)]
    matched = {"public-key": public_key_of, "fingerprint": fingerprint_of}[verified_by](certificate)
    assert [(each.verified_by, each.identity, each.resumed) for each in found] == [
        (verified_by, matched, False),
        (verified_by, matched, True),
    ]
    assert found[0].public_key == public_key_of(certificate)


def test_a_public_key_outlives_its_certificate(net: Net) -> None:
    old, key = authority().server(NAME)
    renewed = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .sign(authority().key, hashes.SHA256())
    )
    pinned = TLSTrust(public_key=public_key_of(old))
    net.send(net.server(context=context_of(renewed, key)), trust=pinned).get()
    by_certificate = TLSTrust(fingerprint=fingerprint_of(old))
    server = net.server(context=context_of(renewed, key))
    assert isinstance(net.send(server, trust=by_certificate).error, CertificateRejected)


@pytest.mark.parametrize(
    ("pins", "why"),
    [
        ({"public_key": OTHER}, "its public key's SHA-256 is {key}, not the one pinned"),
        ({"fingerprint": [OTHER, "11" * 32]}, "its SHA-256 is {certificate}, not one pinned"),
        (
            {"public_key": OTHER, "fingerprint": OTHER},
            "its SHA-256 is {certificate} and its public key's SHA-256 is {key}, not one pinned",
        ),
    ],
)
def test_without_a_match_the_good_certificate_of_a_good_ca_is_refused(
    net: Net, pins: dict[str, Any], why: str
) -> None:
    certificate, key = authority().server(NAME)
    error = net.send(net.server(context=context_of(certificate, key)), trust=TLSTrust(**pins)).error
    assert isinstance(error, CertificateRejected)
    shown = why.format(key=public_key_of(certificate), certificate=fingerprint_of(certificate))
    assert shown in str(error)
    nothing_was_told(net)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"public_key": "ab"}, "the public key cannot be used; give the SHA-256 of the server's"),
        ({"public_key": [OTHER, b64encode(bytes(31)).decode()]}, "the public key cannot be used"),
        ({"fingerprint": [OTHER, 3]}, "certificate fingerprint cannot be int"),
        ({"public_key": 3}, "public key cannot be int"),
        ({"public_key": OTHER, "name": "h"}, "leave out the CAs and the name, or the pin"),
        ({"public_key": OTHER, "ca_directory": "/"}, "leave out the CAs and the name, or the pin"),
        ({"minimum_version": "TLSv1.1"}, "cannot be 'TLSv1.1'; give 'TLSv1.2' or 'TLSv1.3'"),
        ({"minimum_version": 3}, "cannot be 3; give 'TLSv1.2' or 'TLSv1.3'"),
        ({"client_key": "x"}, "there is no client certificate for the key"),
        ({"client_key_password_file": "x"}, "there is no client certificate for the key"),
    ],
)
def test_trust_that_cannot_be_used_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        TLSTrust(**settings)
    assert words in str(caught.value)


# -- CAs


def hashed(folder: Path, ca: Authority) -> Path:
    """Write the CA as ``openssl rehash`` names it."""
    name = X509.from_cryptography(ca.certificate).subject_name_hash()
    return ca.write(folder / f"{name:08x}.0")


def test_a_directory_of_authorities_stands_in_place_of_the_systems(
    net: Net, tmp_path: Path
) -> None:
    path = hashed(tmp_path, authority())
    trust = TLSTrust(ca_directory=tmp_path)
    assert net.send(net.server(), trust=trust).get().tls.verified_by == "name"
    # Another one besides it, in a file.
    other = Authority("other")
    both = TLSTrust(ca_directory=tmp_path, ca_file=other.write(tmp_path / "other.pem"))
    for context in (None, other.context(NAME)):
        net.send(net.server(context=context), trust=both).get()
    # It is removed: no session of its time is resumed.
    path.unlink()
    _ = hashed(tmp_path, Authority("third"))
    error = net.send(net.server(), trust=trust).error
    assert isinstance(error, CertificateRejected)
    nothing_was_told_on_last(net)


def nothing_was_told_on_last(net: Net) -> None:
    assert b"MAIL" not in net.link.client.sent


def test_a_directory_in_which_openssl_finds_nothing_is_an_error(tmp_path: Path) -> None:
    _ = authority().write(tmp_path / "ca.pem")
    with pytest.raises(InvalidServer) as caught:
        TLSTrust(ca_directory=tmp_path).context()
    assert f"such as 9d66eef0.0; openssl rehash {tmp_path}" in str(caught.value)
    for path, why in ((tmp_path / "ca.pem", "Not a directory"), (tmp_path / "x", "No such file")):
        with pytest.raises(InvalidServer) as caught:
            TLSTrust(ca_directory=path).context()
        assert why in str(caught.value)


# -- the minimum version


def test_a_server_with_an_older_version_only_is_refused(net: Net) -> None:
    def server() -> Any:
        context = authority().context(NAME)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        return net.server(context=context)

    assert net.send(server(), trust=net.trust).get().tls.version == "TLSv1.2"
    error = net.send(
        server(), trust=TLSTrust(ca_file=net.trust.ca_file, minimum_version="TLSv1.3")
    ).error
    assert isinstance(error, TLSAlert)
    assert "it may not have TLSv1.3, the minimum version" in str(error)
    nothing_was_told_on_last(net)


def test_tls_of_an_application_may_not_be_older_than_the_minimum(net: Net) -> None:
    certificate, key = authority().server(NAME)
    context = context_of(certificate, key)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    server = net.server(implicit=True, context=context)
    trust = TLSTrust(fingerprint=fingerprint_of(certificate), minimum_version="TLSv1.3")
    endpoint = TLSEndpoint(net, ClientContextFactory(), server)
    error = net.send(endpoint, tls=TLSPolicy.IMPLICIT, trust=trust).error
    assert isinstance(error, TLSFailure)
    assert "the version is TLSv1.2, and TLSv1.3 is the minimum" in str(error)
    assert server.lines == []


# -- facts of a session


@pytest.mark.parametrize(
    ("version", "maximum", "binding"),
    [
        ("TLSv1.2", SSL.TLS1_2_VERSION, "tls-server-end-point"),
        ("TLSv1.3", SSL.TLS1_3_VERSION, "tls-exporter"),
    ],
)
def test_a_result_tells_how_the_server_was_trusted_and_what_was_agreed_on(
    net: Net, version: str, maximum: int, binding: str
) -> None:
    certificate, key = authority().server(NAME)
    context = context_of(certificate, key)
    context.set_max_proto_version(maximum)
    by_pin = TLSTrust(public_key=public_key_of(certificate))
    for trust, identity, chain in (
        (net.trust, ("name", NAME), ("CN=throw-away CA",)),
        # The server does not send its CA, and with a pin there is no other place to have it from.
        (by_pin, ("public-key", public_key_of(certificate)), ()),
    ):
        for resumed in (False, True):
            tls = net.send(net.server(context=context), trust=trust).get().tls
            assert (tls.version, tls.resumed, tls.channel_binding) == (version, resumed, binding)
            assert ((tls.verified_by, tls.identity), tls.chain) == (identity, chain)
            assert resumed or tls.group


@pytest.mark.parametrize("way", ["submit", "sendmail", "many", "Mailer", "probe_server", "error"])
def test_every_result_has_the_facts(net: Net, way: str) -> None:
    refuses = {"MAIL": "550 5.7.1 no"} if way == "error" else {}
    server = net.server(refuses)
    message: dict[str, Any] = {"sender": "a@example.org", "recipients": "b@example.net"}
    sending: Any
    if way in {"sendmail", "error"}:
        result = net.send(server)
        tls = result.error.tls if refuses else result.get().tls
    elif way == "many":
        envelope = Envelope("a@example.org", ["b@example.net"])
        tls = net.many([(envelope, BODY)], server).get()[0].tls
    else:
        given = net.settings()
        configured = SubmissionServer(
            given.pop("server_name"), endpoint=MemoryEndpoint(net.pump, server), **given
        )
        if way == "submit":
            sending = submit(net.clock, configured, BODY, **message)
        elif way == "probe_server":
            sending = probe_server(net.clock, configured)
        else:
            mailer = Mailer(net.clock, configured)
            sending = mailer.send(BODY, **message)
        result = Result(sending)
        net.pump.run()
        tls = result.get().tls
        if way == "Mailer":
            closed = Result(mailer.aclose())
            net.pump.run()
            closed.get()
    assert (tls.version, tls.verified_by, tls.identity) == ("TLSv1.3", "name", NAME)
    assert tls.cipher.startswith("TLS_")
    assert tls.group
    assert (tls.chain, tls.channel_binding) == (("CN=throw-away CA",), "tls-exporter")


# -- certificates of the client


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], str]:
    """Return the path of a file, by name; each holds the same certificate or key."""
    certificate, key = authority().server("client.example.org")
    top = authority().certificate
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, top))

    def pem(encryption: Any) -> bytes:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def bundle(encryption: Any) -> bytes:
        return pkcs12.serialize_key_and_certificates(b"", key, certificate, [top], encryption)

    contents = {
        "chain.pem": chain,
        "key.pem": pem(NoEncryption()),
        "both.pem": chain + pem(NoEncryption()),
        "key-first.pem": pem(NoEncryption()) + chain,
        "encrypted.pem": pem(BestAvailableEncryption(SECRET)),
        "open.p12": bundle(NoEncryption()),
        "encrypted.p12": bundle(BestAvailableEncryption(SECRET)),
        "no-key.p12": pkcs12.serialize_key_and_certificates(
            b"", None, None, [certificate], NoEncryption()
        ),
        "other.pem": Authority().key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        "password": SECRET + b"\n",
        "wrong": b"wrong\n",
        "rubbish": b"rubbish",
    }
    for name, octets in contents.items():
        _ = (tmp_path / name).write_bytes(octets)
    return lambda name: str(tmp_path / name)


KINDS: list[tuple[str, str | None, str | None]] = [
    ("both.pem", None, None),
    ("key-first.pem", None, None),
    ("chain.pem", "key.pem", None),
    ("chain.pem", "encrypted.pem", "password"),
    ("open.p12", None, None),
    ("encrypted.p12", None, "password"),
]


def settings_of(files: Callable[[str], str], kind: tuple[str, str | None, str | None]) -> Any:
    names = ("client_certificate", "client_key", "client_key_password_file")
    return {name: files(file) for name, file in zip(names, kind, strict=True) if file}


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_receives_the_clients_certificate_and_its_chain(
    net: Net, files: Callable[[str], str], kind: tuple[str, str | None, str | None]
) -> None:
    context = authority().context(NAME)
    context.load_verify_locations(str(net.trust.ca_file))
    context.set_session_id(b"test")
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    subjects: list[str] = []

    def look(server: Any, _line: str) -> None:
        connection = server.tls.getHandle()
        own = connection.get_peer_certificate(as_cryptography=True)
        above = connection.get_peer_cert_chain(as_cryptography=True)
        subjects.extend(each.subject.rfc4514_string() for each in (own, *above))

    server = net.server({"MAIL": (b"250 ok\r\n", look)}, context=context)
    net.send(server, trust=TLSTrust(net.trust.ca_file, **settings_of(files, kind))).get()
    assert subjects == ["CN=server", "CN=throw-away CA"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (("both.pem", None, "password"), "both.pem' cannot be used for TLS: its key has no passw"),
        (
            ("chain.pem", "encrypted.pem", None),
            "its key has a password; give the file with its password, client-key-password-file",
        ),
        (("chain.pem", "encrypted.pem", "wrong"), "encrypted.pem' cannot be used for TLS: it hol"),
        (("chain.pem", "encrypted.pem", "nil"), "nil' cannot be used for TLS: No such file"),
        (("chain.pem", "other.pem", None), "its key does not belong to the certificate"),
        (("chain.pem", "rubbish", None), "rubbish' cannot be used for TLS: it holds no usable PEM"),
        (("chain.pem", None, None), "chain.pem' cannot be used for TLS: it holds no usable PEM"),
        (("rubbish", None, None), "it holds no usable PEM or PKCS#12 data, or it has another pa"),
        (
            ("encrypted.p12", None, None),
            "or it has another password; check the file, and that with its password, client-key-pass",
        ),
        (("encrypted.p12", None, "wrong"), "or it has another password"),
        (("no-key.p12", None, None), "it holds no certificate with its key"),
        (("open.p12", "key.pem", None), "there is a key besides it, and it holds no PEM data"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_and_asks_nothing(
    files: Callable[[str], str], kind: tuple[str, str | None, str | None], words: str
) -> None:
    with pytest.raises(InvalidServer) as caught:
        TLSTrust(**settings_of(files, kind)).context()
    assert words in str(caught.value)
    assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize("argument", ["fingerprint", "public_key"])
def test_an_empty_list_of_pins_is_no_pin_left_out(argument: str) -> None:
    given: Any
    for given in ([], set(), ""):
        with pytest.raises(InvalidServer):
            TLSTrust(**{argument: given})


REFUSED_CLIENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "expired": (
        lambda: authority().server("client", ends=dt.timedelta(days=-1)),
        "certificate expired; the server does not accept the client certificate",
    ),
    "another CA": (
        lambda: Authority("other CA").server("client"),
        "unknown ca; the server does not accept the client certificate",
    ),
    "none": (lambda: None, "the server sent: "),
}


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("maximum", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("case", REFUSED_CLIENTS)
def test_a_server_that_refuses_the_clients_certificate_is_a_tls_error(
    net: Net, tmp_path: Path, case: str, maximum: int, implicit: bool
) -> None:
    """With TLS 1.3 its alert comes after the client's side of the handshake."""
    make, words = REFUSED_CLIENTS[case]
    made = make()
    file = None
    if made is not None:
        certificate, key = made
        file = tmp_path / "client.pem"
        _ = file.write_bytes(
            certificate.public_bytes(Encoding.PEM)
            + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    context = authority().context(NAME)
    context.load_verify_locations(str(net.trust.ca_file))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_max_proto_version(maximum)
    server = net.server(context=context, implicit=implicit)
    trust = TLSTrust(net.trust.ca_file, client_certificate=file)
    tls = TLSPolicy.IMPLICIT if implicit else TLSPolicy.STARTTLS
    error = net.send(server, trust=trust, tls=tls).error
    assert isinstance(error, TLSAlert)
    assert (error.phase, error.transient) == ("TLS", False)
    assert words in str(error)
    if made is None and maximum == SSL.TLS1_3_VERSION:
        assert "give a client certificate that the server accepts" in str(error)
    nothing_was_told(net)


def test_octets_that_cannot_be_decrypted_are_named(net: Net) -> None:
    """The connection is lost then: the handshake was good."""

    def tamper(server: Any, _line: str) -> None:
        server.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))

    error = net.send(net.server({"MAIL": tamper})).error
    assert isinstance(error, ConnectionClosed)
    assert "TLS: decryption failed or bad record mac" in str(error)
