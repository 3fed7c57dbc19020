"""The interface that an application implements to receive mail, and its caller.

One :class:`Receiver` is made for each message.  Its methods are called in the order ``sender``,
``recipient`` (once each), ``write`` (any number), and at the end either ``commit`` or ``abort``,
one of them, once.  The client gets 250 only after ``commit`` has succeeded.

Every method may return its result, a Deferred or a coroutine.  ``None`` means yes; a
:class:`~twisted_sendmail.smtp.reply.Reply` with 4yz or 5yz is a refusal; an exception, and a reply
that cannot be sent, are logged, and the client gets 451.  While a result is awaited the client is
not read: that is the back-pressure.

RFC 5321 sections 3.3 and 4.2.5; RFC 2033 section 4.2 (a reply for each recipient).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.sasl import PLUS
from twisted_sendmail.server.auth import AuthExchange
from twisted_sendmail.server.connection_info import ConnectionInfo
from twisted_sendmail.server.received_header import ReceivedFields
from twisted_sendmail.smtp import PENDING, MailParameters, Pending, Reply, ServerHandler, Verb

if TYPE_CHECKING:
    from twisted_sendmail.server.factory import SMTPServerFactory
    from twisted_sendmail.smtp import Recipient, ReversePath

ReceiverReply = Reply | None | Awaitable[Reply | None]
Verdict = Reply | Sequence[Reply] | None | Awaitable[Reply | Sequence[Reply] | None]

#: A fault of the server, not of the client.
LOCAL_ERROR = Reply(451, ("4.3.0 Local error in processing",))
#: The message cannot be stored now.
INSUFFICIENT_STORAGE = Reply(452, ("4.3.1 Insufficient system storage",))
_TOO_MANY = Reply(451, ("4.7.1 Too many messages in a short time: try again later",))
_log = Logger(namespace="twisted_sendmail.server")
_T = TypeVar("_T")


@dataclass
class Receiver:
    """Accepts everything and keeps nothing: inherit, and override what matters.

    A dataclass, so that subclasses may be dataclasses with more parameters.
    """

    connection: ConnectionInfo
    #: The server's name for the message, in the 250 and in the Received field.
    id: str = field(default_factory=lambda: os.urandom(6).hex().upper(), init=False)

    def sender(self, sender: ReversePath, parameters: MailParameters) -> ReceiverReply:
        """Accept or refuse the sender and the parameters."""
        return None

    def recipient(self, recipient: Recipient) -> ReceiverReply:
        """Accept or refuse the recipient; a refused one is forgotten."""
        return None

    def trace(self, field: bytes) -> ReceiverReply:
        """Take the server's Received field, before any content; by default as content."""
        return self.write(field)

    def write(self, data: bytes) -> ReceiverReply:
        """Take some content, as it is to be kept: CRLF line ends, not dot-stuffed.

        After a refusal the rest is discarded, and the client gets the refusal at the end.
        """
        return None

    def commit(self) -> Verdict:
        """Keep the message, whose content is complete.  After the 250 the server is responsible for it.

        A Reply may also be a success, with another text than ``Ok``.  In LMTP one reply for all,
        or one for each accepted recipient, in order.
        """
        return None

    def abort(self) -> Awaitable[None] | None:
        """Remove what there is of the message, which will not be completed."""
        return None


class MessageHandler(ServerHandler):
    """Answers the session of one connection from receivers and accounts.

    It calls ``commit`` or ``abort`` of each receiver once, and turns every error of a receiver
    into 451.

    :param resume: gives the session an answer that comes later.
    :param start_tls: called when the session has replied 220 to STARTTLS.
    :param binding: returns the data of a type of channel binding of the connection, or None.
    """

    def __init__(
        self,
        factory: SMTPServerFactory,
        connection: ConnectionInfo,
        resume: Callable[[Any], None],
        start_tls: Callable[[], None],
        binding: Callable[[str], bytes | None],
    ) -> None:
        self._factory = factory
        self._connection = connection
        self._resume = resume
        self._start_tls = start_tls
        self._auth = AuthExchange(
            factory.accounts,
            factory.throttle,
            connection,
            resume,
            binding,
            offers_binding=any(m.endswith(PLUS) for m in factory.settings.mechanisms or ()),
        )
        self._received = ReceivedFields(connection)
        self._receiver: Receiver | None = None
        self._recipients: list[Recipient] = []
        self._smtputf8 = False
        #: The id of the message that is being committed.
        self._committing = ""
        #: The answer of a receiver that is awaited.
        self._awaited: Deferred[None] | None = None
        self._over = False

    # -- the connection -------------------------------------------------------

    def hello(self, domain: str, verb: Verb) -> None:
        """Answer EHLO, HELO or LHLO."""
        self._connection.hello, self._connection.verb = domain, verb

    def start_tls(self) -> None:
        """Answer STARTTLS."""
        self._start_tls()

    def tls_started(self) -> None:
        """Forget everything that the client sent in clear text (RFC 3207 section 4.2)."""
        self._connection.hello = self._connection.verb = self._connection.user = None
        self._auth.log_out()

    def auth(self, mechanism: str, initial: bytes | None) -> Reply | Pending:
        """Answer AUTH."""
        return self._auth.start(mechanism, initial)

    def auth_response(self, response: bytes) -> Reply | Pending:
        """Answer the response to a challenge."""
        return self._auth.response(response)

    def auth_cancelled(self) -> None:
        """Forget the exchange: the client ended it."""
        self._auth.cancel()

    def command(
        self, handle: Callable[[Any, str], object], argument: str
    ) -> Reply | Pending | None:
        """Answer a command of an extension."""
        return self._ask(_checked, handle, self._connection, argument)

    def connection_lost(self) -> None:
        """Abort what has begun; a commit goes on."""
        self._over = True
        self._auth.cancel()
        if self._receiver is not None and self._awaited is not None:
            self._awaited.cancel()
        self.abort("connection lost")
        self._auth.log_out()

    # -- the message ----------------------------------------------------------

    def mail(self, sender: ReversePath, parameters: MailParameters) -> Reply | Pending | None:
        """Make a receiver for the message, and call its ``sender``; later, for a user who sends fast."""
        rates, local = self._factory.user_rates, self._connection.local
        wait = 0.0 if rates is None or local is None else rates.delay(local.uid)
        if wait is None:
            return _TOO_MANY
        try:
            receiver = self._receiver = self._factory.receiver(self._connection)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets 451
            _log.failure("no receiver could be made")
            return LOCAL_ERROR
        if not isinstance(receiver, Receiver):
            self._receiver = None
            _log.critical(
                "no receiver could be made: a {kind} was returned; return a Receiver",
                kind=type(receiver).__name__,
            )
            return LOCAL_ERROR
        self._recipients, self._smtputf8 = [], parameters.smtputf8
        if not wait:
            return self._ask(self._abort_refused, receiver.sender, sender, parameters)
        later: Deferred[None] = deferLater(self._factory.clock, wait)
        return self._ask(
            self._abort_refused, _ask_later, later, receiver.sender, sender, parameters
        )

    def rcpt(self, recipient: Recipient) -> Reply | Pending | None:
        """Answer RCPT."""
        if self._receiver is None:
            return LOCAL_ERROR
        self._recipients.append(recipient)
        return self._ask(self._forget_refused, self._receiver.recipient, recipient)

    def data(self) -> Reply | Pending | None:
        """Write the Received field before the content, at DATA or the first BDAT."""
        receiver = self._receiver
        if receiver is None:
            return LOCAL_ERROR
        if not self._factory.trace:
            return None
        second = int(self._factory.clock.seconds())
        trace = self._received.field(receiver.id, self._recipients, second, smtputf8=self._smtputf8)
        return self._ask(self._abort_refused, receiver.trace, trace)

    def chunk(self, data: bytes) -> Reply | Pending | None:
        """Pass content to the receiver."""
        receiver = self._receiver
        if receiver is None:  # it has refused the rest
            return None
        return self._ask(self._abort_refused, receiver.write, data)

    def commit(self) -> Reply | Sequence[Reply] | Pending | None:
        """Commit the message, whose content is complete; the receiver is released, and a commit is never aborted."""
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return LOCAL_ERROR
        self._committing = receiver.id
        answer = self._ask(self._committed, receiver.commit)
        return self._committed(None) if answer is None else answer

    def abort(self, reason: str) -> None:
        """Abort the receiver, unless it is released."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._aborting = Deferred.fromCoroutine(_abort(receiver))

    # -- answers --------------------------------------------------------------

    def _ask(
        self, decide: Callable[[object], _T], call: Callable[..., object], *args: Any
    ) -> _T | Pending | None:
        """Call the receiver; the session's answer is *decide* of the result.

        None, which nearly all results are, is returned at once.
        """
        try:
            result = call(*args)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets 451
            _log.failure("a receiver failed")
            result = LOCAL_ERROR
        if result is None:
            return None
        if isinstance(result, Deferred):
            awaited = result
        elif isinstance(result, Awaitable):
            awaited = Deferred.fromCoroutine(_result(result))
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
            result = LOCAL_ERROR
        self._resume(decide(result))

    def _abort_refused(self, answer: object) -> Reply | None:
        """Decide about MAIL or content: after a refusal the receiver is not called again."""
        reply = _checked(answer)
        if reply is not None and reply.code >= 400:
            self.abort("refused")
        return reply

    def _forget_refused(self, answer: object) -> Reply | None:
        """Decide about the last recipient."""
        reply = _checked(answer)
        if reply is not None and reply.code >= 400:
            del self._recipients[-1]
        return reply

    def _committed(self, verdict: object) -> Reply | Sequence[Reply]:
        default = Reply(250, (f"2.0.0 Ok: queued as {self._committing}",))
        if verdict is None:
            return default
        if isinstance(verdict, (Reply, str, bytes)) or not isinstance(verdict, Sequence):
            return _checked(verdict) or default
        # With another number of replies, the client would take them for replies to later commands.
        awaited = len(self._recipients) if self._factory.settings.lmtp else 1
        replies = [_checked(each) or default for each in verdict]
        if len(replies) != awaited:
            _log.critical(
                "a receiver returned {count} replies for {awaited}",
                count=len(replies),
                awaited=awaited,
            )
        return (replies + [LOCAL_ERROR] * awaited)[:awaited]


async def _ask_later(later: Deferred[None], call: Callable[..., object], *args: object) -> object:
    await later
    result = call(*args)
    return await result if isinstance(result, Awaitable) else result


async def _result(awaitable: Awaitable[object]) -> object:
    return await awaitable


async def _abort(receiver: Receiver) -> None:
    try:
        result = receiver.abort()
        if result is not None:
            await result
    except CancelledError:
        pass
    except Exception:  # noqa: BLE001 - only the log is left to tell
        _log.failure("a receiver failed to abort")


def _checked(answer: object) -> Reply | None:
    """Return a receiver's answer; 451 for one that cannot be sent."""
    if answer is None:
        return None
    if not isinstance(answer, Reply):
        # Critical, as the exception of a receiver is: it is a fault of the program.
        _log.critical(
            "a receiver returned a {kind}; return None to accept, or a Reply to refuse, such as "
            "{example}",
            kind=type(answer).__name__,
            example='Reply(550, ("5.1.1 No such user",))',
        )
        return LOCAL_ERROR
    try:
        answer.to_bytes()
    except ValueError as e:
        _log.critical("a receiver's reply cannot be sent: {why}", why=str(e))
        return LOCAL_ERROR
    if answer.intermediate:
        _log.critical("a receiver's reply cannot be sent: {code} is not final", code=answer.code)
        return LOCAL_ERROR
    return answer
