"""A session's questions about mail, put to a receiver, and its answers brought back.

One for each connection; it owns the receiver of the message at hand, sees to it that
``commit`` or ``abort`` is called exactly once, and turns whatever goes wrong inside a
receiver into 451.  While a receiver is thinking it is ``busy``, and the protocol reads
no further.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_sendmail.ingress.trace import received_field
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.ingress.factory import SMTPServerFactory
    from twisted_sendmail.ingress.receiver import Connection, Receiver
    from twisted_sendmail.smtp import server_event as happened
    from twisted_sendmail.smtp.envelope import Recipient
    from twisted_sendmail.smtp.server_session import ServerSession

_OK = Reply(250, ("2.0.0 Ok",))
_GO_AHEAD = Reply(354, ("End with CRLF, dot, CRLF",))
#: Our own trouble, never the client's fault.
TROUBLE = Reply(451, ("4.3.0 Our trouble, not yours: try again later",))
_log = Logger()


class Reception:
    """Between the session and the receivers.

    :param pump: called when an answer has come later.
    """

    def __init__(
        self,
        factory: SMTPServerFactory,
        session: ServerSession,
        connection: Connection,
        pump: Callable[[], None],
    ) -> None:
        self._factory = factory
        self._session = session
        self._connection = connection
        self._pump = pump
        self._receiver: Receiver | None = None
        self._recipients: list[Recipient] = []
        self._smtputf8 = False
        #: What the receiver is thinking about, while ``busy``.
        self._thought: Deferred[None] | None = None
        self._over = False
        #: Is a receiver thinking?
        self.busy = False

    def sender(self, event: happened.SenderGiven) -> None:
        """MAIL: a receiver is made for the message, and asked."""
        try:
            receiver = self._receiver = self._factory.receiver(self._connection)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets 451
            _log.failure("no receiver could be made")
            self._session.answer(TROUBLE)
            return
        self._recipients, self._smtputf8 = [], event.parameters.smtputf8

        def decided(answer: object) -> None:
            reply = _reply(answer) or _OK
            if reply.code >= 400:
                self.void()
            self._session.answer(reply)

        self._ask(lambda: receiver.sender(event.sender, event.parameters), decided)

    def recipient(self, event: happened.RecipientGiven) -> None:
        """RCPT."""
        receiver = self._receiver

        def decided(answer: object) -> None:
            reply = _reply(answer) or _OK
            if reply.code < 400:
                self._recipients.append(event.recipient)
            self._session.answer(reply)

        if receiver is not None:
            self._ask(lambda: receiver.recipient(event.recipient), decided)

    def begin(self) -> None:
        """DATA or the first BDAT: our Received field goes first."""
        receiver = self._receiver
        if receiver is None or not self._factory.trace:
            self._session.answer(_GO_AHEAD)
            return
        now = datetime.fromtimestamp(self._factory.clock.seconds(), timezone.utc)
        field = received_field(
            self._connection, receiver.id, self._recipients, now, smtputf8=self._smtputf8
        )

        def begun(answer: object) -> None:
            reply = _reply(answer)
            refused = reply is not None and reply.code >= 400
            self._session.answer(reply if reply is not None and refused else _GO_AHEAD)

        self._ask(lambda: receiver.write(field), begun)

    def data(self, event: happened.ContentArrived) -> None:
        """Content."""
        receiver = self._receiver

        def written(answer: object) -> None:
            reply = _reply(answer)
            if reply is not None and reply.code >= 400:
                self.void()
                self._session.refuse_content(reply)

        if receiver is not None:
            self._ask(lambda: receiver.write(event.data), written)

    def commit(self) -> None:
        """The end of the content: from here on it is the receiver's, come what may."""
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            self._session.answer(TROUBLE)
            return
        default = Reply(250, (f"2.0.0 Ok: queued as {receiver.id}",))

        def decided(verdict: object) -> None:
            if isinstance(verdict, Sequence) and not isinstance(verdict, (Reply, str, bytes)):
                replies = [_reply(each) or default for each in verdict]
                self._session.answer(*replies or [default])
            else:
                self._session.answer(_reply(verdict) or default)

        self._ask(receiver.commit, decided)

    def void(self) -> None:
        """The message will not come: the receiver is told, unless it has ended already."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._aborting = Deferred.fromCoroutine(_abort(receiver))

    def connection_lost(self) -> None:
        """What is half done is void; what is being committed goes on."""
        self._over = True
        if self._receiver is not None and self._thought is not None:
            self._thought.cancel()
        self.void()

    def _ask(self, call: Callable[[], object], then: Callable[[object], None]) -> None:
        """Call the receiver, and go on with what comes of it, now or later."""
        try:
            result = call()
        except Exception:  # noqa: BLE001 - as above
            _log.failure("a receiver failed")
            result = TROUBLE
        if isinstance(result, Awaitable):
            self.busy = True
            self._thought = Deferred.fromCoroutine(self._wait(result, then))
        else:
            then(result)

    async def _wait(self, result: Awaitable[object], then: Callable[[object], None]) -> None:
        answer: object = TROUBLE
        try:
            answer = await result
        except CancelledError:
            if not self._over:
                _log.failure("a receiver was cancelled")
        except Exception:  # noqa: BLE001 - as above
            _log.failure("a receiver failed")
        self.busy = False
        then(answer)
        self._pump()


async def _abort(receiver: Receiver) -> None:
    try:
        result = receiver.abort()
        if result is not None:
            await result
    except CancelledError:
        pass
    except Exception:  # noqa: BLE001 - there is nobody left to tell but the log
        _log.failure("a receiver failed to abort")


def _reply(answer: object) -> Reply | None:
    """What a receiver answered; what makes no sense is our trouble."""
    if answer is None:
        return None
    if isinstance(answer, Reply):
        try:
            answer.to_bytes()
        except ValueError as e:
            _log.error("a receiver's reply cannot be said: {why}", why=str(e))
            return TROUBLE
        return answer
    _log.error("a receiver answered a {kind}, not a Reply", kind=type(answer).__name__)
    return TROUBLE
