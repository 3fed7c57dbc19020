"""The header section as fields, octet for octet, and the table of the fields that have a meaning here.

Works on canonical octets (CRLF). A line that is not a field stays where it is; nothing after it
counts as header. :func:`field_kind` gives the syntax of a field: everything that writes or changes a
field uses that table. A field that is not in the table is unstructured text.

RFC 5322 section 2.2 (fields, folding), section 3.6 (their names), section 4.5 (blanks before the
colon), RFC 6532 (UTF-8).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import NamedTuple

from twisted_sendmail.smtp import MAX_FIELDS, MAX_HEADER, InvalidMessage, section_end

#: Octets of a header in which addresses are not parsed in the reactor's thread: that may take a
#: second.
LONG_HEADER = 64 * 1024
#: Characters of a line at which it is folded (RFC 5322 section 2.1.1).
FOLD_WIDTH = 78

# A line with its name, if it is a field, and the lines that continue it.
_LINES = re.compile(rb"(?:([!-9;-~]+)[ \t]*:)?[^\n]*\n(?:[ \t][^\n]*\n)*")
# May come before the first field, and belongs to the file, not to the message: a byte-order mark,
# and the separator line of a mailbox file.
_PREAMBLE = re.compile(rb"(?:\xef\xbb\xbf)?(?:From [^\n]*\n)?(?=[!-9;-~]+[ \t]*:)")


class Field(NamedTuple):
    """One field, with its line ends; a line that is not a field has an empty name."""

    #: Lower-case.
    name: str
    octets: bytes

    @property
    def value(self) -> str:
        """The text after the colon, unfolded; octets that are not UTF-8 are surrogates."""
        body = self.octets.partition(b":")[2]
        return body.replace(b"\r\n", b"").decode("utf-8", "surrogateescape").strip(" \t")

    @property
    def folded_value(self) -> str:
        """The text after the colon unchanged, with its folding and line end."""
        return self.octets.partition(b":")[2].decode("utf-8", "surrogateescape")

    def with_folded_value(self, value: str) -> Field:
        """Return the field with another text after the colon."""
        begin, colon, _ = self.octets.partition(b":")
        return Field(self.name, begin + colon + value.encode("utf-8", "surrogateescape"))


class Header:
    """The fields of a message, in order."""

    __slots__ = ("fields",)

    def __init__(self, fields: Iterable[Field]) -> None:
        self.fields = tuple(fields)

    @classmethod
    def parse(cls, octets: bytes) -> Header:
        """Parse a header section, without the empty line that ends it."""
        preamble = _PREAMBLE.match(octets)
        found: list[Field] = []
        for match in _LINES.finditer(octets, preamble.end() if preamble else 0):
            if len(found) > MAX_FIELDS:
                # The rest counts as one line that is not a field.
                found.append(Field("", octets[match.start() :]))
                break
            line, name = match.group(0, 1)
            found.append(Field(name.decode("ascii").lower() if name else "", line))
        return cls(found)

    def __contains__(self, name: str) -> bool:
        return any(field.name == name for field in self.fields)

    def __bytes__(self) -> bytes:
        return b"".join(field.octets for field in self.fields)

    def values(self, name: str) -> list[str]:
        """Return the values of all fields named *name* (lower-case)."""
        return [field.value for field in self.fields if field.name == name]

    @property
    def broken(self) -> int | None:
        """The index of the first line that is not a field, or None."""
        return next((at for at, field in enumerate(self.fields) if not field.name), None)

    @property
    def rest(self) -> tuple[Field, ...]:
        """The lines from the first one that is not a field."""
        broken = self.broken
        return () if broken is None else self.fields[broken:]

    def check_fields(self) -> None:
        """Check the number of fields.

        :raises InvalidMessage: there are more than :data:`MAX_FIELDS`.
        """
        broken = self.broken
        if (len(self.fields) if broken is None else broken) > MAX_FIELDS:
            raise _unusable(f"it has more than {MAX_FIELDS} fields")

    @property
    def newest_resent(self) -> Header:
        """The newest ``Resent-`` block, which is the first one; empty if there is none.

        RFC 5322 section 3.6.6: blocks are prepended, and no block has a name twice.
        """
        block: dict[str, Field] = {}
        for field in self.fields:
            if field.name.startswith("resent-") and field.name not in block:
                block[field.name] = field
            elif block:
                break
        return Header(block.values())

    @property
    def international(self) -> bool:
        """True if a field holds UTF-8 (RFC 6532); other 8-bit octets do not count."""
        octets = b"".join(field.octets for field in self.fields[: self.broken])
        if octets.isascii():
            return False
        try:
            octets.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True


def header_end(octets: bytes, *, whole: bool) -> int:
    """Return where the header section ends: after its last field, before the empty line.

    :param octets: the message, or at least its first :data:`MAX_HEADER` + 2 octets; canonical.
    :param whole: *octets* is the whole message.
    :returns: 0 if there is no header, because the first line is not a field.
    :raises InvalidMessage: the header section is longer than :data:`MAX_HEADER`.
    """
    if not _PREAMBLE.match(octets):
        return 0
    end = section_end(octets)
    if end < 0:
        end = len(octets) if whole else MAX_HEADER + 1
    if end > MAX_HEADER:
        raise _unusable(f"it is longer than {MAX_HEADER} octets")
    return end


def _unusable(detail: str) -> InvalidMessage:
    return InvalidMessage(
        "the message's header cannot be used",
        detail=detail,
        remedy="put an empty line between header and body",
    )


# -- the kinds of fields --------------------------------------------------------


class FieldKind(enum.Enum):
    """The syntax of a field's value."""

    #: Text; encoded-words are allowed anywhere (RFC 2047 section 5 (1)).
    UNSTRUCTURED = enum.auto()
    #: Mailboxes and groups: display names, comments and addresses (RFC 5322 section 3.4).
    ADDRESSES = enum.auto()
    #: A comma-separated list of phrases, perhaps with text in angle brackets.
    PHRASES = enum.auto()
    #: A token and parameters (RFC 2045 section 5.1, RFC 2183, RFC 2231).
    PARAMETERS = enum.auto()
    #: Message-IDs in angle brackets (RFC 5322 section 3.6.4).
    MESSAGE_IDS = enum.auto()
    #: Trace (RFC 5321 section 4.4).
    RECEIVED = enum.auto()
    #: A date (RFC 5322 section 3.3).
    DATE = enum.auto()
    #: Other words with a syntax, and comments.
    TOKENS = enum.auto()


_RESENT = "from sender reply-to to cc bcc message-id date"
_NAMES = {
    FieldKind.ADDRESSES: """
        from sender reply-to to cc bcc apparently-to delivered-to disposition-notification-to
        errors-to mail-followup-to mail-reply-to return-path return-receipt-to""",
    FieldKind.PHRASES: "keywords list-id",
    FieldKind.PARAMETERS: "content-type content-disposition",
    FieldKind.MESSAGE_IDS: """
        message-id in-reply-to references content-id original-message-id supersedes""",
    FieldKind.RECEIVED: "received",
    FieldKind.DATE: "date deferred-delivery delivery-date expires expiry-date",
    FieldKind.TOKENS: """
        accept-language arc-authentication-results authentication-results auto-submitted autocrypt
        content-language content-location content-transfer-encoding importance list-archive
        list-help list-owner list-post list-subscribe list-unsubscribe list-unsubscribe-post
        mime-version precedence priority received-spf sensitivity x-priority""",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_KINDS |= {f"resent-{name}": _KINDS[name] for name in _RESENT.split()}

#: Recipients that are not shown to the others (RFC 5322 section 3.6.3).
BLIND = ("bcc", "resent-bcc")
#: Signatures over the octets of the message: any change breaks them (RFC 6376, RFC 8617).
SIGNATURES = ("dkim-signature", "arc-message-signature", "arc-seal", "domainkey-signature")


def field_kind(name: str) -> FieldKind:
    """Return the syntax of the field *name* (lower-case)."""
    return _KINDS.get(name, FieldKind.UNSTRUCTURED)
