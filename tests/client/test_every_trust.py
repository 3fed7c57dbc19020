"""A hostile server or network at TLS, for every kind of trust: no AUTH, no mail, no second try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.certificates import Authority, context_of
from tests.client.conftest import BODY, Net
from tests.client.scripted_server import CLEAR, CLOSE, RESET, SILENT, ScriptedServer
from tests.client.test_tls import ALERT, finished_without_close_notify, handshake, nothing_was_told
from tests.client.test_trust import fingerprint_of
from tests.client.trust_kinds import IMPOSTORS, KINDS, TrustKind, write_files
from tests.deferreds import Result
from twisted_sendmail import (
    CertificateRejected,
    Envelope,
    ExtensionUnavailable,
    InvalidServer,
    ProtocolBreach,
    SendmailError,
    SendTimeout,
    StartTLSUnavailable,
    SubmissionServer,
    TLSAlert,
    TLSClosed,
    TLSError,
    TLSFailure,
    TLSPolicy,
    TLSTrust,
    submit,
)
from twisted_sendmail.client import tls as client_tls
from twisted_sendmail.testing import MemoryEndpoint

BOTH = [TLSPolicy.STARTTLS, TLSPolicy.IMPLICIT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("trust")
    write_files(made)
    return made


@pytest.fixture(scope="module", autouse=True)
def system_cas(folder: Path) -> Iterator[None]:
    """The test's CA is the only one of the system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        patch.setenv("SSL_CERT_DIR", str(folder / "none"))
        client_tls._context.cache_clear()
        yield
    client_tls._context.cache_clear()


@pytest.fixture(scope="module", params=KINDS)
def kind(folder: Path, request: pytest.FixtureRequest) -> TrustKind:
    made = KINDS[request.param](folder)
    assert set(IMPOSTORS) <= set(made.refused)
    return made


class Attempt:
    """Messages to servers, with one kind of trust."""

    def __init__(self, net: Net, kind: TrustKind) -> None:
        self.net, self.kind = net, kind

    def server(self, answers: Any = None, **options: Any) -> ScriptedServer:
        options.setdefault("context", self.kind.good())
        options.setdefault("secure", self.kind.secure)
        return self.net.server({**self.kind.answers, **(answers or {})}, **options)

    def send(
        self,
        server: ScriptedServer,
        tls: TLSPolicy = TLSPolicy.STARTTLS,
        *,
        require_tls: bool = False,
        **changes: Any,
    ) -> Any:
        net = self.net
        net.endpoint = MemoryEndpoint(net.pump, server)
        given = {**net.settings(), **self.kind.settings, "tls": tls, **changes}
        configured = SubmissionServer(given.pop("server_name"), endpoint=net.endpoint, **given)
        envelope = Envelope("a@example.org", ["b@example.net"], require_tls=require_tls)
        sending = submit(net.clock, configured, BODY, envelope=envelope)
        result = Result(sending)
        net.pump.run()
        return result

    def fails(self, server: ScriptedServer, tls: TLSPolicy = TLSPolicy.STARTTLS) -> SendmailError:
        """Return the error: one connection was made, and nothing was told to the server."""
        result = self.send(server, tls)
        if not result.fired:
            self.net.pump.advance(61)
        error: SendmailError = result.error
        assert self.net.endpoint.attempts == 1
        assert not error.in_doubt
        nothing_was_told(self.net)
        return error


@pytest.fixture
def attempt(net: Net, kind: TrustKind) -> Attempt:
    return Attempt(net, kind)


@pytest.mark.parametrize("tls", BOTH)
def test_the_server_that_is_trusted_gets_the_mail_and_the_result_tells_how(
    attempt: Attempt, tls: TLSPolicy
) -> None:
    for resumed in (False, True):
        server = attempt.server(implicit=tls is TLSPolicy.IMPLICIT)
        facts = attempt.send(server, tls).get().tls
        assert (facts.verified_by, facts.resumed) == (attempt.kind.verified_by, resumed)
        assert facts.identity
        assert (facts.version, facts.channel_binding) == ("TLSv1.3", "tls-exporter")
        assert facts.cipher_bits >= 128
        assert facts.fingerprint
        assert facts.public_key
        assert facts.group
        assert len(server.messages) == 1


@pytest.mark.parametrize("tls", BOTH)
def test_no_impostor_gets_anything(attempt: Attempt, tls: TLSPolicy) -> None:
    """In the handshake; and no session with another server is resumed."""
    for what, context in attempt.kind.refused.items():
        server = attempt.server(context=context(), implicit=tls is TLSPolicy.IMPLICIT)
        error = attempt.fails(server, tls)
        assert isinstance(error, CertificateRejected), what
        assert (error.phase, error.transient) == ("TLS", False), what
        assert not server.tls._handshakeDone, what


def test_opportunistic_tls_is_verified_too_and_never_followed_by_clear_text(
    attempt: Attempt,
) -> None:
    settings: dict[str, Any] = {"tls": TLSPolicy.OPPORTUNISTIC, "credentials": None}
    if attempt.kind.verified_by.startswith("dane"):
        with pytest.raises(InvalidServer):
            attempt.send(attempt.server(), **settings)
        return
    facts = attempt.send(attempt.server(), **settings).get().tls
    assert facts.verified_by == attempt.kind.verified_by
    for what, context in attempt.kind.refused.items():
        error = attempt.send(attempt.server(context=context()), **settings).error
        assert isinstance(error, CertificateRejected), what
        assert attempt.net.endpoint.attempts == 1
        nothing_was_told(attempt.net)


def test_requiretls_counts_inside_tls_only(attempt: Attempt) -> None:
    """RFC 8689 section 2: every kind verifies the server."""
    server = attempt.server(secure=(*attempt.kind.secure, "REQUIRETLS"))
    attempt.send(server, require_tls=True).get()
    assert "MAIL FROM:<a@example.org> REQUIRETLS" in server.lines
    server = attempt.server(clear=(*CLEAR, "REQUIRETLS"))
    error = attempt.send(server, require_tls=True).error
    assert isinstance(error, ExtensionUnavailable)
    assert not [line for line in server.lines if line.startswith("MAIL")]


def test_a_session_with_a_server_that_was_trusted_otherwise_is_not_resumed(
    attempt: Attempt,
) -> None:
    certificate, key = Authority().server(attempt.kind.name)
    context = context_of(certificate, key)
    pinned = TLSTrust(fingerprint=fingerprint_of(certificate))
    accepted = attempt.net.send(attempt.net.server(context=context), trust=pinned)
    assert accepted.get().tls.verified_by == "fingerprint"
    assert isinstance(attempt.fails(attempt.server(context=context)), CertificateRejected)


@pytest.mark.parametrize(
    "injected",
    [
        b"250-mx\r\n250 AUTH PLAIN EXTERNAL\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        b"2",
        b"\r\n",
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["same segment", "next segment"])
def test_clear_text_after_the_220_ends_the_connection(
    attempt: Attempt, injected: bytes, apart: bool
) -> None:
    begin = (b"220 go\r\n", injected) if apart else (b"220 go\r\n" + injected,)
    server = attempt.server({"STARTTLS": (*begin, lambda s, _: s.begin_tls())})
    assert isinstance(attempt.fails(server), ProtocolBreach | TLSError | SendTimeout)


@pytest.mark.parametrize(
    ("answers", "clear", "transient"),
    [
        ({}, ("AUTH PLAIN EXTERNAL",), False),
        ({}, ("XXXXXXXX", "AUTH PLAIN"), False),
        ({"STARTTLS": "454 4.7.0 not now"}, CLEAR, True),
        ({"STARTTLS": "502 5.5.1 what?"}, CLEAR, False),
        ({"EHLO": "502 what?", "HELO": "250 mx"}, CLEAR, False),
        ({"EHLO": "451 later", "HELO": "250 mx"}, CLEAR, True),
    ],
)
def test_without_starttls_nothing_is_sent(
    attempt: Attempt, answers: Any, clear: tuple[str, ...], transient: bool
) -> None:
    server = attempt.server(answers, clear=clear)
    error = attempt.fails(server)
    assert isinstance(error, StartTLSUnavailable)
    assert error.transient is transient
    assert not any(line.startswith("HELO") for line in server.lines)


@pytest.mark.parametrize("reply", ["250 ok", "354 go", "334 go", "235 ok"])
def test_only_220_begins_tls(attempt: Attempt, reply: str) -> None:
    assert isinstance(attempt.fails(attempt.server({"STARTTLS": reply})), ProtocolBreach)


def test_auth_that_is_offered_in_clear_text_only_is_not_used(attempt: Attempt) -> None:
    server = attempt.server(clear=(*CLEAR, *attempt.kind.secure), secure=("PIPELINING",))
    assert "no AUTH in its EHLO reply" in str(attempt.fails(server))


def test_starttls_that_is_offered_again_inside_tls_is_ignored(attempt: Attempt) -> None:
    server = attempt.server(secure=("STARTTLS", *attempt.kind.secure))
    attempt.send(server).get()
    assert server.lines.count("STARTTLS") == 1


@pytest.mark.parametrize("tls", BOTH)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CLOSE, TLSClosed),
        (RESET, TLSClosed),
        (ALERT, TLSAlert),
        (b"\x00\xff garbage that is no TLS at all " * 10, TLSFailure),
        (b"220 mx.example.net ESMTP\r\n", TLSFailure),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", TLSFailure),
        ((b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", CLOSE), TLSClosed),
        (SILENT, SendTimeout),
    ],
)
def test_a_broken_handshake_is_a_tls_error_inside_the_deadline(
    attempt: Attempt, answer: Any, expected: type[SendmailError], tls: TLSPolicy
) -> None:
    error = attempt.fails(attempt.server(handshake(answer, tls is TLSPolicy.IMPLICIT)), tls)
    assert (type(error), error.phase) == (expected, "TLS")


def test_clear_text_on_a_port_with_implicit_tls_is_named(attempt: Attempt) -> None:
    error = attempt.fails(attempt.server(), TLSPolicy.IMPLICIT)
    assert isinstance(error, TLSFailure)
    assert "the server answers in clear text" in str(error)


def test_a_truncated_reply_inside_tls_does_not_count(attempt: Attempt) -> None:
    offer = b"250-mx\r\n250-AUTH PLAIN EXTERNAL\r\n"
    server = attempt.server({"EHLO/TLS": (offer, finished_without_close_notify)})
    assert attempt.fails(server).phase == "EHLO"


def test_ehlo_that_is_refused_inside_tls_is_not_replaced_by_helo(attempt: Attempt) -> None:
    server = attempt.server({"EHLO/TLS": "502 what?", "HELO": "250 mx"})
    assert attempt.fails(server).phase == "EHLO"
