"""Content read back from a real Postfix and compared octet by octet."""

from __future__ import annotations

import io
import random
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail import InvalidMessage, submit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.scenarios.postfix import Postfix
    from twisted_sendmail import DeliveryReport

HEADER = b"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: content\r\n\r\n"
#: Where buffers are wont to end.
BOUNDARIES = (1024, 4096, 8192, 16384, 32768, 65536, 262144)


def dots_at(boundary: int, shift: int) -> bytes:
    """A body in which a line that begins with a dot begins at *boundary* + *shift* octets."""
    before = boundary + shift - len(HEADER)
    return b"x" * (before - 2) + b"\r\n.\r\n..\r\n.dot\r\nend\r\n"


BODIES = {
    "leading dots": b".\r\n..\r\n...\r\n.a\r\n\r\n.\r\n",
    "a dot first and last": b".first\r\nmiddle\r\n.",
    "only a dot": b".\r\n",
    "dot, no final newline": b".",
    "no final newline": b"end without newline",
    "8-bit": bytes(range(0x80, 0x100)) + b"\r\n" + "Grüße, 世界\r\n".encode(),
    "tabs and trailing blanks": b"a \t \r\n \r\n\t\r\n",
    "every 7-bit octet but CR, LF, NUL": bytes(c for c in range(1, 128) if c not in b"\r\n")
    + b"\r\n",
    "998 octets in a line": b"y" * 998 + b"\r\n",
    "long lines": b"z" * 5000 + b"\r\n" + b"w" * 70000 + b"\r\n",
    "many blank lines": b"\r\n" * 500,
    "From at the beginning": b"From here on\r\n>From there\r\n",
    "look-alikes of an order": b"QUIT\r\nRSET\r\nMAIL FROM:<x@example.test>\r\n",
    **{
        f"dots at {boundary}{shift:+d}": dots_at(boundary, shift)
        for boundary in BOUNDARIES
        for shift in (-3, -2, -1, 0, 1, 2)
    },
}


def canonical(message: bytes) -> bytes:
    """What a server has to have: CRLF everywhere, at the end too."""
    lines = message.replace(b"\r\n", b"\n").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


async def sent(
    reactor: Any, postfix: Postfix, message: Any, service: str = "submission", **settings: Any
) -> tuple[DeliveryReport, bytes]:
    """Submit *message*, and read back the one copy there is."""
    report = await submit(reactor, postfix.server(service), message, **settings)
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    return report, copy.content


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data"])
@pytest.mark.parametrize("name", BODIES)
async def test_awkward_content_arrives_as_it_was(
    reactor: Any, postfix: Postfix, name: str, service: str
) -> None:
    message = HEADER + BODIES[name]
    report, content = await sent(reactor, postfix, message, service, complete=False)
    assert canonical(message) == content
    assert len(content) == report.size


@ensureDeferred
@pytest.mark.parametrize("name", ["leading dots", "no final newline", "8-bit", "dots at 4096+0"])
async def test_bare_line_feeds_become_line_ends(reactor: Any, postfix: Postfix, name: str) -> None:
    message = (HEADER + BODIES[name]).replace(b"\r\n", b"\n")
    _, content = await sent(reactor, postfix, message, complete=False)
    assert canonical(message) == content


@ensureDeferred
@pytest.mark.parametrize("message", [HEADER, HEADER[:-2]], ids=["blank line", "header alone"])
async def test_a_message_without_a_body_arrives(
    reactor: Any, postfix: Postfix, message: bytes
) -> None:
    _, content = await sent(reactor, postfix, message, complete=False)
    assert message == content


@ensureDeferred
async def test_what_is_missing_is_added_and_nothing_else(reactor: Any, postfix: Postfix) -> None:
    report, content = await sent(reactor, postfix, HEADER + b"hello\r\n")
    parsed = BytesParser(policy=default).parsebytes(content)
    assert sorted(parsed.keys()) == ["Date", "From", "Message-ID", "Subject", "To"]
    assert parsed["Message-ID"] == report.message_id
    added = content.replace(HEADER + b"hello\r\n", b"")
    lines = [line for line in content.splitlines() if line not in HEADER.splitlines()]
    assert lines.pop() == b"hello"
    assert sorted(line.partition(b":")[0] for line in lines) == [b"Date", b"Message-ID"], added


@ensureDeferred
async def test_bcc_is_delivered_to_and_not_told(reactor: Any, postfix: Postfix) -> None:
    message = HEADER.replace(
        b"Subject", b"Bcc: eve@example.test,\r\n mallory@example.test\r\nSubject"
    )
    report = await submit(reactor, postfix.server(), message + b"psst\r\n")
    copies = await postfix.delivered(reactor, report.queue_id)
    assert [copy.recipient for copy in copies] == [
        "bob@example.test",
        "eve@example.test",
        "mallory@example.test",
    ]
    for copy in copies:
        assert b"bcc" not in copy.content.lower()
        assert b"mallory" not in copy.content


FIVE_MB = random.Random(5).randbytes(5_000_000).replace(b"\0", b"\1").replace(b"\r", b".")


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data"])
async def test_five_megabytes_from_a_path(
    reactor: Any, postfix: Postfix, tmp_path: Path, service: str
) -> None:
    path = tmp_path / "large.eml"
    path.write_bytes(HEADER + FIVE_MB)
    report, content = await sent(reactor, postfix, path, service, complete=False)
    # Not in the assertion: nobody wants to read the difference.
    same = canonical(HEADER + FIVE_MB) == content
    assert same
    assert len(content) == report.size


@ensureDeferred
async def test_an_open_file_is_sent_from_where_it_stands(
    reactor: Any, postfix: Postfix, tmp_path: Path
) -> None:
    path = tmp_path / "mbox"
    path.write_bytes(b"From alice Thu Jan  1 00:00:00 1970\n" + HEADER + BODIES["leading dots"])
    with path.open("rb") as file:
        file.readline()
        _, content = await sent(reactor, postfix, file, complete=False)
        assert not file.closed
    assert HEADER + BODIES["leading dots"] == content


def cut(message: bytes, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    at = 0
    while at < len(message):
        size = chance.choice((1, 1, 2, 3, 100, 5000))
        yield message[at : at + size]
        at += size


async def slowly(reactor: Any, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    from twisted.internet.task import deferLater

    for index, chunk in enumerate(chunks):
        if index % 20 == 0:
            await deferLater(reactor, 0)
        yield chunk


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data"])
@pytest.mark.parametrize("seed", range(3))
async def test_an_iterator_of_chunks_may_be_cut_anywhere(
    reactor: Any, postfix: Postfix, seed: int, service: str
) -> None:
    message = HEADER + b"".join(BODIES[f"dots at {n}+0"] for n in BOUNDARIES[:4])
    ends = {"sender": "alice@example.test", "recipients": "bob@example.test"}
    _, content = await sent(reactor, postfix, cut(message, seed), service, **ends, complete=False)
    assert message == content
    chunks = slowly(reactor, cut(message, seed))
    _, content = await sent(reactor, postfix, chunks, service, **ends, complete=False)
    assert message == content


@ensureDeferred
async def test_text_and_a_memory_file(reactor: Any, postfix: Postfix) -> None:
    text = HEADER.decode().replace("\r\n", "\n") + "Grüße\n.\n"
    _, content = await sent(reactor, postfix, text, complete=False)
    assert HEADER + "Grüße\r\n.\r\n".encode() == content
    _, content = await sent(reactor, postfix, io.BytesIO(HEADER + b"..\n"), complete=False)
    assert content == HEADER + b"..\r\n"


def photographs() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Alice <alice@example.test>"
    message["To"] = "Bob <bob@example.test>, carol@example.test"
    message["Subject"] = "Photographs of Zürich"
    message.set_content("Dear Bob,\n\n.hidden\nGrüße\n")
    message.add_attachment(
        bytes(range(256)) * 20, maintype="image", subtype="png", filename="Zürich.png"
    )
    return message


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "bare"])
async def test_an_email_message_with_an_attachment(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    message = photographs()
    report = await submit(reactor, postfix.server(service), message)
    copies = await postfix.delivered(reactor, report.queue_id)
    assert [copy.recipient for copy in copies] == ["bob@example.test", "carol@example.test"]
    assert copies[0].content == copies[1].content
    parsed = BytesParser(policy=default).parsebytes(copies[0].content)
    assert parsed["Subject"] == "Photographs of Zürich"
    (attached,) = parsed.iter_attachments()
    assert ("Zürich.png", bytes(range(256)) * 20) == (
        attached.get_filename(),
        attached.get_content(),
    )
    body = parsed.get_body()
    assert body is not None
    assert body.get_content().replace("\r\n", "\n") == "Dear Bob,\n\n.hidden\nGrüße\n"
    assert "Message-ID" not in message


@ensureDeferred
async def test_eight_bit_content_is_encoded_for_a_server_that_takes_none(
    reactor: Any, postfix: Postfix
) -> None:
    message = (
        b"From: alice@example.test\r\nTo: bob@example.test\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    ) + "Grüße\r\n.\r\n".encode()
    _, content = await sent(reactor, postfix, message, "bare")
    assert content.isascii()
    parsed = BytesParser(policy=default).parsebytes(content)
    assert parsed.get_content() == "Grüße\r\n.\r\n"


@ensureDeferred
@pytest.mark.parametrize("bad", [b"bare\rreturn\r\n", b"nul\0\r\n", b"x\r.\r\n"])
async def test_what_has_no_one_meaning_is_refused_before_anything_is_sent(
    reactor: Any, postfix: Postfix, bad: bytes
) -> None:
    since = len(postfix.log)
    with pytest.raises(InvalidMessage, match="line 5"):
        await submit(reactor, postfix.server(), HEADER + bad)
    assert postfix.logged(" connect from", since=since) == []
