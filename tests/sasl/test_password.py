"""PLAIN and LOGIN: exact messages that a server cannot influence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sasl.identities import with_password, with_token
from twisted_sendmail import AuthenticationRejected, InvalidInput
from twisted_sendmail.sasl.password import Login, Plain

# Passwords may hold anything but NUL; names are as Credentials let them through.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def test_plain_is_the_example_of_rfc_4616() -> None:
    assert Plain(with_password("tim", "tanstaaftanstaaf")).start() == b"\0tim\0tanstaaftanstaaf"


def test_plain_carries_the_callers_authorization_identity() -> None:
    kurt = with_password("Kurt", "xipj3plmq", authzid="Ursel")

    assert Plain(kurt).start() == b"Ursel\0Kurt\0xipj3plmq"


@given(TEXT, TEXT, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_plain_is_three_parts_in_utf_8(username: str, password: str, authzid: str) -> None:
    message = Plain(with_password(username, password, authzid=authzid)).start()

    assert [authzid, username, password] == message.decode("utf-8").split("\0")


def test_plain_says_it_again_to_a_server_that_passed_over_the_initial_response_once() -> None:
    plain = Plain(with_password())
    first = plain.start()

    assert first == plain.respond(b"")
    with pytest.raises(AuthenticationRejected, match="one more challenge"):
        plain.respond(b"")


@given(st.binary(min_size=1))
def test_no_challenge_is_ever_part_of_plain(challenge: bytes) -> None:
    plain = Plain(with_password())
    plain.start()

    with pytest.raises(AuthenticationRejected) as caught:
        plain.respond(challenge)

    assert (
        str(caught.value)
        == "AUTH PLAIN broken off: the server sent one more challenge than the mechanism has"
    )


@given(st.binary(), st.binary(), st.binary())
def test_login_answers_whatever_the_prompts_are(first: bytes, second: bytes, third: bytes) -> None:
    login = Login(with_password("b\u00f6b", "p\u00e9ncil"))

    assert login.start() is None  # type: ignore[func-returns-value]
    assert "b\u00f6b".encode() == login.respond(first)
    assert "p\u00e9ncil".encode() == login.respond(second)
    with pytest.raises(AuthenticationRejected, match="one more challenge"):
        login.respond(third)


def test_login_has_no_place_for_an_authorization_identity() -> None:
    with pytest.raises(InvalidInput, match="LOGIN has no place for an authorization identity"):
        Login(with_password(authzid="admin"))


@pytest.mark.parametrize("mechanism", [Plain, Login])
def test_a_password_is_needed(mechanism: type[Plain | Login]) -> None:
    with pytest.raises(InvalidInput, match=f"{mechanism.name} needs a password"):
        mechanism(with_token())


@pytest.mark.parametrize("mechanism", [Plain, Login])
def test_success_has_nothing_to_look_at(mechanism: type[Plain | Login]) -> None:
    done = mechanism(with_password())

    done.succeeded()

    assert done.explanation == ""
    assert not done.expensive
