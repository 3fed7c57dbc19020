"""Inspect the result of a Deferred in a test."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class Result:
    """What a Deferred fired with; it may fire once only."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.fired = 0
        self.value: Any = None
        self.error: Any = None
        self.deferred = deferred
        _ = deferred.addCallbacks(self._yes, self._no)

    def _yes(self, value: Any) -> None:
        self.fired += 1
        self.value = value

    def _no(self, failure: Failure) -> None:
        self.fired += 1
        self.error = failure.value

    @property
    def report(self) -> Any:
        """The report of the error; it has to be there."""
        assert self.error.report is not None
        return self.error.report

    def get(self) -> Any:
        """Return the value; it has to be there."""
        assert self.fired == 1, f"fired {self.fired} times"
        if self.error is not None:
            raise self.error
        return self.value
