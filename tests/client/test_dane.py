"""DANE: which TLSA records prove a server, and what is sent when none does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dh
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from dns import rdata
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, load_certificate
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.ssl import ClientContextFactory

from tests.client.certificates import NAME, Authority, authority, context_of
from tests.client.conftest import BODY, Net
from tests.client.scripted_server import PASSWORD, USER
from tests.client.test_tls import nothing_was_told
from tests.client.test_tls_of_the_endpoint import TLSEndpoint
from tests.client.test_trust import public_key_of
from tests.deferreds import Result
from twisted_sendmail import (
    CertificateRejected,
    ConnectFailed,
    Credentials,
    DANEUnavailable,
    DeliveryCancelled,
    DNSResolver,
    InvalidInput,
    SubmissionServer,
    TLSPolicy,
    TLSTrust,
    submit,
)
from twisted_sendmail.client import DNSAnswer, TLSARecord, TLSARecords, find_servers, probe_server
from twisted_sendmail.client.tls import TLS_SESSIONS
from twisted_sendmail.testing import MemoryEndpoint

DANE = TLSTrust(dane=True)
PLACE = f"_587._tcp.{NAME}"
OAKLEY_2 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
    16,
)


@define(eq=False)
class Names:
    """A resolver; names that it does not have do not exist, and that is validated."""

    answers: dict[tuple[str, str], DNSAnswer | Exception] = field(factory=dict)
    asked: list[tuple[str, str]] = field(factory=list)

    async def lookup(self, reactor: Any, name: str, kind: str) -> DNSAnswer:
        self.asked.append((name, kind))
        found = self.answers.get((name, kind), DNSAnswer((), validated=True))
        if isinstance(found, Exception):
            raise found
        return found

    def tlsa(self, *records: str, name: str = PLACE, validated: bool = True) -> Names:
        """Publish records such as ``3 1 1 ab…``."""
        fields = [each.split() for each in records]
        made = tuple(
            SimpleNamespace(usage=int(u), selector=int(s), mtype=int(m), cert=bytes.fromhex(data))
            for u, s, m, data in fields
        )
        self.answers[name, "TLSA"] = DNSAnswer(made, validated)
        return self

    def alias(self, target: str, name: str = NAME, *, validated: bool = True) -> Names:
        self.answers[name, "A"] = DNSAnswer((), validated, target)
        return self


def record(
    usage: int, selector: int, matching: int, of: x509.Certificate, *, wrong: bool = False
) -> str:
    octets = (
        of.public_bytes(Encoding.DER)
        if selector == 0
        else of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    if wrong:
        octets = octets[:-1] + bytes([octets[-1] ^ 1])
    for kind, algorithm in ((1, hashes.SHA256()), (2, hashes.SHA512())):
        if matching == kind:
            digest = hashes.Hash(algorithm)
            digest.update(octets)
            octets = digest.finalize()
    return f"{usage} {selector} {matching} {octets.hex()}"


class Chain(NamedTuple):
    """A server's certificate, an intermediate CA, and its root."""

    server: x509.Certificate
    intermediate: x509.Certificate
    root: x509.Certificate
    key: Any

    def context(self, *above: x509.Certificate) -> SSL.Context:
        context = context_of(self.server, self.key)
        for each in above:
            context.add_extra_chain_cert(each)
        return context


def chain(
    name: str = NAME,
    *,
    ends: dt.timedelta = dt.timedelta(days=5),
    intermediate_ends: dt.timedelta = dt.timedelta(days=5),
    ca: bool = True,
    purpose: Any = None,
) -> Chain:
    root, below = authority(), Authority("intermediate")
    intermediate = issued(root, below.certificate, below.key.public_key(), intermediate_ends, ca=ca)
    server, key = below.server(name)
    server = issued(below, server, key.public_key(), ends, ca=None, purpose=purpose)
    return Chain(server, intermediate, root.certificate, key)


def issued(
    by: Authority,
    like: x509.Certificate,
    key: Any,
    ends: dt.timedelta,
    *,
    ca: bool | None,
    purpose: Any = None,
) -> x509.Certificate:
    end = dt.datetime.now(dt.timezone.utc) + ends
    builder = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(by.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - dt.timedelta(days=30))
        .not_valid_after(end)
    )
    if ca is None:
        names = like.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.add_extension(names.value, critical=False)
    else:
        basic = x509.BasicConstraints(ca=ca, path_length=None)
        builder = builder.add_extension(basic, critical=True)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(by.key, hashes.SHA256())


@lru_cache(maxsize=1)
def usual() -> Chain:
    return chain()


@lru_cache(maxsize=1)
def stranger() -> Chain:
    """A self-signed certificate that has expired, for another name."""
    own = Authority("stranger")
    server, key = own.server("elsewhere.example", ends=dt.timedelta(days=-1))
    return Chain(server, own.certificate, own.certificate, key)


class Sending:
    """Sends messages to a server whose TLSA records are in ``names``."""

    def __init__(self, net: Net) -> None:
        self.net, self.names = net, Names()

    def __call__(self, context: SSL.Context, trust: TLSTrust = DANE, **settings: Any) -> Any:
        """Send one message; its result."""
        server = settings.pop("server", None) or self.net.server(context=context)
        endpoint = settings.pop("endpoint", None) or MemoryEndpoint(self.net.pump, server)
        self.net.endpoint = endpoint
        configured = SubmissionServer(
            settings.pop("host", NAME),
            trust=trust,
            credentials=Credentials(USER, PASSWORD),
            endpoint=endpoint,
            resolver=self.names,
            **settings,
        )
        sending = submit(
            self.net.clock, configured, BODY, sender="a@example.org", recipients="b@example.net"
        )
        result = Result(sending)
        self.net.pump.run()
        return result

    def refused(self, context: SSL.Context, trust: TLSTrust = DANE) -> CertificateRejected:
        """Send one message, which the client must not do."""
        error = self(context, trust).error
        assert isinstance(error, CertificateRejected)
        nothing_was_told(self.net)
        return error


@pytest.fixture
def send(net: Net) -> Iterator[Sending]:
    TLS_SESSIONS.clear()
    yield Sending(net)
    TLS_SESSIONS.clear()


# -- each kind of record


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit TLS"])
def test_dane_ee_proves_a_self_signed_certificate_by_itself(
    send: Sending, selector: int, matching: int, implicit: bool
) -> None:
    """Neither name nor dates nor issuer count (RFC 7672 section 3.1.1)."""
    server, _, _, key = stranger()
    text = record(3, selector, matching, server)
    _ = send.names.tlsa(text, name=f"_465._tcp.{NAME}" if implicit else PLACE)
    context = context_of(server, key)
    tls = (
        send(
            context,
            server=send.net.server(context=context, implicit=implicit),
            tls=TLSPolicy.IMPLICIT if implicit else TLSPolicy.STARTTLS,
        )
        .get()
        .tls
    )
    assert (tls.verified_by, tls.identity, tls.tlsa) == ("dane-ee", NAME, text)
    assert tls.channel_binding == "tls-exporter"


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("which", ["intermediate", "root"])
def test_dane_ta_proves_a_certificate_by_a_ca_that_the_server_sends(
    send: Sending, which: str, selector: int, matching: int
) -> None:
    found = usual()
    text = record(2, selector, matching, getattr(found, which))
    _ = send.names.tlsa(text)
    tls = send(found.context(found.intermediate, found.root)).get().tls
    assert (tls.verified_by, tls.identity, tls.tlsa) == ("dane-ta", NAME, text)
    assert tls.chain == ("CN=intermediate", "CN=throw-away CA")


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("which", ["intermediate", "root"])
def test_a_ca_in_the_record_need_not_be_sent(send: Sending, which: str, selector: int) -> None:
    """RFC 7671 section 5.2: a record `2 0 0` or `2 1 0` holds all there is to verify with."""
    found = usual()
    _ = send.names.tlsa(record(2, selector, 0, getattr(found, which)))
    sent = [found.intermediate] if which == "root" else []
    assert send(found.context(*sent)).get().tls.verified_by == "dane-ta"


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("usage", [2, 3])
def test_a_record_of_another_certificate_is_refused(
    send: Sending, usage: int, selector: int, matching: int
) -> None:
    """Although a CA of the system would do."""
    found = usual()
    of = found.server if usage == 3 else found.intermediate
    other = Authority("other").certificate if matching == 0 else of
    _ = send.names.tlsa(record(usage, selector, matching, other, wrong=matching != 0))
    error = send.refused(found.context(found.intermediate, found.root))
    assert f"no TLSA record of {PLACE} matches the certificate" in str(error)
    assert f"which is 3 1 1 {public_key_of(found.server)}" in str(error)


def test_usages_do_not_stand_for_each_other(send: Sending) -> None:
    """A record of the CA with usage 3, and of the server with usage 2."""
    found = usual()
    _ = send.names.tlsa(record(3, 1, 1, found.intermediate), record(2, 1, 1, found.server))
    _ = send.refused(found.context(found.intermediate, found.root))


def test_a_self_signed_certificate_is_no_ca_of_itself(send: Sending) -> None:
    own = Authority(NAME)
    for matching in (0, 1):
        _ = send.names.tlsa(record(2, 0, matching, own.certificate))
        _ = send.refused(context_of(own.certificate, own.key))


# -- DANE-TA: what else the certificate needs


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "other.example"}, "the certificate is for other.example, not for"),
        ({"ends": dt.timedelta(days=-1)}, "the certificate: it has expired"),
        ({"ends": dt.timedelta(days=90)}, "the certificate: it is not valid yet"),
        (
            {"intermediate_ends": dt.timedelta(days=-1)},
            "a certificate above the server's: it has expired",
        ),
        ({"ca": False}, "a certificate above the server's: "),
        ({"purpose": ExtendedKeyUsageOID.CLIENT_AUTH}, "the certificate: it is not meant for ser"),
    ],
)
@pytest.mark.parametrize("form", [(0, 1), (1, 1), (1, 0)], ids=str)
def test_dane_ta_verifies_the_chain_and_the_name(
    send: Sending, settings: dict[str, Any], words: str, form: tuple[int, int]
) -> None:
    found = chain(**settings)
    _ = send.names.tlsa(record(2, *form, found.root))
    error = send.refused(found.context(found.intermediate, found.root))
    assert words in str(error)


def test_a_ca_that_is_only_shown_is_no_issuer(send: Sending) -> None:
    """Anybody can send the certificate of the CA after their own."""
    found = usual()
    server, key = Authority("intermediate").server(NAME)
    for form in ((0, 1), (1, 1), (1, 0), (0, 0)):
        _ = send.names.tlsa(record(2, *form, found.intermediate), record(2, *form, found.root))
        forged = Chain(server, found.intermediate, found.root, key)
        _ = send.refused(forged.context(found.intermediate, found.root))


# -- several records


def test_one_record_that_matches_is_enough(send: Sending) -> None:
    """As while a key or a CA is replaced; whatever cannot be used is left out."""
    found, old = usual(), stranger()
    text = record(3, 1, 1, found.server)
    others = [
        record(3, 1, 1, old.server),
        record(2, 0, 1, old.root),
        "3 9 1 00",
        "1 0 1 " + "ab" * 32,
    ]
    _ = send.names.tlsa(*others, text)
    assert send(found.context()).get().tls.tlsa == text
    _ = send.names.tlsa(*others, record(2, 0, 1, found.root))
    tls = send(found.context(found.intermediate, found.root)).get().tls
    assert tls.verified_by == "dane-ta"


# A warning of cryptography is about Diffie-Hellman.
@pytest.mark.filterwarnings("ignore:Diffie-Hellman")
def test_a_key_that_no_ca_has_does_not_disable_the_other_records(send: Sending) -> None:
    found = usual()
    # RFC 2409 section 6.2: the second Oakley group.
    numbers = dh.DHParameterNumbers(OAKLEY_2, 2)
    public = dh.DHPublicNumbers(5, numbers).public_key()
    octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    _ = send.names.tlsa(f"2 1 0 {octets.hex()}", record(2, 1, 1, found.root))
    tls = send(found.context(found.intermediate, found.root)).get().tls
    assert tls.verified_by == "dane-ta"


# Only an object of pyOpenSSL can hold such a certificate.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL X509 objects")
def test_a_certificate_above_that_cannot_be_read_does_not_disable_the_record(
    send: Sending,
) -> None:
    """OpenSSL reads more than the parser of this package; a pin replaces the chain as well."""
    found = usual()
    octets = found.intermediate.public_bytes(Encoding.DER)
    # The version of the certificate, which is 3: 2 in the encoding.
    odd = load_certificate(FILETYPE_ASN1, octets.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\5", 1))
    _ = send.names.tlsa(record(3, 1, 1, found.server))
    tls = send(found.context(odd, found.root)).get().tls  # type: ignore[arg-type]
    assert (tls.verified_by, tls.chain) == ("dane-ee", ("CN=throw-away CA",))
    pinned = TLSTrust(fingerprint=found.server.fingerprint(hashes.SHA256()).hex())
    tls = send(found.context(odd), trust=pinned).get().tls  # type: ignore[arg-type]
    assert (tls.verified_by, tls.chain) == ("fingerprint", ())


def test_of_two_digests_the_stronger_counts(send: Sending) -> None:
    """RFC 7671 section 9."""
    found = usual()
    _ = send.names.tlsa(record(3, 1, 1, found.server), record(3, 1, 2, stranger().server))
    _ = send.refused(found.context())
    _ = send.names.tlsa(record(3, 1, 2, found.server), record(3, 1, 1, stranger().server))
    assert send(found.context()).get().tls.verified_by == "dane-ee"


# -- records that do not count: nothing is connected to


@pytest.mark.parametrize(
    ("records", "validated", "words"),
    [
        ([], True, f"there is no TLSA record of {PLACE}: DNSSEC proves that; leave DANE out, or"),
        ([], False, f"the TLSA records of {PLACE} do not count: the name server has not validated"),
        (
            ["good"],
            False,
            "the name server has not validated them by DNSSEC; check that the zone is",
        ),
        (
            ["0 0 1 " + "00" * 32],
            True,
            f"no TLSA record of {PLACE} can be used: there is 0 0 1; only",
        ),
        (["1 1 1 " + "00" * 32, "4 1 1 " + "00" * 32], True, "there is 1 1 1, 4 1 1; only usages"),
        (["3 2 1 " + "00" * 32], True, "there is 3 2 1"),
        (["3 1 3 " + "00" * 32], True, "there is 3 1 3"),
        (["3 1 1 " + "00" * 31], True, "there is 3 1 1"),
        (["2 0 0 3000"], True, "there is 2 0 0"),
        (["2 1 0 3000"], True, "there is 2 1 0"),
        (["good", *(f"3 1 1 {n:064x}" for n in range(32))], True, "too many TLSA records of"),
    ],
)
def test_without_a_record_that_counts_nothing_is_connected_to(
    send: Sending, records: list[str], validated: bool, words: str
) -> None:
    found = usual()
    texts = [record(3, 1, 1, found.server) if each == "good" else each for each in records]
    _ = send.names.tlsa(*texts, validated=validated)
    error = send(found.context()).error
    assert isinstance(error, DANEUnavailable)
    assert words in str(error)
    assert send.net.endpoint.links == []


@pytest.mark.parametrize("name", [PLACE, NAME])
def test_a_failed_look_up_defers_and_never_falls_back(send: Sending, name: str) -> None:
    kind = "TLSA" if name == PLACE else "A"
    _ = send.names.tlsa(record(3, 1, 1, usual().server))
    send.names.answers[name, kind] = ConnectFailed("no answer")
    error = send(usual().context()).error
    assert isinstance(error, ConnectFailed)
    assert error.transient
    assert send.net.endpoint.links == []


@pytest.mark.parametrize("discover", [False, True])
def test_cancelling_a_look_up_is_an_error_of_the_session(net: Net, discover: bool) -> None:
    waiting: list[Deferred[DNSAnswer]] = []

    class Silent:
        def lookup(self, reactor: Any, name: str, kind: str) -> Deferred[DNSAnswer]:
            waiting.append(Deferred())
            return waiting[-1]

    server = SubmissionServer(NAME, trust=DANE, resolver=Silent(), discover=discover)
    probing = probe_server(net.clock, server)
    result = Result(probing)
    probing.cancel()
    assert isinstance(result.value.error, DeliveryCancelled)
    assert len(waiting) == 1


# -- aliases


def test_the_records_of_the_name_behind_an_alias_come_first(send: Sending) -> None:
    """RFC 7672 section 2.2.2; the certificate of a CA may have either name, and SNI has that one."""
    asked: list[Any] = []
    found = chain("mx7.provider.example")
    context = found.context(found.intermediate, found.root)
    context.set_tlsext_servername_callback(lambda it: asked.append(it.get_servername()))
    place = "_587._tcp.mx7.provider.example"
    text = record(2, 1, 1, found.root)
    _ = send.names.alias("mx7.provider.example").tlsa(text, name=place)
    _ = send.names.tlsa(record(2, 1, 1, stranger().server))
    tls = send(context).get().tls
    assert (tls.identity, tls.tlsa, asked) == (
        "mx7.provider.example",
        text,
        [b"mx7.provider.example"],
    )
    tls = send(usual().context(usual().intermediate, usual().root)).get().tls
    assert tls.identity == NAME


@pytest.mark.parametrize("validated", [False, True])
def test_without_records_behind_the_alias_its_own_count(send: Sending, validated: bool) -> None:
    target = "mx7.provider.example"
    _ = send.names.alias(target, validated=validated).tlsa(record(3, 1, 1, usual().server))
    if not validated:
        # It is not proved that the alias leads there.
        _ = send.names.tlsa(record(3, 1, 1, stranger().server), name=f"_587._tcp.{target}")
    assert send(usual().context()).get().tls.identity == NAME


def test_a_failed_look_up_behind_the_alias_defers(send: Sending) -> None:
    target = "mx7.provider.example"
    _ = send.names.alias(target).tlsa(record(3, 1, 1, usual().server))
    send.names.answers[f"_587._tcp.{target}", "TLSA"] = ConnectFailed("no answer")
    assert isinstance(send(usual().context()).error, ConnectFailed)


# -- resumption: the records decide again


def kept(send: Sending, *texts: str, context: SSL.Context) -> Any:
    _ = send.names.tlsa(*texts)
    return send(context)


def server_context(found: Chain) -> SSL.Context:
    """One server's, so that it accepts its sessions again."""
    context = found.context(found.intermediate, found.root)
    _ = context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    context.set_session_id(b"tests")
    return context


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("usage", [2, 3])
def test_a_session_is_resumed_while_the_records_stay_the_same(
    send: Sending, usage: int, version: int
) -> None:
    found = usual()
    context = server_context(found)
    context.set_max_proto_version(version)
    text = record(usage, 1, 1, found.server if usage == 3 else found.root)
    other = record(3, 1, 1, stranger().server)
    first, again, changed = (
        kept(send, *texts, context=context).get().tls
        for texts in ((text, other), (other, text), (text,))
    )
    assert [each.resumed for each in (first, again, changed)] == [False, True, False]
    assert replace(again, resumed=False, group=first.group) == first
    # The record is withdrawn: the server is refused, although its session is kept.
    _ = send.names.tlsa(other)
    _ = send.refused(context)


def test_a_resumed_session_must_match_the_records(send: Sending) -> None:
    """Even if a session got where it does not belong."""
    context = server_context(usual())
    assert not kept(send, record(3, 1, 1, usual().server), context=context).get().tls.resumed
    ((key, session),) = TLS_SESSIONS._sessions.items()
    _ = send.names.tlsa(record(3, 1, 1, stranger().server))
    _ = send.refused(usual().context())
    wrong = next(each for each in (key,))
    records = TLSARecords(PLACE, (TLSARecord(3, 1, 1, bytes(32)),), (NAME,), validated=True)
    TLS_SESSIONS.put(wrong._replace(tlsa=records), session)
    _ = send.names.tlsa("3 1 1 " + "00" * 32)
    error = send.refused(context)
    assert f"no TLSA record of {PLACE} matches" in str(error)


# -- a client's certificate, and TLS of the application's endpoint


def test_a_client_certificate_goes_with_dane(send: Sending, tmp_path: Path) -> None:
    found = usual()
    own = tmp_path / "client.pem"
    own.write_bytes(
        found.server.public_bytes(Encoding.PEM)
        + found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = found.context(found.intermediate)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    _ = send.names.tlsa(record(3, 0, 1, found.server))
    trust = TLSTrust(dane=True, client_certificate=own)
    assert send(context, trust).get().tls.verified_by == "dane-ee"


@pytest.mark.parametrize("usage", [2, 3])
def test_tls_of_an_endpoint_is_verified_by_the_records_too(send: Sending, usage: int) -> None:
    found = usual()
    for right in (True, False):
        of = (found.server if usage == 3 else found.root) if right else stranger().server
        _ = send.names.tlsa(record(usage, 1, 1, of), name=f"_465._tcp.{NAME}")
        server = send.net.server(
            implicit=True, context=found.context(found.intermediate, found.root)
        )
        endpoint = TLSEndpoint(send.net, ClientContextFactory(), server)
        result = send(found.context(), endpoint=endpoint, tls=TLSPolicy.IMPLICIT)
        if right:
            assert result.get().tls.verified_by == ("dane-ee" if usage == 3 else "dane-ta")
        else:
            assert isinstance(result.error, CertificateRejected)
            assert server.lines == []


# -- servers of a mail domain


@pytest.mark.parametrize("validated", [True, False])
def test_the_records_are_those_of_the_target_that_dnssec_proves(net: Net, validated: bool) -> None:
    names = Names().tlsa("3 1 1 " + "00" * 32, name=f"_465._tcp.{NAME}")
    service = "_submissions._tcp.example.org"
    target = rdata.from_text("IN", "SRV", f"0 0 465 {NAME}.")
    names.answers[service, "SRV"] = DNSAnswer((target,), validated)
    server = SubmissionServer.from_url("submission:example.org", trust=DANE, resolver=names)
    if not validated:
        result = Result(ensureDeferred(find_servers(net.clock, server)))
        assert isinstance(result.error, DANEUnavailable)
        assert f"DANE needs the records of {service}" in str(result.error)
        return
    (candidate,) = Result(ensureDeferred(find_servers(net.clock, server))).value
    assert (candidate.server.host, candidate.server.trust.dane) == (NAME, True)


# -- arguments


@pytest.mark.parametrize(
    ("trust", "words"),
    [
        ({"ca_file": "ca.pem"}, "DANE goes alone; leave out the CAs, and the pin, or leave out"),
        ({"ca_directory": "/"}, "DANE goes alone"),
        ({"fingerprint": "00" * 32}, "DANE goes alone"),
        ({"public_key": "00" * 32}, "DANE goes alone"),
        ({"dane": "127.0.0.1"}, "dane"),
    ],
)
def test_dane_goes_alone(trust: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        TLSTrust(**{"dane": True, **trust})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"resolver": None},
            "DANE needs a name server whose validation by DNSSEC counts; name one",
        ),
        ({"resolver": DNSResolver()}, "DANE needs a name server whose validation"),
        ({"resolver": DNSResolver("192.0.2.1")}, "DANE needs a name server whose validation"),
        (
            {"tls": TLSPolicy.OPPORTUNISTIC, "credentials": None},
            "DANE cannot be used with TLSPolicy.",
        ),
        ({"tls": TLSPolicy.NONE, "credentials": None}, "DANE cannot be used with TLSPolicy.NONE"),
        ({"host": "192.0.2.1"}, "DANE needs the name of the server"),
    ],
)
def test_settings_with_which_dane_proves_nothing_are_refused(
    settings: dict[str, Any], words: str
) -> None:
    given = {"host": NAME, "resolver": DNSResolver("127.0.0.1"), **settings}
    with pytest.raises(InvalidInput) as caught:
        SubmissionServer(given.pop("host"), trust=DANE, **given)
    assert words in str(caught.value)


def test_a_name_stands_for_an_address(send: Sending) -> None:
    """The records are those of the name."""
    _ = send.names.tlsa(record(2, 1, 1, usual().root))
    context = usual().context(usual().intermediate, usual().root)
    trust = TLSTrust(dane=True, name=NAME)
    assert send(context, trust, host="192.0.2.1").get().tls.identity == NAME
