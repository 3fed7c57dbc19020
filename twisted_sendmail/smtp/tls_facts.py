"""The facts about a TLS session, for reports; client and server fill them in from a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class TLSFacts:
    """One TLS session, seen from this end."""

    #: Such as ``TLSv1.3``.
    version: str
    #: Such as ``TLS_AES_256_GCM_SHA384``.
    cipher: str
    #: Strength of the cipher.
    cipher_bits: int
    #: How the peer was identified: ``name``, ``fingerprint``, ``public-key``, ``dane-ee``, ``dane-ta``, or ``none``.
    verified_by: str
    #: The name or pin that the certificate was compared with, or None; with ``dane-ee`` the host that the TLSA
    #: records belong to.
    identity: str | None
    #: In the form of RFC 4514; None if the peer sent no certificate.
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
    #: SHA-256 of the certificate's public key (SubjectPublicKeyInfo), lower-case hexadecimal.
    public_key: str | None = None
    #: Key exchange, such as ``x25519``; None if it is not known.
    group: str | None = None
    #: Subjects of the certificates above the server's, in the form of RFC 4514: the chain that was
    #: verified, or, with a pin, the one that the server sent.
    chain: tuple[str, ...] = ()
    #: Type of the channel binding (RFC 5056): ``tls-exporter`` or ``tls-server-end-point``; None if
    #: there is none.
    channel_binding: str | None = None
    #: The TLSA record that the server matches (DANE), such as ``3 1 1 5fa1…``.
    tlsa: str | None = None

    def __str__(self) -> str:
        who = f"{self.identity} by {self.verified_by}" if self.identity else "peer not verified"
        return f"{self.version} {self.cipher}, {who}"
