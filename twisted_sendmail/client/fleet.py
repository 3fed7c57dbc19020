"""The connections of a pool by what they are doing.

There may be thousands: nothing that happens to one of them looks at all of them.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.client.pooled_connection import PooledConnection


class Stage(enum.Enum):
    """What a carrier is counted as."""

    __hash__ = object.__hash__  # by identity, and cheap

    OPENING = "opening"
    #: Still opening, and other connections are tried.
    OVERDUE = "overdue"
    IDLE = "idle"
    LEASED = "leased"
    CLOSING = "closing"


READY = (Stage.IDLE, Stage.LEASED)
NOT_READY = (Stage.OPENING, Stage.OVERDUE)


class Fleet:
    """Carriers, each in one stage."""

    def __init__(self) -> None:
        # Ordered sets: who came to a stage last is last.
        self._of: dict[Stage, dict[PooledConnection, None]] = {stage: {} for stage in Stage}
        self._hungry: dict[PooledConnection, None] = {}
        # Connections by the place of their server: those that are opening, and the others.
        self._opening_at: Counter[int] = Counter()
        self._open_at: Counter[int] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[PooledConnection]:
        return iter(self.of(*Stage))

    def __contains__(self, carrier: PooledConnection) -> bool:
        return carrier in self._of[carrier.stage]

    def add(self, carrier: PooledConnection) -> None:
        """A new one."""
        self._of[carrier.stage][carrier] = None
        self._opening_at[carrier.place] += 1
        self._size += 1

    def move(self, carrier: PooledConnection, stage: Stage) -> None:
        """*carrier* is in *stage* now."""
        del self._of[carrier.stage][carrier]
        self._of[stage][carrier] = None
        if carrier.stage in NOT_READY and stage not in NOT_READY:
            self._opening_at[carrier.place] -= 1
            self._open_at[carrier.place] += 1
        carrier.stage = stage
        self._hungry.pop(carrier, None)

    def remove(self, carrier: PooledConnection) -> None:
        """It is no more."""
        del self._of[carrier.stage][carrier]
        self._hungry.pop(carrier, None)
        counter = self._opening_at if carrier.stage in NOT_READY else self._open_at
        counter[carrier.place] -= 1
        self._size -= 1

    def count(self, *stages: Stage) -> int:
        """How many are in *stages*."""
        return sum([len(self._of[stage]) for stage in stages])

    def of(self, *stages: Stage) -> list[PooledConnection]:
        """Those in *stages*."""
        return [carrier for stage in stages for carrier in self._of[stage]]

    def hunger(self, carrier: PooledConnection) -> None:
        """It could carry more than it has found."""
        if carrier.stage is Stage.LEASED:
            self._hungry[carrier] = None

    def fed(self, carrier: PooledConnection) -> None:
        """It is about to look for more; if it finds none it says so again."""
        self._hungry.pop(carrier, None)

    def hungry(self) -> list[PooledConnection]:
        """Those that could carry more."""
        return list(self._hungry)

    def open_at(self, place: int) -> bool:
        """Is there one to that server that has been opened?"""
        return self._open_at[place] > 0

    def opening_at(self, place: int) -> int:
        """How many to that server are not ready yet."""
        return self._opening_at[place]
