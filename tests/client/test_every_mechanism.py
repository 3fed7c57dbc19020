"""A hostile server at AUTH, or before it, for every mechanism: no mail, no second try, no secret in any output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.client.certificates import authority
from tests.client.conftest import Net
from tests.client.scripted_server import CLEAR, CLOSE, PASSWORD, RESET, SILENT, USER
from tests.client.test_tls import nothing_was_told
from twisted_sendmail import (
    MECHANISMS,
    AuthenticationError,
    CertificateRejected,
    Credentials,
    InvalidBase64,
    InvalidInput,
    InvalidServer,
    ProtocolBreach,
    SendmailError,
    ServerNotAuthentic,
    StartTLSUnavailable,
    TLSPolicy,
    TLSTrust,
    UnsupportedMechanism,
)
from twisted_sendmail.testing import Authority

TOKEN = "t0ken-of-the-tester"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's, for EXTERNAL."""
    path = tmp_path_factory.mktemp("certificate") / "client.pem"
    path.touch(0o600)
    path.write_bytes(Authority().issue(["tester"]))
    return path


class Attempt:
    """One message with one mechanism."""

    def __init__(self, net: Net, name: str, certificate: Path) -> None:
        self._net, self.name = net, name
        secret: dict[str, Any] = {"password": PASSWORD}
        if "OAUTH" in name:
            secret = {"token": TOKEN}
        elif name == "EXTERNAL":
            secret = {}
        self.settings = {
            "credentials": Credentials(USER, mechanisms=[name], **secret),
            "trust": TLSTrust(ca_file=net.trust.ca_file, client_certificate=certificate),
        }

    def fails(
        self, answers: Any, *, offer: str | None = None, wait: float = 0, **settings: Any
    ) -> SendmailError:
        """Send; return the error, when nothing wrong has been sent or shown."""
        offers = (f"AUTH {self.name}" if offer is None else offer,)
        server = self._net.server(answers, secure=("PIPELINING", *offers))
        result = self._net.send(server, **{**self.settings, **settings})
        if wait:
            self._net.pump.advance(wait)
        assert result.fired == 1
        error: SendmailError = result.error
        assert not [line for line in server.lines if line.startswith(("MAIL", "RCPT", "DATA"))]
        assert sum(line.startswith("AUTH") for line in server.lines) <= 1
        assert not error.in_doubt
        shown = "\n".join([str(error), repr(error), str(error.transcript), *self._net.watched])
        assert not [secret for secret in (PASSWORD, TOKEN) if secret in shown]
        return error


@pytest.fixture(params=MECHANISMS)
def attempt(net: Net, certificate: Path, request: pytest.FixtureRequest) -> Attempt:
    return Attempt(net, request.param, certificate)


@pytest.mark.parametrize(
    ("reply", "transient"),
    [
        ("250 ok", True),
        ("220 ready", True),
        ("354 go on", True),
        ("400 later", True),
        ("454 4.7.0 later", True),
        ("501 5.5.2 what?", False),
        ("503 5.5.1 again?", False),
        ("504 5.5.4 unknown", False),
        ("530 5.7.0 no", False),
        ("534 5.7.9 weak", False),
        ("535 5.7.8 no", False),
        ("538 5.7.11 clear", False),
        ("550 no", False),
    ],
)
def test_only_235_is_a_login(attempt: Attempt, reply: str, transient: bool) -> None:
    assert attempt.fails({"AUTH": reply}).transient is transient


def test_the_advice_after_a_refusal_fits_the_proof(attempt: Attempt) -> None:
    shown = str(attempt.fails({"AUTH": "535 5.7.8 no"}))
    bearer = "OAUTH" in attempt.name
    assert ("token" in shown, "certificate" in shown) == (bearer, attempt.name == "EXTERNAL")
    assert ("user name and password" in shown) is not (bearer or attempt.name == "EXTERNAL")


@pytest.mark.parametrize(
    "challenge",
    [
        b"334 ???\r\n",
        b"334 YQ\r\n",
        b"334-YQ==\r\n334 YQ==\r\n",
        b"334 " + b"A" * 12_292 + b"\r\n",
        b"334 " + b"QUFB" * 2_000_000 + b"\r\n",
    ],
    ids=["no base64", "cut base64", "two lines", "12 KB", "8 MB"],
)
def test_a_hostile_challenge_ends_the_exchange(attempt: Attempt, challenge: bytes) -> None:
    """LOGIN answers any text, as a prompt."""
    error = attempt.fails({"AUTH": challenge, "AUTH_LINE": "501 5.7.0 cancelled"})
    assert isinstance(error, AuthenticationError | InvalidBase64 | ProtocolBreach)


def test_endless_challenges_are_cancelled(attempt: Attempt) -> None:
    def more(_: object, line: str) -> str:
        return "501 cancelled" if line == "*" else "334 YQ=="

    assert isinstance(attempt.fails({"AUTH": "334 YQ==", "AUTH_LINE": more}), AuthenticationError)


def test_a_challenge_after_235_ends_the_connection(attempt: Attempt) -> None:
    """In SCRAM the 235 does not count either."""
    error = attempt.fails({"AUTH": b"235 ok\r\n334 YQ==\r\n"})
    assert isinstance(error, ProtocolBreach | ServerNotAuthentic)


@pytest.mark.parametrize("act", [CLOSE, RESET, SILENT, b"33", b"334 ", "421 4.3.2 bye"])
def test_the_end_of_the_connection_is_a_failure_in_time(attempt: Attempt, act: Any) -> None:
    assert attempt.fails({"AUTH": act}, wait=1000).transient


@pytest.mark.parametrize("offer", ["", "AUTH", "AUTH X-OTHER", "AUTHX {name}"])
def test_what_is_not_offered_is_not_tried(attempt: Attempt, offer: str) -> None:
    error = attempt.fails({}, offer=offer.format(name=attempt.name))
    assert isinstance(error, UnsupportedMechanism)


@pytest.mark.parametrize("offer", ["auth {lower}", "AUTH={name}", "AUTH {name} {name}"])
def test_the_offer_is_read_in_every_form(attempt: Attempt, offer: str) -> None:
    """The 535 shows that the mechanism was tried."""
    form = offer.format(name=attempt.name, lower=attempt.name.lower())
    error = attempt.fails({"AUTH": "535 5.7.8 no"}, offer=form)
    assert error.reply is not None
    assert error.reply.code == 535


@pytest.mark.parametrize("tls", [TLSPolicy.NONE, TLSPolicy.OPPORTUNISTIC])
def test_credentials_are_refused_in_clear_text(attempt: Attempt, tls: TLSPolicy) -> None:
    assert isinstance(attempt.fails({}, tls=tls), InvalidServer)


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ({"clear": ("AUTH {name}",)}, StartTLSUnavailable),
        ({"answers": {"STARTTLS": "454 4.7.0 later"}}, StartTLSUnavailable),
        ({"answers": {"STARTTLS": "502 5.5.1 what?"}}, StartTLSUnavailable),
        ({"answers": {"STARTTLS": b"220 go\r\n250-mx\r\n250 AUTH {name}\r\n"}}, ProtocolBreach),
        ({"answers": {"EHLO": "502 what?", "HELO": "250 mx"}}, StartTLSUnavailable),
        ({"clear": ("STARTTLS", "AUTH {name}"), "secure": ("PIPELINING",)}, UnsupportedMechanism),
        ({"context": "other.example.net"}, CertificateRejected),
    ],
    ids=["stripped", "later", "refused", "injected", "no EHLO", "in clear only", "wrong name"],
)
def test_no_login_begins_before_verified_tls(
    attempt: Attempt, net: Net, network: dict[str, Any], kind: type[SendmailError]
) -> None:
    name = attempt.name

    def named(words: Any) -> tuple[str, ...]:
        return tuple(word.format(name=name) for word in words)

    answers = {
        key: said.replace(b"{name}", name.encode()) if isinstance(said, bytes) else said
        for key, said in network.get("answers", {}).items()
    }
    server = net.server(
        answers,
        clear=named(network.get("clear", CLEAR)),
        secure=named(network.get("secure", ("AUTH {name}",))),
        context=authority().context(network["context"]) if "context" in network else None,
    )
    assert isinstance(net.send(server, **attempt.settings).error, kind)
    nothing_was_told(net)


@pytest.mark.parametrize("flaw", ["\r\n", "\0", "\x7f", "\ud800"])
def test_a_user_name_cannot_inject(attempt: Attempt, flaw: str) -> None:
    credentials: Credentials = attempt.settings["credentials"]  # type: ignore[assignment]
    for names in ({"username": f"a{flaw}b"}, {"username": "a", "authzid": f"a{flaw}b"}):
        with pytest.raises(InvalidInput):
            Credentials(**names, password=PASSWORD, mechanisms=credentials.mechanisms)
