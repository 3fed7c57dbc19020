"""Limits the rate at which each user of this machine connects and sends over Unix sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp import check_positive, check_reactor
from twisted_sendmail.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.internet.interfaces import IReactorTime

#: Seconds that a message waits at most; one that had to wait longer is refused.
MAX_WAIT = 60.0
#: Users that are counted; beyond that those are forgotten who sent nothing for the longest time.
MAX_USERS = 10_000


class UserRates:
    """Counts connections and messages of each user; servers may share it.

    :param rate: connections and messages a second of one user, in the long run.
    :param burst: connections and messages before that rate applies.
    :raises InvalidInput: a value is not above zero.
    """

    def __init__(self, clock: IReactorTime, rate: float = 100.0, burst: int = 10_000) -> None:
        check_reactor("clock", clock)
        self._clock = clock
        self._buckets: dict[Hashable, TokenBucket] = {}
        self._rate, self._burst = rate, burst
        self.set(rate, burst)

    def set(self, rate: float, burst: int) -> None:
        """Use another limit from now on; the counts begin at zero if it differs.

        :raises InvalidInput: a value is not above zero.
        """
        check_positive("rate", rate, "a number above zero")
        check_positive("burst", burst, "a whole number above zero", whole=True)
        if (rate, burst) != (self._rate, self._burst):
            self._buckets.clear()
        self._rate, self._burst = rate, burst

    def connected(self, uid: int | None) -> bool:
        """Count a connection of *uid*; return whether it is within the limit."""
        return self._bucket(uid).take()

    def delay(self, uid: int | None) -> float | None:
        """Count a message of *uid*; return the seconds that it has to wait.

        :returns: None if that is more than ``MAX_WAIT``; then it is not counted.
        """
        return self._bucket(uid).reserve(MAX_WAIT)

    def _bucket(self, uid: int | None) -> TokenBucket:
        # The user who sent last is at the end.
        bucket = self._buckets.pop(uid, None) or TokenBucket(self._clock, self._rate, self._burst)
        self._buckets[uid] = bucket
        if len(self._buckets) > MAX_USERS:
            del self._buckets[next(iter(self._buckets))]
        return bucket
