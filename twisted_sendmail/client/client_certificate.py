"""The client's own certificate and key, from PEM files or a PKCS#12 file.

OpenSSL's own functions would prompt for the password of an encrypted key on the terminal.

RFC 7292 (PKCS#12), RFC 7468 (PEM).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from OpenSSL import SSL

from twisted_sendmail.smtp import InvalidServer

if TYPE_CHECKING:
    from collections.abc import Iterable


# Options, keys and parameters have this name.
_PASSWORD_FILE = "client-key-password-file"  # noqa: S105 - a name


def use_client_certificate(
    context: SSL.Context, certificate: str, key: str | None, password_file: str | None
) -> None:
    """Let *context* send a certificate to servers that ask for it.

    :param certificate: PEM file of the certificate and its chain, with the key unless it is separate;
        or a PKCS#12 file, which holds all of them.
    :param key: PEM file of the key; None: it is in *certificate*.
    :param password_file: holds the password of the key, in its only line; None: there is no password.
    :raises InvalidServer: a file cannot be read or used, or the key is of another certificate.
    """
    password = None if password_file is None else _read(password_file).rstrip(b"\r\n")
    data = _read(certificate)
    key_file = key or certificate
    try:
        if b"-----BEGIN" in data:
            own, *chain = x509.load_pem_x509_certificates(data)
            private = load_pem_private_key(_read(key_file), password)
        elif key is not None:
            raise unusable(certificate, "there is a key besides it, and it holds no PEM data")
        else:
            bundle = pkcs12.load_pkcs12(data, password)
            if bundle.key is None or bundle.cert is None:
                raise unusable(certificate, "it holds no certificate with its key")
            own, private = bundle.cert.certificate, bundle.key
            chain = _chain_of(own, [each.certificate for each in bundle.additional_certs])
        context.use_certificate(own)
        for each in chain:
            context.add_extra_chain_cert(each)
        context.use_privatekey(private)  # type: ignore[arg-type]  # OpenSSL refuses other kinds
        context.check_privatekey()
    except InvalidServer:
        raise
    except SSL.Error:
        raise unusable(key_file, "its key does not belong to the certificate") from None
    except TypeError:
        # cryptography's sign of a password that is missing, or not needed.
        why = "its key has a password" if password is None else "its key has no password"
        raise unusable(
            key_file,
            why,
            remedy=f"give the file with its password, {_PASSWORD_FILE}"
            if password is None
            else f"leave {_PASSWORD_FILE} out",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        why, remedy = "it holds no usable PEM or PKCS#12 data", ""
        if password is not None or b"-----BEGIN" not in data:
            why += ", or it has another password"
            remedy = f"check the file, and that with its password, {_PASSWORD_FILE}"
        raise unusable(key_file, why, remedy) from None


def _chain_of(own: x509.Certificate, others: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificates above *own* in the order in which TLS sends them."""
    left, chain, last = list(others), list[x509.Certificate](), own
    while issuer := next((each for each in left if each.subject == last.issuer), None):
        left.remove(issuer)
        chain.append(issuer)
        last = issuer
    return chain


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise unusable(path, e.strerror or type(e).__name__) from None


def unusable(path: str, why: str, remedy: str = "") -> InvalidServer:
    """Return the error for a file that TLS cannot use."""
    return InvalidServer(f"file '{path}' cannot be used for TLS", detail=why, remedy=remedy)
