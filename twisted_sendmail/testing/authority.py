"""A certificate authority for tests, and the certificates it signs.

It is made in memory and valid for a day, or kept in a file for ten years; only clients that are given :attr:`Authority.pem` trust it.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twisted_sendmail.secret_file import check_secret_file
from twisted_sendmail.smtp import InvalidServer, check_type

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DAY = timedelta(days=1)
_TEN_YEARS = timedelta(days=3652)


_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A new authority with a key of its own.

    :param name: the common name of its certificate.
    :param valid: from now on.
    """

    def __init__(
        self, name: str = "twisted_sendmail throw-away CA", *, valid: timedelta = _DAY
    ) -> None:
        check_type("name", name, str, "text")
        check_type("valid", valid, timedelta, "a timedelta")
        now = datetime.now(timezone.utc)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + valid)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_KEY_USAGE, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    @classmethod
    def kept(cls, path: Path) -> Authority:
        """Return the authority in the file at *path*, which is made if it does not exist.

        The file holds certificate and key; only its owner may read it.

        :raises OSError: the file cannot be read, or made.
        :raises InvalidServer: the file holds no authority, or others may read it.
        """
        try:
            check_secret_file(path)
            pem = path.read_bytes()
        except FileNotFoundError:
            authority = cls("twisted_sendmail development CA", valid=_TEN_YEARS)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(authority.pem + authority._key_pem())
            return authority
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            key = serialization.load_pem_private_key(pem, None)
        except ValueError:
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidServer(
                f"{path} holds no authority", remedy="remove the file: the next start makes one"
            )
        authority = cls()
        authority._use(key, certificate)
        return authority

    def _key_pem(self) -> bytes:
        return _pem(self._key)

    def _use(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self._certificate, self._name = key, certificate, certificate.subject

    @property
    def pem(self) -> bytes:
        """Its certificate, for clients to trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        names: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        common_name: str | None = None,
    ) -> bytes:
        """Return a new server certificate and its key as one PEM text.

        :param names: host names and IP addresses of the subjectAltName; may be empty.
        :param not_before: a day ago unless given.
        :param not_after: a day from now unless given.
        :param common_name: of the subject; the first name unless given.
        """
        now = datetime.now(timezone.utc)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name or (names[0] if names else "nobody")))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - _DAY)
            .not_valid_after(not_after or now + _DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM) + _pem(key)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
