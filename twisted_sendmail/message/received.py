"""The Received field: the stamp each server puts on what passes through it.

Built from a value, and read back into one.  Reading is lenient, as the fields are
written by everybody: what is not understood is left out.

RFC 5321 section 4.4 (trace information), RFC 3848 and RFC 6531 section 4.3 (names of
protocols), RFC 5322 section 3.6.7.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

#: Where lines are folded (RFC 5322 section 2.1.1).
WIDTH = 78
_BREAKS = re.compile(r"[ ;()]").search
_BREAKS_COMMENT = re.compile(r"[()\\]").search
_CLAUSES = ("from", "by", "via", "with", "id", "for")


@dataclass(frozen=True)
class Received:
    """One hop.  Each part is text as it stands in the field; comments without parentheses."""

    #: The server that stamps.
    by: str
    #: When; with a time zone.
    date: datetime | None
    #: The name the client gave.
    from_: str | None = None
    #: What else is known of the client: ``[192.0.2.1]``, perhaps with a name.
    from_comment: str | None = None
    by_comment: str | None = None
    via: str | None = None
    #: ``ESMTPSA`` and its kin.
    with_: str | None = None
    #: Such as the TLS version and cipher.
    with_comment: str | None = None
    id: str | None = None
    #: The recipient, without angle brackets; None when there are several, to keep them apart.
    for_: str | None = None

    def to_bytes(self) -> bytes:
        """The whole field, folded, ended by CRLF.

        :raises InvalidInput: when a part would break the field.
        """
        if self.date is None:
            raise InvalidInput("a Received field needs a date")
        parts = []
        if self.from_ is not None:
            parts.append(clause("from", self.from_, self.from_comment))
        parts.append(clause("by", self.by, self.by_comment))
        if self.via is not None:
            parts.append(clause("via", self.via))
        if self.with_ is not None:
            parts.append(clause("with", self.with_, self.with_comment))
        if self.id is not None:
            parts.append(clause("id", self.id))
        if self.for_ is not None:
            parts.append(clause("for", f"<{self.for_}>"))
        return field_of(parts, self.date)

    @classmethod
    def parse(cls, field: str | bytes) -> Received:
        """Read a field, with or without its name; what cannot be read stays None or empty."""
        text = field.decode("utf-8", "replace") if isinstance(field, bytes) else field
        text = re.sub(r"\A\s*received\s*:", "", text, flags=re.IGNORECASE)
        body, _, date = text.rpartition(";")
        found: dict[str, str] = {}
        comments: dict[str, str] = {}
        clause = ""
        for token in _tokens(body or text):
            if token.startswith("("):
                comments.setdefault(clause, token[1:-1])
            elif token.lower() in _CLAUSES and token.lower() not in found:
                clause = token.lower()
                found[clause] = ""
            elif clause and not found[clause]:
                found[clause] = token
        return cls(
            by=found.get("by", ""),
            date=_date(date),
            from_=found.get("from") or None,
            from_comment=comments.get("from"),
            by_comment=comments.get("by"),
            via=found.get("via") or None,
            with_=found.get("with") or None,
            with_comment=comments.get("with"),
            id=found.get("id") or None,
            for_=(found.get("for") or "").strip("<>") or None,
        )


def field_of(clauses: Iterable[str], date: datetime) -> bytes:
    """The whole field, folded, ended by CRLF.

    :param clauses: made by :func:`clause`, in their order.
    :param date: with a time zone.
    """
    if date.microsecond:
        date = date.replace(microsecond=0)
    parts = [*clauses]
    parts[-1] += ";"
    parts.append(_date_text(date, date.utcoffset()))
    return (folded(parts)[0] + "\r\n").encode("utf-8")


def folded(parts: Iterable[str], text: str = "", width: int = 0) -> tuple[str, int]:
    """A field with more *parts*, folded, and the width of its last line.

    :param text: the field so far, empty at its beginning.
    :param width: of its last line.
    """
    if not text:
        text = "Received:"
        width = len(text)
    for part in parts:
        size = 1 + len(part)
        if width + size > WIDTH:
            text += "\r\n\t" + part
            width = size
        else:
            text += " " + part
            width += size
    return text, width


@lru_cache(maxsize=8)
def _date_text(date: datetime, offset: timedelta | None) -> str:
    """Much mail comes in the same second; equal times in two zones are two texts."""
    return format_datetime(date)


def clause(word: str, value: str, comment: str | None = None) -> str:
    """``with ESMTPS (TLSv1.3)``.

    :raises InvalidInput: when it would break the field.
    """
    if not value or not value.isprintable() or _BREAKS(value):
        raise InvalidInput(f"'{word}' of a Received field cannot be used", detail="it is no word")
    if comment is None:
        return f"{word} {value}"
    if not comment.isprintable() or _BREAKS_COMMENT(comment):
        raise InvalidInput(f"the comment at '{word}' of a Received field cannot be used")
    return f"{word} {value} ({comment})"


def _tokens(text: str) -> list[str]:
    """Words, and comments whole, which may be nested."""
    tokens: list[str] = []
    comment: list[str] = []
    depth = 0
    for piece in re.findall(r"\\.|[()]|[^()\s\\]+|\s+", text):
        if piece == "(":
            depth += 1
        if depth:
            comment.append(" " if piece.isspace() else piece)
        elif not piece.isspace():
            tokens.append(piece)
        if piece == ")" and depth:
            depth -= 1
            if not depth:
                tokens.append("".join(comment))
                comment.clear()
    if comment:
        tokens.append("".join(comment).removesuffix(")") + ")")
    return tokens


def _date(text: str) -> datetime | None:
    # A comment may follow: "(UTC)".
    bare = re.sub(r"\([^()]*\)", "", text).strip()
    try:
        return parsedate_to_datetime(bare)
    except (ValueError, TypeError, IndexError):
        return None
