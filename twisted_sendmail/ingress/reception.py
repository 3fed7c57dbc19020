"""A session's questions about mail, put to a receiver, and its answers brought back.

One for each connection; it owns the receiver of the message at hand, sees to it that
``commit`` or ``abort`` is called exactly once, and turns whatever goes wrong inside a
receiver into 451.  While a receiver is thinking it is ``busy``, and the protocol reads
no further.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.ingress.trace import Stamp
from twisted_sendmail.smtp import server_event as happened
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_prompt import PromptSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.ingress.factory import SMTPServerFactory
    from twisted_sendmail.ingress.receiver import Connection, Receiver
    from twisted_sendmail.smtp.envelope import Recipient
    from twisted_sendmail.smtp.server_session import ServerSession
    from twisted_sendmail.smtp.usual_commands import UsualCommands

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
        self._prompt = session if isinstance(session, PromptSession) else None
        self._stamp = Stamp(connection)
        self._receiver: Receiver | None = None
        self._recipients: list[Recipient] = []
        self._smtputf8 = False
        self._recipient: Recipient
        self._committing = ""
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
        self._ask(self._sender_decided, receiver.sender, event.sender, event.parameters)

    def _sender_decided(self, answer: object) -> None:
        reply = _OK if answer is None else _reply(answer) or _OK
        if reply.code >= 400:
            self.void()
        self._session.answer(reply)

    def recipient(self, event: happened.RecipientGiven) -> None:
        """RCPT."""
        if self._receiver is not None:
            self._recipient = event.recipient
            self._ask(self._recipient_decided, self._receiver.recipient, event.recipient)

    def _recipient_decided(self, answer: object) -> None:
        reply = _OK if answer is None else _reply(answer) or _OK
        if reply.code < 400:
            self._recipients.append(self._recipient)
        self._session.answer(reply)

    def begin(self) -> None:
        """DATA or the first BDAT: our Received field goes first."""
        receiver = self._receiver
        if receiver is None or not self._factory.trace:
            self._session.answer(_GO_AHEAD)
            return
        self._ask(self._begun, receiver.write, self._trace(receiver))

    def _trace(self, receiver: Receiver) -> bytes:
        second = int(self._factory.clock.seconds())
        return self._stamp.field(receiver.id, self._recipients, second, smtputf8=self._smtputf8)

    def _begun(self, answer: object) -> None:
        reply = _reply(answer)
        refused = reply is not None and reply.code >= 400
        self._session.answer(reply if reply is not None and refused else _GO_AHEAD)

    def data(self, event: happened.ContentArrived) -> None:
        """Content."""
        if self._receiver is not None:
            self._ask(self._written, self._receiver.write, event.data)

    def _written(self, answer: object) -> None:
        reply = _reply(answer)
        if reply is not None and reply.code >= 400:
            self.void()
            self._session.refuse_content(reply)

    def commit(self) -> None:
        """The end of the content: from here on it is the receiver's, come what may."""
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            self._session.answer(TROUBLE)
            return
        self._committing = receiver.id
        self._ask(self._committed, receiver.commit)

    def _committed(self, verdict: object) -> None:
        text = f"2.0.0 Ok: queued as {self._committing}"
        if verdict is None and self._prompt is not None and self._prompt.accepted(text):
            return
        default = Reply(250, (text,))
        if verdict is None:
            self._session.answer(default)
        elif isinstance(verdict, Sequence) and not isinstance(verdict, (Reply, str, bytes)):
            replies = [_reply(each) or default for each in verdict]
            self._session.answer(*replies or [default])
        else:
            self._session.answer(_reply(verdict) or default)

    # -- what was read together -----------------------------------------------

    def usual(self, session: PromptSession, commands: UsualCommands) -> None:
        """MAIL, RCPT and DATA, as far as each is answered by yes, and at once."""
        sender = commands.sender
        receiver = None if sender is not None else self._receiver
        answer: object = None
        session.transcript.follow(commands)
        try:
            if sender is not None:
                commands.heard = 1
                receiver = self._receiver = self._factory.receiver(self._connection)
                self._recipients, self._smtputf8 = [], sender[1].smtputf8
                answer = receiver.sender(*sender)
                if answer is None:
                    commands.replies.append(_OK)
            if answer is None and receiver is not None:
                answer = self._with_recipients(receiver, commands)
        except Exception:  # noqa: BLE001 - as below
            _log.failure("a receiver failed" if receiver else "no receiver could be made")
            answer = TROUBLE
        session.agreed(commands)
        if answer is None:
            session.end_of(commands)
            return
        question = session.ask(commands)
        session.end_of(commands)
        if isinstance(question, happened.SenderGiven):
            self._heard(answer, self._sender_decided)
        elif isinstance(question, happened.RecipientGiven):
            self._recipient = question.recipient
            self._heard(answer, self._recipient_decided)
        else:
            self._heard(answer, self._begun)

    def _with_recipients(self, receiver: Receiver, commands: UsualCommands) -> object:
        """RCPT and DATA, up to the first answer that is more than yes."""
        for recipient in commands.recipients:
            if self._receiver is not receiver:
                return None  # The connection is lost.
            commands.heard += 1
            answer: object = receiver.recipient(recipient)
            if answer is not None:
                return answer
            self._recipients.append(recipient)
            commands.replies.append(_OK)
        if not commands.data or self._receiver is not receiver:
            return None
        commands.heard += 1
        answer = receiver.write(self._trace(receiver)) if self._factory.trace else None
        if answer is None:
            commands.replies.append(_GO_AHEAD)
        return answer

    def whole(self, session: PromptSession, content: bytes, data: bytes) -> None:
        """All of the content, which came as *data*, and its end."""
        receiver = self._receiver
        if receiver is None:
            return
        try:
            answer: object = receiver.write_last(content)
        except Exception:  # noqa: BLE001 - as below
            _log.failure("a receiver failed")
            answer = TROUBLE
        if answer is not None:
            session.content_heard(data)
            self._heard(answer, self._written)
        elif self._receiver is receiver:
            session.content_taken(len(content))
            self.commit()

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

    def _ask(self, then: Callable[[object], None], call: Callable[..., object], *said: Any) -> None:
        """Call the receiver, and go on with what comes of it, now or later."""
        try:
            result = call(*said)
        except Exception:  # noqa: BLE001 - as above
            _log.failure("a receiver failed")
            result = TROUBLE
        self._heard(result, then)

    def _heard(self, result: object, then: Callable[[object], None]) -> None:
        # Most answers are None, and asking what it can do costs more than all of this.
        if result is None:
            then(None)
            return
        if isinstance(result, Deferred):
            thought = result
        elif isinstance(result, Awaitable):
            thought = Deferred.fromCoroutine(_of(result))
        else:
            then(result)
            return
        self.busy = True
        self._thought = thought.addBoth(self._thought_over, then)

    def _thought_over(self, answer: object, then: Callable[[object], None]) -> None:
        if isinstance(answer, Failure):
            if not answer.check(CancelledError):
                _log.failure("a receiver failed", answer)
            elif not self._over:
                _log.failure("a receiver was cancelled", answer)
            answer = TROUBLE
        self.busy = False
        then(answer)
        self._pump()


async def _of(result: Awaitable[object]) -> object:
    return await result


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
