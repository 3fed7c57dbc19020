"""SCRAM with channel binding: other implementations on the other side, and offers that were removed."""

from __future__ import annotations

import ctypes
import ctypes.util
from base64 import b64decode, b64encode
from typing import Any

import pytest
from attrs import evolve
from scramp import ScramClient, ScramMechanism

from tests.sasl.identities import with_password
from tests.scenarios.peers import require
from twisted_sendmail import AuthenticationRejected, ServerNotAuthentic, UnsupportedMechanism
from twisted_sendmail.sasl import (
    BindingRefused,
    ChannelBinding,
    Mechanism,
    ResolvedCredentials,
    ScramKeys,
    ScramServer,
    choose,
    hash_of,
)

PLUS = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"]
#: The type that scramp has; gsasl has the other.
END_POINT = "tls-server-end-point"
DATA = bytes(range(32))


def bound(kind: str = "tls-exporter", data: bytes = DATA) -> ResolvedCredentials:
    """Credentials on a connection with channel binding."""
    return evolve(with_password("jane", "s3cret"), channel_binding=ChannelBinding(kind, data))


def started(offered: list[str], credentials: ResolvedCredentials) -> tuple[Mechanism, bytes]:
    mechanism = choose(offered, credentials)
    return mechanism, mechanism.start() or b""


@pytest.mark.parametrize("name", PLUS)
def test_the_client_logs_in_at_the_server_of_scramp(name: str) -> None:
    mechanism = ScramMechanism(name)
    auth = mechanism.make_auth_info("s3cret", iteration_count=4096)
    server = mechanism.make_server(lambda _: auth, channel_binding=(END_POINT, DATA))
    client, first = started([name], bound(END_POINT))
    server.set_client_first(first.decode())
    server.set_client_final(client.respond(server.get_server_first().encode()).decode())
    assert client.respond(server.get_server_final().encode()) == b""
    client.succeeded()


@pytest.mark.parametrize("name", PLUS)
def test_the_client_of_scramp_logs_in_at_the_server(name: str) -> None:
    client = ScramClient([name], "jane", "s3cret", channel_binding=(END_POINT, DATA))
    server = ScramServer(
        client.get_client_first().encode(), name, {END_POINT: DATA}.get, offers_binding=True
    )
    keys = ScramKeys.of("s3cret", iterations=4096, hash_name=hash_of(name))
    client.set_server_first(server.challenge(keys).decode())
    assert server.proves(client.get_client_final().encode())
    client.set_server_final(server.signature().decode())


class Gsasl:
    """The server of GNU SASL, through its shared library."""

    # Of gsasl.h.
    PASSWORD, TLS_EXPORTER = 3, 25

    def __init__(self, name: str, password: str, binding: bytes) -> None:
        found = ctypes.util.find_library("gsasl")
        require("gsasl", None if found else "libgsasl is not installed; run tests/install-peers")
        self._library: Any = ctypes.CDLL(found)
        self._context, self._session = ctypes.c_void_p(), ctypes.c_void_p()
        assert self._library.gsasl_init(ctypes.byref(self._context)) == 0
        start = self._library.gsasl_server_start
        assert start(self._context, name.encode(), ctypes.byref(self._session)) == 0
        for what, value in ((self.PASSWORD, password.encode()), (self.TLS_EXPORTER, binding)):
            text = b64encode(value) if what == self.TLS_EXPORTER else value
            assert self._library.gsasl_property_set(self._session, what, text) in {0, None}

    def step(self, message: bytes) -> tuple[int, bytes]:
        """Return the status, 0 at the end and 1 for more, and the answer."""
        answer = ctypes.c_char_p()
        status = self._library.gsasl_step64(self._session, b64encode(message), ctypes.byref(answer))
        return status, b64decode(answer.value or b"")

    def close(self) -> None:
        self._library.gsasl_finish(self._session)
        self._library.gsasl_done(self._context)


@pytest.mark.parametrize(("data", "proved"), [(DATA, True), (DATA[::-1], False)])
@pytest.mark.parametrize("name", PLUS)
def test_the_client_logs_in_at_the_server_of_gsasl(name: str, data: bytes, proved: bool) -> None:
    server = Gsasl(name, "s3cret", DATA)
    client, message = started([name], bound(data=data))
    status, challenge = server.step(message)
    assert status == 1
    status, challenge = server.step(client.respond(challenge))
    server.close()
    assert (status == 0) is proved
    if proved:
        assert client.respond(challenge) == b""
        client.succeeded()


# -- what is offered, and what was removed --------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "flag"),
    [
        (["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN"], "p=tls-exporter"),
        (["SCRAM-SHA-512", "SCRAM-SHA-1-PLUS"], "p=tls-exporter"),
        (["SCRAM-SHA-256", "PLAIN"], "y"),
    ],
)
def test_the_flag_says_whether_binding_was_offered(offered: list[str], flag: str) -> None:
    _, first = started(offered, bound())
    assert first.decode().split(",")[0] == flag


def test_a_client_that_does_not_bind_says_so() -> None:
    for credentials in (
        with_password("jane", "s3cret"),
        evolve(bound(), mechanisms=("SCRAM-SHA-256",)),
    ):
        mechanism, first = started(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], credentials)
        assert (mechanism.name, first[:3]) == ("SCRAM-SHA-256", b"n,,")


def test_without_channel_binding_plus_is_skipped_and_named() -> None:
    credentials = with_password("jane", "s3cret")
    assert choose(["SCRAM-SHA-256-PLUS", "PLAIN"], credentials).name == "PLAIN"
    with pytest.raises(UnsupportedMechanism, match="SCRAM-SHA-256-PLUS needs TLS with channel"):
        choose(["SCRAM-SHA-256-PLUS"], credentials)


def test_a_server_that_offered_binding_refuses_a_client_that_saw_no_offer() -> None:
    _, first = started(["SCRAM-SHA-256"], bound())
    assert ScramServer(first, offers_binding=False).username == "jane"
    with pytest.raises(BindingRefused, match=r"^server-does-support-channel-binding$"):
        ScramServer(first, offers_binding=True)


@pytest.mark.parametrize("kind", ["tls-unique", "tls-exporter2", ""])
def test_an_unknown_type_of_binding_is_named(kind: str) -> None:
    first = f"p={kind},,n=jane,r=abc".encode()
    with pytest.raises(BindingRefused, match=r"^unsupported-channel-binding-type$"):
        ScramServer(first, "SCRAM-SHA-256-PLUS", {"tls-exporter": DATA}.get)


@pytest.mark.parametrize(
    ("mechanism", "flag"), [("SCRAM-SHA-256", "p=tls-exporter"), ("SCRAM-SHA-256-PLUS", "n")]
)
def test_a_flag_that_does_not_fit_the_mechanism_is_malformed(mechanism: str, flag: str) -> None:
    with pytest.raises(ValueError, match="flag"):
        ScramServer(f"{flag},,n=jane,r=abc".encode(), mechanism, {"tls-exporter": DATA}.get)


def test_another_connection_is_refused_only_to_who_has_the_password() -> None:
    for password, refused in (("s3cret", True), ("wrong", False)):
        credentials = evolve(
            with_password("jane", password),
            channel_binding=ChannelBinding("tls-exporter", b"x" * 32),
        )
        client, first = started(["SCRAM-SHA-256-PLUS"], credentials)
        server = ScramServer(first, "SCRAM-SHA-256-PLUS", {"tls-exporter": DATA}.get)
        keys = ScramKeys.of("s3cret", iterations=4096)
        final = client.respond(server.challenge(keys))
        if refused:
            with pytest.raises(BindingRefused, match=r"^channel-bindings-dont-match$"):
                server.proves(final)
        else:
            assert not server.proves(final)


@pytest.mark.parametrize(
    "word", ["server-does-support-channel-binding", "channel-bindings-dont-match"]
)
def test_the_servers_word_is_explained(word: str) -> None:
    client, _ = started(["SCRAM-SHA-256"], bound())
    assert client.respond(f"e={word}".encode()) == b""
    assert client.explanation.startswith(f"{word}: ")
    with pytest.raises(ServerNotAuthentic):
        client.succeeded()


# -- the fewest iterations ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"), [("SCRAM-SHA-1", 4096), ("SCRAM-SHA-256", 4096), ("SCRAM-SHA-512", 10_000)]
)
def test_each_hash_has_its_fewest_iterations(name: str, least: int) -> None:
    for iterations, enough in ((least, True), (least - 1, False)):
        client, first = started([name], with_password("jane", "s3cret"))
        nonce = first.decode().rpartition("r=")[2]
        server_first = f"r={nonce}x,s=c2FsdHNhbHQ=,i={iterations}".encode()
        if enough:
            assert b",p=" in client.respond(server_first)
        else:
            with pytest.raises(ServerNotAuthentic, match=f"fewer than {least}"):
                client.respond(server_first)


# -- by name only ---------------------------------------------------------------------------


def test_cram_md5_is_that_of_rfc_2195_and_used_only_by_name() -> None:
    credentials = with_password("tim", "tanstaaftanstaaf", mechanisms=["CRAM-MD5"])
    mechanism = choose(["CRAM-MD5"], credentials)
    assert mechanism.start() is None
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert mechanism.respond(challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    with pytest.raises(AuthenticationRejected):
        mechanism.respond(challenge)
    with pytest.raises(AuthenticationRejected, match="empty"):
        choose(["CRAM-MD5"], credentials).respond(b"")


@pytest.mark.parametrize("name", ["CRAM-MD5", "EXTERNAL"])
def test_some_mechanisms_are_used_only_by_name(name: str) -> None:
    credentials = evolve(bound(), certificate=True)
    assert choose([name, "PLAIN"], credentials).name == "PLAIN"
    assert choose([name, "PLAIN"], evolve(credentials, mechanisms=(name,))).name == name
