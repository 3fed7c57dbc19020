"""One TLS session as a client: the judging of the server's certificate, and its facts.

``ServerJudge`` is the connection creator handed to ``startTLS``; one for each
connection.  What it rejects it can name.

RFC 9525 by service_identity; a certificate that has a common name only is refused.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from twisted_sendmail.client.judged_connection import JudgedConnection
from twisted_sendmail.client.tls_resumption import Kept, Resumption
from twisted_sendmail.smtp import (
    CertificateRejected,
    SendmailError,
    TLSAlert,
    TLSClosed,
    TLSFacts,
    TLSFailure,
    printable,
)

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol
    from twisted.python.failure import Failure

    from twisted_sendmail.client.tls_policy import TLSTrust

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_WHY = {
    7: "its signature is wrong: another CA of that name has issued it",
    9: "it is not valid yet; check the clock of this machine",
    10: "it has expired",
    18: "it is self-signed",
    19: "its chain ends in a self-signed certificate that is not trusted",
    20: "its issuer is not known",
    21: "its issuer is not known",
    23: "it is revoked",
    26: "it is not meant for servers",
}
_UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})


@implementer(IOpenSSLClientConnectionCreator)
class ServerJudge:
    """Creates the OpenSSL connection, and accepts one server only.

    :param trust: what proves the server.
    :param name: host name or IP address it must prove, unless a fingerprint is pinned.
    :param resumption: where the server's last session is kept; None for a full handshake.
    :param context: *trust*'s, where it was asked for already.
    """

    def __init__(
        self,
        trust: TLSTrust,
        name: str,
        resumption: Resumption | None = None,
        context: SSL.Context | None = None,
    ) -> None:
        self._trust = trust
        self._name = trust.name or name
        self._context = trust.context() if context is None else context
        self._is_address = _is_address(self._name)
        #: Why the certificate was rejected.
        self.rejection: CertificateRejected | None = None
        self._connection: SSL.Connection | None = None
        self._certificate: x509.Certificate | None = None
        self._resumption = resumption
        # The session that was offered, and what was found of the one there is.
        self._offered: Kept | None = None
        self._found: TLSFacts | None = None
        self._shown: TLSFacts | None = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        """See ``IOpenSSLClientConnectionCreator``."""
        connection = JudgedConnection(self._context, self._judge)
        connection.set_app_data(tlsProtocol)
        if not self._is_address:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        if self._resumption is not None:
            self._offered = self._resumption.offered(self._context)
        if self._offered is not None:
            connection.set_session(self._offered.session)
        self._connection = connection
        return connection

    def _judge(self, given: X509, error: int, depth: int, ok: int) -> bool:
        """Once or more for each certificate, the server's last."""
        try:
            if depth == 0:
                self._certificate = cert = _read(given)
            if self._trust.fingerprint is not None:
                return depth != 0 or self._pinned(cert)
            if not ok:
                whose = "the certificate" if depth == 0 else "a certificate above the server's"
                remedy = (
                    "give its CA file or the certificate's fingerprint"
                    if error in _UNKNOWN_ISSUER
                    else ""
                )
                self._reject(f"{whose}: {_WHY.get(error, f'OpenSSL verify error {error}')}", remedy)
                # No further than the server's own certificate, which comes last: it can be shown.
                return depth != 0
            return depth != 0 or (self.rejection is None and self._named(cert))
        except Exception as e:  # noqa: BLE001 - an exception must not pass through OpenSSL as a yes
            return self._reject(f"the certificate cannot be read: {e}")

    def _pinned(self, cert: x509.Certificate) -> bool:
        found = cert.fingerprint(hashes.SHA256()).hex()
        if found == self._trust.fingerprint:
            return True
        return self._reject(
            f"its SHA-256 is {found}, not the one pinned", "pin the new one if you trust the change"
        )

    def _named(self, cert: x509.Certificate) -> bool:
        if _bears(cert, self._name, address=self._is_address):
            return True
        names = ", ".join(names_of(cert)) or "no name"
        return self._reject(
            f"the certificate is for {printable(names, 200)}, not for {self._name}",
            "use the name the server is known by",
        )

    def _reject(self, why: str, remedy: str = "") -> bool:
        self.rejection = self.rejection or CertificateRejected(
            "TLS refused", phase="TLS", detail=printable(why), remedy=remedy
        )
        return False

    def facts(self) -> TLSFacts:
        """The facts of the session, once the handshake is complete.

        :raises CertificateRejected: if, against all expectation, nobody judged, or a
            resumed session is not that of a server that would be accepted now.
        """
        connection = self._connection
        if connection is None or self.rejection is not None:
            raise self.rejection or _unproven("there was no handshake")
        # OpenSSL asks for a judgement in every full handshake, and in no other.
        resumed = self._certificate is None
        if resumed:
            self._judge_again(connection)
        if self._certificate is None:
            raise _unproven("there is no certificate")
        pin = self._trust.fingerprint
        by = "fingerprint" if pin else "name"
        self._found = _facts(connection, self._certificate, by, pin or self._name, resumed=resumed)
        return self._found

    def _judge_again(self, connection: SSL.Connection) -> None:
        """Hold the certificate of a resumed session against the policy.

        :raises CertificateRejected: it does not fit; the session is forgotten.
        """
        offered, peer = self._offered, connection.get_peer_certificate()
        if offered is None or peer is None:
            self._forget()
            raise _unproven("nobody has judged its certificate")
        cert = _read(peer)
        pinned = self._trust.fingerprint is not None
        if _described(cert).fingerprint != offered.facts.fingerprint:
            _ = self._reject("the certificate of the resumed session is another one")
        elif not (pinned or cert.not_valid_after_utc > dt.datetime.now(dt.timezone.utc)):
            _ = self._reject(f"the certificate: {_WHY[10]}")
        elif self._pinned(cert) if pinned else self._named(cert):
            self._certificate = cert
            return
        self._forget()
        raise self.rejection or _unproven("it was not judged")

    def keep(self) -> None:
        """Keep the session for the next connection; its server was judged, and has answered.

        In TLS 1.3 the server gives it some time after the handshake, so call this late.
        """
        found, connection = self._found, self._connection
        if self._resumption is None or found is None or connection is None:
            return
        session = connection.get_session()
        if session is None:
            return
        # Resumed again and again, it gets no younger.
        since = self._offered.judged_at if found.resumed and self._offered else None
        self._resumption.keep(
            Kept(session, self._context, found, self._resumption.now if since is None else since)
        )

    def _forget(self) -> None:
        if self._resumption is not None and self._offered is not None:
            self._resumption.forget()

    def presented(self) -> TLSFacts | None:
        """What the server showed so far, accepted or not: to show, not to act on."""
        if self._found is not None:
            return replace(self._found, verified_by="none", identity=None)
        if self._connection is None or self._certificate is None:
            return self._shown
        return _facts(self._connection, self._certificate, "none", None)

    def release(self) -> None:
        """The connection is over: let go of OpenSSL's part of it, which holds on to us."""
        if self._found is None:
            with contextlib.suppress(ValueError):  # a certificate that cannot be read
                self._shown = self.presented()
        self._connection = None

    def failure(self, reason: Failure) -> SendmailError:
        """Why the handshake failed, from the reason the connection was lost with."""
        # Should the session we offered be the reason, the next handshake does without.
        self._forget()
        if self.rejection is not None:
            return self.rejection
        error = reason.value
        if (
            not isinstance(error, SSL.Error)
            or not error.args
            or not isinstance(error.args[0], list)
        ):
            return TLSClosed(
                "TLS handshake broken off", phase="TLS", detail="the server closed the connection"
            )
        words = "; ".join(str(entry[-1]) for entry in error.args[0] if entry) or "unexpected end"
        if "alert" in words:
            return TLSAlert(
                "TLS handshake refused", phase="TLS", detail=printable(f"the server says: {words}")
            )
        if any(
            sign in words
            for sign in ("wrong version number", "packet length", "http request", "record layer")
        ):
            return TLSFailure(
                "TLS handshake failed",
                phase="TLS",
                detail="the server answers in clear text",
                remedy="STARTTLS is usual on port 587, implicit TLS on port 465",
            )
        return TLSFailure("TLS handshake failed", phase="TLS", detail=printable(words))


def _unproven(why: str) -> CertificateRejected:
    return CertificateRejected("TLS refused", phase="TLS", detail=why)


def _facts(
    connection: SSL.Connection,
    cert: x509.Certificate,
    verified_by: str,
    identity: str | None,
    *,
    resumed: bool = False,
) -> TLSFacts:
    agreed = (
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        connection.get_cipher_bits() or 0,
    )
    return _composed(cert, agreed, verified_by, identity, resumed=resumed)


# What only depends on a certificate is found once: connections to the same server follow
# each other, and reading a certificate costs as much as resuming a session.


def _read(cert: X509) -> x509.Certificate:
    return _parsed(dump_certificate(FILETYPE_ASN1, cert))


@lru_cache(maxsize=64)
def _parsed(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


@lru_cache(maxsize=64)
def _is_address(name: str) -> bool:
    try:
        _ = ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=64)
def _composed(
    cert: x509.Certificate,
    agreed: tuple[str, str, int],
    verified_by: str,
    identity: str | None,
    *,
    resumed: bool,
) -> TLSFacts:
    return replace(
        _described(cert),
        version=agreed[0],
        cipher=agreed[1],
        cipher_bits=agreed[2],
        verified_by=verified_by,
        identity=identity,
        resumed=resumed,
    )


@lru_cache(maxsize=64)
def _bears(cert: x509.Certificate, name: str, *, address: bool) -> bool:
    """Is *cert* for *name*?"""
    try:
        (verify_certificate_ip_address if address else verify_certificate_hostname)(cert, name)
    except (VerificationError, CertificateError):
        return False
    return True


@lru_cache(maxsize=64)
def _described(cert: x509.Certificate) -> TLSFacts:
    return TLSFacts(
        version="",
        cipher="",
        cipher_bits=0,
        verified_by="none",
        identity=None,
        subject=cert.subject.rfc4514_string(),
        issuer=cert.issuer.rfc4514_string(),
        names=names_of(cert),
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        fingerprint=cert.fingerprint(hashes.SHA256()).hex(),
    )


def names_of(cert: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses a certificate is for."""
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    )
