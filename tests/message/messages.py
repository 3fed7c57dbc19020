"""Prepare messages without a reactor, and messages to prepare."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import format_datetime
from itertools import pairwise
from typing import Any, TypeVar

from tests.pure import run
from twisted_sendmail.message import PreparedMessage, prepare

_T = TypeVar("_T")

NOW = datetime(2026, 11, 21, 4, 30, tzinfo=timezone.utc)
#: The same, as a clock gives it.
SECONDS = NOW.timestamp()
DATE = f"Date: {format_datetime(NOW.astimezone())}\r\n".encode()


def prepared(message: Any, **changes: Any) -> PreparedMessage:
    """A message, from somebody to somebody unless *changes* say otherwise."""
    given: dict[str, Any] = {
        "sender": "a@example.org",
        "recipients": ["b@example.net"],
        "now": SECONDS,
    }
    return run(prepare(message, **{**given, **changes}))


def from_header(message: Any, **changes: Any) -> PreparedMessage:
    """A message whose envelope comes from its header."""
    return run(prepare(message, now=SECONDS, **changes))


def content(prepared_message: PreparedMessage) -> bytes:
    """All octets of *prepared_message*."""
    return b"".join(chunks(prepared_message))


def chunks(prepared_message: PreparedMessage) -> list[bytes]:
    """The octets of *prepared_message* as they come."""
    return list(iter(lambda: run(prepared_message.read()), b""))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* cut at *cuts*; some pieces may be empty."""
    edges = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


class Elsewhere:
    """A place for blocking work, which counts it."""

    def __init__(self) -> None:
        self.works = 0
        self.inside = False

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """Do *work*, as if in a thread."""
        self.works += 1
        self.inside = True
        try:
            return work()
        finally:
            self.inside = False
