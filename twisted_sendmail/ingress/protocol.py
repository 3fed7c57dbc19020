"""One connection: the transport on one side, session and receiver on the other.

It moves octets, asks the receiver what the session wants to know, starts TLS, runs
the exchanges of AUTH, keeps the deadlines, and holds back whoever is too fast: the
client while a receiver is thinking, ourselves while the client does not read.
What is allowed is the session's business, what is accepted the receiver's.

RFC 5321 section 4.5.3.2 (timeouts), RFC 3207 (STARTTLS), RFC 3848 (protocol names).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from twisted_sendmail.ingress.deadlines import ContentClock, Timer
from twisted_sendmail.ingress.login import Login
from twisted_sendmail.ingress.receiver import Connection
from twisted_sendmail.ingress.tls import server_tls_facts
from twisted_sendmail.smtp import server_event as happened
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_session import ServerSession
from twisted_sendmail.smtp.server_table import ServerState

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.python.failure import Failure

    from twisted_sendmail.ingress.factory import SMTPServerFactory
    from twisted_sendmail.ingress.receiver import Receiver

_OK = Reply(250, ("2.0.0 Ok",))
_TROUBLE = Reply(451, ("4.3.0 Our trouble, not yours: try again later",))
_GO_AHEAD = Reply(354, ("End with CRLF, dot, CRLF",))
_TOO_SLOW = Reply(421, ("4.4.2 That took too long",))
_log = Logger()


@implementer(IHandshakeListener, IPushProducer)
class SMTPServerProtocol(Protocol):
    """Made by :class:`~twisted_sendmail.ingress.factory.SMTPServerFactory`.

    :param greeting: None to serve; anything but a 220 is said instead, and the end.
    """

    factory: SMTPServerFactory

    def __init__(self, factory: SMTPServerFactory, greeting: Reply | None = None) -> None:
        self.factory = factory
        self._greeting = greeting
        self._receiver: Receiver | None = None
        self._login: Login | None = None
        self._timer = Timer(factory.clock, self._late)
        self._content_clock = ContentClock(factory.clock)
        #: What the receiver is thinking about, while ``_busy``.
        self._thought: Deferred[None] | None = None
        self._busy = self._pumping = self._blocked = self._paused = self._over = False

    # -- the transport's side -------------------------------------------------

    def connectionMade(self) -> None:
        """Greet, or in implicit TLS wait for the handshake."""
        transport: Any = self.transport
        tls = ISSLTransport.providedBy(transport)
        self.session = ServerSession(self.factory.settings, tls=tls)
        self.connection = Connection(
            transport.getPeer(), transport.getHost(), self.session.transcript
        )
        transport.registerProducer(self, True)
        self.factory.opened(self)
        if tls:
            self._timer.set("handshake", self.factory.deadlines.handshake)
        else:
            self.session.greet(self._greeting)
            self._pump()

    def handshakeCompleted(self) -> None:
        """TLS is on."""
        self.connection.tls = server_tls_facts(self.transport)
        if self.session.state is ServerState.OPENING:
            self.session.transcript.add("--", "TLS started")
            self.session.greet(self._greeting)
        else:
            # RFC 3207 section 4.2: what was learnt in clear is forgotten.
            self.connection.hello = None
            self.session.tls_started()
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        self._content_clock.octets += len(data)
        self.session.receive(data)
        self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """What is half done is void; what is being committed goes on."""
        self._over = True
        self._timer.clear()
        if self._login is not None:
            self._login.cancel()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            if self._thought is not None:
                self._thought.cancel()
            self._abort(receiver)
        self.factory.closed(self)

    def pauseProducing(self) -> None:
        """The client does not read: stop answering, and stop listening."""
        self._blocked = True
        self._regulate()

    def resumeProducing(self) -> None:
        """It reads again."""
        self._blocked = False
        self._pump()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` follows."""
        self._blocked = True

    # -- the pump -------------------------------------------------------------

    def _pump(self) -> None:
        """Do all that can be done now, and write what there is to write, at once."""
        if self._pumping or self._over:
            return
        self._pumping = True
        try:
            while not (self._blocked or self._busy):
                event = self.session.next_event()
                if event is None:
                    break
                self._HANDLERS[type(event)](self, event)
        finally:
            self._pumping = False
        self._flush()
        self._regulate()

    def _flush(self) -> None:
        data = self.session.output()
        if data and self.transport is not None:
            self.transport.write(data)

    def _regulate(self) -> None:
        """Let the client's time run or stand, and its octets come or wait."""
        if self._over:
            return
        session, deadlines = self.session, self.factory.deadlines
        ours = self._busy or session.asking
        reading = session.reading_content
        if reading and not ours and not self._blocked:
            self._content_clock.run()
        else:
            self._content_clock.stop()
        if session.state is ServerState.CLOSED:
            self._timer.set("closing", deadlines.closing)
        elif session.state in {ServerState.OPENING, ServerState.HANDSHAKE}:
            self._timer.set("handshake", deadlines.handshake)
        elif self._blocked:
            self._timer.set("reading", deadlines.reading)
        elif ours:
            self._timer.clear()
        elif reading:
            self._timer.set("content", max(self._content_clock.left(deadlines), 0.001))
        else:
            self._timer.set(("command", session.lines), deadlines.command)
        self._hold(hold=(ours and session.full) or self._busy or self._blocked)

    def _hold(self, *, hold: bool) -> None:
        if hold != self._paused and self.session.state is not ServerState.CLOSED:
            self._paused = hold
            transport: Any = self.transport
            (transport.pauseProducing if hold else transport.resumeProducing)()

    def _late(self, key: Hashable) -> None:
        if key == "content" and self._content_clock.left(self.factory.deadlines) > 0:
            self._regulate()
        elif key in {"closing", "handshake", "reading"}:
            transport: Any = self.transport
            transport.abortConnection()
        else:
            self.session.close(_TOO_SLOW)
            self._pump()

    def _ask(self, call: Callable[[], object], then: Callable[[object], None]) -> None:
        """Call the receiver, and go on with what comes of it, now or later."""
        try:
            result = call()
        except Exception:  # noqa: BLE001 - whatever it is, the client gets 451
            _log.failure("a receiver failed")
            result = _TROUBLE
        if isinstance(result, Awaitable):
            self._busy = True
            self._thought = Deferred.fromCoroutine(self._wait(result, then))
        else:
            then(result)

    async def _wait(self, result: Awaitable[object], then: Callable[[object], None]) -> None:
        answer: object = _TROUBLE
        try:
            answer = await result
        except CancelledError:
            if not self._over:
                _log.failure("a receiver was cancelled")
        except Exception:  # noqa: BLE001 - as above
            _log.failure("a receiver failed")
        self._busy = False
        then(answer)
        self._pump()

    # -- what the session wants -----------------------------------------------

    def _hello(self, event: happened.HelloSaid) -> None:
        self.connection.hello = event.domain

    def _start_tls(self, event: happened.TLSWanted) -> None:
        self._flush()
        self.factory.start_tls(self)

    def _auth(self, event: happened.AuthStarted) -> None:
        accounts = self.factory.accounts
        if accounts is None:
            self.session.answer(_TROUBLE)
            return
        self._login = Login(self.session.challenge, self._pump, self._logged_in)
        self._login.start(event.mechanism, event.initial, accounts)

    def _auth_response(self, event: happened.AuthContinued) -> None:
        if self._login is not None:
            self._login.response(event.response)

    def _auth_cancelled(self, event: happened.AuthCancelled) -> None:
        if self._login is not None:
            self._login.cancel()

    def _logged_in(self, result: tuple[str, object] | Reply) -> None:
        self._login = None
        if isinstance(result, Reply):
            delay = self.factory.deadlines.failed_login if result.code == 535 else 0
            if delay:
                self.factory.clock.callLater(delay, self._answer, result)
            else:
                self._answer(result)
            return
        self.connection.user, self.connection.avatar = result
        self._answer(Reply(235, ("2.7.0 Authentication successful",)))

    def _answer(self, *replies: Reply) -> None:
        if not self._over:
            self.session.answer(*replies)
            self._pump()

    def _sender(self, event: happened.SenderGiven) -> None:
        receiver = self._receiver = self.factory.receiver(self.connection)

        def decided(answer: object) -> None:
            reply = _reply(answer)
            if reply is not None and reply.code >= 400:
                self._void()
            self.session.answer(reply or _OK)

        self._ask(lambda: receiver.sender(event.sender, event.parameters), decided)

    def _recipient(self, event: happened.RecipientGiven) -> None:
        receiver = self._receiver
        if receiver is not None:
            self._ask(
                lambda: receiver.recipient(event.recipient),
                lambda answer: self.session.answer(_reply(answer) or _OK),
            )

    def _content(self, event: happened.ContentOffered) -> None:
        self._content_clock = ContentClock(self.factory.clock)
        self.session.answer(_GO_AHEAD)

    def _data(self, event: happened.ContentArrived) -> None:
        receiver = self._receiver

        def written(answer: object) -> None:
            reply = _reply(answer)
            if reply is not None and reply.code >= 400:
                self._void()
                self.session.refuse_content(reply)

        if receiver is not None:
            self._ask(lambda: receiver.write(event.data), written)

    def _commit(self, event: happened.ContentEnded) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            self.session.answer(_TROUBLE)
            return
        default = Reply(250, (f"2.0.0 Ok: queued as {receiver.id}",))

        def decided(verdict: object) -> None:
            if isinstance(verdict, Sequence) and not isinstance(verdict, Reply) and verdict:
                self.session.answer(*verdict)
            else:
                self.session.answer(_reply(verdict) or default)

        self._ask(receiver.commit, decided)

    def _aborted(self, event: happened.TransactionAborted) -> None:
        self._void()

    def _void(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._abort(receiver)

    def _abort(self, receiver: Receiver) -> None:
        async def abort() -> None:
            try:
                result = receiver.abort()
                if result is not None:
                    await result
            except Exception:  # noqa: BLE001 - there is nobody left to tell but the log
                _log.failure("a receiver failed to abort")

        self._aborting = Deferred.fromCoroutine(abort())

    def _ended(self, event: happened.SessionEnded) -> None:
        self._flush()
        transport: Any = self.transport
        if self._paused:
            # Only who reads notices that the other side has gone.
            self._paused = False
            transport.resumeProducing()
        transport.unregisterProducer()
        transport.loseConnection()

    _HANDLERS: ClassVar[dict[type[happened.Event], Callable[[SMTPServerProtocol, Any], None]]] = {
        happened.HelloSaid: _hello,
        happened.TLSWanted: _start_tls,
        happened.AuthStarted: _auth,
        happened.AuthContinued: _auth_response,
        happened.AuthCancelled: _auth_cancelled,
        happened.SenderGiven: _sender,
        happened.RecipientGiven: _recipient,
        happened.ContentOffered: _content,
        happened.ContentArrived: _data,
        happened.ContentEnded: _commit,
        happened.TransactionAborted: _aborted,
        happened.SessionEnded: _ended,
    }


def _reply(answer: object) -> Reply | None:
    """What a receiver answered; what makes no sense is our trouble."""
    if answer is None or isinstance(answer, Reply):
        return answer
    _log.error("a receiver answered {answer!r}, which is no Reply", answer=type(answer))
    return _TROUBLE
