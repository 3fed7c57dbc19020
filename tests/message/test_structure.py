"""The structure of a message is read in little memory, and garbage is no error."""

from __future__ import annotations

import base64
import io
import quopri
import tracemalloc
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import Attachment, InvalidMessage, MessagePart, compose, inspect_message


def a_message(**arguments: Any) -> EmailMessage:
    return compose(sender="Jürgen Ä <a@example.org>", to="b@example.net", **arguments)


def tree(part: MessagePart) -> Any:
    return (part.media_type, *map(tree, part.parts)) if part.parts else (part.media_type, part.size)


def test_a_message_has_its_header_decoded_its_structure_and_its_attachments(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(b"x" * 1_000_000)
    message = a_message(
        subject="Grüße " * 30,
        text="Grüße\n" * 10_000,
        html='<img src="cid:logo">',
        inline={"logo": Attachment(b"png", "logo.png")},
        attachments=[large, Attachment(b"%PDF", "Übersicht 'ä'.pdf")],
    )
    expected = (
        "multipart/mixed",
        (
            "multipart/alternative",
            ("text/plain", 90_000),
            ("multipart/related", ("text/html", 22), ("image/png", 3)),
        ),
        ("application/octet-stream", 1_000_000),
        ("application/pdf", 4),
    )
    octets = message.as_bytes()
    pieces = [octets[at : at + 777] for at in range(0, len(octets), 777)]
    for given_as in (message, octets, io.BytesIO(octets), pieces):
        found = inspect_message(given_as)
        assert tree(found) == expected
        assert (found.value("subject"), found.problems) == (("Grüße " * 30).strip(), ())
        assert found.value("From") == "Jürgen Ä <a@example.org>"
        assert [(each.name, each.size) for each in found.attachments] == [
            ("logo.png", 3),
            ("large.bin", 1_000_000),
            ("Übersicht 'ä'.pdf", 4),
        ]
        assert found.parts[0].parts[1].parts[1].content_id == "logo"


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
@pytest.mark.parametrize("size", [0, 1, 16_000, 70_000, 300_000])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_size_is_that_of_the_decoded_content(encoding: str, size: int, line_end: str) -> None:
    line = f"xä=y {line_end}"
    text = f"--{line}{line * 9}" * (size // 60) + "y" * (size % 60)
    content = text.encode("latin-1")
    encode = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}.get(encoding)
    body = content if encode is None else encode(content)
    end = line_end.encode()
    head = b"Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Transfer-Encoding: %b\n\n"
    head = (head % encoding.encode()).replace(b"\n", end)
    found = inspect_message(head + body + end + b"--a" + end + end + b"z" + end + b"--a--" + end)
    assert [each.size for each in found.parts] == [len(content), 1]


GARBAGE = {
    "nothing": b"",
    "binary": bytes(range(256)) * 100,
    "no header": b"\r\n\r\nbody",
    "no boundary": b"Content-Type: multipart/mixed\n\nx",
    "no end": b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx",
    "deep": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(5000)
    ),
    "messages": b"Content-Type: message/rfc822\n\n" * 5000,
    "charset": b"Subject: =?no-such?q?a?= =?utf-8?b?!!!?= =?utf-8?q?=FF?=\n\nx",
    "charset of a part": b"Content-Type: text/plain; charset*=no-such''%FF\n\nx",
    "name": b"Content-Disposition: attachment; filename*0*=no''%ff; filename*x=2; filename*0=3\n\nx",
    "type": b"Content-Type: (((((((\n\nx",
    "8-bit header": b"Subject: \xff\xfe\xc3\xbc\nX\xff: y\n\nx",
    "many delimiters": b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n" * 50_000,
    "words without an end": b"Subject: " + b"=?a?q?x" * 140_000,
    "parameters in a quote": b'Content-Type: text/plain; a="' + b";" * 1_000_000,
    "parameters of parts": b"Content-Type: multipart/mixed; boundary=a\n\n"
    + (b'--a\nContent-Disposition: attachment; a="' + b";" * 16_000 + b"\n\n") * 200,
    "lines below many boundaries": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(400)
    )
    + (b"\n" * 16_000 + b"--\n") * 100,
    "long line": b"Subject: " + b"x" * 3_000_000,
    "encoding": b"Content-Transfer-Encoding: base64\n\n\xff===\n=",
}


@pytest.mark.parametrize("octets", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_message_with_problems(octets: bytes) -> None:
    found = inspect_message(octets)
    assert all(part.size >= 0 for part in found.walk())


def test_a_long_value_is_decoded_and_long_parameters_are_whole() -> None:
    words = "Gr\u00fc\u00dfe " * 10_000
    message = a_message(subject=words, headers={"X-Names": "Ren\u00e9, " * 5000})
    found = inspect_message(message)
    assert (found.value("Subject"), found.value("X-Names")) == (
        words.strip(),
        ("Ren\u00e9, " * 5000).strip(),
    )
    assert found.media_type == "text/plain"
    assert inspect_message(b"A: b\n\n" + b"\n" * 2_000_000).size == 2_000_000
    parameters = f"text/plain; {'; '.join(f'a{n}=b' for n in range(500))}"
    assert inspect_message(f"Content-Type: {parameters}\n\n").header == (
        ("Content-Type", parameters),
    )


@given(
    st.lists(
        st.sampled_from(
            [
                b"\n",
                b"\r\n",
                b"--a",
                b"--",
                b"Content-Type: ",
                b"multipart/mixed; ",
                b"boundary=a",
                b"message/rfc822",
                b"Content-Transfer-Encoding: base64",
                b"=?utf-8?q?=?=",
                b"\xff",
            ]
        )
    )
)
def test_any_octets_in_any_pieces_have_one_structure(words: list[bytes]) -> None:
    whole = inspect_message(b"".join(words))
    assert inspect_message([word for word in words if word]) == whole


def test_a_message_of_any_size_takes_little_memory() -> None:
    head = (
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n"
    )
    lines = b"QUJD\r\n" * 40_000

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(150):
            yield lines
        yield b"--a--\r\n"

    tracemalloc.start()
    try:
        found = inspect_message(pieces())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tree(found), found.problems) == (
        ("multipart/mixed", ("text/plain", 3 * 40_000 * 150)),
        (),
    )
    assert peak < 6 * 1024 * 1024


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ('Content-Disposition: attachment; filename="Über.pdf"', "Über.pdf"),
        ('Content-Type: application/pdf; name="Über.pdf"', "Über.pdf"),
        (
            "Content-Disposition: attachment; filename=\"Ueber.pdf\"; filename*=utf-8''%C3%9Cber.pdf",
            "Über.pdf",
        ),
        (
            "Content-Disposition: attachment; FILENAME*=utf-8''%C3%9Cber.pdf; FILENAME=Ueber.pdf",
            "Über.pdf",
        ),
        (
            "Content-Type: text/csv; name=a.csv\nContent-Disposition: inline; filename=b.csv",
            "b.csv",
        ),
    ],
)
def test_the_name_of_a_file_is_the_one_with_all_letters(field: str, name: str) -> None:
    assert inspect_message(f"{field}\n\n%PDF".encode()).name == name


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="message cannot be int"):
        _ = inspect_message(3)  # type: ignore[arg-type]  # that is it
    with pytest.raises(InvalidMessage, match="cannot be read: No such file"):
        _ = inspect_message(Path("absent.eml"))
