"""AUTH: only 235 is success, every refusal has its class, and no secret is shown."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest

from tests.client.conftest import Net, secrets
from tests.client.scripted_server import CLOSE, PASSWORD, SILENT, USER
from twisted_sendmail import (
    MECHANISMS,
    AuthenticationError,
    AuthenticationFailed,
    AuthenticationRejected,
    ConnectionClosed,
    Credentials,
    EncryptionRequired,
    InvalidBase64,
    Mechanism,
    ProtocolBreach,
    SendmailError,
    SendTimeout,
    ServerNotAuthentic,
    ServiceClosing,
    TemporaryAuthenticationFailure,
    UnexpectedResponse,
    UnsupportedMechanism,
    WeakMechanism,
)
from twisted_sendmail.sasl import MAX_ROUNDS, Secret, Token, TokenSource


def refused(net: Net, server: Any, **settings: Any) -> SendmailError:
    """Send; nothing but AUTH may have been said."""
    result = net.send(server, **settings)
    assert result.fired == 1
    assert not any(line.startswith(("MAIL", "RCPT", "DATA")) for line in server.lines)
    error: SendmailError = result.error
    assert error.report is None or len(error.report.outcomes) == len(error.report.untouched)
    return error


@pytest.mark.parametrize(
    ("code", "expected", "transient"),
    [
        (400, TemporaryAuthenticationFailure, True),
        (421, ServiceClosing, True),
        (432, TemporaryAuthenticationFailure, True),
        (454, TemporaryAuthenticationFailure, True),
        (500, AuthenticationRejected, False),
        (501, AuthenticationRejected, False),
        (503, AuthenticationRejected, False),
        (504, UnsupportedMechanism, False),
        (530, EncryptionRequired, False),
        (534, WeakMechanism, False),
        (535, AuthenticationFailed, False),
        (538, EncryptionRequired, False),
        (550, AuthenticationRejected, False),
        (220, UnexpectedResponse, True),
        (250, UnexpectedResponse, True),
        (354, UnexpectedResponse, True),
    ],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_every_code_but_235_is_a_no(
    net: Net, mechanism: str, code: int, expected: type[SendmailError], transient: bool
) -> None:
    """And each has its class, whether it comes to AUTH or to a response."""
    key = "AUTH" if mechanism == "PLAIN" else "AUTH_LINE#2"
    server = net.server(
        {key: f"{code} text", "AUTH_LINE#1": "334 UGFzc3dvcmQ6"}, secure=(f"AUTH {mechanism}",)
    )
    error = refused(net, server)
    assert (expected, transient) == (type(error), error.transient)
    assert code == error.reply.code  # type: ignore[union-attr]


def test_a_password_is_tried_once(net: Net) -> None:
    """Not again by itself, nor with another mechanism."""
    server = net.server({"AUTH": "535 5.7.8 no"}, secure=("AUTH PLAIN LOGIN",))
    refused(net, server)
    assert sum(line.startswith("AUTH") for line in server.lines) == 1
    assert net.endpoint.attempts == 1


@pytest.mark.parametrize("code", [504, 534])
@pytest.mark.parametrize("at", ["AUTH#1", "AUTH_LINE#1"])
def test_a_refused_mechanism_is_followed_by_the_next_one(net: Net, code: int, at: str) -> None:
    """The refusal may come after a challenge."""
    script = {"AUTH#1": "334 cj14LHM9eCxpPTE=", at: f"{code} 5.7.9 not for you", "AUTH#2": "235 ok"}
    server = net.server(script, secure=("AUTH X-FIRST PLAIN",))

    class First(Mechanism):
        name = "X-FIRST"

        def start(self) -> bytes:
            return b"nothing secret"

        def respond(self, challenge: bytes) -> bytes:
            return b"nothing secret"

    net.send(server, mechanisms={"X-FIRST": lambda _: First(), **MECHANISMS}).get()
    asked = [line.split()[1] for line in server.lines if line.startswith("AUTH")]
    assert asked == ["X-FIRST", "PLAIN"]


def test_when_every_mechanism_is_refused_the_last_refusal_is_raised(net: Net) -> None:
    server = net.server(
        {"AUTH#1": "504 5.5.4 one", "AUTH#2": "534 5.7.9 two"}, secure=("AUTH PLAIN LOGIN",)
    )
    error = refused(net, server)
    assert (type(error), error.reply.lines[0]) == (WeakMechanism, "5.7.9 two")  # type: ignore[union-attr]
    assert sum(line.startswith("AUTH") for line in server.lines) == 2


def test_a_password_that_another_one_has_to_replace_is_sent_once(net: Net) -> None:
    """It would count as two failed logins."""
    reply = "534 5.7.9 Application-specific password required"
    server = net.server({"AUTH": reply}, secure=("AUTH LOGIN PLAIN",))
    assert "Application-specific password required" in str(refused(net, server))
    assert sum(line.startswith("AUTH") for line in server.lines) == 1


def test_the_end_of_the_session_after_a_refusal_does_not_hide_it(net: Net) -> None:
    server = net.server(
        {"AUTH#1": "504 5.5.4 no", "AUTH#2": ("421 4.7.0 too many errors", CLOSE)},
        secure=("AUTH PLAIN LOGIN",),
    )
    assert isinstance(refused(net, server), UnsupportedMechanism)


@pytest.mark.parametrize(
    "offer", ["AUTH plain", "auth PLAIN PLAIN", "AUTH=PLAIN", "AUTH X-NONE\r\n250-AUTH=Plain"]
)
def test_the_list_is_read_in_any_case_and_form(net: Net, offer: str) -> None:
    net.send(net.server(secure=tuple(offer.split("\r\n250-")))).get()


@pytest.mark.parametrize("secure", [(), ("AUTH",), ("AUTH GSSAPI NTLM",), ("AUTHPLAIN",)])
def test_mail_that_was_to_be_authenticated_never_goes_without(
    net: Net, secure: tuple[str, ...]
) -> None:
    server = net.server(secure=("PIPELINING", *secure))
    assert isinstance(refused(net, server), UnsupportedMechanism)
    assert not any(line.startswith("AUTH") for line in server.lines)


def test_login_does_not_judge_prompts(net: Net) -> None:
    prompts = {
        "AUTH": "334 " + b64encode(b"who are you?").decode(),
        "AUTH_LINE#1": "334 ",
        "AUTH_LINE#2": "235 ok",
    }
    server = net.server(prompts, secure=("AUTH LOGIN",))
    net.send(server).get()
    said = [b64decode(line).decode() for line in server.lines[4:6]]
    assert said == [USER, PASSWORD]


def test_the_server_does_not_choose_the_authorization_identity(net: Net) -> None:
    """A challenge to PLAIN that is not empty is not answered."""
    server = net.server(
        {"AUTH": "334 " + b64encode(b"admin").decode(), "AUTH_LINE": "501 cancelled"}
    )
    assert isinstance(refused(net, server), AuthenticationRejected)
    assert "*" in server.lines


# -- challenges


@pytest.mark.parametrize(
    ("challenge", "expected"),
    [
        (b"334 ???\r\n", InvalidBase64),
        (b"334 YQ\r\n", InvalidBase64),
        (b"334 Y Q = =\r\n", InvalidBase64),
        (b"334 \xc3\xa4\xc3\xa4\r\n", InvalidBase64),
        (b"334-YQ==\r\n334 YQ==\r\n", AuthenticationRejected),
        (b"334 " + b"A" * 12_288 + b"\r\n", AuthenticationRejected),
    ],
)
def test_a_challenge_that_cannot_be_answered_is_cancelled(
    net: Net, challenge: bytes, expected: type[SendmailError]
) -> None:
    server = net.server({"AUTH": challenge, "AUTH_LINE": "501 5.7.0 cancelled"})
    error = refused(net, server)
    assert type(error) is expected
    assert server.lines[-2:] == ["*", "QUIT"]


@pytest.mark.parametrize("user", ["Username:", "", "VXNlcm5hbWU6", "gib den Namen \u00e4", "YQ"])
@pytest.mark.parametrize("password", ["Password:", "UGFzc3dvcmQ6"])
def test_a_prompt_of_login_need_not_be_base64(net: Net, user: str, password: str) -> None:
    answers = {"AUTH": f"334 {user}", "AUTH_LINE#1": f"334 {password}", "AUTH_LINE#2": "235 ok"}
    server = net.server(answers, secure=("AUTH LOGIN",))
    assert net.send(server).get().accepted
    said = [b64decode(line).decode() for line in server.lines[4:6]]
    assert said == [USER, PASSWORD]


def test_an_endless_exchange_is_cancelled_after_a_few_rounds(net: Net) -> None:
    """By a mechanism that would answer for ever."""
    from twisted_sendmail import Mechanism

    class Patient(Mechanism):
        name = "X-PATIENT"

        def start(self) -> None:
            return None

        def respond(self, challenge: bytes) -> bytes:
            return b"go on"

    server = net.server(
        {"AUTH": "334 ", "AUTH_LINE": lambda s, line: "501 ok" if line == "*" else "334 "},
        secure=("AUTH X-PATIENT",),
    )
    error = refused(net, server, mechanisms={"X-PATIENT": lambda _: Patient()})
    assert isinstance(error, AuthenticationRejected)
    assert (
        server.lines.count(b64encode(b"go on").decode()),
        server.lines.count("*"),
    ) == (MAX_ROUNDS, 1)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_one_prompt_too_many_is_cancelled(net: Net, mechanism: str) -> None:
    server = net.server(
        {"AUTH": "334 ", "AUTH_LINE": lambda s, line: "501 ok" if line == "*" else "334 "},
        secure=(f"AUTH {mechanism}",),
    )
    assert isinstance(refused(net, server), AuthenticationRejected)
    assert "*" in server.lines


def test_a_challenge_of_8_mb_ends_the_connection_early(net: Net) -> None:
    server = net.server({"AUTH": b"334 " + b"QUFB" * 2_000_000 + b"\r\n"})
    assert isinstance(refused(net, server), ProtocolBreach)


def test_a_challenge_behind_235_ends_the_connection(net: Net) -> None:
    server = net.server({"AUTH": b"235 ok\r\n334 YQ==\r\n"})
    assert isinstance(refused(net, server), ProtocolBreach)


@pytest.mark.parametrize("end", ["250 ok", "235 yes", CLOSE, "garbage", SILENT, "421 bye"])
def test_why_an_exchange_was_cancelled_is_told_whatever_the_answer_to_that(
    net: Net, end: Any
) -> None:
    server = net.server({"AUTH": "334 ???", "AUTH_LINE": end})
    result = net.send(server)
    net.pump.advance(400)
    assert isinstance(result.error, InvalidBase64)
    assert not any(line.startswith("MAIL") for line in server.lines)


# -- servers that have to prove themselves


def test_235_without_proof_is_not_believed(net: Net) -> None:
    """SCRAM: the server has not shown that it knows the password."""
    server = net.server({"AUTH": "235 welcome"}, secure=("AUTH SCRAM-SHA-256",))
    assert isinstance(refused(net, server), ServerNotAuthentic)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("r=not-ours,s=c2FsdA==,i=4096", ServerNotAuthentic),
        ("r={nonce},s=c2FsdA==,i=4096", ServerNotAuthentic),
        ("r={nonce}x,s=c2FsdA==,i=1", ServerNotAuthentic),
        ("r={nonce}x,s=c2FsdA==,i=-1", AuthenticationRejected),
        ("r={nonce}x,s=c2FsdA==,i=2147483648", AuthenticationRejected),
        ("", AuthenticationRejected),
    ],
)
def test_scram_asks_for_what_is_safe_only(
    net: Net, first: str, expected: type[AuthenticationError]
) -> None:
    def reply(server: Any, line: str) -> str:
        nonce = b64decode(line.split()[2]).decode().rpartition("r=")[2]
        return "334 " + b64encode(first.replace("{nonce}", nonce).encode()).decode()

    server = net.server({"AUTH": reply, "AUTH_LINE": "501 ok"}, secure=("AUTH SCRAM-SHA-256",))
    assert type(refused(net, server)) is expected
    assert "*" in server.lines


@pytest.mark.parametrize("last", ["v=", "v=AAAA", "x=y", "", "235"])
def test_a_wrong_server_signature_is_not_believed(net: Net, last: str) -> None:
    def reply(server: Any, line: str) -> str:
        nonce = b64decode(line.split()[2]).decode().rpartition("r=")[2]
        return "334 " + b64encode(f"r={nonce}x,s=c2FsdA==,i=4096".encode()).decode()

    final = "235 fine" if last == "235" else "334 " + b64encode(last.encode()).decode()
    answers = {"AUTH": reply, "AUTH_LINE#1": final, "AUTH_LINE#2": "501 ok"}
    server = net.server(answers, secure=("AUTH SCRAM-SHA-256",))
    assert isinstance(refused(net, server), ServerNotAuthentic)


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_refused_token_is_explained_and_the_535_told(net: Net, mechanism: str) -> None:
    why = b64encode(b'{"status":"401","schemes":"bearer","scope":"mail"}').decode()
    server = net.server(
        {"AUTH": f"334 {why}", "AUTH_LINE": "535 5.7.8 bad token"}, secure=(f"AUTH {mechanism}",)
    )
    error = refused(net, server, credentials=Credentials(USER, token=PASSWORD))
    assert isinstance(error, AuthenticationFailed)
    assert ("535 5.7.8 bad token" in str(error), "status 401" in str(error)) == (True, True)
    assert "*" not in server.lines


class Tokens(TokenSource):
    """Gives the first token until it has to refresh it, and then the next one."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked: list[bool] = []

    async def get(self, *, force_refresh: bool = False) -> Token:
        self.asked.append(force_refresh)
        if force_refresh and len(self.tokens) > 1:
            del self.tokens[0]
        return Token(Secret(self.tokens[0]))


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("answer", ["535 5.7.8 expired", "334 eyJzdGF0dXMiOiI0MDEifQ=="])
def test_a_token_is_refreshed_after_a_refusal(net: Net, mechanism: str, answer: str) -> None:
    tokens = Tokens("old", "new")
    server = net.server(
        {"AUTH#1": answer, "AUTH#2": "235 ok", "AUTH_LINE": "535 5.7.8 expired"},
        secure=(f"AUTH {mechanism}",),
    )
    result = net.send(server, credentials=Credentials(USER, token=tokens))
    assert result.error is None
    logins = [b64decode(line.split()[2]) for line in server.lines if line.startswith("AUTH ")]
    assert [b"Bearer old" in logins[0], b"Bearer new" in logins[1], len(logins)] == [True, True, 2]
    assert tokens.asked == [False, False, True]


@pytest.mark.parametrize(
    ("tokens", "code", "logins", "asked"),
    [
        (("old", "new", "newer"), 535, 2, [False, False, True]),
        (("only",), 535, 1, [False, False, True]),
        (("old", "new"), 454, 1, [False]),
    ],
    ids=["all are refused", "there is no other", "the server cannot tell now"],
)
def test_a_token_is_refreshed_once_and_only_if_it_was_refused(
    net: Net, tokens: tuple[str, ...], code: int, logins: int, asked: list[bool]
) -> None:
    source = Tokens(*tokens)
    server = net.server({"AUTH": f"{code} 5.7.8 no"}, secure=("AUTH XOAUTH2",))
    error = refused(net, server, credentials=Credentials(USER, token=source))
    assert error.reply is not None
    found = (error.reply.code, sum(line.startswith("AUTH") for line in server.lines))
    assert (*found, source.asked) == (code, logins, asked)


def test_a_token_that_another_connection_refreshed_is_used_without_a_refresh(net: Net) -> None:
    class Refreshed(Tokens):
        async def get(self, *, force_refresh: bool = False) -> Token:
            token = await super().get(force_refresh=force_refresh)
            self.tokens = ["new"]
            return token

    tokens = Refreshed("old")
    server = net.server(
        {"AUTH#1": "535 5.7.8 expired", "AUTH#2": "235 ok"}, secure=("AUTH XOAUTH2",)
    )
    assert net.send(server, credentials=Credentials(USER, token=tokens)).error is None
    assert tokens.asked == [False, False]


def test_a_mechanism_that_raises_is_told_and_the_connection_closed(net: Net) -> None:
    class Odd(Exception):
        pass

    def factory(_: Any) -> Any:
        raise Odd

    result = net.send(net.server(), mechanisms={"PLAIN": factory})
    assert isinstance(result.error, Odd)


# -- secrets


def shown(net: Net, error: BaseException | None) -> str:
    """All that anybody could get to see."""
    texts = [*net.watched]
    while error is not None:
        texts += [str(error), repr(error), repr(vars(error))]
        texts += [
            str(getattr(error, name, ""))
            for name in ("transcript", "reply", "report", "detail", "remedy")
        ]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


WIRE = b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()


@pytest.mark.parametrize("echo", [PASSWORD, b64encode(PASSWORD.encode()).decode(), WIRE])
@pytest.mark.parametrize(
    "answers",
    [
        {"AUTH": "535 5.7.8 {} is wrong"},
        {"AUTH": "535-5.7.8 no\r\n535 5.7.8 {}"},
        {"AUTH": "{}"},
        {"AUTH": "421 {}"},
        {"AUTH": "250 {}"},
        {"AUTH": "334 {}", "AUTH_LINE": "501 {}"},
        {"AUTH": "334-{}\r\n334 x", "AUTH_LINE": "501 {}"},
        {"AUTH": "235 welcome {}", "MAIL": "550 {}"},
        {"AUTH": "235 welcome", "RCPT": "550 {}"},
        {"AUTH": "235 welcome", "DATA": "334 {}"},
        {"AUTH": "235 welcome", ".": "250 queued as {}"},
        {"AUTH": "235 welcome", ".": "354 {}"},
        {"AUTH": "235 welcome", "MAIL": "2x {}"},
        {"AUTH": "235 welcome\r\n334 {}"},
    ],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_password_the_server_echoes_is_never_seen(
    net: Net, answers: dict[str, str], echo: str, mechanism: str
) -> None:
    answers = {k: v.replace("{}", echo) for k, v in answers.items()}
    if mechanism == "LOGIN":
        # What was never on the wire the server cannot have from us.
        echo = echo if echo != WIRE else b64encode(PASSWORD.encode()).decode()
        answers = {k: v.replace(WIRE, echo) for k, v in answers.items()}
        answers["AUTH_LINE#2"], answers["AUTH"] = answers["AUTH"], "334 "
        answers["AUTH_LINE#1"] = "334 "
    server = net.server(answers, secure=("PIPELINING", f"AUTH {mechanism}"))
    result = net.send(server)
    report = str(result.value) + str(getattr(result.value, "transcript", "")) + repr(result.value)
    text = shown(net, result.error) + report
    assert [secret for secret in secrets() if secret in text] == []


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_the_server_echoes_is_never_seen(net: Net, mechanism: str) -> None:
    why = b64encode(f'{{"status":"401","error":"{PASSWORD}"}}'.encode()).decode()
    server = net.server(
        {"AUTH": f"334 {why}", "AUTH_LINE": f"535 {PASSWORD}"}, secure=(f"AUTH {mechanism}",)
    )
    error = refused(net, server, credentials=Credentials(USER, token=PASSWORD))
    assert [secret for secret in secrets() if secret in shown(net, error)] == []


def test_a_challenge_may_not_carry_the_password_into_an_error(net: Net) -> None:
    """SCRAM: the server's own error message."""
    text = b64encode(f"e={PASSWORD}".encode()).decode()
    server = net.server(
        {"AUTH": f"334 {text}", "AUTH_LINE": "535 no"}, secure=("AUTH SCRAM-SHA-256",)
    )
    error = refused(net, server)
    assert [secret for secret in secrets() if secret in shown(net, error)] == []


def test_a_lost_connection_in_the_exchange_says_so(net: Net) -> None:
    server = net.server({"AUTH": CLOSE})
    error = refused(net, server)
    assert (ConnectionClosed, "AUTH") == (type(error), error.phase)


def test_a_silent_exchange_ends(net: Net) -> None:
    result = net.send(net.server({"AUTH": SILENT}))
    net.pump.advance(301)
    assert (SendTimeout, "AUTH") == (type(result.error), result.error.phase)
