"""Names for queued messages: short, never used twice, in the order of arrival.

Microseconds since 1970 and eight bits of chance, as twelve digits of Crockford's
base 32.  A text sorts as its number does.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}
#: Digits of an id.
LENGTH = 12


class QueueIds:
    """Makes ids.

    :param now: gives seconds since 1970; it may jump, the ids of one maker still rise.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = 0

    def __call__(self) -> str:
        """The next id."""
        microseconds = int(self._now() * 1_000_000)
        number = (max(microseconds, 0) << 8 | secrets.randbits(8)) & (1 << 5 * LENGTH) - 1
        self._last = max(self._last + 1, number)
        return id_text(self._last)


def id_text(number: int) -> str:
    """The text of an id's number."""
    return "".join(_DIGITS[number >> shift & 31] for shift in range(5 * LENGTH - 5, -1, -5))


def id_number(text: str) -> int | None:
    """The number of an id's text, in either case; None if it is none."""
    number = 0
    if len(text) != LENGTH:
        return None
    for digit in text.upper():
        value = _VALUE.get(digit)
        if value is None:
            return None
        number = number << 5 | value
    return number
