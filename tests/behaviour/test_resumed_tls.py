"""A resumed TLS session is verified like a full handshake, with the present trust."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from OpenSSL import SSL

from tests.client.certificates import NAME, Authority, authority, context_of
from tests.client.conftest import Net, ca_file
from tests.client.conftest import net as client_net
from tests.client.scripted_server import ScriptedServer
from twisted_sendmail import CertificateRejected, TLSPolicy, TLSTrust

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ca_file", "client_net"]


def context(version: int, *names: str, ends: dt.timedelta = dt.timedelta(days=5)) -> SSL.Context:
    """Of a server that resumes the sessions it has given."""
    made = context_of(*authority().server(*(names or (NAME,)), ends=ends))
    _ = made.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    made.set_session_id(b"tests")
    made.set_max_proto_version(version)
    return made


VERSIONS = pytest.mark.parametrize(
    "version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLS 1.2", "TLS 1.3"]
)
POLICIES = pytest.mark.parametrize("tls", [TLSPolicy.STARTTLS, TLSPolicy.IMPLICIT])


def send(net: Net, server_context: SSL.Context, **settings: Any) -> Any:
    implicit = settings.get("tls") is TLSPolicy.IMPLICIT
    server = ScriptedServer(clock=net.clock, context=server_context, implicit=implicit)
    return net.send(server, **settings)


def rejected(net: Net, result: Any) -> None:
    """The certificate was not believed, and nothing was said inside TLS."""
    assert isinstance(result.error, CertificateRejected)
    said = [line for flight in net.flights for line in flight]
    assert [line for line in said if line.startswith(("AUTH", "MAIL"))] == []


@VERSIONS
@POLICIES
def test_a_session_is_resumed_while_nothing_changed(
    client_net: Net, version: int, tls: TLSPolicy
) -> None:
    server = context(version)
    found = [send(client_net, server, tls=tls).get().tls for _ in range(3)]
    assert [facts.resumed for facts in found] == [False, True, True]
    assert replace(found[0], resumed=True) == found[2]


@VERSIONS
@POLICIES
def test_an_authority_that_is_trusted_no_more(
    client_net: Net, version: int, tls: TLSPolicy, tmp_path: Path
) -> None:
    """The file of trusted authorities was replaced, under the same name."""
    server = context(version)
    trust = TLSTrust(ca_file=authority().write(tmp_path / "ca.pem"))
    assert [send(client_net, server, tls=tls, trust=trust).get().tls.resumed for _ in range(2)] == [
        False,
        True,
    ]
    Authority("another authority").write(tmp_path / "ca.pem")
    rejected(client_net, send(client_net, server, tls=tls, trust=trust))


@VERSIONS
@pytest.mark.parametrize("change", ["pin", "name", "server name", "authority"])
def test_another_trust_is_not_satisfied_by_a_session_of_the_first(
    client_net: Net, version: int, change: str, tmp_path: Path
) -> None:
    server = context(version)
    assert [send(client_net, server).get().tls.resumed for _ in range(2)] == [False, True]
    other = Authority("another authority").write(tmp_path / "other.pem")
    changes: dict[str, dict[str, Any]] = {
        "pin": {"trust": TLSTrust(fingerprint="ab" * 32)},
        "name": {"trust": evolve(client_net.trust, name="other.example")},
        "server name": {"server_name": "other.example"},
        "authority": {"trust": TLSTrust(ca_file=other)},
    }
    rejected(client_net, send(client_net, server, **changes[change]))


def test_a_certificate_that_has_expired_since(client_net: Net, tmp_path: Path) -> None:
    ends = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=5)
    cases: list[tuple[SSL.Context, dict[str, Any]]] = [
        (
            context(version, ends=ends - dt.datetime.now(dt.timezone.utc)),
            # A trust of its own each, and so a session of its own.
            {
                "tls": tls,
                "trust": TLSTrust(ca_file=authority().write(tmp_path / f"{version}{tls.name}.pem")),
            },
        )
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
        for tls in (TLSPolicy.STARTTLS, TLSPolicy.IMPLICIT)
    ]
    before = [[send(client_net, server, **how) for _ in range(2)] for server, how in cases]
    # A certificate counts whole seconds, and its last one is a good one.
    while dt.datetime.now(dt.timezone.utc) < ends + dt.timedelta(seconds=2):
        time.sleep(0.05)
    for results, (server, how) in zip(before, cases, strict=True):
        # Else this machine stood still for as long as the certificate lasted.
        if all(result.error is None for result in results):
            assert [result.get().tls.resumed for result in results] == [False, True]
            rejected(client_net, send(client_net, server, **how))


def test_another_server_under_the_same_name(client_net: Net) -> None:
    """It does not know the session, and shows a certificate of its own."""
    version = SSL.TLS1_3_VERSION
    assert not send(client_net, context(version)).get().tls.resumed
    rejected(client_net, send(client_net, context(version, "other.example")))
