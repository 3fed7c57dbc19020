"""One AUTH exchange on its way through a session.

The exchange is a coroutine (``authentication``); the session speaks in events.  This
joins them: a challenge waits for the response, a cancelled exchange ends its
coroutine, and whatever goes wrong inside is our trouble and no success.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_sendmail.ingress.authentication import EXCHANGES
from twisted_sendmail.ingress.sasl_failure import AuthRefused
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.ingress.authentication import Accounts, Avatar

#: Responses of one exchange; SCRAM needs three.
MAX_ROUNDS = 8
_TROUBLE = Reply(454, ("4.7.0 Cannot authenticate anyone now",))
_log = Logger()


class Login:
    """From AUTH to its verdict.

    :param challenge: says a challenge.
    :param pump: to be called when one was said.
    :param done: gets user and avatar, or the refusal; not called when it was cancelled.
    """

    def __init__(
        self,
        challenge: Callable[[bytes], None],
        pump: Callable[[], None],
        done: Callable[[tuple[str, Avatar] | Reply], None],
    ) -> None:
        self._challenge = challenge
        self._pump = pump
        self._done = done
        self._awaited: Deferred[bytes] | None = None
        self._running: Deferred[None] | None = None
        self._rounds = 0

    def start(self, mechanism: str, initial: bytes | None, accounts: Accounts) -> None:
        """Begin the exchange."""
        self._running = Deferred.fromCoroutine(self._run(mechanism, initial, accounts))

    async def _run(self, mechanism: str, initial: bytes | None, accounts: Accounts) -> None:
        result: tuple[str, Avatar] | Reply
        try:
            result = await EXCHANGES[mechanism](initial, self._ask, accounts)
        except CancelledError:
            return
        except AuthRefused as refused:
            result = refused.reply
        except Exception as trouble:  # noqa: BLE001 - whatever it is, it is no success
            # Not its text: an exception may quote what it could not read.
            _log.error("authentication failed in itself: {kind}", kind=type(trouble).__name__)
            result = _TROUBLE
        self._done(result)

    def response(self, data: bytes) -> None:
        """What the client answers to the last challenge."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.callback(data)

    def cancel(self) -> None:
        """It is broken off."""
        if self._running is not None:
            self._running.cancel()

    def _ask(self, data: bytes) -> Deferred[bytes]:
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise AuthRefused(Reply(501, ("5.5.2 That exchange has no end",)))
        self._awaited = Deferred()
        self._challenge(data)
        self._pump()
        return self._awaited
