"""An envelope holds what MAIL and RCPT can express."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import (
    Envelope,
    ForwardPath,
    InvalidAddress,
    InvalidInput,
    Recipient,
    ReversePath,
)
from twisted_sendmail.smtp import MAX_ORCPT
from twisted_sendmail.smtp.limits import MAX_ENVID

A, B = "a@example.org", "b@example.net"


@pytest.mark.parametrize("sender", [None, "", "<>", ReversePath()])
def test_the_null_sender(sender: Any) -> None:
    assert ReversePath() == Envelope(sender, [B]).sender


@pytest.mark.parametrize("sender", [A, f"<{A}>", ReversePath.parse(A)])
def test_a_sender(sender: Any) -> None:
    assert ReversePath.parse(A) == Envelope(sender, [B]).sender


@pytest.mark.parametrize(
    "recipients",
    [B, f"<{B}>", [B], (B,), iter([B]), {B}, ForwardPath.parse(B), Recipient(B), [Recipient(B)]],
)
def test_one_recipient_however_it_is_given(recipients: Any) -> None:
    assert (Recipient(ForwardPath.parse(B)),) == Envelope(A, recipients).recipients


def test_the_order_is_kept_and_the_same_goes_once() -> None:
    given_: list[str | Recipient] = [
        B,
        "c@example.net",
        "b@EXAMPLE.net",
        "B@example.net",
        Recipient(B, "NEVER"),
        B,
    ]
    assert list(map(str, Envelope(A, given_).recipients)) == [B, "c@example.net", "B@example.net"]


def test_two_spellings_of_a_domain_are_one() -> None:
    recipients = Envelope(A, ["x@bücher.example", "x@xn--bcher-kva.example"]).recipients
    assert list(map(str, recipients)) == ["x@bücher.example"]


@pytest.mark.parametrize("recipients", [[], (), iter([])])
def test_nobody(recipients: Any) -> None:
    with pytest.raises(InvalidInput, match="no recipient"):
        Envelope(A, recipients)


@pytest.mark.parametrize(
    "recipients", [None, 5, b"b@example.net", [b"b@example.net"], [None], [[B]]]
)
def test_what_is_no_recipient(recipients: Any) -> None:
    with pytest.raises(InvalidInput):
        Envelope(A, recipients)


def test_one_bad_address_spoils_it() -> None:
    with pytest.raises(InvalidAddress, match="b@"):
        Envelope(A, [B, "b@"])
    with pytest.raises(InvalidAddress):
        Envelope("a b@example.org", [B])


def test_several_addresses_in_one_text_are_none() -> None:
    with pytest.raises(InvalidAddress, match="as a list"):
        Envelope(A, f"{A}, {B}")


@pytest.mark.parametrize(
    ("notify", "expected"),
    [
        ((), set()),
        ("never", {"NEVER"}),
        (["Success", "FAILURE"], {"SUCCESS", "FAILURE"}),
        ({"DELAY"}, {"DELAY"}),
    ],
)
def test_when_to_report(notify: Any, expected: set[str]) -> None:
    recipient = Recipient(B, notify)
    assert (frozenset(expected), bool(expected)) == (recipient.notify, recipient.has_dsn)


@pytest.mark.parametrize(
    "notify", [["NEVER", "FAILURE"], "SOMETIMES", ["FAILURE\r\nDATA"], "FAILURE,DELAY", [""]]
)
def test_what_is_no_time_to_report(notify: Any) -> None:
    with pytest.raises(InvalidInput):
        Recipient(B, notify)


@pytest.mark.parametrize(
    "orcpt", ["", "b@example.net", "rfc822;a\r\nb", "rfc822;\0", "rfc822;" + "a" * MAX_ORCPT]
)
def test_what_is_no_original_recipient(orcpt: str) -> None:
    with pytest.raises(InvalidInput, match="ORCPT"):
        Recipient(B, orcpt=orcpt)


@pytest.mark.parametrize("envid", ["", "a\r\nb", "a\0", "a\x85", "a\u2028", "a" * (MAX_ENVID + 1)])
def test_what_is_no_envelope_identifier(envid: str) -> None:
    with pytest.raises(InvalidInput, match="ENVID"):
        Envelope(A, [B], envid=envid)


@pytest.mark.parametrize("ret", ["", "BODY", "FULL\r\nRSET"])
def test_what_is_no_ret(ret: str) -> None:
    with pytest.raises(InvalidInput, match="RET"):
        Envelope(A, [B], ret=ret)


def test_what_needs_dsn() -> None:
    assert not Envelope(A, [B]).has_dsn
    assert Envelope(A, [B], ret="full").has_dsn
    assert Envelope(A, [B], envid="x").has_dsn
    assert Envelope(A, [Recipient(B, orcpt="rfc822;b@example.net")]).has_dsn


def test_what_needs_smtputf8() -> None:
    assert not Envelope("a@bücher.example", ["b@почта.рф"]).needs_smtputf8
    assert Envelope("jürgen@example.org", [B]).needs_smtputf8
    assert Envelope(A, [B, "用户@example.org"]).needs_smtputf8


@given(
    st.lists(st.sampled_from([B, "<b@example.net>", "c@x", '"a b"@x', "Postmaster"]), min_size=1)
)
def test_an_envelope_of_its_own_recipients_is_the_same(recipients: list[str]) -> None:
    once = Envelope(A, recipients)
    assert once == Envelope(once.sender, once.recipients)
    assert once == Envelope(str(once.sender), [str(recipient) for recipient in once.recipients])
