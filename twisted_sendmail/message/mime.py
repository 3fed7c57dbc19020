"""MIME: a message from its parts (:func:`compose`), and a MIME object as octets (:func:`written`).

RFC 5322, RFC 2045 to 2049, RFC 2231, RFC 6532 (UTF-8 in headers).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from email.errors import ObsoleteHeaderDefect
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from email.message import Message as MIMEMessage
from email.policy import SMTP, EmailPolicy
from typing import Any

import attrs

from twisted_sendmail.message.addresses import mailboxes
from twisted_sendmail.message.field_encoding import (
    NotEncodable,
    encoded_words,
    field_in_ascii,
    folded_field,
)
from twisted_sendmail.message.header import Field
from twisted_sendmail.smtp import (
    InvalidAddress,
    InvalidInput,
    InvalidMessage,
    check_type,
    printable,
)

_MEDIA_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]+)/([A-Za-z0-9!#$&^_.+-]+)\Z")
#: The media type of an attachment when none is known.
OCTET_STREAM = "application/octet-stream"
# RFC 2046 section 5: these may not be encoded, so they are attached as octets only.
_NOT_ENCODED = frozenset({"message", "multipart"})


@attrs.frozen
class Attachment:
    """A file to attach.

    :param name: the name under which it is saved: no folder, no control characters.
    :param content: its octets.
    :param media_type: such as ``image/png``.
    :raises InvalidMessage: the name or the type cannot be used.
    """

    name: str
    content: bytes
    media_type: str = OCTET_STREAM

    def __attrs_post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            shown = printable(self.name, 80)
            raise InvalidMessage(f"attachment name '{shown}' cannot be used", remedy="rename it")
        if _MEDIA_TYPE.match(self.media_type) is None:
            shown = printable(self.media_type, 80)
            raise InvalidMessage(
                f"media type '{shown}' cannot be used", remedy="write it as image/png"
            )


def compose(
    *,
    sender: str,
    to: Sequence[str] = (),
    cc: Sequence[str] = (),
    bcc: Sequence[str] = (),
    subject: str = "",
    text: str = "",
    attachments: Iterable[Attachment] = (),
) -> EmailMessage:
    """Build a message in ASCII (quoted-printable, base64, encoded-words), for any server.

    Date and Message-ID are added when the message is sent.

    :param sender: for From: an address, with or without a display name.
    :param to: for To, each as in a header; likewise *cc* and *bcc*.
    :param text: the body; line ends may be any.
    :returns: the message, with its Bcc, which is removed when the message is sent.
    :raises InvalidInput: an argument does not fit into a header field, or an address cannot be used.
    """
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    fields = {"From": [sender], "To": to, "Cc": cc, "Bcc": bcc, "Subject": [subject]}
    for name, values in fields.items():
        check_type(name.lower(), values, (list, tuple), "a list of addresses")
        for part in values:
            _check_text("sender" if name == "From" else name.lower(), part)
        value = ", ".join(values)
        # A policy of `email` takes each of these for a line break, as str.splitlines does.
        if "\0" in value or value.splitlines() not in ([], [value]):
            raise InvalidInput(
                f"{name} '{printable(value, 80)}' cannot be used",
                detail="it holds a line break or NUL",
                remedy="give it in one line",
            )
        if value:
            if name != "Subject":
                _ = mailboxes(name, value)
            message[name] = value
    _check_text("text", text)
    message.set_content(text)
    for each in attachments:
        main, _, sub = each.media_type.partition("/")
        if main.lower() in _NOT_ENCODED:
            main, _, sub = OCTET_STREAM.partition("/")
        message.add_attachment(each.content, maintype=main, subtype=sub, filename=each.name)
    return message


def _check_text(name: str, value: str) -> None:
    check_type(name, value, str, "text")
    try:
        _ = value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{name} '{printable(value, 80)}' cannot be used",
            detail="it holds a surrogate, which stands for an octet that is not UTF-8",
            remedy="decode it with the right encoding",
        ) from None


def bulk(message: MIMEMessage) -> int:
    """Return about how many octets :func:`written` will return."""
    payloads = (part.get_payload() for part in message.walk())
    return sum(len(payload) for payload in payloads if isinstance(payload, str))


def written(message: MIMEMessage) -> bytes:
    """Return the octets of *message*, as the ``email`` library writes them, with CRLF.

    8-bit text stays 8-bit. A field that was set is folded, and in ASCII unless an address cannot be;
    a field that was parsed keeps its octets. *message* is not changed.

    :raises InvalidMessage: the library cannot write it, or one of its header fields would become
        several.
    """
    # The library sets the boundary of a multipart while it writes, in the object itself.
    copied = copy.deepcopy(message) if message.is_multipart() else message
    try:
        return copied.as_bytes(policy=_WRITING.clone(cte_type=message.policy.cte_type))
    except InvalidInput:
        raise
    except Exception as e:
        raise InvalidMessage(
            "the message cannot be written out",
            detail=f"{type(e).__name__}: {printable(str(e), 200)}",
        ) from e


class _Writing(EmailPolicy):
    """Writes each field by its own syntax: the library encodes long words where they may not be.

    A field that was parsed keeps its octets.
    """

    def fold_binary(self, name: str, value: Any) -> bytes:
        """Return the octets of a field.

        :raises InvalidMessage: it would become several fields (RFC 5322 section 2.2).
        :raises InvalidAddress: a domain has no form in ASCII.
        """
        text = _text(self, name, value) if isinstance(value, AddressHeader) else str(value)
        if _NO_NAME.search(name) or _NOT_FOLDED.search(text):
            raise InvalidMessage(
                "the message's header cannot be used",
                detail="one of its values holds a line break",
                remedy="take line breaks out of header values",
            )
        octets = _BARE_LF.sub(b"\r\n", f"{name}: {text}\r\n".encode("utf-8", "surrogateescape"))
        if type(value) is str and (
            text.isascii() or (self.cte_type == "8bit" and _is_octets(text))
        ):
            return octets  # it may have been parsed
        field = Field(name.lower(), octets)
        try:
            field = field_in_ascii(field)
        except NotEncodable as e:
            if isinstance(e.__cause__, InvalidAddress):
                raise e.__cause__ from None
        return folded_field(field).octets


_WRITING = _Writing(linesep="\r\n")
# Writes a field in one line, in Unicode.
_UNFOLDED = SMTP.clone(utf8=True, max_line_length=0)
_NO_NAME = re.compile(r"[^!-9;-~]|\A\Z")
_NOT_FOLDED = re.compile(r"\n(?![ \t])")
_BARE_LF = re.compile(rb"(?<!\r)\n")


def _is_octets(text: str) -> bool:
    """Return True if the characters of *text* beyond ASCII are octets (PEP 383)."""
    try:
        return bool(text.encode("ascii", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _text(policy: EmailPolicy[Any], name: str, value: Any) -> str:
    """Return addresses as text, with comments where that is possible."""
    if any(not each.domain and not each.username.isascii() for each in value.addresses):
        # Not an address, but words where one should be.
        words = (
            str(each) if each.domain else "\r\n ".join(encoded_words(each.username))
            for each in value.addresses
        )
        return ", ".join(words)
    text: str = value.fold(policy=_UNFOLDED).partition(":")[2].strip()
    # The library writes names that it decoded without the quotes that they need.
    again = policy.header_factory(name, text) if text != str(value) else value
    obsolete = any(isinstance(each, ObsoleteHeaderDefect) for each in value.defects)
    lossless = again.groups == value.groups and (text.isascii() or not obsolete)
    return text if lossless else str(value)
