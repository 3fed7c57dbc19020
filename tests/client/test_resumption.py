"""TLS sessions are resumed only with a server that was verified, and as it was verified."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from OpenSSL import SSL

from tests.client.certificates import NAME, authority, context_of
from tests.client.conftest import Net
from tests.client.scripted_server import CLOSE, ScriptedServer
from twisted_sendmail import CertificateRejected, TLSClosed, TLSPolicy, TLSTrust
from twisted_sendmail.client.tls import (
    MAX_SESSION_AGE,
    MAX_SESSIONS,
    TLS_SESSIONS,
    ServerVerifier,
    SessionKey,
)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    TLS_SESSIONS.clear()
    yield
    TLS_SESSIONS.clear()


@pytest.fixture(params=[SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLS 1.2", "TLS 1.3"])
def context(request: pytest.FixtureRequest) -> SSL.Context:
    """One server's, so that it knows its sessions again."""
    made = fresh_context()
    made.set_max_proto_version(request.param)
    return made


def fresh_context(*names: str) -> SSL.Context:
    made = context_of(*authority().server(*(names or (NAME,))))
    _ = made.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    made.set_session_id(b"tests")
    return made


def facts(net: Net, context: SSL.Context, **changes: Any) -> Any:
    """Send one message; the TLS facts in its report."""
    result = net.send(ScriptedServer(clock=net.clock, context=context), **changes)
    assert result.error is None, result.error
    return result.value.tls


def test_the_second_connection_resumes(net: Net, context: SSL.Context) -> None:
    """And all else that is known of the server stays the same."""
    first, second = facts(net, context), facts(net, context)
    assert (first.resumed, second.resumed) == (False, True)
    assert replace(first, resumed=True) == second


def test_a_third_resumes_what_the_second_was_given(net: Net, context: SSL.Context) -> None:
    assert [facts(net, context).resumed for _ in range(3)] == [False, True, True]


def test_implicit_tls_resumes_too(net: Net, context: SSL.Context) -> None:
    def go() -> Any:
        server = ScriptedServer(clock=net.clock, context=context, implicit=True)
        return net.send(server, tls=TLSPolicy.IMPLICIT).value.tls.resumed

    assert [go(), go()] == [False, True]


def test_a_server_that_forgot_does_a_full_handshake(net: Net) -> None:
    assert [facts(net, fresh_context()).resumed for _ in range(2)] == [False, False]


def test_a_full_handshake_verifies_although_a_session_was_offered(net: Net) -> None:
    """The name leads to another server now, and its certificate no good."""
    assert not facts(net, fresh_context()).resumed
    result = net.send(ScriptedServer(clock=net.clock, context=fresh_context("other.example")))
    assert isinstance(result.error, CertificateRejected)


@pytest.mark.parametrize("change", ["pinned", "name", "server_name", "ca_file"])
def test_nothing_is_resumed_across_different_trust(
    net: Net, context: SSL.Context, tmp_path: Path, change: str
) -> None:
    both = fresh_context(NAME, "alias.example")
    certificate = facts(net, both).fingerprint
    copy = authority().write(tmp_path / "other-ca.pem")
    changed: dict[str, dict[str, Any]] = {
        "pinned": {"trust": TLSTrust(fingerprint=certificate)},
        "name": {"trust": evolve(net.trust, name="alias.example")},
        "server_name": {"server_name": "alias.example"},
        "ca_file": {"trust": TLSTrust(ca_file=copy)},
    }
    assert not facts(net, both, **changed[change]).resumed
    # Each with its own session, from now on.
    assert facts(net, both, **changed[change]).resumed
    assert facts(net, both).resumed


def test_a_pinned_certificate_resumes(net: Net, context: SSL.Context) -> None:
    pin = facts(net, context).fingerprint
    trust = TLSTrust(fingerprint=pin)
    found = [facts(net, context, trust=trust) for _ in range(2)]
    assert [each.resumed for each in found] == [False, True]
    assert {("fingerprint", pin)} == {(each.verified_by, each.identity) for each in found}


def test_a_replaced_ca_file_asks_for_a_full_handshake(
    net: Net, context: SSL.Context, tmp_path: Path
) -> None:
    path = authority().write(tmp_path / "ca.pem")
    trust = TLSTrust(ca_file=path)
    assert [facts(net, context, trust=trust).resumed for _ in range(2)] == [False, True]
    _ = path.write_bytes(path.read_bytes() + b"\n")
    assert not facts(net, context, trust=trust).resumed


def test_a_session_ages_from_the_judging_not_from_its_last_use(
    net: Net, context: SSL.Context
) -> None:
    found = []
    for _ in range(4):
        found.append(facts(net, context).resumed)
        net.pump.advance(MAX_SESSION_AGE * 0.4)
    assert found == [False, True, True, False]


@pytest.mark.parametrize("answer", ["AUTH", "EHLO/TLS"])
def test_a_session_that_did_not_come_to_work_is_not_kept(
    net: Net, context: SSL.Context, answer: str
) -> None:
    refusing = ScriptedServer({answer: "554 go away"}, clock=net.clock, context=context)
    assert net.send(refusing).error is not None
    assert not facts(net, context).resumed


def kept() -> Any:
    ((key, found),) = TLS_SESSIONS._sessions.items()
    return key, found


def test_a_resumed_session_of_another_certificate_is_refused(
    net: Net, context: SSL.Context
) -> None:
    """No verify callback runs in a resumed handshake: the session's certificate is verified."""
    assert not facts(net, context).resumed
    key, found = kept()
    TLS_SESSIONS.put(key, evolve(found, facts=replace(found.facts, fingerprint="00" * 32)))
    result = net.send(ScriptedServer(clock=net.clock, context=context))
    assert isinstance(result.error, CertificateRejected)
    assert "another one" in str(result.error)
    assert not any(line.startswith("AUTH") for flight in net.flights for line in flight)
    # And not the same again.
    assert not facts(net, context).resumed


def test_a_resumed_session_must_still_bear_the_name(net: Net, context: SSL.Context) -> None:
    """Even if a session got where it does not belong."""
    assert not facts(net, context).resumed
    key, found = kept()
    TLS_SESSIONS.put(key._replace(name="alias.example"), found)
    result = net.send(ScriptedServer(clock=net.clock, context=context), server_name="alias.example")
    assert isinstance(result.error, CertificateRejected)
    assert "not for alias.example" in str(result.error)


def test_a_resumed_session_must_still_fit_the_pin(net: Net, context: SSL.Context) -> None:
    pin = facts(net, context).fingerprint
    TLS_SESSIONS.clear()
    assert not facts(net, context, trust=TLSTrust(fingerprint=pin)).resumed
    key, found = kept()
    other = TLSTrust(fingerprint="ab" * 32)
    TLS_SESSIONS.put(key._replace(trust=other), found)
    result = net.send(ScriptedServer(clock=net.clock, context=context), trust=other)
    assert isinstance(result.error, CertificateRejected)
    assert "not the one pinned" in str(result.error)


def test_a_certificate_that_has_expired_since_is_not_resumed(
    net: Net, context: SSL.Context
) -> None:
    assert not facts(net, context).resumed
    key, found = kept()
    past = dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=1)
    TLS_SESSIONS.put(key, evolve(found, facts=replace(found.facts, not_after=past)))
    assert not facts(net, context).resumed


def test_a_handshake_without_verification_is_refused(
    net: Net, context: SSL.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed one, with nothing kept to verify it by."""
    assert not facts(net, context).resumed
    real = ServerVerifier.clientConnectionForTLS

    def forgetful(verifier: Any, protocol: Any) -> Any:
        connection = real(verifier, protocol)
        verifier._offered = None
        return connection

    monkeypatch.setattr(ServerVerifier, "clientConnectionForTLS", forgetful)
    result = net.send(ScriptedServer(clock=net.clock, context=context))
    assert isinstance(result.error, CertificateRejected)


def test_a_handshake_that_fails_is_not_tried_with_the_same_session(
    net: Net, context: SSL.Context
) -> None:
    assert not facts(net, context).resumed
    broken = net.server({"STARTTLS": ("220 go", CLOSE)})
    assert isinstance(net.send(broken).error, TLSClosed)
    assert len(TLS_SESSIONS) == 0


def test_sessions_of_a_bounded_number_of_servers_are_kept(net: Net, context: SSL.Context) -> None:
    """The one that was put longest ago goes first."""
    assert not facts(net, context).resumed
    _, found = kept()
    for port in range(MAX_SESSIONS):
        TLS_SESSIONS.put(SessionKey(net.clock, net.trust, NAME, port), found)
    assert len(TLS_SESSIONS) == MAX_SESSIONS
    assert not facts(net, context).resumed


def test_a_clock_of_its_own_has_sessions_of_its_own(net: Net, context: SSL.Context) -> None:
    """What is kept by the clock of one reactor says nothing by another's."""
    assert not facts(net, context).resumed
    _, found = kept()
    other = SessionKey(type(net.clock)(), net.trust, NAME, None)
    assert TLS_SESSIONS.get(other, found.context) is None


def test_no_session_holds_a_secret_that_is_shown(net: Net, context: SSL.Context) -> None:
    assert not facts(net, context).resumed
    assert "master" not in repr(kept()).lower()


def test_the_certificate_of_a_resumed_session_can_be_shown(net: Net, context: SSL.Context) -> None:
    found = [facts(net, context) for _ in range(2)][1]
    assert NAME in found.names
