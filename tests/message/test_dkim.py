"""DKIM signatures are valid for an independent verifier, whatever the content and its cutting."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.dkim_verifier import keys, pem, verify
from twisted_sendmail import DKIMKey, InvalidInput, UnsignableMessage
from twisted_sendmail.message import DKIMSigner
from twisted_sendmail.message.dkim import SigningInput
from twisted_sendmail.message.header import Header

NOW = 1_700_000_000
FROM = b"From: Jane <jane@example.org>\r\n"
HEADER = (
    FROM + b"To: bob@example.net,\r\n\tann@example.net\r\nSubject: \t a  folded\r\n\r\n "
    b"subject \t \r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nCC: c@example.net\r\n"
).replace(b"\r\n\r\n ", b"\r\n ")


def read(message: bytes, *cuts: int) -> SigningInput:
    made = SigningInput()
    for begin, end in zip((0, *cuts), (*cuts, len(message)), strict=True):
        made.feed(message[begin:end])
    made.finish()
    return made


def signed(message: bytes, *signing: DKIMKey) -> bytes:
    return DKIMSigner(signing or keys()).sign(read(message), NOW) + message


def tags(message: bytes) -> dict[str, str]:
    """The tags of the first signature."""
    (value, *_) = Header.parse(signed(message)).values("dkim-signature")
    pairs = (tag.partition("=") for tag in value.split(";"))
    return {name.strip(): "".join(text.split()) for name, _, text in pairs}


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"\r\n\r\n\r\n",
        b" \t\r\n\r\n \r\n",
        b"text\r\n",
        b"text\r\n\r\n\r\n\r\n",
        b"no line end",
        b"no line end, blanks at the end \t ",
        b".\r\n..\r\n.text\r\n",
        b"\r\n\r\nfirst\r\n\r\n\r\nlast \t \r\n \r\n",
        b" \t begins with  blanks\t\tand\ttabs\r\n",
        "Gr\u00fc\u00dfe, \u4e16\u754c\r\n".encode(),
        bytes(range(128, 256)) + b"\r\n",
        b"x" * 5000 + b"\r\n",
        b" " * 5000 + b"\r\n" + b"\t" * 5000 + b"x\r\n",
        b"text\r\n" + b"\r\n" * 10_000 + b"text\r\n" + b"\r\n" * 10_000,
    ],
)
def test_both_algorithms_sign_any_body(body: bytes | None) -> None:
    message = HEADER + (b"" if body is None else b"\r\n" + body)
    arrived = signed(message)
    if not arrived.endswith(b"\r\n"):
        arrived += b"\r\n"  # as DATA does
    assert [True, True] == verify(arrived)


@pytest.mark.parametrize(
    "fields",
    [
        b"X:  y \t \r\n",
        b"Subject:\r\n",
        b"Subject: one\r\nSubject: two\r\nTo: x@example.net\r\nTo: y@example.net\r\n",
        b"sUBJECT:\t x\r\n\t \r\n y \r\n",
        b"Subject: Gr\xc3\xbc\xc3\x9fe\r\nCc: =?utf-8?q?J=C3=B6rg?= <j@example.net>\r\n",
        b"References: <1@x>\r\n <2@x>\r\n\t<3@x>\r\nIn-Reply-To: <3@x>\r\n",
        b"List-Unsubscribe: <https://example.org/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
        b"Received: from a by b;\r\n Mon, 1 Jan 2024 00:00:00 +0000\r\nReturn-Path: <x@y>\r\n",
        b"".join(b"Content-X%d: %d\r\n" % (n, n) for n in range(200)),
        b"List-X;l=0: 1\r\nContent-X;i=@other.example: 1\r\n",
    ],
)
def test_any_header_is_signed(fields: bytes) -> None:
    assert [True, True] == verify(signed(fields + FROM + b"\r\ntext\r\n"))
    assert [True, True] == verify(signed(FROM + fields + b"\r\ntext\r\n"))


@given(
    st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b".", b"\xfc", b"\r\n\r\n", b"  "])),
    st.data(),
)
def test_the_cutting_does_not_matter(pieces: list[bytes], data: st.DataObject) -> None:
    message = HEADER + b"\r\n" + b"".join(pieces) + b"\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=8)))
    whole, cut = read(message), read(message, *cuts)
    assert (whole.header, whole.body_hash, whole.octets_hash, whole.size) == (
        cut.header,
        cut.body_hash,
        cut.octets_hash,
        cut.size,
    )
    assert verify(signed(message, keys()[1])) == [True]


def test_a_change_of_what_is_signed_is_found() -> None:
    message = signed(HEADER + b"\r\ntext\r\n")
    assert [False, False] == verify(message.replace(b"text", b"Text"))
    assert [False, False] == verify(message.replace(b"folded", b"Folded"))
    assert [True, True] == verify(message.replace(b"CC: c@", b"cC:  c@"))


@pytest.mark.parametrize("name", [b"From", b"To", b"Subject", b"Date"])
def test_no_second_one_of_the_important_fields_can_be_added(name: bytes) -> None:
    added = name + b": x@evil.example\r\n"
    assert [False, False] == verify(added + signed(HEADER + b"\r\ntext\r\n"))
    # Nor a first one.
    without = FROM if name != b"From" else HEADER
    assert [False, False] == verify(added + signed(without + b"\r\ntext\r\n"))


def test_the_tags_are_those_that_are_needed() -> None:
    found = tags(
        b"Received: x\r\nReturn-Path: <x@y>\r\n" + FROM + b"Bcc: x@example.net\r\n"
        b"Message-ID: <1@x>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\nX: y\r\n"
        b"Content-Length: 7\r\nReply-To: a@x\r\nList-Id: <l.x>\r\nList-Post: NO\r\n\r\n"
    )
    signature, body_hash = found.pop("b"), found.pop("bh")
    assert 344 == len(signature)
    assert "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" == body_hash  # of nothing
    assert found == {
        "v": "1",
        "a": "rsa-sha256",
        "c": "relaxed/relaxed",
        "d": "example.org",
        "s": "rsa2026",
        "t": str(NOW),
        "h": "from:from:subject:date:to:message-id:mime-version:content-type:reply-to:list-id:list-post",
    }


def test_lines_of_a_signature_are_short() -> None:
    fields = b"".join(b"List-X%d: %d\r\n" % (n, n) for n in range(50))
    signature = DKIMSigner(keys()).sign(read(fields + FROM), NOW)
    assert max(map(len, signature.splitlines())) <= 78


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"Subject: x\r\n", "no From field with one domain"),
        (FROM + FROM, "no From field with one domain"),
        (b"From: a@example.org, b@example.net\r\n", "no From field with one domain"),
        (b"From: nobody\r\n", "no From field with one domain"),
        (b"From: Nobody:;\r\n", "no From field with one domain"),
        (FROM + b"no field\r\n", "no From field with one domain"),
        (FROM[:-2] + b" " * 5000 + b"\r\n", "no From field with one domain"),
        (b"From: a@sub.example.org\r\n", "no DKIM key for sub.example.org"),
        (b"From: a@example.net\r\n", "no DKIM key for example.net"),
    ],
)
def test_a_message_without_a_domain_of_ours_is_not_signed(header: bytes, why: str) -> None:
    with pytest.raises(UnsignableMessage, match=why):
        signed(header + b"\r\ntext\r\n")


def test_a_header_that_does_not_end_is_not_held() -> None:
    reading = SigningInput()
    with pytest.raises(UnsignableMessage, match="its header is longer than 2097152 octets"):
        reading.feed(b"X-Line: x\r\n" * 200_000)


@pytest.mark.parametrize(
    "value",
    ["a@example.org, B <b@Example.ORG>", "Team: a@example.org;", "(c) <a@EXAMPLE.org> (d)"],
)
def test_all_addresses_of_one_domain_are_its_mail(value: str) -> None:
    assert [True, True] == verify(signed(f"From: {value}\r\n\r\n".encode()))


def test_an_international_domain_signs_in_ascii() -> None:
    ours = DKIMKey("b\u00fccher.example", "s1", keys()[1].private)
    message = signed("From: a@b\u00fccher.example\r\n\r\ntext\r\n".encode(), ours)
    assert b"d=xn--bcher-kva.example;" in message
    assert "s1._domainkey.xn--bcher-kva.example" == ours.record_name
    assert [True] == verify(message, ours)


def test_only_keys_of_the_domain_sign() -> None:
    other = DKIMKey("example.net", "s1", keys()[1].private)
    message = signed(HEADER + b"\r\ntext\r\n", other, keys()[1])
    assert [True] == verify(message)


def test_the_hash_of_a_body_takes_no_memory() -> None:
    # Line ends at the end are counted; the hash is that of the same body in the simplest form.
    made = SigningInput()
    made.feed(FROM + b"\r\ntext\r\n")
    for _ in range(200):
        made.feed(b"\r\n" * 5000)
    made.finish()
    assert sha256(b"text\r\n").digest() == made.body_hash


# -- keys ---------------------------------------------------------------------------


def key_file(path: Path, private: Any = None, octets: bytes = b"", mode: int = 0o600) -> Path:
    encryption: Any = NoEncryption()
    path.write_bytes(octets or private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(mode)
    return path


@pytest.mark.parametrize("number", [0, 1])
def test_a_key_is_read_from_a_file(tmp_path: Path, number: int) -> None:
    ours = keys()[number]
    path = key_file(tmp_path / "key.pem", octets=pem(ours))
    again = DKIMKey.from_file("Example.ORG.", ours.selector, path)
    assert (ours.record, ours.record_name) == (again.record, again.record_name)
    assert [True] == verify(signed(HEADER + b"\r\ntext\r\n", again))


def test_a_key_of_openssl_in_the_older_form_is_read() -> None:
    private = keys()[0].private
    older = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert keys()[0].record == DKIMKey("example.org", "s", older.decode("ascii")).record


@pytest.mark.parametrize(
    ("private", "why"),
    [
        (
            lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - refused
            "it has 1024 bits",
        ),
        (lambda: ec.generate_private_key(ec.SECP256R1()), "neither an RSA nor an Ed25519 key"),
    ],
)
def test_a_key_of_another_kind_is_refused(tmp_path: Path, private: Any, why: str) -> None:
    path = key_file(tmp_path / "key.pem", private())
    with pytest.raises(InvalidInput, match=why) as caught:
        DKIMKey.from_file("example.org", "s1", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "openssl genrsa 2048" in caught.value.remedy


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "not a private key in PEM"),
        (
            b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
            "not a private key",
        ),
        (
            keys()[0]
            .private.public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "not a private key in PEM",
        ),
        (
            keys()[0].private.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
            ),
            "it is encrypted",
        ),
    ],
    ids=["empty", "damaged", "public", "encrypted"],
)
def test_what_is_no_usable_key_is_one_clear_line(octets: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        DKIMKey("example.org", "s1", octets)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key.pem", octets=pem(keys()[1]), mode=0o644)
    with pytest.raises(InvalidInput, match="may be read by everybody"):
        DKIMKey.from_file("example.org", "s1", path)
    assert DKIMKey.from_file("example.org", "s1", path, world_readable=True).selector == "s1"


def test_a_mistake_in_the_names_is_not_one_in_the_file(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key.pem", octets=pem(keys()[1]))
    for names in (("bad domain", "s1"), ("example.org", "a b")):
        with pytest.raises(InvalidInput) as caught:
            DKIMKey(*names, keys()[1].private)
        with pytest.raises(InvalidInput) as from_file:
            DKIMKey.from_file(*names, path)
        assert str(from_file.value) == str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"key\.pem cannot be read: No such file or directory"):
        DKIMKey.from_file("example.org", "s1", tmp_path / "key.pem")


def test_a_pipe_without_a_writer_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key.pem")
    with pytest.raises(InvalidInput, match=r"key\.pem is no file"):
        DKIMKey.from_file("example.org", "s1", tmp_path / "key.pem")
    with pytest.raises(InvalidInput, match=r"key\\x00 is no file name"):
        DKIMKey.from_file("example.org", "s1", "key\0")


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("", "s1"),
        ("[192.0.2.1]", "s1"),
        ("a b", "s1"),
        (None, "s1"),
        ("example.org", ""),
        ("example.org", "a_b"),
        ("example.org", "a;b"),
        ("example.org", "a\r\nb"),
        ("example.org", 1),
    ],
)
def test_domain_and_selector_are_names(domain: Any, selector: Any) -> None:
    with pytest.raises(InvalidInput):
        DKIMKey(domain, selector, keys()[1].private)


def test_a_key_does_not_show_its_secret() -> None:
    assert "DKIMKey(domain='example.org', selector='ed2026')" == repr(keys()[1])


@pytest.mark.parametrize("given", [[], "key", [b"key"], 7])
def test_something_else_than_a_key_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput):
        DKIMSigner.of(given)
