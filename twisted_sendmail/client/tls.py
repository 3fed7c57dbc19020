"""TLS as a client: when it begins, which certificates are trusted, verification of the server, sessions.

The certificate is verified inside the handshake: a server that is not the one asked for receives an
alert and nothing else.  Verification cannot be switched off; a server without a certificate of a
public CA is trusted by its own CA, by a pinned certificate or public key, or by DANE.  A connection on
which the application has begun TLS is used if its TLS context verified the server.

RFC 3207, RFC 8314, RFC 9525 (names in certificates, by service_identity; a common name alone does
not count).
"""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import os
import re
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    extract_patterns,
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from service_identity.hazmat import SRV_ID, verify_service_identity
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from twisted_sendmail.channel_binding import (
    TLS_SERVER_END_POINT,
    binding_data,
    key_exchange_group,
    usual_binding,
)
from twisted_sendmail.client.client_certificate import unusable, use_client_certificate
from twisted_sendmail.client.dane import DANE_TA, Mismatch, TLSARecords, public_key_octets
from twisted_sendmail.client.verify_errors import EXPIRED, UNKNOWN_ISSUER, words_for
from twisted_sendmail.sasl import ChannelBinding
from twisted_sendmail.smtp import (
    CertificateRejected,
    InvalidServer,
    SendmailError,
    TLSAlert,
    TLSClosed,
    TLSFacts,
    TLSFailure,
    check_flag,
    check_type,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from twisted.internet.interfaces import IReactorTime
    from twisted.protocols.tls import TLSMemoryBIOProtocol
    from twisted.python.failure import Failure

#: TLS handshakes at once with one server.  Each needs memory, and only a handshake that begins after
#: another has ended can resume its session.
MAX_HANDSHAKES = 32
#: Seconds that a connection waits for its handshake; then the handshake begins all the same, so that
#: handshakes that hang do not stop others.
MAX_HANDSHAKE_WAIT = 5.0
#: Seconds after the full handshake for which a session is resumed.
MAX_SESSION_AGE = 3600.0
#: Servers whose session is kept.
MAX_SESSIONS = 64


class TLSPolicy(enum.Enum):
    """When TLS begins, and whether a session may do without."""

    #: TLS begins with the first octet (RFC 8314), usually on port 465.
    IMPLICIT = "implicit"
    #: TLS begins after STARTTLS (RFC 3207), usually on port 587; without it nothing is sent.
    STARTTLS = "starttls"
    #: TLS begins after STARTTLS if the server offers it, else mail goes in clear; no credentials.
    OPPORTUNISTIC = "opportunistic"
    #: Mail goes in clear; no credentials.
    NONE = "none"

    @property
    def required(self) -> bool:
        """True if mail is sent inside TLS only."""
        return self in {TLSPolicy.IMPLICIT, TLSPolicy.STARTTLS}


def _pins(given: str | Iterable[str] | None, what: str, of: str) -> tuple[str, ...]:
    remedy = f"give the SHA-256 of the {of} as 64 hexadecimal digits, or in base64"
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Iterable):
        texts = [texts]
    found = []
    for text in texts:
        check_type(what, text, str, remedy.removeprefix("give "))
        plain = re.sub(r"^sha-?256(//|[:=])", "", text.strip(), flags=re.IGNORECASE)
        digest = re.sub(r"[:\s-]", "", plain).lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            try:
                digest = b64decode(plain, validate=True).hex()
            except ValueError:
                digest = ""
        if len(digest) != 64:
            raise InvalidServer(f"the {what} cannot be used", remedy=remedy)
        found.append(digest)
    # Only the default, an empty tuple, means that nothing is pinned.
    if not found and not isinstance(given, tuple):
        raise InvalidServer(f"there is no {what} in the list", remedy=f"{remedy}, or leave it out")
    return tuple(found)


def _fingerprints(given: str | Iterable[str] | None) -> tuple[str, ...]:
    return _pins(given, "certificate fingerprint", "certificate")


def _public_keys(given: str | Iterable[str] | None) -> tuple[str, ...]:
    return _pins(given, "public key", "server's public key")


#: Values of ``TLSTrust.minimum_version``.
_VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
_PATHS = {
    "ca_file": "a PEM file",
    "ca_directory": "a directory",
    "client_certificate": "a PEM or PKCS#12 file",
    "client_key": "a PEM file",
    "client_key_password_file": "a file",
}
#: Alerts that refuse a certificate (RFC 8446 section 6.2).
_ABOUT_THE_CERTIFICATE = ("certificate", "unknown ca", "access denied")
#: A file in a CA directory, named by the hash of its subject.
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


@frozen(cache_hash=True)
class TLSTrust:
    """The ways in which a server proves its identity.

    :param ca_file: PEM file of the CAs to trust instead of the system's.
    :param fingerprint: SHA-256 of the server's certificate, hexadecimal, with or without
        colons, or in base64; or several, of which one has to match.  A pin alone decides: CA, name
        and dates are not checked.
    :param name: the name in the certificate, when it is not the host's.
    :param other_names: names that count as well; one that begins with ``_`` is a service of a domain
        (SRV-ID, RFC 4985), such as ``_submissions.example.org``.
    :param client_certificate: PEM file with our certificate chain (and key, unless separate), or a
        PKCS#12 file.
    :param client_key: PEM file of its key.
    :param public_key: SHA-256 of the server's public key (SubjectPublicKeyInfo), or several; as a
        *fingerprint*, but it stays the same when the certificate is renewed with the same key.  With
        both, one match is enough.
    :param ca_directory: directory of CAs to trust instead of the system's, named by ``openssl rehash``;
        besides *ca_file*, if that is given.
    :param minimum_version: ``TLSv1.2`` or ``TLSv1.3``; there is nothing older (RFC 8996).
    :param client_key_password_file: holds the password of the key, in its only line.
    :param dane: the TLSA records of the server decide, and no CA that is trusted otherwise
        (RFC 7672); the ``resolver`` of the :class:`~twisted_sendmail.SubmissionServer` looks them up.
        *name* is then the host that the records belong to.
    :raises InvalidInput: an argument cannot be used, or a pin is combined with CAs or a name, or DANE
        with CAs or a pin.
    """

    ca_file: str | os.PathLike[str] | None = None
    fingerprint: tuple[str, ...] = field(default=(), converter=_fingerprints)
    name: str | None = None
    client_certificate: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None
    public_key: tuple[str, ...] = field(default=(), converter=_public_keys, kw_only=True)
    ca_directory: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    minimum_version: str = field(default="TLSv1.2", kw_only=True)
    client_key_password_file: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    other_names: tuple[str, ...] = field(default=(), kw_only=True)
    dane: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for name, kind in _PATHS.items():
            path = getattr(self, name)
            if path is not None:
                check_type(name, path, (str, os.PathLike), f"the path of {kind}, or None")
        if self.name is not None:
            check_type("name", self.name, str, "the name in the server's certificate, or None")
        if not isinstance(self.other_names, tuple) or not all(
            isinstance(name, str) for name in self.other_names
        ):
            raise InvalidServer("other_names cannot be used", remedy="give a tuple of names")
        if self.pinned and any((self.ca_file, self.ca_directory, self.name)):
            raise InvalidServer(
                "a pinned certificate or public key goes alone",
                remedy="leave out the CAs and the name, or the pin",
            )
        check_flag("dane", self.dane)
        if self.dane and (self.pinned or self.ca_file or self.ca_directory):
            raise InvalidServer(
                "DANE goes alone", remedy="leave out the CAs, and the pin, or leave out DANE"
            )
        if self.minimum_version not in list(_VERSIONS):
            raise InvalidServer(
                f"minimum_version cannot be {printable(repr(self.minimum_version), 80)}",
                remedy="give 'TLSv1.2' or 'TLSv1.3'",
            )
        if self.client_certificate is None and (self.client_key or self.client_key_password_file):
            raise InvalidServer(
                "there is no client certificate for the key", remedy="give client_certificate"
            )

    @property
    def pinned(self) -> bool:
        """True if a pinned certificate or public key decides, and CA, name and dates do not count."""
        return bool(self.fingerprint or self.public_key)

    def context(self) -> SSL.Context:
        """Return a context with these CAs and keys, for TLS of the minimum version or later.

        The same context is returned until one of the files changes.

        :raises InvalidServer: a file cannot be read or used.
        """
        return _context(
            _VERSIONS[self.minimum_version],
            _identity(self.ca_file),
            _identity(self.ca_directory),
            certificate=_identity(self.client_certificate),
            key=_identity(self.client_key),
            password=_identity(self.client_key_password_file),
            with_cas=not self.dane,
        )

    def verifier(
        self,
        name: str,
        key: SessionKey | None = None,
        context: SSL.Context | None = None,
        tlsa: TLSARecords | None = None,
    ) -> ServerVerifier:
        """Return the verifier of one connection; the parameters are those of :class:`ServerVerifier`."""
        return ServerVerifier(self, name, key, context, tlsa)


#: Path, time of change and size of a file.
_File = tuple[str, int, int]


def _identity(path: str | os.PathLike[str] | None) -> _File | None:
    """Identify a file, so that a file that was replaced is read again."""
    if path is None:
        return None
    try:
        stat = os.stat(path)  # noqa: PTH116 - done for each connection, and a Path costs more
    except OSError as e:
        raise unusable(str(path), e.strerror or type(e).__name__) from None
    return os.fspath(path), stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _context(
    minimum: int,
    ca_file: _File | None,
    ca_directory: _File | None,
    *,
    certificate: _File | None,
    key: _File | None,
    password: _File | None,
    with_cas: bool,
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(minimum)
    # SSL_MODE_RELEASE_BUFFERS saves 34 KB on each idle connection.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if ca_directory is not None:
        _check_directory(ca_directory[0])
        context.load_verify_locations(None, ca_directory[0])
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file[0])
        except SSL.Error:
            raise unusable(ca_file[0], "it holds no usable PEM data") from None
    elif ca_directory is None and with_cas:
        context.set_default_verify_paths()
    if certificate is not None:
        use_client_certificate(
            context, certificate[0], key and key[0], password_file=password and password[0]
        )
    context.set_verify(SSL.VERIFY_PEER, _verify)
    return context


def _check_directory(path: str) -> None:
    """Raise an error for a directory in which OpenSSL would find nothing, without a word."""
    try:
        names = [each.name for each in Path(path).iterdir()]
    except OSError as e:
        raise unusable(path, e.strerror or type(e).__name__) from None
    if not any(map(_HASHED.fullmatch, names)):
        raise unusable(
            path,
            "no file in it has the name that OpenSSL looks for, such as 9d66eef0.0",
            remedy=f"openssl rehash {path}",
        )


class VerifiedConnection(SSL.Connection):
    """An OpenSSL connection with its own verification.

    OpenSSL's verify callback belongs to the context, which connections share; a callback for each
    connection would cost more than the verification and keep the connection alive.

    :param context: a :meth:`TLSTrust.context`.
    :param verify: called with each certificate of a full handshake, OpenSSL's error, the depth, and
        whether OpenSSL accepts it; returns whether to accept it, and must not raise.
    """

    def __init__(self, context: SSL.Context, verify: Callable[[X509, int, int, int], bool]) -> None:
        super().__init__(context, None)
        self.verify = verify


def _verify(connection: SSL.Connection, cert: Any, error: int, depth: int, ok: int) -> bool:
    # Any other connection of the context is refused.
    return isinstance(connection, VerifiedConnection) and connection.verify(cert, error, depth, ok)


@implementer(IOpenSSLClientConnectionCreator)
class ServerVerifier:
    """Creates the TLS connection to one server and verifies its certificate.

    One object for each connection.

    :param trust: how the server proves its identity.
    :param name: host name or IP address in the certificate, unless *trust* gives a name or pins a
        fingerprint.
    :param key: where the TLS session is kept, to be resumed; None for a full handshake.
    :param context: ``trust.context()``, if it was made already.
    :param tlsa: the records to verify the server with, for DANE.
    """

    def __init__(
        self,
        trust: TLSTrust,
        name: str,
        key: SessionKey | None = None,
        context: SSL.Context | None = None,
        tlsa: TLSARecords | None = None,
    ) -> None:
        self._trust = trust
        self._tlsa = tlsa
        # A certificate holds no zone of an IPv6 address.
        hosts = (trust.name or name.partition("%")[0],) if tlsa is None else tlsa.hosts
        self._name, *others = hosts
        #: Names that count besides.
        self._other_names = (*others, *trust.other_names)
        self._context = context or trust.context()
        self._key = key
        #: How the server was identified, and by which name or pin.
        self._proof: tuple[str, str | None] = ("none", None)
        #: Why the certificate was rejected.
        self.rejection: CertificateRejected | None = None
        self._connection: SSL.Connection | None = None
        self._certificate: _Certificate | None = None
        #: The certificates above the server's, of the chain that OpenSSL has built; for DANE.
        self._above: dict[int, _Certificate] = {}
        #: The TLSA record that matches.
        self._tlsa_record: str | None = None
        self._offered: CachedSession | None = None
        self._facts: TLSFacts | None = None
        self._presented: TLSFacts | None = None
        self._adopted = self._unverified_allowed = False

    def adopt(self, connection: SSL.Connection, *, unverified_allowed: bool = False) -> None:
        """Verify the server of *connection*, which the application made, after its handshake.

        The connection's own context has to verify the chain of certificates.  The name is the one
        that the connection requests (SNI, RFC 6066 section 3), else that of this object.

        :param unverified_allowed: use the connection all the same if its context verifies nothing.
        """
        self._connection, self._adopted = connection, True
        self._unverified_allowed = unverified_allowed

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        """See ``IOpenSSLClientConnectionCreator``."""
        connection = VerifiedConnection(self._context, self._verify)
        connection.set_app_data(tlsProtocol)
        if not is_address(self._name):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        if self._key is not None:
            self._offered = TLS_SESSIONS.get(self._key, self._context)
        if self._offered is not None:
            connection.set_session(self._offered.session)
        self._connection = connection
        return connection

    def _verify(self, given: X509, error: int, depth: int, ok: int) -> bool:
        """Accept or reject one certificate; called several times for some, the server's last."""
        try:
            if depth != 0 and (self._trust.pinned or self._trust.dane):
                # The context has no CA: what OpenSSL does not accept is looked at when it is through.
                # A certificate that cannot be read is not the CA of a record, and the chain may not count.
                above = _readable(given)
                if above is not None:
                    self._above[depth] = above
                return True
            if depth == 0 or not ok:
                cert = _certificate(dump_certificate(FILETYPE_ASN1, given))
            if depth == 0:
                self._certificate = cert
            if self._trust.pinned:
                return self._is_pinned(cert)
            if self._trust.dane:
                chain = [each.parsed for _, each in sorted(self._above.items())]
                return not ok or self._has_tlsa(cert, chain)
            if not ok:
                which = "the certificate" if depth == 0 else "a certificate above the server's"
                remedy = (
                    "give its CA file or the certificate's fingerprint"
                    if error in UNKNOWN_ISSUER
                    else ""
                )
                why = words_for(error, cert.not_before, cert.not_after)
                self._reject(f"{which}: {why}", remedy)
                # Go on to the server's own certificate, so that the error can show it.
                return depth != 0
            return depth != 0 or (self.rejection is None and self._is_for_server(cert))
        except Exception as e:  # noqa: BLE001 - OpenSSL would take an exception for acceptance
            return self._reject(f"the certificate cannot be read: {e}")

    def _is_pinned(self, cert: _Certificate) -> bool:
        trust = self._trust
        if cert.fingerprint in trust.fingerprint:
            self._proof = ("fingerprint", cert.fingerprint)
        elif cert.public_key in trust.public_key:
            self._proof = ("public-key", cert.public_key)
        else:
            found = f"its SHA-256 is {cert.fingerprint}" if trust.fingerprint else ""
            if trust.public_key:
                found += (
                    " and " if found else ""
                ) + f"its public key's SHA-256 is {cert.public_key}"
            pins = len(trust.fingerprint) + len(trust.public_key)
            one = "the one" if pins == 1 else "one"
            return self._reject(
                f"{found}, not {one} pinned", "pin the new one if you trust the change"
            )
        return True

    def _has_tlsa(self, cert: _Certificate, above: list[x509.Certificate]) -> bool:
        if self._tlsa is None:
            return self._reject("its TLSA records were not looked up")
        try:
            record = self._tlsa.matching(cert.parsed, above)
        except Mismatch as e:
            return self._reject(
                str(e),
                "if the server has a new certificate or key, its TLSA records have to be renewed; "
                "otherwise it is another server",
            )
        if record.usage == DANE_TA and not self._is_for_server(cert):
            return False
        identity = self._proof[1] if record.usage == DANE_TA else self._name
        self._proof, self._tlsa_record = (record.verified_by, identity), str(record)
        return True

    def _is_for_server(self, cert: _Certificate) -> bool:
        for name in (self._name, *self._other_names):
            if _bears_name(cert, name):
                self._proof = ("name", name)
                return True
        names = ", ".join(cert.names) or "no name"
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
        """Return the facts of the session, once the handshake is complete.

        :raises CertificateRejected: no certificate was verified, or the certificate of a
            resumed session would not be accepted now.
        """
        connection = self._connection
        if connection is None or self.rejection is not None:
            raise self.rejection or _unverified("there was no handshake")
        self._check_version(connection)
        # OpenSSL calls back in every full handshake, and in no other.
        resumed = self._certificate is None and not self._adopted
        verified = True
        if resumed:
            self._verify_resumed(connection)
        elif self._adopted:
            verified = self._verify_adopted(connection)
        if self._certificate is None:
            raise _unverified("there is no certificate")
        if verified and self._proof[1] is None:
            raise _unverified("its certificate was not verified")
        self._above.clear()
        self._facts = _facts(
            connection,
            self._certificate,
            *(self._proof if verified else ("none", None)),
            resumed=resumed,
            # A resumed handshake transfers no certificates.
            chain=self._offered.facts.chain
            if resumed and self._offered
            else self._chain(connection),
            channel_binding=_binding_kind(connection),
            tlsa=self._tlsa_record,
        )
        return self._facts

    def _chain(self, connection: SSL.Connection) -> tuple[str, ...]:
        """Return the subjects of the certificates above the server's."""
        by_ca = not (self._trust.pinned or self._trust.dane)
        found = connection.get_verified_chain() if by_ca else None
        if not found:
            return tuple(each.subject for each in _sent_above(connection))
        return tuple(
            _certificate(dump_certificate(FILETYPE_ASN1, each)).subject for each in found[1:]
        )

    def _check_version(self, connection: SSL.Connection) -> None:
        """Check the version, which the context of an application may not limit.

        :raises TLSFailure: it is older than the minimum.
        """
        version = connection.get_protocol_version_name()
        # The names sort as the versions do.
        if version < self._trust.minimum_version:
            raise TLSFailure(
                "TLS refused",
                phase="TLS",
                detail=f"the version is {version}, and {self._trust.minimum_version} is the minimum",
            )

    def _verify_resumed(self, connection: SSL.Connection) -> None:
        """Verify the certificate of a resumed session again.

        :raises CertificateRejected: it would not be accepted now; the session is forgotten.
        """
        offered, peer = self._offered, connection.get_peer_certificate()
        if offered is None or peer is None:
            self._forget_session()
            raise _unverified("its certificate was not verified")
        cert = _certificate(dump_certificate(FILETYPE_ASN1, peer))
        pinned, by_record = self._trust.pinned, offered.facts.verified_by == "dane-ee"
        if cert.fingerprint != offered.facts.fingerprint:
            _ = self._reject("the certificate of the resumed session is another one")
        elif by_record:
            # Its chain was not looked at, and does not count now.
            if self._has_tlsa(cert, []):
                self._certificate = cert
                return
        elif not (pinned or cert.not_after > dt.datetime.now(dt.timezone.utc)):
            why = words_for(EXPIRED, cert.not_before, cert.not_after)
            _ = self._reject(f"the certificate: {why}")
        elif self._is_pinned(cert) if pinned else self._is_for_server(cert):
            if offered.facts.verified_by == "dane-ta":
                # The key of the session has the records, so they are those of the full handshake.
                self._proof = ("dane-ta", self._proof[1])
                self._tlsa_record = offered.facts.tlsa
            self._certificate = cert
            return
        self._forget_session()
        raise self.rejection or _unverified("its certificate was not verified")

    def _verify_adopted(self, connection: SSL.Connection) -> bool:
        """Verify the certificate of a connection that the application made.

        :returns: False if nothing was verified, which is allowed.
        :raises CertificateRejected: its context did not verify it, or it is not the server's.
        """
        peer = connection.get_peer_certificate()
        if peer is None:
            raise _unverified("there is no certificate")
        self._certificate = cert = _certificate(dump_certificate(FILETYPE_ASN1, peer))
        asked = connection.get_servername()
        if asked:
            self._name = asked.decode("ascii")
        if self._trust.pinned:
            _ = self._is_pinned(cert)
        elif self._trust.dane:
            _ = self._has_tlsa(cert, [each.parsed for each in _sent_above(connection)])
        elif not connection.get_verify_mode() & SSL.VERIFY_PEER:
            if self._unverified_allowed:
                return False
            _ = self._reject(
                "the TLS context that was given does not verify certificates",
                "give one that does: twisted.internet.ssl.optionsForClientTLS(name)",
            )
        else:
            _ = self._is_for_server(cert)
        if self.rejection is not None:
            raise self.rejection
        return True

    def channel_binding(self) -> ChannelBinding | None:
        """Return the channel binding that is usual for the TLS version; None: there is none, or no facts yet."""
        connection, kind = self._connection, self._facts and self._facts.channel_binding
        if connection is None or not kind:
            return None
        data = _binding_data(kind, connection)
        return None if data is None else ChannelBinding(kind, data)

    def has_client_certificate(self) -> bool:
        """Return True if the client has a certificate of its own for this connection."""
        return self._connection is not None and self._connection.get_certificate() is not None

    def keep(self) -> None:
        """Keep the session for the next connection to this server.

        Call it when the server has replied to a few commands: in TLS 1.3 it sends the session
        some time after the handshake.
        """
        facts, connection = self._facts, self._connection
        if self._key is None or facts is None or connection is None or self._adopted:
            return
        session = connection.get_session()
        if session is None:
            return
        # The age counts from the full handshake, however often the session is resumed.
        resumed = self._offered if facts.resumed else None
        verified_at = resumed.verified_at if resumed else self._key.clock.seconds()
        TLS_SESSIONS.put(self._key, CachedSession(session, self._context, facts, verified_at))

    def _forget_session(self) -> None:
        if self._key is not None and self._offered is not None:
            TLS_SESSIONS.discard(self._key)

    def presented(self) -> TLSFacts | None:
        """Return the facts of the certificate, accepted or not: to show, not to act on."""
        if self._facts is not None:
            return replace(self._facts, verified_by="none", identity=None)
        if self._connection is not None and self._certificate is not None:
            self._presented = _facts(
                self._connection, self._certificate, "none", None, resumed=False
            )
        return self._presented

    def release(self) -> None:
        """Drop OpenSSL's connection, which refers to this object; call it at the end."""
        if self._facts is None:
            _ = self.presented()
        self._connection = None

    def alert(self, reason: Failure) -> TLSAlert | None:
        """Return the error of an alert of the server; None: the connection was lost otherwise."""
        words = words_of_openssl(reason.value)
        if words is None or "alert" not in words:
            return None
        remedy = ""
        if "protocol version" in words:
            remedy = f"it may not have {self._trust.minimum_version}, the minimum version"
        elif self.has_client_certificate():
            if any(sign in words for sign in _ABOUT_THE_CERTIFICATE):
                remedy = "the server does not accept the client certificate: ask its operator"
        elif "certificate required" in words:
            remedy = "give a client certificate that the server accepts"
        return TLSAlert(
            "TLS handshake refused",
            phase="TLS",
            detail=printable(f"the server sent: {words}"),
            remedy=remedy,
        )

    def failure(self, reason: Failure) -> SendmailError:
        """Return the error of a failed handshake, from the reason the connection was lost with."""
        # The session that was offered may be the cause: the next handshake is a full one.
        self._forget_session()
        if self.rejection is not None:
            return self.rejection
        error = reason.value
        if isinstance(error, (VerificationError, CertificateError)):
            # Twisted's own verification, on a connection that the application made.
            return _unverified(printable(repr(error)))
        words = words_of_openssl(error)
        if words is None:
            return TLSClosed(
                "TLS handshake broken off", phase="TLS", detail="the server closed the connection"
            )
        alert = self.alert(reason)
        if alert is not None:
            return alert
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


def _sent_above(connection: SSL.Connection) -> list[_Certificate]:
    """Return the certificates that the server has sent after its own, apart from those that cannot be read."""
    sent = map(_readable, (connection.get_peer_cert_chain() or [])[1:])
    return [each for each in sent if each is not None]


def _readable(given: X509) -> _Certificate | None:
    """Return a certificate above the server's; None if it cannot be read, which OpenSSL may accept."""
    try:
        return _certificate(dump_certificate(FILETYPE_ASN1, given))
    except (ValueError, x509.InvalidVersion):
        return None


def words_of_openssl(error: object) -> str | None:
    """Return the reasons of an error of OpenSSL; None for any other error."""
    if not isinstance(error, SSL.Error) or not error.args or not isinstance(error.args[0], list):
        return None
    return "; ".join(str(entry[-1]) for entry in error.args[0] if entry) or "unexpected end"


def _unverified(why: str) -> CertificateRejected:
    return CertificateRejected("TLS refused", phase="TLS", detail=why)


class SessionKey(NamedTuple):
    """Connections with equal keys may resume each other's sessions.

    A tuple, which is compared by the identity of its items first.
    """

    #: Tells the age of a session; another reactor's clock may count from another moment.
    clock: IReactorTime
    #: The ``TLSTrust`` that the server was verified with.
    trust: Hashable
    #: The server's name, in lower case.
    name: str
    #: None for an endpoint without one.
    port: int | None
    #: The TLSA records that the server was verified with (DANE).
    tlsa: Hashable = None


@frozen
class CachedSession:
    """A session, and the facts that were verified in its full handshake."""

    session: SSL.Session
    context: SSL.Context
    facts: TLSFacts
    #: When the certificate chain was verified, in seconds of the key's clock.
    verified_at: float


class TLSSessionCache:
    """The newest session of each server, for the next connection to it.

    A resumed handshake transfers no certificate and no signature, and costs half.  A session is used
    only for the trust, the name and the port for which its server was verified, and for
    :data:`MAX_SESSION_AGE` at most; the certificate of the session, which may have expired, is
    verified again.  RFC 8446 sections 2.2 and 4.6.1, RFC 5077.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[SessionKey, CachedSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: SessionKey, context: SSL.Context) -> CachedSession | None:
        """Return the session to offer in a handshake with *context*; None for a full handshake."""
        cached = self._sessions.get(key)
        if cached is None:
            return None
        expires = cached.facts.not_after
        # With another context, the files of CAs or keys were replaced.
        fresh = (
            cached.context is context
            and 0 <= key.clock.seconds() - cached.verified_at < MAX_SESSION_AGE
        )
        if fresh and expires is not None and dt.datetime.now(dt.timezone.utc) < expires:
            return cached
        self.discard(key)
        return None

    def put(self, key: SessionKey, cached: CachedSession) -> None:
        """Keep *cached*; the session that was put longest ago is dropped when there are too many."""
        self._sessions[key] = cached
        self._sessions.move_to_end(key)
        while len(self._sessions) > MAX_SESSIONS:
            _ = self._sessions.popitem(last=False)

    def discard(self, key: SessionKey) -> None:
        """Let the next connection do a full handshake."""
        _ = self._sessions.pop(key, None)

    def clear(self) -> None:
        """Let every next connection do a full handshake."""
        self._sessions.clear()


#: The sessions of this process.
TLS_SESSIONS = TLSSessionCache()


class _HandshakeSlots(DeferredSemaphore):
    """The slots for handshakes with one server.

    A handshake that begins may end at once, if its connection was lost while it waited.  So slots are
    released in a loop: in a call for each, any number of such handshakes would exceed the stack.
    """

    _to_release = 0

    def take(self) -> bool:
        """Take a slot if one is free, without a Deferred."""
        if not self.tokens:
            return False
        self.tokens -= 1
        return True

    def release(self) -> None:
        """Let the next handshake begin."""
        self._to_release += 1
        if self._to_release == 1:
            while self._to_release:
                super().release()
                self._to_release -= 1


class Handshake:
    """``async with`` it around one TLS handshake; it waits for a slot and yields the ServerVerifier."""

    def __init__(
        self,
        clock: IReactorTime,
        trust: TLSTrust,
        name: str,
        port: int | None,
        *,
        context: SSL.Context | None,
        tlsa: TLSARecords | None = None,
    ) -> None:
        self._key = SessionKey(clock, trust, name.lower(), port, tlsa)
        self._verifier = trust.verifier(name, self._key, context, tlsa)
        slots = _SLOTS.get(self._key)
        if slots is None:
            slots = _SLOTS[self._key] = _HandshakeSlots(MAX_HANDSHAKES)
        self._slots = slots
        self._acquired = False

    async def __aenter__(self) -> ServerVerifier:
        self._acquired = self._slots.take()
        if not self._acquired:
            acquiring = self._slots.acquire()
            _ = acquiring.addTimeout(
                MAX_HANDSHAKE_WAIT, self._key.clock, onTimeoutCancel=lambda *_: None
            )
            self._acquired = await acquiring is not None
        return self._verifier

    async def __aexit__(self, *_: object) -> None:
        if self._acquired:
            self._slots.release()


#: By server, while it has a handshake.
_SLOTS: WeakValueDictionary[SessionKey, _HandshakeSlots] = WeakValueDictionary()


@frozen(eq=False)
class _Certificate:
    """A certificate and the facts that do not depend on the connection."""

    parsed: x509.Certificate
    subject: str
    issuer: str
    #: dNSName and iPAddress entries of the subjectAltName.
    names: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    fingerprint: str
    #: SHA-256 of the SubjectPublicKeyInfo, lower-case hexadecimal; empty for an unknown kind of key.
    public_key: str


# Reading a certificate and comparing its name cost as much as resuming a session; connections to the
# same server follow each other.
@lru_cache(maxsize=64)
def _certificate(der: bytes) -> _Certificate:
    cert = x509.load_der_x509_certificate(der)
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = (
            *found.get_values_for_type(x509.DNSName),
            *map(str, found.get_values_for_type(x509.IPAddress)),
        )
    except (x509.ExtensionNotFound, ValueError):
        names = ()
    return _Certificate(
        cert,
        cert.subject.rfc4514_string(),
        cert.issuer.rfc4514_string(),
        names,
        cert.not_valid_before_utc,
        cert.not_valid_after_utc,
        cert.fingerprint(hashes.SHA256()).hex(),
        _public_key_digest(cert),
    )


def _public_key_digest(cert: x509.Certificate) -> str:
    octets = public_key_octets(cert)
    return sha256(octets).hexdigest() if octets else ""


@lru_cache(maxsize=64)
def _bears_name(cert: _Certificate, name: str) -> bool:
    try:
        if name.startswith("_"):
            _ = verify_service_identity(extract_patterns(cert.parsed), [SRV_ID(name)], [])
        elif is_address(name):
            verify_certificate_ip_address(cert.parsed, name)
        else:
            verify_certificate_hostname(cert.parsed, name)
    except (VerificationError, CertificateError):
        return False
    return True


def _facts(
    connection: SSL.Connection,
    cert: _Certificate,
    verified_by: str,
    identity: str | None,
    *,
    resumed: bool,
    chain: tuple[str, ...] = (),
    channel_binding: str | None = None,
    tlsa: str | None = None,
) -> TLSFacts:
    return TLSFacts(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        connection.get_cipher_bits() or 0,
        verified_by,
        identity,
        cert.subject,
        cert.issuer,
        cert.names,
        cert.not_before,
        cert.not_after,
        cert.fingerprint,
        resumed,
        cert.public_key or None,
        key_exchange_group(connection),
        chain,
        channel_binding,
        tlsa,
    )


def _binding_data(kind: str, connection: SSL.Connection) -> bytes | None:
    server = connection.get_peer_certificate() if kind == TLS_SERVER_END_POINT else None
    return binding_data(kind, connection, server)


def _binding_kind(connection: SSL.Connection) -> str | None:
    """Return the type of the usual channel binding; None if the connection has none."""
    kind = usual_binding(connection)
    if kind == TLS_SERVER_END_POINT and _binding_data(kind, connection) is None:
        return None  # the server's certificate has no hash
    return kind


@lru_cache(maxsize=64)
def is_address(name: str) -> bool:
    """Return True if *name* is an IP address."""
    try:
        _ = ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
