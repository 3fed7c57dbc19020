"""A server with 8BITMIME and without SMTPUTF8 gets headers in ASCII, and bodies as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.message.messages import cut
from tests.names import refuse
from twisted_sendmail import ExtensionUnavailable, ServerSettings
from twisted_sendmail.testing import MemoryServer

WITHOUT_SMTPUTF8 = ServerSettings(
    extensions=("PIPELINING", "CHUNKING", "8BITMIME", "ENHANCEDSTATUSCODES"), require_tls=False
)
SEVEN_BIT = ServerSettings(extensions=("PIPELINING", "ENHANCEDSTATUSCODES"), require_tls=False)
EVERYTHING = ServerSettings(require_tls=False)


def sent(message: Any, server_settings: ServerSettings = WITHOUT_SMTPUTF8) -> tuple[bytes, Any]:
    """What the server gets, and the report."""
    with MemoryServer(tls=False, settings=server_settings) as server:
        report = server.send(
            message, sender="s@example.org", recipients="r@example.net", complete=False
        )
        (received,) = server.messages
    return received.content, report


def arrived(message: Any, server_settings: ServerSettings = WITHOUT_SMTPUTF8) -> bytes:
    return sent(message, server_settings)[0]


BODY = "\r\nGr\u00fc\u00dfe\r\n.\r\n  \r\n\tSubject: \u00fc\r\n".encode()


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Subject: Gr\u00fc\u00dfe", "Subject: =?utf-8?b?R3LDvMOfZQ==?="),
        (
            'To: "J\u00fc" <j@x.example> (\u00e4)',
            "To: =?utf-8?q?J=C3=BC?= <j@x.example> (=?utf-8?b?w6Q=?=)",
        ),
        ("To: j@b\u00fccher.example", "To: j@xn--bcher-kva.example"),
        (
            "From: M\u00fcller, J\u00fcrgen <j@x.example>",
            "From: =?utf-8?q?M=C3=BCller?= , =?utf-8?q?J=C3=BCrgen?= <j@x.example>",
        ),
        (
            "To: Alle Empf\u00e4nger (an a@x.example)",
            "To: Alle =?utf-8?q?Empf=C3=A4nger?= (an a@x.example)",
        ),
        ("Cc: a@x.example, M\u00fcller", "Cc: a@x.example, =?utf-8?q?M=C3=BCller?="),
        (
            "Content-Type: text/plain; name=\u20ac; charset=utf-8",
            "Content-Type: text/plain; name*=utf-8''%E2%82%AC; charset=utf-8",
        ),
        (
            "Content-Type: multipart/mixed; boundary=b (\u00e4)",
            "Content-Type: multipart/mixed; boundary=b (=?utf-8?b?w6Q=?=)",
        ),
        (
            "List-Unsubscribe: <https://x.example/\u00fc?a=b>",
            "List-Unsubscribe: <https://x.example/%C3%BC?a=b>",
        ),
        ("References: <\u00fc@x.example>", "References: <%C3%BC@x.example>"),
    ],
)
def test_fields_are_encoded_and_the_rest_keeps_every_octet(field: str, expected: str) -> None:
    around = b"Received: x;\r\n  odd   folding\r\n", b"X-Odd:a\tb  \r\n"
    wanted = around[0] + expected.encode() + b"\r\n" + around[1] + BODY
    assert arrived(around[0] + field.encode() + b"\r\n" + around[1] + BODY) == wanted


def test_octets_that_are_no_utf8_keep_their_values() -> None:
    assert arrived(b"Subject: Gr\xfc\xdfe\r\n" + BODY) == (
        b"Subject: =?unknown-8bit?q?Gr=FC=DFe?=\r\n" + BODY
    )


@pytest.mark.parametrize("header", [b"Subject: \xc3\xbc\r\n", b"Subject: \xfc\r\n", b"A: b\r\n"])
def test_a_server_with_smtputf8_gets_every_octet(header: bytes) -> None:
    assert arrived(header + BODY, EVERYTHING) == header + BODY


@pytest.mark.parametrize(
    "header",
    [
        b"X-Odd:a\tb  \r\nSubject:  =?utf-8?q?=C3=A4?= x\r\n  y\r\n",
        b'Content-Type: multipart/mixed; boundary="b"\r\n',
        b"",
    ],
)
def test_a_header_in_ascii_keeps_every_octet(header: bytes) -> None:
    parts = b"\r\n--b\r\nX: a  b\r\n\r\n\xc3\xbc\r\n--b\r\n\r\n\xfc\r\n--b--\r\n\xfc"
    assert arrived(header + BODY + parts + b"\r\n") == header + BODY + parts + b"\r\n"


MULTIPART = (
    "Subject: Gr\u00fc\u00dfe\r\nMIME-Version: 1.0\r\n"
    "Content-Type: multipart/mixed; boundary=b\r\n\r\npr\u00e4amble\r\n"
    "--b\r\nContent-Disposition: attachment; filename=\u00dc.txt\r\nX: y\r\n\r\n\u00fc: body\r\n"
    "--b\r\nContent-Type: multipart/alternative; boundary=b2\r\n\r\n"
    "--b2  \r\nContent-Description: \u00e4\r\n\r\n--b3\r\nX: \u00fc\r\n\r\n"
    "--b2\r\n\r\nX: \u00fc\r\n--b2--\r\nX: \u00fc\r\n"
    "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: \u00fc\r\n\r\n\u00fc\r\n"
    "--b\r\nContent-Description: \u00e4\r\n--b\r\nTo: \u00e4@x.example\r\n\r\n--b--\r\nX: \u00fc\r\n"
).encode()
MULTIPART_IN_ASCII = (
    MULTIPART.replace("Subject: Gr\u00fc\u00dfe".encode(), b"Subject: =?utf-8?b?R3LDvMOfZQ==?=")
    .replace("filename=\u00dc.txt".encode(), b"filename*=utf-8''%C3%9C.txt")
    .replace(
        "--b2  \r\nContent-Description: \u00e4".encode(),
        b"--b2  \r\nContent-Description: =?utf-8?b?w6Q=?=",
    )
)


def test_headers_of_parts_are_encoded_and_bodies_and_attached_messages_stay() -> None:
    assert arrived(MULTIPART) == MULTIPART_IN_ASCII


def test_a_part_whose_header_is_the_only_one_that_is_not_ascii_is_encoded() -> None:
    plain = MULTIPART.replace("Gr\u00fc\u00dfe".encode(), b"x")
    encoded = MULTIPART_IN_ASCII.replace(b"=?utf-8?b?R3LDvMOfZQ==?=", b"x")
    assert arrived(plain) == encoded


@pytest.mark.parametrize("boundary", ["gr\u00fc\u00df".encode(), b"gr\xfc\xdf"])
@pytest.mark.parametrize(
    "parameter", [b'boundary="%b"', b"Boundary = %b", b"boundary=%b (\xc3\xa4)"]
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_boundary_keeps_the_octets_that_the_delimiter_lines_have(
    boundary: bytes, parameter: bytes, size: int
) -> None:
    message = (
        b"Content-Type: multipart/mixed; charset=\xc3\xbc; " + parameter % boundary + b"\r\n\r\n"
        b"--"
        + boundary
        + b"\r\nContent-Description: \xc3\xbc\r\n\r\n"
        + b"body \xc3\xbc\r\n" * size
    ) + (b"--" + boundary + b"--\r\n")
    expected = message.replace(b"charset=\xc3\xbc", b"charset*=utf-8''%C3%BC")
    assert arrived(message) == expected.replace(
        b"Description: \xc3\xbc", b"Description: =?utf-8?b?w7w=?="
    )


@pytest.mark.parametrize("body", [b"--b\xc3\xbc\r\n\r\nx\r\n--b\xc3\xbc--\r\n", b"x\r\n"])
def test_a_boundary_beyond_ascii_needs_8bitmime(body: bytes) -> None:
    message = b"Content-Type: multipart/mixed; boundary=b\xc3\xbc\r\n\r\n" + body
    with pytest.raises(ExtensionUnavailable, match="8BITMIME is needed and not offered"):
        arrived(message, SEVEN_BIT)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(MULTIPART)), max_size=6))
def test_a_large_message_is_encoded_as_it_streams(cuts: list[int]) -> None:
    inside = MULTIPART.replace(b"--b--\r\n", b"")
    large = (b"x" * 998 + b"\r\n") * 1400 + b"--b\r\nContent-Description: \xc3\xa4\r\n\r\n"
    pieces = [*cut(inside, cuts), large]
    encoded = (MULTIPART_IN_ASCII.replace(b"--b--\r\n", b"") + large).replace(
        b"x\r\n--b\r\nContent-Description: \xc3\xa4",
        b"x\r\n--b\r\nContent-Description: =?utf-8?b?w6Q=?=",
    )
    assert arrived(iter(pieces)) == encoded


@pytest.mark.parametrize("subject", ["x", "Gr\u00fc\u00dfe"])
def test_the_size_of_a_large_message_is_announced(tmp_path: Path, subject: str) -> None:
    path = tmp_path / "message"
    path.write_bytes(f"Subject: {subject}\r\n".encode() + BODY * 60_000)
    limits = replace(WITHOUT_SMTPUTF8, max_size=3_000_000)
    with MemoryServer(tls=False, settings=limits) as server:
        server.send(path, sender="s@example.org", recipients="r@example.net", complete=False)
        (received,) = server.messages
    assert received.parameters.size == len(received.content) > 1_500_000


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("From: j\u00fc@x.example", "the From header has j\u00fc@x.example,"),
        ("To: a <\u00e4@b.example>", "the To header has \u00e4@b.example,"),
        ("Cc: b@x.example,\r\n \u00e4@b.example (c)", "the Cc header has \u00e4@b.example,"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 30_000])
@pytest.mark.parametrize("server_settings", [WITHOUT_SMTPUTF8, SEVEN_BIT])
def test_only_an_address_that_has_no_form_in_ascii_needs_smtputf8(
    field: str, named: str, size: int, server_settings: ServerSettings
) -> None:
    """Whatever the body is, and whatever else the server lacks."""
    message = f"{field}\r\nSubject: \u00fc\r\n\r\n{BODY.decode() * size}".encode()
    with pytest.raises(ExtensionUnavailable, match="SMTPUTF8 is needed and not offered") as caught:
        arrived(message, server_settings)
    assert named in str(caught.value)
    assert arrived(message, EVERYTHING) == message


def test_octets_of_an_address_that_are_no_utf8_need_it_without_8bitmime() -> None:
    message = b"From: j\xfc@x.example\r\n\r\nx\r\n"
    with pytest.raises(ExtensionUnavailable, match=r"SMTPUTF8 is needed .* the From header has"):
        arrived(message, SEVEN_BIT)
    assert arrived(message) == message


# -- recipients -------------------------------------------------------------------------------

INTERNATIONAL = "j\u00fcrgen@x.example"
HEADER = "From: Gr\u00fc\u00dfe <s@x.example>\r\nSubject: \u00fc\r\n".encode()
ENCODED = b"From: =?utf-8?b?R3LDvMOfZQ==?= <s@x.example>\r\nSubject: =?utf-8?b?w7w=?=\r\n"


@pytest.mark.parametrize(
    ("header", "expected"), [(HEADER, ENCODED), (ENCODED, ENCODED), (b"A: b\r\n", b"A: b\r\n")]
)
@pytest.mark.parametrize("server_settings", [WITHOUT_SMTPUTF8, SEVEN_BIT])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 300_000])
def test_one_recipient_that_needs_smtputf8_is_refused_and_the_others_get_the_message(
    header: bytes, expected: bytes, server_settings: ServerSettings, place: int, size: int
) -> None:
    to = ["a@x.example", "b@x.example"]
    to.insert(place, INTERNATIONAL)
    message = header + b"\r\n" + b"hello\r\n" * size
    with MemoryServer(tls=False, settings=server_settings) as server:
        report = server.send(message, sender="s@x.example", recipients=to, complete=False)
        (received,) = server.messages
    assert received.content == expected + b"\r\n" + b"hello\r\n" * size
    assert [str(each) for each in received.recipients] == ["a@x.example", "b@x.example"]
    assert [str(each.recipient) for each in report.outcomes] == to
    (refused,) = report.refused
    assert report.outcomes[place] is refused
    assert refused.reply is not None
    assert (str(refused.reply.enhanced), refused.transient) == ("5.6.7", False)
    assert INTERNATIONAL in refused.reply.text
    assert len(report.accepted) == 2


def test_replies_belong_to_the_recipients_that_were_sent() -> None:
    to = [INTERNATIONAL, "a@x.example", f"\u00e4{INTERNATIONAL}", "b@x.example"]
    with MemoryServer(
        tls=False,
        settings=WITHOUT_SMTPUTF8,
        faults=[refuse("RCPT", "550 5.1.1 No", address="b@x.example")],
    ) as server:
        report = server.send(b"\r\nx\r\n", sender="s@x.example", recipients=to)
    codes = [str(each.reply and each.reply.enhanced) for each in report.outcomes]
    assert (codes[0], codes[2]) == ("5.6.7", "5.6.7")
    assert codes[3] == "5.1.1"
    (accepted,) = report.accepted
    assert str(accepted.recipient) == "a@x.example"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"recipients": ["a@x.example", INTERNATIONAL], "all_or_nothing": True}, "the recipient"),
        ({"recipients": [INTERNATIONAL]}, "the recipient"),
        ({"sender": INTERNATIONAL, "recipients": ["a@x.example"]}, "the sender"),
    ],
)
def test_where_nobody_can_get_it_the_error_names_the_address(
    options: dict[str, Any], named: str
) -> None:
    with MemoryServer(tls=False, settings=SEVEN_BIT) as server:
        with pytest.raises(ExtensionUnavailable, match="SMTPUTF8 is needed") as caught:
            server.send(HEADER + BODY, **{"sender": "s@x.example", **options})
        assert server.messages == []
    assert f"{named} is {INTERNATIONAL}, which" in str(caught.value)


def test_the_message_is_for_everybody_with_smtputf8() -> None:
    to = ["a@x.example", INTERNATIONAL]
    with MemoryServer(tls=False, settings=EVERYTHING) as server:
        report = server.send(HEADER + BODY, sender="s@x.example", recipients=to, complete=False)
        (received,) = server.messages
    assert len(report.accepted) == 2
    assert received.content == HEADER + BODY


# -- signed mail ------------------------------------------------------------------------------

SIGNED = b"DKIM-Signature: v=1; a=x; b=y\r\n"


@pytest.mark.parametrize(
    ("header", "server_settings"),
    [
        (SIGNED + "Subject: \u00fc\r\n".encode(), EVERYTHING),
        (SIGNED + b"Subject: \xfc\r\n", WITHOUT_SMTPUTF8),
        (SIGNED + b"Content-Type: multipart/mixed; boundary=b\r\n", WITHOUT_SMTPUTF8),
    ],
)
def test_signed_mail_that_can_go_keeps_every_octet(
    header: bytes, server_settings: ServerSettings
) -> None:
    message = header + BODY + b"--b\r\nX: \xc3\xa4\r\n\r\n--b--\r\n"
    content, report = sent(message, server_settings)
    assert content == message
    assert not report.signature_broken


@pytest.mark.parametrize("size", [1, 30_000])
def test_signed_mail_is_encoded_if_it_could_not_go_and_the_report_says_so(size: int) -> None:
    body = BODY * size
    content, report = sent(SIGNED + "Subject: \u00fc\r\n".encode() + body)
    assert content == SIGNED + b"Subject: =?utf-8?b?w7w=?=\r\n" + body
    assert report.signature_broken
    assert "-- signed message encoded for this server" in str(report.transcript)


@pytest.mark.parametrize("header", [SIGNED, b"ARC-Seal: x\r\n", b"Domainkey-Signature: x\r\n"])
def test_a_signed_8_bit_body_is_encoded_for_a_server_without_8bitmime(header: bytes) -> None:
    content, report = sent(header + BODY, SEVEN_BIT)
    assert content.isascii()
    assert content.startswith(header + b"MIME-Version: 1.0\r\n")
    assert report.signature_broken


def test_the_header_before_a_signed_part_is_not_part_of_what_is_signed() -> None:
    rest = (
        "Content-Type: multipart/signed; boundary=b\r\n\r\n"
        "--b\r\nContent-Description: \u00e4\r\n\r\n\u00fc\r\n--b\r\n\r\n--b--\r\n"
    ).encode()
    content, report = sent("Subject: \u00fc\r\n".encode() + rest)
    assert content == b"Subject: =?utf-8?b?w7w=?=\r\n" + rest
    assert not report.signature_broken
