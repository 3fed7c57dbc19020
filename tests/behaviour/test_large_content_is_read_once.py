"""A large content is read once, as it is sent, unless the server has to know more before it."""

from __future__ import annotations

import io
from typing import Any

import pytest

from twisted_sendmail import InvalidMessage, SendmailError, ServerSettings
from twisted_sendmail.testing import MemoryServer

HEAD = (
    b"From: a@example.org\r\nTo: b@example.net\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\n\r\n"
)
LARGE = HEAD + (b"x" * 70 + b"\r\n") * 50_000
UTF8 = HEAD + ("\u00fc" * 35 + "\r\n").encode() * 50_000


class CountingFile(io.BytesIO):
    """A file that counts the octets that are read."""

    octets = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.octets += len(piece)
        return piece


def settings(**changes: Any) -> ServerSettings:
    return ServerSettings(starttls=True, **changes)


WITHOUT_8BITMIME = tuple(
    word for word in ServerSettings().extensions if word not in {"8BITMIME", "SMTPUTF8"}
)


@pytest.mark.parametrize("without", [(), ("CHUNKING", "BINARYMIME"), ("PIPELINING",)])
@pytest.mark.parametrize("content", [LARGE, UTF8], ids=["ASCII", "UTF-8"])
def test_a_large_file_is_read_once(content: bytes, without: tuple[str, ...]) -> None:
    file = CountingFile(content)
    kept = tuple(word for word in ServerSettings().extensions if word not in without)
    with MemoryServer(settings=settings(extensions=kept)) as server:
        report = server.send(file)
        (message,) = server.messages
    assert content == message.content
    assert len(content) == report.size == file.octets


def test_a_message_above_the_limit_of_the_server_is_refused_before_mail() -> None:
    file = CountingFile(LARGE)
    limit = len(LARGE) - 1
    with MemoryServer(settings=settings(max_size=limit)) as server:
        with pytest.raises(SendmailError, match="too large"):
            server.send(file)
        assert server.messages == []


def test_a_message_that_may_exceed_the_limit_is_measured_first() -> None:
    file = CountingFile(LARGE)
    with MemoryServer(settings=settings(max_size=len(LARGE))) as server:
        server.send(file)
        (message,) = server.messages
    assert message.content == LARGE
    assert file.octets > len(LARGE)


def test_8_bit_content_is_encoded_for_a_server_without_8bitmime() -> None:
    with MemoryServer(settings=settings(extensions=WITHOUT_8BITMIME)) as server:
        server.send(CountingFile(UTF8))
        (message,) = server.messages
    assert message.content.isascii()
    assert b"\r\nContent-Transfer-Encoding: base64\r\n" in message.content


@pytest.mark.parametrize("wrong", [b"a\rb\r\n", b"\0\r\n"])
def test_a_fault_in_the_last_line_of_a_large_content_leaves_nothing_at_the_server(
    wrong: bytes,
) -> None:
    with MemoryServer(settings=settings()) as server:
        with pytest.raises(InvalidMessage, match="in line 50006"):
            server.send(CountingFile(LARGE + wrong))
        assert server.messages == []
