"""AUTH on the server's side: who may say he is whom.

:class:`Accounts` is the interface to whatever knows the users; ``password_file`` and
``portal`` implement it.  The exchanges of PLAIN and LOGIN are here, that of SCRAM in
``scram``; each is a coroutine that reads like its RFC.

No exchange tells an unknown user from a wrong password.  RFC 4954, RFC 4616 (PLAIN),
draft-murchison-sasl-login.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from twisted_sendmail.ingress.sasl_failure import FAILED, AuthRefused
from twisted_sendmail.ingress.scram import ScramKeys, scram_sha_256
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Sends a challenge, and awaits the response.
Ask = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True)
class Avatar:
    """Who has logged in, for those who want to know more than his name."""

    #: Whatever the accounts have to say about him.
    value: object = None
    #: Called when his connection is over.
    logout: Callable[[], object] = lambda: None


class Accounts(Protocol):
    """Those who know the users."""

    #: Mechanisms that can be offered, the best first.
    mechanisms: tuple[str, ...]

    async def check(self, user: str, password: str) -> Avatar | None:
        """Is this the user's password?  None when it is not.

        Takes the same time for a user that does not exist.
        """
        ...

    async def scram_keys(self, user: str) -> ScramKeys:
        """What SCRAM-SHA-256 needs; for an unknown user, keys that nothing matches."""
        ...


async def _plain(initial: bytes | None, ask: Ask, accounts: Accounts) -> tuple[str, Avatar]:
    response = await ask(b"") if initial is None else initial
    authzid, user, password = _three(response)
    if authzid not in {"", user}:
        raise AuthRefused(FAILED)
    return await _checked(accounts, user, password)


async def _login(initial: bytes | None, ask: Ask, accounts: Accounts) -> tuple[str, Avatar]:
    user = _text(await ask(b"Username:") if initial is None else initial)
    password = _text(await ask(b"Password:"))
    return await _checked(accounts, user, password)


async def _scram(initial: bytes | None, ask: Ask, accounts: Accounts) -> tuple[str, Avatar]:
    return await scram_sha_256(initial, ask, accounts.scram_keys), Avatar()


EXCHANGES: Mapping[str, Callable[[bytes | None, Ask, Accounts], Awaitable[tuple[str, Avatar]]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "SCRAM-SHA-256": _scram,
}


async def _checked(accounts: Accounts, user: str, password: str) -> tuple[str, Avatar]:
    avatar = await accounts.check(user, password)
    if avatar is None:
        raise AuthRefused(FAILED)
    return user, avatar


def _three(response: bytes) -> tuple[str, str, str]:
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise AuthRefused(Reply(501, ("5.5.2 That is no PLAIN response",)))
    authzid, user, password = (_text(part) for part in parts)
    return authzid, user, password


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthRefused(Reply(501, ("5.5.2 Names and passwords are UTF-8",))) from None
