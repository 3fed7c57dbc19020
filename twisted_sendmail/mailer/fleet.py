"""The connections of a pool by what they are doing.

There may be thousands: nothing that happens to one of them looks at all of them.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.mailer.carrier import Carrier


class Stage(enum.Enum):
    """What a carrier is counted as."""

    __hash__ = object.__hash__  # by identity, and cheap

    OPENING = "opening"
    IDLE = "idle"
    LEASED = "leased"
    CLOSING = "closing"


READY = (Stage.IDLE, Stage.LEASED)


class Fleet:
    """Carriers, each in one stage."""

    def __init__(self) -> None:
        # Ordered sets: who came to a stage last is last.
        self._of: dict[Stage, dict[Carrier, None]] = {stage: {} for stage in Stage}
        self._hungry: dict[Carrier, None] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Carrier]:
        return iter(self.of(*Stage))

    def __contains__(self, carrier: Carrier) -> bool:
        return carrier in self._of[carrier.stage]

    def add(self, carrier: Carrier) -> None:
        """A new one."""
        self._of[carrier.stage][carrier] = None
        self._size += 1

    def move(self, carrier: Carrier, stage: Stage) -> None:
        """*carrier* is in *stage* now."""
        del self._of[carrier.stage][carrier]
        self._of[stage][carrier] = None
        carrier.stage = stage
        self._hungry.pop(carrier, None)

    def remove(self, carrier: Carrier) -> None:
        """It is no more."""
        del self._of[carrier.stage][carrier]
        self._hungry.pop(carrier, None)
        self._size -= 1

    def count(self, *stages: Stage) -> int:
        """How many are in *stages*."""
        return sum([len(self._of[stage]) for stage in stages])

    def of(self, *stages: Stage) -> list[Carrier]:
        """Those in *stages*."""
        return [carrier for stage in stages for carrier in self._of[stage]]

    def hunger(self, carrier: Carrier) -> None:
        """It could carry more than it has found."""
        if carrier.stage is Stage.LEASED:
            self._hungry[carrier] = None

    def fed(self, carrier: Carrier) -> None:
        """It is about to look for more; if it finds none it says so again."""
        self._hungry.pop(carrier, None)

    def hungry(self) -> list[Carrier]:
        """Those that could carry more."""
        return list(self._hungry)

    def open_at(self, place: int) -> bool:
        """Is there one to that server that has been opened?"""
        return any(
            carrier.place == place
            for stage in Stage
            if stage is not Stage.OPENING
            for carrier in self._of[stage]
        )
