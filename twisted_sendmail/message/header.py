"""The header section as fields, octet for octet: found, left out, added, never rewritten.

Works on canonical octets (CRLF).  A line that is no field is kept where it stands, and
ends what is believed of the header.  Addresses are ``address_list``'s.

RFC 5322 section 2.2 (fields, folding), section 3.6 (their names), section 4.5 (blanks
before the colon), RFC 6532 (UTF-8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from twisted_sendmail.smtp import MAX_FIELDS, InvalidMessage

#: Octets of a header section at the most.
MAX_HEADER = 1024 * 1024

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LINES = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*\n)*")
# What may stand before the first field and belongs to the file, not to the message: a
# byte-order mark, and the separator line of a mailbox file.
_PREAMBLE = re.compile(rb"(?:\xef\xbb\xbf)?(?:From [^\n]*\n)?(?=[!-9;-~]+[ \t]*:)")


class Field(NamedTuple):
    """One field, with its line ends; a line that is none has an empty name."""

    #: Lower-case.
    name: str
    octets: bytes

    @property
    def value(self) -> str:
        """What is behind the colon, unfolded; octets that are not UTF-8 as surrogates."""
        body = self.octets.partition(b":")[2]
        return body.replace(b"\r\n", b"").decode("utf-8", "surrogateescape").strip(" \t")


class Header:
    """The fields of a message, in order."""

    __slots__ = ("fields",)

    def __init__(self, fields: Iterable[Field]) -> None:
        self.fields = tuple(fields)

    @classmethod
    def parse(cls, octets: bytes) -> Header:
        """Read a header section that :func:`header_end` delimited."""
        preamble = _PREAMBLE.match(octets)
        found: list[Field] = []
        for match in _LINES.finditer(octets, preamble.end() if preamble else 0):
            if len(found) > MAX_FIELDS:
                # No header has so many: the rest is one line that is no field.
                found.append(Field("", octets[match.start() :]))
                break
            field = _FIELD.match(match[0])
            found.append(Field(field[1].decode("ascii").lower() if field else "", match[0]))
        return cls(found)

    def __contains__(self, name: str) -> bool:
        return any(field.name == name for field in self.fields)

    def values(self, name: str) -> list[str]:
        """The values of every field called *name* (lower-case)."""
        return [field.value for field in self.fields if field.name == name]

    def without(self, *names: str) -> Header:
        """The same without the fields called *names*."""
        return Header(field for field in self.fields if field.name not in names)

    @property
    def broken(self) -> int | None:
        """Which field, counted from 0, is no field; None if all are."""
        return next((at for at, field in enumerate(self.fields) if not field.name), None)

    def check_fields(self) -> None:
        """Raise an error if there are more than :data:`MAX_FIELDS` fields.

        :raises InvalidMessage: it is so.
        """
        broken = self.broken
        if (len(self.fields) if broken is None else broken) > MAX_FIELDS:
            raise InvalidMessage(
                "the message's header cannot be used",
                detail=f"it has more than {MAX_FIELDS} fields",
                remedy="put an empty line between header and body",
            )

    @property
    def newest_resent(self) -> Header:
        """The newest ``Resent-`` block, the first one; empty if there is none.

        RFC 5322 section 3.6.6: blocks are put in front, and none has a name twice.
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
        """Does a field hold UTF-8 (RFC 6532)?  Other 8-bit octets are just that."""
        octets = b"".join(field.octets for field in self.fields[: self.broken])
        if octets.isascii():
            return False
        try:
            octets.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def __bytes__(self) -> bytes:
        return b"".join(field.octets for field in self.fields)


def header_end(octets: bytes, *, whole: bool) -> int:
    """Where the header section ends: behind its last field, before the empty line.

    :param octets: the message, or its first :data:`MAX_HEADER` octets and more; canonical.
    :param whole: it is the whole message.
    :returns: 0 when there is no header, as the first line is no field.
    :raises InvalidMessage: the header section is longer than :data:`MAX_HEADER`.
    """
    if not _PREAMBLE.match(octets):
        return 0
    end = octets.find(b"\r\n\r\n") + 2
    if end == 1:
        end = len(octets) if whole else MAX_HEADER + 1
    if end > MAX_HEADER:
        raise InvalidMessage(
            "the message's header cannot be used",
            detail=f"it is longer than {MAX_HEADER} octets",
            remedy="put an empty line between header and body",
        )
    return end
