"""What is known of a TLS session: facts to report, nothing to act on.

A value.  ``client.tls_policy`` and ``ingress`` fill it in from a live connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class TLSFacts:
    """One TLS session, seen from our end."""

    #: Such as ``TLSv1.3``.
    version: str
    #: Such as ``TLS_AES_256_GCM_SHA384``.
    cipher: str
    #: Strength of the cipher.
    cipher_bits: int
    #: How the peer was identified: ``name``, ``fingerprint``, or ``none`` when it was not.
    verified_by: str
    #: The name or fingerprint that was held against the certificate; None if neither was.
    identity: str | None
    #: RFC 4514 form; None when the peer showed no certificate.
    subject: str | None = None
    issuer: str | None = None
    #: dNSName and iPAddress entries of the subjectAltName.
    names: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None
    #: SHA-256 of the certificate, lower-case hexadecimal.
    fingerprint: str | None = None
    #: The session was resumed: no full handshake took place.
    resumed: bool = False

    def __str__(self) -> str:
        who = f"{self.identity} by {self.verified_by}" if self.identity else "peer not verified"
        return f"{self.version} {self.cipher}, {who}"
