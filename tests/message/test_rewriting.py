"""Rewriting of addresses: which rule applies, how often, and which addresses stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from twisted_sendmail import Envelope, ForwardPath, InvalidInput, Recipient, ReversePath
from twisted_sendmail.message import Header, Qualification, Rewriting


def sender(rules: Rewriting, address: str) -> str:
    return str(rules.sender(ReversePath.parse(address)))


SENDERS = {
    "root@web1.example.org": "ops@example.com",
    "www@example.org": "site@example.com",
    "@old.example": "@new.example",
    "@gone.example": "all@example.com",
}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("root@web1.example.org", "ops@example.com"),
        ("root@WEB1.example.ORG", "ops@example.com"),
        ("Root@web1.example.org", "Root@example.org"),
        ("jane@old.example", "jane@new.example"),
        ("jane@sub.old.example", "jane@sub.old.example"),
        ("jane@gone.example", "all@example.com"),
        ("jane@a.b.example.org", "jane@example.org"),
        ("jane@example.org", "jane@example.org"),
        ("jane@notexample.org", "jane@notexample.org"),
        # What a domain led to is looked up once more.
        ("www@web1.example.org", "site@example.com"),
        ("<>", "<>"),
    ],
)
def test_an_exact_address_comes_before_its_domain(before: str, after: str) -> None:
    assert after == sender(Rewriting(senders=SENDERS, masquerade=["example.org"]), before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("root@host.example", "app@example.org"),
        ("app@example.org", "app@example.org"),
        ("root@example.net", "admin@example.org"),
        ("jane@keep.example", "jane@keep.example"),
        ("<>", "<>"),
    ],
)
def test_every_message_can_be_from_one_address_with_exceptions(before: str, after: str) -> None:
    rules = Rewriting(
        senders={
            "*": "app@example.org",
            "root@example.net": "admin@example.org",
            "@keep.example": "@keep.example",
        }
    )
    assert after == sender(rules, before)


@pytest.mark.parametrize(
    "rules",
    [
        {"senders": {"a@x.example": "b@x.example", "b@x.example": "c@x.example"}},
        {"senders": {"a@x.example": "b@x.example", "b@x.example": "a@x.example"}},
        {"senders": {"@x.example": "@y.example", "@y.example": "@z.example"}},
        {"senders": {"@x.example": "@y.example", "@Y.example": "a@z.example"}},
        {"senders": {"@x.example": "@a.y.example"}, "masquerade": ["y.example"]},
        {"senders": {"@y.example": "@z.example"}, "masquerade": ["y.example"]},
        {"senders": {"*": "a@x.example", "a@x.example": "b@x.example"}},
    ],
)
def test_rules_that_undo_each_other_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"sender '.*' cannot be rewritten"):
        Rewriting(**rules)


@pytest.mark.parametrize(
    "rules",
    [
        {"senders": {"root": "a@x.example"}},
        {"senders": {"root@x.example": "@y.example"}},
        {"senders": {"*": "@y.example"}},
        {"admin": "root"},
        {"masquerade": ["a@x"]},
        {"local_domains": [""]},
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Rewriting(**rules)


# -- recipients -------------------------------------------------------------------------

ADMIN = Rewriting(admin="admin@example.com", name="host.example", local_domains=["lan.example"])


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("postmaster", True),
        ("root@localhost", True),
        ("root@localhost.localdomain", True),
        ("root@HOST.example", True),
        ("root@lan.example", True),
        ("root@container7", True),
        ("root@sub.host.example", False),
        ("root@[192.0.2.1]", False),
        ("root@example.com", False),
    ],
)
def test_who_is_local_is_the_admins(path: str, local: bool) -> None:
    (recipient,) = ADMIN.recipients([Recipient(path)])
    assert local is ADMIN.is_local(ForwardPath.parse(path))
    assert ("admin@example.com" if local else path) == str(recipient)


def test_the_original_recipient_is_kept_for_reports() -> None:
    made = ADMIN.recipients([Recipient("root@localhost", "NEVER"), Recipient("jane@example.org")])
    assert (
        Recipient("admin@example.com", "NEVER", "rfc822;root@localhost"),
        Recipient("jane@example.org"),
    ) == made


def test_an_original_recipient_that_was_given_stays() -> None:
    (made,) = ADMIN.recipients([Recipient("root@localhost", orcpt="rfc822;first@example.org")])
    assert made.orcpt == "rfc822;first@example.org"


def test_an_original_recipient_beyond_ascii_has_its_type() -> None:
    (made,) = ADMIN.recipients([Recipient("j\u00fcrgen@localhost")])
    assert made.orcpt == "utf-8;j\u00fcrgen@localhost"


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ((), ("NEVER",), set()),
        (("NEVER",), ("NEVER",), {"NEVER"}),
        (("NEVER",), ("DELAY",), {"DELAY"}),
        (("SUCCESS",), ("FAILURE", "DELAY"), {"SUCCESS", "FAILURE", "DELAY"}),
    ],
)
def test_two_local_recipients_become_one_who_goes_without_no_report(
    first: tuple[str, ...], second: tuple[str, ...], both: set[str]
) -> None:
    (made,) = ADMIN.recipients([Recipient("root@a", first), Recipient("www@b", second)])
    assert (frozenset(both), "rfc822;root@a") == (made.notify, made.orcpt)


def test_without_an_admin_local_recipients_stay() -> None:
    given_ = (Recipient("root@localhost"), Recipient("postmaster"))
    assert given_ == Rewriting().recipients(given_)


def test_the_rest_of_the_envelope_stays() -> None:
    rules = Rewriting(senders={"*": "app@example.org"}, admin="admin@example.com")
    before = Envelope("a@x.example", ["root@localhost"], ret="HDRS", envid="E1", require_tls=True)
    after = rules.envelope(before)
    assert (
        str(after.sender),
        after.ret,
        after.envid,
        after.require_tls,
    ) == ("app@example.org", "HDRS", "E1", True)


# -- the header -------------------------------------------------------------------------

RULES = Rewriting(senders={"root@host.example": "ops@example.org"})
BEFORE = ReversePath.parse("root@host.example")
AFTER = RULES.sender(BEFORE)


def rewritten(octets: bytes) -> bytes:
    return bytes(RULES.header(Header.parse(octets), BEFORE, AFTER))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: root@host.example\r\n", b"From: ops@example.org\r\n"),
        (b"from :root@HOST.example \r\n", b"from :ops@example.org \r\n"),
        (b"From: root@host.example (Cron)\r\n", b"From: ops@example.org (Cron)\r\n"),
        (b"From: root (Cron Daemon)\r\n", b"From: ops@example.org (Cron Daemon)\r\n"),
        (b'From: "(Cron Daemon)" <root>\r\n', b'From: "(Cron Daemon)" <ops@example.org>\r\n'),
        (
            b'From: "root@host.example"\r\n\t< root@host.example >\r\n',
            b'From: "root@host.example"\r\n\t< ops@example.org >\r\n',
        ),
        (
            b"From: =?utf-8?q?J?= <root@host.example>\r\n",
            b"From: =?utf-8?q?J?= <ops@example.org>\r\n",
        ),
        (b"From: \xff <root@host.example>\r\n", b"From: \xff <ops@example.org>\r\n"),
    ],
)
def test_from_is_changed_when_it_is_the_sender(before: bytes, after: bytes) -> None:
    assert b"To: root@host.example\r\n" + after == rewritten(b"To: root@host.example\r\n" + before)


@pytest.mark.parametrize(
    "octets",
    [
        b"From: jane@host.example\r\n",
        b"From: xroot@host.example\r\n",
        b"From: root@host.example.net\r\n",
        b"From: Root@host.example\r\n",
        b"From: root@host.example, jane@host.example\r\n",
        b"From: x: root@host.example;\r\n",
        b"From: root@host.example <jane@host.example>\r\n",
        b"From: <root@host.example> root@host.example\r\n",
        b"From: a@b <root@host.example>\r\n",
        b"From: root@host.example\r\nFrom: root@host.example\r\n",
        b"Sender: root@host.example\r\nReply-To: root@host.example\r\n",
        b"From: \r\nroot@host.example\r\n",
        b"From:" + b" " * 100_000 + b"x\r\n",
        b"",
    ],
)
def test_any_other_from_stays(octets: bytes) -> None:
    assert octets == rewritten(octets)


def test_from_stays_when_no_rule_changed_the_sender() -> None:
    header = Header.parse(b"From: root@host.example\r\n")
    assert header is RULES.header(header, BEFORE, BEFORE)
    assert header is RULES.header(header, ReversePath(), ReversePath())


FROM = Rewriting(senders={"*": "app@example.org"}, set_from=True)
APP = ReversePath.parse("app@example.org")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: jane@x.example\r\n", b"From: app@example.org\r\n"),
        (b"From: Jane <jane@x.example> (home)\r\n", b"From: Jane <app@example.org> (home)\r\n"),
        (
            b'From: "J, \xc3\xbc"\r\n <a@x.example>\r\n',
            b'From: "J, \xc3\xbc"\r\n <app@example.org>\r\n',
        ),
        (b"From: root\r\n", b"From: app@example.org\r\n"),
        (b"From: John Doe\r\n", b"From: John Doe <app@example.org>\r\n"),
        (b"From: =?utf-8?q?=C3=BC?=\r\n", b"From: =?utf-8?q?=C3=BC?= <app@example.org>\r\n"),
        (b"From: J <>\r\n", b"From: app@example.org\r\n"),
        (b"From: a@x.example, b@x.example\r\n", b"From: app@example.org\r\n"),
        (b"From: team: a@x.example;\r\n", b"From: app@example.org\r\n"),
        (b"From: a@b <c@d\r\n", b"From: app@example.org\r\n"),
        (
            b"From: a@x.example\r\nX: y\r\nFrom: b@x.example\r\n",
            b"From: app@example.org\r\nX: y\r\n",
        ),
        (b"From:  APP <app@EXAMPLE.org>\r\n", b"From:  APP <app@EXAMPLE.org>\r\n"),
        (b"", b""),
    ],
)
def test_from_becomes_the_sender_if_asked_for_and_keeps_the_name(
    before: bytes, after: bytes
) -> None:
    around = b"Sender: jane@x.example\r\n", b"Reply-To:  jane@x.example\r\n"
    for sender in (BEFORE, APP):
        made = FROM.header(Header.parse(around[0] + before + around[1]), sender, APP)
        if b"X: y" not in before:
            assert bytes(made) == around[0] + after + around[1]
        else:
            assert after in bytes(made)
    assert bytes(FROM.header(Header.parse(before), BEFORE, ReversePath())) == before


# -- addresses without a domain ---------------------------------------------------------

LOCAL = Qualification("out.example", "in.example")


def qualified(octets: bytes) -> bytes:
    return bytes(LOCAL.header(Header.parse(octets)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: mdadm <root>\r\n", b"From: mdadm <root@out.example>\r\n"),
        (b"To: root\r\n", b"To: root@in.example\r\n"),
        (
            b'from : "(Cron Daemon)"\r\n\t< root >\r\n',
            b'from : "(Cron Daemon)"\r\n\t< root@out.example >\r\n',
        ),
        (b"Sender: root (Cron)\r\n", b"Sender: root@out.example (Cron)\r\n"),
        (
            b"Reply-To: jane,\r\n joe@x.example, jim\r\n",
            b"Reply-To: jane@out.example,\r\n joe@x.example, jim@out.example\r\n",
        ),
        (b"Cc: a.b, (c) d\r\n", b"Cc: a.b@in.example, (c) d@in.example\r\n"),
        (
            b"Resent-From: root\r\nResent-To: bob\r\n",
            b"Resent-From: root@out.example\r\nResent-To: bob@in.example\r\n",
        ),
        (b"To: \xc3\xbc <root>\r\n", b"To: \xc3\xbc <root@in.example>\r\n"),
        (
            b'To: team: root;, "a@b" <root>, jane\r\n',
            b'To: team: root;, "a@b" <root@in.example>, jane@in.example\r\n',
        ),
        (b'From: "root@host" <root>\r\n', b'From: "root@host" <root@out.example>\r\n'),
        (b"To: root (at night@work)\r\n", b"To: root@in.example (at night@work)\r\n"),
    ],
)
def test_an_address_without_a_domain_gets_one(before: bytes, after: bytes) -> None:
    assert qualified(before + b"X: root\r\n") == after + b"X: root\r\n"
    assert LOCAL.concerns(b"\n" + before.lower())
    assert qualified(after) == after


@pytest.mark.parametrize(
    "octets",
    [
        b"From: a@x.example\r\nTo: B <b@x.example> , \r\n\tc@x.example\r\n",
        b"To: undisclosed-recipients:;\r\n",
        b"To: team: root, jane;\r\n",
        b"From: <>\r\n",
        b'To: "root"\r\n',
        b'To: "root mail" <root@x.example>\r\n',
        b"From: =?utf-8?q?J=C3=BCrgen?=\r\n",
        b"To: John Doe\r\n",
        "To: Müller\r\n".encode(),
        b"To: bad..dots\r\n",
        b"To: root, jane <\r\n",
        b"To: a@b <root\r\n",
        b"Subject: root\r\nX-To: root\r\nDelivered-To: root\r\n",
        b"no field\r\nTo: root\r\n",
        b"To: " + b"root, " * 20_000 + b"x\r\n",
        b"",
    ],
)
def test_groups_and_names_and_what_is_no_address_stay(octets: bytes) -> None:
    assert qualified(octets) == octets


@given(
    st.lists(
        st.sampled_from(
            [
                "root",
                '"',
                "<",
                ">",
                "@",
                ",",
                ";",
                ":",
                "(",
                ")",
                " ",
                "\r\n ",
                "x.example",
                "=?a?q?b?=",
                "\u00e4",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_what_is_clear_at_a_glance_stays(value: str) -> None:
    octets = f"To: {value}x\r\n".encode()
    made = qualified(octets)
    assert made == octets or LOCAL.concerns(b"\n" + octets.lower())
    assert made.replace(b"@in.example", b"") == octets
    assert qualified(made) == made


# -- laws -------------------------------------------------------------------------------

LOCALS = st.sampled_from(["a", "b", "root", '"x y"'])
DOMAINS = st.sampled_from(
    [
        "localhost",
        "h",
        "x.example",
        "X.Example",
        "a.x.example",
        "b.a.x.example",
        "y.example",
        "[192.0.2.1]",
    ]
)
ADDRESSES = st.builds(lambda local, domain: f"{local}@{domain}", LOCALS, DOMAINS)
AT = DOMAINS.map(lambda domain: f"@{domain}")
KEYS = st.one_of(ADDRESSES, AT, st.just("*"))


@given(
    st.dictionaries(KEYS, st.one_of(ADDRESSES, AT), max_size=5),
    st.lists(DOMAINS, max_size=2),
    st.one_of(st.none(), ADDRESSES),
    st.one_of(ADDRESSES, st.just("")),
    st.lists(ADDRESSES, min_size=1, max_size=5),
)
def test_rewriting_twice_changes_nothing_more(
    senders: dict[str, str],
    masquerade: list[str],
    admin: str | None,
    address: str,
    recipients: list[str],
) -> None:
    try:
        rules = Rewriting(senders=senders, masquerade=masquerade, admin=admin)
    except InvalidInput:
        assume(False)
    once = rules.envelope(Envelope(address, recipients))
    assert once == rules.envelope(once)
    assert (address == "") is (once.sender == ReversePath())
    assert len(once.recipients) <= len(recipients)
