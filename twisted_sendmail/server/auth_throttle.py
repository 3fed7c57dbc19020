"""How long AUTH waits, by address and by user, over all connections.

Each failed login doubles the delay of the address it came from and of the user it named, from
``base`` seconds up to :data:`MOST` and no further: there is no lock.  Every ten minutes one
failure is forgotten.  The delay passes *before* the password is looked at, so that a client that
hangs up when no answer comes soon has learnt nothing, and a login that was abandoned counts as a
failed one.

An address that logged in as a user within the last 30 days waits for its own failures with that
user only, so that nobody can hold up others by guessing.

The tables are bounded; the record used least recently makes room.  A restart forgets them.
RFC 4954 section 9 (guessing), RFC 6409.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from twisted_sendmail.server.networks import origin

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.internet.interfaces import IAddress, IReactorTime

#: Seconds that a login waits at most.
MOST = 30.0
#: Seconds after which one failure is forgotten.
FORGET_SECONDS = 600.0
#: Seconds for which an address that logged in as a user does not wait for others.
KNOWN_SECONDS = 30 * 86400.0
#: Records of each of the three tables.
MAX_RECORDS = 10_000


@dataclass
class _Record:
    """Failures of one address, one user, or one user at one address."""

    failures: int = 0
    #: Logins under way, each of which may be a failure.
    pending: int = 0
    #: The time until which the oldest failures are forgotten already.
    since: float = 0.0
    #: When such a login succeeded last; of a user at an address only.
    succeeded: float = 0.0

    def forget(self, now: float) -> None:
        steps = max(int((now - self.since) / FORGET_SECONDS), 0)
        self.failures = max(self.failures - steps, 0)
        self.since = self.since + steps * FORGET_SECONDS if self.failures else now

    @property
    def suspicion(self) -> int:
        # Many that log in at once are suspicious only when somebody failed before.
        return self.failures + self.pending if self.failures else 0


class _Table:
    """Records by key, the one used last at the end."""

    def __init__(self) -> None:
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: Hashable) -> _Record | None:
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
        return record

    def make(self, key: Hashable, now: float) -> _Record:
        record = self.get(key)
        if record is None:
            record = self._records[key] = _Record(since=now)
            if len(self._records) > MAX_RECORDS:
                self._records.popitem(last=False)
        return record


class AuthThrottle:
    """The delays of one server, or of several that share it.

    :param clock: where the time comes from.
    :param base: seconds that the first failed login waits for its answer; 0: nothing is delayed.
    """

    def __init__(self, clock: IReactorTime, base: float = 2.0) -> None:
        self.clock = clock
        self.base = base
        self._addresses, self._users, self._known = _Table(), _Table(), _Table()

    def __len__(self) -> int:
        """The number of records, which is bounded."""
        return len(self._addresses) + len(self._users) + len(self._known)

    def attempt(self, address: IAddress, user: str) -> Attempt:
        """A login of *user* from *address* that is about to be decided."""
        now = self.clock.seconds()
        # A name may be as long as a client likes, and a record is kept for it.
        name = blake2b(user.casefold().encode("utf-8", "surrogatepass"), digest_size=16).digest()
        place = origin(address)
        known = self._known.get((place, name))
        if known is not None and now - known.succeeded > KNOWN_SECONDS:
            known = None
        records = [self._addresses.make(place, now), self._users.make(name, now)]
        return Attempt(self, (place, name), records, known)

    def delay(self, failures: int) -> float:
        """Seconds that a login waits after so many failures."""
        return min(self.base * 2.0 ** min(failures - 1, 64), MOST) if failures > 0 else 0.0

    def note_success(self, key: Hashable) -> None:
        """Called by an attempt: this user, at this address, is not held up by others."""
        now = self.clock.seconds()
        record = self._known.make(key, now)
        record.failures, record.succeeded = 0, now


class Attempt:
    """One login: :attr:`delay`, then exactly one of :meth:`succeeded`, :meth:`failed`, :meth:`undecided`.

    Made by :meth:`AuthThrottle.attempt`.
    """

    def __init__(
        self,
        throttle: AuthThrottle,
        key: tuple[Hashable, Hashable],
        records: list[_Record],
        known: _Record | None,
    ) -> None:
        self._throttle = throttle
        self._key = key
        self._records = records if known is None else [*records, known]
        # An address that is known with this user waits for its own failures only.
        self._counting = records if known is None else [known]
        now = throttle.clock.seconds()
        for record in self._records:
            record.forget(now)
        #: Seconds to wait before the password is looked at.
        self.delay = throttle.delay(self._suspicion())
        for record in self._records:
            record.pending += 1

    def _suspicion(self) -> int:
        return max(record.suspicion for record in self._counting)

    def _decide(self) -> None:
        for record in self._records:
            record.pending -= 1

    def succeeded(self) -> None:
        """The login is good."""
        self._decide()
        self._throttle.note_success(self._key)

    def failed(self) -> float:
        """The login failed, or the client has gone; returns the seconds to wait before the refusal."""
        self._decide()
        for record in self._records:
            # No higher than where the delay is at its most, or it would take long to come down.
            if self._throttle.delay(record.failures) < MOST:
                record.failures += 1
        return max(self._throttle.delay(self._suspicion()) - self.delay, 0.0)

    def undecided(self) -> None:
        """The accounts were in trouble: it counts as neither."""
        self._decide()
