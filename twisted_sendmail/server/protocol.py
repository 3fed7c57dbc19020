"""One connection of the server: moves octets between transport and session, and keeps the deadlines.

**Theory of operation.**  Three objects serve a connection.  :class:`SMTPServerProtocol` belongs to
the transport.  :class:`~twisted_sendmail.smtp.server.ServerSession` decides what SMTP allows.
:class:`~twisted_sendmail.server.receiver.MessageHandler` answers the session from the application's
receiver and accounts.  A flight of the client's octets takes this way::

    dataReceived(octets)
      session.receive(octets)
      session.run()                    parses each command, and
        handler.mail(…), .rcpt(…)      calls the receiver: None, a Reply, or PENDING
      transport.write(session.output())     all replies of the flight in one piece
      _regulate()                      deadline, back-pressure, close

After PENDING the session stops; ``_resume`` brings the answer when the receiver's Deferred has
fired, and pumps again.  ``run`` also stops after some hundred commands; then the pump goes on in the
next turn of the reactor, so that a client that sends many commands at once does not delay others.

**Deadlines.**  There is one at a time.  ``_regulate`` chooses it from the state: a TLS handshake, the
next command, the content, or that the client reads our replies.  While a receiver's answer is
awaited there is none.  Arriving octets do not move a deadline: only a whole command does, and for
content the octets at a least rate (``timeouts``).

**Back-pressure.**  While the client does not read (``pauseProducing``), no command is executed.  While
that lasts, or an answer is awaited, reading pauses as soon as the session's buffer is full; before
that octets are buffered, so that the end of the connection is noticed.

**The end of a connection** comes in four ways.  After QUIT, a deadline or ``wind_up`` the last reply
is written and the transport closed.  When the session ends while the client may still be sending
(``session.discarding``), only our half is closed, and the client's octets are discarded for
``ServerTimeouts.discarding`` seconds or until it closes: closing a socket with unread octets resets
the connection, and a reset can overtake the last reply.  A client that has closed its half (``nc
-N``, Exim) gets the replies to all that it has sent, also those that a receiver gives later; then
the transport is closed.  A connection that is lost ends everything but a commit.

**Invariants.**  Nothing is read or written by the session after ``connectionLost``.  Replies are
written in the order of the commands.  ``_pump`` does not run inside itself: what a callback resumes
is done by the pump that is running.

RFC 5321 section 4.5.3.2 (timeouts), RFC 3207 (STARTTLS), RFC 3848 (protocol names).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from twisted_sendmail.local_users import peer_of
from twisted_sendmail.server.connection_info import ConnectionInfo
from twisted_sendmail.server.receiver import MessageHandler
from twisted_sendmail.server.timeouts import ContentClock
from twisted_sendmail.server.tls import server_binding, server_tls_facts
from twisted_sendmail.smtp import Reply, ServerState, Transcript
from twisted_sendmail.socket_writer import SocketWriter
from twisted_sendmail.timer import Timer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_sendmail.server.factory import SMTPServerFactory
    from twisted_sendmail.smtp import ServerSettings

_TOO_SLOW = Reply(421, ("4.4.2 Timeout exceeded",))
_GOING_DOWN = Reply(421, ("4.3.2 Service shutting down, try again later",))
_CLOSED, _CHUNKS = ServerState.CLOSED, ServerState.CHUNKS
_IN_HANDSHAKE = frozenset({ServerState.OPENING, ServerState.HANDSHAKE})
# After ``wind_up`` a session stays in RCPT only while an answer is awaited: the commit of a BDAT.
_WITH_MESSAGE = frozenset({ServerState.RCPT, ServerState.DATA, ServerState.CHUNKS})


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class SMTPServerProtocol(Protocol):
    """One connection; made by :class:`~twisted_sendmail.server.factory.SMTPServerFactory`.

    :param settings: the offer to this client.
    :param greeting: None to serve; a reply other than 220 is written, and the connection closed.
    """

    factory: SMTPServerFactory

    def __init__(
        self, factory: SMTPServerFactory, settings: ServerSettings, greeting: Reply | None = None
    ) -> None:
        self.factory = factory
        self._settings = settings
        self._greeting = greeting
        self._timer = Timer(factory.clock, self._late)
        self._content_clock = ContentClock(factory.clock)
        #: The number of the content that the clock measures.
        self._content = 0
        #: ``_pump`` is running.
        self._pumping = False
        #: Calls ``_go_on`` in the next turn of the reactor.
        self._going_on: IDelayedCall | None = None
        #: The client does not read what is written.
        self._blocked = False
        #: Reading is paused.
        self._paused = False
        #: The client sends no more.
        self._half_closed = False
        #: Our half is closed, and what the client still sends is discarded.
        self._discarding = False
        #: ``loseConnection`` was called.
        self._closing = False
        #: The connection is gone.
        self._over = False
        self._writer = SocketWriter(None)

    # -- the transport's side -------------------------------------------------

    def connectionMade(self) -> None:
        """Send the greeting, or in implicit TLS wait for the handshake."""
        transport: Any = self.transport
        tls = ISSLTransport.providedBy(transport)
        handle = getattr(transport, "getHandle", None)
        self.connection = ConnectionInfo(
            self._settings.host,
            transport.getPeer(),
            transport.getHost(),
            Transcript(),
            None if handle is None else peer_of(handle()),
        )
        self._handler = MessageHandler(
            self.factory, self.connection, self._resume, self._start_tls, self._binding
        )
        self.session = self.factory.session(self._settings, self._handler, tls=tls)
        self.connection.transcript = self.session.transcript
        self._writer = SocketWriter(transport)
        transport.registerProducer(self, True)
        refusal = self.factory.opened(self)
        if refusal is not None:
            self._greeting = refusal
        if tls:
            self._timer.set("handshake", self.factory.deadlines.handshake)
        else:
            self.session.greet(self._greeting)
            self._pump()

    def handshakeCompleted(self) -> None:
        """Greet, or start the session again after STARTTLS."""
        self.connection.tls = server_tls_facts(self.transport)
        if self.session.state is ServerState.OPENING:
            self.session.transcript.add("--", "TLS started")
            self.session.greet(self._greeting)
        else:
            self._handler.tls_started()
            self.session.tls_started()
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        """Take octets from the client."""
        self._content_clock.octets += len(data)
        self.session.receive(data)
        self._pump()

    def readConnectionLost(self) -> None:
        """Reply to all that the client has sent, then close: it sends no more."""
        self._half_closed = True
        self._pump()

    def writeConnectionLost(self) -> None:
        """Close: the client reads no more, unless ``_close`` has closed our half."""
        if not self._discarding:
            transport: Any = self.transport
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Abort what has begun; a commit goes on."""
        self._over = True
        self._timer.stop()
        if self._going_on is not None:
            self._going_on.cancel()
        self._handler.connection_lost()
        self.session.end("connection lost")
        self.factory.closed(self)

    def pauseProducing(self) -> None:
        """Execute no command while the client does not read."""
        self._blocked = True
        self._regulate()

    def resumeProducing(self) -> None:
        """Go on: the client reads again."""
        self._blocked = False
        self._pump()

    def stopProducing(self) -> None:
        """Execute no command: ``connectionLost`` follows."""
        self._blocked = True

    @property
    def in_handshake(self) -> bool:
        """True while a TLS handshake is awaited."""
        return self.session.state in _IN_HANDSHAKE

    @property
    def carries_message(self) -> bool:
        """True while content is received or committed, or can be next; after :meth:`wind_up`."""
        session = self.session
        return session.reading_content or session.state in _WITH_MESSAGE

    def wind_up(self) -> None:
        """Close with 421: at once, or when the message under way has its reply."""
        self.session.discarding = False
        self.session.close_after_message(_GOING_DOWN)
        self._pump()

    # -- the pump -------------------------------------------------------------

    def _pump(self) -> None:
        """Do all that can be done now, and write the replies in one piece."""
        if self._pumping or self._over or self._going_on is not None:
            return
        session = self.session
        self._pumping = True
        try:
            more = not self._blocked and session.run()
        finally:
            self._pumping = False
        self._flush()
        if more:
            self._going_on = self.factory.clock.callLater(0, self._go_on)
        elif self._half_closed and not (session.pending or self._blocked):
            # The buffer holds an incomplete command or message.
            session.end("connection closed")
        self._regulate()

    def _go_on(self) -> None:
        self._going_on = None
        self._pump()

    def _resume(self, answer: Any) -> None:
        """Give the session an answer that was awaited."""
        if not self._over:
            self.session.resume(answer)
            self._pump()

    def _binding(self, kind: str) -> bytes | None:
        return None if self.connection.tls is None else server_binding(self.transport, kind)

    def _start_tls(self) -> None:
        self._flush()
        self.factory.start_tls(self)
        # From now on the transport encrypts what is written.
        self._writer = SocketWriter(self.transport)

    def _flush(self) -> None:
        data = self.session.output()
        if data:
            self._writer.write(data)

    def _regulate(self) -> None:
        """Start or stop the client's deadline, and reading."""
        if self._over:
            return
        session, deadlines, timer = self.session, self.factory.deadlines, self._timer
        state = session.state
        if state is _CLOSED:
            self._close()
            return
        stalled = self._blocked or session.pending is not None or self._going_on is not None
        reading = session.reading_content
        seconds = deadlines.command
        if reading or state is _CHUNKS:
            if session.contents != self._content:
                self._content = session.contents
                self._content_clock = ContentClock(self.factory.clock)
            if stalled:
                self._content_clock.stop()
            else:
                self._content_clock.run()
                left = max(self._content_clock.left(deadlines), 0.001)
                # Between two chunks a command is awaited, in the time of the content.
                seconds = left if reading else min(left, seconds)
        if state in _IN_HANDSHAKE:
            timer.set("handshake", deadlines.handshake)
        elif self._blocked:
            timer.set("reading", deadlines.reading)
        elif stalled:
            timer.clear()
        else:
            timer.set("content" if reading else session.lines, seconds)
        # A little may wait in the buffer; so the end of the connection is noticed meanwhile.
        hold = stalled and session.full
        if hold or self._paused:
            self._hold(hold=hold)

    def _hold(self, *, hold: bool) -> None:
        if hold != self._paused:
            self._paused = hold
            transport: Any = self.transport
            (transport.pauseProducing if hold else transport.resumeProducing)()

    def _close(self) -> None:
        """Close the transport, at once or when the client's octets have been discarded."""
        if self._closing:
            return
        deadlines, transport = self.factory.deadlines, cast("Any", self.transport)
        # Without reading, the end of the connection would not be noticed.
        self._hold(hold=False)
        # In TLS loseConnection goes on reading until the client has closed too.
        close_half = getattr(transport, "loseWriteConnection", None)
        if (
            self.session.discarding
            and close_half is not None
            and not (self._half_closed or self.session.tls)
        ):
            if not self._discarding:
                self._discarding = True
                self._timer.set("discarding", deadlines.discarding)
                transport.unregisterProducer()
                close_half()
            return
        self._closing = True
        self._timer.set("closing", deadlines.closing)
        transport.unregisterProducer()
        transport.loseConnection()

    def _late(self, key: object) -> None:
        if key == "content" and self._content_clock.left(self.factory.deadlines) > 0:
            self._regulate()
        elif key == "discarding":
            self.session.discarding = False
            self._close()
        elif key in {"closing", "handshake", "reading"}:
            transport: Any = self.transport
            transport.abortConnection()
        else:
            self.session.close(_TOO_SLOW)
            self._pump()
