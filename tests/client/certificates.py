"""A temporary CA, and certificates of every kind."""

from __future__ import annotations

import datetime as dt
import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

if TYPE_CHECKING:
    from pathlib import Path

NAME = "mx.example.net"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A CA with an EC key: its certificates cost a millisecond."""

    def __init__(self, name: str = "throw-away CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - dt.timedelta(days=1))
            .not_valid_after(_now() + dt.timedelta(days=10))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def write(self, path: Path) -> Path:
        """Write the certificate as PEM, for ``TLSTrust(ca_file=...)``."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def server(
        self,
        *names: str,
        common_name: str = "server",
        ends: dt.timedelta = dt.timedelta(days=5),
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Return a certificate for *names* (none: a common name only) and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = _now() + ends
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(_now(), end) - dt.timedelta(hours=1))
            .not_valid_after(end)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256()), key

    def context(self, *names: str, common_name: str = "server", ends: int = 5) -> SSL.Context:
        """Return a server's OpenSSL context; *ends* in days, negative for expired."""
        certificate, key = self.server(
            *names, common_name=common_name, ends=dt.timedelta(days=ends)
        )
        return context_of(certificate, key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def context_of(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return context


@lru_cache(maxsize=1)
def authority() -> Authority:
    """Return the CA of this test run."""
    return Authority()


@lru_cache(maxsize=1)
def good_context() -> SSL.Context:
    """Return the context of a server that is ``NAME``."""
    return authority().context(NAME)
