"""Mail is signed only for a sender that may use its From domain, and only once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dkim_verifier import keys
from twisted_sendmail import DKIMDomain, Envelope, InvalidInput
from twisted_sendmail.message import Rewriting
from twisted_sendmail.queue import Cleanup, CleanupPolicy

FROM = b"From: Jane <jane@Example.org>\r\n"
OURS = DKIMDomain("example.org", keys(), users=[1000], accounts=["jane"])
OPEN = DKIMDomain("example.org", keys(), users=None, accounts=None)


def domain(
    content: bytes = FROM + b"\r\ntext\r\n",
    *,
    domains: tuple[DKIMDomain, ...] = (OURS,),
    cut: int = 10_000,
    rewriting: Rewriting | None = None,
    complete: bool = True,
    **origin: Any,
) -> str | None:
    """The domain that signs *content*."""
    policy = CleanupPolicy(
        "relay.example.org", lambda *_: "out", rewriting, dkim=domains, complete=complete
    )
    cleanup = Cleanup(policy, Envelope("x@example.net", ["b@example.net"]), "0ID", 0, **origin)
    for at in range(0, len(content), cut):
        cleanup.feed(content[at : at + cut])
    cleanup.finish()
    return cleanup.message_info().dkim


@pytest.mark.parametrize(
    ("origin", "ours", "everybody"),
    [
        ({"own": True}, True, True),
        ({"uid": 1000, "local": True}, True, True),
        ({"uid": 1001, "local": True}, False, True),
        ({"uid": 0, "local": True}, False, True),
        ({"local": True}, False, True),
        ({"account": "jane"}, True, True),
        ({"account": "Jane"}, False, True),
        ({"account": "bob"}, False, True),
        ({"account": "bob", "uid": 1000, "local": True}, True, True),
        ({}, False, False),
    ],
)
def test_the_sender_decides(origin: dict[str, Any], ours: bool, everybody: bool) -> None:
    assert (domain(**origin) == "example.org") == ours
    assert (domain(domains=(OPEN,), **origin) == "example.org") == everybody


def test_users_and_accounts_are_asked_each_for_itself() -> None:
    users = DKIMDomain("example.org", keys(), users=None)
    assert domain(domains=(users,), account="jane") is None
    accounts = DKIMDomain("example.org", keys(), accounts=None)
    assert domain(domains=(accounts,), uid=1000, local=True) is None


@pytest.mark.parametrize("cut", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("content", "signs"),
    [
        (FROM + b"\r\ntext\r\n", True),
        (FROM, True),
        (b"Received: x\r\n" + FROM + b"Subject: y\r\n\r\n", True),
        (b"From: a@example.org, b@EXAMPLE.ORG\r\n\r\n", True),
        (b"From: a@example.org, b@example.net\r\n\r\n", False),
        (b"From: a@sub.example.org\r\n\r\n", False),
        (b"From: a@example.net\r\nSender: a@example.org\r\n\r\n", False),
        (FROM + FROM + b"\r\n", False),
        (FROM + b"no field\r\n\r\n", False),
        (b"Subject: x\r\n\r\n" + FROM, False),
        (b"DKIM-Signature: v=1; d=example.net; s=x; b=y\r\n" + FROM + b"\r\n", True),
        (b"DKIM-Signature: v=1; a=x;\r\n\td = Example.org ; s=x; b=y\r\n" + FROM + b"\r\n", False),
        (FROM + b"dkim-signature: d=example.org\r\n\r\n", False),
        (b"DKIM-Signature: v=1; d=example.\r\n\torg.; s=x; b=y\r\n" + FROM + b"\r\n", False),
        (b"DKIM-Signature: id=example.org; d=example.net\r\n" + FROM + b"\r\n", True),
    ],
)
def test_the_header_decides(content: bytes, signs: bool, cut: int) -> None:
    # Without completion, or a From of the sender is added.
    assert ("example.org" if signs else None) == domain(
        content, cut=cut, account="jane", complete=False
    )


def test_the_header_after_rewriting_counts() -> None:
    rewriting = Rewriting(senders={"*": "all@example.org"}, set_from=True, name="relay.example.org")
    content = b"From: root@localhost\r\n\r\n"
    assert domain(content, account="jane") is None
    assert domain(content, account="jane", rewriting=rewriting) == "example.org"
    assert domain(FROM, domains=(), account="jane", rewriting=rewriting) is None


@pytest.mark.parametrize(
    "given",
    [
        {"domain": "example.net", "keys": keys()},
        {"domain": "a b", "keys": keys("example.net")},
        {"domain": 7, "keys": keys()},
        {"domain": "example.org", "keys": ()},
    ],
)
def test_a_domain_and_its_keys_belong_together(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        DKIMDomain(**given)


def test_a_signature_may_name_the_domain_by_a_u_label() -> None:
    """RFC 8616; the domain of the key is an A-label."""
    ours = DKIMDomain("xn--mller-kva.example", keys("xn--mller-kva.example"), users=None)
    sender = b"From: <jane@xn--mller-kva.example>\r\n\r\n"
    signature = "DKIM-Signature: v=1; d=müller.example; s=x; b=y\r\n".encode()
    assert domain(sender, domains=(ours,), own=True) == "xn--mller-kva.example"
    assert domain(signature + sender, domains=(ours,), own=True) is None
