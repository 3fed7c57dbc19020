"""TLS and the verification of a real Postfix."""

from __future__ import annotations

import ssl
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail import (
    CertificateRejected,
    InvalidServer,
    StartTLSUnavailable,
    TLSFailure,
    TLSPolicy,
    TLSTrust,
    submit,
)
from twisted_sendmail.testing import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.postfix import Postfix

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: tls\r\n\r\nhello\r\n"


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "submissions"])
async def test_a_message_arrives_over_verified_tls(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    report = await submit(reactor, postfix.server(service), MESSAGE, complete=False)
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    assert (
        copy.content,
        copy.sender,
        copy.recipient,
    ) == (MESSAGE, "alice@example.test", "bob@example.test")
    assert report.tls is not None
    assert (
        report.tls.version,
        report.tls.verified_by,
        report.tls.identity,
    ) == ("TLSv1.3", "name", "mail.example.test")
    assert [str(outcome.recipient) for outcome in report.accepted] == ["bob@example.test"]


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "submissions"])
async def test_the_queue_id_is_the_one_postfix_logs(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    since = len(postfix.log)
    report = await submit(reactor, postfix.server(service), MESSAGE)
    line = await postfix.line(reactor, f"postfix/{service}/smtpd", "sasl_username", since=since)
    assert f": {report.queue_id}: client=" in line


async def refused(
    reactor: Any, postfix: Postfix, service: str, trust: TLSTrust
) -> CertificateRejected:
    """What `submit` raises; that nothing was said inside TLS is checked in Postfix's log."""
    since = len(postfix.log)
    with pytest.raises(CertificateRejected) as caught:
        await submit(reactor, postfix.server(service, trust=trust), MESSAGE)
    end = await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    assert "auth=" not in end
    assert "mail=" not in end
    assert postfix.logged(service, "TLS connection established", since=since) == []
    return caught.value


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "submissions"])
async def test_an_unknown_authority_is_rejected_and_nothing_is_sent(
    reactor: Any, postfix: Postfix, service: str, tmp_path: Path
) -> None:
    other = tmp_path / "ca.pem"
    other.write_bytes(Authority().pem)
    trust = TLSTrust(ca_file=other, name="mail.example.test")
    error = await refused(reactor, postfix, service, trust)
    assert "its issuer is not known" in error.detail
    assert "CA file" in error.remedy


@ensureDeferred
async def test_the_authorities_of_the_system_do_not_know_it(reactor: Any, postfix: Postfix) -> None:
    error = await refused(reactor, postfix, "submission", TLSTrust(name="mail.example.test"))
    assert "its issuer is not known" in error.detail


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "submissions"])
async def test_another_name_is_rejected_and_nothing_is_sent(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    trust = TLSTrust(ca_file=postfix.directory / "ca.pem", name="mail.example.org")
    error = await refused(reactor, postfix, service, trust)
    assert error.detail == "the certificate is for mail.example.test, not for mail.example.org"


@ensureDeferred
async def test_the_address_is_no_name_of_it(reactor: Any, postfix: Postfix) -> None:
    trust = TLSTrust(ca_file=postfix.directory / "ca.pem")
    error = await refused(reactor, postfix, "submission", trust)
    assert error.detail == "the certificate is for mail.example.test, not for 127.0.0.1"


@ensureDeferred
async def test_an_expired_certificate_is_rejected_and_nothing_is_sent(
    reactor: Any, postfix: Postfix
) -> None:
    error = await refused(reactor, postfix, "expired", postfix.trust)
    assert "it has expired" in error.detail


def fingerprint(postfix: Postfix, name: str) -> str:
    pem = (postfix.directory / f"{name}.pem").read_text("ascii")
    certificate = pem[pem.index("-----BEGIN CERTIFICATE-----") :]
    return sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()


@ensureDeferred
@pytest.mark.parametrize(("service", "name"), [("submission", "server"), ("expired", "expired")])
async def test_a_pinned_fingerprint_alone_decides(
    reactor: Any, postfix: Postfix, service: str, name: str
) -> None:
    pin = fingerprint(postfix, name)
    server = postfix.server(service, trust=TLSTrust(fingerprint=pin))
    report = await submit(reactor, server, MESSAGE)
    assert report.tls is not None
    assert ("fingerprint", pin) == (report.tls.verified_by, report.tls.fingerprint)


@ensureDeferred
async def test_another_fingerprint_is_rejected_and_nothing_is_sent(
    reactor: Any, postfix: Postfix
) -> None:
    trust = TLSTrust(fingerprint="00" * 32)
    error = await refused(reactor, postfix, "submission", trust)
    found = fingerprint(postfix, "server")
    assert error.detail == f"its SHA-256 is {found}, not the one pinned"


@ensureDeferred
async def test_a_server_without_starttls_gets_neither_password_nor_mail(
    reactor: Any, postfix: Postfix
) -> None:
    since = len(postfix.log)
    server = postfix.server("no_tls", credentials=postfix.credentials())
    with pytest.raises(StartTLSUnavailable) as caught:
        await submit(reactor, server, MESSAGE)
    assert caught.value.detail == "the server does not offer it"
    end = await postfix.line(reactor, "no_tls/smtpd", "disconnect from", since=since)
    assert "ehlo=1 quit=1 commands=2" in end


@ensureDeferred
async def test_implicit_tls_on_a_starttls_port_is_named(reactor: Any, postfix: Postfix) -> None:
    server = postfix.server("submission", tls=TLSPolicy.IMPLICIT)
    with pytest.raises(TLSFailure) as caught:
        await submit(reactor, server, MESSAGE)
    assert caught.value.detail == "the server answers in clear text"


@ensureDeferred
async def test_clear_text_has_to_be_asked_for_by_name(reactor: Any, postfix: Postfix) -> None:
    server = postfix.server("no_tls", tls=TLSPolicy.NONE)
    report = await submit(reactor, server, MESSAGE, complete=False)
    assert report.tls is None
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    assert copy.content == MESSAGE


@ensureDeferred
@pytest.mark.parametrize(("service", "encrypted"), [("no_auth", True), ("no_tls", False)])
async def test_opportunistic_tls_takes_what_is_offered(
    reactor: Any, postfix: Postfix, service: str, encrypted: bool
) -> None:
    server = postfix.server(service, tls=TLSPolicy.OPPORTUNISTIC)
    report = await submit(reactor, server, MESSAGE)
    assert encrypted == (report.tls is not None)


@ensureDeferred
async def test_opportunistic_tls_that_is_offered_is_verified(
    reactor: Any, postfix: Postfix
) -> None:
    trust = TLSTrust(ca_file=postfix.directory / "ca.pem", name="mail.example.org")
    server = postfix.server("no_auth", tls=TLSPolicy.OPPORTUNISTIC, trust=trust)
    with pytest.raises(CertificateRejected):
        await submit(reactor, server, MESSAGE)


@pytest.mark.parametrize("policy", [TLSPolicy.NONE, TLSPolicy.OPPORTUNISTIC])
def test_credentials_are_never_given_to_a_weaker_policy(
    postfix: Postfix, policy: TLSPolicy
) -> None:
    credentials = postfix.credentials()
    with pytest.raises(InvalidServer, match="a password goes over TLS only"):
        postfix.server("submission", tls=policy, credentials=credentials)
