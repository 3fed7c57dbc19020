"""TLS or no mail: injection, stripping, tampering, the wrong server, a broken handshake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from tests.client.certificates import NAME, Authority, authority, context_of
from tests.client.conftest import Net
from tests.client.scripted_server import CLEAR, CLOSE, RESET, SILENT, ScriptedServer, flights_of
from twisted_sendmail import (
    CertificateRejected,
    Envelope,
    ExtensionUnavailable,
    ProtocolBreach,
    SendTimeout,
    StartTLSUnavailable,
    TLSAlert,
    TLSClosed,
    TLSError,
    TLSFailure,
    TLSPolicy,
    TLSTrust,
)
from twisted_sendmail.testing.memory_network import MemoryTransport


def nothing_was_told(net: Net) -> None:
    """Neither credentials nor mail left us, in clear or not."""
    for link in net.endpoint.links:
        said = [line for flight in flights_of(link) for line in flight]
        assert not any(line.startswith(("AUTH", "MAIL", "RCPT", "DATA")) for line in said)
        assert b"AUTH" not in link.client.sent
        assert b"MAIL" not in link.client.sent


# -- response injection


@pytest.mark.parametrize(
    "injected",
    [
        b"250-mx\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n",
        b"250-mx\r\n250 AUTH PLAIN\r\n",
        b"250 x\r\n",
        b"250",
        b"2",
        b"4",
        b"\r\n",
        b"\x16",
    ],
)
def test_plain_text_behind_the_220_ends_the_connection(net: Net, injected: bytes) -> None:
    """In the same segment, even a fragment: RFC 3207 allows nothing."""
    server = net.server({"STARTTLS": (b"220 go\r\n" + injected, lambda s, _: s.begin_tls())})
    assert isinstance(net.send(server).error, ProtocolBreach)
    nothing_was_told(net)


@pytest.mark.parametrize("injected", [b"250-mx\r\n250 AUTH PLAIN\r\n", b"250 x\r\n", b"2", b"\r\n"])
def test_plain_text_in_the_next_segment_ends_the_handshake(net: Net, injected: bytes) -> None:
    server = net.server({"STARTTLS": (b"220 go\r\n", injected, lambda s, _: s.begin_tls())})
    result = net.start(server)
    net.link.apart = True
    net.pump.run()
    net.pump.advance(61)
    assert isinstance(result.error, TLSError | SendTimeout)
    nothing_was_told(net)


@pytest.mark.parametrize("early", [b"220 go\r\n", b"220 go\r\n250 x\r\n", b"22"])
def test_the_reply_to_starttls_may_not_come_before_starttls(net: Net, early: bytes) -> None:
    server = net.server({"EHLO": b"250-mx\r\n250 STARTTLS\r\n" + early})
    assert isinstance(net.send(server).error, ProtocolBreach)
    nothing_was_told(net)


def test_what_was_said_before_tls_is_not_what_is_offered_inside(net: Net) -> None:
    """Keywords injected in clear are gone; the list inside TLS counts."""
    server = net.server(clear=(*CLEAR, "AUTH LOGIN X-EVIL", "SMTPUTF8"), secure=("AUTH PLAIN",))
    net.send(server).get()
    assert "MAIL FROM:<a@example.org>" in server.lines, "neither SIZE nor 8BITMIME"
    assert any(line.startswith("AUTH PLAIN") for line in server.lines)


def test_auth_offered_only_in_clear_is_not_offered(net: Net) -> None:
    server = net.server(clear=(*CLEAR, "AUTH PLAIN"), secure=("PIPELINING",))
    assert "no AUTH in its EHLO reply" in str(net.send(server).error)
    nothing_was_told(net)


def test_starttls_offered_again_inside_tls_is_ignored(net: Net) -> None:
    server = net.server(secure=("STARTTLS", "AUTH PLAIN"))
    net.send(server).get()
    assert server.lines.count("STARTTLS") == 1


# -- stripping


@pytest.mark.parametrize(
    ("answers", "clear", "transient"),
    [
        ({}, ("PIPELINING", "AUTH PLAIN"), False),
        ({}, ("XXXXXXXX", "AUTH PLAIN"), False),
        ({"STARTTLS": "454 4.7.0 not now"}, CLEAR, True),
        ({"STARTTLS": "502 5.5.1 what?"}, CLEAR, False),
        ({"STARTTLS": "554 no"}, CLEAR, False),
        ({"EHLO": "502 what?", "HELO": "250 mx"}, CLEAR, False),
        ({"EHLO": "451 later", "HELO": "250 mx"}, CLEAR, True),
    ],
)
def test_no_starttls_no_mail(
    net: Net, answers: Any, clear: tuple[str, ...], transient: bool
) -> None:
    for credentials in ({}, {"credentials": None}):
        server = net.server(answers, clear=clear)
        error = net.send(server, **credentials).error
        assert isinstance(error, StartTLSUnavailable)
        assert transient == error.transient
        nothing_was_told(net)
        assert "HELO client.example.org" not in server.lines


@pytest.mark.parametrize("reply", ["250 ok", "200 ok", "354 go", "334 go", "235 ok"])
def test_only_220_grants_starttls(net: Net, reply: str) -> None:
    server = net.server({"STARTTLS": reply})
    assert isinstance(net.send(server).error, ProtocolBreach)
    nothing_was_told(net)


def test_lower_case_starttls_is_starttls(net: Net) -> None:
    net.send(net.server(clear=("starttls",))).get()


def test_a_server_called_starttls_does_not_offer_it(net: Net) -> None:
    server = net.server({"EHLO": b"250 STARTTLS\r\n"})
    assert isinstance(net.send(server).error, StartTLSUnavailable)


def test_opportunistic_goes_on_in_clear_only_without_tls(net: Net) -> None:
    settings = {"tls": TLSPolicy.OPPORTUNISTIC, "credentials": None}
    server = net.server(clear=())
    assert net.send(server, **settings).get().tls is None
    server = net.server({"STARTTLS": "454 not now"})
    assert net.send(server, **settings).get().tls is None
    server = net.server()
    assert net.send(server, **settings).get().tls is not None
    # But a handshake that fails is no reason for clear text.
    server = net.server(context=Authority().context(NAME))
    assert isinstance(net.send(server, **settings).error, CertificateRejected)
    nothing_was_told_on_last(net)


def nothing_was_told_on_last(net: Net) -> None:
    assert b"MAIL" not in net.link.client.sent
    assert net.endpoint.attempts == 1


def test_ehlo_refused_inside_tls_is_no_reason_for_helo(net: Net) -> None:
    server = net.server({"EHLO/TLS": "502 what?", "HELO": "250 mx"})
    assert net.send(server).error is not None
    assert not any(line.startswith(("HELO", "AUTH", "MAIL")) for line in server.lines)


@pytest.mark.parametrize("policy", [TLSPolicy.NONE, TLSPolicy.OPPORTUNISTIC, TLSPolicy.STARTTLS])
def test_requiretls_counts_only_inside_tls_with_a_verified_server(
    net: Net, policy: TLSPolicy
) -> None:
    """RFC 8689: a server, or somebody on the way, may announce it in clear."""
    envelope = Envelope("a@example.org", ["b@example.net"], require_tls=True)
    settings: dict[str, Any] = {"tls": policy, "credentials": None, "envelope": envelope}
    server = net.server(clear=("REQUIRETLS",) if policy is not TLSPolicy.STARTTLS else CLEAR)
    error = net.send(server, **settings).error
    assert isinstance(error, ExtensionUnavailable)
    assert not any(line.startswith("MAIL") for line in server.lines)
    if policy is not TLSPolicy.NONE:
        server = net.server(secure=("REQUIRETLS",))
        net.send(server, **settings).get()
        assert "MAIL FROM:<a@example.org> REQUIRETLS" in server.lines


# -- the wrong server

REJECTED: dict[str, tuple[Callable[[], Any], str]] = {
    "another name": (lambda: authority().context("other.example.net"), "not for mx.example.net"),
    "an unknown CA": (lambda: Authority("Evil CA").context(NAME), "its issuer is not known"),
    "a CA of the same name": (lambda: Authority().context(NAME), "its signature is wrong"),
    "expired": (lambda: authority().context(NAME, ends=-1), "expired"),
    "a common name only": (lambda: authority().context(common_name=NAME), "no name"),
    "another address": (lambda: authority().context("192.0.2.1"), "not for mx.example.net"),
    "a wildcard too high": (lambda: authority().context("*.net"), "not for mx.example.net"),
    "a name with a null": (lambda: authority().context("mx.example.net.evil.example"), "not for"),
}


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("case", REJECTED)
def test_a_certificate_that_proves_nothing_is_refused_in_the_handshake(
    net: Net, case: str, implicit: bool
) -> None:
    """The error says why; there is no second try, in clear or without judging."""
    context, why = REJECTED[case]
    server = net.server(context=context(), implicit=implicit)
    result = net.send(server, tls=TLSPolicy.IMPLICIT if implicit else TLSPolicy.STARTTLS)
    assert isinstance(result.error, CertificateRejected)
    assert why in str(result.error)
    assert (result.error.transient, result.error.phase) == (False, "TLS")
    nothing_was_told(net)
    assert (1, 0 if implicit else 2) == (net.endpoint.attempts, len(server.lines))
    assert not server.tls._handshakeDone, "refused in the handshake, not after it"


def test_a_fingerprint_alone_decides(net: Net) -> None:
    certificate, key = Authority().server(common_name="whoever")
    pin = certificate.fingerprint(hashes.SHA256()).hex()
    server = net.server(context=context_of(certificate, key))
    report = net.send(server, trust=TLSTrust(fingerprint=pin)).get()
    assert report.tls.verified_by == "fingerprint"
    server = net.server()
    error = net.send(server, trust=TLSTrust(fingerprint=pin)).error
    assert isinstance(error, CertificateRejected)
    assert "not the one pinned" in str(error)


def test_a_name_from_the_trust_is_held_against_the_certificate(net: Net, ca_file: Path) -> None:
    trust = TLSTrust(ca_file=ca_file, name="other.example.net")
    assert isinstance(net.send(net.server(), trust=trust).error, CertificateRejected)
    net.send(net.server(context=authority().context("other.example.net")), trust=trust).get()


# -- a broken handshake

ALERT = b"\x15\x03\x03\x00\x02\x02\x28"


def handshake(answer: Any, implicit: bool) -> dict[str, Any]:
    if implicit:
        return {"GREETING": SILENT, "HANDSHAKE": answer}
    return {"STARTTLS": "220 go", "HANDSHAKE": answer}


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CLOSE, TLSClosed),
        (RESET, TLSClosed),
        (ALERT, TLSAlert),
        (b"\x00\xff garbage that is no TLS at all " * 10, TLSFailure),
        (b"220 mx.example.net ESMTP\r\n", TLSFailure),
        (b"500 what?\r\n", TLSFailure),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", TLSFailure),
        ((b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", CLOSE), TLSClosed),
    ],
)
def test_a_handshake_that_is_broken_off_fails_at_once_and_says_so(
    net: Net, answer: Any, expected: type[TLSError], implicit: bool
) -> None:
    server = net.server(handshake(answer, implicit))
    result = net.send(server, tls=TLSPolicy.IMPLICIT if implicit else TLSPolicy.STARTTLS)
    assert type(result.error) is expected
    assert net.clock.seconds() == 0
    nothing_was_told(net)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_handshake_that_is_silent_or_trickles_fails_inside_the_deadline(
    net: Net, implicit: bool
) -> None:
    tls = TLSPolicy.IMPLICIT if implicit else TLSPolicy.STARTTLS
    for trickle in (False, True):
        server = net.server(handshake(SILENT, implicit))
        result = net.send(server, tls=tls)
        # A long record, octet by octet.
        octets = iter(b"\x16\x03\x03\x3f\xff" + b"\x02\x00\x3f\xfb" + bytes(10_000))
        begun = net.clock.seconds()
        while not result.fired:
            assert net.clock.seconds() <= begun + 61
            if trickle:
                server.transport.write(bytes([next(octets)]))
            net.pump.advance(0.3)
        assert isinstance(result.error, SendTimeout)
        assert result.error.phase == "TLS"
        nothing_was_told(net)


def test_clear_text_on_the_implicit_port_fails_at_once(net: Net) -> None:
    """A server that greets in clear where TLS was expected."""
    server = net.server()
    result = net.send(server, tls=TLSPolicy.IMPLICIT)
    assert isinstance(result.error, TLSFailure)
    assert "clear text" in str(result.error)
    assert net.clock.seconds() == 0


def test_tls_where_a_greeting_was_expected_fails_inside_the_deadline(net: Net) -> None:
    """The other way round: nobody speaks first; the error names the greeting."""
    result = net.send(net.server(implicit=True))
    net.pump.advance(301)
    assert isinstance(result.error, SendTimeout)
    assert result.error.phase == "greeting"


# -- the end without close_notify


def finished_without_close_notify(server: ScriptedServer, line: str) -> None:
    server.transport.loseConnection()


@pytest.mark.parametrize("said", [b"250 queued\r\n", b"250-x\r\n250 queued\r\n"])
def test_behind_a_complete_reply_a_bare_fin_is_fine(net: Net, said: bytes) -> None:
    server = net.server({".": (said, finished_without_close_notify)})
    assert len(net.send(server).get().accepted) == 1


@pytest.mark.parametrize("said", [b"250 queued", b"250 queued\r", b"250-queued\r\n", b"2", b""])
def test_a_truncated_reply_is_no_reply(net: Net, said: bytes) -> None:
    server = net.server({".": (said, finished_without_close_notify)})
    error = net.send(server).error
    assert len(error.report.in_doubt) == 1


def test_a_truncated_ehlo_reply_offers_nothing(net: Net) -> None:
    server = net.server(
        {"EHLO/TLS": (b"250-mx\r\n250-AUTH PLAIN\r\n", finished_without_close_notify)}
    )
    assert net.send(server).error is not None
    nothing_was_told(net)


def test_the_transport_starts_tls_if_it_can(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    start = MemoryTransport.startTLS

    def record(transport: Any, creator: Any, normal: bool = True) -> None:
        started.append(transport)
        start(transport, creator, normal)

    monkeypatch.setattr(MemoryTransport, "startTLS", record)
    net.send(net.server()).get()
    assert started == [net.link.client]
