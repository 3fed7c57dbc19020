"""A rate limit: the messages a second of a pool, the bounces a second of a relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class TokenBucket:
    """A bucket that fills with *rate* tokens a second up to *burst*; never empty if *rate* is None."""

    def __init__(self, clock: IReactorTime, rate: float | None, burst: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_at = clock.seconds() if rate is not None else 0.0

    def change(self, rate: float | None, burst: int) -> None:
        """Fill with *rate* tokens a second up to *burst* from now on."""
        if self._rate is not None:
            self._fill(self._rate)
        else:
            self._filled_at = self._clock.seconds()
        self._rate, self._burst = rate, float(burst)
        self._tokens = min(self._tokens, self._burst)

    def take(self) -> bool:
        """Take a token; return whether there was one."""
        if self._rate is None:
            return True
        self._fill(self._rate)
        # A token that lacks a rounding error is whole.
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True

    def reserve(self, longest: float) -> float | None:
        """Take a token that may not be there yet; return the seconds until it is.

        :param longest: seconds; a token that comes later is not taken, and None returned.
        """
        if self._rate is None:
            return 0.0
        self._fill(self._rate)
        wait = self.seconds_to_next()
        if wait > longest:
            return None
        self._tokens -= 1
        return 0.0 if wait < 1e-9 else wait

    def _fill(self, rate: float) -> None:
        now = self._clock.seconds()
        # A clock that was set back neither adds nor removes tokens.
        gained = max(0.0, now - self._filled_at) * rate
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled_at = now

    def give_back(self) -> None:
        """Return a token that was not used."""
        self._tokens = min(self._burst, self._tokens + 1)

    def seconds_to_next(self) -> float:
        """Return the seconds until there is a token."""
        if self._rate is None:
            return 0.0
        return max(0.0, (1 - self._tokens) / self._rate)
