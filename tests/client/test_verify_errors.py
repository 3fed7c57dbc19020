"""The reasons for which a certificate is rejected, in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.client.certificates import NAME, authority, context_of
from tests.client.conftest import Net
from twisted_sendmail import CertificateRejected
from twisted_sendmail.client.verify_errors import words_for

NOW = dt.datetime.now(dt.timezone.utc)
DAY = dt.timedelta(days=1)
PURPOSE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


def certificate(
    *extensions: tuple[x509.ExtensionType, bool],
    begins: dt.datetime = NOW - 2 * DAY,
    ends: dt.datetime = NOW + DAY,
) -> Any:
    """A context with a certificate of the CA that is trusted."""
    key, ca = ec.generate_private_key(ec.SECP256R1()), authority()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=True)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return context_of(builder.sign(ca.key, hashes.SHA256()), key)


def on(date: dt.datetime) -> str:
    return f"on {date:%Y-%m-%d %H:%M} UTC"


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "expired": (
        lambda: certificate(ends=NOW - DAY),
        f"the certificate: it has expired, {on(NOW - DAY)}",
    ),
    "future": (
        lambda: certificate(begins=NOW + DAY / 2),
        f"it begins {on(NOW + DAY / 2)}; check the clock of this machine",
    ),
    "purpose": (lambda: certificate((PURPOSE, False)), "it is not meant for servers"),
    "critical": (
        lambda: certificate(
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True)
        ),
        "it has a critical extension that OpenSSL does not support",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_certificate_is_rejected_in_words_with_the_date_where_it_is_one(
    net: Net, case: str
) -> None:
    context, why = CASES[case]
    error = net.send(net.server(context=context())).error
    assert isinstance(error, CertificateRejected)
    assert why in str(error)


@pytest.mark.parametrize("code", [*range(1, 101), 102, 103])
def test_every_code_of_openssl_has_words(code: int) -> None:
    """No server causes most of them."""
    words = words_for(code, NOW, NOW)
    assert "verify error" not in words
    assert len(words.split()) >= 3


def test_a_code_of_a_later_openssl_is_named() -> None:
    assert words_for(999, NOW, NOW) == "OpenSSL rejects it with the verify error 999"


def test_a_certificate_that_is_right_is_accepted(net: Net) -> None:
    net.send(net.server(context=certificate())).get()
