"""An endpoint that begins TLS itself, as `wrapClientTLS` does: used as it is, if its context verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    ClientContextFactory,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tests.client.certificates import NAME, Authority, authority
from tests.client.conftest import Net
from tests.client.test_tls import nothing_was_told
from twisted_sendmail import CertificateRejected, SendTimeout, Timeouts, TLSPolicy, TLSTrust
from twisted_sendmail.testing import MemoryEndpoint


@implementer(IStreamClientEndpoint)
class TLSEndpoint:
    """Like the endpoint of `wrapClientTLS`, with the clock of the test."""

    def __init__(self, net: Net, creator: Any, server: Any) -> None:
        self.inner = MemoryEndpoint(net.pump, server)
        self.links = self.inner.links
        self._creator, self._clock = creator, net.clock

    def connect(self, factory: Any) -> Any:
        wrapped = TLSMemoryBIOFactory(self._creator, True, factory, clock=self._clock)
        return self.inner.connect(wrapped).addCallback(lambda tls: tls.wrappedProtocol)


@pytest.fixture
def roots(ca_file: Path) -> Any:
    make: Any = trustRootFromCertificates
    return make([Certificate.loadPEM(ca_file.read_bytes())])


def send(net: Net, creator: Any, server: Any, **changes: Any) -> Any:
    return net.send(TLSEndpoint(net, creator, server), tls=TLSPolicy.IMPLICIT, **changes)


def test_tls_of_the_endpoint_is_used_for_the_password_and_the_mail(net: Net, roots: Any) -> None:
    server = net.server(implicit=True)
    report = send(net, optionsForClientTLS(NAME, roots), server).get()
    assert (report.tls.verified_by, report.tls.identity) == ("name", NAME)
    assert [line.partition(" ")[0] for line in server.lines][:3] == ["EHLO", "AUTH", "MAIL"]


def test_the_name_that_its_tls_asks_for_is_the_one_that_counts(net: Net, roots: Any) -> None:
    server = net.server(implicit=True, context=authority().context("mx.internal"))
    creator = optionsForClientTLS("mx.internal", roots)
    assert send(net, creator, server).get().tls.identity == "mx.internal"


def test_a_context_that_does_not_verify_is_refused_before_anything_is_sent(net: Net) -> None:
    server = net.server(implicit=True)
    error = send(net, ClientContextFactory(), server).error
    assert isinstance(error, CertificateRejected)
    assert "does not verify certificates; give one that does" in str(error)
    assert (server.lines, error.transient) == ([], False)
    nothing_was_told(net)


def test_a_context_that_verifies_no_name_gets_the_name_verified(net: Net, roots: Any) -> None:
    server = net.server(implicit=True)
    assert send(net, CertificateOptions(trustRoot=roots), server).get().tls.identity == NAME
    server = net.server(implicit=True, context=authority().context("other.example.net"))
    error = send(net, CertificateOptions(trustRoot=roots), server).error
    assert isinstance(error, CertificateRejected)
    assert "other.example.net, not for mx.example.net" in str(error)
    assert server.lines == []


def test_a_fingerprint_decides_without_the_context(net: Net) -> None:
    server = net.server(implicit=True)
    error = send(net, ClientContextFactory(), server, trust=TLSTrust(fingerprint="0" * 64)).error
    assert "not the one pinned" in str(error)
    assert server.lines == []
    pin = error.detail.split()[3].rstrip(",")
    server = net.server(implicit=True)
    report = send(net, ClientContextFactory(), server, trust=TLSTrust(fingerprint=pin)).get()
    assert report.tls.verified_by == "fingerprint"


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (lambda: Authority("Evil CA").context(NAME), "certificate verify failed"),
        (lambda: authority().context("other.example.net"), "VerificationError"),
    ],
)
def test_a_handshake_that_fails_is_an_error_of_tls(
    net: Net, roots: Any, context: Any, why: str
) -> None:
    server = net.server(implicit=True, context=context())
    error = send(net, optionsForClientTLS(NAME, roots), server).error
    assert (error.phase, error.transient) == ("TLS", False)
    assert why in str(error)
    nothing_was_told(net)


def test_a_handshake_that_hangs_ends_in_time(net: Net, roots: Any) -> None:
    server = net.server({"GREETING": "220 in clear"})
    server.answers["GREETING"] = b""
    creator = optionsForClientTLS(NAME, roots)
    result = send(net, creator, server, timeouts=Timeouts(tls=7))
    net.pump.advance(7)
    assert isinstance(result.error, SendTimeout)
    assert result.error.phase == "TLS"


def test_no_session_of_such_a_connection_is_resumed(net: Net, roots: Any) -> None:
    """Its context may trust other CAs than `TLSTrust` does."""
    send(net, optionsForClientTLS(NAME, roots), net.server(implicit=True)).get()
    report = net.send(net.server(implicit=True), tls=TLSPolicy.IMPLICIT).get()
    assert report.tls.resumed is False
