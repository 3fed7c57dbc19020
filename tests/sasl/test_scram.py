"""SCRAM: the vectors of the RFCs, another implementation's server, and malicious servers."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramException, ScramMechanism

from tests.sasl.identities import with_password, with_token
from twisted_sendmail import (
    AuthenticationError,
    AuthenticationRejected,
    InvalidInput,
    ServerNotAuthentic,
)
from twisted_sendmail.sasl.scram import Scram, ScramSha1, ScramSha256, ScramSha512
from twisted_sendmail.sasl.scram_keys import MAX_ITERATIONS

ALL = [ScramSha1, ScramSha256, ScramSha512]

# RFC 5802 section 5.
SHA1_NONCE = "fyko+d2lbbFgONRv9qkxdawL"
SHA1_SERVER_FIRST = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"
SHA1_CLIENT_FINAL = (
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
)
SHA1_SERVER_FINAL = b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="

# RFC 7677 section 3.
SHA256_NONCE = "rOprNGfwEbeRWgbNEkqO"
SHA256_SERVER_FIRST = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
SHA256_CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SHA256_SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def at_server_first() -> Scram:
    """The client of RFC 5802's example, waiting for the server's first message."""
    client = ScramSha1(with_password(), nonce=SHA1_NONCE)
    client.start()
    return client


def at_server_final() -> Scram:
    """The client of RFC 5802's example, waiting for the server's last message."""
    client = at_server_first()
    client.respond(SHA1_SERVER_FIRST)
    return client


# -- servers that keep to it --------------------------------------------------


def test_sha_1_is_the_example_of_rfc_5802() -> None:
    client = ScramSha1(with_password(), nonce=SHA1_NONCE)

    assert client.start() == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    assert client.respond(SHA1_SERVER_FIRST) == SHA1_CLIENT_FINAL
    assert client.respond(SHA1_SERVER_FINAL) == b""
    client.succeeded()


def test_sha_256_is_the_example_of_rfc_7677() -> None:
    client = ScramSha256(with_password(), nonce=SHA256_NONCE)

    assert client.start() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert client.respond(SHA256_SERVER_FIRST) == SHA256_CLIENT_FINAL
    assert client.respond(SHA256_SERVER_FINAL) == b""
    client.succeeded()


def converse(client: Scram, password: str, iterations: int = 15_000) -> None:
    """Let another implementation's server, which knows *password*, talk to *client*."""
    mechanism = ScramMechanism(client.name)
    stored = mechanism.make_auth_info(password, iteration_count=iterations)
    server = mechanism.make_server(lambda username: stored)
    server.set_client_first(client.start().decode())
    client_final = client.respond(server.get_server_first().encode())
    server.set_client_final(client_final.decode())
    assert client.respond(server.get_server_final().encode()) == b""
    client.succeeded()


@pytest.mark.parametrize(
    ("mechanism", "iterations"),
    [*((each, 15_000) for each in ALL), (ScramSha1, 4096), (ScramSha256, 4096)],
)
def test_another_implementation_lets_us_in(mechanism: type[Scram], iterations: int) -> None:
    converse(mechanism(with_password()), "pencil", iterations)


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("comma,equals=", "a,b=c"),
        ("b\u00f6b", "p\u00e9ncil"),
        ("user", "I\u00adX\u2168"),  # SASLprep makes it IXIX
        ("user", "pass\u00a0word"),
        ("user", "\u05d0\u05d1"),
    ],
)
@pytest.mark.parametrize("mechanism", ALL)
def test_names_are_escaped_and_passwords_prepared(
    mechanism: type[Scram], username: str, password: str
) -> None:
    converse(mechanism(with_password(username, password)), password)


@settings(max_examples=20)
@given(password=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_any_password_that_saslprep_allows_lets_us_in(password: str) -> None:
    try:
        client = ScramSha256(with_password(password=password))
    except InvalidInput:
        return
    converse(client, password)


@pytest.mark.parametrize("mechanism", ALL)
def test_another_implementation_refuses_a_wrong_password(mechanism: type[Scram]) -> None:
    with pytest.raises(ScramException, match="invalid-proof"):
        converse(mechanism(with_password(password="wrong")), "pencil")


def test_the_authorization_identity_is_the_callers_and_is_in_the_proof() -> None:
    client = ScramSha1(with_password(authzid="a,b=c"), nonce=SHA1_NONCE)

    assert b"n,a=a=2Cb=3Dc,n=user,r=" + SHA1_NONCE.encode() == client.start()
    response = client.respond(SHA1_SERVER_FIRST)
    match = re.match(rb"c=([^,]+),", response)
    assert match is not None
    assert base64.b64decode(match[1]) == b"n,a=a=2Cb=3Dc,"


def test_each_exchange_has_its_own_nonce() -> None:
    nonces = {ScramSha256(with_password()).start() for _ in range(100)}

    assert len(nonces) == 100


def test_only_the_hashing_is_expensive() -> None:
    client = at_server_first()

    before, _, after = client.expensive, client.respond(SHA1_SERVER_FIRST), client.expensive

    assert (before, after) == (True, False)
    assert ScramSha1(with_password()).expensive


def test_respond_may_be_called_in_another_thread() -> None:
    client = at_server_first()
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(client.respond, SHA1_SERVER_FIRST).result()

    assert response == SHA1_CLIENT_FINAL
    assert client.respond(SHA1_SERVER_FINAL) == b""


def test_extensions_of_the_server_are_passed_over() -> None:
    client = at_server_first()

    response = client.respond(SHA1_SERVER_FIRST + b",x=later")

    assert response.startswith(b"c=biws,r=" + SHA1_NONCE.encode())


# -- servers that lie: the first message ----------------------------------------


def server_first(nonce: str = SHA1_NONCE + "3rf", salt: str = "QSXC", count: str = "4096") -> bytes:
    return f"r={nonce},s={salt},i={count}".encode()


@pytest.mark.parametrize(
    "nonce",
    [
        SHA1_NONCE,  # not extended
        "somebody else's".replace(" ", ""),
        "x" + SHA1_NONCE,
        SHA1_NONCE[:-1] + "M3rfc",
        SHA1_NONCE.swapcase() + "3rfc",
    ],
)
def test_a_nonce_that_is_not_ours_extended_is_not_authentic(nonce: str) -> None:
    with pytest.raises(ServerNotAuthentic, match="nonce is not ours with its own added"):
        at_server_first().respond(server_first(nonce))


@pytest.mark.parametrize("count", ["1", "4095"])
def test_too_few_iterations_are_not_authentic(count: str) -> None:
    with pytest.raises(ServerNotAuthentic, match=f"asks for {count} iterations, fewer than 4096"):
        at_server_first().respond(server_first(count=count))


@pytest.mark.parametrize("count", [str(MAX_ITERATIONS + 1), str(2**31), str(2**32), str(10**18)])
def test_too_many_iterations_are_refused_before_anything_is_hashed(
    count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("hashlib.pbkdf2_hmac")

    with pytest.raises(AuthenticationRejected, match=f"asks for {count} iterations, more than"):
        at_server_first().respond(server_first(count=count))


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"Username:",
        b"\xff\xfe\x00",
        b"r=\xff,s=QSXC,i=4096",
        server_first(count="-4096"),
        server_first(count="-1"),
        server_first(count="0"),
        server_first(count="04096"),
        server_first(count="+4096"),
        server_first(count="4_096"),
        server_first(count="4096.0"),
        server_first(count="\u0664\u0660\u0669\u0666"),  # Arabic digits
        server_first(count="9" * 5000),
        server_first(count=""),
        server_first(salt=""),
        server_first(salt="QSX"),
        server_first(salt="===="),
        server_first(salt="Q\u00e9XC"),
        server_first(nonce=""),
        server_first() + b"\n",
        server_first() + b",",
        b" " + server_first(),
        b"m=mandatory," + server_first(),
        b"s=QSXC," + server_first(),
        SHA1_SERVER_FINAL,
    ],
)
def test_a_malformed_first_message_breaks_the_exchange_off(challenge: bytes) -> None:
    with pytest.raises(AuthenticationRejected) as caught:
        at_server_first().respond(challenge)

    assert caught.value.what == "AUTH SCRAM-SHA-1 broken off"
    assert not caught.value.connection_usable


# -- servers that lie: the last message -----------------------------------------


@pytest.mark.parametrize(
    ("server_final", "why"),
    [
        (b"", "its last message has no signature"),
        (b"v=", "its last message has no signature"),
        (b"v", "its last message has no signature"),
        (b"ok", "its last message has no signature"),
        (b"\xff\x00", "its last message has no signature"),
        (b"v=not base64", "its last message has no signature"),
        (b"v====", "its last message has no signature"),
        (b"x=1," + SHA1_SERVER_FINAL, "its last message has no signature"),
        (SHA1_SERVER_FIRST, "its last message has no signature"),
        (b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "its signature is wrong"),
        (b"v=cm1GOQ==", "its signature is wrong"),
        (SHA1_SERVER_FINAL.replace(b"r", b"R"), "its signature is wrong"),
        (SHA256_SERVER_FINAL, "its signature is wrong"),
    ],
)
def test_a_signature_missing_empty_or_wrong_is_not_authentic(server_final: bytes, why: str) -> None:
    client = at_server_final()

    with pytest.raises(ServerNotAuthentic) as caught:
        client.respond(server_final)

    assert why == caught.value.detail
    with pytest.raises(ServerNotAuthentic):
        client.succeeded()


def test_a_server_that_does_not_know_the_password_is_not_authentic() -> None:
    """It may take any proof; but it cannot sign."""
    mechanism = ScramMechanism("SCRAM-SHA-256")
    stored = mechanism.make_auth_info("guess")
    server = mechanism.make_server(lambda username: stored)
    client = ScramSha256(with_password())
    server.set_client_first(client.start().decode())
    client.respond(server.get_server_first().encode())
    made_up = base64.b64encode(bytes(32))

    with pytest.raises(ServerNotAuthentic, match="its signature is wrong"):
        client.respond(b"v=" + made_up)


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_235_before_the_last_message_of_the_server_is_not_believed(rounds: int) -> None:
    client = at_server_final() if rounds else at_server_first()

    with pytest.raises(ServerNotAuthentic) as caught:
        client.succeeded()

    assert (
        str(caught.value) == "AUTH SCRAM-SHA-1: the server does not have the keys of the password:"
        " the server replied 235 without a valid signature"
    )


@pytest.mark.parametrize("start", [at_server_first, at_server_final])
def test_an_error_of_the_server_is_kept_for_its_reply_and_no_235_is_believed_after_it(
    start: type[Scram],
) -> None:
    client = start()  # type: ignore[call-arg]

    assert client.respond(b"e=invalid-proof") == b""
    assert client.explanation == "invalid-proof"
    with pytest.raises(ServerNotAuthentic):
        client.succeeded()
    with pytest.raises(AuthenticationRejected, match="one more challenge"):
        client.respond(SHA1_SERVER_FINAL)


def test_one_challenge_more_breaks_the_exchange_off() -> None:
    client = at_server_final()
    client.respond(SHA1_SERVER_FINAL)

    with pytest.raises(AuthenticationRejected, match="one more challenge"):
        client.respond(SHA1_SERVER_FINAL)


@given(st.lists(st.binary(), max_size=3))
def test_garbage_is_an_authentication_error_and_is_never_believed(garbage: list[bytes]) -> None:
    client = at_server_first()
    for challenge in garbage:
        try:
            client.respond(challenge)
        except AuthenticationError:
            break

    with pytest.raises(ServerNotAuthentic):
        client.succeeded()


@given(st.binary(), st.integers(0, len(SHA1_SERVER_FINAL)), st.integers(0, 3))
def test_only_the_right_signature_is_believed(put: bytes, at: int, over: int) -> None:
    changed = SHA1_SERVER_FINAL[:at] + put + SHA1_SERVER_FINAL[at + over :]
    client = at_server_final()
    try:
        client.respond(changed)
        client.succeeded()
    except ServerNotAuthentic:
        believed = False
    else:
        believed = True

    assert believed == (changed.split(b",")[0] == SHA1_SERVER_FINAL)


# -- credentials it cannot use ----------------------------------------------------


def test_a_password_that_saslprep_refuses_is_refused_without_being_quoted() -> None:
    with pytest.raises(InvalidInput) as caught:
        ScramSha256(with_password(password="\U0001f511pencil"))

    assert (
        str(caught.value)
        == "SCRAM-SHA-256 cannot use this password: it has a character newer than Unicode 3.2"
        " (RFC 4013)"
    )
    assert caught.value.__context__ is None


def test_a_name_that_saslprep_refuses_is_refused() -> None:
    with pytest.raises(InvalidInput, match="SCRAM-SHA-1 cannot use the user name"):
        ScramSha1(with_password("\ue000"))


def test_a_password_is_needed() -> None:
    with pytest.raises(InvalidInput, match="SCRAM-SHA-512 needs a password"):
        ScramSha512(with_token())
