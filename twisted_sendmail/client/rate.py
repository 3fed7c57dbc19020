"""A token bucket: so many messages a second, over all connections together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class TokenBucket:
    """Fills with *rate* tokens a second up to *burst*; None as rate: never empty."""

    def __init__(self, clock: IReactorTime, rate: float | None, burst: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._seen = clock.seconds() if rate is not None else 0.0

    def take(self) -> bool:
        """Take a token, if there is one."""
        if self._rate is None:
            return True
        now = self._clock.seconds()
        # A clock that was set back gives nothing, and takes nothing away.
        gained = max(0.0, now - self._seen) * self._rate
        self._tokens = min(self._burst, self._tokens + gained)
        self._seen = now
        # What is a whole token but for rounding is a whole token.
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True

    def give_back(self) -> None:
        """The token was not needed after all."""
        self._tokens = min(self._burst, self._tokens + 1)

    def seconds_to_next(self) -> float:
        """How long until there is a token."""
        if self._rate is None:
            return 0.0
        return max(0.0, (1 - self._tokens) / self._rate)
