"""Channel binding: data that both ends of one TLS connection have, and nobody between them.

RFC 5056; RFC 9266 (``tls-exporter``), RFC 5929 section 4 (``tls-server-end-point``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate

if TYPE_CHECKING:
    from OpenSSL import SSL
    from OpenSSL.crypto import X509

TLS_EXPORTER = "tls-exporter"
TLS_SERVER_END_POINT = "tls-server-end-point"

# Exported keys of TLS 1.2 are bound to the connection only with an extension whose use OpenSSL's
# public interface does not show (RFC 9266 section 4.2).
_EXPORTING = "TLSv1.3"
_LABEL = b"EXPORTER-Channel-Binding"
_LENGTH = 32


def usual_binding(connection: SSL.Connection) -> str:
    """Return the type of channel binding that is usual for the TLS version of *connection*."""
    exports = connection.get_protocol_version_name() == _EXPORTING
    return TLS_EXPORTER if exports else TLS_SERVER_END_POINT


def binding_data(kind: str, connection: SSL.Connection, server: X509 | None) -> bytes | None:
    """Return the data of one type of channel binding, after the handshake.

    :param kind: the name of the type, as registered with IANA.
    :param server: the certificate of the server.
    :returns: None if the type is not known, or does not exist for this connection.
    """
    if kind == TLS_EXPORTER and usual_binding(connection) == kind:
        return connection.export_keying_material(_LABEL, _LENGTH)
    if kind == TLS_SERVER_END_POINT and server is not None:
        return _end_point(dump_certificate(FILETYPE_ASN1, server))
    return None


def key_exchange_group(connection: SSL.Connection) -> str | None:
    """Return the group of the key exchange, such as ``x25519``; None if it is not known."""
    # Older versions of pyOpenSSL do not have the function.
    get_group_name = getattr(connection, "get_group_name", None)
    return None if get_group_name is None else get_group_name()


@lru_cache(maxsize=64)
def _end_point(der: bytes) -> bytes | None:
    """Hash a certificate by the hash of its signature; None if it has none (Ed25519), or is not known."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)
