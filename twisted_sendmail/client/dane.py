"""DANE: a server is trusted because of the TLSA records of its name, which DNSSEC protects.

The records are at ``_port._tcp.host``.  They count only if a name server that was named for it has
validated them; if the look-up fails, or no record can be used, nothing is sent.  The CAs are
never asked instead: an attacker could cause that by suppressing an answer.

- **DANE-EE** (usage 3): the certificate or its public key is the one in the record.  Name, dates and
  chain do not count (RFC 7672 section 3.1.1).
- **DANE-TA** (usage 2): a CA is the one in the record, and has issued the certificate, for the name of
  the server.
- PKIX-TA and PKIX-EE (usages 0 and 1) cannot be used for SMTP (RFC 7672 section 3.1.3).

RFC 6698, RFC 7671 (updates; sections 5 and 9), RFC 7672 (SMTP), RFC 7673 (servers named by SRV).
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from hashlib import sha256, sha512
from typing import TYPE_CHECKING, Any

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

from twisted_sendmail.client.dns_lookup import look_up
from twisted_sendmail.client.verify_errors import (
    INVALID_PURPOSE,
    UNKNOWN_ISSUER,
    WRONG_SIGNATURE,
    words_for,
)
from twisted_sendmail.smtp import DANEUnavailable, InvalidInput, domain_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twisted_sendmail.client.dns_lookup import Resolver

#: Usages of RFC 7218 that can be used, and the names that facts have for them.
DANE_TA, DANE_EE = 2, 3
_VERIFIED_BY = {DANE_TA: "dane-ta", DANE_EE: "dane-ee"}
#: Matching types: the octets themselves, or a digest; a larger one is stronger.
_EXACT, _SHA256, _SHA512 = 0, 1, 2
_DIGEST_SIZES = {_SHA256: 32, _SHA512: 64}
#: Certificates above the server's that are looked at.
MAX_CHAIN = 10
#: Records of one server: each CA in a record is compared with the whole chain, in the reactor's thread.
MAX_RECORDS = 32
#: The kinds of keys that can be those of a CA.
_CA_KEYS = (
    rsa.RSAPublicKey,
    ec.EllipticCurvePublicKey,
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    dsa.DSAPublicKey,
)


@frozen(order=True)
class TLSARecord:
    """One TLSA record (RFC 6698 section 2.1)."""

    #: 2 for a CA, 3 for the server's certificate; 0 and 1 cannot be used.
    usage: int
    #: 0 for the certificate, 1 for its public key.
    selector: int
    #: 0 for the octets, 1 for their SHA-256, 2 for their SHA-512.
    matching: int
    data: bytes

    @property
    def usable(self) -> bool:
        """False if the record has to be ignored."""
        if self.usage not in _VERIFIED_BY or self.selector not in {0, 1}:
            return False
        if self.matching != _EXACT:
            return len(self.data) == _DIGEST_SIZES.get(self.matching)
        return _parsed(self.selector, self.data) is not None

    @property
    def verified_by(self) -> str:
        """The word for it in facts: ``dane-ee`` or ``dane-ta``."""
        return _VERIFIED_BY[self.usage]

    def matches(self, certificate: x509.Certificate) -> bool:
        """Return True if this record is for *certificate*; the usage is not looked at."""
        octets = (
            certificate.public_bytes(Encoding.DER)
            if self.selector == 0
            else public_key_octets(certificate)
        )
        if self.matching == _EXACT:
            return bool(octets) and self.data == octets
        digest = sha512 if self.matching == _SHA512 else sha256
        return bool(octets) and self.data == digest(octets).digest()

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


class Mismatch(Exception):
    """No record matches the certificate; the text is the reason."""


@frozen
class TLSARecords:
    """The TLSA records of one server."""

    #: Such as ``_465._tcp.mail.example.org``.
    name: str
    #: In one order, whatever the order of the answer is: equal records make equal objects.
    records: tuple[TLSARecord, ...]
    #: The host that the records belong to (the TLSA base domain), and the host that was asked for, if
    #: that is an alias: the names that a certificate of a CA may have.
    hosts: tuple[str, ...]
    #: DNSSEC has proved the records, or that there are none.
    validated: bool

    @property
    def usable(self) -> tuple[TLSARecord, ...]:
        """The records to compare with: of two digests of the same, the stronger alone (RFC 7671 section 9)."""
        usable = [record for record in self.records if record.usable]
        strongest: dict[tuple[int, int], int] = {}
        for each in usable:
            kind = (each.usage, each.selector)
            strongest[kind] = max(strongest.get(kind, 0), each.matching)
        return tuple(
            each
            for each in usable
            if each.matching in {_EXACT, strongest[each.usage, each.selector]}
        )

    def check(self) -> TLSARecords:
        """Return these records, if they can be used to verify a server.

        :raises DANEUnavailable: they were not validated, or none of them can be used.
        """
        if not self.validated:
            raise _unavailable(
                f"the TLSA records of {self.name} do not count",
                "the name server has not validated them by DNSSEC",
                "check that the zone is signed, and that the name server validates",
            )
        if not self.records:
            raise _unavailable(
                f"there is no TLSA record of {self.name}",
                "DNSSEC proves that",
                "leave DANE out, or ask the operator of the server to publish one",
            )
        if len(self.records) > MAX_RECORDS:
            raise _unavailable(
                f"there are too many TLSA records of {self.name}",
                f"{len(self.records)}, and {MAX_RECORDS} at most are compared",
                "ask the operator of the server to remove those of old certificates",
            )
        if not self.usable:
            raise _unavailable(
                f"no TLSA record of {self.name} can be used",
                f"there is {_in_words(self.records)}",
                "only usages 2 and 3 count for SMTP: ask the operator of the server for a record 3 1 1",
            )
        return self

    def matching(
        self, certificate: x509.Certificate, above: Sequence[x509.Certificate]
    ) -> TLSARecord:
        """Return the record that proves the server's certificate; for DANE-TA apart from its name.

        :param above: the other certificates that the server has sent.
        :raises Mismatch: there is none.
        """
        usable = self.usable
        for record in usable:
            if record.usage == DANE_EE and record.matches(certificate):
                return record
        above = [each for each in above if each != certificate][:MAX_CHAIN]
        reason = ""
        for record in usable:
            if record.usage == DANE_TA:
                for anchor in _anchors(record, certificate, above):
                    why = _why_not_issued_by(anchor, certificate, above)
                    if why is None:
                        return record
                    reason = reason or why
        own = sha256(public_key_octets(certificate)).hexdigest()
        raise Mismatch(
            reason or f"no TLSA record of {self.name} matches the certificate, which is 3 1 1 {own}"
        )


def _unavailable(what: str, detail: str, remedy: str) -> DANEUnavailable:
    return DANEUnavailable(what, phase="connect", detail=detail, remedy=remedy)


def _in_words(records: tuple[TLSARecord, ...]) -> str:
    shown = [f"{each.usage} {each.selector} {each.matching}" for each in records]
    return ", ".join(dict.fromkeys(shown))[:80]


# -- look-up --------------------------------------------------------------------------------


async def find_tlsa(reactor: Any, resolver: Resolver, host: str, port: int) -> TLSARecords:
    """Look up the TLSA records of a server, whether they can be used or not.

    If the host is an alias, and DNSSEC proves of what, the records of that name come first (RFC 7672
    section 2.2.2).

    :raises ConnectFailed: DNS does not answer, or a server reports that an answer is forged: nothing
        is known about the records.  It is temporary.
    """
    canonical = await _canonical_name(reactor, resolver, host)
    if canonical is not None:
        found = await _records(reactor, resolver, (canonical, host), port)
        if found.validated and found.records:
            return found
    return await _records(reactor, resolver, (host,), port)


async def _canonical_name(reactor: Any, resolver: Resolver, host: str) -> str | None:
    """Return the name that *host* is proved to be an alias of; None: of none."""
    # The whole chain of aliases is in the answer, whether the host has an IPv4 address or not.
    answer = await look_up(reactor, resolver, host, "A")
    try:
        name = domain_name(answer.canonical_name) if answer.canonical_name else host
    except InvalidInput:
        return None
    return name if answer.validated and name.lower() != host.lower() else None


async def _records(
    reactor: Any, resolver: Resolver, hosts: tuple[str, ...], port: int
) -> TLSARecords:
    name = f"_{port}._tcp.{hosts[0]}"
    answer = await look_up(reactor, resolver, name, "TLSA")
    records = {
        TLSARecord(each.usage, each.selector, each.mtype, bytes(each.cert))
        for each in answer.records
    }
    return TLSARecords(name, tuple(sorted(records)), hosts, answer.validated)


# -- comparison -----------------------------------------------------------------------------


def public_key_octets(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo in DER; empty for an unknown kind of key."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@lru_cache(maxsize=64)
def _parsed(selector: int, data: bytes) -> Any:
    """Return the certificate or the public key that a record holds; None if it cannot be used."""
    try:
        if selector == 0:
            return x509.load_der_x509_certificate(data)
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, _CA_KEYS) else None


def _anchors(
    record: TLSARecord, certificate: x509.Certificate, above: Sequence[x509.Certificate]
) -> Iterator[x509.Certificate]:
    """Yield the CAs that a record of DANE-TA makes trusted.

    One whose octets are in the record need not be sent by the server (RFC 7671 section 5.2.1).
    """
    yield from (each for each in above if record.matches(each))
    if record.matching != _EXACT:
        return
    held = _parsed(record.selector, record.data)
    if record.selector == 1:
        yield from (_with_key(held, each.issuer) for each in (certificate, *above))
    elif held != certificate and held not in above:
        yield held


def _with_key(key: Any, name: x509.Name) -> x509.Certificate:
    """Return a certificate of a CA with this key and name, so that OpenSSL can be given a bare key.

    Its own signature does not count, as that of any trust anchor.
    """
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(_some_key(), hashes.SHA256())
    )


@lru_cache(maxsize=1)
def _some_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _why_not_issued_by(
    anchor: x509.Certificate, certificate: x509.Certificate, above: Sequence[x509.Certificate]
) -> str | None:
    """Return why the chain from *certificate* to *anchor* is not valid; None: it is valid; empty: there is none."""
    store = X509Store()
    store.add_cert(X509.from_cryptography(anchor))
    # A CA counts although another one has issued it.
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    verifying = X509StoreContext(
        store,
        X509.from_cryptography(certificate),
        [X509.from_cryptography(each) for each in above],
    )
    try:
        verified = [each.to_cryptography() for each in verifying.get_verified_chain()]
    except X509StoreContextError as error:
        code, failed = error.errors[0], error.certificate.to_cryptography()
    else:
        others = [each for each in verified[:-1] if not _may_be_a_server(each)]
        if not others:
            return None
        code, failed = INVALID_PURPOSE, others[0]
    if code in UNKNOWN_ISSUER or code == WRONG_SIGNATURE:
        return ""
    which = "the certificate" if failed == certificate else "a certificate above the server's"
    why = words_for(code, failed.not_valid_before_utc, failed.not_valid_after_utc)
    return f"{which}: {why}"


def _may_be_a_server(certificate: x509.Certificate) -> bool:
    """Return False if the certificate's extended key usage excludes servers."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    allowed = {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    }
    return not allowed.isdisjoint(usage)
