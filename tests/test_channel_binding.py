"""The data of a channel binding, for real TLS connections and certificates."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from hashlib import sha256, sha384
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, load_certificate

from twisted_sendmail.channel_binding import TLS_EXPORTER, TLS_SERVER_END_POINT, binding_data

# The names of RSA with these hashes (RFC 4055): no library signs with SHA-1 any more.
_SHA1, _SHA256, _SHA384 = (
    bytes.fromhex("06092a864886f70d0101") + end for end in (b"\x05", b"\x0b", b"\x0c")
)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])


def certificate(key: Any, algorithm: Any) -> x509.Certificate:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, algorithm)
    )


def connected(version: int) -> tuple[SSL.Connection, SSL.Connection]:
    """A client and a server after their handshake, in memory."""
    key = ec.generate_private_key(ec.SECP256R1())
    contexts = [SSL.Context(SSL.TLS_METHOD), SSL.Context(SSL.TLS_METHOD)]
    contexts[1].use_certificate(certificate(key, hashes.SHA256()))
    contexts[1].use_privatekey(key)
    for context in contexts:
        context.set_max_proto_version(version)
    ends = [SSL.Connection(context, None) for context in contexts]
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    for _ in range(4):
        for end, other in (ends, ends[::-1]):
            with suppress(SSL.WantReadError):
                end.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
    return ends[0], ends[1]


def test_keys_are_exported_at_both_ends_of_tls_1_3() -> None:
    client, server = connected(SSL.TLS1_3_VERSION)
    data = binding_data(TLS_EXPORTER, client, None)
    assert data is not None
    assert (len(data), data) == (32, binding_data(TLS_EXPORTER, server, None))


def test_tls_1_2_exports_none() -> None:
    """Two connections with one master secret would export the same (RFC 9266 section 4.2)."""
    client, _ = connected(SSL.TLS1_2_VERSION)
    assert client.get_protocol_version_name() == "TLSv1.2"
    assert binding_data(TLS_EXPORTER, client, None) is None


@pytest.mark.parametrize(
    ("algorithm", "hashed_by"),
    [(_SHA1, sha256), (_SHA256, sha256), (_SHA384, sha384)],
    ids=["SHA-1", "SHA-256", "SHA-384"],
)
def test_a_certificate_is_hashed_as_its_signature_but_never_by_a_weak_hash(
    algorithm: bytes, hashed_by: Any
) -> None:
    """RFC 5929 section 4.1."""
    made = certificate(rsa.generate_private_key(65537, 2048), hashes.SHA256())
    der = made.public_bytes(Encoding.DER).replace(_SHA256, algorithm)
    client, _ = connected(SSL.TLS1_3_VERSION)
    server = X509.from_cryptography(x509.load_der_x509_certificate(der))
    assert binding_data(TLS_SERVER_END_POINT, client, server) == hashed_by(der).digest()


def test_a_signature_without_a_hash_binds_nothing() -> None:
    made = certificate(ed25519.Ed25519PrivateKey.generate(), None)
    client, _ = connected(SSL.TLS1_3_VERSION)
    assert binding_data(TLS_SERVER_END_POINT, client, X509.from_cryptography(made)) is None


def test_a_certificate_with_an_unknown_signature_has_no_end_point() -> None:
    """RFC 5929 section 4.1 leaves it undefined; a pinned server may have one."""
    client, _ = connected(SSL.TLS1_2_VERSION)
    known = certificate(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    # ecdsa-with-SHA256, and a number that is not assigned.
    octets = known.public_bytes(Encoding.DER).replace(
        bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040309")
    )
    server = load_certificate(FILETYPE_ASN1, octets)
    assert binding_data(TLS_SERVER_END_POINT, client, server) is None
