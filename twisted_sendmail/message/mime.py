"""A MIME object as octets, and as pieces of which some are files that are read when they are sent.

RFC 5322, RFC 2045 to 2049, RFC 6532 (UTF-8 in headers).
"""

from __future__ import annotations

import copy
import re
import secrets
from email.errors import ObsoleteHeaderDefect
from email.headerregistry import AddressHeader
from email.message import Message as MIMEMessage
from email.message import MIMEPart
from email.policy import SMTP, EmailPolicy
from typing import TYPE_CHECKING, Any

from twisted_sendmail.message.field_encoding import (
    encoded_words,
    sendable_field,
)
from twisted_sendmail.message.header import Field
from twisted_sendmail.smtp import InvalidInput, InvalidMessage, printable

if TYPE_CHECKING:
    from twisted_sendmail.message.attached_file import AttachedFile


class FilePart(MIMEPart):
    """A part with the content of a file, which is read when the message is written.

    The methods of the standard library read the file into memory. This package sends the message
    without that (:func:`written_pieces`).
    """

    def __init__(self, policy: EmailPolicy[Any], file: AttachedFile) -> None:
        super().__init__(policy)
        super().set_payload("")
        self["Content-Transfer-Encoding"] = "base64"
        #: The content; None if it was replaced by :meth:`set_payload`.
        self.file: AttachedFile | None = file
        #: Stands for the content while the parts around it are written.
        self.placeholder = ""

    def get_payload(self, i: Any = None, decode: Any = False) -> Any:  # noqa: FBT002 - as in the base class
        """Return the content in base64, or decoded."""
        if self.file is None:
            return super().get_payload(i, decode)
        if decode:
            return self.file.content()
        return self.placeholder or self.file.text()

    def set_payload(self, payload: Any, charset: Any = None) -> None:
        """Replace the content."""
        self.file = None
        super().set_payload(payload, charset)


def bulk(message: MIMEMessage) -> int:
    """Return about how many octets :func:`written` will return."""
    parts = (part for part in message.walk() if not isinstance(part, FilePart))
    payloads = (part.get_payload() for part in parts)
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
        is_text = isinstance(e, UnicodeEncodeError)
        raise InvalidMessage(
            "the message cannot be written out",
            detail=f"{type(e).__name__}: {printable(str(e), 200)}",
            remedy='name the charset of the text: set_payload(text, "utf-8")' if is_text else None,
        ) from e


def written_pieces(message: MIMEMessage) -> list[bytes | AttachedFile]:
    """Return the octets of *message* as :func:`written` does, with its files between them.

    :raises InvalidMessage: see :func:`written`.
    """
    if not any(isinstance(part, FilePart) for part in message.walk()):
        return [written(message)]
    copied = copy.deepcopy(message)
    pieces: list[bytes | AttachedFile] = []
    files: list[tuple[bytes, AttachedFile]] = []
    for part in copied.walk():
        if isinstance(part, FilePart) and part.file is not None:
            part.placeholder = secrets.token_hex(32)
            files.append((part.placeholder.encode("ascii"), part.file))
    rest = written(copied)
    for placeholder, file in files:
        before, _, rest = rest.partition(placeholder)
        pieces += [before, file]
    return [*pieces, rest]


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
        return sendable_field(Field(name.lower(), octets)).octets


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
