"""A file of users and hashed passwords.

One entry a line: a user name, a colon, and his SCRAM-SHA-256 keys as ``scram`` spells
them.  Empty lines and lines that begin with ``#`` are skipped.  Passwords themselves
are in no file.

This is the only thing of the server that reads a file besides its certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.client import check_secret_file
from twisted_sendmail.server.accounts import HashedAccounts
from twisted_sendmail.server.hashing import HashingPool
from twisted_sendmail.server.scram import ITERATIONS, ScramKeys
from twisted_sendmail.smtp import InvalidInput, InvalidServer, printable

if TYPE_CHECKING:
    from os import PathLike


class PasswordFile(HashedAccounts):
    """Those in a file.

    :param reactor: gets the results of the threads that hash passwords.
    :param pool: these threads, where several share them; else they are its own, and the server
        ends them when it stops.
    :param world_readable: take a file that everybody may read, such as a mounted secret.
    :raises InvalidServer: naming file and line, when it cannot be used.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        reactor: Any,
        *,
        pool: HashingPool | None = None,
        world_readable: bool = False,
    ) -> None:
        self._path = Path(path)
        self._world_readable = world_readable
        self._shared = pool is not None
        self._pool = HashingPool(reactor) if pool is None else pool
        super().__init__(_read(self._path, world_readable=world_readable), self._pool)

    def close(self) -> None:
        """End its threads, unless they are shared."""
        if not self._shared:
            self._pool.stop()

    def reload(self) -> None:
        """Read it again; when it cannot be used, what was read before stays.

        :raises InvalidServer: as the constructor.
        """
        self.replace(_read(self._path, world_readable=self._world_readable))


def entry(user: str, password: str, *, iterations: int = ITERATIONS) -> str:
    """One line of such a file, without its line end.

    :raises InvalidInput: for a user name that would not stay one.
    """
    if not user or ":" in user or not user.isprintable() or user != user.strip() or user[0] == "#":
        what = f"user name '{printable(user, 40)}' cannot be used"
        raise InvalidInput(what, detail="it is empty, or holds a colon, or what cannot be seen")
    return f"{user}:{ScramKeys.of(password, iterations=iterations).spelled()}"


def _read(path: Path, *, world_readable: bool) -> dict[str, ScramKeys]:
    check_secret_file(path, world_readable=world_readable)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = str(e.strerror) if isinstance(e, OSError) else "it is not UTF-8"
        raise InvalidServer(
            f"password file {path} cannot be read", detail=why, remedy="check name and permissions"
        ) from None
    entries: dict[str, ScramKeys] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, keys = line.strip().partition(":")
        try:
            if not colon or not user or user in entries:
                msg = "the user name is missing" if not user else "it is no entry"
                raise ValueError(f"{user!r} is there twice" if user in entries else msg)
            entries[user] = ScramKeys.parse(keys)
        except ValueError as e:
            raise InvalidServer(
                f"password file {path}, line {number} cannot be used",
                detail=str(e),
                remedy="write it as user:SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey",
            ) from None
    return entries
