"""Holding back: what is commanded together goes out together, in one write.

Nothing else: what is held back, and what may go out at all, is ``connection``'s and
the session's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Holding(AbstractContextManager[None]):
    """Entered as often as needed; made once, for it is entered for every read.

    :param release: called whenever it is left; look at :attr:`depth` then.
    """

    __slots__ = ("_release", "depth")

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        #: How many times it is entered just now.
        self.depth = 0

    def let_go(self) -> None:
        """Tell nobody any more."""
        self._release = _nobody

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        self._release()


def _nobody() -> None:
    pass
