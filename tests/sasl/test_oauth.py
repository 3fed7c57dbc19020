"""XOAUTH2 and OAUTHBEARER: exact messages, and a refusal by a challenge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sasl.identities import with_password, with_token
from twisted_sendmail import AuthenticationRejected, InvalidInput
from twisted_sendmail.sasl.oauth import Bearer, OAuthBearer, XOAuth2

BOTH = [XOAuth2, OAuthBearer]


def test_oauthbearer_is_the_form_of_rfc_7628() -> None:
    assert (
        OAuthBearer(with_token()).start() == b"n,a=user@example.com,\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )


def test_xoauth2_is_the_form_of_its_documents() -> None:
    assert (
        XOAuth2(
            with_token("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
        ).start()
        == b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01"
    )


def test_oauthbearer_escapes_its_identity_and_prefers_the_authorization_identity() -> None:
    assert OAuthBearer(with_token("a,b=c")).start().startswith(b"n,a=a=2Cb=3Dc,\x01auth=")
    assert OAuthBearer(with_token(authzid="shop")).start().startswith(b"n,a=shop,\x01auth=")


def test_xoauth2_has_no_place_for_an_authorization_identity() -> None:
    with pytest.raises(InvalidInput, match="XOAUTH2 has no place for an authorization identity"):
        XOAuth2(with_token(authzid="shop"))


@pytest.mark.parametrize(("mechanism", "acknowledgement"), [(XOAuth2, b""), (OAuthBearer, b"\x01")])
def test_a_refusal_is_acknowledged_as_the_mechanism_says(
    mechanism: type[Bearer], acknowledgement: bytes
) -> None:
    client = mechanism(with_token())
    client.start()

    assert acknowledgement == client.respond(b'{"status":"401","schemes":"bearer"}')
    with pytest.raises(AuthenticationRejected, match="one more challenge"):
        client.respond(b"{}")


@pytest.mark.parametrize("mechanism", BOTH)
@pytest.mark.parametrize(
    ("refusal", "explanation"),
    [
        (
            b'{"status":"401","schemes":"bearer","scope":"https://mail.example.com/"}',
            "status 401, scope https://mail.example.com/, schemes bearer",
        ),
        (b'{"status":"invalid_token","scope":"mail"}', "status invalid_token, scope mail"),
        (b'{"status":400}', "status 400"),
        (b'{"other":"x"}', ""),
        (b'{"status":["x"]}', ""),
        (b"[]", ""),
        (b"not json ", ""),
        (b"\xff{", ""),
        (b"", ""),
        (b"[" * 12_288, ""),
        (b"9" * 12_288, ""),
    ],
)
def test_the_servers_reason_is_kept(
    mechanism: type[Bearer], refusal: bytes, explanation: str
) -> None:
    client = mechanism(with_token())
    client.start()
    client.respond(refusal)

    assert explanation == client.explanation


@given(mechanism=st.sampled_from(BOTH), refusal=st.binary())
def test_any_refusal_is_answered(mechanism: type[Bearer], refusal: bytes) -> None:
    client = mechanism(with_token())
    client.start()

    assert mechanism.acknowledgement == client.respond(refusal)
    assert isinstance(client.explanation, str)


@pytest.mark.parametrize("mechanism", BOTH)
def test_a_token_is_needed(mechanism: type[Bearer]) -> None:
    with pytest.raises(InvalidInput, match=f"{mechanism.name} needs a token"):
        mechanism(with_password())
