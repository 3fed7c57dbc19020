"""Run coroutines that need no reactor."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What *coroutine* returns; it must not have to wait."""
    try:
        coroutine.send(None)
    except StopIteration as e:
        result: _T = e.value
        return result
    coroutine.close()
    raise AssertionError("it waits")
