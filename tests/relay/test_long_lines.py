"""The relay encodes or folds lines that are too long for SMTP, and encodes binary content."""

from __future__ import annotations

import base64
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest

from tests.names import refuse, without
from tests.relay.world import SENDER, Host, World

COMPLETE = b"From: a@x.example\r\nDate: x\r\nMessage-ID: <1@x.example>\r\n"
LONG = b"x " * 700 + b"end"
LARGE = 11_000_000
TEXT = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
HTML = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n"


def relayed(world: World, content: bytes, host: Host | None = None) -> bytes:
    """What the next hop gets."""
    host = host or world.host()
    relay = world.relay(host)
    queued = world.run(relay.send(content, sender=SENDER, recipients="bob@example.net"))
    world.run(queued.delivered())
    (message,) = host.messages
    return message.content


def leaves(octets: bytes) -> list[bytes]:
    parsed: Any = message_from_bytes(octets, policy=default)
    return [part.get_payload(decode=True) for part in parsed.walk() if not part.is_multipart()]


def longest(octets: bytes) -> int:
    return max(map(len, octets.split(b"\r\n")))


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n" + LONG + b"\r\n",  # cron
        TEXT + b"\r\n" + LONG + b"\r\n",  # MIMEText
        HTML
        + b"Content-Transfer-Encoding: 8bit\r\n\r\n<p>\xc3\xbc"
        + LONG * 9
        + b"</p>\r\n",  # PHP
        TEXT + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC" + LONG + b"\r\n",
        TEXT + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(LONG) + b"\r\n",
        b"Content-Type: application/x\r\nMIME-Version: 1.0\r\n\r\n" + b"\xff" * 2000 + b"\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\nMIME-Version: 1.0\r\n\r\n--b\r\n\r\nshort  \r\n--b\r\n"
        b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.b64encode(LONG)
        + b"\r\n--b--\r\n",
    ],
)
def test_a_body_with_a_long_line_is_encoded_and_means_the_same(
    world: World, content: bytes
) -> None:
    got = relayed(world, COMPLETE + content)
    assert longest(got) <= 998
    assert got.startswith(COMPLETE.removesuffix(b"Message-ID: <1@x.example>\r\n"))
    assert [each.rstrip() for each in leaves(got)] == [each.rstrip() for each in leaves(content)]


def test_a_part_without_a_long_line_keeps_every_octet(world: World) -> None:
    kind = b"Content-Type: multipart/mixed; boundary=b\r\nMIME-Version: 1.0\r\n\r\n"
    plain = b"--b\r\nX-Odd:a  b\r\n\r\nGr\xc3\xbc\xc3\x9fe  \r\n--b\r\n\r\n"
    got = relayed(world, COMPLETE + kind + plain + LONG + b"\r\n--b--\r\n")
    assert got.startswith(COMPLETE + kind + plain.removesuffix(b"\r\n"))
    assert longest(got) <= 998


@pytest.mark.parametrize("length", [998, 997])
def test_mail_with_lines_that_are_not_too_long_keeps_every_octet(world: World, length: int) -> None:
    field = b"X-Long: " + b"y" * (length - 8) + b"\r\n"
    content = COMPLETE + field + b"\r\n" + b"z" * length + b"\r\n\xc3\xbc " + b"z" * 900 + b"\r\n"
    assert relayed(world, content) == content


SIGNED_CONTENTS = pytest.mark.parametrize(
    "content",
    [
        b"DKIM-Signature: x\r\n\r\n" + LONG + b"\r\n",
        b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" + LONG + b"\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"
        b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n"
        + LONG
        + b"\r\n--b--\r\n--a--\r\n",
    ],
)
LARGE_TOO = pytest.mark.parametrize("size", [0, LARGE])


@SIGNED_CONTENTS
@LARGE_TOO
def test_what_is_signed_stays(world: World, content: bytes, size: int) -> None:
    content = COMPLETE + content + b"short\r\n" * (size // 7)
    assert relayed(world, content) == content


@SIGNED_CONTENTS
@LARGE_TOO
def test_a_refusal_of_what_is_signed_names_the_line(
    world: World, content: bytes, size: int
) -> None:
    content = COMPLETE + content + b"short\r\n" * (size // 7)
    relay = world.relay(world.host(faults=[refuse("content", "554 5.6.0 Line too long")]))
    queued = world.run(relay.send(content, sender=SENDER, recipients="bob@example.net"))
    (failed,) = world.run(queued.delivered()).failed
    line = 1 + content[: content.find(LONG)].count(b"\n")
    assert failed.status == "5.6.0"
    assert f"554 5.6.0 Line too long (line {line} is longer than the 998" in (failed.reply or "")


@pytest.mark.parametrize(
    ("content", "broken"),
    [
        (b"X-Token: " + b"y" * 2000 + b"\r\n", [b"X-Token: " + b"y" * 989, b"y" * 997, b"y" * 14]),
        (
            b"X-Token: a b\r\n c" + b"y" * 998 + b"\r\n",
            [b"X-Token: a b", b"c" + b"y" * 996, b"yy"],
        ),
        # In a message whose body cannot be encoded.
        (
            b"Content-Type: message/partial\r\n\r\n" + b"y" * 999 + b"\r\n",
            [b"Content-Type: message/partial", b"", b"y" * 998, b"y"],
        ),
    ],
)
def test_what_can_be_neither_folded_nor_encoded_is_broken(
    world: World, content: bytes, broken: list[bytes]
) -> None:
    end = b"" if b"\r\n\r\n" in content else b"\r\nx\r\n"
    expected = b"\r\n ".join(broken).replace(b"\r\n \r\n ", b"\r\n\r\n")
    assert relayed(world, COMPLETE + content + end) == COMPLETE + expected + b"\r\n" + end


@pytest.mark.parametrize("keywords", [(), ("SMTPUTF8",), ("CHUNKING",)])
def test_lines_of_a_large_message_are_broken_as_it_streams(
    world: World, keywords: tuple[str, ...]
) -> None:
    host = world.host(faults=[without(*keywords)] if keywords else [])
    subject = "Subject: \u00fc\r\n".encode()
    encoded = b"Subject: =?utf-8?b?w7w=?=\r\n"
    head = COMPLETE + TEXT
    text = b"z" * 998 + b"\r\n" + "\u20ac".encode() * 4_000_000 + b"\r\nend\r\n"
    got = relayed(world, head + subject + b"\r\n" + text, host)
    expected = encoded if "SMTPUTF8" in keywords else subject
    got_head, _, body = got.partition(b"\r\n\r\n")
    assert got_head + b"\r\n" == head + expected
    assert body.replace(b"\r\n ", b"") == text
    lines = body.split(b"\r\n")
    assert lines[0] == b"z" * 998
    assert max(map(len, lines)) <= 998
    for line in lines[:50]:
        line.decode()


def test_a_large_message_without_a_long_line_keeps_every_octet(world: World) -> None:
    content = COMPLETE + b"\r\n" + (b"z" * 998 + b"\r\n") * (LARGE // 1000)
    assert relayed(world, content) == content


@pytest.mark.parametrize(
    ("field", "joined"),
    [
        (b"Subject: " + b"word " * 400 + b"end", b"word " * 400 + b"end"),
        (b"X-Data: " + b"word " * 400 + b"end", b"word " * 400 + b"end"),
        (
            b"References: " + b"<abc@x.example> " * 100 + b"<z@x>",
            b"<abc@x.example> " * 100 + b"<z@x>",
        ),
        (
            b"To: " + b", ".join([b'"A, B" <abc@x.example>'] * 100),
            b", ".join([b'"A, B" <abc@x.example>'] * 100),
        ),
        (
            b"To: " + b",".join([b'"A,B"<abc@x.example>'] * 100),
            b", ".join([b'"A,B"<abc@x.example>'] * 100),
        ),
        (b"References: " + b"<abc@x.example>" * 100, b"<abc@x.example> " * 99 + b"<abc@x.example>"),
    ],
)
def test_a_long_field_is_folded_where_it_may_be(world: World, field: bytes, joined: bytes) -> None:
    body = b"\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    got = relayed(world, COMPLETE + field + b"\r\n" + body)
    assert longest(got) <= 998
    name = field.partition(b":")[0]
    folded = got.removeprefix(COMPLETE).removesuffix(body)
    assert folded.replace(b"\r\n", b"") == name + b": " + joined


def test_a_long_subject_without_white_space_becomes_encoded_words(world: World) -> None:
    got = relayed(world, COMPLETE + b"Subject: " + b"y" * 1500 + b"\r\n\r\nx\r\n")
    assert longest(got) <= 998
    parsed: Any = message_from_bytes(got, policy=default)
    assert parsed["Subject"] == "y" * 1500


# -- binary content ---------------------------------------------------------------------------

BINARY = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n"
OCTETS = b"\0\n\r" + bytes(range(256)) * 8
BOTH = (
    BINARY
    + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    + OCTETS
    + b"\r\n--b--\r\n"
)


@pytest.mark.parametrize("missing", [("BINARYMIME",), ("BINARYMIME", "8BITMIME", "SMTPUTF8")])
def test_binary_content_is_encoded_for_a_next_hop_without_binarymime(
    world: World, missing: tuple[str, ...]
) -> None:
    host = world.host(faults=[without(each) for each in missing])
    got = relayed(world, COMPLETE + BOTH, host)
    assert leaves(got) == ["Gr\u00fc\u00dfe".encode(), OCTETS]
    assert b": binary" not in got
    assert host.messages[0].parameters.body != "BINARYMIME"
    if len(missing) == 1:
        assert b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n" in got


def test_binary_content_keeps_every_octet_for_a_next_hop_with_binarymime(world: World) -> None:
    assert relayed(world, COMPLETE + BOTH) == COMPLETE + BOTH


@pytest.mark.parametrize("value", [b"\r\n binary", b"binary (as it is)"])
def test_a_folded_or_commented_declaration_of_binary_content_is_read(
    world: World, value: bytes
) -> None:
    content = BOTH.replace(b" binary", value, 1)
    host = world.host(faults=[without("BINARYMIME")])
    got = relayed(world, COMPLETE + content, host)
    assert leaves(got) == ["Gr\u00fc\u00dfe".encode(), OCTETS]


def test_binary_content_that_cannot_be_encoded_is_undeliverable(world: World) -> None:
    host = world.host(faults=[without("BINARYMIME")])
    relay = world.relay(host)
    content = COMPLETE + b"Content-Transfer-Encoding: binary\r\n\r\n" + OCTETS
    queued = world.run(relay.send(content, sender=SENDER, recipients="bob@example.net"))
    report = world.run(queued.delivered())
    assert [outcome.status for outcome in report.failed] == ["5.6.3"]
