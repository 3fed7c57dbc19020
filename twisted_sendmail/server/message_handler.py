"""What a server session asks, answered: by the message's receiver, and by the accounts.

One :class:`MessageHandler` for each connection.  It owns the receiver of the message at
hand, calls ``commit`` or ``abort`` of it exactly once, and turns every error of a receiver
into 451.  An answer that a receiver gives later is brought to the session by ``resume``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.server.auth import AuthExchange
from twisted_sendmail.server.received_header import Stamp
from twisted_sendmail.smtp import PENDING, Pending, Reply, ServerHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.server.factory import SMTPServerFactory
    from twisted_sendmail.server.receiver import ConnectionInfo, Receiver
    from twisted_sendmail.smtp import MailParameters, Recipient, ReversePath, Verb

#: Our own trouble, never the client's fault.
TROUBLE = Reply(451, ("4.3.0 Local error in processing",))
_log = Logger()
_T = TypeVar("_T")


class MessageHandler(ServerHandler):
    """Answers the session of one connection.

    :param connection: what receivers get to know of it.
    :param resume: gives the session an answer that came later.
    :param start_tls: called when the session has replied 220 to STARTTLS.
    """

    def __init__(
        self,
        factory: SMTPServerFactory,
        connection: ConnectionInfo,
        resume: Callable[[Any], None],
        start_tls: Callable[[], None],
    ) -> None:
        self._factory = factory
        self._connection = connection
        self._resume = resume
        self._start_tls = start_tls
        self._auth = AuthExchange(factory.accounts, factory.throttle, connection, resume)
        self._stamp = Stamp(connection)
        self._receiver: Receiver | None = None
        self._recipients: list[Recipient] = []
        self._smtputf8 = False
        self._recipient: Recipient
        self._committing = ""
        #: The answer that is awaited of a receiver.
        self._awaited: Deferred[None] | None = None
        self._over = False

    # -- the connection -------------------------------------------------------

    def hello(self, domain: str, verb: Verb) -> None:
        """EHLO, HELO or LHLO."""
        self._connection.hello, self._connection.verb = domain, verb

    def start_tls(self) -> None:
        """STARTTLS."""
        self._start_tls()

    def tls_started(self) -> None:
        """What was learnt in clear is forgotten (RFC 3207 section 4.2)."""
        self._connection.hello = self._connection.verb = self._connection.user = None
        self._auth.log_out()

    def auth(self, mechanism: str, initial: bytes | None) -> Reply | Pending:
        """AUTH."""
        return self._auth.start(mechanism, initial)

    def auth_response(self, response: bytes) -> Reply | Pending:
        """The response to a challenge."""
        return self._auth.response(response)

    def auth_cancelled(self) -> None:
        """The exchange was broken off."""
        self._auth.cancel()

    def connection_lost(self) -> None:
        """What is half done is void; what is being committed goes on."""
        self._over = True
        self._auth.cancel()
        if self._receiver is not None and self._awaited is not None:
            self._awaited.cancel()
        self.abort("connection lost")
        self._auth.log_out()

    # -- the message ----------------------------------------------------------

    def mail(self, sender: ReversePath, parameters: MailParameters) -> Reply | Pending | None:
        """MAIL: a receiver is made for the message, and asked."""
        try:
            receiver = self._receiver = self._factory.receiver(self._connection)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets 451
            _log.failure("no receiver could be made")
            return TROUBLE
        self._recipients, self._smtputf8 = [], parameters.smtputf8
        return self._ask(self._mail_decided, receiver.sender, sender, parameters)

    def _mail_decided(self, answer: object) -> Reply | None:
        reply = _reply(answer)
        if reply is not None and reply.code >= 400:
            self.abort("refused")
        return reply

    def rcpt(self, recipient: Recipient) -> Reply | Pending | None:
        """RCPT."""
        if self._receiver is None:
            return TROUBLE
        self._recipient = recipient
        return self._ask(self._rcpt_decided, self._receiver.recipient, recipient)

    def _rcpt_decided(self, answer: object) -> Reply | None:
        reply = _reply(answer)
        if reply is None or reply.code < 400:
            self._recipients.append(self._recipient)
        return reply

    def data(self) -> Reply | Pending | None:
        """DATA or the first BDAT: our Received field goes first."""
        receiver = self._receiver
        if receiver is None or not self._factory.trace:
            return None
        second = int(self._factory.clock.seconds())
        field = self._stamp.field(receiver.id, self._recipients, second, smtputf8=self._smtputf8)
        return self._ask(_reply, receiver.write, field)

    def chunk(self, data: bytes, last: bool) -> Reply | Pending | None:  # noqa: FBT001 - see ServerHandler
        """Content."""
        receiver = self._receiver
        if receiver is None:  # it has refused the rest
            return None
        return self._ask(self._written, receiver.write_last if last else receiver.write, data)

    def _written(self, answer: object) -> Reply | None:
        reply = _reply(answer)
        if reply is not None and reply.code >= 400:
            self.abort("refused")
        return reply

    def commit(self) -> Reply | Sequence[Reply] | Pending | None:
        """The end of the content: from here on it is the receiver's, come what may."""
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return TROUBLE
        self._committing = receiver.id
        return self._ask(self._committed, receiver.commit)

    def _committed(self, verdict: object) -> Reply | Sequence[Reply]:
        default = Reply(250, (f"2.0.0 Ok: queued as {self._committing}",))
        if isinstance(verdict, (Reply, str, bytes)) or not isinstance(verdict, Sequence):
            return _reply(verdict) or default
        # A client that gets another number of replies takes them for those of later commands.
        awaited = len(self._recipients) if self._factory.settings.lmtp else 1
        replies = [_reply(each) or default for each in verdict]
        if len(replies) != awaited:
            _log.error(
                "a receiver returned {count} replies for {awaited}",
                count=len(replies),
                awaited=awaited,
            )
        return (replies + [TROUBLE] * awaited)[:awaited]

    def abort(self, reason: str) -> None:
        """The message will not come: the receiver is told, unless it has ended already."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._aborting = Deferred.fromCoroutine(_abort(receiver))

    # -- answers --------------------------------------------------------------

    def _ask(
        self, decide: Callable[[object], _T], call: Callable[..., object], *args: Any
    ) -> _T | Pending:
        """Call the receiver; the session's answer is what *decide* makes of the result."""
        try:
            result = call(*args)
        except Exception:  # noqa: BLE001 - as above
            _log.failure("a receiver failed")
            result = TROUBLE
        # Most results are None, and asking whether they are awaitable costs more than the rest.
        if result is None:
            return decide(None)
        if isinstance(result, Deferred):
            awaited = result
        elif isinstance(result, Awaitable):
            awaited = Deferred.fromCoroutine(_of(result))
        else:
            return decide(result)
        self._awaited = awaited.addBoth(self._answered, decide)
        return PENDING

    def _answered(self, result: object, decide: Callable[[object], Any]) -> None:
        if isinstance(result, Failure):
            if not result.check(CancelledError):
                _log.failure("a receiver failed", result)
            elif not self._over:
                _log.failure("a receiver was cancelled", result)
            result = TROUBLE
        self._resume(decide(result))


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
            _log.error("a receiver's reply cannot be sent: {why}", why=str(e))
            return TROUBLE
        if answer.intermediate:
            _log.error("a receiver's reply cannot be sent: {code} asks for more", code=answer.code)
            return TROUBLE
        return answer
    _log.error("a receiver answered a {kind}, not a Reply", kind=type(answer).__name__)
    return TROUBLE
