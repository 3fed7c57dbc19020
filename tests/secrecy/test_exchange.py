"""No octet of a SASL exchange is in any output."""

from __future__ import annotations

import re
import smtplib
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.python.failure import Failure

import twisted_sendmail
from tests.ports import free_port
from tests.secrecy import peer as scripts
from tests.secrecy.peer import PASSWORD, TOKEN, USER, Peer, encoded
from twisted_sendmail import Credentials, SendmailError, SubmissionServer, TLSTrust, submit
from twisted_sendmail.testing import BackgroundServer, faults

BODY = b"From: a@example.org\r\nTo: b@example.net\r\n\r\nhello\r\n"
PRODUCT = str(Path(twisted_sendmail.__file__).parent)
COMMAND = str(Path(sys.executable).parent / "twisted-sendmail")
TWISTD = str(Path(sys.executable).parent / "twistd")

MECHANISMS = {
    "PLAIN": scripts.plain,
    "LOGIN": scripts.login,
    "SCRAM-SHA-256": scripts.scram,
    "XOAUTH2": scripts.bearer,
    "OAUTHBEARER": scripts.bearer,
    "CRAM-MD5": scripts.cram,
}


def credentials(mechanism: str, password: str = PASSWORD, token: str = TOKEN) -> Credentials:
    if "OAUTH" in mechanism:
        return Credentials(USER, token=token)
    return Credentials(USER, password, mechanisms=[mechanism])


def everything(error: BaseException | None) -> str:
    """All that a program could show of *error*: texts, chain, and the locals of our frames."""
    shown: list[str] = []
    while error is not None:
        shown += [str(error), repr(error), repr(error.args), repr(vars(error))]
        for name in ("transcript", "reply", "report", "detail", "remedy", "command"):
            value = getattr(error, name, None)
            shown += [str(value), repr(value)]
        failure = Failure(error, type(error), error.__traceback__, captureVars=True)
        for _, filename, _, local, _ in failure.frames:
            if filename.startswith(PRODUCT):
                shown += [repr(value) for _, value in local]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


async def session(
    reactor: Any, peer: Peer, who: Credentials, trust: TLSTrust | None = None
) -> tuple[str, twisted_sendmail.DeliveryReport | SendmailError]:
    """Send one message; all that can be seen of it, and what came of it."""
    watched: list[str] = []
    server = SubmissionServer(
        "localhost",
        peer.port,
        twisted_sendmail.TLSPolicy.IMPLICIT,
        trust=trust or TLSTrust(ca_file=peer.ca_file),
        credentials=who,
        watch=watched.append,
    )
    try:
        result = await submit(reactor, server, BODY)
    except SendmailError as error:
        return "\n".join([*watched, repr(server), everything(error)]), error
    texts = [str(result.transcript), repr(result), *map(str, result.outcomes)]
    return "\n".join([*watched, repr(server), *texts]), result


def found(secrets: set[str], shown: str) -> list[str]:
    """Those of *secrets* that are in *shown*."""
    return sorted(secret for secret in secrets if secret in shown)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@ensureDeferred
async def test_nothing_of_an_exchange_is_shown(
    reactor: Any, tmp_path: Path, mechanism: str
) -> None:
    with Peer(tmp_path, mechanism, MECHANISMS[mechanism]) as peer:
        shown, result = await session(reactor, peer, credentials(mechanism))

    assert isinstance(result, twisted_sendmail.DeliveryReport)
    assert f"C: AUTH {mechanism}" in shown
    assert "S: 235 2.7.0 ****" in shown
    assert found(peer.secrets, shown) == []


@ensureDeferred
async def test_challenges_are_masked(reactor: Any, tmp_path: Path) -> None:
    with Peer(tmp_path, "SCRAM-SHA-256", scripts.scram) as peer:
        shown, _ = await session(reactor, peer, credentials("SCRAM-SHA-256"))

    assert shown.count("S: 334 ****") == 4  # twice, watched and in the transcript
    assert {line for line in shown.splitlines() if line.startswith("S: 334")} == {"S: 334 ****"}


def echoes(peer: Peer) -> list[bytes]:
    """Ways to quote what the client has just sent."""
    wire, said = encoded(peer.last), peer.last
    forms = [
        wire,
        wire[:12],
        wire.lower(),
        said.rstrip(b"\1").split(b"\0")[-1],
        wire.hex().encode(),
    ]
    forms += [encoded(b"you said: " + said + b"!"), wire.replace(b"=", b"%3D")]
    return [re.sub(rb"[\r\n\0\1]", b" ", form) for form in forms]


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("form", range(7))
@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "SCRAM-SHA-256"])
@ensureDeferred
async def test_a_refusal_that_quotes_loses_its_text(
    reactor: Any, tmp_path: Path, mechanism: str, form: int, cut: int
) -> None:
    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        if mechanism == "SCRAM-SHA-256":
            yield from (step for step, _ in zip(scripts.scram(peer, first), range(2), strict=False))
        echo = echoes(peer)[form]
        peer.keep(echo)
        yield b"535-5.7.8 no:\r\n535 5.7.8 got '" + echo + b"'\r\n"

    if mechanism == "SCRAM-SHA-256" and form:
        return  # its last response has no other form
    with Peer(tmp_path, mechanism, script, cut=cut) as peer:
        shown, error = await session(reactor, peer, credentials(mechanism))

    assert isinstance(error, SendmailError)
    assert found(peer.secrets, shown) == []
    if mechanism != "SCRAM-SHA-256":
        assert "535 5.7.8 ****" in str(error)


@pytest.mark.parametrize("verb", [b"MAIL", b"."])
@ensureDeferred
async def test_the_digest_of_cram_md5_is_not_shown_when_a_later_reply_quotes_it(
    reactor: Any, tmp_path: Path, verb: bytes
) -> None:
    then = {verb: b""}

    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        yield peer.challenge(b"<1896.697170952@mx.example.net>")
        digest = peer.last.rpartition(b" ")[2]
        peer.keep(digest)
        then[verb] = b"550 5.7.1 no " + digest + b"\r\n"
        yield b"235 2.7.0 ok\r\n"

    with Peer(tmp_path, "CRAM-MD5", script, then=then) as peer:
        shown, error = await session(reactor, peer, credentials("CRAM-MD5"))

    assert "550 5.7.1 ****" in str(error)
    assert found(peer.secrets, shown) == []


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "EXTERNAL"])
@ensureDeferred
async def test_a_user_name_is_no_secret_of_the_exchange(
    reactor: Any, tmp_path: Path, mechanism: str
) -> None:
    refused = f"550 5.7.1 {USER} may not use this sender\r\n".encode()
    script = {"CRAM-MD5": scripts.cram, "EXTERNAL": scripts.external}[mechanism]
    with Peer(tmp_path, mechanism, script, then={b"MAIL": refused}) as peer:
        who = credentials(mechanism)
        trust = None
        if mechanism == "EXTERNAL":
            who = Credentials(USER, mechanisms=["EXTERNAL"])
            trust = TLSTrust(peer.ca_file, client_certificate=peer.ca_file.replace("ca", "server"))
        _, error = await session(reactor, peer, who, trust)

    assert refused.decode().rstrip() in str(error)


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "EXTERNAL"])
@ensureDeferred
async def test_a_refused_login_may_name_the_user(
    reactor: Any, tmp_path: Path, mechanism: str
) -> None:
    refused = f"535 5.7.8 {USER} is locked\r\n".encode()

    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        if mechanism == "CRAM-MD5":
            yield peer.challenge(b"<1896.697170952@mx.example.net>")
        yield refused

    with Peer(tmp_path, mechanism, script) as peer:
        who = credentials(mechanism)
        trust = None
        if mechanism == "EXTERNAL":
            who = Credentials(USER, mechanisms=["EXTERNAL"])
            trust = TLSTrust(peer.ca_file, client_certificate=peer.ca_file.replace("ca", "server"))
        _, error = await session(reactor, peer, who, trust)

    assert refused.decode().rstrip() in str(error)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
@ensureDeferred
async def test_a_refusal_that_says_what_to_do_keeps_its_text(
    reactor: Any, tmp_path: Path, mechanism: str
) -> None:
    why = b"534 5.7.9 Username tester@example.org needs an application-specific password\r\n"

    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        if mechanism == "LOGIN":
            yield peer.challenge(b"Username:")
            yield peer.challenge(b"Password:")
        yield why

    with Peer(tmp_path, mechanism, script) as peer:
        shown, error = await session(reactor, peer, credentials(mechanism))

    assert why.decode().rstrip() in str(error)
    assert found(peer.secrets, shown) == []


@pytest.mark.parametrize("piece", ["nonce", "salt", "count", "signature"])
@ensureDeferred
async def test_a_refusal_that_quotes_a_challenge_loses_its_text(
    reactor: Any, tmp_path: Path, piece: str
) -> None:
    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        exchange = scripts.scram(peer, first)
        challenge = next(exchange)
        yield challenge
        quoted = {
            "nonce": b"rOprNGfwEbeRWgbN",
            "salt": encoded(scripts.SALT),
            "count": str(scripts.ITERATIONS).encode(),
            "signature": challenge[4:-2],
        }[piece]
        peer.keep(quoted)
        yield b"535 5.7.8 bad (" + quoted + b")\r\n"

    with Peer(tmp_path, "SCRAM-SHA-256", script) as peer:
        shown, error = await session(reactor, peer, credentials("SCRAM-SHA-256"))

    assert isinstance(error, SendmailError)
    assert found(peer.secrets, shown) == []


@pytest.mark.parametrize(
    "quoted", [TOKEN.encode(), encoded(TOKEN), encoded(f"Bearer {TOKEN}"), TOKEN.encode()[:14]]
)
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@ensureDeferred
async def test_an_oauth_error_that_quotes_the_token_is_not_told(
    reactor: Any, tmp_path: Path, mechanism: str, quoted: bytes
) -> None:
    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        peer.keep(quoted)
        yield peer.challenge(b'{"status":"401","error_description":"bad: ' + quoted + b'"}')
        yield b"535 5.7.8 bad token\r\n"

    with Peer(tmp_path, mechanism, script) as peer:
        shown, error = await session(reactor, peer, credentials(mechanism))

    assert "535 5.7.8 bad token" in str(error)
    assert found(peer.secrets, shown) == []


@ensureDeferred
async def test_an_oauth_error_that_does_not_quote_is_told(reactor: Any, tmp_path: Path) -> None:
    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        yield b"334 " + encoded('{"status":"401","scope":"mail.send"}') + b"\r\n"
        yield b"535 5.7.8 bad token\r\n"

    with Peer(tmp_path, "OAUTHBEARER", script) as peer:
        _, error = await session(reactor, peer, credentials("OAUTHBEARER"))

    assert "status 401, scope mail.send" in str(error)


@pytest.mark.parametrize("last", [b"334 dj1mb3JnZWQtc2lnbmF0dXJl\r\n", b"334 ????rOprNGfw\r\n"])
@ensureDeferred
async def test_an_exchange_that_is_broken_off_shows_nothing(
    reactor: Any, tmp_path: Path, last: bytes
) -> None:
    """The error of the mechanism, with the locals of every frame of ours in its traceback."""

    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        yield next(scripts.scram(peer, first))
        peer.keep(last[4:-2], b"forged-signature")
        yield last
        yield b"501 5.7.0 cancelled\r\n"

    with Peer(tmp_path, "SCRAM-SHA-256", script) as peer:
        shown, error = await session(reactor, peer, credentials("SCRAM-SHA-256"))

    assert isinstance(error, SendmailError)
    assert found(peer.secrets, shown) == []


@pytest.mark.parametrize("verb", [b"MAIL", b"RCPT", b"DATA", b"."])
@pytest.mark.parametrize("reply", ["550 5.7.1 {0}\r\n", "550-x\r\n550 {1}\r\n", "{1}\r\n"])
@ensureDeferred
async def test_a_later_reply_that_quotes_the_password_loses_its_text(
    reactor: Any, tmp_path: Path, verb: bytes, reply: str
) -> None:
    text = reply.format(PASSWORD, b64encode(PASSWORD.encode()).decode())
    with Peer(tmp_path, "PLAIN", scripts.plain, then={verb: text.encode()}, cut=5) as peer:
        peer.keep(encoded(PASSWORD), PASSWORD[5:].encode())
        shown, _ = await session(reactor, peer, credentials("PLAIN"))

    assert found(peer.secrets, shown) == []


@ensureDeferred
async def test_a_password_spread_over_two_lines_is_not_shown(reactor: Any, tmp_path: Path) -> None:
    half = f"550-5.1.1 {PASSWORD[:9]}\r\n550 {PASSWORD[9:]}\r\n".encode()
    with Peer(tmp_path, "PLAIN", scripts.plain, then={b"MAIL": half}) as peer:
        shown, _ = await session(reactor, peer, credentials("PLAIN"))

    assert found({PASSWORD[:9], PASSWORD[9:]}, shown) == []


# -- short secrets ------------------------------------------------------------


@pytest.mark.parametrize("password", ["x", "Qz", "Qz7", "é"])
@pytest.mark.parametrize("where", ["AUTH", "MAIL"])
@ensureDeferred
async def test_a_short_password_is_masked_like_a_long_one(
    reactor: Any, tmp_path: Path, password: str, where: str
) -> None:
    echo = f"550 5.7.8 not '{password}', {b64encode(password.encode()).decode()}\r\n".encode()

    def script(peer: Peer, first: bytes) -> Iterator[bytes]:
        yield echo if where == "AUTH" else b"235 ok\r\n"

    with Peer(tmp_path, "PLAIN", script, then={b"MAIL": echo}) as peer:
        shown, error = await session(reactor, peer, credentials("PLAIN", password))

    assert isinstance(error, SendmailError)
    assert "550 5.7.8 ****" in str(error)
    assert found({f"'{password}'", b64encode(password.encode()).decode()}, shown) == []


@ensureDeferred
async def test_with_a_short_password_the_queue_id_is_still_known(
    reactor: Any, tmp_path: Path
) -> None:
    with Peer(tmp_path, "PLAIN", scripts.plain) as peer:
        _, report = await session(reactor, peer, credentials("PLAIN", "u"))

    assert isinstance(report, twisted_sendmail.DeliveryReport)
    assert "queued as 4711X" in str(report.outcomes[0].reply)


# -- the server's side --------------------------------------------------------


@pytest.mark.parametrize("given", [PASSWORD, "wrong-guess-17"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_nothing_of_an_exchange_is_in_a_test_servers_dialogue(mechanism: str, given: str) -> None:
    with BackgroundServer(users={USER: PASSWORD}) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        with smtplib.SMTP_SSL("localhost", server.tls_port, context=context, timeout=30) as client:
            client.ehlo("client.example.org")
            client.user, client.password = USER, given
            authenticate = client.auth_plain if mechanism == "PLAIN" else client.auth_login
            try:
                client.auth(mechanism, authenticate)
            except smtplib.SMTPAuthenticationError:
                assert given != PASSWORD
        dialogue = "\n".join(server.sessions[0].dialogue)

    pieces = {given, *(encoded(x).decode() for x in (given, USER, f"\0{USER}\0{given}"))}
    assert f"C: AUTH {mechanism}" in dialogue
    assert found(pieces | {"VXNlcm5hbWU6", "UGFzc3dvcmQ6"}, dialogue) == []


def test_nothing_of_scram_is_in_a_test_servers_dialogue() -> None:
    with BackgroundServer(users={USER: PASSWORD}) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        with smtplib.SMTP_SSL("localhost", server.tls_port, context=context, timeout=30) as client:
            client.ehlo("client.example.org")
            first = encoded(f"n,,n={USER},r=fyko+d2lbbFgONRv").decode()
            code, challenge = client.docmd("AUTH SCRAM-SHA-256", first)
            assert code == 334
            final = encoded(b"c=biws,r=wrong,p=" + encoded("no proof of anything")).decode()
            client.docmd(final)
        dialogue = "\n".join(server.sessions[0].dialogue)

    assert found({first, challenge.decode(), final, "fyko+d2lbbFgONRv"}, dialogue) == []
    assert "S: 334 ****" in dialogue


@pytest.mark.parametrize(
    "stray", [PASSWORD, encoded(PASSWORD).decode(), "hunter2", f"AUTH {PASSWORD}", "HELP hunter2",
              "AUTH PLAIN hunter2", "aGVsbG8", "HUNTER2 x"],
)  # fmt: skip
def test_a_password_sent_as_a_command_is_not_in_the_dialogue(stray: str) -> None:
    """As a client does that goes on with LOGIN after a refusal."""
    with BackgroundServer(users={USER: PASSWORD}) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        with smtplib.SMTP_SSL("localhost", server.tls_port, context=context, timeout=30) as client:
            client.ehlo("client.example.org")
            code, text = client.docmd(stray)
            assert code >= 500 or stray.startswith("HELP")
        dialogue = "\n".join([*server.sessions[0].dialogue, text.decode()]).lower()

    words = {word.lower() for word in stray.split()} - {"auth", "plain", "help", "x"}
    assert found(words, dialogue) == []


def test_a_scripted_reply_that_quotes_is_masked_in_the_dialogue() -> None:
    wire = encoded(f"\0{USER}\0{PASSWORD}")
    scripted = [faults.send("AUTH", b"535 5.7.8 not " + wire + b"\r\n")]
    with BackgroundServer(users={USER: PASSWORD}, faults=scripted) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        with smtplib.SMTP_SSL("localhost", server.tls_port, context=context, timeout=30) as client:
            client.ehlo("client.example.org")
            assert client.docmd("AUTH PLAIN", wire.decode())[0] == 535
        dialogue = "\n".join(server.sessions[0].dialogue)

    assert wire.decode() not in dialogue
    assert "S: 535 5.7.8 ****" in dialogue


# -- programs -----------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_nothing_of_an_exchange_is_in_what_the_command_prints(
    tmp_path: Path, mechanism: str
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(TOKEN if "OAUTH" in mechanism else PASSWORD)
    with Peer(tmp_path, mechanism, MECHANISMS[mechanism]) as peer:
        words = [COMMAND, "send", "--verbose", "--server", peer.url, "--user", USER]
        words += ["--password-file", str(secret), "--ca-file", peer.ca_file]
        words += ["--bearer"] * ("OAUTH" in mechanism)
        words += ["--mechanism", mechanism] * (mechanism == "CRAM-MD5")
        done = subprocess.run(
            [*words, "--from", "a@example.org", "--to", "b@example.net"],
            input=BODY,
            capture_output=True,
            timeout=60,
            check=False,
        )

    shown = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, shown
    assert "S: 235 2.7.0 ****" in shown
    assert found(peer.secrets, shown) == []


def test_nothing_of_an_exchange_is_in_the_relays_dialogue(tmp_path: Path) -> None:
    (tmp_path / "password").touch(0o600)
    (tmp_path / "password").write_text(PASSWORD)
    port = free_port()
    with Peer(tmp_path, "SCRAM-SHA-256", scripts.scram) as peer:
        url = peer.url.replace("://", f"://{USER.replace('@', '%40')}@")
        (tmp_path / "relay.toml").write_text(
            f'name = "relay.example.org"\nqueue = "queue"\nlisten = ["tcp:127.0.0.1:{port}"]\n'
            f'[[smarthost]]\nurl = "{url}"\npassword-file = "password"\nca-file = "ca.pem"\n'
            "[log]\ndialogue = true\n"
        )
        words = [TWISTD, "-n", "--pidfile=", "sendmail", "--config", str(tmp_path / "relay.toml")]
        process = subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        log = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.append(line)
                if "accepting mail" in line:
                    with smtplib.SMTP(
                        "127.0.0.1", port, "client.example.org", timeout=30
                    ) as client:
                        client.sendmail("a@example.org", ["b@example.net"], BODY)
                if "queued as 4711X" in line:
                    break
        finally:
            process.terminate()
            rest, _ = process.communicate(timeout=60)
    shown = "".join(log) + rest
    assert "C: AUTH SCRAM-SHA-256 ****" in shown
    assert found(peer.secrets, shown) == []
