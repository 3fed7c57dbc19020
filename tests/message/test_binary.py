"""Binary content is sent only if declared, only by BINARYMIME, and unchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twisted_sendmail import ExtensionUnavailable, InvalidMessage, ServerSettings
from twisted_sendmail.message.prepared import binary_parts
from twisted_sendmail.testing import MemoryServer

HEAD = b"From: a@example.org\r\nTo: b@example.net\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
DECLARED = HEAD + b"Content-Transfer-Encoding: binary\r\n\r\n"
BODY = b"\0\r\n.\r\n\n\r" + bytes(range(256)) * 8
SETTINGS = ServerSettings(starttls=True)


def test_a_binary_body_arrives_as_it_is() -> None:
    with MemoryServer(settings=SETTINGS) as server:
        report = server.send(DECLARED + BODY)
        (message,) = server.messages
    assert len(report.accepted) == 1
    assert message.content == DECLARED + BODY
    assert message.parameters.body == "BINARYMIME"


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Transfer-Encoding:\r\n binary\r\n",
        b"Content-Transfer-Encoding: binary (as it is)\r\n",
        b"content-transfer-encoding : (as\r\n it is)\r\n\tBinary\r\n",
        b"Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: binary\r\n",
        b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: binary\r\n",
    ],
)
@pytest.mark.parametrize("body", [BODY, b"a\nb\r\n"])
def test_the_declaration_may_be_folded_have_comments_or_stand_twice(
    field: bytes, body: bytes
) -> None:
    content = HEAD + field + b"\r\n" + body
    with MemoryServer(settings=SETTINGS) as server:
        _ = server.send(content)
        (message,) = server.messages
    assert message.content == content
    assert message.parameters.body == "BINARYMIME"


@pytest.mark.parametrize("value", [b"(binary)", b"x-binary", b"8bit (not binary)", b""])
def test_another_encoding_declares_no_binary_body(value: bytes) -> None:
    with MemoryServer(settings=SETTINGS) as server:
        with pytest.raises(InvalidMessage, match="NUL"):
            _ = server.send(HEAD + b"Content-Transfer-Encoding: " + value + b"\r\n\r\n" + BODY)
        assert server.messages == []


def test_a_large_one_too() -> None:
    body = BODY * 1000
    with MemoryServer(settings=SETTINGS) as server:
        report = server.send(DECLARED + body)
        (message,) = server.messages
    assert len(DECLARED + body) == report.size
    assert DECLARED + body == message.content


@pytest.mark.parametrize("without", ["BINARYMIME", "CHUNKING", "PIPELINING"])
def test_without_the_extension_it_is_refused_before_mail(without: str) -> None:
    kept = tuple(word for word in SETTINGS.extensions if word != without)
    if without == "CHUNKING":
        kept = tuple(word for word in kept if word != "BINARYMIME")
    with MemoryServer(settings=replace(SETTINGS, extensions=kept)) as server:
        with pytest.raises(ExtensionUnavailable, match="BINARYMIME is needed and not offered"):
            _ = server.send(DECLARED + BODY)
        assert server.messages == []


def test_what_is_not_declared_is_refused_as_ever() -> None:
    with MemoryServer(settings=SETTINGS) as server:
        with pytest.raises(InvalidMessage, match="NUL"):
            _ = server.send(HEAD + b"\r\n" + BODY)
        assert server.messages == []


@pytest.mark.parametrize(
    "octets",
    [
        DECLARED + b"lines\r\nlike any other\r\n",
        DECLARED + b"no line end",
        DECLARED,
        HEAD + b"\r\n" + BODY,
        HEAD + b"Subject: Content-Transfer-Encoding: binary\r\n\r\n" + BODY,
        b"no header at all \0",
        b"",
    ],
)
def test_what_needs_no_binarymime_does_not_ask_for_it(octets: bytes) -> None:
    assert binary_parts(octets) is None


def test_the_header_of_a_binary_message_is_completed_like_any_other() -> None:
    head = b"From: a@example.org\nBcc: b@example.net\nContent-Transfer-Encoding: BINARY\n\n"
    with MemoryServer(settings=SETTINGS) as server:
        _ = server.send(head + b"\0\n\r")
        (message,) = server.messages
    assert b"Bcc" not in message.content
    assert message.content.endswith(b"\r\n\r\n\0\n\r")
    assert b"\r\nMessage-ID: <" in message.content
