"""The server's TLS: a certificate that can be replaced while connections are open.

Certificates of clients are accepted from any issuer: they prove that the client has a key, and
the accounts decide whose it is.

Each new connection gets the certificate loaded last; open ones keep theirs.  Versions below TLS 1.2
are off (RFC 8996), ciphers are Twisted's choice.  RFC 8314 section 4.1.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from zope.interface import implementer

from twisted_sendmail.channel_binding import binding_data, key_exchange_group, usual_binding
from twisted_sendmail.secret_file import why_unreadable
from twisted_sendmail.smtp import (
    InvalidServer,
    TLSFacts,
    check_flag,
    check_path,
)

if TYPE_CHECKING:
    from os import PathLike

    from OpenSSL.crypto import X509
    from twisted.protocols.tls import TLSMemoryBIOProtocol

#: Octets of a file with a key and certificates.
_MAX_KEY = 1024 * 1024
# PKCS#8, and the older formats of OpenSSL.
_ENCRYPTED = re.compile(
    rb"^(?:-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED)", re.MULTILINE
)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """A certificate with its chain, and its key.

    :param certificate: a PEM file: the certificate first, then its chain.
    :param key: a PEM file with the key; None when it is in the same file.
    :param ask_certificate: ask clients for a certificate; EXTERNAL needs it.
    :raises InvalidServer: they cannot be read, or do not belong together.
    """

    def __init__(
        self,
        certificate: str | PathLike[str],
        key: str | PathLike[str] | None = None,
        *,
        ask_certificate: bool = False,
    ) -> None:
        check_path("the certificate", certificate)
        if key is not None:
            check_path("the key", key)
        check_flag("ask_certificate", ask_certificate)
        self._ask_certificate = ask_certificate
        self._certificate = Path(certificate)
        self._key = Path(key) if key is not None else self._certificate
        self._context = self._load()

    def reload(self) -> None:
        """Read both files again; when they cannot be used, the old ones stay.

        :raises InvalidServer: as the constructor.
        """
        self._context = self._load()

    def _load(self) -> SSL.Context:
        _ = _read(self._certificate)
        msg = f"certificate {self._certificate} cannot be used"
        if _ENCRYPTED.search(_read(self._key)):
            # OpenSSL would ask for the password on the terminal.
            raise InvalidServer(
                msg,
                detail=f"the key in {self._key} has a password",
                remedy="give a file with the key without a password, that only its owner may read",
            )
        context: SSL.Context = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2).getContext()
        try:
            context.use_certificate_chain_file(str(self._certificate))
            context.use_privatekey_file(str(self._key))
            context.check_privatekey()
        except SSL.Error:
            raise InvalidServer(
                msg,
                detail=f"the file has no PEM certificate, or {self._key} has no matching key",
                remedy="give a PEM file with the certificate and its chain, and one with its key",
            ) from None
        if self._ask_certificate:
            context.set_verify(SSL.VERIFY_PEER, _accept)
        return context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803 - Twisted's name
        """Return a connection with the certificate loaded last."""
        return SSL.Connection(self._context, None)


def _accept(connection: SSL.Connection, cert: X509, error: int, depth: int, ok: int) -> bool:
    """Accept a client's certificate: the accounts compare its fingerprint."""
    return True


def _read(path: Path) -> bytes:
    """Return the first octets of a file; raise a clear error, because OpenSSL gives no reason."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY)
    except OSError as e:
        why, remedy = why_unreadable(path, e)
        raise InvalidServer(why, remedy=remedy) from None


def server_tls_facts(transport: Any) -> TLSFacts:
    """Return the facts about the TLS session of *transport*, after its handshake."""
    connection = transport.getHandle()
    binding = usual_binding(connection)
    data = binding_data(binding, connection, connection.get_certificate())
    facts = TLSFacts(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        cipher_bits=connection.get_cipher_bits() or 0,
        verified_by="none",
        identity=None,
        group=key_exchange_group(connection),
        channel_binding=None if data is None else binding,
    )
    peer = connection.get_peer_certificate()
    if peer is None:
        return facts
    der = dump_certificate(FILETYPE_ASN1, peer)
    return replace(facts, fingerprint=hashlib.sha256(der).hexdigest())


def server_binding(transport: Any, kind: str) -> bytes | None:
    """Return the data of one type of channel binding of the TLS session of *transport*.

    :returns: None if the type is not known, or does not exist for this session.
    """
    connection = transport.getHandle()
    return binding_data(kind, connection, connection.get_certificate())
