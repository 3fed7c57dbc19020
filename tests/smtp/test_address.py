"""An address follows the grammar or is refused; it never becomes another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_sendmail import ForwardPath, InvalidAddress, Mailbox, ReversePath
from twisted_sendmail.smtp import ascii_domain, domain_name
from twisted_sendmail.smtp.limits import MAX_PATH

#: Texts that would end a command, begin another one, or act on a terminal.
DANGEROUS = [
    *"\r\n\0\t\x01\x1b\x7f\x80\x85\x9b\xad",
    *"\u2028\u2029\u200b\u200e\u202e\u2066\ufeff\ufff9\ud800",
]

ATOMS = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=8)
DOT_STRINGS = st.lists(ATOMS, min_size=1, max_size=3).map(".".join)
#: Anything that fits between quotes.
LOCAL_PARTS = st.one_of(
    DOT_STRINGS,
    st.text('abc "\\.,:;<>()[]@!üж', max_size=12),
    st.text(st.characters(blacklist_categories=("C", "Z")), max_size=8),
)
DOMAINS = st.sampled_from(
    [
        "example.org",
        "EXAMPLE.org",
        "a",
        "a-b.c--d.x",
        "my_host",
        "bücher.example",
        "xn--bcher-kva.example",
        "почта.рф",
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        "[x-tag:anything!]",
    ]
)


@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("user@example.org", "user", "example.org"),
        ("User.Name+tag@example.org", "User.Name+tag", "example.org"),
        ("!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~", "example.org"),
        ("a@b", "a", "b"),
        ("1@1", "1", "1"),
        ("user@my_host", "user", "my_host"),
        ('"a b"@example.org', "a b", "example.org"),
        ('"a@b"@example.org', "a@b", "example.org"),
        ('"a\\"b\\\\c"@example.org', 'a"b\\c', "example.org"),
        ('"a\\bc"@example.org', "abc", "example.org"),
        ('"a..b"@example.org', "a..b", "example.org"),
        ('""@example.org', "", "example.org"),
        ("user@[192.0.2.1]", "user", "[192.0.2.1]"),
        ("user@[IPv6:2001:db8::1]", "user", "[IPv6:2001:db8::1]"),
        ("user@[ipv6:::1]", "user", "[ipv6:::1]"),
        ("jürgen@bücher.example", "jürgen", "bücher.example"),
        ("用户@例子.广告", "用户", "例子.广告"),
    ],
)
def test_a_mailbox(text: str, local_part: str, domain: str) -> None:
    assert Mailbox(local_part, domain) == Mailbox.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "user",
        "@example.org",
        "user@",
        "user@@example.org",
        "a@b@example.org",
        ".user@example.org",
        "user.@example.org",
        "us..er@example.org",
        "us er@example.org",
        " user@example.org",
        "user @example.org",
        "user@ example.org",
        "user@-example.org",
        "user@example-.org",
        "user@example..org",
        "user@.example.org",
        "user@exam ple.org",
        "user@exam!ple.org",
        "user@exa(c)mple.org",
        "user(comment)@example.org",
        "User <user@example.org>",
        "<user@example.org>",
        "user@example.org> SIZE=1",
        "a@example.org,b@example.org",
        "a@example.org;b@example.org",
        "group:a@example.org;",
        '"a"b@example.org',
        '"a@example.org',
        'a"@example.org',
        '"a"@"b"',
        'a\\"b@example.org',
        "a:b@example.org",
        "@relay.example.org:user@example.org",
        "user@[192.0.2.1",
        "user@192.0.2.1]",
        "user@[]",
        "user@[192.0.2]",
        "user@[192.0.2.256]",
        "user@[192.0.2.01]",
        "user@[IPv6:192.0.2.1]",
        "user@[IPv6:2001:db8::1::2]",
        "user@[IPv6:fe80::1%eth0]",
        "user@[2001:db8::1]x",
        "user@[tag:a b]",
        "user@[tag:]",
        "user@[-:x]",
        "user@[a]b]",
        "mailto:user@example.org",
        "=?utf-8?q?a?= <a@example.org>",
    ],
)
def test_what_is_no_mailbox(text: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        Mailbox.parse(text)
    assert not caught.value.transient
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("given_", [None, 5, b"user@example.org", ["a@b"], {"a": 1}, object()])
def test_what_is_no_text(given_: Any) -> None:
    for parse in (Mailbox.parse, ReversePath.parse, ForwardPath.parse):
        with pytest.raises(InvalidAddress, match="not str"):
            parse(given_)


@pytest.mark.parametrize(
    "place", ["{}user@example.org", "us{}er@example.org", "user{}@example.org"]
)
@pytest.mark.parametrize(
    "more",
    [
        "user@{}example.org",
        "user@exam{}ple.org",
        "user@example.org{}",
        '"us{}er"@x',
        '"us\\{}er"@x',
    ],
)
@pytest.mark.parametrize("character", DANGEROUS)
def test_nothing_gets_onto_the_command_line(character: str, place: str, more: str) -> None:
    for text in (place.format(character), more.format(character)):
        for parse in (Mailbox.parse, ReversePath.parse, ForwardPath.parse):
            for wrapped in (text, f"<{text}>"):
                with pytest.raises(InvalidAddress) as caught:
                    parse(wrapped)
                assert character not in str(caught.value)


@pytest.mark.parametrize("character", DANGEROUS)
def test_no_mailbox_is_built_around_the_parser(character: str) -> None:
    for local_part, domain in ((f"a{character}", "b"), (character, "b"), ("a", f"b{character}")):
        with pytest.raises(InvalidAddress):
            Mailbox(local_part, domain)


@pytest.mark.parametrize(
    "domain", ["b@c", "b c", "b>", "b> SIZE=1", "", "[192.0.2.1]x", "b,c", "<b", "b\\c"]
)
def test_no_domain_is_built_around_the_parser(domain: str) -> None:
    with pytest.raises(InvalidAddress):
        Mailbox("a", domain)


@given(LOCAL_PARTS, DOMAINS)
@example('"', "example.org")
@example("\\", "example.org")
@example(" ", "example.org")
@example("a@b> SIZE=1", "example.org")
def test_what_is_written_is_read_back(local_part: str, domain: str) -> None:
    try:
        mailbox = Mailbox(local_part, domain)
    except InvalidAddress:
        assert not local_part.isprintable() or not local_part.isascii()
        return
    assert mailbox == Mailbox.parse(str(mailbox))
    assert mailbox == ForwardPath.parse(f"<{mailbox}>").mailbox
    assert local_part == Mailbox.parse(mailbox.wire).local_part
    assert mailbox.wire == Mailbox.parse(mailbox.wire).wire


@given(st.text(max_size=20) | st.text('a.@"\\ <>[]()', max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever was read, on the wire it is one word of printable characters, outside of quotes."""
    try:
        mailbox = Mailbox.parse(text)
    except InvalidAddress:
        return
    assert mailbox.wire.isprintable()
    if not mailbox.wire.startswith('"'):
        assert not set(' <>"\\,:;') & set(mailbox.wire.partition("[")[0])


@pytest.mark.parametrize(
    ("local_part", "wire"),
    [
        ("john doe", '"john doe"@example.org'),
        ("john.doe", "john.doe@example.org"),
        ("john..doe", '"john..doe"@example.org'),
        (".john", '".john"@example.org'),
        ('a"b', '"a\\"b"@example.org'),
        ("a\\b", '"a\\\\b"@example.org'),
        ("a@b", '"a@b"@example.org'),
        ("a>b", '"a>b"@example.org'),
        ("", '""@example.org'),
    ],
)
def test_a_local_part_is_quoted_where_it_has_to_be(local_part: str, wire: str) -> None:
    assert wire == Mailbox(local_part, "example.org").wire


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("example.org", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("почта.рф", "xn--80a1acny.xn--p1ai"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_a_domain_beyond_ascii_goes_as_a_labels(domain: str, expected: str) -> None:
    mailbox = Mailbox("user", domain)
    assert (mailbox.ascii_domain, mailbox.wire) == (expected, f"user@{expected}")
    assert not mailbox.needs_smtputf8


@pytest.mark.parametrize(
    "domain",
    [
        "\uff45xample.org",  # full-width e
        "ban\u212a.example",  # the Kelvin sign
        "example\u3002org",  # an ideographic full stop
        "example\uff0eorg",  # a full-width full stop
        "exam\u2113ple.org",  # script small l
        "\u2460.example",  # 1 in a circle
        "ex\u00adample.org",  # a soft hyphen
        "ex\u200dample.org",  # a joiner
        "xn--ü.example",
        "ü" * 64 + ".example",
        "-ü.example",
    ],
)
def test_no_look_alike_becomes_another_domain(domain: str) -> None:
    with pytest.raises(InvalidAddress):
        Mailbox("user", domain)


@given(st.characters())
def test_a_character_beyond_ascii_never_becomes_ascii(character: str) -> None:
    try:
        domain = ascii_domain(f"a{character}b.example")
    except InvalidAddress:
        return
    assert character.isascii() == (not domain.startswith("xn--"))


def test_only_a_local_part_needs_smtputf8() -> None:
    assert Mailbox.parse("jürgen@example.org").needs_smtputf8
    assert not Mailbox.parse("j@bücher.example").needs_smtputf8
    assert Mailbox.parse("jürgen@bücher.example").wire == "jürgen@xn--bcher-kva.example"


def test_long_ones_are_refused() -> None:
    with pytest.raises(InvalidAddress, match="longer than"):
        Mailbox.parse("a" * MAX_PATH + "@example.org")
    with pytest.raises(InvalidAddress, match="longer than"):
        Mailbox.parse("a@" + "b." * 127 + "bb")


@pytest.mark.parametrize(
    "text", ["a@" + "b-" * 50_000, "a." * 50_000, '"' + "\\" * 100_001, "@a," * 50_000 + "@a:"]
)
def test_long_nonsense_is_refused_as_such(text: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        ForwardPath.parse(f"<{text}>")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("user@example.org", "<user@example.org>"),
        ("<user@example.org>", "<user@example.org>"),
        ("<@relay.example,@b.example:user@example.org>", "<user@example.org>"),
        ('<"a b"@example.org>', '<"a b"@example.org>'),
    ],
)
@pytest.mark.parametrize("path", [ReversePath, ForwardPath])
def test_a_path(path: Any, text: str, wire: str) -> None:
    assert wire == path.parse(text).wire


@pytest.mark.parametrize(
    "text",
    [
        "<user@example.org",
        "<<user@example.org>>",
        "< user@example.org >",
        "<@relay.example:>",
        "<@relay.example>",
        "<@relay.example user@example.org>",
        "<user@example.org> NOTIFY=NEVER",
        "<user@example.org>\r\nDATA",
        "< >",
    ],
)
@pytest.mark.parametrize("path", [ReversePath, ForwardPath])
def test_what_is_no_path(path: Any, text: str) -> None:
    with pytest.raises(InvalidAddress):
        path.parse(text)


def test_the_null_reverse_path() -> None:
    for text in ("", "<>"):
        assert (
            ReversePath.parse(text).wire,
            str(ReversePath.parse(text)),
            ReversePath.parse(text).needs_smtputf8,
        ) == ("<>", "<>", False)
        with pytest.raises(InvalidAddress):
            ForwardPath.parse(text)


def test_postmaster_needs_no_domain() -> None:
    for text in ("postmaster", "<POSTMASTER>", "Postmaster"):
        assert (
            ForwardPath.parse(text).wire,
            str(ForwardPath.parse(text)),
        ) == ("<Postmaster>", "Postmaster")
        with pytest.raises(InvalidAddress):
            ReversePath.parse(text)


@pytest.mark.parametrize("parse", [ReversePath.parse, ForwardPath.parse])
def test_a_path_is_read_back(parse: Callable[[str], Any]) -> None:
    for text in ("user@example.org", "jürgen@bücher.example", '"a b"@[192.0.2.1]'):
        assert parse(text) == parse(str(parse(text)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("client.example.org", "client.example.org"),
        ("client.example.org.", "client.example.org"),
        ("my_container", "my_container"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:::1]", "[IPv6:::1]"),
    ],
)
def test_a_name_for_ehlo(name: str, expected: str) -> None:
    assert domain_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        "a b",
        "a\r\nDATA",
        "a\n",
        "a\0",
        "[1]",
        "[192.0.2.1",
        "a@b",
        "a\x85",
        "a\u2028",
    ],
)
def test_what_is_no_name_for_ehlo(name: str) -> None:
    with pytest.raises(InvalidAddress):
        domain_name(name)


def test_an_error_tells_what_to_do() -> None:
    for text, remedy in {
        "User <user@example.org>": "give the bare address",
        "a@example.org, b@example.org": "give several addresses as a list",
        "user": "write it as user@example.org",
        "user@[1.2.3]": "write [192.0.2.1]",
    }.items():
        with pytest.raises(InvalidAddress) as caught:
            Mailbox.parse(text)
        assert remedy in str(caught.value)


SEVERAL = "give several addresses as a list, in a header with a comma between them"
SPACE = (
    f"leave out a space or a display name; {SEVERAL}; if that is the name of the mailbox, put it"
)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("ok@example.net b@example.net", SEVERAL),
        ("ok@example.net  b@example.net c@example.net", SEVERAL),
        ("ok@example.net;b@example.net", SEVERAL),
        ("ok@example.net; b@example.net", SEVERAL),
        ("ok@example.net\tb@example.net", SEVERAL),
        ("ok@example.net\r\n b@example.net", SEVERAL),
        ("j\u00fcrgen@example.net b@example.net", SEVERAL),
        ("ok@example.net root", SEVERAL),
        ("a b@example.net", f'{SPACE} in quotes: "a b"@example.net'),
        ("ok @example.net", f'{SPACE} in quotes: "ok "@example.net'),
        ("root ok@example.net;", "write it as user@example.org"),
        ("ok@example.net ", "write it as user@example.org"),
        ("ok@ example.net", "write it as user@example.org"),
        (
            "a..b@example.net",
            'if that is the name of the mailbox, put it in quotes: "a..b"@example.net',
        ),
    ],
)
def test_the_remedy_names_a_missing_comma_or_the_quotes(text: str, remedy: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        Mailbox.parse(text)
    assert caught.value.remedy == remedy


@given(
    st.text(alphabet='aZ0.-_@"\\ []:!\u00e9', max_size=12),
    st.text(alphabet="aZ0.-_[]1:\u00e9", max_size=12),
)
@example("a", "x" * 256)
@example("a" * 800, "x" * 99)
@example("a", "[192.0.2.1]")
def test_what_is_parsed_is_what_the_constructor_would_make(local: str, domain: str) -> None:
    try:
        parsed = Mailbox.parse(f"{local}@{domain}")
    except InvalidAddress:
        return
    made = Mailbox(parsed.local_part, parsed.domain)
    assert (made, made.wire, str(made), hash(made)) == (
        parsed,
        parsed.wire,
        str(parsed),
        hash(parsed),
    )
