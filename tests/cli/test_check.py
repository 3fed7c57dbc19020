"""`twisted-sendmail check`: its output and findings, and that it sends no mail."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from attrs import evolve
from pytest_twisted import ensureDeferred

from tests.cli.scripted import ScriptedServer
from tests.cli.shell import PASSWORD, Shell
from twisted_sendmail import SubmissionServer, TLSFacts, TLSPolicy
from twisted_sendmail.cli.check import findings
from twisted_sendmail.cli.survey import Survey
from twisted_sendmail.client import ProbeResult
from twisted_sendmail.smtp import Capabilities
from twisted_sendmail.testing import LoopbackServer

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TLS = TLSFacts(
    "TLSv1.3",
    "TLS_AES_256_GCM_SHA384",
    256,
    "name",
    "mail.example.net",
    not_after=NOW + timedelta(days=90),
)
GOOD = {
    "PIPELINING": "",
    "8BITMIME": "",
    "ENHANCEDSTATUSCODES": "",
    "SIZE": "1000",
    "AUTH": "PLAIN LOGIN",
}
SERVER = SubmissionServer("mail.example.net")


def judged(**changes: Any) -> list[tuple[str, str]]:
    """The findings about a good server with *changes*, without the ``ok`` ones."""
    good = ProbeResult(
        SERVER, None, in_clear=Capabilities({"STARTTLS": ""}), offered=Capabilities(GOOD), tls=TLS
    )
    return [
        (level, text)
        for level, text in findings(Survey(evolve(good, **changes)), NOW)
        if level != "ok"
    ]


def test_a_good_server_has_no_weak_or_wrong_finding() -> None:
    assert judged() == []


def test_each_weakness_has_a_finding() -> None:
    def only(**changes: Any) -> str:
        ((level, text),) = judged(**changes)
        assert level == "weak"
        return text

    def offered(**changes: str | None) -> Capabilities:
        return Capabilities({k: v for k, v in {**GOOD, **changes}.items() if v is not None})

    soon = replace(TLS, not_after=NOW + timedelta(days=13, hours=1))
    assert only(tls=soon) == "the certificate expires in 13 days, on 2026-01-14"
    assert "expires within a day" in only(tls=replace(TLS, not_after=NOW + timedelta(hours=1)))
    assert "has expired on" in only(tls=replace(TLS, not_after=NOW - timedelta(hours=1)))
    assert "TLS 1.2 is the best" in only(tls=replace(TLS, version="TLSv1.2"))
    assert "56 bits" in only(tls=replace(TLS, cipher_bits=56))
    assert "AUTH is offered in clear" in only(in_clear=Capabilities({"AUTH": "PLAIN"}))
    assert "no AUTH is offered" in only(offered=offered(AUTH=None))
    for keyword in ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE"):
        assert only(offered=offered(**{keyword: None})).startswith(f"no {keyword}: ")
    assert "STARTTLS is offered inside TLS" in only(offered=offered(STARTTLS=""))
    assert "not inside TLS: DSN" in only(in_clear=Capabilities({"DSN": "", "STARTTLS": ""}))
    maybe = SubmissionServer("mail.example.net", tls=TLSPolicy.OPPORTUNISTIC)
    assert "opportunistic TLS" in only(server=maybe)


@ensureDeferred
async def test_the_server_is_shown_and_no_mail_is_sent(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users={"alice": PASSWORD}) as server:
        url = server.url.replace("://", "://alice@")
        words = [url, "--ca-file", server.ca_file, "--password-file", shell.password]
        text = await shell.run("check", *words)
        json = await shell.run("check", "--json", *words)
        verbose = await shell.run("check", "--verbose", *words, "--mechanism=PLAIN")
        (first, *_) = server.sessions
    assert (text.status, text.err) == (0, "")
    for held in ("TLSv1.3", "CN=localhost", "SHA-256", "size limit", "AUTH succeeded", "RCPTMAX"):
        assert held in text.out
    seen = json.json
    assert (
        seen["usable"],
        seen["exit_status"],
        seen["authenticated"],
        seen["error"],
    ) == (True, 0, True, None)
    assert "STARTTLS" in seen["in_clear"]
    assert "STARTTLS" not in seen["offered"]
    assert seen["auth"] == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
    assert seen["tls"]["fingerprint"] == seen["presented"]["fingerprint"]
    assert "C: AUTH PLAIN ****" in verbose.err
    assert [line for line in first.dialogue if line.startswith("C: MAIL")] == []
    assert [line for line in first.dialogue if line.startswith("C: ")][-2:] == [
        "C: NOOP",
        "C: QUIT",
    ]
    assert server.messages == []


@ensureDeferred
async def test_a_rejected_certificate_is_shown_with_the_option_that_pins_it(
    reactor: Any, shell: Shell
) -> None:
    async with LoopbackServer(reactor) as server:
        for url in (server.url, server.tls_url):
            done = await shell.run("check", url)
            pin = done.out.rpartition("--fingerprint ")[2].strip()
            pinned = await shell.run("check", url, "--fingerprint", pin)
            assert (done.status, pinned.status) == (77, 0)
            assert "its issuer is not known" in done.err
            assert "CN=twisted_sendmail throw-away CA" in done.out
            assert "by its fingerprint" in pinned.out
            key = pinned.out.partition("public key")[2].split()[0]
            by_key = await shell.run(
                "check", url, "--public-key", "00" * 32, "--public-key", key, "--json"
            )
            assert by_key.json["tls"]["verified_by"] == "public-key"
            assert (by_key.json["tls"]["identity"], by_key.status) == (key, 0)


@ensureDeferred
async def test_a_wrong_password_is_found_without_sending(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users={"alice": "another"}) as server:
        url = server.url.replace("://", "://alice@")
        words = [url, "--ca-file", server.ca_file, "--password-file", shell.password]
        done = await shell.run("check", "--json", *words)
    assert (
        done.status,
        done.json["usable"],
        done.json["error"]["class"],
    ) == (77, False, "AuthenticationFailed")
    assert "SIZE" in done.json["offered"]


@ensureDeferred
async def test_a_server_without_starttls_is_wrong_unless_clear_text_is_requested(
    scripted: ScriptedServer, shell: Shell
) -> None:
    starttls = await shell.run("check", scripted.url.replace("smtp:", "smtp+starttls:"))
    clear = await shell.run("check", scripted.url)
    assert (starttls.status, clear.status) == (69, 0)
    assert "no password and no mail was sent in clear" in starttls.err
    assert "no TLS: everybody on the network path" in clear.out


@ensureDeferred
async def test_replies_do_not_control_the_terminal(scripted: ScriptedServer, shell: Shell) -> None:
    """`Shell` looks at every run for control characters."""
    scripted.replies["greeting"] = b"220 \x1b[2J hi"
    scripted.replies["EHLO"] = (
        b"250-\x1b]0;owned\x07\r\n250-SIZE \x1b[31m\r\n250 AUTH [bold]\x1b[1m"
    )
    text = await shell.run("check", "--verbose", scripted.url)
    json = await shell.run("check", "--json", scripted.url)
    assert (text.status, json.status) == (0, 0)
    assert "\\x1b]0;owned\\x07" in text.out
