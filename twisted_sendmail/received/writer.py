"""A Received field as octets: its clauses, the folding, the date.

RFC 5321 section 4.4 (trace information), RFC 5322 section 2.2.3 (folding).
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.message import FOLD_WIDTH
from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

_BREAKS = re.compile(r"[ ;()]").search
_BREAKS_COMMENT = re.compile(r"[()\\]").search


def received_field(
    clauses: Iterable[str], now: float | datetime, begun: tuple[str, int] = ("", 0)
) -> bytes:
    """Return the whole field, folded, with CRLF.

    :param clauses: made by :func:`clause`, in their order.
    :param now: the date: seconds since the epoch, or an aware ``datetime``, whose zone is written.
    :param begun: the result of :func:`folded` for the clauses before them.
    """
    *parts, last = clauses
    date = format_datetime(now) if isinstance(now, datetime) else _date(int(now))
    return (folded([*parts, f"{last};", date], *begun)[0] + "\r\n").encode("utf-8")


def clause(word: str, value: str, *comments: str | None) -> str:
    """Return a clause such as ``with ESMTPS (TLSv1.3)``.

    :raises InvalidInput: *value* or a comment would break the field.
    """
    if not value or not value.isprintable() or _BREAKS(value):
        raise InvalidInput(f"'{word}' of a Received field cannot be used", detail="it is no word")
    text = f"{word} {value}"
    for comment in comments:
        if comment is None:
            continue
        if not comment.isprintable() or _BREAKS_COMMENT(comment):
            raise InvalidInput(f"the comment at '{word}' of a Received field cannot be used")
        text += f" ({comment})"
    return text


def folded(parts: Iterable[str], text: str = "", width: int = 0) -> tuple[str, int]:
    """Return the field with more *parts*, folded, and the width of its last line.

    :param text: the field so far; empty at its beginning.
    :param width: the width of its last line.
    """
    if not text:
        text = "Received:"
        width = len(text)
    for part in parts:
        size = 1 + len(part)
        if width + size > FOLD_WIDTH:
            text += "\r\n\t" + part
            width = size
        else:
            text += " " + part
            width += size
    return text, width


@lru_cache(maxsize=8)
def _date(second: int) -> str:
    """Return a date; many messages come in the same second."""
    return format_datetime(datetime.fromtimestamp(second, timezone.utc))
