"""DANE with a name server that validates real signatures (unbound), and a real Postfix."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.client.test_dane import record
from tests.ports import free_port
from tests.scenarios.peers import require
from tests.scenarios.postfix import Postfix
from tests.scenarios.postfix_configuration import PASSWORD, USER
from tests.scenarios.relay_process import Relay
from tests.scenarios.unbound import Unbound, why_not
from twisted_sendmail import (
    CertificateRejected,
    ConnectFailed,
    DANEUnavailable,
    DNSResolver,
    SubmissionServer,
    TLSTrust,
    submit,
)

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def names(running_postfix: Postfix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    """The TLSA records of Postfix's services, below a host for each way to publish them."""
    require("unbound", why_not())
    ports = running_postfix.ports
    read = {
        name: x509.load_pem_x509_certificate(
            (running_postfix.directory / f"{name}.pem").read_bytes()
        )
        for name in ("server", "expired", "ca")
    }
    key, expired = record(3, 1, 1, read["server"]), record(3, 0, 2, read["expired"])
    other, ca = record(3, 1, 1, read["ca"]), record(2, 0, 0, read["ca"])

    def at(host: str, text: str, service: str = "submission") -> str:
        return f"_{ports[service]}._tcp.{host} 60 IN TLSA {text}\n"

    signed = "\n".join(
        (
            at("ee", key), at("ee", key, "submissions"), at("ee", other), at("ee", expired, "expired"),
            at("ta", ca), at("mail", ca), at("wrong", other), at("forged", key),
            "alias 60 IN CNAME ee", "none 60 IN A 127.0.0.1",
            f"_{ports['submission']}._tcp.shared 60 IN CNAME tlsa", f"tlsa 60 IN TLSA {key}",
        )
    )  # fmt: skip
    forged = (f"_{ports['submission']}._tcp.forged",)
    directory = tmp_path_factory.mktemp("unbound")
    with Unbound(directory, signed, forged, at("mx", key)) as running:
        yield running


def server(
    postfix: Postfix, names: Unbound, host: str, service: str = "submission"
) -> SubmissionServer:
    trust = TLSTrust(dane=True, name=host if "." in host else f"{host}.signed.test")
    return postfix.server(service, trust=trust, resolver=DNSResolver(names.address))


@pytest.mark.parametrize(
    ("place", "identity"),
    [
        (("ee", "submission"), "ee.signed.test"),
        (("ee", "submissions"), "ee.signed.test"),
        (("ee", "expired"), "ee.signed.test"),
        (("alias", "submission"), "ee.signed.test"),
        (("shared", "submission"), "shared.signed.test"),
    ],
)
@ensureDeferred
async def test_a_validated_record_is_enough(
    reactor: Any, postfix: Postfix, names: Unbound, place: tuple[str, str], identity: str
) -> None:
    """Neither the name in the certificate nor its dates nor its CA count."""
    report = await submit(reactor, server(postfix, names, *place), MESSAGE)
    tls = report.tls
    assert tls is not None
    assert (tls.verified_by, tls.identity) == ("dane-ee", identity)
    assert report.accepted


@ensureDeferred
async def test_a_ca_in_a_record_needs_the_name_in_the_certificate(
    reactor: Any, postfix: Postfix, names: Unbound
) -> None:
    """The certificate is for mail.example.test; Postfix does not send its CA, the record has it."""
    with pytest.raises(CertificateRejected, match=r"is for mail\.example\.test, not for ta\."):
        await submit(reactor, server(postfix, names, "ta"), MESSAGE)


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("forged", (ConnectFailed, "cannot be looked up")),
        ("none", (DANEUnavailable, "DNSSEC proves that")),
        ("missing", (DANEUnavailable, "DNSSEC proves that")),
        ("mx.unsigned.test", (DANEUnavailable, "has not validated them by DNSSEC")),
        ("wrong", (CertificateRejected, "no TLSA record of")),
    ],
)
@ensureDeferred
async def test_nothing_is_sent_without_a_validated_record_that_matches(
    reactor: Any, postfix: Postfix, names: Unbound, host: str, refused: tuple[type[Exception], str]
) -> None:
    kind, words = refused
    since = len(postfix.log)
    with pytest.raises(kind, match=words) as caught:
        await submit(reactor, server(postfix, names, host), MESSAGE)
    assert getattr(caught.value, "transient", None) == (kind is ConnectFailed)
    assert not postfix.logged("TLS connection established", since=since)
    assert not postfix.logged("sasl_username", since=since)


@ensureDeferred
async def test_the_relay_trusts_by_dane_and_defers_what_is_forged(
    reactor: Any, postfix: Postfix, names: Unbound, relay: Relay
) -> None:
    relay.write("alice", PASSWORD + "\n", 0o600)
    port = free_port()
    smarthost = f"""
        url = "smtp+starttls://127.0.0.1:{postfix.ports["submission"]}"
        user = "{USER}"
        password-file = "alice"
        dane = true
        name-servers = ["{names.address}"]
    """
    relay.write(
        "relay.toml",
        f"""
        name = "relay.example.org"
        queue = "queue"
        [[listen]]
        endpoint = "tcp:127.0.0.1:{port}"
        [[smarthost]]
        {smarthost}
        server-name = "ee.signed.test"
        [[route]]
        name = "forged"
        senders = ["eve@example.test"]
        [[route.smarthost]]
        {smarthost}
        server-name = "forged.signed.test"
        """,
    )
    relay.start("--config", "relay.toml")
    relay.up()

    def submit_two() -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            for sender in ("eve@example.test", "alice@example.test"):
                client.sendmail(sender, ["bob@example.test"], MESSAGE)

    await deferToThread(submit_two)
    lines = ("verified by dane-ee ee.signed.test", "forged.signed.test cannot be looked up")

    def wait() -> None:
        relay.wait(lambda: all(line in relay.said for line in (*lines, "status=sent")))

    await deferToThread(wait)
    assert relay.said.count("status=sent") == 1
    relay.end()
