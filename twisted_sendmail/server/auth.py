"""AUTH on the server: the exchange with the client, the delay of guesses, and the log.

:class:`Accounts` is the interface to the users; ``password_file`` and :class:`PortalAccounts`
implement it.  An :class:`AuthExchange` runs a coroutine for each mechanism, which reads like its
RFC: ``ask`` sends a challenge, ``decide`` checks the password.  ``decide`` waits as
:class:`AuthThrottle` requires.  Every exchange that ends without success is one line of the log.

No exchange shows whether a user is unknown or a password wrong.  RFC 4954, RFC 4616 (PLAIN),
RFC 5802 and RFC 7677 (SCRAM), RFC 7628 (OAUTHBEARER), draft-murchison-sasl-login.

**The delay.**  Each failed login doubles the delay of the address that it came from and of the user
that it named, over all connections, from ``base`` up to :data:`MAX_DELAY` seconds; there is no
lock.  Every ten minutes one failure is forgotten.  The delay passes before the reply, so that a client
that closes the connection early gains nothing; an abandoned login counts as a failed one.  An address
that logged in as a user within the last 30 days is delayed by its own failures with that user only,
so that nobody can delay others by guessing.  The tables are bounded, the record used least recently
is dropped when a table is full, and a restart forgets them.  RFC 4954 section 9.
"""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeVar, cast

from attrs import define, frozen
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import Interface
from zope.interface.interface import InterfaceClass

from twisted_sendmail.local_users import uid_text
from twisted_sendmail.sasl import (
    BEARER_REFUSALS,
    MAX_ROUNDS,
    PLUS,
    SCRAM_HASHES,
    BindingRefused,
    ScramKeys,
    ScramServer,
    parse_bearer,
)
from twisted_sendmail.smtp import (
    PENDING,
    Pending,
    Reply,
    check_callable,
    check_positive,
    check_reactor,
    check_type,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.cred.portal import Portal
    from twisted.internet.interfaces import IReactorTime

    from twisted_sendmail.server.connection_info import ConnectionInfo

#: Unknown user, wrong password, wrong proof: one reply for all (RFC 4954 section 6).
FAILED: Final = Reply(535, ("5.7.8 Authentication failed",))
_UNAVAILABLE = Reply(454, ("4.7.0 Temporary authentication failure",))
_MALFORMED = Reply(501, ("5.5.2 Malformed authentication response",))
#: Characters of a user name in the log.
_SHOWN_CHARACTERS = 64
_log = Logger(namespace="twisted_sendmail.server")
_T = TypeVar("_T")


class AuthRefused(Exception):
    """The exchange is over; ``reply`` is for the client."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@frozen
class Avatar:
    """The user that has logged in."""

    #: An object that the accounts keep of the user.
    value: object = None
    #: Called when the user's connection is over.
    logout: Callable[[], object] = lambda: None


class Accounts(Protocol):
    """The users of a server."""

    #: Mechanisms that can be offered, the best first.
    mechanisms: tuple[str, ...]

    async def check(self, user: str, password: str) -> Avatar | None:
        """Return the user's avatar, None if it is not the user's password.

        It has to take the same time for a user that does not exist.

        :raises AuthRefused: with a reply of its own.
        """
        ...

    async def scram_keys(self, user: str, hash_name: str) -> ScramKeys:
        """Return the keys for SCRAM; for an unknown user, keys that no password has.

        :param hash_name: the hash of the mechanism, as `hashlib` names it.

        Salt and iteration count of an unknown user have to stay the same, also after a restart:
        derive them from a secret that does.
        """
        ...


class TokenAccounts(Accounts, Protocol):
    """Users with bearer tokens, for OAUTHBEARER and XOAUTH2."""

    async def check_token(self, user: str, token: str) -> Avatar | None:
        """Return the user's avatar, None if it is not a valid token of the user.

        :param user: empty if the client named none.
        :param token: empty if the client gave none, to get the refusal.
        :raises AuthRefused: with a reply of its own.
        """
        ...


class CertificateAccounts(Accounts, Protocol):
    """Users with certificates of their own, for EXTERNAL (RFC 4422 appendix A)."""

    async def check_certificate(self, fingerprint: str, user: str) -> tuple[str, Avatar] | None:
        """Return the owner of a certificate and the avatar, None if nobody owns it.

        :param fingerprint: the SHA-256 of the certificate, lower-case hexadecimal.
        :param user: the user to act as; empty for the owner.
        :raises AuthRefused: with a reply of its own.
        """
        ...


class IMailUser(Interface):
    """The interface that :class:`PortalAccounts` requests from a realm; it has no method."""


class PortalAccounts:
    """The users of a ``twisted.cred`` portal, by PLAIN and LOGIN.

    SCRAM is not offered: a portal's checkers need the password.

    :param portal: its checkers take ``IUsernamePassword``.
    :param interface: the interface that the realm is asked for.
    :param encode: turns names and passwords into the octets that the checkers get.
    """

    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")

    def __init__(
        self,
        portal: Portal,
        interface: type[Interface] = IMailUser,
        encode: Callable[[str], bytes] = lambda text: text.encode("utf-8"),
    ) -> None:
        check_callable("the login of portal", getattr(portal, "login", None), "a Portal")
        check_type("interface", interface, InterfaceClass, "an Interface of zope.interface")
        check_callable("encode", encode, "a function that turns text into octets")
        self._portal = portal
        self._interface = interface
        self._encode = encode

    async def check(self, user: str, password: str) -> Avatar | None:
        """Log in at the portal; the avatar is the connection's until it ends.

        :raises AuthRefused: the portal refuses the login.
        """
        credentials = UsernamePassword(self._encode(user), self._encode(password))
        try:
            _, avatar, logout = await self._portal.login(credentials, None, self._interface)
        except (LoginFailed, UnauthorizedLogin):
            raise AuthRefused(FAILED) from None
        return Avatar(avatar, logout)

    async def scram_keys(self, user: str, hash_name: str) -> ScramKeys:
        """Return None: a portal has no keys."""
        raise AuthRefused(FAILED)


# -- the exchange -------------------------------------------------------------------------


class AuthExchange:
    """AUTH on one connection.

    :param accounts: None: every exchange gets 454.
    :param connection: its user and avatar are set here.
    :param resume: gives the session a reply: a challenge (334), or the end of the exchange.
    :param binding: returns the data of a type of channel binding of the connection, or None.
    :param offers_binding: the server offers mechanisms with channel binding inside TLS.
    """

    def __init__(
        self,
        accounts: Accounts | None,
        throttle: AuthThrottle,
        connection: ConnectionInfo,
        resume: Callable[[Reply], None],
        binding: Callable[[str], bytes | None],
        *,
        offers_binding: bool,
    ) -> None:
        self._accounts = accounts
        self.binding = binding
        self._offers_binding = offers_binding
        self._throttle = throttle
        self._connection = connection
        self._resume = resume
        self._avatar: Avatar | None = None
        self._awaited: Deferred[bytes] | None = None
        self._running: Deferred[None] | None = None
        #: The mechanism of the exchange.
        self.mechanism = ""
        self._rounds = 0
        #: The user that the client has named so far, for the log.
        self.user: str | None = None
        self._logged = False

    def start(self, mechanism: str, initial: bytes | None) -> Reply | Pending:
        """Begin an exchange."""
        if self._accounts is None:
            return _UNAVAILABLE
        self.mechanism, self._rounds = mechanism, 0
        self.user, self._logged = None, False
        self._running = Deferred.fromCoroutine(self._run(self._accounts, initial))
        return PENDING

    def response(self, data: bytes) -> Reply | Pending:
        """Give the exchange the client's response to the last challenge."""
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            return _UNAVAILABLE
        awaited.callback(data)
        return PENDING

    def cancel(self) -> None:
        """End the exchange: the client has sent ``*`` or is gone."""
        if self._running is not None:
            self._running.cancel()

    def log_out(self) -> None:
        """Release the avatar."""
        avatar, self._avatar = self._avatar, None
        if avatar is not None:
            avatar.logout()

    async def _run(self, accounts: Accounts, initial: bytes | None) -> None:
        try:
            user, avatar = await EXCHANGES[self.mechanism](self, accounts, initial)
        except CancelledError:
            self._log("aborted")
        except AuthRefused as refused:
            self._resume(refused.reply)
        except Exception as trouble:  # noqa: BLE001 - no error may count as success
            # Without its text, which may quote the password.
            _log.error("authentication cannot be decided: {kind}", kind=type(trouble).__name__)
            self._resume(_UNAVAILABLE)
        else:
            self._connection.user, self._avatar = user, avatar
            self._connection.avatar = avatar.value
            self._resume(Reply(235, ("2.7.0 Authentication successful",)))

    def ask(self, challenge: bytes) -> Deferred[bytes]:
        """Send a challenge; the result is the client's response."""
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise AuthRefused(_MALFORMED)
        awaited = self._awaited = Deferred()
        self._resume(Reply(334, (b64encode(challenge).decode("ascii"),)))
        return awaited

    async def decide(self, user: str, check: Callable[[], Awaitable[Avatar | None]]) -> Avatar:
        """Call *check* after the delay, and return its avatar.

        :raises AuthRefused: *check* returned None, or raised an error with a reply.
        """
        self.user = user
        attempt = self._throttle.attempt(self._connection.origin, user)
        try:
            await self._sleep(attempt.delay)
            avatar = await check()
        except AuthRefused as refused:
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
            await deferLater(self._throttle.clock, seconds)

    @property
    def offers_binding(self) -> bool:
        """True if mechanisms with channel binding are offered on this connection."""
        return self._offers_binding and self._connection.tls is not None

    @property
    def fingerprint(self) -> str | None:
        """The SHA-256 of the client's certificate; None without one."""
        tls = self._connection.tls
        return None if tls is None else tls.fingerprint

    async def refuse_binding(self, refused: BindingRefused) -> NoReturn:
        """End an exchange of SCRAM whose channel binding is wrong; no password was guessed.

        :raises AuthRefused: when the client has acknowledged the error.
        """
        self._log(f"failed ({refused})")
        _ = await self.ask(f"e={refused}".encode())
        raise AuthRefused(FAILED)

    def _log(self, result: str) -> None:
        """Log that the exchange ended without success, once."""
        if self._logged:
            return
        self._logged = True
        user = self.user
        # The name comes last and holds no space: it cannot pass for another part of the line.
        shown = "(unavailable)" if user is None else _shown(user).replace(" ", "\\x20")
        _log.warn(
            "[{address}]: SASL {mechanism} authentication {result}, sasl_username={user}",
            address=_shown(_client(self._connection)),
            mechanism=self.mechanism,
            result=result,
            user=shown,
        )


def _client(connection: ConnectionInfo) -> str:
    if connection.local is not None:
        return uid_text(connection.local.uid)
    return getattr(connection.peer, "host", None) or "unix"


def _shown(text: str) -> str:
    return printable(text, _SHOWN_CHARACTERS)


async def _plain(
    exchange: AuthExchange, accounts: Accounts, initial: bytes | None
) -> tuple[str, Avatar]:
    response = await exchange.ask(b"") if initial is None else initial
    parts = [_parsed(_text, part) for part in response.split(b"\0")]
    if len(parts) != 3:
        raise AuthRefused(_MALFORMED)
    authzid, user, password = parts

    async def check() -> Avatar | None:
        return await accounts.check(user, password) if authzid in {"", user} else None

    return user, await exchange.decide(user, check)


async def _login(
    exchange: AuthExchange, accounts: Accounts, initial: bytes | None
) -> tuple[str, Avatar]:
    name = await exchange.ask(b"Username:") if initial is None else initial
    user = exchange.user = _parsed(_text, name)
    password = _parsed(_text, await exchange.ask(b"Password:"))
    return user, await exchange.decide(user, lambda: accounts.check(user, password))


async def _scram(
    exchange: AuthExchange, accounts: Accounts, initial: bytes | None
) -> tuple[str, Avatar]:
    client_first = await exchange.ask(b"") if initial is None else initial
    proved = False
    try:
        scram = _parsed(
            lambda octets: ScramServer(
                octets,
                exchange.mechanism,
                exchange.binding,
                offers_binding=exchange.offers_binding,
            ),
            client_first,
        )
        user = exchange.user = scram.username
        if scram.authzid in {None, user}:
            keys = await accounts.scram_keys(user, scram.hash_name)
            proved = _parsed(scram.proves, await exchange.ask(scram.challenge(keys)))
    except BindingRefused as refused:
        await exchange.refuse_binding(refused)

    async def check() -> Avatar | None:
        return Avatar() if proved else None

    avatar = await exchange.decide(user, check)
    # RFC 4954 has no additional data with success: the signature is a challenge of its own.
    if await exchange.ask(scram.signature()):
        raise AuthRefused(_MALFORMED)
    return user, avatar


async def _bearer(
    exchange: AuthExchange, accounts: Accounts, initial: bytes | None
) -> tuple[str, Avatar]:
    message = await exchange.ask(b"") if initial is None else initial
    mechanism = exchange.mechanism
    user, token = _parsed(lambda octets: parse_bearer(mechanism, octets), message)
    check = cast("TokenAccounts", accounts).check_token
    try:
        return user, await exchange.decide(user, lambda: check(user, token))
    except AuthRefused as refused:
        if refused.reply is FAILED:
            # The reply follows the client's acknowledgement (RFC 7628 section 3.2.3).
            await exchange.ask(BEARER_REFUSALS[mechanism])
        raise


async def _external(
    exchange: AuthExchange, accounts: Accounts, initial: bytes | None
) -> tuple[str, Avatar]:
    user = _parsed(_text, await exchange.ask(b"") if initial is None else initial)
    owner = user

    async def check() -> Avatar | None:
        nonlocal owner
        if exchange.fingerprint is None:
            return None
        accounts_ = cast("CertificateAccounts", accounts)
        found = await accounts_.check_certificate(exchange.fingerprint, user)
        if found is None:
            return None
        owner, avatar = found
        return avatar

    avatar = await exchange.decide(user, check)
    return owner, avatar


def _text(octets: bytes) -> str:
    return octets.decode("utf-8")


def _parsed(parse: Callable[[bytes], _T], response: bytes) -> _T:
    try:
        return parse(response)
    except BindingRefused:
        raise
    except ValueError:
        raise AuthRefused(_MALFORMED) from None


#: The mechanisms that a server can offer.
EXCHANGES: Mapping[
    str, Callable[[AuthExchange, Accounts, bytes | None], Awaitable[tuple[str, Avatar]]]
] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    **{f"SCRAM-{text}{plus}": _scram for text in SCRAM_HASHES.values() for plus in ("", PLUS)},
    "EXTERNAL": _external,
    "OAUTHBEARER": _bearer,
    "XOAUTH2": _bearer,
}


# -- the delay ------------------------------------------------------------------------------

#: Seconds that a login waits at the most.
MAX_DELAY = 30.0
#: Seconds after which one failure is forgotten.
FORGET_SECONDS = 600.0
#: Seconds for which an address that logged in as a user is not delayed by others.
KNOWN_SECONDS = 30 * 86400.0
#: Records of each of the three tables.
MAX_RECORDS = 10_000


@define
class _FailureRecord:
    """Failures of one address, one user, or one user at one address."""

    failures: int = 0
    #: Logins under way, each of which may be a failure.
    pending: int = 0
    #: The time until which the oldest failures are forgotten already.
    since: float = 0.0
    #: The time of the last success; of a user at an address only.
    succeeded: float = 0.0

    def forget(self, now: float) -> None:
        steps = max(int((now - self.since) / FORGET_SECONDS), 0)
        self.failures = max(self.failures - steps, 0)
        self.since = self.since + steps * FORGET_SECONDS if self.failures else now

    @property
    def suspicion(self) -> int:
        # Many that log in at once are suspicious only when one of them has failed before.
        return self.failures + self.pending if self.failures else 0


class _Table:
    """Records by key, the one used last at the end."""

    def __init__(self) -> None:
        self._records: OrderedDict[Hashable, _FailureRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: Hashable) -> _FailureRecord | None:
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
        return record

    def make(self, key: Hashable, now: float) -> _FailureRecord:
        record = self.get(key)
        if record is None:
            record = self._records[key] = _FailureRecord(since=now)
            if len(self._records) > MAX_RECORDS:
                self._records.popitem(last=False)
        return record


class AuthThrottle:
    """The delays of one server, or of several that share it.

    :param base: seconds that the first failed login waits for its reply; 0: nothing is delayed.
    """

    def __init__(self, clock: IReactorTime, base: float = 2.0) -> None:
        check_reactor("clock", clock)
        if base != 0 or isinstance(base, bool):
            check_positive("base", base, "seconds, zero or more")
        self.clock = clock
        self.base = base
        self._addresses, self._users, self._known = _Table(), _Table(), _Table()

    def __len__(self) -> int:
        """Return the number of records, which is bounded."""
        return len(self._addresses) + len(self._users) + len(self._known)

    def attempt(self, place: Hashable, user: str) -> LoginAttempt:
        """Return the attempt of a login that is about to be decided.

        :param place: ``ConnectionInfo.origin``.
        """
        now = self.clock.seconds()
        # A name may be as long as a client likes, and a record is kept for it.
        name = blake2b(user.casefold().encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get((place, name))
        if known is not None and now - known.succeeded > KNOWN_SECONDS:
            known = None
        records = [self._addresses.make(place, now), self._users.make(name, now)]
        return LoginAttempt(self, (place, name), records, known)

    def delay(self, failures: int) -> float:
        """Return the seconds that a login waits after so many failures."""
        return min(self.base * 2.0 ** min(failures - 1, 64), MAX_DELAY) if failures > 0 else 0.0

    def note_success(self, key: Hashable) -> None:
        """Record that this user, at this address, is not delayed by others."""
        now = self.clock.seconds()
        record = self._known.make(key, now)
        record.failures, record.succeeded = 0, now


class LoginAttempt:
    """One login: :attr:`delay`, then one of :meth:`succeeded`, :meth:`failed`, :meth:`undecided`.

    Made by :meth:`AuthThrottle.attempt`.
    """

    def __init__(
        self,
        throttle: AuthThrottle,
        key: tuple[Hashable, Hashable],
        records: list[_FailureRecord],
        known: _FailureRecord | None,
    ) -> None:
        self._throttle = throttle
        self._key = key
        self._records = records if known is None else [*records, known]
        self._counting = records if known is None else [known]
        now = throttle.clock.seconds()
        for record in self._records:
            record.forget(now)
        #: Seconds to wait before the password is checked.
        self.delay = throttle.delay(self._suspicion())
        for record in self._records:
            record.pending += 1

    def _suspicion(self) -> int:
        return max(record.suspicion for record in self._counting)

    def undecided(self) -> None:
        """Count the login as neither: the accounts failed."""
        for record in self._records:
            record.pending -= 1

    def succeeded(self) -> None:
        """Count a good login."""
        self.undecided()
        self._throttle.note_success(self._key)

    def failed(self) -> float:
        """Count a login that failed or was abandoned; return the seconds to wait before the refusal."""
        self.undecided()
        for record in self._records:
            # No higher than the longest delay, or it would take long to come down.
            if self._throttle.delay(record.failures) < MAX_DELAY:
                record.failures += 1
        return max(self._throttle.delay(self._suspicion()) - self.delay, 0.0)
