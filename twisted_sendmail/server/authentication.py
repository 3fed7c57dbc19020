"""AUTH on the server's side: who may log in as whom.

:class:`Accounts` is the interface to what knows the users; ``password_file`` and ``portal``
implement it.  A :class:`Login` runs one exchange: a coroutine for each mechanism, which reads
like its RFC, asks the client by :meth:`Login.ask`, and has the login decided by
:meth:`Login.decide`: there it waits as ``auth_throttle`` demands, and there a failure is logged.

No exchange tells an unknown user from a wrong password.  RFC 4954, RFC 4616 (PLAIN), RFC 5802
and RFC 7677 (SCRAM-SHA-256), draft-murchison-sasl-login.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_sendmail.smtp import PENDING, Pending, Reply, printable

if TYPE_CHECKING:
    from twisted_sendmail.server.factory import SMTPServerFactory
    from twisted_sendmail.server.receiver import ConnectionInfo
    from twisted_sendmail.server.scram import ScramKeys

#: Wrong user, wrong password, wrong proof: the client learns no more (RFC 4954 section 6).
FAILED: Final = Reply(535, ("5.7.8 Authentication failed",))
#: Responses of one exchange; SCRAM needs three.
MAX_ROUNDS = 8
#: Characters of a user name in the log.
SHOWN_USER = 64
_TROUBLE = Reply(454, ("4.7.0 Cannot authenticate anyone now",))
_BAD_SCRAM = Reply(501, ("5.5.2 That is no SCRAM message",))
_log = Logger()


class AuthRefused(Exception):
    """The exchange is over; ``reply`` is what the client gets."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True)
class Avatar:
    """Who has logged in, for those who want to know more than the name."""

    #: Whatever the accounts have to say about the user.
    value: object = None
    #: Called when the user's connection is over.
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


class Login:
    """AUTH on one connection.

    :param factory: has the accounts and the throttle.
    :param connection: its user and avatar are set here.
    :param resume: gives the session a reply: a challenge (334), or the end of the exchange.
    """

    def __init__(
        self,
        factory: SMTPServerFactory,
        connection: ConnectionInfo,
        resume: Callable[[Reply], None],
    ) -> None:
        self._factory = factory
        self._connection = connection
        self._resume = resume
        self._avatar: Avatar | None = None
        self._awaited: Deferred[bytes] | None = None
        self._running: Deferred[None] | None = None
        self._mechanism = ""
        self._rounds = 0
        #: The user that the client has named so far, for the log.
        self.user: str | None = None
        self._logged = False

    def start(self, mechanism: str, initial: bytes | None) -> Reply | Pending:
        """Begin an exchange."""
        if self._factory.accounts is None:
            return _TROUBLE
        self._mechanism, self._rounds = mechanism, 0
        self.user, self._logged = None, False
        self._running = Deferred.fromCoroutine(self._run(initial))
        return PENDING

    def response(self, data: bytes) -> Reply | Pending:
        """Give the exchange the client's response to the last challenge."""
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            return _TROUBLE
        awaited.callback(data)
        return PENDING

    def cancel(self) -> None:
        """Break the exchange off."""
        if self._running is not None:
            self._running.cancel()

    def log_out(self) -> None:
        """The avatar is no longer needed."""
        avatar, self._avatar = self._avatar, None
        if avatar is not None:
            avatar.logout()

    async def _run(self, initial: bytes | None) -> None:
        try:
            user, avatar = await EXCHANGES[self._mechanism](initial, self)
        except CancelledError:
            self._log("aborted")
        except AuthRefused as refused:
            self._resume(refused.reply)
        except Exception as trouble:  # noqa: BLE001 - whatever it is, it is no success
            # Not its text: an exception may quote what it could not read.
            _log.error("authentication failed in itself: {kind}", kind=type(trouble).__name__)
            self._resume(_TROUBLE)
        else:
            self._connection.user, self._avatar = user, avatar
            self._connection.avatar = avatar.value
            self._resume(Reply(235, ("2.7.0 Authentication successful",)))

    # -- for the exchanges --------------------------------------------------------

    @property
    def accounts(self) -> Accounts:
        """Those who know the users."""
        accounts = self._factory.accounts
        if accounts is None:
            raise AuthRefused(_TROUBLE)
        return accounts

    def ask(self, challenge: bytes) -> Deferred[bytes]:
        """Send a challenge; the result is the response."""
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise AuthRefused(Reply(501, ("5.5.2 That exchange has no end",)))
        awaited = self._awaited = Deferred()
        self._resume(Reply(334, (b64encode(challenge).decode("ascii"),)))
        return awaited

    async def decide(self, user: str, check: Callable[[], Awaitable[Avatar | None]]) -> Avatar:
        """Find out by *check* whether it is *user*, no sooner and no more often than is allowed.

        :param check: the avatar, or None if it is somebody else.
        :raises AuthRefused: it is somebody else.
        """
        self.user = user
        attempt = self._factory.throttle.attempt(self._connection.peer, user)
        try:
            await self._sleep(attempt.delay)
            avatar = await check()
        except AuthRefused as refused:
            # Accounts may say no in this way too.
            if refused.reply.code != FAILED.code:
                attempt.undecided()
                raise
            avatar = None
        except CancelledError:
            # The client has gone, and may have guessed.
            _ = attempt.failed()
            raise
        except BaseException:
            attempt.undecided()
            raise
        if avatar is not None:
            attempt.succeeded()
            return avatar
        delay = attempt.failed()
        self._log("failed")
        await self._sleep(delay)
        raise AuthRefused(FAILED)

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await deferLater(self._factory.clock, seconds)

    def _log(self, result: str) -> None:
        """Log that the exchange ended without success, once."""
        if self._logged:
            return
        self._logged = True
        user = self.user
        # The name comes last and holds no space: it cannot pass for another part of the line.
        _log.warn(
            "[{address}]: SASL {mechanism} authentication {result}, sasl_username={user}",
            address=printable(getattr(self._connection.peer, "host", None) or "unix", SHOWN_USER),
            mechanism=self._mechanism,
            result=result,
            user="(unavailable)"
            if user is None
            else printable(user, SHOWN_USER).replace(" ", "\\x20"),
        )


# -- the exchanges ------------------------------------------------------------------------


async def _plain(initial: bytes | None, login: Login) -> tuple[str, Avatar]:
    response = await login.ask(b"") if initial is None else initial
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise AuthRefused(Reply(501, ("5.5.2 That is no PLAIN response",)))
    authzid, user, password = (_text(part) for part in parts)

    async def check() -> Avatar | None:
        return await login.accounts.check(user, password) if authzid in {"", user} else None

    return user, await login.decide(user, check)


async def _login(initial: bytes | None, login: Login) -> tuple[str, Avatar]:
    user = login.user = _text(await login.ask(b"Username:") if initial is None else initial)
    password = _text(await login.ask(b"Password:"))
    return user, await login.decide(user, lambda: login.accounts.check(user, password))


# gs2-header, then the client-first-message-bare; extensions may follow (and are kept).
_CLIENT_FIRST = re.compile(r"([ny]|p=[^,]*),(?:a=([^,]*))?,(n=([^,]+),r=([!-+\--~]+)(?:,.*)?)\Z")
_CLIENT_FINAL = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)\Z")


async def _scram(initial: bytes | None, login: Login) -> tuple[str, Avatar]:
    """RFC 5802 section 3."""
    first = _match(_CLIENT_FIRST, await login.ask(b"") if initial is None else initial)
    binding, authzid, bare, name, client_nonce = first.groups()
    if binding.startswith("p="):
        raise AuthRefused(_BAD_SCRAM)
    user = login.user = _name(name)
    if authzid is not None and _name(authzid) != user:
        return user, await login.decide(user, _nobody)
    keys = await login.accounts.scram_keys(user)
    nonce = client_nonce + secrets.token_urlsafe(18)
    server_first = f"r={nonce},s={b64encode(keys.salt).decode()},i={keys.iterations}"
    final = _match(_CLIENT_FINAL, await login.ask(server_first.encode("ascii")))
    without_proof, channel, echoed, proof = final[1], _b64(final[2]), final[3], _b64(final[4])
    message = f"{bare},{server_first},{without_proof}".encode()
    header = f"{binding},{'' if authzid is None else f'a={authzid}'},"

    async def check() -> Avatar | None:
        good = keys.proved(message, proof) and echoed == nonce and channel == header.encode()
        return Avatar() if good else None

    avatar = await login.decide(user, check)
    # RFC 4954 has no additional data with success: the signature is a challenge of its own.
    if await login.ask(b"v=" + b64encode(keys.signature(message))):
        raise AuthRefused(_BAD_SCRAM)
    return user, avatar


#: The mechanisms that a server can offer.
EXCHANGES: Mapping[str, Callable[[bytes | None, Login], Awaitable[tuple[str, Avatar]]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "SCRAM-SHA-256": _scram,
}


async def _nobody() -> Avatar | None:
    return None


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthRefused(Reply(501, ("5.5.2 Names and passwords are UTF-8",))) from None


def _match(pattern: re.Pattern[str], message: bytes) -> re.Match[str]:
    try:
        match = pattern.match(message.decode("utf-8"))
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise AuthRefused(_BAD_SCRAM)
    return match


def _name(escaped: str) -> str:
    """RFC 5802 section 5.1: ``=2C`` is a comma, ``=3D`` an equals sign, nothing else is."""
    if re.search(r"=(?!2C|3D)", escaped):
        raise AuthRefused(_BAD_SCRAM)
    return escaped.replace("=2C", ",").replace("=3D", "=")


def _b64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise AuthRefused(_BAD_SCRAM) from None
