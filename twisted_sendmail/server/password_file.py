"""Users known by SCRAM keys of their passwords, or by their certificates, and the file of them.

A line of the file is a user name, a colon and an entry.  Keys, as PostgreSQL writes them
(:class:`~twisted_sendmail.sasl.scram_keys.ScramKeys`), serve SCRAM with their hash, PLAIN and LOGIN.
``CERT-SHA-256$`` and the fingerprint of a client's certificate serve EXTERNAL.  A user may have keys
for each hash and any number of certificates, each on a line of its own.  Empty lines and lines that
begin with ``#`` are skipped.

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
import re
from bisect import bisect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads

from twisted_sendmail.sasl import ITERATIONS, PLUS, SALT_BYTES, SCRAM_HASHES, ScramKeys
from twisted_sendmail.secret_file import check_secret_file, why_unreadable
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
    from collections.abc import Sequence
    from os import PathLike

#: Runs a function that takes long outside the reactor's thread.
RunBlocking = Callable[[Callable[[], bool]], Awaitable[bool]]

#: Threads that hash passwords.
MAX_THREADS = min(4, os.cpu_count() or 1)
#: Users that a warning names.
_NAMED_USERS = 5
#: Places of each entry among which an unknown user's name chooses; more are more even.
_PLACES = 16
_CERTIFICATE = "CERT-SHA-256$"
_NO_KEYS = ScramKeys(bytes(SALT_BYTES), ITERATIONS, bytes(32), bytes(32))


async def run_inline(call: Callable[[], bool]) -> bool:
    """Call *call* at once: for tests, with few iterations."""
    return call()


class HashedAccounts:
    """Implements :class:`~twisted_sendmail.server.auth.Accounts` from user names and their keys.

    :param entries: user name to keys, or to keys for several hashes.
    :param run_blocking: where passwords are hashed: see :class:`HashingPool`.
    :param certificates: the SHA-256 of a client's certificate, lower-case hexadecimal, to user name.
    """

    def __init__(
        self,
        entries: Mapping[str, ScramKeys | Sequence[ScramKeys]],
        run_blocking: RunBlocking = run_inline,
        *,
        certificates: Mapping[str, str] | None = None,
    ) -> None:
        check_type("entries", entries, Mapping, "a dict of user names and ScramKeys")
        check_callable("run_blocking", run_blocking, "a HashingPool")
        for user, keys in entries.items():
            check_type("a user name", user, str, "text")
            for each in keys if isinstance(keys, (list, tuple)) else (keys,):
                check_type("the keys of a user", each, ScramKeys, "ScramKeys")
        if certificates is not None:
            check_type(
                "certificates", certificates, Mapping, "a dict of fingerprints and user names"
            )
        self.replace(entries, certificates or {})
        self._run_blocking = run_blocking

    @classmethod
    def of_passwords(
        cls, passwords: Mapping[str, str], *, iterations: int = 4096
    ) -> HashedAccounts:
        """Hash these passwords now, with few iterations; for tests."""
        keys = {u: ScramKeys.of(p, iterations=iterations) for u, p in passwords.items()}
        return cls(keys)

    def replace(
        self,
        entries: Mapping[str, ScramKeys | Sequence[ScramKeys]],
        certificates: Mapping[str, str],
    ) -> None:
        """Use these entries and certificates from now on."""
        users = {
            user: (keys,) if isinstance(keys, ScramKeys) else tuple(keys)
            for user, keys in entries.items()
        }
        self._by_hash = {
            hash_name: _Keys(
                {user: k for user, keys in users.items() for k in keys if k.hash_name == hash_name}
            )
            for hash_name in SCRAM_HASHES
        }
        self.certificates = dict(certificates)
        # A mechanism is offered only if every user can use it.
        hashes = [name for name in SCRAM_HASHES if len(self._by_hash[name]) == len(users)]
        self._hashes = hashes if users else ["sha256"]
        scram = [f"SCRAM-{SCRAM_HASHES[name]}" for name in self._hashes]
        #: See :class:`~twisted_sendmail.server.auth.Accounts`.
        self.mechanisms: tuple[str, ...] = (
            *(f"{name}{PLUS}" for name in scram),
            *scram,
            "PLAIN",
            "LOGIN",
            *(("EXTERNAL",) if self.certificates else ()),
        )

    @property
    def warning(self) -> str | None:
        """Which users some clients cannot log in as, and why, in one line; None: there are none."""
        slow = (keys.users_above(ITERATIONS) for keys in self._by_hash.values())
        users = list(dict.fromkeys(user for users in slow for user in users))
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
        has = (name for name, keys in self._by_hash.items() if user in keys)
        some = (name for name, keys in self._by_hash.items() if len(keys))
        keys = await self.scram_keys(user, next(has, next(some, "sha256")))
        return Avatar() if await self._run_blocking(lambda: keys.match(password)) else None

    async def scram_keys(self, user: str, hash_name: str) -> ScramKeys:
        """Return the user's keys, or made-up ones."""
        return self._by_hash[hash_name].of(user)

    async def check_certificate(self, fingerprint: str, user: str) -> tuple[str, Avatar] | None:
        """Return the user whose certificate it is."""
        owner = self.certificates.get(fingerprint)
        return (owner, Avatar()) if owner is not None and user in {"", owner} else None


class _Keys:
    """The keys of users for one hash, and made-up ones for everybody else."""

    def __init__(self, entries: Mapping[str, ScramKeys]) -> None:
        self._entries = entries
        places = [
            (octets[at : at + 8], keys)
            for keys in entries.values()
            for octets in [hashlib.shake_256(keys.stored_key + keys.server_key).digest(8 * _PLACES)]
            for at in range(0, 8 * _PLACES, 8)
        ]
        places.sort(key=lambda place: place[0])
        #: A ring: an entry more or less changes the keys of few unknown users.
        self._places = [place for place, _ in places]
        self._keys_at = [keys for _, keys in places]

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, user: str) -> bool:
        return user in self._entries

    def users_above(self, iterations: int) -> list[str]:
        """Return the users whose keys have more iterations."""
        return [user for user, keys in self._entries.items() if keys.iterations > iterations]

    def of(self, user: str) -> ScramKeys:
        """Return the user's keys, or made-up ones; it takes the same time."""
        made_up = self._made_up(user.encode("utf-8", "surrogatepass"))
        return self._entries.get(user, made_up)

    def _made_up(self, user: bytes) -> ScramKeys:
        like = _NO_KEYS
        if self._places:
            at = bisect(self._places, hashlib.sha256(user).digest()[:8])
            like = self._keys_at[at % len(self._keys_at)]

        def derive(what: bytes) -> bytes:
            return hmac.digest(like.server_key, what + user, like.hash_name)

        salt = hashlib.shake_256(derive(b"salt")).digest(len(like.salt))
        stored, server = derive(b"stored"), derive(b"server")
        return ScramKeys(salt, like.iterations, stored, server, like.hash_name)


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
        entries, certificates = _read(self._path, world_readable=world_readable)
        super().__init__(entries, self._pool, certificates=certificates)

    def close(self) -> None:
        """End the threads, unless they are shared."""
        if not self._shared:
            self._pool.stop()

    def reload(self) -> None:
        """Read the file again; when it cannot be used, the entries stay as they are.

        :raises InvalidServer: as the constructor.
        """
        self.replace(*_read(self._path, world_readable=self._world_readable))


def password_entry(
    user: str, password: str, *, iterations: int = ITERATIONS, hash_name: str = "sha256"
) -> str:
    """Return a line of a password file, without its line end.

    :param hash_name: ``sha256``, ``sha1`` or ``sha512``: the mechanism of SCRAM that it serves.
    :raises InvalidInput: the user name cannot stand in such a line, or there is no such hash.
    """
    for name, text in (("user", user), ("password", password)):
        check_type(name, text, str, "text")
    check_positive("iterations", iterations, "a whole number above zero", whole=True)
    if not isinstance(hash_name, str) or hash_name not in SCRAM_HASHES:
        names = ", ".join(SCRAM_HASHES)
        raise InvalidInput(f"hash_name cannot be {hash_name!r}", remedy=f"give one of {names}")
    if not _fits(user):
        what = f"user name '{printable(user, 40)}' cannot be used"
        raise InvalidInput(
            what, detail="the name is empty, or has a colon or an invisible character"
        )
    keys = ScramKeys.of(password, iterations=iterations, hash_name=hash_name)
    return f"{user}:{keys.spelled()}"


def _fits(user: str) -> bool:
    """Return True if a line of the file can hold the user name; a byte order mark, for one, is invisible."""
    return (
        bool(user)
        and ":" not in user
        and user.isprintable()
        and user == user.strip()
        and user[0] != "#"
    )


def _lines(path: Path, *, world_readable: bool) -> list[str]:
    check_secret_file(path, world_readable=world_readable)
    try:
        return path.read_text("utf-8").splitlines()
    except OSError as e:
        why, remedy = why_unreadable(path, e)
        raise InvalidServer(f"password file {why}", remedy=remedy) from None
    except UnicodeDecodeError:
        why = f"password file {path} is not UTF-8"
        raise InvalidServer(why, remedy="save the file as UTF-8") from None


def _read(path: Path, *, world_readable: bool) -> tuple[dict[str, list[ScramKeys]], dict[str, str]]:
    """Return the keys by user, and the users by the fingerprint of their certificates."""
    lines = _lines(path, world_readable=world_readable)
    entries: dict[str, list[ScramKeys]] = {}
    certificates: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, entry = line.strip().partition(":")
        try:
            if not user or not colon:
                raise ValueError("the entry is malformed" if user else "the user name is missing")
            if not _fits(user):
                raise ValueError("the user name has an invisible character")
            if entry.startswith(_CERTIFICATE):
                fingerprint = _fingerprint(entry.removeprefix(_CERTIFICATE))
                if fingerprint in certificates:
                    raise ValueError("another user has this certificate")
                certificates[fingerprint] = user
                continue
            keys = ScramKeys.parse(entry)
            if any(keys.hash_name == each.hash_name for each in entries.get(user, ())):
                raise ValueError(f"duplicate entry {user!r}")
            entries.setdefault(user, []).append(keys)
        except ValueError as e:
            raise InvalidServer(
                f"password file {path}, line {number} cannot be used",
                detail=str(e),
                remedy="write it as user:SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey",
            ) from None
    return entries, certificates


def _fingerprint(text: str) -> str:
    plain = text.replace(":", "").lower()
    if re.fullmatch(r"[0-9a-f]{64}", plain) is None:
        raise ValueError("a fingerprint has 64 hexadecimal digits")
    return plain


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
