"""Names for queued messages: short, never used twice, in the order of arrival.

Microseconds since 1970 and eight bits of chance, as twelve digits of Crockford's
base 32.  A text sorts as its number does.
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
# One is made and one is read for every message: two digits at a time, and as Python does it.
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_ALL = (1 << 5 * LENGTH) - 1
_CHANCES = 256
_TEXT = re.compile(f"[{_DIGITS}]{{{LENGTH}}}\\Z", re.IGNORECASE | re.ASCII)
_BASE_32 = str.maketrans(_DIGITS, "0123456789ABCDEFGHIJKLMNOPQRSTUV")


class QueueIds:
    """Makes ids.

    :param now: gives seconds since 1970; it may jump, the ids of one maker still rise.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = 0
        # Chance is asked of the kernel, so for many at a time.
        self._chance = bytearray()

    def __call__(self) -> str:
        """The next id."""
        if not self._chance:
            self._chance += secrets.token_bytes(_CHANCES)
        microseconds = int(self._now() * 1_000_000)
        number = (max(microseconds, 0) << 8 | self._chance.pop()) & _ALL
        self._last = number = max(self._last + 1, number)
        return id_text(number)

    def go_beyond(self, number: int) -> None:
        """Give no id up to *number*: it is taken, perhaps by a clock that was ahead."""
        # Room is left for more than can ever come; what is beyond was never given.
        if number < (1 << 5 * LENGTH) - (1 << 40):
            self._last = max(self._last, number)


def id_text(number: int) -> str:
    """The text of an id's number."""
    pairs = _PAIRS
    return (
        f"{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}{pairs[number >> 30 & 1023]}"
        f"{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
    )


def id_number(text: str) -> int | None:
    """The number of an id's text, in either case; None if it is none."""
    if _TEXT.match(text) is None:
        return None
    return int(text.upper().translate(_BASE_32), 32)
