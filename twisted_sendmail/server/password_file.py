"""Users known by SCRAM keys of their passwords, and the file that holds them.

One kind of entry serves SCRAM-SHA-256, PLAIN and LOGIN.  A line of the file is a user name, a colon
and the keys, as PostgreSQL writes them (:class:`~twisted_sendmail.sasl.scram_keys.ScramKeys`).  Empty lines
and lines that begin with ``#`` are skipped.

**Unknown users** get keys that are made up, so that no exchange shows who exists (RFC 5802 section
9): the same path, the same time, and in SCRAM a salt and an iteration count that stay the same.
They are derived from the name and from the keys of one entry, chosen by the name: so they have a
shape that occurs in the file, survive a restart without a further secret, and change as seldom as
an entry changes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from bisect import bisect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads

from twisted_sendmail.sasl import ITERATIONS, SALT_BYTES, ScramKeys
from twisted_sendmail.secret_file import check_secret_file
from twisted_sendmail.server.auth import Avatar
from twisted_sendmail.smtp import (
    InvalidInput,
    InvalidServer,
    check_callable,
    check_flag,
    check_path,
    check_positive,
    check_reactor,
    check_type,
    printable,
)

if TYPE_CHECKING:
    from os import PathLike

#: Runs a function that takes long outside the reactor's thread.
RunBlocking = Callable[[Callable[[], bool]], Awaitable[bool]]

#: Threads that hash passwords.
MAX_THREADS = min(4, os.cpu_count() or 1)
#: Users that a warning names.
_NAMED_USERS = 5
#: Places of each entry among which an unknown user's name chooses; more are more even.
_PLACES = 16
_NO_KEYS = ScramKeys(bytes(SALT_BYTES), ITERATIONS, bytes(32), bytes(32))


async def run_inline(call: Callable[[], bool]) -> bool:
    """For tests, with few iterations: call it at once."""
    return call()


class HashedAccounts:
    """Implements :class:`~twisted_sendmail.server.auth.Accounts` from user names and their keys.

    :param entries: user name to keys.
    :param run_blocking: where passwords are hashed: see :class:`HashingPool`.
    """

    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "PLAIN", "LOGIN")

    def __init__(
        self, entries: Mapping[str, ScramKeys], run_blocking: RunBlocking = run_inline
    ) -> None:
        check_type("entries", entries, Mapping, "a dict of user names and ScramKeys")
        check_callable("run_blocking", run_blocking, "a HashingPool")
        for user, keys in entries.items():
            check_type("a user name", user, str, "text")
            check_type("the keys of a user", keys, ScramKeys, "ScramKeys")
        self.replace(entries)
        self._run_blocking = run_blocking

    @classmethod
    def of_passwords(
        cls, passwords: Mapping[str, str], *, iterations: int = 4096
    ) -> HashedAccounts:
        """Hash these passwords now, with few iterations; for tests."""
        keys = {u: ScramKeys.of(p, iterations=iterations) for u, p in passwords.items()}
        return cls(keys)

    def replace(self, entries: Mapping[str, ScramKeys]) -> None:
        """Use these entries from now on."""
        self._entries = dict(entries)
        places = [
            (octets[at : at + 8], keys)
            for keys in self._entries.values()
            for octets in [hashlib.shake_256(keys.stored_key + keys.server_key).digest(8 * _PLACES)]
            for at in range(0, 8 * _PLACES, 8)
        ]
        places.sort(key=lambda place: place[0])
        #: A ring: an entry more or less changes the keys of few unknown users.
        self._places = [place for place, _ in places]
        self._keys_at = [keys for _, keys in places]

    @property
    def warning(self) -> str | None:
        """Which users some clients cannot log in as, and why, in one line; None: there are none."""
        users = [user for user, keys in self._entries.items() if keys.iterations > ITERATIONS]
        if not users:
            return None
        named = ", ".join(printable(user, 40) for user in users[:_NAMED_USERS])
        more = f" and {len(users) - _NAMED_USERS} more" if len(users) > _NAMED_USERS else ""
        return (
            f"more than {ITERATIONS} iterations for {named}{more}: clients that use Cyrus SASL, such as "
            "Postfix, cannot log in as these users; set their passwords again"
        )

    def close(self) -> None:
        """End the threads that were started for the hashing; they start again when needed."""

    async def check(self, user: str, password: str) -> Avatar | None:
        """Return True if this is the user's password."""
        keys = await self.scram_keys(user)
        return Avatar() if await self._run_blocking(lambda: keys.match(password)) else None

    async def scram_keys(self, user: str) -> ScramKeys:
        """Return the user's keys, or made-up ones."""
        made_up = self._made_up(user.encode("utf-8", "surrogatepass"))
        return self._entries.get(user, made_up)

    def _made_up(self, user: bytes) -> ScramKeys:
        like = _NO_KEYS
        if self._places:
            at = bisect(self._places, hashlib.sha256(user).digest()[:8])
            like = self._keys_at[at % len(self._keys_at)]

        def derive(what: bytes) -> bytes:
            return hmac.digest(like.server_key, what + user, "sha256")

        salt = hashlib.shake_256(derive(b"salt")).digest(len(like.salt))
        return ScramKeys(salt, like.iterations, derive(b"stored"), derive(b"server"))


class PasswordFile(HashedAccounts):
    """The users in a file.

    :param reactor: gets the results of the threads that hash passwords; None: they are hashed at
        once.
    :param pool: these threads, where several servers share them; else the file has its own, and
        the server ends them when it stops.
    :param world_readable: accept a file that everybody may read, such as a mounted secret.
    :raises InvalidServer: the file cannot be used; the text names file and line.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        reactor: Any,
        *,
        pool: HashingPool | None = None,
        world_readable: bool = False,
    ) -> None:
        check_path("the password file", path)
        if reactor is not None:
            check_reactor("reactor", reactor)
        if pool is not None:
            check_type("pool", pool, HashingPool, "a HashingPool, or None")
        check_flag("world_readable", world_readable)
        self._path = Path(path)
        self._world_readable = world_readable
        self._shared = pool is not None
        self._pool = HashingPool(reactor) if pool is None else pool
        super().__init__(_read(self._path, world_readable=world_readable), self._pool)

    def close(self) -> None:
        """End the threads, unless they are shared."""
        if not self._shared:
            self._pool.stop()

    def reload(self) -> None:
        """Read the file again; when it cannot be used, the entries stay as they are.

        :raises InvalidServer: as the constructor.
        """
        self.replace(_read(self._path, world_readable=self._world_readable))


def password_entry(user: str, password: str, *, iterations: int = ITERATIONS) -> str:
    """Return a line of a password file, without its line end.

    :raises InvalidInput: the user name cannot stand in such a line.
    """
    for name, text in (("user", user), ("password", password)):
        check_type(name, text, str, "text")
    check_positive("iterations", iterations, "a whole number above zero", whole=True)
    if not user or ":" in user or not user.isprintable() or user != user.strip() or user[0] == "#":
        what = f"user name '{printable(user, 40)}' cannot be used"
        raise InvalidInput(
            what, detail="the name is empty, or has a colon or an invisible character"
        )
    return f"{user}:{ScramKeys.of(password, iterations=iterations).spelled()}"


def _read(path: Path, *, world_readable: bool) -> dict[str, ScramKeys]:
    check_secret_file(path, world_readable=world_readable)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = str(e.strerror) if isinstance(e, OSError) else "the file is not UTF-8"
        raise InvalidServer(
            f"password file {path} cannot be read", detail=why, remedy="check name and permissions"
        ) from None
    entries: dict[str, ScramKeys] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, keys = line.strip().partition(":")
        try:
            if user in entries:
                raise ValueError(f"duplicate entry {user!r}")
            if not user or not colon:
                raise ValueError("the entry is malformed" if user else "the user name is missing")
            entries[user] = ScramKeys.parse(keys)
        except ValueError as e:
            raise InvalidServer(
                f"password file {path}, line {number} cannot be used",
                detail=str(e),
                remedy="write it as user:SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey",
            ) from None
    return entries


class HashingPool:
    """Threads that hash passwords; each is started when there is work for it.

    They are separate from the reactor's threads, which resolve names: many logins must not hold up
    the delivery of mail, nor the reverse.  An object that implements :data:`RunBlocking`.

    :param reactor: gets the results; one without threads (a ``Clock``) has the work done at once.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._threads: ThreadPoolExecutor | None = None

    def __call__(self, call: Callable[[], bool]) -> Deferred[bool]:
        """Call *call* in a thread; cancelling withdraws it if it has not begun."""
        if not IReactorFromThreads.providedBy(self._reactor):
            return maybeDeferred(call)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MAX_THREADS, "twisted_sendmail password hashing")
        work = self._threads.submit(call)

        def withdraw(_: object) -> None:
            work.cancel()

        waiting: Deferred[bool] = Deferred(withdraw)

        def done(work: Future[bool]) -> None:
            # In a thread of the pool, or in the one that withdrew the work.
            self._reactor.callFromThread(settle, work)

        def settle(work: Future[bool]) -> None:
            if waiting.called:
                return
            try:
                result = work.result()
            except Exception:  # noqa: BLE001 - it is for the caller
                waiting.errback()
            else:
                waiting.callback(result)

        work.add_done_callback(done)
        return waiting

    def stop(self) -> None:
        """End the threads when their present work is done; new work starts new threads."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
