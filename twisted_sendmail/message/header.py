"""The header section as fields, byte for byte: found, left out, added, never rewritten.

Works on canonical octets (CRLF).  What is no field is kept where it stands.

RFC 5322 section 2.2 (fields, folding), section 3.6 (their names), RFC 6532 (UTF-8).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from twisted_sendmail.smtp.root_error import InvalidMessage

#: Octets of a header section at the most.
MAX_HEADER = 1024 * 1024

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LINE = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*\n)*")


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

    def __init__(self, fields: list[Field]) -> None:
        self.fields = fields

    @classmethod
    def parse(cls, octets: bytes) -> Header:
        """Read a header section that :func:`header_end` delimited."""
        found = []
        for match in _LINE.finditer(octets):
            field = _FIELD.match(match[0])
            found.append(Field(field[1].decode("ascii").lower() if field else "", match[0]))
        if found and not found[0].name and found[0].octets.startswith(b"From "):
            del found[0]  # the separator line of a mailbox file
        return cls(found)

    def __contains__(self, name: str) -> bool:
        return any(field.name == name for field in self.fields)

    def values(self, name: str) -> list[str]:
        """The values of every field called *name* (lower-case)."""
        return [field.value for field in self.fields if field.name == name]

    def without(self, *names: str) -> Header:
        """The same without the fields called *names*."""
        return Header([field for field in self.fields if field.name not in names])

    def newest_resent(self) -> dict[str, list[str]]:
        """The fields of the newest ``Resent-`` block, by name (RFC 5322 section 3.6.6)."""
        block: dict[str, list[str]] = {}
        for field in self.fields:
            if field.name.startswith("resent-"):
                if field.name in block and field.name not in {
                    "resent-to",
                    "resent-cc",
                    "resent-bcc",
                }:
                    break
                block.setdefault(field.name, []).append(field.value)
            elif block:
                break
        return block

    def __bytes__(self) -> bytes:
        return b"".join(field.octets for field in self.fields)


def header_end(octets: bytes, *, complete: bool) -> int | None:
    """Where the header section ends: behind its last field, before the empty line.

    :param octets: the beginning of a message, canonical.
    :param complete: there is no more to come.
    :returns: 0 when there is no header; None when that cannot be told yet.
    :raises InvalidMessage: the header section is longer than :data:`MAX_HEADER`.
    """
    first_line = octets.find(b"\n")
    if first_line < 0 and not complete:
        if len(octets) > MAX_HEADER:
            raise _too_long()
        return None
    first = octets[: first_line + 1]
    if not _FIELD.match(first) and not first.startswith(b"From "):
        return 0
    end = octets.find(b"\r\n\r\n")
    if end >= 0:
        return _checked(end + 2)
    if complete:
        return _checked(len(octets))
    _checked(len(octets))
    return None


def _checked(length: int) -> int:
    if length > MAX_HEADER:
        raise _too_long()
    return length


def _too_long() -> InvalidMessage:
    return InvalidMessage(
        "the message's header cannot be used", detail=f"it is longer than {MAX_HEADER} octets"
    )
