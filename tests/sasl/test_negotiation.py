"""The choice of a mechanism: the best in common, the caller's order, additional mechanisms."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sasl.identities import with_password, with_token
from twisted_sendmail import MECHANISMS, Credentials, InvalidInput, Mechanism, UnsupportedMechanism
from twisted_sendmail.sasl import ResolvedCredentials, check_mechanisms, choose

FOR_PASSWORDS = ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"]
FOR_TOKENS = ["OAUTHBEARER", "XOAUTH2"]


class Anonymous(Mechanism):
    """ANONYMOUS (RFC 4505): the message names who it is, and nothing proves it."""

    name: ClassVar[str] = "ANONYMOUS"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        self._authzid = credentials.authzid

    def start(self) -> bytes:
        return self._authzid.encode()

    def respond(self, challenge: bytes) -> bytes:
        return self.start()


@pytest.mark.parametrize(
    ("credentials", "ranked"),
    [(with_password(), FOR_PASSWORDS), (with_token(), FOR_TOKENS)],
    ids=["password", "token"],
)
def test_the_best_that_is_offered_is_chosen(
    credentials: ResolvedCredentials, ranked: list[str]
) -> None:
    offered = set(MECHANISMS)
    for name in ranked:
        assert name == choose(offered, credentials).name
        offered.remove(name)


@given(st.sets(st.sampled_from([*MECHANISMS, "GSSAPI", "NTLM"])))
def test_what_is_chosen_is_always_offered_and_fits(offered: set[str]) -> None:
    for credentials, ranked in ((with_password(), FOR_PASSWORDS), (with_token(), FOR_TOKENS)):
        expected = next((name for name in ranked if name in offered), None)
        try:
            chosen = choose(offered, credentials).name
        except UnsupportedMechanism:
            chosen = None
        assert chosen == expected


def test_the_names_of_the_server_are_read_in_any_case() -> None:
    assert choose(["plain", "Login"], with_password()).name == "PLAIN"


def test_each_choice_is_a_new_exchange() -> None:
    first, second = (choose({"SCRAM-SHA-256"}, with_password()) for _ in range(2))

    assert first.start() != second.start()


def test_the_mechanisms_of_the_credentials_are_order_and_limit() -> None:
    plain_first = with_password(mechanisms=["LOGIN", "PLAIN"])

    assert choose(set(MECHANISMS), plain_first).name == "LOGIN"
    assert choose({"SCRAM-SHA-256", "PLAIN"}, plain_first).name == "PLAIN"
    with pytest.raises(UnsupportedMechanism) as caught:
        choose({"SCRAM-SHA-256"}, plain_first)
    assert (
        str(caught.value) == "the server has no mechanism to authenticate 'user' with:"
        " it offers SCRAM-SHA-256; we may use LOGIN, PLAIN"
    )


def test_a_password_that_scram_cannot_use_goes_by_the_next_mechanism() -> None:
    assert choose({"SCRAM-SHA-256", "PLAIN"}, with_password(password="\U0001f511")).name == "PLAIN"


def test_a_mechanism_without_place_for_the_authorization_identity_is_passed_over() -> None:
    with pytest.raises(UnsupportedMechanism) as caught:
        choose({"LOGIN"}, with_password(authzid="shop"))

    assert (
        caught.value.detail == "it offers LOGIN; LOGIN has no place for an authorization identity"
    )


def test_no_mechanism_in_common_names_both_sides() -> None:
    with pytest.raises(UnsupportedMechanism) as caught:
        choose({"XOAUTH2", "GSSAPI", "OAUTHBEARER"}, with_password())

    assert (
        str(caught.value) == "the server has no mechanism to authenticate 'user' with:"
        " it offers GSSAPI, OAUTHBEARER, XOAUTH2; OAUTHBEARER needs a token; XOAUTH2 needs a token"
    )
    assert not caught.value.transient


def test_a_server_without_auth_is_told_apart() -> None:
    with pytest.raises(UnsupportedMechanism) as caught:
        choose(frozenset(), with_password())

    assert (
        str(caught.value)
        == "the server has no mechanism to authenticate 'user' with: it has no AUTH in its EHLO reply;"
        " check host and port, and that TLS is on"
    )


def test_a_long_list_of_the_server_is_cut() -> None:
    with pytest.raises(UnsupportedMechanism) as caught:
        choose({f"X-{n:03}" for n in range(1000)}, with_password())

    assert "X-019, …; we may use" in caught.value.detail
    assert "X-020" not in caught.value.detail


def test_a_mechanism_that_is_not_known_is_bad_input() -> None:
    credentials = Credentials("bob", "pencil", mechanisms=["SCRAM-SHA256"])

    with pytest.raises(InvalidInput) as caught:
        check_mechanisms(credentials)

    assert (
        str(caught.value)
        == "the mechanism SCRAM-SHA256 is not known; the known ones are SCRAM-SHA-512-PLUS, "
        "SCRAM-SHA-256-PLUS, SCRAM-SHA-1-PLUS, SCRAM-SHA-512, SCRAM-SHA-256, SCRAM-SHA-1, OAUTHBEARER, "
        "XOAUTH2, PLAIN, LOGIN, EXTERNAL, CRAM-MD5"
    )
    with pytest.raises(InvalidInput):
        choose({"PLAIN"}, with_password(mechanisms=["SCRAM-SHA256"]))


def test_a_mechanism_is_plugged_in_by_a_larger_mapping() -> None:
    larger = {"anonymous": Anonymous, **MECHANISMS}
    without_secret = ResolvedCredentials("", authzid="shop", mechanisms=("ANONYMOUS",))

    check_mechanisms(without_secret, larger)
    chosen = choose({"PLAIN", "ANONYMOUS"}, without_secret, larger)

    assert chosen.start() == b"shop"
    assert choose({"PLAIN", "ANONYMOUS"}, with_password(), larger).name == "ANONYMOUS"
    assert choose({"PLAIN"}, with_password(), larger).name == "PLAIN"


def test_a_mechanism_under_the_wrong_name_is_bad_input() -> None:
    with pytest.raises(InvalidInput) as caught:
        choose({"X-MINE"}, with_password(), {"X-MINE": Anonymous})

    assert str(caught.value) == "the mechanism under the name X-MINE has the name ANONYMOUS"


def test_the_default_cannot_be_changed_for_everybody() -> None:
    with pytest.raises(TypeError):
        MECHANISMS["ANONYMOUS"] = Anonymous  # type: ignore[index]
