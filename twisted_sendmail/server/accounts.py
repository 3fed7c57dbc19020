"""Users known by the hashes of their passwords.

Implements :class:`~twisted_sendmail.server.authentication.Accounts` for PLAIN, LOGIN and
SCRAM-SHA-256 from one kind of entry.  An unknown user has keys too, made up from the name and a
secret of this process: they take the same path and the same time, and in SCRAM show a salt and an
iteration count that stay the same.

RFC 5802 section 9 (what an attacker may learn).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted_sendmail.server.authentication import Avatar
from twisted_sendmail.server.scram import ITERATIONS, SALT_BYTES, ScramKeys
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Runs a function that takes long somewhere else than in the reactor thread.
RunBlocking = Callable[[Callable[[], bool]], Awaitable[bool]]

#: What made-up keys are derived from; the same for every object, so that a reload shows nothing.
_SECRET = secrets.token_bytes(32)
#: Users that a warning names.
_NAMED = 5


async def run_inline(call: Callable[[], bool]) -> bool:
    """For tests, with few iterations: right here."""
    return call()


class HashedAccounts:
    """Users and their keys.

    :param entries: user name to keys.
    :param run_blocking: where passwords are hashed: see
        :class:`~twisted_sendmail.server.hashing.HashingPool`.
    """

    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "PLAIN", "LOGIN")

    def __init__(
        self, entries: Mapping[str, ScramKeys], run_blocking: RunBlocking = run_inline
    ) -> None:
        self.replace(entries)
        self._run_blocking = run_blocking

    @classmethod
    def of_passwords(
        cls, passwords: Mapping[str, str], *, iterations: int = 4096
    ) -> HashedAccounts:
        """For tests: hash these passwords now, cheaply."""
        keys = {u: ScramKeys.of(p, iterations=iterations) for u, p in passwords.items()}
        return cls(keys)

    def replace(self, entries: Mapping[str, ScramKeys]) -> None:
        """From now on it is these."""
        self._entries = dict(entries)
        shapes = sorted((keys.iterations, len(keys.salt)) for keys in self._entries.values())
        #: What made-up keys look like, as often as it occurs.
        self._shapes = shapes or [(ITERATIONS, SALT_BYTES)]

    @property
    def warning(self) -> str | None:
        """Why some clients cannot log in as some users, in one line; None: all can."""
        users = [user for user, keys in self._entries.items() if keys.iterations > ITERATIONS]
        if not users:
            return None
        named = ", ".join(printable(user, 40) for user in users[:_NAMED])
        more = f" and {len(users) - _NAMED} more" if len(users) > _NAMED else ""
        return (
            f"more than {ITERATIONS} iterations for {named}{more}: clients that use Cyrus SASL, such as "
            "Postfix, cannot log in as these users; set their passwords anew"
        )

    def close(self) -> None:
        """End what was started for the hashing; it is started again when there is need."""

    def _keys(self, user: str) -> ScramKeys:
        made_up = self._made_up(user)
        return self._entries.get(user, made_up)

    def _made_up(self, user: str) -> ScramKeys:
        def derive(what: bytes) -> bytes:
            message = what + user.encode("utf-8", "surrogatepass")
            return hmac.new(_SECRET, message, hashlib.sha256).digest()

        # A fraction of the list, and no remainder: a new entry changes it for few users.
        fraction = int.from_bytes(derive(b"shape")[:8], "big")
        iterations, salt = self._shapes[fraction * len(self._shapes) >> 64]
        salt_bytes = hashlib.shake_256(derive(b"salt")).digest(salt)
        return ScramKeys(salt_bytes, iterations, derive(b"stored"), derive(b"server"))

    async def check(self, user: str, password: str) -> Avatar | None:
        """Is this the user's password?"""
        keys = self._keys(user)
        return Avatar() if await self._run_blocking(lambda: keys.match(password)) else None

    async def scram_keys(self, user: str) -> ScramKeys:
        """The user's keys, or made-up ones."""
        return self._keys(user)
