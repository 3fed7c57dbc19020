"""A streamed header is completed and otherwise unchanged."""

from __future__ import annotations

import email
import email.policy
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.message.messages import DATE, SECONDS, cut
from twisted_sendmail import Mailbox, ReversePath
from twisted_sendmail.message import Header, HeaderFixer
from twisted_sendmail.message.header_fixer import from_field

SENDER = ReversePath.parse("jane@example.org")
FROM = b"From: jane@example.org\r\n"
IDENTIFICATION = b"Message-ID: ID\r\n"
WHOLE = b"From: f@x\r\nDate: x\r\nMessage-ID: <i@x>\r\n"
TRACE = b"Received: from a.example by b.example;\r\n\tSat, 21 Nov 2026 04:30:00 +0000\r\n"


def completion(sender: ReversePath = SENDER, **options: Any) -> HeaderFixer:
    return HeaderFixer(SECONDS, "relay.example.net", sender, **options)


def through(content: bytes, cuts: list[int] | None = None, **options: Any) -> bytes:
    """*content* completed, with ``ID`` for a new Message-ID."""
    subject = completion(**options)
    out = b"".join(subject.feed(piece) for piece in cut(content, cuts or [])) + subject.finish()
    return re.sub(rb"<[0-9a-f]{32}@[a-z.]+>", b"ID", out)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (WHOLE + b"\r\nhi\r\n", WHOLE + b"\r\nhi\r\n"),
        (TRACE + WHOLE + b"\r\nhi\r\n", TRACE + WHOLE + b"\r\nhi\r\n"),
        # Added fields come after the fields, ours at the beginning stay there.
        (
            TRACE + b"Subject: s\r\n\r\nhi\r\n",
            TRACE + b"Subject: s\r\n" + FROM + DATE + IDENTIFICATION + b"\r\nhi\r\n",
        ),
        (WHOLE[11:] + b"\r\n", WHOLE[11:] + FROM + b"\r\n"),
        # No header, or an empty one.
        (b"hello\r\n", FROM + DATE + IDENTIFICATION + b"\r\nhello\r\n"),
        (
            b"hello\r\n\r\nBcc: b@x\r\n",
            FROM + DATE + IDENTIFICATION + b"\r\nhello\r\n\r\nBcc: b@x\r\n",
        ),
        (TRACE + b"hello\r\n", TRACE + FROM + DATE + IDENTIFICATION + b"\r\nhello\r\n"),
        (b"\r\nhello\r\n\r\n", FROM + DATE + IDENTIFICATION + b"\r\nhello\r\n\r\n"),
        (TRACE + b"\r\nhello\r\n", TRACE + FROM + DATE + IDENTIFICATION + b"\r\nhello\r\n"),
        (b"", FROM + DATE + IDENTIFICATION),
        (TRACE, TRACE + FROM + DATE + IDENTIFICATION),
        # No body, and no end of the last line.
        (WHOLE, WHOLE),
        (b"Subject: s", b"Subject: s\r\n" + FROM + DATE + IDENTIFICATION),
        # A line that is no field stays where it is, and what is added stands before it.
        (
            b"Subject: s\r\nwhat is this\r\nTo: a@x\r\n\r\nhi\r\n",
            b"Subject: s\r\n"
            + FROM
            + DATE
            + IDENTIFICATION
            + b"what is this\r\nTo: a@x\r\n\r\nhi\r\n",
        ),
        # What belongs to the file, not to the message, goes.
        (b"From jane Sat Nov 21\r\n" + WHOLE + b"\r\n", WHOLE + b"\r\n"),
        (TRACE + b"From jane Sat Nov 21\r\n" + WHOLE + b"\r\n", TRACE + WHOLE + b"\r\n"),
        # Folded blind copies, and 8-bit octets beside them.
        (WHOLE + b"Bcc: a@x,\r\n b@x\r\nTo: \xff\r\n\r\n", WHOLE + b"To: \xff\r\n\r\n"),
        (b"BCC : a@x\r\n" + WHOLE + b"\r\nBcc: body\r\n", WHOLE + b"\r\nBcc: body\r\n"),
        # Content without lines is left alone after the header.
        (WHOLE + b"\r\n\0\r\n\n\r\xff", WHOLE + b"\r\n\0\r\n\n\r\xff"),
    ],
)
def test_what_is_missing_is_added_and_nothing_else_changes(content: bytes, expected: bytes) -> None:
    assert through(content) == expected


def test_the_message_id_is_at_the_senders_domain() -> None:
    subject = completion()
    subject.feed(b"Subject: s\r\n\r\n")
    assert subject.message_id is not None
    assert re.fullmatch(r"<[0-9a-f]{32}@example\.org>", subject.message_id)


@pytest.mark.parametrize("sender", ["", "root@localhost", "root@[192.0.2.1]"])
def test_the_message_id_is_at_our_name_when_nobody_knows_the_senders_domain(sender: str) -> None:
    subject = completion(ReversePath.parse(sender))
    subject.feed(b"Subject: s\r\n\r\n")
    assert str(subject.message_id).endswith("@relay.example.net>")


@pytest.mark.parametrize(
    ("header", "domain"),
    [
        (b"From: jane@example.com\r\n", b"example.com"),
        (b"Subject: s\r\n", b"relay.example.net"),
        # The addresses of a long header are not parsed.
        (b"From: jane@example.com\r\nX: " + b"x" * 70_000 + b"\r\n", b"relay.example.net"),
    ],
)
def test_the_message_id_of_a_message_without_sender_is_at_the_domain_of_from(
    header: bytes, domain: bytes
) -> None:
    made = completion(ReversePath()).feed(header + b"\r\n")
    assert re.search(rb"\r\nMessage-ID: <[0-9a-f]{32}@" + domain + rb">\r\n", made)


def test_a_message_without_sender_is_from_the_mail_system() -> None:
    expected = b"From: MAILER-DAEMON@relay.example.net\r\n" + DATE + IDENTIFICATION
    assert through(b"", sender=ReversePath()) == expected


def test_the_date_is_in_the_local_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "NST+3:30")
            time.tzset()
            assert b"Date: Sat, 21 Nov 2026 01:00:00 -0330\r\n" in completion().feed(b"\r\n")
    finally:
        time.tzset()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, b"From: jane@example.org\r\n"),
        ("", b"From: jane@example.org\r\n"),
        (" \r\n ", b"From: jane@example.org\r\n"),
        ("Jane Doe", b"From: Jane Doe <jane@example.org>\r\n"),
        ('J. "Jo" Doe\\', b'From: "J. \\"Jo\\" Doe\\\\" <jane@example.org>\r\n'),
        ("Cron (daemon)", b'From: "Cron (daemon)" <jane@example.org>\r\n'),
        ("a\r\nBcc: b@x", b'From: "a Bcc: b@x" <jane@example.org>\r\n'),
        ("=?utf-8?q?x?=", b"From: =?utf-8?b?PT91dGYtOD9xP3g/PQ==?= <jane@example.org>\r\n"),
        ("J\u00fcrgen", b"From: =?utf-8?q?J=C3=BCrgen?= <jane@example.org>\r\n"),
    ],
)
def test_a_name_goes_into_a_from_of_ours(name: str | None, expected: bytes) -> None:
    assert from_field(Mailbox.parse("jane@example.org"), name).octets == expected


@given(st.text(max_size=300), st.sampled_from(["jane@example.org", '"a\\" b,<"@example.org']))
@example("\r\nBcc: x", "jane@example.org")
@example("\u2028\x85\udc80\0", "jane@example.org")
def test_no_name_breaks_out_of_its_field(name: str, address: str) -> None:
    field = from_field(Mailbox.parse(address), name)
    (read,) = Header.parse(field.octets).fields
    assert ("from", field.octets) == read
    assert all(len(line) <= 998 for line in field.octets.split(b"\r\n"))
    assert not re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n", field.octets)
    policy = email.policy.default.clone(max_line_length=None)
    made: Any = email.message_from_bytes(field.octets + b"\r\n", policy=policy)
    assert [Mailbox.parse(address)] == [Mailbox.parse(a.addr_spec) for a in made["from"].addresses]


# -- facts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "automatic"),
    [
        (b"", False),
        (b"Auto-Submitted: no\r\n", False),
        (b"Auto-Submitted: (really) No (I wrote it)\r\n", False),
        (b"Auto-Submitted: auto-generated\r\n", True),
        (b"auto-submitted : Auto-Replied; x=y\r\n", True),
        (b"Auto-Submitted: no\r\nAuto-Submitted: auto-notified\r\n", True),
        # Lists live on the reports they get.
        (b"Precedence: list\r\n", False),
    ],
)
def test_a_machines_mail_is_known(header: bytes, automatic: bool) -> None:
    subject = completion()
    subject.feed(WHOLE + header + b"\r\nAuto-Submitted: auto-generated\r\n")
    assert automatic is subject.automatic


@pytest.mark.parametrize(
    ("header", "hops"),
    [
        (WHOLE, 0),
        (TRACE + WHOLE, 1),
        (TRACE + b"X: y\r\n" + WHOLE + b"RECEIVED : z\r\nReceived-SPF: none\r\n", 2),
        (TRACE * 3 + b"To: a@x\r\n", 3),
        (TRACE + b"hello\r\nReceived: x\r\n", 1),
    ],
)
def test_hops_are_counted(header: bytes, hops: int) -> None:
    subject = completion()
    subject.feed(header + b"\r\nReceived: body\r\n")
    assert hops == subject.hops


@pytest.mark.parametrize(
    ("content", "international", "eight_bit"),
    [
        (WHOLE + b"\r\nhi\r\n", False, False),
        (WHOLE + "\r\nh\u00ef\r\n".encode(), False, True),
        (WHOLE + "Subject: h\u00ef\r\n\r\n".encode(), True, True),
        (WHOLE + b"Subject: \xff\r\n\r\n", False, True),
    ],
)
def test_eight_bits_are_noticed(content: bytes, international: bool, eight_bit: bool) -> None:
    subject = completion()
    subject.feed(content)
    assert (international, eight_bit) == (subject.smtputf8_header, subject.eight_bit)


def test_a_utf8_sender_makes_the_header_international() -> None:
    subject = completion(ReversePath.parse("j\u00fcrgen@example.org"))
    assert "From: j\u00fcrgen@example.org\r\n".encode() in subject.feed(b"\r\n")
    assert subject.smtputf8_header


# -- laws -------------------------------------------------------------------------------

LINES = st.lists(
    st.sampled_from(
        [
            *TRACE.splitlines(keepends=True),
            *WHOLE.splitlines(keepends=True),
            b"Bcc: secret@x\r\n",
            b"bcc :\r\n",
            b" secret@x\r\n",
            b"Resent-To: r@x\r\n",
            b"Resent-Bcc: secret@x\r\n",
            b"Message-ID:\r\n",
            b" <folded@x>\r\n",
            b"date\t: x\r\n",
            b"Message-ID : <blank@x>\r\n",
            b"From jane Sat\r\n",
            b"\xef\xbb\xbf",
            b"hello\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"X: \xc3\xa9\xff\r\n",
            b"Auto-Submitted: auto-replied\r\n",
            b"no line end",
        ]
    ),
    max_size=14,
).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)
LIMIT = st.integers(1, 300)


def facts(subject: HeaderFixer) -> tuple[object, ...]:
    known = subject.message_id
    known = None if known is None else re.sub(r"<[0-9a-f]{32}@", "<ID@", known)
    return (known, subject.automatic, subject.hops, subject.smtputf8_header, subject.eight_bit)


@given(LINES, CUTS, LIMIT, st.booleans())
def test_any_cutting_gives_the_same(
    content: bytes, cuts: list[int], limit: int, whole: bool
) -> None:
    at_once, in_pieces = (completion(limit=limit, complete=whole) for _ in range(2))
    expected = at_once.feed(content) + at_once.finish()
    made = b"".join(in_pieces.feed(each) for each in cut(content, cuts)) + in_pieces.finish()
    random = re.compile(rb"<[0-9a-f]{32}@")
    assert random.sub(b"<ID@", expected) == random.sub(b"<ID@", made)
    assert facts(at_once) == facts(in_pieces)


@given(LINES, CUTS, LIMIT)
def test_who_only_looks_changes_nothing(content: bytes, cuts: list[int], limit: int) -> None:
    assert content == through(content, cuts, complete=False, limit=limit)


@given(LINES, CUTS)
def test_the_quick_way_makes_what_the_long_way_makes(content: bytes, cuts: list[int]) -> None:
    quick, slow = completion(), completion(rewrite=lambda header: header)
    made = b"".join(quick.feed(each) for each in cut(content, cuts)) + quick.finish()
    expected = slow.feed(content) + slow.finish()
    random = re.compile(rb"<[0-9a-f]{32}@")
    assert random.sub(b"<ID@", expected) == random.sub(b"<ID@", made)
    assert facts(slow) == facts(quick)


@given(LINES, st.binary(max_size=200))
def test_completing_twice_changes_nothing_more(content: bytes, body: bytes) -> None:
    # A field first: when a blind copy goes, nothing else becomes the first line.
    content = b"X: y\r\n" + content
    once = through(content + WHOLE + b"\r\n" + body)
    assert once == through(once)


@given(LINES, st.binary(max_size=200))
def test_every_octet_behind_the_header_stays(content: bytes, body: bytes) -> None:
    assert through(content + b"X: y\r\n\r\n" + body).endswith(b"\r\n\r\n" + body)


@given(LINES)
def test_no_field_is_lost_but_blind_copies(content: bytes) -> None:
    content = b"X: y\r\n" + content
    end = content.find(b"\r\n\r\n") + 2
    header = content[: end if end > 1 else len(content)]
    made = through(content)
    at = 0
    for field in Header.parse(header).fields:
        if not field.octets.lower().startswith((b"bcc", b"resent-bcc")):
            at = made.find(field.octets, at)
            assert at >= 0
            at += len(field.octets)
    assert made.endswith(content[len(header) :])


# -- too long ---------------------------------------------------------------------------


def test_a_header_beyond_the_limit_passes_and_nothing_is_added() -> None:
    content = b"X: " + b"a" * 500 + b"\r\n" + b"Y: z\r\n" * 100 + b"\r\nbody\r\n"
    assert content == through(content, [100, 300], limit=200)


def test_blind_copies_are_taken_out_as_far_as_the_header_is_held() -> None:
    content = b"A: 1\r\nBcc: secret@x\r\nB: 2\r\n" + b"C: 3\r\n" * 100 + b"\r\n"
    assert content.replace(b"Bcc: secret@x\r\n", b"") == through(content, [7, 50], limit=200)


def test_a_body_without_header_is_not_held_for_ever() -> None:
    subject = completion(limit=200)
    assert subject.feed(b"a" * 202) == b"a" * 202
    assert subject.feed(b"b") == b"b"


def test_a_header_in_single_octets_takes_linear_time() -> None:
    content = (b"X: y" + b"\r\n y" * 4 + b"\r\n") * 2000 + b"\r\n"
    subject = completion()
    out = b"".join(subject.feed(content[at : at + 1]) for at in range(len(content)))
    assert out.startswith(content[:-2])
