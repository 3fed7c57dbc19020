"""An assertion that work takes time in proportion to the size of its input."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def assert_no_square(work: Callable[[int], object], size: int) -> None:
    """Four times the size takes four times as long; a square would take sixteen times.

    CPU time varies on a busy machine, so one of three tries is enough.
    """
    ratios = []
    for _ in range(3):
        ratios.append(_cpu_time(work, 4 * size) / _cpu_time(work, size))
        if ratios[-1] < 9:
            return
    raise AssertionError(ratios)


def _cpu_time(work: Callable[[int], object], size: int) -> float:
    begun = time.process_time()
    work(size)
    return time.process_time() - begun
