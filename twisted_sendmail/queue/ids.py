"""Queue ids: short, never used twice, ordered by arrival.

An id is the time in microseconds since 1970 and eight random bits, written as twelve digits of
Crockford's base 32.  Ids sort as their numbers do.  Where several relays share a queue, the eight bits
are those of the relay's number, so that two relays never make the same id.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Digits of an id.
LENGTH = 12
# Two digits at a time: an id is made and read for every message.
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_MAX_NUMBER = (1 << 5 * LENGTH) - 1
_RANDOM_BYTES = 256
_TEXT = re.compile(f"[{_DIGITS}]{{{LENGTH}}}\\Z", re.IGNORECASE | re.ASCII)
_BASE_32 = str.maketrans(_DIGITS, "0123456789ABCDEFGHIJKLMNOPQRSTUV")


class QueueIds:
    """Generator of ids.

    :param now: returns seconds since 1970; ids of one generator rise even if it jumps.
    :param node: returns the number of the relay, in a queue that several relays share.
    """

    def __init__(self, now: Callable[[], float], *, node: Callable[[], int] | None = None) -> None:
        self._now = now
        self._node = node
        self._last = 0
        self._random = bytearray()

    def __call__(self) -> str:
        """Return the next id."""
        if self._node is not None:
            return self._next_of_node(self._node() & 255)
        if not self._random:
            # One system call for many ids.
            self._random += secrets.token_bytes(_RANDOM_BYTES)
        microseconds = int(self._now() * 1_000_000)
        number = (max(microseconds, 0) << 8 | self._random.pop()) & _MAX_NUMBER
        self._last = number = max(self._last + 1, number)
        return id_text(number)

    def _next_of_node(self, node: int) -> str:
        microseconds = max(int(self._now() * 1_000_000), 0, (self._last >> 8) + 1)
        self._last = number = (microseconds << 8 | node) & _MAX_NUMBER
        return id_text(number)

    def go_beyond(self, number: int) -> None:
        """Issue no id up to *number*: it is in use, perhaps because a clock was ahead."""
        # A number close to the maximum was never generated: ignore it, so that new ids can be made.
        if number < (1 << 5 * LENGTH) - (1 << 40):
            self._last = max(self._last, number)


def id_text(number: int) -> str:
    """Return the text of an id."""
    pairs = _PAIRS
    return (
        f"{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}{pairs[number >> 30 & 1023]}"
        f"{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
    )


def id_number(text: str) -> int | None:
    """Return the number of an id, in either case; None if *text* is not an id."""
    if _TEXT.match(text) is None:
        return None
    return int(text.upper().translate(_BASE_32), 32)
