"""AUTH on one connection: the exchange with the client, and who has logged in.

The exchange of each mechanism is a coroutine (``authentication``) in which ``await ask(…)``
is one challenge and its response.  The session asks for one reply at a time; this joins the
two.  An exchange that is broken off ends its coroutine, and an error inside it is 454 and no
success.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_sendmail.ingress.authentication import EXCHANGES
from twisted_sendmail.ingress.sasl_failure import AuthRefused
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server import PENDING, Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.ingress.authentication import Accounts, Avatar
    from twisted_sendmail.ingress.factory import SMTPServerFactory
    from twisted_sendmail.ingress.receiver import Connection

#: Responses of one exchange; SCRAM needs three.
MAX_ROUNDS = 8
_TROUBLE = Reply(454, ("4.7.0 Cannot authenticate anyone now",))
_log = Logger()


class Login:
    """AUTH on one connection.

    :param connection: its user and avatar are set here.
    :param resume: gives the session a reply: a challenge (334), or the end of the exchange.
    """

    def __init__(
        self,
        factory: SMTPServerFactory,
        connection: Connection,
        resume: Callable[[Reply], None],
    ) -> None:
        self._factory = factory
        self._connection = connection
        self._resume = resume
        self._avatar: Avatar | None = None
        self._awaited: Deferred[bytes] | None = None
        self._running: Deferred[None] | None = None
        self._rounds = 0

    def start(self, mechanism: str, initial: bytes | None) -> Reply | Pending:
        """Begin an exchange."""
        accounts = self._factory.accounts
        if accounts is None:
            return _TROUBLE
        self._rounds = 0
        self._running = Deferred.fromCoroutine(self._run(mechanism, initial, accounts))
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

    async def _run(self, mechanism: str, initial: bytes | None, accounts: Accounts) -> None:
        try:
            user, avatar = await EXCHANGES[mechanism](initial, self._ask, accounts)
        except CancelledError:
            return
        except AuthRefused as refused:
            self._refused(refused.reply)
        except Exception as trouble:  # noqa: BLE001 - whatever it is, it is no success
            # Not its text: an exception may quote what it could not read.
            _log.error("authentication failed in itself: {kind}", kind=type(trouble).__name__)
            self._refused(_TROUBLE)
        else:
            self._connection.user, self._avatar = user, avatar
            self._connection.avatar = avatar.value
            self._resume(Reply(235, ("2.7.0 Authentication successful",)))

    def _refused(self, reply: Reply) -> None:
        delay = self._factory.deadlines.failed_login if reply.code == 535 else 0
        if delay:
            self._factory.clock.callLater(delay, self._resume, reply)
        else:
            self._resume(reply)

    def _ask(self, challenge: bytes) -> Deferred[bytes]:
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise AuthRefused(Reply(501, ("5.5.2 That exchange has no end",)))
        awaited = self._awaited = Deferred()
        self._resume(Reply(334, (b64encode(challenge).decode("ascii"),)))
        return awaited
