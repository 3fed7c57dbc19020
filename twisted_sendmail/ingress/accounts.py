"""Users known by the hashes of their passwords.

Implements :class:`~twisted_sendmail.ingress.authentication.Accounts` for PLAIN,
LOGIN and SCRAM-SHA-256 from one kind of entry.  An unknown user has keys too, made
up from his name and a secret of this process: he takes the same path and the same
time, and SCRAM shows him a salt that stays the same.

RFC 5802 section 9 (what an attacker may learn).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted_sendmail.ingress.authentication import Avatar
from twisted_sendmail.ingress.scram import ITERATIONS, ScramKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Runs what takes its time somewhere else than in the reactor thread.
RunBlocking = Callable[[Callable[[], bool]], Awaitable[bool]]


async def run_inline(call: Callable[[], bool]) -> bool:
    """For tests, with few iterations: right here."""
    return call()


class HashedAccounts:
    """Users and their keys.

    :param entries: user name to keys.
    :param run_blocking: where passwords are hashed: see :func:`in_threads`.
    """

    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "PLAIN", "LOGIN")

    def __init__(
        self, entries: Mapping[str, ScramKeys], run_blocking: RunBlocking = run_inline
    ) -> None:
        self._entries = dict(entries)
        self._run_blocking = run_blocking
        self._secret = secrets.token_bytes(32)

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

    def _keys(self, user: str) -> ScramKeys:
        made_up = self._made_up(user)
        return self._entries.get(user, made_up)

    def _made_up(self, user: str) -> ScramKeys:
        def derive(what: bytes) -> bytes:
            message = what + user.encode("utf-8", "surrogatepass")
            return hmac.new(self._secret, message, hashlib.sha256).digest()

        iterations = next((k.iterations for k in self._entries.values()), ITERATIONS)
        return ScramKeys(derive(b"salt")[:16], iterations, derive(b"stored"), derive(b"server"))

    async def check(self, user: str, password: str) -> Avatar | None:
        """Is this the user's password?"""
        keys = self._keys(user)
        return Avatar() if await self._run_blocking(lambda: keys.match(password)) else None

    async def scram_keys(self, user: str) -> ScramKeys:
        """His keys, or made-up ones."""
        return self._keys(user)
