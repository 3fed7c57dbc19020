"""A message composed from its parts is well-formed and ASCII."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import InvalidInput, InvalidMessage
from twisted_sendmail.message import Attachment, compose


def read_back(message: EmailMessage) -> EmailMessage:
    octets = message.as_bytes()
    assert octets.isascii()
    return message_from_bytes(octets, policy=policy.default)


def test_a_text_alone_is_no_multipart() -> None:
    message = compose(sender="a@example.org", to=["b@example.net"], subject="hi", text="Hi.\n")
    back = read_back(message)
    assert (
        back["From"],
        back["To"],
        back["Subject"],
        back.get_content_type(),
    ) == ("a@example.org", "b@example.net", "hi", "text/plain")


def test_what_is_not_given_has_no_field() -> None:
    message = compose(sender="a@example.org", to=["b@example.net"])
    assert set(message.keys()) == {
        "From",
        "To",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    }


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")),
)
def test_subject_and_text_come_back(subject: str, text: str) -> None:
    message = compose(sender="a@example.org", to=["b@example.net"], subject=subject, text=text)
    back = read_back(message)
    expected = text if text.endswith("\n") else text + "\n"
    assert back.get_content().replace("\r\n", "\n") == expected
    assert " ".join(subject.split()) == " ".join(str(back["Subject"] or "").split())


@given(st.binary(max_size=2000))
def test_an_attachment_comes_back_octet_by_octet(content: bytes) -> None:
    message = compose(
        sender="a@example.org",
        to=["b@example.net"],
        text="see there",
        attachments=[Attachment("ä b.bin", content), Attachment("t.txt", content, "text/plain")],
    )
    first, second = read_back(message).iter_attachments()
    assert ("ä b.bin", "application/octet-stream", content) == (
        first.get_filename(),
        first.get_content_type(),
        first.get_payload(decode=True),
    )
    assert ("t.txt", content) == (second.get_filename(), second.get_payload(decode=True))


@pytest.mark.parametrize("kind", ["message/rfc822", "multipart/mixed"])
def test_a_message_goes_as_octets(kind: str) -> None:
    """What may not be encoded (RFC 2046 section 5) would not arrive as it is."""
    content = b"Subject: x\n\n\xff\n"
    message = compose(sender="a@b", to=["c@d"], attachments=[Attachment("x.eml", content, kind)])
    (part,) = read_back(message).iter_attachments()
    assert ("application/octet-stream", content) == (
        part.get_content_type(),
        part.get_payload(decode=True),
    )


@pytest.mark.parametrize("field", ["sender", "subject", "to", "cc", "bcc"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0"])
def test_nothing_gets_out_of_its_field(field: str, end: str) -> None:
    text = f"x@example.org{end}Bcc: y@example.org"
    fields = {"sender": "a@example.org", "to": ["b@example.net"]}
    fields[field] = [text] if field in {"to", "cc", "bcc"} else text
    with pytest.raises(InvalidInput, match="it holds a line break or NUL; give it in one line"):
        compose(**fields)  # type: ignore[arg-type]  # built by name


@pytest.mark.parametrize(
    ("name", "kind"), [("", "text/plain"), ("a\nb", "text/plain"), ("a", "text"), ("a", "a/b\r\n")]
)
def test_an_attachment_that_cannot_be_named(name: str, kind: str) -> None:
    with pytest.raises(InvalidMessage, match="cannot be used"):
        Attachment(name, b"", kind)
