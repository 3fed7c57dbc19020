"""One connection: the transport on one side, session and receiver on the other.

It moves octets, asks the receiver what the session wants to know, starts TLS, runs
the exchanges of AUTH, keeps the deadlines, and holds back whoever is too fast: the
client while a receiver is thinking, ourselves while the client does not read.
What is allowed is the session's business, what is accepted the receiver's.

RFC 5321 section 4.5.3.2 (timeouts), RFC 3207 (STARTTLS), RFC 3848 (protocol names).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from twisted_sendmail.ingress.deadlines import ContentClock, Timer
from twisted_sendmail.ingress.login import Login
from twisted_sendmail.ingress.prompt_writer import PromptWriter
from twisted_sendmail.ingress.receiver import Connection
from twisted_sendmail.ingress.reception import TROUBLE, Reception
from twisted_sendmail.ingress.tls import server_tls_facts
from twisted_sendmail.smtp import server_event as happened
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_prompt import PromptSession
from twisted_sendmail.smtp.server_table import ServerState

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.python.failure import Failure

    from twisted_sendmail.ingress.authentication import Avatar
    from twisted_sendmail.ingress.factory import SMTPServerFactory
    from twisted_sendmail.smtp.server_settings import ServerSettings

_TOO_SLOW = Reply(421, ("4.4.2 That took too long",))
_GOING_DOWN = Reply(421, ("4.3.2 Going down: try again later",))
_BETWEEN_MESSAGES = {
    ServerState.GREETED,
    ServerState.READY,
    ServerState.AUTH,
    ServerState.MAIL,
    ServerState.RCPT,
}


@implementer(IHandshakeListener, IPushProducer)
class SMTPServerProtocol(Protocol):
    """Made by :class:`~twisted_sendmail.ingress.factory.SMTPServerFactory`.

    :param settings: what this client is offered.
    :param greeting: None to serve; anything but a 220 is said instead, and the end.
    """

    factory: SMTPServerFactory

    def __init__(
        self, factory: SMTPServerFactory, settings: ServerSettings, greeting: Reply | None = None
    ) -> None:
        self.factory = factory
        self._settings = settings
        self._greeting = greeting
        self._login: Login | None = None
        self._avatar: Avatar | None = None
        self._timer = Timer(factory.clock, self._late)
        self._content_clock = ContentClock(factory.clock)
        self._pumping = self._blocked = self._paused = self._over = False
        self._winding_up = False
        #: The session, where it can be told of a usual message in a few words.
        self._prompt: PromptSession | None = None

    # -- the transport's side -------------------------------------------------

    def connectionMade(self) -> None:
        """Greet, or in implicit TLS wait for the handshake."""
        transport: Any = self.transport
        tls = ISSLTransport.providedBy(transport)
        self.session = self.factory.session(self._settings, tls=tls)
        self.connection = Connection(
            self._settings.host, transport.getPeer(), transport.getHost(), self.session.transcript
        )
        self._reception = Reception(self.factory, self.session, self.connection, self._go_on)
        if isinstance(self.session, PromptSession):
            self._prompt = self.session
        transport.registerProducer(self, True)
        self._writer = PromptWriter(transport)
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
            self.connection.hello = self.connection.verb = self.connection.user = None
            self._log_out()
            self.session.tls_started()
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        if self._free() and self._hear(data):
            return
        self._content_clock.octets += len(data)
        self.session.receive(data)
        self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """What is half done is void; what is being committed goes on."""
        self._over = True
        self._timer.stop()
        if self._login is not None:
            self._login.cancel()
        self._reception.connection_lost()
        self._log_out()
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

    def wind_up(self) -> None:
        """Hang up with 421: at once, or when the message under way has its reply."""
        self._winding_up = True
        self._pump()

    # -- the usual message ----------------------------------------------------

    def _free(self) -> bool:
        """Is there nothing to be done, and nothing in the way of what comes next?"""
        if self._pumping or self._over or self._blocked or self._paused or self._winding_up:
            return False
        return self._prompt is not None and self._prompt.idle

    def _hear(self, data: bytes) -> bool:
        """Take *data* if it is what nearly every client says; else it is for the pump."""
        session, reception = self._prompt, self._reception
        if session is None:
            return False
        self._pumping = True
        try:
            if session.state is ServerState.DATA:
                content = session.whole_content(data)
                if content is None:
                    return False
                reception.whole(session, content[0], data)
                if content[1]:
                    session.receive(content[1])
            else:
                commands = session.usual_commands(data)
                if commands is None:
                    return False
                if commands.data:
                    self._content_clock = ContentClock(self.factory.clock)
                reception.usual(session, commands)
        finally:
            self._pumping = False
        if reception.busy and not self._over and not (session.output_waits or session.full):
            # Nothing to be said, and the time is ours.
            self._content_clock.stop()
            self._timer.clear()
        else:
            self._go_on()
        return True

    def _go_on(self) -> None:
        """Something was answered, or heard: do what it leads to."""
        session = self.session
        if not self._free():
            self._pump()
            return
        self._flush()
        if self._blocked:
            self._regulate()
        elif session.state is ServerState.DATA:
            self._content_clock.run()
            self._timer.set("content", max(self.factory.deadlines.content, 0.001))
        else:
            self._timer.set(("command", session.lines), self.factory.deadlines.command)

    # -- the pump -------------------------------------------------------------

    def _pump(self) -> None:
        """Do all that can be done now, and write what there is to write, at once."""
        if self._pumping or self._over:
            return
        self._pumping = True
        try:
            while not (self._blocked or self._reception.busy):
                if self._winding_up:
                    self._close_between_messages()
                event = self.session.next_event()
                if event is None:
                    # Much to say: let it go first, and see whether anybody takes it.
                    if not self.session.verbose:
                        break
                    self._flush()
                    continue
                self._HANDLERS[type(event)](self, event)
        finally:
            self._pumping = False
        self._flush()
        self._regulate()

    def _close_between_messages(self) -> None:
        session = self.session
        between = session.state in _BETWEEN_MESSAGES and not session.reading_content
        if between and not session.asking:
            session.close(_GOING_DOWN)

    def _flush(self) -> None:
        data = self.session.output()
        if data and self.transport is not None:
            self._writer.write(data)

    def _regulate(self) -> None:
        """Let the client's time run or stand, and its octets come or wait."""
        if self._over:
            return
        session, deadlines = self.session, self.factory.deadlines
        ours = self._reception.busy or session.asking
        reading = session.reading_content
        if reading and not ours and not self._blocked:
            self._content_clock.run()
        else:
            self._content_clock.stop()
        if session.state is ServerState.CLOSED:
            self._timer.set("closing", deadlines.closing)
        elif session.state is ServerState.OPENING or session.state is ServerState.HANDSHAKE:
            self._timer.set("handshake", deadlines.handshake)
        elif self._blocked:
            self._timer.set("reading", deadlines.reading)
        elif ours:
            self._timer.clear()
        elif reading:
            self._timer.set("content", max(self._content_clock.left(deadlines), 0.001))
        else:
            self._timer.set(("command", session.lines), deadlines.command)
        # A little may wait with us; so the end of the connection is noticed while we think.
        self._hold(hold=session.full and (ours or self._blocked))

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

    # -- what the session wants -----------------------------------------------

    def _hello(self, event: happened.HelloSaid) -> None:
        self.connection.hello, self.connection.verb = event.domain, event.verb

    def _start_tls(self, event: happened.TLSWanted) -> None:
        self._flush()
        self._writer.patient()
        self.factory.start_tls(self)

    def _auth(self, event: happened.AuthStarted) -> None:
        accounts = self.factory.accounts
        if accounts is None:
            self.session.answer(TROUBLE)
            return
        self._login = Login(self.session.challenge, self._pump, self._logged_in)
        self._login.start(event.mechanism, event.initial, accounts)

    def _auth_response(self, event: happened.AuthContinued) -> None:
        if self._login is not None:
            self._login.response(event.response)

    def _auth_cancelled(self, event: happened.AuthCancelled) -> None:
        if self._login is not None:
            self._login.cancel()

    def _logged_in(self, result: tuple[str, Avatar] | Reply) -> None:
        self._login = None
        if isinstance(result, Reply):
            delay = self.factory.deadlines.failed_login if result.code == 535 else 0
            if delay:
                self.factory.clock.callLater(delay, self._answer, result)
            else:
                self._answer(result)
            return
        self.connection.user, self._avatar = result
        self.connection.avatar = self._avatar.value
        self._answer(Reply(235, ("2.7.0 Authentication successful",)))

    def _log_out(self) -> None:
        avatar, self._avatar = self._avatar, None
        if avatar is not None:
            avatar.logout()

    def _answer(self, *replies: Reply) -> None:
        if not self._over:
            self.session.answer(*replies)
            self._pump()

    def _sender(self, event: happened.SenderGiven) -> None:
        self._reception.sender(event)

    def _recipient(self, event: happened.RecipientGiven) -> None:
        self._reception.recipient(event)

    def _content(self, event: happened.ContentOffered) -> None:
        self._content_clock = ContentClock(self.factory.clock)
        self._reception.begin()

    def _data(self, event: happened.ContentArrived) -> None:
        self._reception.data(event)

    def _commit(self, event: happened.ContentEnded) -> None:
        self._reception.commit()

    def _aborted(self, event: happened.TransactionAborted) -> None:
        self._reception.void()

    def _ended(self, event: happened.SessionEnded) -> None:
        self._flush()
        transport: Any = self.transport
        if self._paused:
            # Only who reads notices that the other side has gone.
            self._paused = False
            transport.resumeProducing()
        transport.unregisterProducer()
        transport.loseConnection()

    _HANDLERS: ClassVar[dict[type[happened.Event], Callable[[Any, Any], None]]] = {
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
