"""Parsing replies: any chunks, any garbage, bounded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_sendmail import ProtocolBreach, Reply
from twisted_sendmail.smtp.limits import (
    MAX_CHALLENGE_LINE,
    MAX_REPLY,
    MAX_REPLY_LINE,
    MAX_REPLY_LINES,
)
from twisted_sendmail.smtp.reply_parser import ReplyParser


def parsed(data: bytes, cuts: list[int] | None = None) -> tuple[list[Reply], ProtocolBreach | None]:
    """Feed *data* cut at *cuts*; the replies, and what was wrong."""
    parser = ReplyParser()
    replies = []
    edges = [0, *sorted(c for c in cuts or [] if c < len(data)), len(data)]
    for begin, end in itertools.pairwise(edges):
        replies += parser.feed(data[begin:end])
    return replies, parser.breach


def test_one_line() -> None:
    assert parsed(b"250 ok\r\n") == ([Reply(250, ("ok",))], None)


def test_several_lines() -> None:
    expected = [Reply(250, ("mx.example.net", "PIPELINING", "SIZE 10"))]
    assert parsed(b"250-mx.example.net\r\n250-PIPELINING\r\n250 SIZE 10\r\n") == (expected, None)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"250\r\n", ("",)),
        (b"250 \r\n", ("",)),
        (b"250-\r\n250\r\n", ("", "")),
        (b"250-a\r\n250-\r\n250 c\r\n", ("a", "", "c")),
        (b"250  two blanks\r\n", (" two blanks",)),
    ],
)
def test_text_may_be_missing(data: bytes, lines: tuple[str, ...]) -> None:
    """RFC 5321 section 4.2 tells clients to accept a code alone."""
    assert ([Reply(250, lines)], None) == parsed(data)


def test_a_bare_line_feed_ends_a_line_too() -> None:
    assert parsed(b"250-a\n250 b\n") == ([Reply(250, ("a", "b"))], None)


def test_only_a_whole_last_line_makes_a_reply() -> None:
    for data in (b"250 ok", b"250 ok\r", b"250-ok\r\n", b"250-ok\r\n250 o"):
        parser = ReplyParser()
        assert parser.feed(data) == []
        assert parser.pending
        assert parser.breach is None


def test_text_that_is_not_utf_8_is_data() -> None:
    assert "\ufffd" in parsed(b"250 caf\xe9\r\n")[0][0].text


def test_control_characters_are_kept_and_shown_escaped() -> None:
    reply = parsed(b"550 \x1b[31mred\x07\r\n")[0][0]
    assert reply.text == "\x1b[31mred\x07"
    assert str(reply) == "550 \\x1b[31mred\\x07"


@pytest.mark.parametrize(
    "data",
    [
        b"abc ok\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b" 250 ok\r\n",
        b"050 ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"950 ok\r\n",
        b"250_ok\r\n",
        b"250ok\r\n",
        b"250\tok\r\n",
        b"250\rok\r\n",
        b"250\r\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"-250 ok\r\n",
        b"+OK POP3 ready\r\n",
        b"* OK IMAP4rev1\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x00",
        b"2\xb2\xb35 ok\r\n",
        "２５０ ok\r\n".encode(),
        b"250-a\r\n\r\n",
        b"250-a\r\nok\r\n",
    ],
)
def test_what_is_no_reply(data: bytes) -> None:
    """Malformed codes break the protocol, whole and octet by octet."""
    assert ([], ProtocolBreach) == (parsed(data)[0], type(parsed(data)[1]))
    by_octets = parsed(data, list(range(len(data))))
    assert ([], ProtocolBreach) == (by_octets[0], type(by_octets[1]))


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"2a", 2),
        (b"x", 1),
        (b"250x", 4),
        (b"250\rx", 5),
        (b"554-no\r\n2", 9),
        (b"554-no\r\n555", 11),
        (b"250-a\r\n\r", 8),
    ],
)
def test_the_first_wrong_octet_is_enough(data: bytes, wrong: int) -> None:
    """Nobody waits for a line end, or for a timeout."""
    parser = ReplyParser()
    for i, octet in enumerate(data, start=1):
        parser.feed(bytes([octet]))
        assert (i >= wrong) == (parser.breach is not None)


def test_the_code_may_not_change_within_a_reply() -> None:
    replies, breach = parsed(b"554-no\r\n250 yes\r\n")
    assert replies == []
    assert "the code changes within one reply" in str(breach)


def test_what_was_seen_is_shown_in_one_safe_line() -> None:
    breach = parsed(b"\x1b[2Jhello\r\n")[1]
    assert "protocol broken: it sent what is no SMTP reply: '\\x1b[2Jhello\\x0d'" == str(
        breach
    ) or ("protocol broken: it sent what is no SMTP reply: '\\x1b[2Jhello'" == str(breach))


def test_nothing_is_parsed_behind_a_breach() -> None:
    parser = ReplyParser()
    assert parser.feed(b"250 a\r\nxxx\r\n250 b\r\n") == [Reply(250, ("a",))]
    assert parser.breach is not None
    assert parser.feed(b"250 c\r\n") == []


# -- limits


def test_the_limits_are_bounds_and_yet_wide() -> None:
    """A legal EHLO reply of 50 KB fits; what does not end is noticed within 128 KiB."""
    assert (8 * 1024, 128 * 1024, 8192) == (MAX_REPLY_LINE, MAX_REPLY, MAX_REPLY_LINES)


def test_a_legal_reply_of_50_kb_passes() -> None:
    lines = [b"250-X-KEYWORD-%05d some parameters" % i for i in range(1500)]
    data = b"\r\n".join([*lines, b"250 STARTTLS"]) + b"\r\n"
    assert len(data) > 50_000
    replies, breach = parsed(data)
    assert (breach, len(replies[0].lines)) == (None, 1501)


def test_a_line_of_8_kib_passes_and_not_one_octet_more() -> None:
    data = b"250 " + b"x" * (MAX_REPLY_LINE - 4)
    assert len(parsed(data + b"\r\n")[0]) == 1
    assert "longer than" in str(parsed(data + b"x\r\n")[1])


def test_an_endless_line_is_noticed_before_it_ends() -> None:
    parser = ReplyParser()
    fed = 0
    while parser.breach is None:
        assert fed <= MAX_REPLY_LINE + 1024
        parser.feed(b"250 " + b"x" * 1020 if not fed else b"x" * 1024)
        fed += 1024


def test_a_challenge_may_be_as_long_as_rfc_4954_says() -> None:
    """12,288 octets of base64; nobody else's line may be."""
    challenge = b"A" * 12_288
    assert [Reply(334, (challenge.decode(),))] == parsed(b"334 " + challenge + b"\r\n")[0]
    assert "longer than" in str(parsed(b"334 " + b"A" * (MAX_CHALLENGE_LINE - 3) + b"\r\n")[1])
    assert "longer than" in str(parsed(b"235 " + challenge + b"\r\n")[1])


@pytest.mark.parametrize(
    "line", [b"250-\r\n", b"250-" + b"x" * 500 + b"\r\n", b"250-" + b"x" * 8000 + b"\r\n"]
)
def test_endless_lines_are_broken_off(line: bytes) -> None:
    parser = ReplyParser()
    fed = 0
    while parser.breach is None:
        assert fed <= MAX_REPLY + len(line)
        assert fed <= (MAX_REPLY_LINES + 1) * len(line)
        assert parser.feed(line) == []
        fed += len(line)


def test_a_line_of_100_mb_is_dropped_at_once() -> None:
    parser = ReplyParser()
    parser.feed(b"250 " + b"x" * 100_000_000)
    assert parser.breach is not None
    assert len(str(parser.breach)) < 200


# -- laws

_LINE = st.tuples(
    st.integers(200, 599),
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=1, max_size=4
    ),
)


def _wire(replies: list[tuple[int, list[str]]]) -> bytes:
    out = b""
    for code, lines in replies:
        for line in lines[:-1]:
            out += b"%d-%s\r\n" % (code, line.encode())
        out += b"%d %s\r\n" % (code, lines[-1].encode())
    return out


@given(st.lists(_LINE, max_size=5), st.lists(st.integers(0, 500), max_size=30))
def test_any_cutting_gives_the_same_replies(
    replies: list[tuple[int, list[str]]], cuts: list[int]
) -> None:
    expected = [Reply(code, tuple(lines)) for code, lines in replies]
    assert parsed(_wire(replies), cuts) == (expected, None)
    assert parsed(_wire(replies), list(range(len(_wire(replies))))) == (expected, None)


@given(
    st.lists(_LINE, max_size=3), st.binary(max_size=60), st.lists(st.integers(0, 500), max_size=30)
)
@example([], b"250\rok\r\n", [])
@example([], b"250-a\r\n251 b\r\n", [8])
def test_garbage_gives_a_breach_and_nothing_else(
    replies: list[tuple[int, list[str]]], garbage: bytes, cuts: list[int]
) -> None:
    """Never an exception; the same replies and the same judgement in any cutting."""
    data = _wire(replies) + garbage
    whole, by_octets, cut = parsed(data), parsed(data, list(range(len(data)))), parsed(data, cuts)
    assert whole[0] == by_octets[0] == cut[0]
    assert type(whole[1]) is type(by_octets[1]) is type(cut[1])


@given(st.lists(_LINE, min_size=1, max_size=3))
def test_what_a_reply_writes_is_what_it_is_read_from(replies: list[tuple[int, list[str]]]) -> None:
    made = [Reply(code, tuple(lines)) for code, lines in replies if "\0" not in "".join(lines)]
    assert made == parsed(b"".join(reply.to_bytes() for reply in made))[0]


@pytest.mark.parametrize(
    "data",
    [
        b"250-a\r\n250 b\r\n",
        b"250-a\r\n250 b\r\n250 c\r\n",
        b"250-a\r\n250 b\r\n25",
        b"250-a\r\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\n250-",
    ],
)
def test_what_is_read_a_second_time_is_the_same(data: bytes) -> None:
    """And so by another parser, in the middle of a reply, and octet by octet."""
    first, again, slow = ReplyParser(), ReplyParser(), ReplyParser()
    assert first.feed(data) == again.feed(data)
    each = [slow.feed(data[i : i + 1]) for i in range(len(data))]
    assert first.feed(b"250 z\r\n") == again.feed(b"250 z\r\n") == slow.feed(b"250 z\r\n")
    assert str(first.breach) == str(again.breach) == str(slow.breach)
    if first.breach is None:
        assert ReplyParser().feed(data) == [reply for replies in each for reply in replies]
