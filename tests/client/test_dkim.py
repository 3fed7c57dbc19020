"""Messages are signed as they go out, whatever their source, and again for each server."""

from __future__ import annotations

import io
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import BODY
from tests.dkim_verifier import keys, verify
from tests.message.messages import content, prepared
from tests.pure import run
from twisted_sendmail import (
    DKIMKey,
    Envelope,
    InvalidInput,
    InvalidMessage,
    Mailer,
    MailerService,
    MessageTooLarge,
    ServerSettings,
    SigningUnavailable,
    SubmissionServer,
    TLSPolicy,
    UnsignableMessage,
    many,
)
from twisted_sendmail.message import DKIMSigner, kept, signed
from twisted_sendmail.testing import MemoryServer

BOTH = keys()
LINE = b"\xfc large  message \t" + b"x" * 50 + b" \r\n"
LARGE = BODY + LINE * 20_000
#: Without CHUNKING content goes by DATA, dot-stuffed.
DATA = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")
SEVEN_BIT = ("PIPELINING", "ENHANCEDSTATUSCODES")


def server(extensions: tuple[str, ...] | None = None) -> MemoryServer:
    limits: dict[str, Any] = {"require_tls": False, "max_size": 50_000_000}
    if extensions is not None:
        limits["extensions"] = extensions
    return MemoryServer(tls=False, settings=ServerSettings(**limits))


def arrived(message: Any, extensions: tuple[str, ...] | None = None, **options: Any) -> bytes:
    """The content that the server received; its size is the one that MAIL told."""
    with server(extensions) as hop:
        report = hop.send(message, **{"dkim": BOTH, **options})
        (received,) = hop.messages
    assert received.parameters.size in {None, len(received.content)}
    assert report.size == len(received.content)
    octets: bytes = received.content
    return octets


async def arrives(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


class Pipe(io.BytesIO):
    """A file that can only be read."""

    def seekable(self) -> bool:
        return False


def on_disk(octets: bytes) -> Path:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(octets)
    return Path(file.name)


SOURCES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "file": io.BytesIO,
    "pipe": Pipe,
    "list": lambda octets: [octets[:100], octets[100:]],
    "generator": lambda octets: (octets[at : at + 7000] for at in range(0, len(octets), 7000)),
    "asynchronous": lambda octets: arrives([octets[:50_000], octets[50_000:]]),
}


@pytest.mark.parametrize("extensions", [None, DATA], ids=["BDAT", "DATA"])
@pytest.mark.parametrize(
    "message", [BODY, LARGE, BODY + b".\r\n..\r\n"], ids=["small", "large", "dots"]
)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_signed(
    source: str, message: bytes, extensions: tuple[str, ...] | None
) -> None:
    octets = arrived(SOURCES[source](message), extensions, complete=False)
    assert octets.startswith(b"DKIM-Signature: ")
    assert octets.endswith(b"\r\n" + message)
    assert [True, True] == verify(octets)


def test_a_path_is_read_twice_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    path = on_disk(LARGE)
    try:
        assert [True, True] == verify(arrived(path))
    finally:
        path.unlink()


def test_what_is_completed_and_composed_is_signed_as_it_goes_out() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = "a@example.org", "b@example.net", "c@x.net"
    message["Subject"] = "Gr\u00fc\u00dfe"
    message.set_content("Gr\u00fc\u00dfe\n\n\n")
    octets = arrived(message)
    assert b"\r\nDate: " in octets
    assert b"\r\nMessage-ID: " in octets
    assert b"Bcc" not in octets
    assert [True, True] == verify(octets)


@pytest.mark.parametrize(
    "message",
    [
        BODY.replace(b"hello", "Gr\u00fc\u00dfe".encode()),
        BODY.replace(b"To:", "Subject: Gr\u00fc\u00dfe\r\nTo:".encode()),
        BODY.replace(b"hello", b"x" * 3000 + b"\xc3\xbc"),
        BODY.replace(b"hello", (b"\xc3\xbc \t" + b"x" * 70 + b" \r\n") * 20_000),
    ],
    ids=["body", "header", "long line", "large"],
)
def test_what_is_encoded_for_a_server_is_signed_as_encoded(message: bytes) -> None:
    # The same message for two servers, one with 8BITMIME and one without.
    eight, seven = arrived(message, DATA), arrived(message, SEVEN_BIT)
    assert not eight.isascii() or b"=?utf-8?" in eight
    assert seven.isascii()
    assert [True, True] == verify(eight) == verify(seven)


def test_a_binary_body_is_encoded_before_it_is_signed() -> None:
    message = EmailMessage()
    message["From"], message["To"] = "a@example.org", "b@example.net"
    message.set_content(b"\0\n\r\xff" * 100, "application", "octet-stream", cte="binary")
    octets = arrived(message.as_bytes())
    assert b"Content-Transfer-Encoding: base64" in octets
    assert [True, True] == verify(octets)


def test_line_ends_of_files_are_made_canonical_before() -> None:
    message = (BODY + b" \t\nx \n\n\n").replace(b"\r\n", b"\n")
    assert [True, True] == verify(arrived(message))
    assert [True, True] == verify(arrived(message + b"no line end"))


def test_the_time_is_that_of_the_clock() -> None:
    with server() as hop:
        hop.advance(1_700_000_000)
        hop.send(BODY, dkim=BOTH)
        assert hop.messages[0].content.count(b"; t=1700000000;") == 2


def test_nothing_is_changed_without_keys() -> None:
    assert BODY == arrived(BODY, dkim=None, complete=False)


# -- what cannot be signed is not sent


def test_a_message_of_a_domain_without_a_key_is_not_sent() -> None:
    with server() as hop:
        with pytest.raises(UnsignableMessage) as caught:
            hop.send(BODY.replace(b"a@example.org", b"a@example.net"), dkim=BOTH)
        assert [] == list(hop.messages)
    assert str(caught.value).partition(": ")[2] == (
        "there is no DKIM key for example.net; "
        "give one for the domain in From, or send it without dkim"
    )
    assert caught.value.report is not None


def test_something_else_than_keys_is_refused_before_anything_is_sent() -> None:
    with server() as hop:
        with pytest.raises(InvalidInput, match="dkim cannot be str; give a DKIMKey"):
            hop.send(BODY, dkim="key.pem")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="dkim cannot be"):
            Mailer(hop.clock, "smtp://127.0.0.1", dkim=7)  # type: ignore[arg-type]
        assert [] == list(hop.sessions)


def test_a_full_disk_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> io.BytesIO:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with server() as hop:
        with pytest.raises(SigningUnavailable, match="No space left on device") as caught:
            hop.send(Pipe(LARGE), dkim=BOTH)
        assert [] == list(hop.sessions)
    assert caught.value.transient
    assert "TMPDIR" in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("source"), GeneratorExit()])
def test_a_source_that_fails_leaves_nothing_open(error: BaseException) -> None:
    def pieces() -> Iterator[bytes]:
        yield LARGE
        raise error

    before = len(list(Path("/proc/self/fd").iterdir()))
    with server() as hop, pytest.raises(type(error)):
        hop.send(pieces(), dkim=BOTH)
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_that_changes_meanwhile_is_not_sent() -> None:
    path = on_disk(LARGE)
    message = prepared(path)
    made = run(signed(message, DKIMSigner(BOTH), 0))
    path.write_bytes(LARGE[:-10] + b"y" * 8 + b"\r\n")  # as long as before
    with pytest.raises(InvalidMessage, match="changed while it was being sent"):
        content(made)
    run(message.close())
    path.unlink()


def test_a_signed_message_can_be_sent_again() -> None:
    for source in (BODY, LARGE, Pipe(LARGE)):
        message = run(kept(prepared(source)))
        made = run(signed(message, DKIMSigner(BOTH), 0))
        once = content(made)
        made.rewind()
        assert made.rewindable
        assert once == content(made)
        assert len(once) == made.size
        assert [True, True] == verify(once)
        run(made.close())


def test_a_message_of_any_size_takes_little_memory() -> None:
    size, piece = 0, LINE * 1000

    def pieces() -> Iterator[bytes]:
        yield BODY
        for _ in range(500):
            yield piece

    tracemalloc.start()
    try:
        message = run(kept(prepared(pieces())))
        made = run(signed(message, DKIMSigner(BOTH), 0))
        while octets := run(made.read()):
            size += len(octets)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
        run(message.close())
    assert made.size == size > 30_000_000


# -- many messages


def test_a_mailer_signs_all_of_its_mail() -> None:
    envelope = Envelope("a@example.org", ["b@example.net"])
    other = BODY.replace(b"a@example.org", b"a@example.net")
    with server() as hop:
        mailer = Mailer(
            hop.clock,
            SubmissionServer("", tls=TLSPolicy.NONE, endpoint=hop.endpoint),
            dkim=BOTH,
        )
        hop.run(mailer.send(BODY))
        reports = hop.run(
            mailer.send_many(
                [(envelope, BODY), BODY, (envelope, other), (envelope, LARGE)]
            ).reports()
        )
        hop.run(mailer.aclose())
        assert [[True, True]] * 4 == [verify(each.content) for each in hop.messages]
    assert [True, True, False, True] == [report.error is None for report in reports]
    assert isinstance(reports[2].error, UnsignableMessage)


def test_many_and_a_service_sign_too() -> None:
    with server() as hop:
        to = SubmissionServer("", tls=TLSPolicy.NONE, endpoint=hop.endpoint)
        hop.run(many(hop.clock, to, [BODY, Pipe(LARGE)], dkim=BOTH[1]))
        service = MailerService(hop.clock, to, dkim=[BOTH[0]])
        for _ in range(2):
            service.startService()
            hop.run(service.send(BODY))
            hop.run(service.stopService())
        assert [[True]] * 4 == [verify(each.content) for each in hop.messages]


def test_the_size_of_the_signature_counts() -> None:
    limits = ServerSettings(require_tls=False, max_size=200)
    with MemoryServer(tls=False, settings=limits) as hop, pytest.raises(MessageTooLarge):
        hop.send(BODY, dkim=BOTH, complete=False)


def test_a_selector_for_each_domain() -> None:
    other = DKIMKey("example.net", "s1", BOTH[1].private)
    message = BODY.replace(b"a@example.org", b"a@example.net")
    octets = arrived(message, dkim=[*BOTH, other])
    assert [True] == verify(octets, *BOTH, other)
