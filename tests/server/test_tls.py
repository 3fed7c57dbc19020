"""The certificate is read, refused with one line, or replaced while connections are open."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.server.conftest import Net
from twisted_sendmail import InvalidServer, ServerTLS
from twisted_sendmail.testing import Authority


def common_name(net: Net) -> str:
    client = net.client(implicit=True)
    assert client.link is not None
    certificate = client.link.client.getPeerCertificate().to_cryptography()
    assert isinstance(certificate, x509.Certificate)
    return certificate.subject.rfc4514_string()


def test_a_new_certificate_is_shown_after_reload_and_old_connections_live(
    net: Net, tmp_path: Path
) -> None:
    path = tmp_path / "server.pem"
    authority = Authority()
    path.write_bytes(authority.issue(["old.example.org"]))
    certificate = ServerTLS(path)
    net.server(tls=certificate)
    assert common_name(net) == "CN=old.example.org"
    old = net.client(implicit=True)
    path.write_bytes(authority.issue(["new.example.org"]))
    assert common_name(net) == "CN=old.example.org"
    certificate.reload()
    assert common_name(net) == "CN=new.example.org"
    assert old.code("NOOP") == "250 2.0.0"


def test_a_bad_reload_keeps_the_old_one(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    path.write_bytes(Authority().issue(["old.example.org"]))
    certificate = ServerTLS(path)
    net.server(tls=certificate)
    path.write_text("nonsense")
    with pytest.raises(InvalidServer):
        certificate.reload()
    assert common_name(net) == "CN=old.example.org"


def test_a_key_with_a_password_is_refused_and_asks_nobody(tmp_path: Path) -> None:
    """OpenSSL would ask on the terminal, and the start of a relay would wait."""
    issued = Authority().issue()
    key = load_pem_private_key(issued, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cret")
    )
    (tmp_path / "certificate.pem").write_bytes(issued)
    (tmp_path / "key.pem").write_bytes(key)
    with pytest.raises(InvalidServer, match=r"the key in .*key\.pem has a password; give a file"):
        ServerTLS(tmp_path / "certificate.pem", tmp_path / "key.pem")


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    one, other = Authority().issue(), Authority().issue()
    key = other[other.index(b"-----BEGIN PRIVATE KEY") :]
    (tmp_path / "certificate.pem").write_bytes(one)
    (tmp_path / "key.pem").write_bytes(key)
    for certificate, key_path in (
        ("certificate.pem", "key.pem"),
        ("key.pem", "key.pem"),
        ("certificate.pem", "nothing.pem"),
    ):
        with pytest.raises(InvalidServer) as caught:
            ServerTLS(tmp_path / certificate, tmp_path / key_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidServer, match=r"nothing\.pem cannot be read"):
        ServerTLS(tmp_path / "nothing.pem")
