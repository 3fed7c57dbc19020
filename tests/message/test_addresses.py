"""Addresses of a header field are returned as written, or the field is refused."""

from __future__ import annotations

from email.headerregistry import Address, Group
from email.policy import SMTPUTF8
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import InvalidAddress
from twisted_sendmail.message import mailboxes


def read(value: str) -> list[str]:
    return [str(box) for box in mailboxes("To", value)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("  ", []),
        (", ,", []),
        ("a@example.org", ["a@example.org"]),
        ("<a@example.org>", ["a@example.org"]),
        ("< a@example.org >", ["a@example.org"]),
        ("A <a@example.org>", ["a@example.org"]),
        ("J. R. Doe <a@example.org>", ["a@example.org"]),
        ('"Doe, J" <a@example.org>', ["a@example.org"]),
        ('"Doe <x@evil.example>, J" <a@example.org>', ["a@example.org"]),
        ('"\\"x@evil.example\\"" <a@example.org>', ["a@example.org"]),
        ("[List] Name <a@example.org>", ["a@example.org"]),
        ("a@example.org (A <x@evil.example>)", ["a@example.org"]),
        ("(x@evil.example (nested\\)) ) a@example.org", ["a@example.org"]),
        ("A (c) <(c) a@example.org (c)> (c)", ["a@example.org"]),
        ("a@example.org, b@example.net", ["a@example.org", "b@example.net"]),
        ("a@example.org,,b@example.net,", ["a@example.org", "b@example.net"]),
        ("a@example.org\t,\t B <b@example.net>", ["a@example.org", "b@example.net"]),
        ("undisclosed-recipients:;", []),
        ("undisclosed recipients: (nobody) ;", []),
        (
            '"A, B": a@example.org, C <c@example.com>; , d@x',
            ["a@example.org", "c@example.com", "d@x"],
        ),
        ("x:;, y: a@example.org ;", ["a@example.org"]),
        ('"a b"@example.org', ['"a b"@example.org']),
        ('A <"x@evil.example>"@example.org>', ['"x@evil.example>"@example.org']),
        ("a@[192.0.2.1], b@[IPv6:2001:db8::1]", ["a@[192.0.2.1]", "b@[IPv6:2001:db8::1]"]),
        ("J\udcfcrgen <a@example.org>", ["a@example.org"]),
        ("Jürgen <jürgen@bücher.example>", ["jürgen@bücher.example"]),
        ("=?utf-8?q?x=40evil=2Eexample=2C?= <a@example.org>", ["a@example.org"]),
        ("a@example.org <a@example.org>", ["a@example.org"]),
        ("<a@example.org> (c)", ["a@example.org"]),
    ],
)
def test_addresses(value: str, expected: list[str]) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "a b@example.org",
        "a@example.org b@example.net",
        "a@example.org <b@example.net>",
        "A <a@example.org> b@example.net",
        "A <a@example.org> B",
        "A <a@example.org> <b@example.net>",
        "A <a@example.org",
        "a@example.org>",
        "A <<a@example.org>>",
        "A <a@example.org, b@example.net>",
        "A <@relay.example:a@example.org>",
        "A <>",
        "Doe, J <a@example.org>",
        "a@example.org; b@example.net",
        "a@example.org;",
        "group: a@example.org",
        "group: a@example.org, inner: b@example.net;;",
        "group: a@example.org; b@example.net",
        "group: <a@example.org;",
        ": a@example.org;",
        "10:30 <a@example.org>",
        "a@example.org: b@example.net;",
        '"A <a@example.org>',
        'A" <a@example.org>',
        "(A <a@example.org>",
        "A) <a@example.org>",
        "A \\<a@example.org>",
        "a(c)@example.org",
        "a @example.org",
        "a@ example.org",
        "a@exam (c) ple.org",
        "a . b@example.org",
        "A <a b@example.org>",
        "A <a(c)@example.org>",
        "=?utf-8?q?a=40example=2Eorg?=",
        "=?utf-8?q?a?=@ =?utf-8?q?b?=",
        "=?utf-8?q?a?=@example.org",
        "A <=?utf-8?B?YQ==?=@example.org>",
        "group: =?us-ascii?Q?a=40b?=@example.org;",
        "a@[192.0.2.1",
        "a@example.org]",
        "a\x00@example.org",
        "a@example.org\x0b",
        "\udcfc@example.org",
        "mailto:a@example.org",
        "a@example.org\u2028b@example.net",
    ],
)
def test_what_is_ambiguous_or_no_address(value: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        mailboxes("Resent-To", value)
    assert "Resent-To" in str(caught.value)
    assert caught.value.remedy


def test_an_error_names_field_and_address() -> None:
    with pytest.raises(InvalidAddress) as caught:
        mailboxes("Cc", "a@example.org, B <b>")
    assert (
        str(caught.value)
        == "address 'b' in Cc cannot be used: it has no @; write it as user@example.org"
    )


@pytest.mark.parametrize(
    "value",
    [
        "(" * 100_000,
        "<" * 100_000,
        '"' * 100_001,
        "\\" * 100_000,
        "a:" * 50_000,
        "((" + "\\" * 99_999,
    ],
)
def test_nesting_costs_nothing(value: str) -> None:
    with pytest.raises(InvalidAddress):
        read(value)
    with pytest.raises(InvalidAddress):
        read(value + "a@example.org")


def test_a_thousand_recipients() -> None:
    expected = [f"user{i}@example.org" for i in range(1000)]
    assert read(", ".join(f'"Doe, {i}" <{box}>' for i, box in enumerate(expected))) == expected


PIECES = st.sampled_from(
    [
        "a@example.org",
        "b@x",
        " ",
        ",",
        "<",
        ">",
        ":",
        ";",
        '"',
        "\\",
        "(",
        ")",
        "@",
        ".",
        "[",
        "]",
        "=?utf-8?q?a=40b?=",
        "Name",
        '"q r"',
        "ü",
        "\t",
        "\r\n ",
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=30))
def test_no_address_comes_out_that_does_not_stand_there(value: str) -> None:
    try:
        found = mailboxes("To", value)
    except InvalidAddress:
        return
    for box in found:
        written = {str(box), f'"{box.local_part}"@{box.domain}'}
        assert any(spelling in value for spelling in written) or "\\" in value


NAMES = st.text('abc ,;:<>@()[]"\\.ü', max_size=8).filter(lambda name: name == name.strip())
ADDRESSES = st.builds(
    Address,
    NAMES,
    st.sampled_from(["a", "a.b", "x y", 'q"r', "ü", "a@b", "+"]),
    st.sampled_from(["example.org", "x", "bücher.example"]),
)
GROUPS = st.builds(Group, st.none() | st.just("a group"), st.lists(ADDRESSES, max_size=3)).filter(
    lambda group: group.display_name is not None or len(group.addresses) == 1
)


@given(st.lists(GROUPS, max_size=4))
def test_what_the_library_writes_is_read_as_it_was_meant(groups: list[Group]) -> None:
    value = ", ".join(map(str, groups))
    expected = [(a.username, a.domain) for group in groups for a in group.addresses]
    assert [(box.local_part, box.domain) for box in mailboxes("To", value)] == expected


@given(st.lists(PIECES, max_size=10).map("".join))
def test_the_library_finds_no_others(value: str) -> None:
    """Where both believe the field, they agree on whom it names."""
    try:
        ours = mailboxes("To", value)
        library: Any = SMTPUTF8.header_factory("To", value.replace("\r\n", ""))
    except Exception:  # noqa: BLE001 - the library may fail in any way
        return
    if not library.defects:
        theirs = [(address.username, address.domain) for address in library.addresses]
        assert theirs == [(box.local_part, box.domain) for box in ours]


@pytest.mark.parametrize(
    "value", ["Doe, Jane <jane@example.org>", "Jane Doe, Dr. <jane@example.org>"]
)
def test_a_name_with_a_comma_needs_quotes_and_the_error_says_so(value: str) -> None:
    with pytest.raises(InvalidAddress, match='a display name with a comma as "Doe, Jane"'):
        mailboxes("To", value)
